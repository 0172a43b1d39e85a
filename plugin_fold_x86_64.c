/* plugin_fold_x86_64.c: what a plugin's callback does, as operations that go into generated code.
 *
 * Most callbacks, looked at with their arguments, do no more than add to a counter. Their machine
 * code is run here on values that are constants, the vCPU's index, addresses on the stack or in
 * the vCPU's scoreboards, or what a word of memory holds plus a constant. A branch or an address
 * that depends on a word of the plugin's memory is decided by what the word holds now; a guard then
 * lets generated code see whether it still does. What is not understood makes the call stay one.
 *
 * Within a critical section nothing is decided by memory: another thread may be about to change it.
 * A lock that is taken in its fast path and one that has waiters lead to the plugin's own code.
 * While the process has one thread, a lock needs to be free, and no more.
 *
 * May know: the ISA, the ABI, the API's counters. Must not know: how operations become code. It
 * trusts what callee_x86_64.c trusts. Everything here runs under tb_lock. */
#include "emu.h"
#define EMU_PLUGIN_HOST
#include "plugin.h"

#include <string.h>

#define MAX_STEPS    200
#define MAX_EFFECTS  8
#define MAX_FRAMES   8
#define STACK_WORDS  32
#define MAX_FAILURES 16 /* of one function, before it is left alone */

enum kind { UNKNOWN, CONST, VCPU, STACK, ARENA, MEMORY, RETURN };

/* CONST: n. STACK, ARENA: the address n bytes from the entry's stack pointer, the struct cpu.
 * MEMORY: the size bytes at address at (from the struct cpu if arena), zero-extended, plus n.
 * RETURN: the callback's return address. */
struct value {
    uint8_t kind, size;
    bool arena;
    uint64_t n, at;
};

/* What the flags were set by: the difference of two values, or a value itself. */
enum flags { FLAGS_UNKNOWN, FLAGS_DIFFERENCE, FLAGS_VALUE, FLAGS_EQUAL };

struct fold {
    const struct plugin_op *call;
    struct plugin_op guard[MAX_EFFECTS], effect[MAX_EFFECTS];
    int n_guards, n_effects;
    struct value reg[16], stack[STACK_WORDS];
    enum flags flags;
    struct value left, right; /* of the flags */
    unsigned width;           /* bytes */
    struct frame {
        uint64_t entry;
        struct value arg; /* its first */
        int n_effects;    /* at its entry */
    } frame[MAX_FRAMES];
    int depth;
    uint64_t pc;
    uint64_t held; /* a lock's word that is 1 for now, without an effect; 0: none */
    bool locked, failed;
};

static const struct value unknown = {.kind = UNKNOWN};

static struct value constant(uint64_t n)
{
    return (struct value){.kind = CONST, .n = n};
}

static struct value fail(struct fold *f)
{
    f->failed = true;
    return unknown;
}

static uint64_t cut(uint64_t n, unsigned size)
{
    return size < 8 ? n & ((1ull << 8 * size) - 1) : n;
}

/* ---- operations ---------------------------------------------------------------------- */

static bool in_arena(uint64_t address)
{
    for (int i = 0; i < cpu_count(); i++)
        if (address - (uintptr_t)cpu_by_index((unsigned)i) - (uint64_t)SCOREBOARD_OFFSET <
            SCOREBOARD_MAX)
            return true;
    return false;
}

static void add_effect(struct fold *f, enum plugin_op_kind kind, const struct value *at,
                       unsigned size, uint64_t imm)
{
    if (f->n_effects == MAX_EFFECTS || (at->kind == CONST && in_arena(at->n)) ||
        (at->kind == ARENA && (size != 8 || f->locked))) {
        f->failed = true;
        return;
    }
    struct plugin_op *op = &f->effect[f->n_effects++];
    *op = *f->call;
    op->kind = kind;
    op->size = (uint8_t)size;
    op->locked = f->locked && kind == OP_ADD_PTR; /* so that it stays where it is */
    op->imm = imm;
    op->offset = (int64_t)at->n;
    op->ptr = (void *)(uintptr_t)at->n;
}

