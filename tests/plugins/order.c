/* Shows the order of callbacks: prints NAME and the place, for the first block only; each vCPU's
 * beginning and end, with those that live; and what happens around system call 4096, to which
 * ANSWER, if there is one, is the answer. */
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

static qemu_plugin_id_t my_id;

static void show_vcpu(unsigned vcpu, void *userdata)
{
    (void)userdata;
    fprintf(stderr, " %u", vcpu);
}

static void show_vcpus(const char *event, unsigned vcpu)
{
    fprintf(stderr, "%s: %s %u of %d, live", NAME, event, vcpu, qemu_plugin_num_vcpus());
    qemu_plugin_vcpu_for_each(my_id, show_vcpu, NULL);
    fprintf(stderr, "\n");
}

static void vcpu_init(unsigned vcpu, void *userdata)
{
    show_vcpus(userdata ? "init FAILED" : "init", vcpu);
}

static void vcpu_exit(unsigned vcpu, void *userdata)
{
    (void)userdata;
    show_vcpus("exit", vcpu);
}

static void vcpu_syscall(unsigned vcpu, int64_t num, uint64_t a1, uint64_t a2, uint64_t a3,
                         uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8,
                         void *userdata)
{
    (void)userdata;
    if (num == 4096)
        fprintf(stderr, "%s: syscall by %u: %u %u %u %u %u %u %u %u\n", NAME, vcpu, (unsigned)a1,
                (unsigned)a2, (unsigned)a3, (unsigned)a4, (unsigned)a5, (unsigned)a6, (unsigned)a7,
                (unsigned)a8);
}

static bool vcpu_filter(unsigned vcpu, int64_t num, uint64_t a1, uint64_t a2, uint64_t a3,
                        uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8,
                        int64_t *sysret, void *userdata)
{
    (void)vcpu, (void)a1, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    (void)userdata, (void)sysret;
    if (num != 4096)
        return false;
    fprintf(stderr, "%s: filter\n", NAME);
#ifdef ANSWER
    *sysret = ANSWER;
    return true;
#else
    return false;
#endif
}

static void vcpu_syscall_ret(unsigned vcpu, int64_t num, int64_t ret, void *userdata)
{
    (void)vcpu, (void)userdata;
    if (num == 4096)
        fprintf(stderr, "%s: returned %d\n", NAME, (int)ret);
}

static void plugin_exit(void *userdata)
{
    fprintf(stderr, "%s: end%s\n", NAME, userdata ? " FAILED" : "");
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
    my_id = id;
    qemu_plugin_register_vcpu_init_cb(id, replaced, &shown);
    qemu_plugin_register_vcpu_init_cb(id, vcpu_init, NULL);
    qemu_plugin_register_vcpu_exit_cb(id, replaced, NULL);
    qemu_plugin_register_vcpu_exit_cb(id, NULL, NULL);
    qemu_plugin_register_vcpu_exit_cb(id, vcpu_exit, NULL);
    qemu_plugin_register_vcpu_idle_cb(id, replaced, NULL); /* these two never happen */
    qemu_plugin_register_vcpu_resume_cb(id, replaced, NULL);
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans, NULL);
    qemu_plugin_register_vcpu_syscall_cb(id, vcpu_syscall, NULL);
    qemu_plugin_register_vcpu_syscall_filter_cb(id, vcpu_filter, NULL);
    qemu_plugin_register_vcpu_syscall_ret_cb(id, vcpu_syscall_ret, NULL);
    qemu_plugin_register_atexit_cb(id, plugin_exit, &shown);
    qemu_plugin_register_atexit_cb(id, plugin_exit, NULL);
    return 0;
}
