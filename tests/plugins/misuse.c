/* Breaks the rules of the API in one way, named by its option. */
#include <qemu-plugin.h>
#include <stddef.h>
#include <string.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static const char *way;
static qemu_plugin_id_t my_id;
static struct qemu_plugin_insn *kept;
static qemu_plugin_u64 none;

static int is(const char *name)
{
    return !strcmp(way, name);
}

static void vcpu_exec(unsigned vcpu, void *userdata)
{
    (void)vcpu, (void)userdata;
    if (is("stale"))
        qemu_plugin_insn_vaddr(kept);
    if (is("outside"))
        qemu_plugin_register_vcpu_insn_exec_cb(kept, vcpu_exec, QEMU_PLUGIN_CB_NO_REGS, NULL);
    if (is("value"))
        qemu_plugin_mem_get_value(0);
    if (is("buffer"))
        qemu_plugin_read_register((struct qemu_plugin_register *)1, NULL);
    if (is("score"))
        qemu_plugin_u64_add(none, vcpu, 1);
    if (is("vcpu"))
        qemu_plugin_scoreboard_find((struct qemu_plugin_scoreboard *)userdata, 999);
}

static void vcpu_tb_trans(struct qemu_plugin_tb *tb, void *userdata)
{
    kept = qemu_plugin_tb_get_insn(tb, 0);
    if (is("block"))
        qemu_plugin_tb_n_insns(NULL);
    if (is("instruction"))
        qemu_plugin_insn_disas(NULL);
    if (is("flags"))
        qemu_plugin_register_vcpu_tb_exec_cb(tb, vcpu_exec, (enum qemu_plugin_cb_flags)77, NULL);
    if (is("operation"))
        qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, (enum qemu_plugin_op)7, none, 1);
    if (is("inline"))
        qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64, none, 1);
    if (is("condition"))
        qemu_plugin_register_vcpu_tb_exec_cond_cb(tb, vcpu_exec, QEMU_PLUGIN_CB_NO_REGS,
                                                  (enum qemu_plugin_cond)9, none, 1, NULL);
    qemu_plugin_register_vcpu_insn_exec_cb(kept, vcpu_exec, QEMU_PLUGIN_CB_R_REGS, userdata);
}

static void at_exit(void *userdata)
{
    (void)userdata;
    if (is("late"))
        qemu_plugin_register_flush_cb(my_id, at_exit, NULL);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    (void)info;
    way = argc ? argv[0] + strcspn(argv[0], "=") + 1 : "";
    my_id = id;
    if (is("registers"))
        qemu_plugin_get_registers();
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans, qemu_plugin_scoreboard_new(8));
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
    return 0;
}
