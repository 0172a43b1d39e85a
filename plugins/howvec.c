/* howvec.c: how often which instructions ran.
 *
 *   inline=on     count by inline operations
 *   verbose=on    also those that never ran
 *   count=CLASS   how to count: "individual" (default, by opcode bytes) or "class" */
#define EMU_PLUGIN_API_VERSION 4
#include "map.h"
#include "options.h"

#include <pthread.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

#define ROWS 50

struct kind { /* of instruction */
    uint64_t opcode;
    char *text;
    qemu_plugin_u64 hits;
    uint64_t total;
};

static bool do_inline, verbose, by_class;
static qemu_plugin_u64 class_hits;
static struct map kinds = {.record_size = sizeof(struct kind)};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void vcpu_insn_exec(unsigned vcpu, void *userdata)
{
    const qemu_plugin_u64 *hits = userdata;
    qemu_plugin_u64_add(*hits, vcpu, 1);
}

/* The counter of an instruction's kind: its first four bytes. */
static qemu_plugin_u64 *find_hits(const struct qemu_plugin_insn *insn)
{
    uint32_t opcode = 0;
    if (by_class)
        return &class_hits;
    qemu_plugin_insn_data(insn, &opcode, sizeof opcode);
    pthread_mutex_lock(&lock);
    struct kind *kind = map_get(&kinds, opcode);
    if (!kind->text) {
        kind->text = qemu_plugin_insn_disas(insn);
        kind->hits = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    }
    pthread_mutex_unlock(&lock);
    return &kind->hits;
}

static void vcpu_tb_trans(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        qemu_plugin_u64 *hits = find_hits(insn);
        if (do_inline)
            qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, QEMU_PLUGIN_INLINE_ADD_U64,
                                                                *hits, 1);
        else
            qemu_plugin_register_vcpu_insn_exec_cb(insn, vcpu_insn_exec, QEMU_PLUGIN_CB_NO_REGS,
                                                   hits);
    }
}

static int compare_kinds(const void *a, const void *b)
{
    const struct kind *x = *(const struct kind *const *)a, *y = *(const struct kind *const *)b;
    return x->total != y->total ? (x->total < y->total) - (x->total > y->total)
                                : (x->opcode > y->opcode) - (x->opcode < y->opcode);
}

static void report_kinds(void)
{
    for (size_t i = 0; i < kinds.n; i++) {
        struct kind *kind = kinds.records[i];
        kind->total = qemu_plugin_u64_sum(kind->hits);
    }
    void **sorted = map_sorted(&kinds, compare_kinds);
    outf("Individual Instructions:\n");
    for (size_t i = 0; i < kinds.n && i < ROWS; i++) {
        const struct kind *kind = sorted[i];
        if (kind->total || verbose)
            outf("Instr: %-24s\t(%" PRIu64 " hits)\t(op=0x%08" PRIx64 "/Unclassified)\n",
                 kind->text, kind->total, kind->opcode);
    }
    free(sorted);
}

static void plugin_exit(qemu_plugin_id_t id, void *userdata)
{
    (void)id, (void)userdata;
    outf("Instruction Classes:\n");
    if (by_class)
        outf("Class: %-24s\t(%" PRIu64 " hits)\n", "Unclassified", qemu_plugin_u64_sum(class_hits));
    else
        outf("Class: %-24s\tcounted individually\n", "Unclassified");
    pthread_mutex_lock(&lock);
    if (!by_class)
        report_kinds();
    pthread_mutex_unlock(&lock);
}

static bool parse_count(const char *value)
{
    by_class = !strcmp(value, "class");
    return by_class || !strcmp(value, "individual");
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    const struct option options[] = {
        {"inline", OPTION_BOOL, &do_inline, NULL},
        {"verbose", OPTION_BOOL, &verbose, NULL},
        {"count", OPTION_CALL, NULL, parse_count},
        {0},
    };
    (void)info;
    if (!parse_options(options, argc, argv))
        return -1;
    class_hits = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans);
    qemu_plugin_register_atexit_cb(id, plugin_exit, NULL);
    return 0;
}
