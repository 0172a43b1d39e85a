/* reset.c: exercises qemu_plugin_reset and qemu_plugin_uninstall: the first block that runs resets
 * the plugin, the first one after that uninstalls it. */
#define EMU_PLUGIN_API_VERSION 4
#include "options.h"

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static qemu_plugin_id_t plugin_id;
static bool was_reset;

static void after_uninstall(qemu_plugin_id_t id)
{
    (void)id;
    qemu_plugin_outs("uninstall done\n");
}

static void vcpu_tb_exec(unsigned vcpu, void *userdata);
static void vcpu_tb_trans(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_cb(tb, vcpu_tb_exec, QEMU_PLUGIN_CB_NO_REGS, NULL);
}

static void after_reset(qemu_plugin_id_t id)
{
    was_reset = true;
    qemu_plugin_outs("reset done\n");
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans);
}

static void vcpu_tb_exec(unsigned vcpu, void *userdata)
{
    (void)vcpu, (void)userdata;
    if (was_reset)
        qemu_plugin_uninstall(plugin_id, after_uninstall);
    else
        qemu_plugin_reset(plugin_id, after_reset);
}

/* Not by atexit, which an uninstalled plugin does not hear of. */
__attribute__((destructor)) static void report_end(void)
{
    qemu_plugin_outs("plugin exit\n");
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    (void)info, (void)argc, (void)argv;
    plugin_id = id;
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans);
    return 0;
}
