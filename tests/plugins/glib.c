/* Uses GLib without linking it, as many plugins do: it must come from emu's process. All arrays
 * that cross the API are GLib's. */
#include <qemu-plugin.h>
#include <stdio.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

GByteArray *g_byte_array_new(void);
uint8_t *g_byte_array_free(GByteArray *array, int free_segment);
char *g_array_free(GArray *array, int free_segment);
void g_free(void *memory);

static void vcpu_init(unsigned vcpu, void *userdata)
{
    (void)vcpu, (void)userdata;
    GArray *all = qemu_plugin_get_registers();
    GByteArray *value = g_byte_array_new();
    const qemu_plugin_reg_descriptor *d = (const qemu_plugin_reg_descriptor *)all->data;
    for (unsigned i = 0; i < all->len; i++)
        qemu_plugin_read_register(d[i].handle, value);
    fprintf(stderr, "%u registers, %u bytes\n", all->len, value->len);
    if (!qemu_plugin_read_memory_vaddr(qemu_plugin_start_code(), value, 1000) || value->len != 1000)
        fprintf(stderr, "read_memory_vaddr FAILED\n");
    g_array_free(all, 1);
    g_byte_array_free(value, 1);
    g_free((void *)(uintptr_t)qemu_plugin_path_to_binary());
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_init_cb(id, vcpu_init, NULL);
    return 0;
}
