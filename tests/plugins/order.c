/* Shows the order of callbacks: prints NAME and the place, for the first block only. */
#include <qemu-plugin.h>
#include <stdio.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static const char *const places[] = {"tb 1", "tb 2", "insn 1", "insn 2", "insn 2nd"};
static int shown;

static void show(unsigned vcpu, void *userdata)
{
    (void)vcpu;
    if (shown++ < 5)
        fprintf(stderr, "%s: %s\n", NAME, (const char *)userdata);
}

static void vcpu_tb_trans(struct qemu_plugin_tb *tb, void *userdata)
{
    (void)userdata;
    const enum qemu_plugin_cb_flags flags = QEMU_PLUGIN_CB_NO_REGS;
    if (qemu_plugin_tb_n_insns(tb) < 2)
        return;
    struct qemu_plugin_insn *first = qemu_plugin_tb_get_insn(tb, 0);
    struct qemu_plugin_insn *second = qemu_plugin_tb_get_insn(tb, 1);
    /* Registered from back to front: the place decides, then the order of registration. */
    qemu_plugin_register_vcpu_insn_exec_cb(second, show, flags, (void *)places[4]);
    qemu_plugin_register_vcpu_insn_exec_cb(first, show, flags, (void *)places[2]);
    qemu_plugin_register_vcpu_tb_exec_cb(tb, show, flags, (void *)places[0]);
    qemu_plugin_register_vcpu_insn_exec_cb(first, show, flags, (void *)places[3]);
    qemu_plugin_register_vcpu_tb_exec_cb(tb, show, flags, (void *)places[1]);
}

static void vcpu_init(unsigned vcpu, void *userdata)
{
    fprintf(stderr, "%s: init %u%s\n", NAME, vcpu, userdata ? " FAILED" : "");
}

static void replaced(unsigned vcpu, void *userdata)
{
    (void)vcpu, (void)userdata;
    fprintf(stderr, "%s: replaced callback FAILED\n", NAME);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_init_cb(id, replaced, &shown);
    qemu_plugin_register_vcpu_init_cb(id, vcpu_init, NULL);
    qemu_plugin_register_vcpu_exit_cb(id, replaced, NULL);
    qemu_plugin_register_vcpu_exit_cb(id, NULL, NULL);
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans, NULL);
    return 0;
}
