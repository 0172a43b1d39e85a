/* Prints every exception and interrupt with the registers that tests/guest/traps.c prints. With
 * skip=on it steps over the instruction of an exception, two bytes long. */
#include "bytes.h"

#include <stdio.h>
#include <string.h>

#define FLAGS 0xcd5ull /* CF PF AF ZF SF DF OF */

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static struct bytes buffer;
static struct qemu_plugin_register *rax, *rip, *eflags, *xmm5;
static bool skips;

static uint64_t read_reg(struct qemu_plugin_register *reg)
{
    uint64_t value = 0;
    buffer.array.len = 0;
    if (!qemu_plugin_read_register(reg, &buffer.array))
        fprintf(stderr, "read_register FAILED\n");
    memcpy(&value, buffer.array.data, buffer.array.len < 8 ? buffer.array.len : 8);
    return value;
}

static void vcpu_init(unsigned vcpu, void *userdata)
{
    (void)vcpu, (void)userdata;
    GArray *all = qemu_plugin_get_registers();
    const qemu_plugin_reg_descriptor *d = (const qemu_plugin_reg_descriptor *)all->data;
    rax = d[0].handle;
    rip = d[16].handle;
    eflags = d[17].handle;
    for (unsigned i = 0; i < all->len; i++)
        if (!strcmp(d[i].name, "xmm5"))
            xmm5 = d[i].handle;
}

static void vcpu_discon(unsigned vcpu, enum qemu_plugin_discon_type type, uint64_t from,
                        uint64_t to, void *userdata)
{
    static const char *const names[] = {NULL, "interrupt", "exception"};
    (void)vcpu, (void)userdata;
    fprintf(stderr, "%s %llx to %llx rax %llx xmm5 %x flags %llx\n", names[type],
            (unsigned long long)from, (unsigned long long)to, (unsigned long long)read_reg(rax),
            (uint32_t)read_reg(xmm5), read_reg(eflags) & FLAGS);
    if (read_reg(rip) != from)
        fprintf(stderr, "rip FAILED\n");
    if (skips && type == QEMU_PLUGIN_DISCON_EXCEPTION)
        qemu_plugin_set_pc(from + 2);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    (void)info;
    skips = argc && !strcmp(argv[0], "skip=on");
    if (!bytes_init(&buffer, 64))
        return -1;
    qemu_plugin_register_vcpu_init_cb(id, vcpu_init, NULL);
    qemu_plugin_register_vcpu_discon_cb(id, QEMU_PLUGIN_DISCON_ALL, vcpu_discon, NULL);
    return 0;
}