/* True if an earlier effect, or a lock that is held, changes some of the size bytes at address at.
 */
static bool is_changed(const struct fold *f, const struct value *at, unsigned size)
{
    if (f->held && at->kind == CONST && at->n < f->held + 4 && f->held < at->n + size)
        return true;
    for (int i = 0; i < f->n_effects; i++) {
        const struct plugin_op *op = &f->effect[i];
        bool arena = op->kind == OP_ADD || op->kind == OP_STORE;
        uint64_t start = (uint64_t)op->offset;
        if (arena == (at->kind == ARENA) && at->n < start + op->size && start < at->n + size)
            return true;
    }
    return false;
}

/* Makes a constant of a value, with a guard if it is in memory. */
static uint64_t resolve(struct fold *f, struct value v)
{
    uint64_t word = 0;
    if (v.kind == CONST)
        return v.n;
    for (int i = 0; v.kind == MEMORY && !v.arena && i < f->n_guards; i++)
        if ((uintptr_t)f->guard[i].ptr == v.at && f->guard[i].size == v.size)
            return f->guard[i].imm + v.n;
    struct value at = constant(v.at);
    if (v.kind != MEMORY || v.arena || f->locked || f->n_guards == MAX_EFFECTS ||
        is_changed(f, &at, v.size) || in_arena(v.at) ||
        !guest_copy(&word, (const void *)(uintptr_t)v.at, v.size)) {
        f->failed = true;
        return 0;
    }
    struct plugin_op *op = &f->guard[f->n_guards++];
    *op = *f->call;
    op->kind = OP_GUARD;
    op->size = v.size;
    op->imm = word;
    op->ptr = (void *)(uintptr_t)v.at;
    return word + v.n;
}

/* ---- registers and memory ------------------------------------------------------------ */

static struct value get_reg(const struct fold *f, unsigned reg, unsigned size)
{
    struct value v = f->reg[reg];
    if (v.kind == CONST)
        v.n = cut(v.n, size);
    else if (size < 4 && !(v.kind == MEMORY && v.size <= size))
        v = unknown;
    else if (size == 4 && v.kind != VCPU && !(v.kind == MEMORY && v.size <= 4))
        v = unknown;
    return v;
}

static void set_reg(struct fold *f, unsigned reg, unsigned size, struct value v)
{
    if (v.kind == CONST)
        v.n = cut(v.n, size);
    if (size < 4) { /* the rest of the register stays */
        struct value old = f->reg[reg];
        v = v.kind == CONST && old.kind == CONST ? constant((old.n & ~cut(~0ull, size)) | v.n)
                                                 : unknown;
    } else if (size == 4 && v.kind != CONST && v.kind != VCPU &&
               !(v.kind == MEMORY && v.size <= 4)) {
        v = unknown;
    }
    f->reg[reg] = v;
}

static struct value add(struct value a, struct value b)
{
    if (a.kind == CONST) {
        struct value swap = a;
        a = b;
        b = swap;
    }
    if (b.kind != CONST || a.kind == UNKNOWN || a.kind == RETURN || (a.kind == VCPU && b.n))
        return unknown;
    a.n += b.n;
    return a;
}

static struct value address_of(const struct fold *f, const struct insn *in)
{
    const struct mem_op *m = &in->mem[in->mem_index];
    struct value at = constant((uint64_t)(int64_t)m->disp);
    if (m->seg != SEG_NONE || in->flags & INSN_ADDR32 || m->flags & MEM_ABS64)
        return unknown;
    if (m->base == REG_PC)
        return constant(in->pc + in->len + at.n);
    if (m->base != REG_NONE)
        at = add(f->reg[m->base], at);
    if (m->index != REG_NONE) {
        struct value index = f->reg[m->index];
        index.n *= m->scale;
        at = index.kind == CONST ? add(at, index) : unknown;
    }
    return at;
}

/* The word of the stack at an address; NULL: not a whole one. */
static struct value *stack_word(struct fold *f, const struct value *at)
{
    uint64_t below = -at->n;
    if (below % 8 || below / 8 >= STACK_WORDS) {
        f->failed = true;
        return &f->stack[0];
    }
    return &f->stack[below / 8];
}

