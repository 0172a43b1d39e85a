/* Prints the arguments it gets. NAME tells several builds apart. */
#include <qemu-plugin.h>
#include <stdio.h>

#ifndef NAME
#define NAME "args"
#endif

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static void plugin_exit(
#if EMU_PLUGIN_API_VERSION < 7
    qemu_plugin_id_t id,
#endif
    void *userdata)
{
#if EMU_PLUGIN_API_VERSION < 7
    (void)id;
#endif
    fprintf(stderr, "%s ends\n", (const char *)userdata);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    fprintf(stderr, "%s: target %s, versions %d to %d, system %d:", NAME, info->target_name,
            info->version.min, info->version.cur, info->system_emulation);
    for (int i = 0; i < argc; i++)
        fprintf(stderr, " [%s]", argv[i]);
    fprintf(stderr, "%s\n", argv[argc] ? " no end" : "");
    qemu_plugin_register_atexit_cb(id, plugin_exit, (void *)NAME);
    return 0;
}
