/* plugin_gen.c: what plugins ask for while a block is translated, as a list of struct plugin_op.
 *
 * May know: the block's decoded instructions and the API's registrations. Must not know: the guest
 * ISA, and how the list gets into generated code. Everything here runs under tb_lock. */
#include "emu.h"
#define EMU_PLUGIN_HOST
#include "plugin.h"

#include <stdlib.h>
#include <string.h>

typedef void (*plugin_func)(void); /* a callback of either type */

/* ---- instrumenting a block ----------------------------------------------------------- */

/* What the plugins asked for in the block being translated, in the order of registration. */
static struct plugin_op *ops;
static size_t n_ops, max_ops;
static struct qemu_plugin_tb tb; /* under tb_lock, like the list above */

static const char *api_function; /* the one that registers, for complaints */

bool plugin_has_tb(const struct qemu_plugin_tb *block)
{
    return plugin_is_translating() && block == &tb;
}

bool plugin_has_insn(const struct qemu_plugin_insn *insn)
{
    return plugin_is_translating() && insn >= tb.insns && insn < tb.insns + tb.n;
}

/* At the start of every registration. */
static void begin(const char *function, bool has_handle)
{
    api_function = function;
    if (!plugin_is_translating())
        plugin_abuse(function, "called outside a tb_trans callback");
    if (!has_handle)
        plugin_abuse(function, "not a handle of the block being translated");
}

static int64_t entry_offset(qemu_plugin_u64 entry)
{
    if (!entry.score)
        plugin_abuse(api_function, "no scoreboard");
    return entry.score->offset + (int64_t)entry.offset;
}

/* A new entry of the list; insn NULL: for the block. */
static struct plugin_op *add_op(enum plugin_place place, enum plugin_op_kind kind,
                                const struct qemu_plugin_insn *insn)
{
    if (n_ops == max_ops) {
        max_ops = max_ops ? 2 * max_ops : 64;
        ops = realloc(ops, max_ops * sizeof *ops);
        if (!ops)
            die("out of memory");
    }
    struct plugin_op *op = &ops[n_ops++];
    *op = (struct plugin_op){.kind = kind,
                             .place = place,
                             .insn = insn ? insn->index : 0,
                             .pc = insn ? insn->in->pc : tb.pc,
                             .ctx = plugin_current()};
    return op;
}

static void add_call(enum plugin_place place, const struct qemu_plugin_insn *insn, plugin_func func,
                     enum qemu_plugin_cb_flags flags, enum qemu_plugin_mem_rw rw, void *udata)
{
    if (!func || (unsigned)flags > QEMU_PLUGIN_CB_RW_REGS_PC)
        plugin_abuse(api_function, func ? "unknown enum qemu_plugin_cb_flags" : "no callback");
    struct plugin_op *op = add_op(place, OP_CALL, insn);
    op->func = *(void **)&func;
    op->cb_flags = flags;
    op->rw = rw;
    op->udata = udata;
}

static void add_call_cond(enum plugin_place place, const struct qemu_plugin_insn *insn,
                          plugin_func func, enum qemu_plugin_cb_flags flags,
                          enum qemu_plugin_cond cond, qemu_plugin_u64 entry, uint64_t imm,
                          void *udata)
{
    if ((unsigned)cond > QEMU_PLUGIN_COND_GE)
        plugin_abuse(api_function, "unknown enum qemu_plugin_cond");
    if (cond == QEMU_PLUGIN_COND_NEVER)
        return;
    add_call(place, insn, func, flags, 0, udata);
    if (cond == QEMU_PLUGIN_COND_ALWAYS)
        return;
    struct plugin_op *op = &ops[n_ops - 1];
    op->kind = OP_CALL_COND;
    op->cond = cond;
    op->offset = entry_offset(entry);
    op->imm = imm;
}