static struct value load(struct fold *f, struct value at, unsigned size)
{
    if (at.kind == STACK) {
        struct value v = *stack_word(f, &at);
        return v.kind == CONST ? constant(cut(v.n, size)) : size == 8 ? v : unknown;
    }
    if ((at.kind != CONST && at.kind != ARENA) || size > 8 || is_changed(f, &at, size))
        return fail(f);
    return (struct value){MEMORY, (uint8_t)size, at.kind == ARENA, 0, at.n};
}

static void store(struct fold *f, struct value at, unsigned size, struct value v)
{
    bool arena = at.kind == ARENA;
    if (at.kind == STACK)
        *stack_word(f, &at) = size == 8 || v.kind == CONST ? v : unknown;
    else if (at.kind != CONST && !arena)
        f->failed = true;
    else if (v.kind == CONST)
        add_effect(f, arena ? OP_STORE : OP_STORE_PTR, &at, size, cut(v.n, size));
    else if (v.kind == MEMORY && v.at == at.n && v.arena == arena && v.size == size)
        add_effect(f, arena ? OP_ADD : OP_ADD_PTR, &at, size, v.n);
    else
        f->failed = true;
}

/* The stack protector's word (x86_64 psABI: %fs:0x28): compared with its copy and nothing else, so
 * that any constant will do. */
static bool is_canary(const struct insn *in)
{
    const struct mem_op *m = &in->mem[in->mem_index];
    return in->modrm < 0xc0 && m->seg == SEG_FS && m->base == REG_NONE && m->index == REG_NONE &&
           m->disp == 0x28;
}

static struct value get_rm(struct fold *f, const struct insn *in, unsigned size)
{
    if (is_canary(in))
        return constant(0);
    if (in->modrm < 0xc0)
        return load(f, address_of(f, in), size);
    return size == 1 && !in->rex && in->rm >= 4 ? fail(f) : get_reg(f, in->rm, size);
}

static void set_rm(struct fold *f, const struct insn *in, unsigned size, struct value v)
{
    if (in->modrm < 0xc0)
        store(f, address_of(f, in), size, v);
    else if (size == 1 && !in->rex && in->rm >= 4)
        f->failed = true;
    else
        set_reg(f, in->rm, size, v);
}

static void push(struct fold *f, struct value v)
{
    f->reg[GPR_RSP].n -= 8;
    if (f->reg[GPR_RSP].kind != STACK)
        f->failed = true;
    else
        store(f, f->reg[GPR_RSP], 8, v);
}

static struct value pop(struct fold *f)
{
    if (f->reg[GPR_RSP].kind != STACK)
        return fail(f);
    struct value v = load(f, f->reg[GPR_RSP], 8);
    f->reg[GPR_RSP].n += 8;
    return v;
}

/* ---- instructions -------------------------------------------------------------------- */

/* Of instructions with a byte form in the even opcode. */
static unsigned operand_size(const struct insn *in)
{
    return in->opcode & 1 ? in->opsize : 1;
}

static void run_nothing(struct fold *f, const struct insn *in)
{
    (void)f, (void)in;
}

static void run_push(struct fold *f, const struct insn *in)
{
    push(f, f->reg[(in->opcode & 7) | (in->rex & 1) << 3]);
}

static void run_pop(struct fold *f, const struct insn *in)
{
    f->reg[(in->opcode & 7) | (in->rex & 1) << 3] = pop(f);
}

static void run_store(struct fold *f, const struct insn *in)
{
    unsigned size = operand_size(in);
    if (size == 1 && !in->rex && in->reg >= 4)
        f->failed = true;
    set_rm(f, in, size, get_reg(f, in->reg, size));
}

static void run_load(struct fold *f, const struct insn *in)
{
    set_reg(f, in->reg, in->opsize, get_rm(f, in, in->opsize));
}

static void run_lea(struct fold *f, const struct insn *in)
{
    set_reg(f, in->reg, in->opsize, address_of(f, in));
}

