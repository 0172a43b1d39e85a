/* insn.c: counts instructions per vCPU.
 *
 *   inline=on    count by inline operations
 *   sizes=on     how many instructions were translated of each size
 *   match=TEXT   count executions of instructions whose text contains TEXT
 *   trace=on     report each of these when it runs */
#include "map.h"
#include "options.h"

#include <pthread.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

#define MAX_SIZE 16

struct match { /* an instruction that was asked for */
    uint64_t pc;
    char *text;
    qemu_plugin_u64 hits;
};

static qemu_plugin_u64 insns;
static bool do_inline, do_sizes, do_trace;
static const char *wanted;
static uint64_t sizes[MAX_SIZE];
static struct map matches = {.record_size = sizeof(struct match)};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void vcpu_insn_exec(unsigned vcpu, void *userdata)
{
    (void)userdata;
    qemu_plugin_u64_add(insns, vcpu, 1);
}

static void vcpu_match_exec(unsigned vcpu, void *userdata)
{
    const struct match *m = userdata;
    qemu_plugin_u64_add(m->hits, vcpu, 1);
    if (do_trace)
        outf("0x%" PRIx64 ", '%s', %" PRIu64 " hits\n", m->pc, m->text,
             qemu_plugin_u64_sum(m->hits));
}

static void watch_match(struct qemu_plugin_insn *insn)
{
    char *text = qemu_plugin_insn_disas(insn);
    if (!strstr(text, wanted)) {
        free(text);
        return;
    }
    struct match *m = map_get(&matches, qemu_plugin_insn_vaddr(insn));
    if (!m->hits.score)
        m->hits = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    free(m->text);
    m->text = text;
    qemu_plugin_register_vcpu_insn_exec_cb(insn, vcpu_match_exec, QEMU_PLUGIN_CB_NO_REGS, m);
}

static void vcpu_tb_trans(struct qemu_plugin_tb *tb, void *userdata)
{
    (void)userdata;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        if (do_inline)
            qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, QEMU_PLUGIN_INLINE_ADD_U64,
                                                                insns, 1);
        else
            qemu_plugin_register_vcpu_insn_exec_cb(insn, vcpu_insn_exec, QEMU_PLUGIN_CB_NO_REGS,
                                                   NULL);
        sizes[qemu_plugin_insn_size(insn) % MAX_SIZE]++;
        if (wanted)
            watch_match(insn);
    }
    pthread_mutex_unlock(&lock);
}

static void report_matches(void)
{
    uint64_t hits = 0;
    for (size_t i = 0; i < matches.n; i++)
        hits += qemu_plugin_u64_sum(((struct match *)matches.records[i])->hits);
    outf("Match: %s, hits %" PRIu64 "\n", wanted, hits);
    for (size_t i = 0; i < matches.n; i++) {
        const struct match *m = matches.records[i];
        outf("  0x%" PRIx64 ": %s (hits %" PRIu64 ")\n", m->pc, m->text,
             qemu_plugin_u64_sum(m->hits));
    }
}

static void plugin_exit(void *userdata)
{
    (void)userdata;
    for (int i = 0; do_sizes && i < MAX_SIZE; i++)
        if (sizes[i])
            outf("len %d bytes: %" PRIu64 " insns\n", i, sizes[i]);
    for (int i = 0; !do_sizes && i < qemu_plugin_num_vcpus(); i++)
        outf("cpu %d insns: %" PRIu64 "\n", i, qemu_plugin_u64_get(insns, (unsigned)i));
    if (!do_sizes)
        outf("total insns: %" PRIu64 "\n", qemu_plugin_u64_sum(insns));
    if (wanted)
        report_matches();
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    const struct option options[] = {
        {"inline", OPTION_BOOL, &do_inline, NULL},
        {"sizes", OPTION_BOOL, &do_sizes, NULL},
        {"match", OPTION_STRING, &wanted, NULL},
        {"trace", OPTION_BOOL, &do_trace, NULL},
        {0},
    };
    (void)info;
    if (!parse_options(options, argc, argv))
        return -1;
    insns = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans, NULL);
    qemu_plugin_register_atexit_cb(id, plugin_exit, NULL);
    return 0;
}
