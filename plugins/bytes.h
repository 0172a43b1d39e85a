/* bytes.h: a GByteArray for plugins that use libc only.
 *
 * GLib's private layout, so that a GLib that another plugin brought may handle it too. It never
 * grows: room must suffice for what is asked for. */
#ifndef BYTES_H
#define BYTES_H

#include <qemu-plugin.h>
#include <stdlib.h>

struct bytes {
    union {
        GByteArray array;
        struct {
            uint8_t *data;
            unsigned len, room; /* room lies in the padding of array */
        };
    };
    unsigned element_size, bits;
    int refs;
    void (*clear)(void *);
};
_Static_assert(offsetof(struct bytes, array.len) == offsetof(struct bytes, len), "as in array");
_Static_assert(offsetof(struct bytes, element_size) == 16 && offsetof(struct bytes, refs) == 24 &&
                   sizeof(struct bytes) == 40,
               "as GLib has them");

static inline bool bytes_init(struct bytes *b, unsigned room)
{
    *b = (struct bytes){.room = room, .element_size = 1, .refs = 1};
    b->data = malloc(room);
    return b->data;
}

#endif