static void run_mov_imm(struct fold *f, const struct insn *in)
{
    set_reg(f, (in->opcode & 7) | (in->rex & 1) << 3, in->opsize, constant(in->imm));
}

static void run_store_imm(struct fold *f, const struct insn *in)
{
    set_rm(f, in, operand_size(in), constant(in->imm));
}

static void run_movzx(struct fold *f, const struct insn *in)
{
    set_reg(f, in->reg, in->opsize, get_rm(f, in, in->opcode & 1 ? 2 : 1));
}

static void run_movsxd(struct fold *f, const struct insn *in)
{
    struct value v = get_rm(f, in, 4);
    if (v.kind == CONST)
        v.n = (uint64_t)(int64_t)(int32_t)v.n;
    else if (v.kind != VCPU)
        v = unknown;
    set_reg(f, in->reg, in->opsize, v);
}

enum { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP };

static void set_flags(struct fold *f, enum flags flags, struct value left, struct value right,
                      unsigned width)
{
    f->flags = flags;
    f->left = left;
    f->right = right;
    f->width = width;
}

static bool same_value(const struct value *a, const struct value *b)
{
    return a->kind == b->kind && a->n == b->n && a->at == b->at && a->size == b->size &&
           a->arena == b->arena;
}

/* A bitwise operation; the flags tell of its result. */
static struct value run_logic(struct fold *f, unsigned op, struct value a, struct value b,
                              unsigned size)
{
    struct value result = unknown;
    if (a.kind == CONST && b.kind == CONST)
        result = constant(op == ALU_OR ? a.n | b.n : op == ALU_AND ? a.n & b.n : a.n ^ b.n);
    else if (op != ALU_XOR && same_value(&a, &b))
        result = a;
    set_flags(f, FLAGS_VALUE, result, unknown, size);
    return result;
}

static struct value run_alu(struct fold *f, unsigned op, struct value a, struct value b,
                            unsigned size)
{
    if (op == ALU_OR || op == ALU_AND || op == ALU_XOR)
        return run_logic(f, op, a, b, size);
    set_flags(f, op == ALU_SUB || op == ALU_CMP ? FLAGS_DIFFERENCE : FLAGS_UNKNOWN, a, b, size);
    if (op == ALU_ADD)
        return add(a, b);
    if (op == ALU_SUB && b.kind == CONST)
        return add(a, constant(-b.n));
    return unknown;
}

/* The lock prefix is kept where the addition becomes an effect. */
static void finish_alu(struct fold *f, const struct insn *in, unsigned op, unsigned size,
                       struct value result)
{
    int before = f->n_effects;
    if (op != ALU_CMP)
        set_rm(f, in, size, result);
    if (!(in->flags & INSN_LOCK))
        return;
    if (f->n_effects == before || f->effect[before].kind != OP_ADD_PTR)
        f->failed = true;
    else
        f->effect[before].locked = true;
}

/* add or adc sbb and sub xor cmp: register and ModRM forms, accumulator and immediate. */
static void run_arithmetic(struct fold *f, const struct insn *in)
{
    unsigned op = in->opcode >> 3 & 7, form = in->opcode & 7, size = operand_size(in);
    if (size == 1 && form < 4 && !in->rex && in->reg >= 4) {
        f->failed = true;
        return;
    }
    if (form >= 4) {
        struct value v =
            run_alu(f, op, get_reg(f, GPR_RAX, size), constant(cut(in->imm, size)), size);
        if (op != ALU_CMP)
            set_reg(f, GPR_RAX, size, v);
        return;
    }
    struct value reg = get_reg(f, in->reg, size), rm = unknown;
    bool clears = in->modrm >= 0xc0 && in->reg == in->rm && op == ALU_XOR && size >= 4;
    if (clears)
        reg = rm = constant(0);
    else
        rm = get_rm(f, in, size);
    if (form < 2) {
        finish_alu(f, in, op, size, run_alu(f, op, rm, reg, size));
    } else {
        struct value v = run_alu(f, op, reg, rm, size);
        if (op != ALU_CMP)
            set_reg(f, in->reg, size, v);
    }
}

