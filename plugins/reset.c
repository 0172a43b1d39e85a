/* reset.c: exercises qemu_plugin_reset and qemu_plugin_uninstall: counts some blocks, resets
 * itself, counts some more, uninstalls itself. */
#include "options.h"

#include <stdatomic.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

#define BLOCKS 5 /* translated before the next step */

static qemu_plugin_id_t plugin_id;
static _Atomic unsigned translated;
static bool was_reset;

static void after_uninstall(void *userdata)
{
    (void)userdata;
    qemu_plugin_outs("uninstall done\n");
}

static void vcpu_tb_trans(struct qemu_plugin_tb *tb, void *userdata);
static void plugin_exit(void *userdata)
{
    (void)userdata;
    qemu_plugin_outs("plugin exit\n");
}

static void register_all(void)
{
    translated = 0;
    qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, vcpu_tb_trans, NULL);
    qemu_plugin_register_atexit_cb(plugin_id, plugin_exit, NULL);
}

static void after_reset(void *userdata)
{
    (void)userdata;
    was_reset = true;
    register_all();
    qemu_plugin_outs("reset done\n");
}

static void vcpu_tb_trans(struct qemu_plugin_tb *tb, void *userdata)
{
    (void)tb, (void)userdata;
    if (++translated != BLOCKS)
        return;
    if (was_reset)
        qemu_plugin_uninstall(plugin_id, after_uninstall, NULL);
    else
        qemu_plugin_reset(plugin_id, after_reset, NULL);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    (void)info, (void)argc, (void)argv;
    plugin_id = id;
    register_all();
    return 0;
}
