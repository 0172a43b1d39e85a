/* hotblocks.c: the blocks that ran most often.
 *
 *   inline=on   count by inline operations
 *   limit=N     rows of the report (default 20, 0: all) */
#define EMU_PLUGIN_API_VERSION 4
#include "map.h"
#include "options.h"

#include <pthread.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

struct block {
    uint64_t key; /* of address and length */
    uint64_t start, translations, insns;
    qemu_plugin_u64 executions;
    uint64_t total; /* of executions, for the report */
};

static bool do_inline;
static uint64_t limit = 20;
static struct map blocks = {.record_size = sizeof(struct block)};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void vcpu_tb_exec(unsigned vcpu, void *userdata)
{
    const struct block *block = userdata;
    qemu_plugin_u64_add(block->executions, vcpu, 1);
}

static void vcpu_tb_trans(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    uint64_t pc = qemu_plugin_tb_vaddr(tb), n = qemu_plugin_tb_n_insns(tb);
    pthread_mutex_lock(&lock);
    /* Addresses have 48 bits, so nothing is lost. */
    struct block *block = map_get(&blocks, pc ^ n << 48);
    if (!block->translations++) {
        block->start = pc;
        block->insns = n;
        block->executions =
            qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    }
    pthread_mutex_unlock(&lock);
    if (do_inline)
        qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64,
                                                          block->executions, 1);
    else
        qemu_plugin_register_vcpu_tb_exec_cb(tb, vcpu_tb_exec, QEMU_PLUGIN_CB_NO_REGS, block);
}

static int compare_blocks(const void *a, const void *b)
{
    const struct block *x = *(const struct block *const *)a, *y = *(const struct block *const *)b;
    return x->total != y->total ? (x->total < y->total) - (x->total > y->total)
                                : (x->start > y->start) - (x->start < y->start);
}

static void plugin_exit(qemu_plugin_id_t id, void *userdata)
{
    (void)id, (void)userdata;
    size_t executed = 0; /* emu translates ahead */
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < blocks.n; i++) {
        struct block *block = blocks.records[i];
        block->total = qemu_plugin_u64_sum(block->executions);
        executed += block->total > 0;
    }
    void **sorted = map_sorted(&blocks, compare_blocks);
    outf("collected %zu entries in the hash table\n", executed);
    outf("pc, tcount, icount, ecount\n");
    for (size_t i = 0; i < executed && (!limit || i < limit); i++) {
        const struct block *block = sorted[i];
        outf("0x%016" PRIx64 ", %" PRIu64 ", %" PRIu64 ", %" PRIu64 "\n", block->start,
             block->translations, block->insns, block->total);
    }
    free(sorted);
    pthread_mutex_unlock(&lock);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    const struct option options[] = {
        {"inline", OPTION_BOOL, &do_inline, NULL},
        {"limit", OPTION_U64, &limit, NULL},
        {0},
    };
    (void)info;
    if (!parse_options(options, argc, argv))
        return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans);
    qemu_plugin_register_atexit_cb(id, plugin_exit, NULL);
    return 0;
}