static void run_arithmetic_imm(struct fold *f, const struct insn *in)
{
    unsigned op = in->modrm >> 3 & 7, size = operand_size(in);
    finish_alu(f, in, op, size,
               run_alu(f, op, get_rm(f, in, size), constant(cut(in->imm, size)), size));
}

static void run_test(struct fold *f, const struct insn *in)
{
    unsigned size = operand_size(in);
    run_logic(f, ALU_AND, get_rm(f, in, size), get_reg(f, in->reg, size), size);
}

static void run_test_imm(struct fold *f, const struct insn *in)
{
    unsigned size = operand_size(in);
    if ((in->modrm >> 3 & 7) > 1)
        f->failed = true;
    else
        run_logic(f, ALU_AND, get_rm(f, in, size), constant(cut(in->imm, size)), size);
}

static void run_inc_dec(struct fold *f, const struct insn *in)
{
    unsigned op = in->modrm >> 3 & 7, size = operand_size(in);
    if (op > 1) {
        f->failed = true;
        return;
    }
    struct value v = add(get_rm(f, in, size), constant(op ? ~0ull : 1));
    set_flags(f, FLAGS_UNKNOWN, unknown, unknown, size);
    finish_alu(f, in, ALU_ADD, size, v);
}

/* glibc's: the process has had one thread only; absent elsewhere. */
extern const char __libc_single_threaded __attribute__((weak));

/* True, with a guard, if no other thread can be at a lock. */
static bool is_alone(struct fold *f)
{
    if (!&__libc_single_threaded)
        return false;
    uint64_t at = (uintptr_t)&__libc_single_threaded;
    bool alone = resolve(f, (struct value){MEMORY, 1, false, 0, at}) != 0;
    for (int i = 0; i < f->n_guards; i++)
        if ((uintptr_t)f->guard[i].ptr == at)
            f->guard[i].func = NULL; /* no fault of the callback's if it fails */
    return alone;
}

/* Nobody sees that the word becomes 1 and 0 again, if it is 0. */
static void hold_unseen(struct fold *f, const struct value *at)
{
    if (f->held || resolve(f, (struct value){MEMORY, 4, false, 0, at->n}) != 0)
        f->failed = true;
    f->held = at->n;
}

/* lock cmpxchg of a word from 0 to 1: taken here; where it is not, the call is made. */
static void run_cmpxchg(struct fold *f, const struct insn *in)
{
    struct value at = in->modrm < 0xc0 ? address_of(f, in) : unknown;
    struct value old = get_reg(f, GPR_RAX, 4), new = get_reg(f, in->reg, 4);
    if (!(in->flags & INSN_LOCK) || in->opsize != 4 || !(in->opcode & 1) || at.kind != CONST ||
        old.kind != CONST || old.n != 0 || new.kind != CONST || new.n != 1) {
        f->failed = true;
    } else if (is_alone(f)) {
        hold_unseen(f, &at);
    } else if (f->locked || f->n_effects || f->call->place == PLACE_MEM) {
        f->failed = true;
    } else {
        add_effect(f, OP_LOCK, &at, 4, 1);
        f->locked = true;
    }
    set_flags(f, FLAGS_EQUAL, unknown, unknown, 4);
}

/* What is left to do for OP_UNLOCK where others wait: the function that unlocks. */
struct rest {
    uint64_t func, arg;
};

static void run_rest(unsigned vcpu, void *udata)
{
    const struct rest *rest = udata;
    void (*func)(uint64_t);
    (void)vcpu;
    memcpy(&func, &rest->func, sizeof func);
    func(rest->arg);
}

static struct rest *find_rest(uint64_t func, uint64_t arg)
{
    static struct rest rests[64];
    for (size_t i = 0; i < sizeof rests / sizeof rests[0]; i++) {
        if (!rests[i].func)
            rests[i] = (struct rest){func, arg};
        if (rests[i].func == func && rests[i].arg == arg)
            return &rests[i];
    }
    return NULL;
}

