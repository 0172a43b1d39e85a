/* Counts blocks and instructions inline, and looks at the counters at every system call, in a way
 * that its argument names. What it prints must not depend on that. */
#include <qemu-plugin.h>
#include <stdio.h>
#include <string.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

struct count {
    uint64_t blocks, insns;
};

static struct qemu_plugin_scoreboard *counts;
static qemu_plugin_u64 blocks, insns;
static const struct count *direct;
static const char *way = "";
static int syscalls;

static void look_on(unsigned vcpu, void *userdata)
{
    (void)vcpu, (void)userdata;
    fflush(stdout);
}

static void vcpu_tb_trans(struct qemu_plugin_tb *tb, void *userdata)
{
    (void)userdata;
    size_t n = qemu_plugin_tb_n_insns(tb);
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64, blocks, 1);
    for (size_t i = 0; i < n; i++)
        qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(qemu_plugin_tb_get_insn(tb, i),
                                                            QEMU_PLUGIN_INLINE_ADD_U64, insns, 1);
    if (!strcmp(way, "call") && syscalls > 3)
        qemu_plugin_register_vcpu_tb_exec_cb(tb, look_on, QEMU_PLUGIN_CB_NO_REGS, NULL);
}

static void vcpu_init(unsigned vcpu, void *userdata)
{
    (void)userdata;
    if (!strcmp(way, "pointer"))
        direct = qemu_plugin_scoreboard_find(counts, vcpu);
}

static uint64_t read_counter(unsigned vcpu, qemu_plugin_u64 counter, const uint64_t *pointer)
{
    if (pointer)
        return *pointer;
    return strcmp(way, "get") ? qemu_plugin_u64_sum(counter) : qemu_plugin_u64_get(counter, vcpu);
}

static void vcpu_syscall(unsigned vcpu, int64_t num, uint64_t a1, uint64_t a2, uint64_t a3,
                         uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8,
                         void *userdata)
{
    (void)a1, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8, (void)userdata;
    if (++syscalls == 4 && !strcmp(way, "find"))
        direct = qemu_plugin_scoreboard_find(counts, vcpu);
    if (syscalls == 5 && !strcmp(way, "set"))
        qemu_plugin_u64_set(blocks, vcpu, qemu_plugin_u64_get(blocks, vcpu));
    if (strcmp(way, "never"))
        fprintf(stderr, "%d: blocks %" PRIu64 " insns %" PRIu64 "\n", (int)num,
                read_counter(vcpu, blocks, direct ? &direct->blocks : NULL),
                read_counter(vcpu, insns, direct ? &direct->insns : NULL));
}

static void plugin_exit(void *userdata)
{
    (void)userdata;
    fprintf(stderr, "end: blocks %" PRIu64 " insns %" PRIu64 "\n", qemu_plugin_u64_sum(blocks),
            qemu_plugin_u64_sum(insns));
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    (void)info;
    if (argc == 1 && !strncmp(argv[0], "way=", 4))
        way = argv[0] + 4;
    counts = qemu_plugin_scoreboard_new(sizeof(struct count));
    blocks = qemu_plugin_scoreboard_u64_in_struct(counts, struct count, blocks);
    insns = qemu_plugin_scoreboard_u64_in_struct(counts, struct count, insns);
    qemu_plugin_register_vcpu_init_cb(id, vcpu_init, NULL);
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans, NULL);
    qemu_plugin_register_vcpu_syscall_cb(id, vcpu_syscall, NULL);
    qemu_plugin_register_atexit_cb(id, plugin_exit, NULL);
    return 0;
}
