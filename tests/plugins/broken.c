/* Wrong in the way that a macro names: NO_INSTALL, NULL_INSTALL, NO_VERSION, VERSION=n, FAILS=n,
 * UNDEFINED, UNINSTALL (in install), BAD_ID, CRASH (in a callback). */
#include <qemu-plugin.h>

#ifndef VERSION
#define VERSION QEMU_PLUGIN_VERSION
#endif
#ifndef FAILS
#define FAILS 0
#endif

#ifndef NO_VERSION
QEMU_PLUGIN_EXPORT int qemu_plugin_version = VERSION;
#endif

#ifdef UNDEFINED
void qemu_plugin_no_such_function(void);
#endif

#ifdef CRASH
static void vcpu_init(unsigned vcpu, void *userdata)
{
    (void)vcpu, (void)userdata;
    *(volatile char *)8 = 1;
}
#endif

#ifdef NULL_INSTALL
__asm__(".globl qemu_plugin_install; .set qemu_plugin_install, 0");
#elif !defined NO_INSTALL
QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    (void)id, (void)info, (void)argc, (void)argv;
#ifdef UNDEFINED
    qemu_plugin_no_such_function();
#endif
#ifdef UNINSTALL
    qemu_plugin_uninstall(id, NULL, NULL);
#endif
#ifdef BAD_ID
    qemu_plugin_register_flush_cb(id + 1, NULL, NULL);
#endif
#ifdef CRASH
    qemu_plugin_register_vcpu_init_cb(id, vcpu_init, NULL);
#endif
    return FAILS;
}
#endif