/* A lock that others see becomes free; it was 1, or the function at hand begins anew. */
static void add_unlock(struct fold *f, const struct value *at)
{
    const struct frame *frame = &f->frame[f->depth - 1];
    struct rest *rest = frame->arg.kind == CONST ? find_rest(frame->entry, frame->arg.n) : NULL;
    if (!rest || frame->entry == (uintptr_t)f->call->func || frame->n_effects != f->n_effects) {
        f->failed = true;
        return;
    }
    add_effect(f, OP_UNLOCK, at, 4, 0);
    void (*func)(unsigned, void *) = run_rest;
    memcpy(&f->effect[f->n_effects - 1].func, &func, sizeof func);
    f->effect[f->n_effects - 1].udata = rest;
    f->locked = false;
}

/* xchg of the lock's word, which is 1, with 0. */
static void run_xchg(struct fold *f, const struct insn *in)
{
    struct value at = in->modrm < 0xc0 ? address_of(f, in) : unknown;
    struct value new = get_reg(f, in->reg, 4);
    bool frees =
        in->opsize == 4 && in->opcode & 1 && at.kind == CONST && new.kind == CONST && !new.n;
    if (frees && f->held && at.n == f->held)
        f->held = 0;
    else if (frees && f->locked && at.n == (uint64_t)f->effect[0].offset)
        add_unlock(f, &at);
    else
        f->failed = true;
    set_reg(f, in->reg, 4, constant(1));
}

static void run_leave(struct fold *f, const struct insn *in)
{
    (void)in;
    f->reg[GPR_RSP] = f->reg[GPR_RBP];
    f->reg[GPR_RBP] = pop(f);
}

static const struct {
    uint8_t map, first, last;
    void (*run)(struct fold *, const struct insn *);
} instructions[] = {
    {0, 0x50, 0x57, run_push},       {0, 0x58, 0x5f, run_pop},
    {0, 0x88, 0x89, run_store},      {0, 0x8b, 0x8b, run_load},
    {0, 0x8d, 0x8d, run_lea},        {0, 0xb8, 0xbf, run_mov_imm},
    {0, 0xc6, 0xc7, run_store_imm},  {1, 0xb6, 0xb7, run_movzx},
    {0, 0x63, 0x63, run_movsxd},     {0, 0x80, 0x83, run_arithmetic_imm},
    {0, 0x84, 0x85, run_test},       {0, 0xf6, 0xf7, run_test_imm},
    {0, 0xfe, 0xff, run_inc_dec},    {1, 0xb1, 0xb1, run_cmpxchg},
    {0, 0x87, 0x87, run_xchg},       {0, 0xc9, 0xc9, run_leave},
    {0, 0x90, 0x90, run_nothing},    {1, 0x1e, 0x1f, run_nothing},
    {0, 0x00, 0x05, run_arithmetic}, {0, 0x08, 0x0d, run_arithmetic},
    {0, 0x20, 0x25, run_arithmetic}, {0, 0x28, 0x2d, run_arithmetic},
    {0, 0x30, 0x35, run_arithmetic}, {0, 0x38, 0x3d, run_arithmetic},
};

static void run_next(struct fold *f, const struct insn *in)
{
    bool lock = in->flags & INSN_LOCK;
    for (size_t i = 0; i < sizeof instructions / sizeof instructions[0]; i++)
        if (in->map == instructions[i].map && in->opcode >= instructions[i].first &&
            in->opcode <= instructions[i].last) {
            if (lock && instructions[i].run != run_arithmetic &&
                instructions[i].run != run_arithmetic_imm && instructions[i].run != run_inc_dec &&
                instructions[i].run != run_cmpxchg && instructions[i].run != run_xchg)
                break;
            instructions[i].run(f, in);
            return;
        }
    f->failed = true;
}

/* ---- branches ------------------------------------------------------------------------ */

