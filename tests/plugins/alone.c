/* Resets itself after every LIFETIME blocks, as threads run. Its callbacks of a reset and of the
 * end take their time, in which no other thread may call it. NAME tells several builds apart. */
#include <qemu-plugin.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

enum { PAUSE = 500 /* us */ };

static qemu_plugin_id_t my_id;
static atomic_ulong calls;
static atomic_int calls_in_life, lives;

static void expect_no_calls(const char *during)
{
    unsigned long before = calls;
    usleep(PAUSE);
    if (calls != before)
        fprintf(stderr, "%s: FAILED, %lu calls during %s\n", NAME, calls - before, during);
}

static void register_all(void);

static void on_reset(void *userdata)
{
    (void)userdata;
    expect_no_calls("a reset");
    lives++;
    calls_in_life = 0;
    register_all();
}

static void vcpu_tb_exec(unsigned vcpu, void *userdata)
{
    (void)vcpu, (void)userdata;
    calls++;
    if (++calls_in_life == LIFETIME)
        qemu_plugin_reset(my_id, on_reset, NULL);
}

static void vcpu_tb_trans(struct qemu_plugin_tb *tb, void *userdata)
{
    (void)userdata;
    calls++;
    qemu_plugin_register_vcpu_tb_exec_cb(tb, vcpu_tb_exec, QEMU_PLUGIN_CB_NO_REGS, NULL);
}

static void plugin_exit(void *userdata)
{
    (void)userdata;
    expect_no_calls("the end");
    fprintf(stderr, "%s: ends in life %d\n", NAME, lives);
}

static void register_all(void)
{
    qemu_plugin_register_vcpu_tb_trans_cb(my_id, vcpu_tb_trans, NULL);
    qemu_plugin_register_atexit_cb(my_id, plugin_exit, NULL);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    (void)info, (void)argc, (void)argv;
    my_id = id;
    register_all();
    return 0;
}