static struct plugin_op *add_inline(enum plugin_place place, const struct qemu_plugin_insn *insn,
                                    enum qemu_plugin_mem_rw rw, enum qemu_plugin_op op,
                                    uint64_t imm, enum plugin_op_kind add,
                                    enum plugin_op_kind store)
{
    if (op != QEMU_PLUGIN_INLINE_ADD_U64 && op != QEMU_PLUGIN_INLINE_STORE_U64)
        plugin_abuse(api_function, "unknown enum qemu_plugin_op");
    struct plugin_op *new = add_op(place, op == QEMU_PLUGIN_INLINE_ADD_U64 ? add : store, insn);
    new->rw = rw;
    new->imm = imm;
    return new;
}

static void add_inline_entry(enum plugin_place place, const struct qemu_plugin_insn *insn,
                             enum qemu_plugin_mem_rw rw, enum qemu_plugin_op op,
                             qemu_plugin_u64 entry, uint64_t imm)
{
    add_inline(place, insn, rw, op, imm, OP_ADD, OP_STORE)->offset = entry_offset(entry);
}

static void add_inline_ptr(enum plugin_place place, const struct qemu_plugin_insn *insn,
                           enum qemu_plugin_mem_rw rw, enum qemu_plugin_op op, void *ptr,
                           uint64_t imm)
{
    struct plugin_op *new = add_inline(place, insn, rw, op, imm, OP_ADD_PTR, OP_STORE_PTR);
    new->ptr = ptr;
    new->size = sizeof(uint64_t);
}

void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block,
                                          qemu_plugin_vcpu_udata_cb_t cb,
                                          enum qemu_plugin_cb_flags flags, void *userdata)
{
    begin(__func__, plugin_has_tb(block));
    add_call(PLACE_TB, NULL, (plugin_func)cb, flags, 0, userdata);
}

void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
                                            qemu_plugin_vcpu_udata_cb_t cb,
                                            enum qemu_plugin_cb_flags flags, void *userdata)
{
    begin(__func__, plugin_has_insn(insn));
    add_call(PLACE_INSN, insn, (plugin_func)cb, flags, 0, userdata);
}

void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn, qemu_plugin_vcpu_mem_cb_t cb,
                                      enum qemu_plugin_cb_flags flags, enum qemu_plugin_mem_rw rw,
                                      void *userdata)
{
    begin(__func__, plugin_has_insn(insn));
    add_call(PLACE_MEM, insn, (plugin_func)cb, flags, rw, userdata);
}

void qemu_plugin_register_vcpu_tb_exec_cond_cb(struct qemu_plugin_tb *block,
                                               qemu_plugin_vcpu_udata_cb_t cb,
                                               enum qemu_plugin_cb_flags flags,
                                               enum qemu_plugin_cond cond, qemu_plugin_u64 entry,
                                               uint64_t imm, void *userdata)
{
    begin(__func__, plugin_has_tb(block));
    add_call_cond(PLACE_TB, NULL, (plugin_func)cb, flags, cond, entry, imm, userdata);
}

void qemu_plugin_register_vcpu_insn_exec_cond_cb(struct qemu_plugin_insn *insn,
                                                 qemu_plugin_vcpu_udata_cb_t cb,
                                                 enum qemu_plugin_cb_flags flags,
                                                 enum qemu_plugin_cond cond, qemu_plugin_u64 entry,
                                                 uint64_t imm, void *userdata)
{
    begin(__func__, plugin_has_insn(insn));
    add_call_cond(PLACE_INSN, insn, (plugin_func)cb, flags, cond, entry, imm, userdata);
}

void qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(struct qemu_plugin_tb *block,
                                                       enum qemu_plugin_op op,
                                                       qemu_plugin_u64 entry, uint64_t imm)
{
    begin(__func__, plugin_has_tb(block));
    add_inline_entry(PLACE_TB, NULL, 0, op, entry, imm);
}