/* Condition cc of the flags of l - r, width bytes wide, but for parity. */
static bool holds(unsigned cc, uint64_t l, uint64_t r, unsigned width)
{
    unsigned shift = 64 - 8 * width;
    int64_t sl = (int64_t)(l << shift), sr = (int64_t)(r << shift), difference = 0;
    bool overflow = __builtin_sub_overflow(sl, sr, &difference);
    bool sign = difference < 0, below = l << shift < r << shift, equal = !difference;
    const bool conditions[8] = {overflow,
                                below,
                                equal,
                                below || equal,
                                sign,
                                false,
                                sign != overflow,
                                equal || sign != overflow};
    return conditions[cc >> 1] != (cc & 1);
}

static void run_cond(struct fold *f, const struct insn *in)
{
    unsigned cc = in->opcode & 15;
    bool taken = false;
    if ((in->map == 0 && in->opcode >= 0xe0) || cc >> 1 == 5)
        f->failed = true;
    else if (f->flags == FLAGS_DIFFERENCE)
        taken = holds(cc, resolve(f, f->left), resolve(f, f->right), f->width);
    else if (f->flags == FLAGS_VALUE)
        taken = holds(cc, resolve(f, f->left), 0, f->width);
    else if (f->flags == FLAGS_EQUAL && cc >> 1 == 2)
        taken = !(cc & 1);
    else
        f->failed = true;
    if (taken)
        f->pc = in->target;
}

/* The scoreboard that a register points to: the place of its elements. */
static struct value find_score(struct fold *f, struct value pointer)
{
    struct qemu_plugin_scoreboard score;
    uint64_t address = resolve(f, pointer);
    if (f->failed || !guest_copy(&score, (const void *)(uintptr_t)address, sizeof score) ||
        score.offset < SCOREBOARD_OFFSET ||
        score.offset >= SCOREBOARD_OFFSET + (int64_t)SCOREBOARD_MAX)
        return fail(f);
    return (struct value){.kind = ARENA, .n = (uint64_t)score.offset};
}

/* Place of the counter that rdi and rsi are, for the vCPU in edx. */
static struct value find_counter(struct fold *f)
{
    struct value at = find_score(f, f->reg[GPR_RDI]);
    if (get_reg(f, GPR_RDX, 4).kind != VCPU)
        return fail(f);
    at.n += resolve(f, f->reg[GPR_RSI]);
    return at;
}

static void call_add(struct fold *f)
{
    struct value at = find_counter(f), v = load(f, at, 8);
    store(f, at, 8, add(v, constant(resolve(f, f->reg[GPR_RCX]))));
}

static void call_set(struct fold *f)
{
    store(f, find_counter(f), 8, constant(resolve(f, f->reg[GPR_RCX])));
}

static void call_get(struct fold *f)
{
    f->reg[GPR_RAX] = load(f, find_counter(f), 8);
}

static void call_find(struct fold *f)
{
    struct value at = find_score(f, f->reg[GPR_RDI]);
    f->reg[GPR_RAX] = get_reg(f, GPR_RSI, 4).kind == VCPU ? at : fail(f);
}

/* Runs a function of the API that is known; false: target is none. */
static bool call_api(struct fold *f, uint64_t target)
{
    const struct {
        uint64_t func;
        void (*run)(struct fold *);
    } known[] = {
        {(uintptr_t)qemu_plugin_u64_add, call_add},
        {(uintptr_t)qemu_plugin_u64_set, call_set},
        {(uintptr_t)qemu_plugin_u64_get, call_get},
        {(uintptr_t)qemu_plugin_scoreboard_find, call_find},
    };
    static const uint8_t clobbered[] = {GPR_RCX, GPR_RDX, GPR_RSI, GPR_RDI, 8, 9, 10, 11};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i].func == target) {
            f->reg[GPR_RAX] = unknown;
            known[i].run(f);
            for (size_t k = 0; k < sizeof clobbered; k++)
                f->reg[clobbered[k]] = unknown;
            f->flags = FLAGS_UNKNOWN;
            return true;
        }
    return false;
}

static void run_ret(struct fold *f)
{
    struct value v = pop(f);
    f->depth--;
    f->pc = v.kind == CONST ? v.n : 0;
    if (v.kind != CONST && (v.kind != RETURN || f->depth != 0))
        f->failed = true;
}

