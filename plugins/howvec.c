/* howvec.c: how vectorised is this code? Counts executed instructions by class.
 *
 *   inline=on      count by inline operations
 *   verbose=on     also classes that did not occur
 *   count=CLASS    the instructions of a class one by one (told apart by their first four bytes),
 *                  of all for "individual"; !CLASS: not at all. May be repeated
 *
 * CLASS is a short name of the table below. */
#define EMU_PLUGIN_API_VERSION 4
#include "map.h"
#include "opcode.h"
#include "options.h"

#include <pthread.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

#define ROWS 50

enum counting { BY_CLASS, INDIVIDUALLY, NOT_AT_ALL };

static struct {
    const char *name, *option;
    enum counting counting;
    qemu_plugin_u64 hits;
} classes[N_CLASSES] = {
    [CLASS_CALL] = {.name = "  Call", .option = "call"},
    [CLASS_RETURN] = {.name = "  Return", .option = "ret"},
    [CLASS_COND_BRANCH] = {.name = "  Cond Branch", .option = "cndb"},
    [CLASS_JUMP] = {.name = "  Jump", .option = "jmp"},
    [CLASS_MOVE] = {.name = "  Move", .option = "mov"},
    [CLASS_COND_MOVE] = {.name = "  Cond Move & Set", .option = "cndm"},
    [CLASS_LEA] = {.name = "  Effective address", .option = "lea"},
    [CLASS_STACK] = {.name = "  Push & Pop", .option = "stack"},
    [CLASS_STRING] = {.name = "  String", .option = "string"},
    [CLASS_ALU] = {.name = "  Add/Sub/Logical", .option = "alu"},
    [CLASS_COMPARE] = {.name = "  Compare & Test", .option = "cmp"},
    [CLASS_MULTIPLY] = {.name = "  Multiply & Divide", .option = "mul"},
    [CLASS_SHIFT] = {.name = "  Shift & Rotate", .option = "shift"},
    [CLASS_BIT] = {.name = "  Bit", .option = "bit"},
    [CLASS_ATOMIC] = {.name = "  Atomic", .option = "atomic"},
    [CLASS_NOP] = {.name = "  Nop & Hint", .option = "nop"},
    [CLASS_BARRIER] = {.name = "  Barrier", .option = "barr"},
    [CLASS_SYSTEM] = {.name = "  System", .option = "sys"},
    [CLASS_X87] = {.name = "  x87", .option = "x87"},
    [CLASS_SCALAR] = {.name = "  Scalar FP", .option = "fps"},
    [CLASS_MMX] = {.name = "  SIMD 64", .option = "simd64"},
    [CLASS_SIMD128] = {.name = "  SIMD 128", .option = "simd128"},
    [CLASS_SIMD256] = {.name = "  SIMD 256", .option = "simd256"},
    [CLASS_SIMD512] = {.name = "  SIMD 512", .option = "simd512"},
    [CLASS_MASK] = {.name = "  SIMD mask", .option = "mask"},
    [CLASS_CRYPTO] = {.name = "  Crypto", .option = "crypto"},
    [CLASS_OTHER] = {.name = "Unclassified", .option = "unclas"},
};

struct kind { /* of instruction, counted individually */
    uint64_t opcode;
    enum insn_class insn_class;
    char *text;
    qemu_plugin_u64 hits;
    uint64_t total;
};

static bool do_inline, verbose;
static struct map kinds = {.record_size = sizeof(struct kind)};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void vcpu_insn_exec(unsigned vcpu, void *userdata)
{
    const qemu_plugin_u64 *hits = userdata;
    qemu_plugin_u64_add(*hits, vcpu, 1);
}

static qemu_plugin_u64 *find_kind(const struct qemu_plugin_insn *insn, uint32_t opcode,
                                  enum insn_class c)
{
    pthread_mutex_lock(&lock);
    struct kind *kind = map_get(&kinds, opcode);
    if (!kind->text) {
        kind->insn_class = c;
        kind->text = qemu_plugin_insn_disas(insn);
        kind->hits = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    }
    pthread_mutex_unlock(&lock);
    return &kind->hits;
}

/* The counter that the instruction counts for, or NULL. */
static qemu_plugin_u64 *find_hits(const struct qemu_plugin_insn *insn)
{
    uint8_t code[CODE_ROOM] = {0};
    uint32_t opcode;
    size_t size = qemu_plugin_insn_data(insn, code, MAX_CODE);
    enum insn_class c = classify_insn(code, size);
    memcpy(&opcode, code, sizeof opcode);
    switch (classes[c].counting) {
    case BY_CLASS:
        return &classes[c].hits;
    case INDIVIDUALLY:
        return find_kind(insn, opcode, c);
    default:
        return NULL;
    }
}

static void vcpu_tb_trans(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        qemu_plugin_u64 *hits = find_hits(insn);
        if (hits && do_inline)
            qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, QEMU_PLUGIN_INLINE_ADD_U64,
                                                                *hits, 1);
        else if (hits)
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
            outf("Instr: %-24s\t(%" PRIu64 " hits)\t(op=0x%08" PRIx64 "/%s)\n", kind->text,
                 kind->total, kind->opcode, classes[kind->insn_class].name);
    }
    free(sorted);
}

static void report_class(enum insn_class c)
{
    static const char *const others[] = {
        [INDIVIDUALLY] = "counted individually", [NOT_AT_ALL] = "not counted"};
    uint64_t hits = qemu_plugin_u64_sum(classes[c].hits);
    if (classes[c].counting != BY_CLASS)
        outf("Class: %-24s\t%s\n", classes[c].name, others[classes[c].counting]);
    else if (hits || verbose)
        outf("Class: %-24s\t(%" PRIu64 " hits)\n", classes[c].name, hits);
}

static void plugin_exit(qemu_plugin_id_t id, void *userdata)
{
    (void)id, (void)userdata;
    pthread_mutex_lock(&lock);
    outf("Instruction Classes:\n");
    for (enum insn_class c = 0; c < N_CLASSES; c++)
        report_class(c);
    if (kinds.n)
        report_kinds();
    pthread_mutex_unlock(&lock);
}

static bool parse_count(const char *value)
{
    enum counting counting = *value == '!' ? NOT_AT_ALL : INDIVIDUALLY;
    bool found = false;
    value += *value == '!';
    for (size_t i = 0; i < N_CLASSES; i++)
        if (!strcmp(value, classes[i].option) || !strcmp(value, "individual")) {
            classes[i].counting = counting;
            found = true;
        }
    return found;
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
    for (size_t i = 0; i < N_CLASSES; i++)
        classes[i].hits = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans);
    qemu_plugin_register_atexit_cb(id, plugin_exit, NULL);
    return 0;
}