void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(struct qemu_plugin_insn *insn,
                                                         enum qemu_plugin_op op,
                                                         qemu_plugin_u64 entry, uint64_t imm)
{
    begin(__func__, plugin_has_insn(insn));
    add_inline_entry(PLACE_INSN, insn, 0, op, entry, imm);
}

void qemu_plugin_register_vcpu_mem_inline_per_vcpu(struct qemu_plugin_insn *insn,
                                                   enum qemu_plugin_mem_rw rw,
                                                   enum qemu_plugin_op op, qemu_plugin_u64 entry,
                                                   uint64_t imm)
{
    begin(__func__, plugin_has_insn(insn));
    add_inline_entry(PLACE_MEM, insn, rw, op, entry, imm);
}

void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *block, enum qemu_plugin_op op,
                                              void *ptr, uint64_t imm)
{
    begin(__func__, plugin_has_tb(block));
    add_inline_ptr(PLACE_TB, NULL, 0, op, ptr, imm);
}

void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *insn,
                                                enum qemu_plugin_op op, void *ptr, uint64_t imm)
{
    begin(__func__, plugin_has_insn(insn));
    add_inline_ptr(PLACE_INSN, insn, 0, op, ptr, imm);
}

void qemu_plugin_register_vcpu_mem_inline(struct qemu_plugin_insn *insn, enum qemu_plugin_mem_rw rw,
                                          enum qemu_plugin_op op, void *ptr, uint64_t imm)
{
    begin(__func__, plugin_has_insn(insn));
    add_inline_ptr(PLACE_MEM, insn, rw, op, ptr, imm);
}

/* ---- translating a block ------------------------------------------------------------- */

void plugin_gen_tb_start(struct cpu *cpu, uint64_t pc)
{
    (void)cpu;
    tb.pc = pc;
    tb.n = 0;
    n_ops = 0;
}

/* The instruction belongs to the block once its end is announced: the translator may still find
 * that it starts the next one. */
void plugin_gen_insn_start(const struct insn *in)
{
    if (tb.n == TB_MAX_INSNS)
        die("block at 0x%llx has too many instructions", (unsigned long long)tb.pc);
    tb.insns[tb.n] = (struct qemu_plugin_insn){.in = in, .index = (uint16_t)tb.n};
}

void plugin_gen_insn_end(void)
{
    tb.n++;
}

/* Rank of the place where op runs among those of its block. */
static size_t rank_op(const struct plugin_op *op)
{
    return op->place == PLACE_TB ? 0 : 1 + 2u * op->insn + (op->place == PLACE_MEM);
}

static bool is_sorted(void)
{
    size_t i = 1;
    while (i < n_ops && rank_op(&ops[i - 1]) <= rank_op(&ops[i]))
        i++;
    return i >= n_ops;
}

/* The list in order of execution; what shares a place keeps the order of registration. */
static const struct plugin_op *plugin_gen_inject(void)
{
    static uint32_t start[2 + 2 * TB_MAX_INSNS]; /* per rank: where its entries go */
    static struct plugin_op *sorted;
    static size_t room;
    if (room < n_ops) {
        room = max_ops;
        sorted = realloc(sorted, room * sizeof *sorted);
        if (!sorted)
            die("out of memory");
    }
    memset(start, 0, (2 + 2 * tb.n) * sizeof *start);
    for (size_t i = 0; i < n_ops; i++)
        start[1 + rank_op(&ops[i])]++;
    for (size_t rank = 1; rank < 2 + 2 * tb.n; rank++)
        start[rank] += start[rank - 1];
    for (size_t i = 0; i < n_ops; i++)
        sorted[start[rank_op(&ops[i])]++] = ops[i];
    return sorted;
}

const struct plugin_op *plugin_gen_tb_end(struct cpu *cpu, size_t *count)
{
    (void)cpu;
    qemu_plugin_tb_trans_cb(&tb);
    *count = n_ops;
    return is_sorted() ? ops : plugin_gen_inject();
}