static void enter_function(struct fold *f, uint64_t target)
{
    if (f->depth == MAX_FRAMES) {
        f->failed = true;
        return;
    }
    f->frame[f->depth++] = (struct frame){target, f->reg[GPR_RDI], f->n_effects};
    f->pc = target;
}

/* call: the return address is pushed. A jump to another object's function takes the frame over. */
static void run_transfer(struct fold *f, uint64_t target, bool call)
{
    if (!target)
        f->failed = true;
    else if (call && call_api(f, target))
        return;
    else if (call)
        push(f, constant(f->pc));
    else
        f->depth--;
    if (!call && call_api(f, target)) {
        f->depth++;
        run_ret(f);
        return;
    }
    enter_function(f, target);
}

static void run_insn(struct fold *f, const struct insn *in, uint64_t import)
{
    f->pc = in->pc + in->len;
    switch (in->kind) {
    case INSN_NEXT:
        run_next(f, in);
        break;
    case INSN_JUMP:
        f->pc = in->target;
        break;
    case INSN_COND:
        run_cond(f, in);
        break;
    case INSN_RET:
        run_ret(f);
        break;
    case INSN_CALL:
        run_transfer(f, in->target, true);
        break;
    case INSN_CALL_IND:
    case INSN_JUMP_IND:
        run_transfer(f, import, in->kind == INSN_CALL_IND);
        break;
    default:
        f->failed = true;
    }
}

/* ---- the run ------------------------------------------------------------------------- */

/* A decoded instruction of a plugin and, if it is a branch to an imported function, where to. */
struct step {
    uint64_t pc, import;
    struct insn in;
};

/* NULL: there is no code at pc that stays as it is. */
static const struct step *fetch(uint64_t pc)
{
    static struct step cache[1024];
    struct step *step = &cache[(pc ^ pc >> 10) % (sizeof cache / sizeof cache[0])];
    if (step->pc == pc)
        return step;
    step->pc = 0;
    size_t size = callee_code_size(pc);
    if (!size || decode(&step->in, (const uint8_t *)(uintptr_t)pc, size, pc) != DECODE_OK ||
        step->in.enc != ENC_LEGACY)
        return NULL;
    step->import = callee_find_import(&step->in);
    step->pc = pc;
    return step;
}

static void start(struct fold *f, const struct plugin_op *call)
{
    bool mem = call->place == PLACE_MEM;
    memset(f, 0, sizeof *f);
    f->call = call;
    f->reg[GPR_RDI].kind = VCPU;
    f->reg[GPR_RSP].kind = STACK;
    f->reg[mem ? GPR_RCX : GPR_RSI] = constant((uintptr_t)call->udata);
    f->stack[0].kind = RETURN;
    enter_function(f, (uintptr_t)call->func);
}

/* Functions that could not be folded, or not for long. */
static struct {
    const void *func;
    unsigned failures;
} tried[256];

static unsigned *failures_of(const void *func)
{
    size_t i = ((uintptr_t)func >> 4) % (sizeof tried / sizeof tried[0]);
    if (tried[i].func != func) {
        tried[i].func = func;
        tried[i].failures = 0;
    }
    return &tried[i].failures;
}

int plugin_fold(const struct plugin_op *op, struct plugin_op *out, int max)
{
    struct fold f;
    unsigned *failures = failures_of(op->func);
    if (*failures >= MAX_FAILURES)
        return -1;
    start(&f, op);
    for (int i = 0; f.depth > 0 && !f.failed; i++) {
        const struct step *step = i < MAX_STEPS ? fetch(f.pc) : NULL;
        if (step)
            run_insn(&f, &step->in, step->import);
        else
            f.failed = true;
    }
    if (f.failed || f.locked || f.held || f.n_guards + f.n_effects > max) {
        ++*failures;
        return -1;
    }
    memcpy(out, f.guard, (size_t)f.n_guards * sizeof *out);
    memcpy(out + f.n_guards, f.effect, (size_t)f.n_effects * sizeof *out);
    return f.n_guards + f.n_effects;
}

void plugin_fold_failed(const void *func)
{
    ++*failures_of(func);
}
