/* callee_x86_64.c: proves what a function of a plugin does to the processor's state.
 *
 * A callback whose code, and all that it calls, keeps to general registers, flags and a few xmm
 * registers needs neither the host's %fs nor the guest's vectors saved. The proof reads machine
 * code: what is not known to be harmless, or cannot be followed, is not proven.
 *
 * May know: the ISA, and how ELF objects call each other. Must not know: plugins, the API, and
 * what is done with the proof. It trusts the ABI for callee-saved registers and the stack, and
 * that bound import slots and code that is mapped read-only stay as they are. */

#include "emu.h"

#include <elf.h>
#include <link.h>

#define MAX_INSNS    512
#define MAX_IDLE     4
#define MAX_XMM      4 /* with more, the saving costs what it is to avoid */

/* rax rcx rdx rsi rdi r8 r9 r10 r11 */
#define CALLER_SAVED 0x0fc7

/* Code still to read and code read, and the executable segment that the latest lies in. */
struct walk {
    struct callee found;
    uint64_t todo[MAX_INSNS], seen[MAX_INSNS];
    unsigned n_todo, n_seen;
    uint64_t text, text_end;
};

/* ---- loaded objects ------------------------------------------------------------------------ */

struct segment {
    uint64_t pc, start, end;
};

/* Finds the read-only executable segment that holds a pc. */
static int match_segment(struct dl_phdr_info *object, size_t size, void *arg)
{
    struct segment *s = arg;
    (void)size;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &object->dlpi_phdr[i];
        uint64_t start = object->dlpi_addr + p->p_vaddr;
        bool code = p->p_type == PT_LOAD && p->p_flags & PF_X && !(p->p_flags & PF_W);
        if (code && s->pc >= start && s->pc - start < p->p_filesz) {
            s->start = start;
            s->end = start + p->p_filesz;
            return 1;
        }
    }
    return 0;
}

static bool enter_segment(struct walk *w, uint64_t pc)
{
    struct segment s = {.pc = pc};
    if (pc >= w->text && pc < w->text_end)
        return true;
    if (!dl_iterate_phdr(match_segment, &s))
        return false;
    w->text = s.start;
    w->text_end = s.end;
    return true;
}

size_t callee_code_size(uint64_t pc)
{
    struct segment s = {.pc = pc};
    return dl_iterate_phdr(match_segment, &s) ? s.end - pc : 0;
}

/* glibc relocates the addresses in the dynamic section, musl does not. */
static uint64_t dynamic_address(const struct dl_phdr_info *object, const ElfW(Dyn) * d)
{
    return d->d_un.d_ptr < object->dlpi_addr ? object->dlpi_addr + d->d_un.d_ptr : d->d_un.d_ptr;
}

static bool has_import(const struct dl_phdr_info *object, uint64_t table, uint64_t size,
                       uint64_t slot)
{
    const ElfW(Rela) *rela = (const ElfW(Rela) *)table;
    for (size_t i = 0; i < size / sizeof(*rela); i++) {
        uint64_t type = ELF64_R_TYPE(rela[i].r_info);
        if (object->dlpi_addr + rela[i].r_offset == slot)
            return type == R_X86_64_JUMP_SLOT || type == R_X86_64_GLOB_DAT;
    }
    return false;
}

/* Looks for a slot among the imported symbols' slots of one object. */
static int match_import(struct dl_phdr_info *object, size_t size, void *arg)
{
    uint64_t plt = 0, plt_size = 0, rela = 0, rela_size = 0;
    const ElfW(Dyn) *d = NULL;
    (void)size;
    for (int i = 0; i < object->dlpi_phnum; i++)
        if (object->dlpi_phdr[i].p_type == PT_DYNAMIC)
            d = (const ElfW(Dyn) *)(object->dlpi_addr + object->dlpi_phdr[i].p_vaddr);
    for (; d && d->d_tag != DT_NULL; d++) {
        if (d->d_tag == DT_JMPREL)
            plt = dynamic_address(object, d);
        else if (d->d_tag == DT_PLTRELSZ)
            plt_size = d->d_un.d_val;
        else if (d->d_tag == DT_RELA)
            rela = dynamic_address(object, d);
        else if (d->d_tag == DT_RELASZ)
            rela_size = d->d_un.d_val;
    }
    uint64_t slot = *(const uint64_t *)arg;
    return has_import(object, plt, plt_size, slot) || has_import(object, rela, rela_size, slot);
}

/* ---- instructions -------------------------------------------------------------------------- */

struct range {
    uint8_t map, first, last;
};

/* Legacy-encoded instructions on general registers and plain memory. Not among them: string
 * instructions (they obey the guest's DF), moves of segment registers, flag loads, cpuid. */
/* clang-format off */
static const struct range integer[] = {
    {0, 0x00, 0x05}, {0, 0x08, 0x0d}, {0, 0x10, 0x15}, {0, 0x18, 0x1d}, {0, 0x20, 0x25},
    {0, 0x28, 0x2d}, {0, 0x30, 0x35}, {0, 0x38, 0x3d}, {0, 0x50, 0x5f}, {0, 0x63, 0x63},
    {0, 0x68, 0x6b}, {0, 0x70, 0x81}, {0, 0x83, 0x8b}, {0, 0x8d, 0x8d}, {0, 0x8f, 0x99},
    {0, 0xa8, 0xa9}, {0, 0xb0, 0xc3}, {0, 0xc6, 0xc7}, {0, 0xc9, 0xc9}, {0, 0xd0, 0xd3},
    {0, 0xe3, 0xe3}, {0, 0xe8, 0xe9}, {0, 0xeb, 0xeb}, {0, 0xf6, 0xf7}, {0, 0xfe, 0xff},
    {1, 0x0d, 0x0d}, {1, 0x18, 0x18}, {1, 0x1e, 0x1f}, {1, 0x40, 0x4f}, {1, 0x80, 0x9f},
    {1, 0xa3, 0xa5}, {1, 0xab, 0xad}, {1, 0xaf, 0xb1}, {1, 0xb3, 0xb3}, {1, 0xb6, 0xb8},
    {1, 0xba, 0xc1}, {1, 0xc3, 0xc3}, {1, 0xc8, 0xcf},
};

