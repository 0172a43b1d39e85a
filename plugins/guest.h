/* guest.h: the guest's registers and memory, as numbers. */
#ifndef GUEST_H
#define GUEST_H

#include "bytes.h"

#include <string.h>

/* Handle of the register of that name; a vCPU must run. */
static inline struct qemu_plugin_register *find_register(const char *name)
{
    const GArray *all = qemu_plugin_get_registers();
    for (unsigned i = 0; i < all->len; i++) {
        const qemu_plugin_reg_descriptor *d = (const qemu_plugin_reg_descriptor *)all->data + i;
        if (!strcmp(d->name, name))
            return d->handle;
    }
    return NULL;
}

static inline uint64_t read_register(struct bytes *room, struct qemu_plugin_register *handle)
{
    uint64_t value = 0;
    room->len = 0;
    qemu_plugin_read_register(handle, &room->array);
    memcpy(&value, room->data, sizeof value);
    return value;
}

static inline bool read_memory(struct bytes *room, uint64_t addr, void *to, size_t size)
{
    if (!qemu_plugin_read_memory_vaddr(addr, &room->array, size))
        return false;
    memcpy(to, room->data, size);
    return true;
}

/* True if a function that starts with this stack pointer is a signal handler: it will return to
 * code that does rt_sigreturn, which looks the same everywhere because debuggers go by it too. */
static inline bool starts_handler(struct bytes *room, uint64_t sp)
{
    static const uint8_t code[] = {0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05};
    uint64_t ret;
    uint8_t there[sizeof code];
    return read_memory(room, sp, &ret, sizeof ret) && read_memory(room, ret, there, sizeof there) &&
           !memcmp(there, code, sizeof code);
}

#endif
