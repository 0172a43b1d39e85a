/* bb.c: counts blocks and instructions per vCPU.
 *
 *   inline=on   count by inline operations instead of a callback per block
 *   idle=on     report whenever a vCPU goes idle (never in user mode) */
#define EMU_PLUGIN_API_VERSION 4
#include "options.h"

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

struct count {
    uint64_t blocks, insns;
};

static struct qemu_plugin_scoreboard *counts;
static qemu_plugin_u64 blocks, insns;
static bool do_inline, idle_report;

static void report_vcpu(const char *prefix, unsigned vcpu)
{
    const struct count *count = qemu_plugin_scoreboard_find(counts, vcpu);
    if (count->blocks)
        outf("%sCPU%u: bb's: %" PRIu64 ", insns: %" PRIu64 "\n", prefix, vcpu, count->blocks,
             count->insns);
}

static void vcpu_idle(qemu_plugin_id_t id, unsigned vcpu)
{
    (void)id;
    report_vcpu("Idling ", vcpu);
}

static void plugin_exit(qemu_plugin_id_t id, void *userdata)
{
    (void)id, (void)userdata;
    for (int i = 0; i < qemu_plugin_num_vcpus(); i++)
        report_vcpu("", (unsigned)i);
    outf("Total: bb's: %" PRIu64 ", insns: %" PRIu64 "\n", qemu_plugin_u64_sum(blocks),
         qemu_plugin_u64_sum(insns));
}

static void vcpu_tb_exec(unsigned vcpu, void *n_insns)
{
    struct count *count = qemu_plugin_scoreboard_find(counts, vcpu);
    count->blocks++;
    count->insns += (uintptr_t)n_insns;
}

static void vcpu_tb_trans(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    size_t n = qemu_plugin_tb_n_insns(tb);
    if (do_inline) {
        qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64, blocks,
                                                          1);
        qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64, insns, n);
    } else {
        qemu_plugin_register_vcpu_tb_exec_cb(tb, vcpu_tb_exec, QEMU_PLUGIN_CB_NO_REGS, (void *)n);
    }
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    const struct option options[] = {
        {"inline", OPTION_BOOL, &do_inline, NULL},
        {"idle", OPTION_BOOL, &idle_report, NULL},
        {0},
    };
    (void)info;
    if (!parse_options(options, argc, argv))
        return -1;
    counts = qemu_plugin_scoreboard_new(sizeof(struct count));
    blocks = qemu_plugin_scoreboard_u64_in_struct(counts, struct count, blocks);
    insns = qemu_plugin_scoreboard_u64_in_struct(counts, struct count, insns);
    if (idle_report)
        qemu_plugin_register_vcpu_idle_cb(id, vcpu_idle);
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans);
    qemu_plugin_register_atexit_cb(id, plugin_exit, NULL);
    return 0;
}
