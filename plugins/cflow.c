/* cflow.c: where control flow leaves the straight line.
 *
 *   sort=hottest|early|exceptions   order of the report: by branches taken (default), by times the
 *                                   block was left early, or by number of places gone to
 *
 * Each block notes inline where it ends and which instruction is running; a block that is not what
 * follows the last one calls back. */
#define EMU_PLUGIN_API_VERSION 4
#include "map.h"
#include "options.h"

#include <pthread.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

#define ROWS 10

struct state {            /* of a vCPU */
    uint64_t end_block;   /* its last instruction */
    uint64_t after_block; /* what follows it in memory */
    uint64_t last_pc;     /* the instruction that runs */
};

struct node { /* an instruction after which something else than the next one ran */
    uint64_t addr;
    const char *symbol;
    char *text;
    uint64_t early_exits, branches;
    struct map targets;
};

struct target {
    uint64_t addr, count;
};

enum sort { BY_BRANCHES, BY_EARLY, BY_TARGETS };
static const char *const sorts[] = {"hottest", "early", "exceptions"};
static enum sort sort;
static struct qemu_plugin_scoreboard *states;
static qemu_plugin_u64 end_block, after_block, last_pc;
static struct map nodes = {.record_size = sizeof(struct node)};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct node *find_node(uint64_t addr)
{
    struct node *node = map_get(&nodes, addr);
    node->targets.record_size = sizeof(struct target);
    return node;
}

static void vcpu_tb_branched_exec(unsigned vcpu, void *userdata)
{
    const struct state *state = qemu_plugin_scoreboard_find(states, vcpu);
    uint64_t pc = (uintptr_t)userdata;
    if (!state->last_pc) /* the first block */
        return;
    pthread_mutex_lock(&lock);
    struct node *node = find_node(state->last_pc);
    node->early_exits += state->last_pc != state->end_block;
    node->branches++;
    ((struct target *)map_get(&node->targets, pc))->count++;
    pthread_mutex_unlock(&lock);
}

static void describe_node(const struct qemu_plugin_insn *insn)
{
    pthread_mutex_lock(&lock);
    struct node *node = find_node(qemu_plugin_insn_vaddr(insn));
    if (!node->text) {
        node->text = qemu_plugin_insn_disas(insn);
        node->symbol = qemu_plugin_insn_symbol(insn);
    }
    pthread_mutex_unlock(&lock);
}

static void vcpu_tb_trans(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    const enum qemu_plugin_op store = QEMU_PLUGIN_INLINE_STORE_U64;
    uint64_t pc = qemu_plugin_tb_vaddr(tb);
    size_t n = qemu_plugin_tb_n_insns(tb);
    const struct qemu_plugin_insn *last = qemu_plugin_tb_get_insn(tb, n - 1);
    uint64_t end = qemu_plugin_insn_vaddr(last);

    qemu_plugin_register_vcpu_tb_exec_cond_cb(tb, vcpu_tb_branched_exec, QEMU_PLUGIN_CB_NO_REGS,
                                              QEMU_PLUGIN_COND_NE, after_block, pc,
                                              (void *)(uintptr_t)pc);
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, store, end_block, end);
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, store, after_block,
                                                      end + qemu_plugin_insn_size(last));
    for (size_t i = 0; i < n; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, store, last_pc,
                                                            qemu_plugin_insn_vaddr(insn));
        describe_node(insn);
    }
}

static uint64_t weigh_node(const struct node *node)
{
    const uint64_t weights[] = {node->branches, node->early_exits, node->targets.n};
    return weights[sort];
}

static int compare_nodes(const void *a, const void *b)
{
    const struct node *x = *(const struct node *const *)a, *y = *(const struct node *const *)b;
    uint64_t v = weigh_node(x), w = weigh_node(y);
    return v != w ? (v < w) - (v > w) : (x->addr > y->addr) - (x->addr < y->addr);
}

static int compare_targets(const void *a, const void *b)
{
    const struct target *x = *(const struct target *const *)a;
    const struct target *y = *(const struct target *const *)b;
    return x->count != y->count ? (x->count < y->count) - (x->count > y->count)
                                : (x->addr > y->addr) - (x->addr < y->addr);
}

static void report_node(const struct node *node)
{
    outf("  addr: 0x%" PRIx64 " %s: %s (%s)\n", node->addr, node->symbol ? node->symbol : "",
         node->text ? node->text : "", node->early_exits ? "sync fault" : "branch");
    if (node->early_exits)
        outf("    early exits %" PRIu64 "\n", node->early_exits);
    outf("    branches %" PRIu64 "\n", node->branches);
    void **targets = map_sorted(&node->targets, compare_targets);
    for (size_t i = 0; i < node->targets.n; i++) {
        const struct target *target = targets[i];
        outf("      to 0x%" PRIx64 " (%" PRIu64 ")\n", target->addr, target->count);
    }
    free(targets);
}

static void plugin_exit(qemu_plugin_id_t id, void *userdata)
{
    (void)id, (void)userdata;
    pthread_mutex_lock(&lock);
    void **sorted = map_sorted(&nodes, compare_nodes);
    outf("collected %zu control flow nodes in the hash table\n", nodes.n);
    for (size_t i = 0, rows = 0; i < nodes.n && rows < ROWS; i++)
        if (((const struct node *)sorted[i])->branches) {
            report_node(sorted[i]);
            rows++;
        }
    free(sorted);
    pthread_mutex_unlock(&lock);
}

static bool parse_sort(const char *value)
{
    for (int i = BY_BRANCHES; i <= BY_TARGETS; i++)
        if (!strcmp(value, sorts[i])) {
            sort = (enum sort)i;
            return true;
        }
    return false;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    const struct option options[] = {
        {"sort", OPTION_CALL, NULL, parse_sort},
        {0},
    };
    (void)info;
    if (!parse_options(options, argc, argv))
        return -1;
    states = qemu_plugin_scoreboard_new(sizeof(struct state));
    end_block = qemu_plugin_scoreboard_u64_in_struct(states, struct state, end_block);
    after_block = qemu_plugin_scoreboard_u64_in_struct(states, struct state, after_block);
    last_pc = qemu_plugin_scoreboard_u64_in_struct(states, struct state, last_pc);
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans);
    qemu_plugin_register_atexit_cb(id, plugin_exit, NULL);
    return 0;
}
