/* traps.c: counts interrupts, exceptions and host calls per vCPU. In user mode exceptions are what
 * becomes SIGSEGV, SIGILL, SIGTRAP, SIGFPE or the like, interrupts are signals from outside (QEMU
 * reports neither those nor page faults); there are no host calls. */
#define EMU_PLUGIN_API_VERSION 5
#include "options.h"

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

struct counts {
    uint64_t interrupts, exceptions, hostcalls;
};

static struct qemu_plugin_scoreboard *counts;

static void vcpu_discon(qemu_plugin_id_t id, unsigned vcpu, enum qemu_plugin_discon_type type,
                        uint64_t from_pc, uint64_t to_pc)
{
    (void)id, (void)from_pc, (void)to_pc;
    struct counts *c = qemu_plugin_scoreboard_find(counts, vcpu);
    c->interrupts += type == QEMU_PLUGIN_DISCON_INTERRUPT;
    c->exceptions += type == QEMU_PLUGIN_DISCON_EXCEPTION;
    c->hostcalls += type == QEMU_PLUGIN_DISCON_HOSTCALL;
}

static void plugin_exit(qemu_plugin_id_t id, void *userdata)
{
    (void)id, (void)userdata;
    outf("VCPU, interrupts, exceptions, hostcalls\n");
    for (int i = 0; i < qemu_plugin_num_vcpus(); i++) {
        const struct counts *c = qemu_plugin_scoreboard_find(counts, (unsigned)i);
        outf("%4d, %10" PRIu64 ", %10" PRIu64 ", %10" PRIu64 "\n", i, c->interrupts, c->exceptions,
             c->hostcalls);
    }
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    (void)argc, (void)argv;
    if (!info->system_emulation)
        outf("Note: host calls do not happen in user mode.\n");
    counts = qemu_plugin_scoreboard_new(sizeof(struct counts));
    qemu_plugin_register_vcpu_discon_cb(id, QEMU_PLUGIN_DISCON_ALL, vcpu_discon);
    qemu_plugin_register_atexit_cb(id, plugin_exit, NULL);
    return 0;
}