/* Legacy-encoded moves and integer operations on xmm registers: they keep the upper halves and
 * do not look at MXCSR. */
static const struct range vector[] = {
    {1, 0x10, 0x17}, {1, 0x28, 0x29}, {1, 0x54, 0x57}, {1, 0x60, 0x76}, {1, 0x7e, 0x7f},
    {1, 0xc4, 0xc6}, {1, 0xd1, 0xe5}, {1, 0xe7, 0xef}, {1, 0xf1, 0xf6}, {1, 0xf8, 0xfe},
};
/* clang-format on */

static bool is_in(const struct insn *in, const struct range *ranges, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (in->map == ranges[i].map && in->opcode >= ranges[i].first &&
            in->opcode <= ranges[i].last)
            return true;
    return false;
}

static bool uses_segment(const struct insn *in)
{
    for (int i = 0; i < in->nmem; i++)
        if (in->mem[i].seg != SEG_NONE)
            return true;
    return in->flags & (INSN_USES_GS | INSN_SETS_GS);
}

/* Notes what an instruction changes; false: it may do more than a struct callee can tell. */
static bool note_effects(struct callee *c, const struct insn *in)
{
    const unsigned alien = INSN_STRING | INSN_USES_MASK | INSN_USES_X87 | INSN_BRANCH_REL;
    if (in->enc != ENC_LEGACY || in->flags & alien || uses_segment(in))
        return false;
    c->regs |= in->regs_written & CALLER_SAVED;
    if (!(in->flags & INSN_USES_VEC))
        return is_in(in, integer, sizeof(integer) / sizeof(*integer));
    c->xmm |= (uint16_t)(1u << (in->reg & 15));
    if (in->modrm >= 0xc0)
        c->xmm |= (uint16_t)(1u << (in->rm & 15));
    return is_in(in, vector, sizeof(vector) / sizeof(*vector));
}

/* ---- the walk ------------------------------------------------------------------------------ */

static uint64_t idle[MAX_IDLE];
static unsigned n_idle;

void callee_set_idle(const void *func)
{
    if (n_idle < MAX_IDLE) /* else it is read like any other */
        idle[n_idle++] = (uintptr_t)func;
}

static bool is_idle(uint64_t pc)
{
    for (unsigned i = 0; i < n_idle; i++)
        if (idle[i] == pc)
            return true;
    return false;
}

static bool visit_later(struct walk *w, uint64_t pc)
{
    if (is_idle(pc))
        return true;
    if (w->n_todo == MAX_INSNS)
        return false;
    w->todo[w->n_todo++] = pc;
    return true;
}

/* Follows a branch through the slot of an imported function, as procedure linkage tables do. */
uint64_t callee_find_import(const struct insn *in)
{
    uint64_t slot = decode_branch_slot(in);
    return slot && dl_iterate_phdr(match_import, &slot) ? *(const uint64_t *)slot : 0;
}

static bool visit_import(struct walk *w, const struct insn *in)
{
    uint64_t target = callee_find_import(in);
    return target && visit_later(w, target);
}

enum step { STEP_ON, STEP_END, STEP_UNKNOWN };

static enum step take_step(struct walk *w, const struct insn *in)
{
    const enum step end[] = {STEP_UNKNOWN, STEP_END}, on[] = {STEP_UNKNOWN, STEP_ON};
    bool ud2 = in->kind == INSN_TRAP && in->map == 1 && in->opcode == 0x0b;
    if (ud2)
        return STEP_END;
    if (!note_effects(&w->found, in))
        return STEP_UNKNOWN;
    switch (in->kind) {
    case INSN_NEXT:
        return STEP_ON;
    case INSN_RET:
        return STEP_END;
    case INSN_JUMP:
        return end[visit_later(w, in->target)];
    case INSN_COND:
    case INSN_CALL:
        return on[visit_later(w, in->target)];
    case INSN_JUMP_IND:
        return end[visit_import(w, in)];
    case INSN_CALL_IND:
        return on[visit_import(w, in)];
    default:
        return STEP_UNKNOWN;
    }
}

static bool is_seen(const struct walk *w, uint64_t pc)
{
    for (unsigned i = 0; i < w->n_seen; i++)
        if (w->seen[i] == pc)
            return true;
    return false;
}

/* Reads on from pc until the code goes elsewhere or is known; false: something is not harmless. */
static bool read_code(struct walk *w, uint64_t pc)
{
    struct insn in;
    for (enum step step = STEP_ON; step == STEP_ON && !is_seen(w, pc); pc += in.len) {
        if (w->n_seen == MAX_INSNS || !enter_segment(w, pc) ||
            decode(&in, (const uint8_t *)pc, w->text_end - pc, pc) != DECODE_OK)
            return false;
        w->seen[w->n_seen++] = pc;
        step = take_step(w, &in);
        if (step == STEP_UNKNOWN)
            return false;
    }
    return true;
}

bool callee_examine(const void *func, struct callee *callee)
{
    struct walk w = {.n_todo = 1, .todo = {(uintptr_t)func}};
    while (w.n_todo)
        if (!read_code(&w, w.todo[--w.n_todo]))
            return false;
    *callee = w.found;
    return __builtin_popcount(callee->xmm) <= MAX_XMM;
}
