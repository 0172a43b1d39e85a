/* bytes.h: a GByteArray for plugins that use libc only.
 *
 * GLib's private layout, so that a GLib that another plugin brought may handle it too. It never
 * grows: room must suffice for what is asked for. */
#ifndef BYTES_H
#define BYTES_H

#include <qemu-plugin.h>
#include <stdlib.h>

struct bytes {
    GByteArray array;
    unsigned room, element_size, bits;
    int refs;
    void (*clear)(void *);
};
_Static_assert(offsetof(struct bytes, array.len) == 8, "data, len");

static inline bool bytes_init(struct bytes *b, unsigned room)
{
    *b = (struct bytes){.room = room, .element_size = 1, .refs = 1};
    b->array.data = malloc(room);
    return b->array.data;
}

#endif
