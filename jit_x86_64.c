/* jit_x86_64.c: lowers decoded guest instructions to host code.
 *
 * Knows the guest ISA and, through emit_x86_64.h, the host's. Must not know about the kernel,
 * plugins' internals, or which blocks exist (translate.c and tb.c).
 *
 * Copy is the default: guest registers, flags and stack are the host's. What is not copied is named
 * here: branches, syscalls, %gs, rip-relative operands out of reach, traps. %fs is the guest's
 * where the processor may change it (FSGSBASE); a system call at every way to C and back would cost
 * more than to address the guest's %fs operands as its %gs ones.
 *
 * Spill slots, at gs:[CPU_SLOT + 8 n]:
 *   0  rcx around an indirect branch or a syscall; elements of a repetition
 *   1  guest target of an indirect branch
 *   2  first scratch register      3  second scratch register
 *   5  meminfo word                6  which cpu->vaddr, for jit_call_mem_op
 *   5  number of operations, for jit_call_mem_before and jit_call_mem_after
 *   5  elements that an instruction accesses; of a repeated one, the count that it begins with
 *   7  flags around a critical section of a plugin
 *
 * Indirect branches. The jump table has one host address per low 16 bits of the guest address;
 * the site jumps there without looking, with the guest target in slot 1 and rcx in slot 0. The
 * pad at the other end checks that slot 1 is its own address. Every table entry is a pad or
 * jit_exit_miss. A branch through a constant is lowered as the direct one that it amounts to.
 *
 * Calls and returns. A direct call pushes the guest's return address and makes a host call; the
 * callee's call_host entry drops the host address again. The return looks its target up in the
 * return table, pushes what it finds and makes a host ret, which the processor's return stack
 * predicts: the pad behind the call is where it leads. That pad pops the guest's return address
 * and checks that it is its own. The table has 32-bit addresses and shares a huge page with the
 * jump table: that one is cleared in the time that faults on the small pages would take, and more
 * would take longer. Its index is the low 16 bits of the address; where many returns come to share
 * an entry, more of them by pext, which takes longer (measured: two cycles a return): all code is
 * translated anew for that. A program of much code gets more entries still, by a wider mask: one
 * that was put where the narrower mask said leads to a pad that checks.
 *
 * Fast pads. A pad has to compare without flags, then to load rcx from slot 0. That of a target
 * at a low address does both by one load: from slot 0, moved by how far the target is from its own
 * address. Two targets that share an entry have the same low 16 bits at least, and 64 KiB and more
 * from slot 0 there is nothing: cpu.c keeps the window around a cpu free (emu.h), so that the load
 * faults, or its address is none that a program can have. The fault makes the targets share by pads
 * that compare: of a return, which must stay behind its call, the block is translated anew. All
 * pads compare where the guest maps what could be in the way (vma.c), or where the fault would not
 * reach emu (signal.c). A return by mistake to an address above 4 GiB where there is no code at all
 * might go unnoticed: if it shares an entry, and something is mapped as far above the cpu. */

#include "emit_x86_64.h"

#include <asm/prctl.h>
#include <cpuid.h>
#include <errno.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_STEPS     64 /* instructions that a signal waits for the flags */

/* Most bytes that one guest instruction can take, without instrumentation, and one plugin_op. */
#define MAX_INSN_OUT  400
#define MAX_OP_OUT    360 /* the first call of a function: with its thunk */
/* The same in the cold part: a stub for each exit, a call thunk, a constant. */
#define MAX_INSN_COLD 192

#define FAST_PADS_END LOW_TABLES /* code from there on has none */
_Static_assert(FAST_PADS_END <= CPU_WINDOW_BELOW, "what their pads load lies in the window");

#define JUMP_TABLE      LOW_TABLES
#define JUMP_TABLE_SIZE 65536
#define ROUTES          (JUMP_TABLE + JUMP_TABLE_SIZE * 8) /* enum syscall_route per number */
#define LARGE_SIZE      (16ull * (LARGE_MASK + 1))
#define ROUTE_COUNT     65536 /* by the low half of eax */
#define UNKNOWN_SYSCALL 1024  /* this and all above are none of the kernel's */
#define PADS            (ROUTES + ROUTE_COUNT)
/* The bits of an address that are the index; 0: the low NARROW_BITS, without pext. */
#define RETURN_MASK     (PADS + PAD_COUNT * PAD_SIZE)
#define MAX_SHARED      16 /* entries that returns share, before there are more by pext */
#define RETURN_TABLE    (LOW_TABLES + (1ull << 20))
#define NARROW_BITS     16
#define RETURN_BITS     18
#define MORE_BITS       20
#define TABLES_END      (LOW_TABLES + (6ull << 20))
_Static_assert(RETURN_TABLE + (4ull << MORE_BITS) <= TABLES_END, "layout");
_Static_assert(TABLES_END <= LARGE_TABLE && LARGE_TABLE + LARGE_SIZE <= LOW_CACHE, "layout");

#define SLOT(n)     (CPU_SLOT + 8 * (n))
#define VADDR(n)    (CPU_VADDR + 8 * (n))
#define REG(n)      (CPU_REG + 8 * (n))
#define PREFIX_FS   0x64
#define PREFIX_GS   0x65
#define PREFIX_A32  0x67

#define POP_RCX     0x59
#define GS_LOAD_LEN 9 /* mov rcx, gs:[disp] */

/* How to get from the state at a host instruction to a guest state; spilled registers are put
 * back first. */
enum roll_rule {
    ROLL_BACK,      /* at guest instruction pc, nothing of it done */
    ROLL_TO_TARGET, /* the branch is made but for the pc, which is in slot 1; rcx in slot 0 */
    ROLL_RETURN,    /* the push of a return faulted; it is made but for the pop; rcx in slot 0 */
    ROLL_POPPED,    /* the same behind the pop */
    ROLL_DROP,      /* the same as ROLL_BACK, with a host return address still to drop */
    ROLL_REPEATED,  /* the same as ROLL_BACK, with elements that are done to count */
    ROLL_SOURCE,    /* the same as ROLL_BACK, with the base in slot 3 still in rsi */
    ROLL_CALL,      /* the host call whose dead push faulted; the branch is made but for the pc */
    ROLL_NEXT,      /* the instruction is done, pc is the next one's; rcx too (syscall) */
    ROLL_PLUGIN,    /* a fault here is a plugin's */
};

/* Low addresses that lead to entry_x86_64.S. */
enum pad {
    PAD_LOOKUP,
    PAD_MISS,
    PAD_RETURN,
    PAD_RETURNED,
    PAD_LINK,
    PAD_SYSCALL,
    PAD_TRAP,
    PAD_STALE,
    PAD_OP,
    PAD_MEM_OP,
    PAD_MEM_BEFORE,
    PAD_MEM_AFTER,
    PAD_COUNT
};
#define PAD_SIZE 16
_Static_assert(RETURN_MASK + 4 <= RETURN_TABLE, "layout");

extern const char jit_exit_lookup[], jit_exit_miss[], jit_exit_return[], jit_exit_returned[],
    jit_exit_link[], jit_exit_syscall[], jit_exit_trap[], jit_exit_stale[], jit_call_op[],
    jit_call_mem_op[], jit_call_mem_before[], jit_call_mem_after[];

/* One lowering of a superblock. */
struct lower {
    struct emit e;
    struct superblock *sb;
    struct unit *unit;
    int tb;                       /* index of the block being lowered */
    size_t op;                    /* its next operation */
    unsigned copy;                /* of the block's code that is being laid, below count_copies */
    uint8_t *leaves[LOOP_COPIES]; /* sites of the branches by which earlier copies end the loop */
    uint8_t *cold;                /* end of the free space; stubs are laid below it */
    struct link *links;
    unsigned lost; /* dead flags that instrumentation has changed, as the guest has not since */
    bool replay;   /* only to find what a host address stands for: no stubs, no links */
    bool full;
};

/* The cache: blocks grow up from its start, stubs down from its end. */
static struct {
    uint8_t *start, *end, *hot, *cold;
} cache;

/* Callbacks that need no full switch to C. A thunk saves what its function changes, calls it
 * through the word before the thunk, and returns to the site. Neither list nor proofs change, so
 * that a block always lowers to the same length. */
enum { THUNK_MEM = 1, THUNK_FLAGS_DEAD = 2, LIGHT_THUNKS = 4 };
#define MAX_LIGHTS 64
static struct light {
    const void *func;
    bool proven;
    struct callee callee;
    uint8_t *thunk[LIGHT_THUNKS]; /* index: set of THUNK_* */
} lights[MAX_LIGHTS];
static size_t n_lights;

/* Segments of the guest that are not the processor's: INSN_USES_GS, perhaps INSN_USES_FS. */
static unsigned moved_segments;
static unsigned trapped_flags; /* INSN_SETS_* of the same */
static uint64_t host_features;

static bool fast_pads;        /* the same for all blocks since the last flush */
static bool may_fault = true; /* a fault is emu's to see, whatever the guest or a tracer does */
/* Entries of the return table that targets share. */
static uint8_t shared_returns[(1 << MORE_BITS) / 8];
static unsigned n_shared; /* how many of them have come to be */
static bool has_pext;     /* and it is quick */
static bool has_strays; /* entries that jit_table_clear does not find: they are of another index */

static struct unit replay_unit;
static uint8_t replay_code[1 << 20];

static uint8_t *pad_address(enum pad pad)
{
    return (uint8_t *)(PADS + (uint64_t)pad * PAD_SIZE);
}

static void *map_low(uint64_t start, size_t len, int prot)
{
    void *p = mmap((void *)start, len, prot,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (p != (void *)start)
        die("cannot map %zu bytes at 0x%llx for the code cache", len, (unsigned long long)start);
    return p;
}

/* Fewer faults now, fewer misses of the TLB later. */
static void use_huge_pages(uint64_t start, size_t len)
{
    madvise((void *)start, len, MADV_HUGEPAGE);
}

/* Most programs fill little of the first pages: to clear those would take longer than the faults
 * on small ones. */
static void map_cache(void)
{
    const size_t small = 2 << 20;
    cache.start = map_low(LOW_CACHE, opt.tb_size, PROT_READ | PROT_WRITE | PROT_EXEC);
    cache.end = cache.start + opt.tb_size;
    if (opt.tb_size > 2 * small)
        use_huge_pages(LOW_CACHE + small, opt.tb_size - 2 * small);
}

/* AMD's processors before Zen 3 (family 19h) take hundreds of cycles. */
static bool has_fast_pext(void)
{
    unsigned a, b, c, d, family;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_BMI2))
        return false;
    __cpuid(1, family, b, c, d);
    family = (family >> 8 & 15) + (family >> 20 & 255);
    __cpuid(0, a, b, c, d);
    return b != signature_AMD_ebx || family >= 0x19;
}

static bool has_fsgsbase(void)
{
    return getauxval(AT_HWCAP2) & 2;
}

static uint64_t find_features(void)
{
    unsigned a, b, c, d;
    uint64_t features = has_fsgsbase() ? FEATURE_FSGSBASE : 0;
    __cpuid(1, a, b, c, d);
    if (!(c & bit_OSXSAVE) || !(c & bit_AVX))
        return features;
    features |= FEATURE_AVX;
    __cpuid_count(13, 1, a, b, c, d);
    if (a & 4)
        features |= FEATURE_XINUSE;
    __cpuid_count(7, 0, a, b, c, d);
    if (b & bit_AVX512F && b & bit_AVX512BW)
        features |= FEATURE_AVX512;
    return features;
}

static uint32_t return_mask(unsigned bits)
{
    return (1u << bits) - 1;
}

static bool is_narrow(void)
{
    return !*(const uint32_t *)RETURN_MASK;
}

/* Entries of the return table that are in use. */
static size_t count_returns(void)
{
    return is_narrow() ? 1 << NARROW_BITS : *(const uint32_t *)RETURN_MASK + (size_t)1;
}

void jit_init(void)
{
    static const char *const targets[PAD_COUNT] = {
        [PAD_LOOKUP] = jit_exit_lookup,
        [PAD_MISS] = jit_exit_miss,
        [PAD_RETURN] = jit_exit_return,
        [PAD_RETURNED] = jit_exit_returned,
        [PAD_LINK] = jit_exit_link,
        [PAD_SYSCALL] = jit_exit_syscall,
        [PAD_TRAP] = jit_exit_trap,
        [PAD_STALE] = jit_exit_stale,
        [PAD_OP] = jit_call_op,
        [PAD_MEM_OP] = jit_call_mem_op,
        [PAD_MEM_BEFORE] = jit_call_mem_before,
        [PAD_MEM_AFTER] = jit_call_mem_after,
    };
    map_low(LOW_TABLES, TABLES_END - LOW_TABLES, PROT_READ | PROT_WRITE | PROT_EXEC);
    map_low(LARGE_TABLE, LARGE_SIZE, PROT_READ | PROT_WRITE);
    use_huge_pages(LOW_TABLES, TABLES_END - LOW_TABLES);
    has_pext = has_fast_pext();
    for (int i = 0; i < PAD_COUNT; i++) {
        struct emit e = {.p = pad_address(i)};
        emit_jmp_far(&e, (uintptr_t)targets[i]);
    }
    memset((void *)ROUTES, linux_syscall_route(UNKNOWN_SYSCALL), ROUTE_COUNT);
    host_features = find_features();
    moved_segments = has_fsgsbase() ? INSN_USES_GS : INSN_USES_GS | INSN_USES_FS;
    trapped_flags = has_fsgsbase() ? INSN_SETS_GS : INSN_SETS_GS | INSN_SETS_FS;
    for (int nr = 0; nr < UNKNOWN_SYSCALL; nr++)
        ((uint8_t *)ROUTES)[nr] = linux_syscall_route(nr);
    map_cache();
    jit_clear_table();
    jit_reset();
}

/* ---- the large table (entry_x86_64.S): guest pc, host address
 * -------------------------------------- */

static volatile uint64_t *large_entry(uint64_t pc)
{
    return (uint64_t *)LARGE_TABLE + 2 * ((pc ^ (uint32_t)pc >> LARGE_SHIFT) & LARGE_MASK);
}

/* An empty entry is one that its own pc cannot have: 0 but for the entry of 0. */
static void clear_large_entry(volatile uint64_t *entry)
{
    entry[0] = entry == large_entry(0);
}

/* Another thread may look meanwhile: it must not see one pc with the other's address. */
static void set_large_entry(uint64_t pc, const uint8_t *host)
{
    volatile uint64_t *entry = large_entry(pc);
    clear_large_entry(entry);
    entry[1] = (uintptr_t)host;
    entry[0] = pc;
}

static void empty_returns(size_t first, size_t end)
{
    for (size_t i = first; i < end; i++)
        ((uint32_t *)RETURN_TABLE)[i] = (uint32_t)(uintptr_t)pad_address(PAD_RETURN);
}

bool jit_widen_returns(void)
{
    uint32_t *mask = (uint32_t *)RETURN_MASK;
    if (*mask != return_mask(RETURN_BITS))
        return false;
    empty_returns(1 << RETURN_BITS, 1 << MORE_BITS);
    has_strays = true;
    __atomic_store_n(mask, return_mask(MORE_BITS), __ATOMIC_RELEASE);
    return true;
}

void jit_clear_table(void)
{
    for (int i = 0; i < JUMP_TABLE_SIZE; i++)
        ((uint64_t *)JUMP_TABLE)[i] = (uintptr_t)pad_address(PAD_MISS);
    empty_returns(0, count_returns());
    /* Fresh pages: zero, and not touched before they are used. */
    madvise((void *)LARGE_TABLE, LARGE_SIZE, MADV_DONTNEED);
    clear_large_entry(large_entry(0));
}

void jit_route_to_c(void)
{
    memset((void *)ROUTES, ROUTE_C, ROUTE_COUNT);
}

static void call_nothing(void)
{
}

/* Thunks below limit call nothing from now on: a thread that caused a flush from a callback may
 * still run old code for a while, and the plugin may be gone. */
static void close_thunks(const uint8_t *limit)
{
    uint64_t nothing = (uintptr_t)call_nothing;
    for (size_t i = 0; i < n_lights; i++)
        for (int k = 0; k < LIGHT_THUNKS; k++) {
            uint8_t **thunk = &lights[i].thunk[k];
            if (!*thunk || *thunk >= limit)
                continue;
            memcpy(*thunk - 8, &nothing, 8);
            *thunk = NULL;
        }
}

/* The narrow index is too narrow for the program. */
static bool shares_many(void)
{
    return n_shared > MAX_SHARED && is_narrow() && has_pext;
}

/* When there is no code that goes by it: because it is too narrow, or without fast pads, as nobody
 * notices then who shares. */
static void leave_narrow_index(void)
{
    *(uint32_t *)RETURN_MASK = return_mask(RETURN_BITS);
    has_strays = true;
    memset(shared_returns, 0, sizeof(shared_returns));
}

void jit_reset(void)
{
    close_thunks(cache.end);
    cache.hot = cache.start;
    cache.cold = cache.end;
    fast_pads = may_fault && !vma_is_crowded();
    if (shares_many() || (!fast_pads && is_narrow() && has_pext))
        leave_narrow_index();
    if (has_strays)
        empty_returns(0, count_returns());
    has_strays = false;
}

bool jit_must_flush(void)
{
    return shares_many() || (fast_pads && (!may_fault || vma_is_crowded()));
}

bool jit_stop_faults(void)
{
    may_fault = false;
    return fast_pads;
}

bool jit_in_cache(uint64_t host_pc)
{
    return host_pc >= (uintptr_t)cache.start && host_pc < (uintptr_t)cache.end;
}

bool jit_in_pads(uint64_t host_pc)
{
    return host_pc >= PADS && host_pc < RETURN_MASK;
}

/* ---- exits --------------------------------------------------------------------------------------
 */

static uint8_t *cold_take(struct lower *l, size_t size)
{
    return l->cold -= size;
}

/* The displacement lies in one cache line (emit_align_hole): the store is seen whole. */
static void store_rel32(uint8_t *site, const uint8_t *target)
{
    typedef int32_t __attribute__((aligned(1), may_alias)) displacement;
    *(volatile displacement *)site = (int32_t)(target - (site + 4));
}

void jit_bind(struct link *link, const struct tb *tb)
{
    store_rel32(link->site, link->call ? tb->call_host : tb->host);
}

void jit_unbind(struct link *link)
{
    store_rel32(link->site, link->stub);
}

/* Makes a direct exit to target and its stub; returns where the exit leads for now. The caller
 * sets link->site. NULL link: replaying. */
static uint8_t *make_link(struct lower *l, uint64_t target, bool call, struct link **out)
{
    *out = NULL;
    if (l->replay)
        return cache.end;
    struct link *link = tb_alloc(sizeof(*link));
    if (!link) {
        l->full = true;
        return cache.end;
    }
    uint8_t *stub = cold_take(l, call ? 23 : 18);
    struct emit e = {.p = stub};
    if (call)
        emit_op_rm(&e, 0x8d, GPR_RSP, GPR_RSP, 8);
    emit_store_gs_imm(&e, CPU_EXIT_ARG, (uintptr_t)link);
    emit_jmp(&e, pad_address(PAD_LINK));
    *link = (struct link){.stub = stub, .target = target, .call = call, .next = l->links};
    l->links = link;
    *out = link;
    return stub;
}

static void set_site(struct link *link, uint8_t *site)
{
    if (link)
        link->site = site;
}

static void lower_exit(struct lower *l, uint64_t target)
{
    struct link *link;
    const uint8_t *stub = make_link(l, target, false, &link);
    set_site(link, emit_hole_jmp(&l->e, stub));
}

/* True if the next block of the superblock is the code at pc: it follows without a jump. */
static bool is_next(const struct lower *l, uint64_t pc)
{
    return l->tb + 1 < l->unit->n_tbs && l->sb->tb[l->tb + 1].pc == pc;
}

static void lower_fallthrough(struct lower *l, uint64_t pc)
{
    if (!is_next(l, pc))
        lower_exit(l, pc);
}

/* Exit to C at guest address pc. */
static void emit_exit_at(struct emit *e, uint64_t pc, enum pad pad)
{
    emit_store_gs_imm(e, CPU_PC, pc);
    emit_jmp(e, pad_address(pad));
}

/* ---- what a host instruction stands for
 * ---------------------------------------------------------- */

static void roll_set(struct lower *l, enum roll_rule rule)
{
    l->e.now.rule = rule;
}

static void spill(struct lower *l, int reg, int slot)
{
    emit_store_gs(&l->e, SLOT(slot), reg);
    struct roll *now = &l->e.now;
    now->spilled[now->n_spilled].reg = (uint8_t)reg;
    now->spilled[now->n_spilled++].slot = (uint8_t)slot;
}

/* Undoes the latest spill. */
static void restore(struct lower *l)
{
    struct roll *now = &l->e.now;
    int last = now->n_spilled - 1;
    emit_load_gs(&l->e, now->spilled[last].reg, SLOT(now->spilled[last].slot));
    now->n_spilled--;
}

/* ---- operands
 * ------------------------------------------------------------------------------------ */

/* A low register that the instruction does not use, so that no extension bit is needed; there is
 * always one (cmpxchg8b, the greediest with an operand, leaves rsi and rdi). */
static int pick_scratch(const struct insn *in, int not_this)
{
    static const uint8_t candidates[] = {GPR_RAX, GPR_RDX, GPR_RCX, GPR_RSI, GPR_RDI, GPR_RBX};
    unsigned used = in->regs_read | in->regs_written;
    for (size_t i = 0; i < sizeof(candidates); i++)
        if (!(used >> candidates[i] & 1) && candidates[i] != not_this)
            return candidates[i];
    die("no free register at 0x%llx", (unsigned long long)in->pc);
}

/* The operand that ModRM names; there is one. pop's and push's stack operands are not it. */
static const struct mem_op *modrm_operand(const struct insn *in)
{
    const struct mem_op *m = in->mem;
    while (m->flags & MEM_STACK)
        m++;
    return m;
}

/* From the bytes: lea and prefetches have no entry in mem[]. */
static uint64_t rip_target(const struct insn *in, const uint8_t *code)
{
    int32_t disp;
    memcpy(&disp, code + in->disp_off, sizeof(disp));
    return in->pc + in->len + (uint64_t)(int64_t)disp;
}

/* lea reg, operand without its segment; reg may be one of its registers. */
static void emit_lea_operand(struct emit *e, int reg, const struct mem_op *m, bool addr32)
{
    int base = m->base, index = m->index;
    emit_mark(e);
    if (addr32)
        emit_u8(e, PREFIX_A32);
    emit_u8(e, 0x48 | reg >> 3 << 2 | (index >= 8) << 1 | (base >= 8 && base < 16));
    emit_u8(e, 0x8d);
    unsigned scale = m->scale == 8 ? 3 : m->scale == 4 ? 2 : m->scale == 2 ? 1 : 0;
    emit_u8(e, (base == REG_NONE ? 0x04 : 0x84) | (reg & 7) << 3);
    emit_u8(e, scale << 6 | (index == REG_NONE ? 4 : index & 7) << 3 |
                   (base == REG_NONE ? 5 : base & 7));
    emit_u32(e, (uint32_t)m->disp);
}

static bool uses_moved(const struct insn *in)
{
    return in->flags & moved_segments;
}

static int32_t moved_base(const struct insn *in)
{
    return in->flags & INSN_USES_GS ? CPU_GS_BASE : CPU_FS_BASE;
}

static bool is_segment_prefix(const struct insn *in, uint8_t byte)
{
    return byte == PREFIX_GS || (byte == PREFIX_FS && uses_moved(in));
}

/* reg = linear address of an operand, flags kept; second is clobbered for %fs and %gs operands. */
static void emit_address(struct emit *e, int reg, int second, const struct insn *in,
                         const struct mem_op *m)
{
    if (m->flags & MEM_ABS64)
        emit_mov_imm(e, reg, in->imm);
    else if (m->base == REG_PC)
        emit_mov_imm(e, reg, in->pc + in->len + (int64_t)m->disp);
    else
        emit_lea_operand(e, reg, m, in->flags & INSN_ADDR32 && !(m->flags & MEM_STACK));
    if (m->seg == SEG_NONE)
        return;
    if (m->seg == SEG_FS && !(moved_segments & INSN_USES_FS))
        emit_rdfsbase(e, second);
    else
        emit_load_gs(e, second, m->seg == SEG_GS ? CPU_GS_BASE : CPU_FS_BASE);
    emit_lea_index(e, reg, reg, second);
}

static unsigned operand_end(const struct insn *in)
{
    if (in->disp_size)
        return in->disp_off + in->disp_size;
    return in->modrm_off + 1 + ((in->modrm & 7) == 4 && in->modrm < 0xc0);
}

/* Copies prefixes, escape and opcode with the extension bit of the operand's base cleared (REX.B,
 * VEX.B, EVEX.B) and without the prefix of a moved segment. */
static void emit_head(struct emit *e, const struct insn *in, const uint8_t *code)
{
    unsigned i = 0;
    for (; i < in->prefix_len; i++) {
        if (in->rex && i + 1 == in->prefix_len)
            emit_u8(e, code[i] & ~1u);
        else if (!is_segment_prefix(in, code[i]))
            emit_u8(e, code[i]);
    }
    bool has_b = code[i] == 0xc4 || code[i] == 0x62 || code[i] == 0x8f;
    if (has_b && in->modrm_off - i >= 3) { /* 8f without XOP is pop: opcode right before ModRM */
        emit_u8(e, code[i]);
        emit_u8(e, code[i + 1] | 0x20); /* stored inverted */
        i += 2;
    }
    for (; i < in->modrm_off; i++)
        emit_u8(e, code[i]);
}

/* The instruction with its operand at [base + index of the original + disp]. */
static void emit_with_base(struct emit *e, const struct insn *in, const uint8_t *code, int base,
                           int32_t disp)
{
    emit_mark(e);
    emit_head(e, in, code);
    bool sib = (in->modrm & 7) == 4;
    emit_u8(e, 0x80 | (in->modrm & 0x38) | (unsigned)(sib ? 4 : base));
    if (sib)
        emit_u8(e, (code[in->modrm_off + 1] & 0xf8) | (unsigned)base);
    emit_u32(e, (uint32_t)disp);
    unsigned end = operand_end(in);
    memcpy(e->p, code + end, in->len - end);
    e->p += in->len - end;
}

/* A mov to a register that can hold its operand's base until then: no other has to be found. */
static bool is_load_of_base(const struct insn *in)
{
    return in->map == 0 && in->opcode == 0x8b && in->opsize >= 4 && in->reg < 8 &&
           in->reg != GPR_RSP && !(in->regs_read >> in->reg & 1);
}

/* Operands that cannot be copied: of a moved segment, or rip-relative and out of reach. */
static void lower_with_scratch(struct lower *l, const struct insn *in, const uint8_t *code)
{
    struct emit *e = &l->e;
    bool load = is_load_of_base(in);
    int base = load ? in->reg : pick_scratch(in, REG_NONE);
    int32_t disp = 0;
    spill(l, base, 2);
    if (in->rip_relative) {
        emit_mov_imm(e, base, rip_target(in, code));
        if (uses_moved(in)) {
            int second = pick_scratch(in, base);
            spill(l, second, 3);
            emit_load_gs(e, second, moved_base(in));
            emit_lea_index(e, base, base, second);
            restore(l);
        }
    } else {
        const struct mem_op *m = modrm_operand(in);
        emit_load_gs(e, base, moved_base(in));
        if (m->base != REG_NONE)
            emit_lea_index(e, base, m->base, base);
        disp = m->disp;
    }
    emit_with_base(e, in, code, base, disp);
    e->now.pc = in->pc + in->len;
    if (load)
        e->now.n_spilled--;
    else
        restore(l);
}

/* The same where the address is more than base, index and displacement (movabs, or cut to 32
 * bits). ModRM becomes [base]; of movabs the opcode with ModRM is the one that this changes to. */
static void lower_with_address(struct lower *l, const struct insn *in, const uint8_t *code)
{
    enum { MOVABS_TO_MOV = 0xa0 ^ 0x8a };
    struct emit *e = &l->e;
    bool movabs = in->mem[0].flags & MEM_ABS64;
    const struct mem_op *m = movabs ? in->mem : modrm_operand(in);
    int base = pick_scratch(in, REG_NONE), second = pick_scratch(in, base);
    unsigned end = movabs ? in->len : operand_end(in);
    spill(l, base, 2);
    spill(l, second, 3);
    emit_address(e, base, second, in, m);
    restore(l);
    emit_mark(e);
    if (movabs) {
        for (unsigned i = 0; i < in->prefix_len; i++)
            if (!is_segment_prefix(in, code[i]) && code[i] != PREFIX_A32)
                emit_u8(e, code[i]);
        emit_u8(e, in->opcode ^ MOVABS_TO_MOV);
    } else {
        emit_head(e, in, code);
    }
    emit_u8(e, 0x80 | (in->modrm & 0x38) | (unsigned)base);
    emit_u32(e, 0);
    memcpy(e->p, code + end, in->len - end);
    e->p += in->len - end;
    e->now.pc = in->pc + in->len;
    restore(l);
}

/* A string instruction without its segment prefix, and, if only once, without the repetition. */
static void emit_string(struct emit *e, const struct insn *in, const uint8_t *code, bool once)
{
    emit_mark(e);
    for (unsigned i = 0; i < in->len; i++) {
        bool rep = code[i] == 0xf2 || code[i] == 0xf3;
        if (i >= in->prefix_len || !(is_segment_prefix(in, code[i]) || (once && rep)))
            emit_u8(e, code[i]);
    }
}

/* movs, cmps, lods, outs from a moved segment: its base is in rsi meanwhile, and in slot 3. */
static void lower_moved_string(struct lower *l, const struct insn *in, const uint8_t *code,
                               bool once)
{
    struct emit *e = &l->e;
    int base = pick_scratch(in, REG_NONE);
    spill(l, base, 2);
    emit_load_gs(e, base, moved_base(in));
    emit_store_gs(e, SLOT(3), base);
    emit_lea_index(e, GPR_RSI, GPR_RSI, base);
    roll_set(l, ROLL_SOURCE);
    emit_not(e, base);
    emit_string(e, in, code, once);
    emit_lea_index(e, GPR_RSI, GPR_RSI, base);
    emit_op_rm(e, 0x8d, GPR_RSI, GPR_RSI, 1);
    roll_set(l, ROLL_BACK);
    e->now.pc = in->pc + in->len;
    restore(l);
}

static bool rip_reaches(const struct emit *e, const struct insn *in, const uint8_t *code,
                        unsigned out_len)
{
    return fits_i32((int64_t)(rip_target(in, code) - (uintptr_t)(emit_here(e) + out_len)));
}

/* Replaces the displacement of the rip-relative instruction just written, whose ModRM operand
 * ends tail bytes before the end of the instruction. */
static void fix_rip(struct emit *e, const struct insn *in, const uint8_t *code, unsigned tail)
{
    uint32_t disp = (uint32_t)(rip_target(in, code) - (uintptr_t)emit_here(e));
    memcpy(e->p - tail - 4, &disp, 4);
}

static void lower_rip_relative(struct lower *l, const struct insn *in, const uint8_t *code)
{
    if (rip_reaches(&l->e, in, code, in->len)) {
        emit_copy(&l->e, code, in->len);
        fix_rip(&l->e, in, code, in->len - operand_end(in));
    } else {
        lower_with_scratch(l, in, code);
    }
}

/* rcx = the r/m64 operand of an indirect branch. */
static void lower_load_target(struct lower *l, const struct insn *in, const uint8_t *code)
{
    struct emit *e = &l->e;
    bool reach = !in->rip_relative || rip_reaches(e, in, code, 7);
    if (in->modrm < 0xc0 && (uses_moved(in) || !reach)) {
        spill(l, GPR_RDX, 2);
        emit_address(e, GPR_RCX, GPR_RDX, in, modrm_operand(in));
        restore(l);
        emit_op_rm(e, 0x8b, GPR_RCX, GPR_RCX, 0);
        return;
    }
    emit_mark(e);
    for (unsigned i = 0; i < in->prefix_len; i++)
        if (code[i] == PREFIX_FS || code[i] == PREFIX_A32)
            emit_u8(e, code[i]);
    emit_u8(e, 0x48 | (in->rex & 3));
    emit_u8(e, 0x8b);
    emit_u8(e, (in->modrm & 0xc7) | GPR_RCX << 3);
    unsigned rest = in->modrm_off + 1;
    memcpy(e->p, code + rest, in->len - rest);
    e->p += in->len - rest;
    if (in->rip_relative)
        fix_rip(e, in, code, 0);
}

/* ---- instrumentation
 * ------------------------------------------------------------------------------ */

/* The proof for a callback's function, or NULL. */
static struct light *find_light(const struct plugin_op *op)
{
    size_t i = 0;
    while (i < n_lights && lights[i].func != op->func)
        i++;
    if (i == MAX_LIGHTS)
        return NULL;
    if (i == n_lights) {
        lights[i].func = op->func;
        lights[i].proven = callee_examine(op->func, &lights[i].callee);
        n_lights++;
    }
    return lights[i].proven ? &lights[i] : NULL;
}

/* The arguments that a site loads, which the thunk does not save: udata; and vaddr, info. */
static const uint8_t site_args[] = {GPR_RSI}, mem_site_args[] = {GPR_RCX, GPR_RDX, GPR_RSI};

/* General registers that the thunk saves. */
static unsigned saved_by_thunk(const struct light *light, unsigned kind)
{
    unsigned regs = light->callee.regs | 1u << GPR_RDI | 1u << GPR_RSI;
    if (kind & THUNK_MEM)
        regs &= ~(1u << GPR_RCX | 1u << GPR_RDX);
    if (!(kind & THUNK_FLAGS_DEAD))
        regs |= 1u << GPR_RAX;
    return regs & ~(1u << GPR_RSI);
}

static void emit_move_stack(struct emit *e, int32_t distance)
{
    if (distance)
        emit_op_rm(e, 0x8d, GPR_RSP, GPR_RSP, distance);
}

/* movups to or from the area at the stack pointer. */
static void emit_move_vectors(struct emit *e, unsigned opcode, unsigned xmm)
{
    int32_t at = 0;
    for (int i = 0; i < 16; i++)
        if (xmm >> i & 1) {
            emit_movups(e, opcode, i, at);
            at += 16;
        }
}

/* The call itself, and on return a look at whether a signal came meanwhile: then the processor
 * steps on to where it can be delivered (signal.c). */
static void emit_light_call(struct emit *e, const uint8_t *pointer)
{
    emit_load_gs32(e, GPR_RDI, offsetof(struct cpu, index));
    emit_call_through(e, pointer);
    emit_test_gs32(e, CPU_PENDING);
    emit_short(e, 0, 0x74, 0);
    uint8_t *skip = e->p;
    emit_set_trap_flag(e);
    skip[-1] = (uint8_t)(e->p - skip);
}

/* Entered with the stack 16-byte aligned, on the host's side. */
static void emit_thunk(struct emit *e, const struct light *light, unsigned kind)
{
    unsigned regs = saved_by_thunk(light, kind), xmm = light->callee.xmm;
    bool flags = !(kind & THUNK_FLAGS_DEAD);
    int pushed = __builtin_popcount(regs) + flags;
    int32_t frame = 16 * __builtin_popcount(xmm) + pushed % 2 * 8;
    const uint8_t *pointer = e->p;
    emit_u64(e, (uintptr_t)light->func);
    for (int reg = 0; reg < 16; reg++)
        if (regs >> reg & 1)
            emit_push(e, reg);
    if (flags) {
        emit_save_flags(e);
        emit_push(e, GPR_RAX);
    }
    emit_move_stack(e, -frame);
    emit_move_vectors(e, 0x11, xmm);
    emit_light_call(e, pointer);
    emit_move_vectors(e, 0x10, xmm);
    emit_move_stack(e, frame);
    if (flags) {
        emit_pop(e, GPR_RAX);
        emit_restore_flags(e);
    }
    for (int reg = 15; reg >= 0; reg--)
        if (regs >> reg & 1)
            emit_pop(e, reg);
    emit_ret(e);
}

static const uint8_t *find_thunk(struct lower *l, struct light *light, unsigned kind)
{
    if (l->replay)
        return cache.end;
    if (!light->thunk[kind]) {
        uint8_t code[MAX_OP_OUT];
        struct emit e = {.p = code};
        emit_thunk(&e, light, kind);
        size_t size = (size_t)(e.p - code);
        cold_take(l, (uintptr_t)l->cold & 7);
        cold_take(l, (size + 7) & ~(size_t)7);
        memcpy(l->cold, code, size);
        light->thunk[kind] = l->cold + 8;
    }
    return light->thunk[kind];
}

/* One access of an instruction: offset bytes into which operand, and the meminfo word. */
struct report {
    unsigned operand, offset;
    uint32_t info;
};

/* Calls a thunk on the host's stack with the arguments in place. */
static void lower_light_call(struct lower *l, const struct plugin_op *op, struct light *light,
                             unsigned kind, const struct report *report)
{
    struct emit *e = &l->e;
    bool mem = kind & THUNK_MEM;
    const uint8_t *args = mem ? mem_site_args : site_args;
    int n = mem ? sizeof(mem_site_args) : sizeof(site_args);
    emit_store_gs(e, REG(GPR_RSP), GPR_RSP);
    emit_load_gs(e, GPR_RSP, CPU_HOST_SP);
    for (int i = 0; i < n; i++)
        emit_push(e, args[i]);
    emit_mov_imm(e, args[0], (uintptr_t)op->udata);
    if (mem) {
        emit_load_gs(e, GPR_RDX, VADDR(report->operand));
        if (report->offset)
            emit_op_rm(e, 0x8d, GPR_RDX, GPR_RDX, (int32_t)report->offset);
        emit_mov_imm(e, GPR_RSI, report->info);
    }
    emit_call(e, find_thunk(l, light, kind));
    for (int i = n - 1; i >= 0; i--)
        emit_pop(e, args[i]);
    emit_load_gs(e, GPR_RSP, REG(GPR_RSP));
}

/* Skips what follows unless the condition holds; returns where the distance goes. rax keeps the
 * flags from here to lower_end_condition, unless they are dead. */
static uint8_t *lower_condition(struct lower *l, const struct plugin_op *op, bool flags_dead)
{
    /* By enum qemu_plugin_cond: EQ NE LT LE GT GE, unsigned. */
    static const uint8_t skip_if[] = {[2] = CC_NE, CC_E, CC_AE, CC_A, CC_BE, CC_B};
    struct emit *e = &l->e;
    if (!flags_dead) {
        spill(l, GPR_RAX, 2);
        emit_save_flags(e);
    }
    if (fits_i32((int64_t)op->imm)) {
        emit_cmp_gs_imm(e, (int32_t)op->offset, (int32_t)op->imm);
    } else {
        spill(l, GPR_RCX, 3);
        emit_mov_imm(e, GPR_RCX, op->imm);
        emit_gs(e, 0x39, GPR_RCX, (int32_t)op->offset);
        restore(l);
    }
    emit_short(e, 0, 0x70 | skip_if[op->cond], 0);
    return e->p;
}

static void lower_end_condition(struct lower *l, bool flags_dead)
{
    if (flags_dead)
        return;
    emit_restore_flags(&l->e);
    emit_load_gs(&l->e, GPR_RAX, SLOT(2));
}

/* Calls jit_call_op or jit_call_mem_op. */
static void emit_call_op(struct emit *e, const struct plugin_op *op, enum pad pad)
{
    emit_store_gs_imm(e, CPU_EXIT_ARG, (uintptr_t)op);
    emit_store_gs(e, REG(GPR_RSP), GPR_RSP);
    emit_load_gs(e, GPR_RSP, CPU_HOST_SP);
    emit_call(e, pad_address(pad));
    emit_load_gs(e, GPR_RSP, REG(GPR_RSP));
}

/* u64 at gs:[disp] += imm with the flags kept */
static void lower_add_keeping_flags(struct lower *l, int32_t disp, uint64_t imm)
{
    struct emit *e = &l->e;
    spill(l, GPR_RAX, 3);
    emit_load_gs(e, GPR_RAX, disp);
    if (fits_i32((int64_t)imm)) {
        emit_op_rm(e, 0x8d, GPR_RAX, GPR_RAX, (int32_t)imm);
    } else {
        spill(l, GPR_RDX, 4);
        emit_mov_imm(e, GPR_RDX, imm);
        emit_lea_index(e, GPR_RAX, GPR_RAX, GPR_RDX);
        restore(l);
    }
    emit_store_gs(e, disp, GPR_RAX);
    restore(l);
}

/* ---- operations at absolute addresses
 * ------------------------------------------------------------- */

/* A run of them shares its registers: rcx has an address near all of them; rdx, if it is needed, a
 * value; rax the flags or what cmpxchg expects. */
#define MAX_RUN 16
struct pointer_run {
    bool rax, rdx, flags, lock;
    uint64_t base; /* in rcx; 0: nothing yet */
    const uint8_t *end;
    int n_sites;
    struct site {
        uint8_t *field; /* displacement of a branch to a stub */
        const struct plugin_op *op;
    } site[MAX_RUN];
};

static bool is_wide(const struct plugin_op *op)
{
    return op->size == 8 && !fits_i32((int64_t)op->imm);
}

static struct pointer_run plan_run(const struct plugin_op *ops, size_t n, bool flags_dead)
{
    struct pointer_run run = {.lock = ops[0].kind == OP_LOCK, .rdx = ops[0].kind == OP_LOCK};
    for (size_t i = 0; i < n; i++) {
        run.rdx |= is_wide(&ops[i]);
        run.flags |= !flags_dead && ops[i].kind != OP_STORE_PTR;
    }
    run.rax = run.lock || run.flags;
    return run;
}

static void begin_run(struct lower *l, const struct pointer_run *run)
{
    roll_set(l, ROLL_PLUGIN);
    spill(l, GPR_RCX, 3);
    if (run->rdx)
        spill(l, GPR_RDX, 4);
    if (run->rax)
        spill(l, GPR_RAX, 2);
    if (run->flags)
        emit_save_flags(&l->e);
    if (run->flags && run->lock)
        emit_store_gs(&l->e, SLOT(7), GPR_RAX);
    if (run->lock)
        emit_store_gs_imm32(&l->e, CPU_HOLDS_LOCK, 1);
}

static void emit_end_run(struct emit *e, const struct pointer_run *run)
{
    if (run->flags && run->lock)
        emit_load_gs(e, GPR_RAX, SLOT(7));
    if (run->flags)
        emit_restore_flags(e);
    if (run->rax)
        emit_load_gs(e, GPR_RAX, SLOT(2));
    if (run->rdx)
        emit_load_gs(e, GPR_RDX, SLOT(4));
    emit_load_gs(e, GPR_RCX, SLOT(3));
}

/* Where the branches of a run lead: a stale block leaves, a lock makes the plugin's call. */
static void emit_run_stub(struct emit *e, const struct pointer_run *run, const struct plugin_op *op)
{
    if (op->kind == OP_LOCK)
        emit_store_gs_imm32(e, CPU_HOLDS_LOCK, 0);
    emit_end_run(e, run);
    if (op->kind == OP_GUARD) {
        emit_exit_at(e, op->pc, PAD_STALE);
        return;
    }
    emit_call_op(e, op, PAD_OP);
    if (op->kind == OP_UNLOCK)
        emit_store_gs_imm32(e, CPU_HOLDS_LOCK, 0);
    emit_jmp(e, run->end);
}

/* Lays a stub for each kind of branch; the guards share one. */
static void make_run_stubs(struct lower *l, const struct pointer_run *run)
{
    const uint8_t *stub = NULL;
    for (int i = 0; i < run->n_sites && !l->replay; i++) {
        const struct site *site = &run->site[i];
        if (!stub || site->op->kind != OP_GUARD) {
            uint8_t code[128];
            struct emit measure = {.p = code};
            emit_run_stub(&measure, run, site->op);
            struct emit cold = {.p = cold_take(l, (size_t)(measure.p - code))};
            stub = cold.p;
            emit_run_stub(&cold, run, site->op);
        }
        store_rel32(site->field, stub);
    }
}

static void branch_to_stub(struct lower *l, struct pointer_run *run, const struct plugin_op *op)
{
    emit_jcc(&l->e, CC_NE, emit_here(&l->e));
    run->site[run->n_sites++] = (struct site){l->e.p - 4, op};
}

/* A lock's word goes from one value to the other. */
static void lower_exchange(struct lower *l, struct pointer_run *run, const struct plugin_op *op,
                           int32_t disp)
{
    emit_mov_imm(&l->e, GPR_RAX, !op->imm);
    emit_mov_imm(&l->e, GPR_RDX, op->imm);
    emit_lock_cmpxchg(&l->e, GPR_RDX, GPR_RCX, disp);
    branch_to_stub(l, run, op);
}

static void lower_pointer_op(struct lower *l, struct pointer_run *run, const struct plugin_op *op)
{
    static const struct {
        uint8_t imm, ext, reg;
    } opcodes[] = {[OP_ADD_PTR] = {0x81, 0, 0x01},
                   [OP_STORE_PTR] = {0xc7, 0, 0x89},
                   [OP_GUARD] = {0x81, 7, 0x39}};
    struct emit *e = &l->e;
    uint64_t at = (uintptr_t)op->ptr;
    if (!run->base || !fits_i32((int64_t)(at - run->base))) {
        emit_mov_imm(e, GPR_RCX, at);
        run->base = at;
    }
    int32_t disp = (int32_t)(at - run->base);
    if (op->kind == OP_LOCK || op->kind == OP_UNLOCK) {
        lower_exchange(l, run, op, disp);
        return;
    }
    if (is_wide(op)) {
        emit_mov_imm(e, GPR_RDX, op->imm);
        emit_sized_reg(e, op->size, op->locked, opcodes[op->kind].reg, GPR_RDX, GPR_RCX, disp);
    } else {
        emit_sized_imm(e, op->size, op->locked, opcodes[op->kind].imm, opcodes[op->kind].ext,
                       GPR_RCX, disp, (int32_t)op->imm);
    }
    if (op->kind == OP_GUARD)
        branch_to_stub(l, run, op);
}

/* Length of the run that begins with ops[0], of at most n: a critical section is one of its own. */
static size_t measure_run(const struct plugin_op *ops, size_t n)
{
    size_t i = 1;
    if (ops[0].kind == OP_LOCK) {
        while (ops[i].kind != OP_UNLOCK)
            i++;
        return i + 1;
    }
    while (i < n && i < MAX_RUN && ops[i].kind >= OP_ADD_PTR && ops[i].kind != OP_LOCK &&
           ops[i].place == ops[0].place && ops[i].insn == ops[0].insn)
        i++;
    return i;
}

/* Lowers the run that begins with ops[0]; returns its length. */
static size_t lower_pointer_run(struct lower *l, const struct plugin_op *ops, size_t max,
                                bool flags_dead)
{
    size_t n = measure_run(ops, max);
    struct pointer_run run = plan_run(ops, n, flags_dead);
    uint8_t rule = l->e.now.rule;
    begin_run(l, &run);
    for (size_t i = 0; i < n; i++)
        lower_pointer_op(l, &run, &ops[i]);
    if (run.lock)
        emit_store_gs_imm32(&l->e, CPU_HOLDS_LOCK, 0);
    emit_end_run(&l->e, &run);
    run.end = emit_here(&l->e);
    l->e.now.n_spilled = 0;
    roll_set(l, rule);
    make_run_stubs(l, &run);
    return n;
}

/* ---- calls and counters
 * --------------------------------------------------------------------------- */

static void lower_cond_call(struct lower *l, const struct plugin_op *op, bool flags_dead)
{
    struct emit *e = &l->e;
    struct light *light = find_light(op);
    uint8_t *skip = lower_condition(l, op, flags_dead);
    if (light) {
        lower_light_call(l, op, light, THUNK_FLAGS_DEAD, NULL);
    } else { /* sees the guest's state as it is */
        lower_end_condition(l, flags_dead);
        emit_call_op(e, op, PAD_OP);
        emit_short(e, 0, 0xeb, flags_dead ? 0 : 3 + 9);
    }
    skip[-1] = (uint8_t)(e->p - skip);
    lower_end_condition(l, flags_dead);
    e->now.n_spilled = 0;
}

/* What a mark is needed for once: a jump to where it is made, which becomes a nop there by one
 * store. That is safe as no other thread runs this code (plugin_ops.c). Signals come behind it, and
 * a fault is none of the guest's. */
static void lower_mark(struct lower *l, const struct plugin_op *op)
{
    enum { JMP_LEN = 5, NOP = 0x00441f0f /* nopl disp8(%rax, %rax), the last byte being any */ };
    uint8_t *site = emit_here(&l->e), *stub = cache.start;
    if (!l->replay) {
        stub = cold_take(l, 13 + 11 + JMP_LEN);
        struct emit cold = {.p = stub};
        emit_store_gs_imm(&cold, (int32_t)op->offset, op->imm);
        emit_store_abs_imm32(&cold, (uint32_t)(uintptr_t)site, NOP);
        emit_jmp(&cold, site + JMP_LEN);
    }
    emit_jmp(&l->e, stub);
}

static void lower_inline_op(struct lower *l, const struct plugin_op *op, bool flags_dead)
{
    struct emit *e = &l->e;
    int32_t offset = (int32_t)op->offset + 8 * (int32_t)l->copy;
    switch (op->kind) {
    case OP_ADD:
        if (flags_dead && fits_i32((int64_t)op->imm))
            emit_add_gs_imm(e, offset, (int32_t)op->imm);
        else
            lower_add_keeping_flags(l, offset, op->imm);
        break;
    case OP_STORE:
        if (op->once)
            lower_mark(l, op);
        else
            emit_store_gs_imm(e, offset, op->imm);
        break;
    default:
        lower_pointer_run(l, op, 1, flags_dead);
    }
}

/* The next operation of the block if it belongs to this place of instruction index. */
static const struct plugin_op *next_op(const struct lower *l, unsigned index,
                                       enum plugin_place place)
{
    const struct plugin_op *op = l->unit->ops[l->tb] + l->op;
    bool here = l->op < l->unit->n_ops[l->tb] && op->place == place &&
                (place == PLACE_TB || op->insn == index);
    return here ? op : NULL;
}

static unsigned index_in_block(const struct lower *l, unsigned i)
{
    return i - l->unit->first[l->tb];
}

/* An operation of the instruction with index i in the unit, and those that go with it. */
static void lower_op(struct lower *l, unsigned i, const struct plugin_op *op)
{
    bool flags_dead = !(l->unit->live[i] & FLAGS_ARITH);
    l->lost |= flags_dead && op->kind != OP_STORE ? FLAGS_ARITH : 0;
    struct light *light = op->kind == OP_CALL ? find_light(op) : NULL;
    if (light)
        lower_light_call(l, op, light, flags_dead ? THUNK_FLAGS_DEAD : 0, NULL);
    else if (op->kind == OP_CALL)
        emit_call_op(&l->e, op, PAD_OP);
    else if (op->kind == OP_CALL_COND)
        lower_cond_call(l, op, flags_dead);
    else if (op->kind >= OP_ADD_PTR)
        l->op += lower_pointer_run(l, op, l->unit->n_ops[l->tb] - l->op, flags_dead) - 1;
    else
        lower_inline_op(l, op, flags_dead);
}

/* The operations of one place of the instruction with index i in the unit. */
static inline void lower_ops(struct lower *l, unsigned i, enum plugin_place place)
{
    const struct plugin_op *op;
    for (; (op = next_op(l, index_in_block(l, i), place)); l->op++)
        lower_op(l, i, op);
}

static bool has_mem_ops(const struct lower *l, unsigned i)
{
    return next_op(l, index_in_block(l, i), PLACE_MEM);
}

/* When the accesses of an instruction are reported. */
enum mem_order {
    MEM_AFTER,   /* all of them behind it: nothing that is called can look at the guest's state */
    MEM_AROUND,  /* reads before it, once they are known not to fault, and writes behind it */
    MEM_COUNTED, /* behind it, only by how many elements there were */
    MEM_LISTED,  /* the same by C code, which finds out what they are (mem_x86_64.c) */
};

/* The operations on instruction i's accesses. */
static unsigned count_mem_ops(const struct lower *l, unsigned i)
{
    const struct plugin_op *op = l->unit->ops[l->tb] + l->op;
    unsigned n = 0;
    while (l->op + n < l->unit->n_ops[l->tb] && op[n].place == PLACE_MEM &&
           op[n].insn == index_in_block(l, i))
        n++;
    return n;
}

/* True if it matters how often the block, or one of its instructions, is entered. */
static bool counts_runs(const struct lower *l)
{
    const struct plugin_op *op = l->unit->ops[l->tb];
    for (size_t n = l->unit->n_ops[l->tb]; n > 0; n--, op++)
        if (op->place != PLACE_MEM)
            return true;
    return false;
}

/* True if all that is wanted of instruction i is a number of elements. */
static bool is_counted(const struct lower *l, unsigned i, struct elements *elements)
{
    const struct insn *in = &l->unit->insn[i];
    const struct plugin_op *op = l->unit->ops[l->tb] + l->op;
    for (unsigned n = count_mem_ops(l, i); n > 0; n--, op++)
        if (op->kind != OP_ADD || op->imm > UINT16_MAX)
            return false;
    if (!guest_find_elements(in, elements))
        return false;
    return elements->by == ELEMENTS_REPEATED ? !uses_moved(in) && !counts_runs(l)
                                             : host_features & FEATURE_AVX512;
}

static enum mem_order find_mem_order(const struct lower *l, unsigned i)
{
    const struct insn *in = &l->unit->insn[i];
    const struct plugin_op *op = l->unit->ops[l->tb] + l->op;
    struct elements elements;
    if (is_counted(l, i, &elements))
        return MEM_COUNTED;
    if (guest_accesses_vary(in))
        return MEM_LISTED;
    if (in->kind == INSN_RET) /* its read is the last thing it does here */
        return MEM_AROUND;
    for (unsigned n = count_mem_ops(l, i); n > 0; n--, op++)
        if (op->kind == OP_CALL && !find_light(op))
            return guest_read_is_aligned(in) ? MEM_LISTED : MEM_AROUND;
    return MEM_AFTER;
}

/* Reads the first and the last byte at [rax]. */
static void lower_probe(struct lower *l, const struct mem_op *m)
{
    l->e.now.write = m->flags & MEM_WRITE;
    emit_load_byte(&l->e, GPR_RDX, GPR_RAX, 0);
    if (m->size > 1)
        emit_load_byte(&l->e, GPR_RDX, GPR_RAX, m->size - 1);
    l->e.now.write = false;
}

/* Before the instruction: its operands' addresses, which it may overwrite the registers of. probe:
 * a read that faults must do so now. */
static void lower_mem_addresses(struct lower *l, const struct insn *in, bool probe)
{
    spill(l, GPR_RAX, 2);
    spill(l, GPR_RDX, 3);
    for (int m = 0; m < in->nmem; m++) {
        if (m > 0) {
            emit_load_gs(&l->e, GPR_RAX, SLOT(2));
            emit_load_gs(&l->e, GPR_RDX, SLOT(3));
        }
        emit_address(&l->e, GPR_RAX, GPR_RDX, in, &in->mem[m]);
        emit_store_gs(&l->e, VADDR(m), GPR_RAX);
        if (probe && in->mem[m].flags & MEM_READ)
            lower_probe(l, &in->mem[m]);
    }
    restore(l);
    restore(l);
}

/* One report: part of operand m, at offset. */
static void lower_mem_report(struct lower *l, const struct plugin_op *op, const struct mem_op *part,
                             unsigned m, unsigned offset)
{
    struct report report = {m, offset, plugin_meminfo(part->size, part->flags)};
    if (op->kind != OP_CALL) {
        lower_inline_op(l, op, false);
        return;
    }
    struct light *light = find_light(op);
    if (light) {
        lower_light_call(l, op, light, THUNK_MEM, &report);
        return;
    }
    emit_store_gs_imm(&l->e, SLOT(5), report.info);
    emit_store_gs_imm(&l->e, SLOT(6), m | offset << 8);
    emit_call_op(&l->e, op, PAD_MEM_OP);
}

/* The operations of instruction i that want rw accesses, for one access; starts at l->op. */
static void lower_mem_access(struct lower *l, unsigned i, unsigned m, unsigned rw)
{
    const struct insn *in = &l->unit->insn[i];
    struct mem_op part = in->mem[m];
    size_t first = l->op;
    part.flags &= (uint16_t) ~((MEM_READ | MEM_WRITE) ^ rw);
    for (unsigned offset = 0; offset < in->mem[m].size; offset += part.size) {
        const struct plugin_op *op;
        part.size = (uint16_t)guest_access_size(in, offset, in->mem[m].size);
        for (l->op = first; (op = next_op(l, index_in_block(l, i), PLACE_MEM)); l->op++)
            if (op->rw & rw)
                lower_mem_report(l, op, &part, m, offset);
    }
    l->op = first;
}

static void lower_mem_operands(struct lower *l, unsigned i, unsigned rw)
{
    const struct insn *in = &l->unit->insn[i];
    for (unsigned m = 0; m < in->nmem; m++)
        for (unsigned one = MEM_READ; one <= MEM_WRITE; one++)
            if (in->mem[m].flags & rw & one)
                lower_mem_access(l, i, m, one);
}

/* Lets C report what it lists. */
static void lower_listed(struct lower *l, unsigned i, enum pad pad)
{
    emit_store_gs_imm(&l->e, SLOT(5), count_mem_ops(l, i));
    emit_call_op(&l->e, l->unit->ops[l->tb] + l->op, pad);
}

/* Before instruction i, which may overwrite what selects them: slot 5 = number of its elements. */
static void lower_elements(struct lower *l, unsigned i, bool flags_dead)
{
    struct emit *e = &l->e;
    struct elements elements;
    guest_find_elements(&l->unit->insn[i], &elements);
    spill(l, GPR_RAX, 2);
    spill(l, GPR_RDX, 3);
    if (!flags_dead)
        emit_save_flags(e);
    if (elements.by == ELEMENTS_MASK)
        emit_kmovq(e, GPR_RDX, elements.reg);
    else
        emit_movmsk(e, elements.size == 8, GPR_RDX, elements.reg);
    emit_count_bits_rdx(e, elements.n);
    emit_store_gs(e, SLOT(5), GPR_RDX);
    if (!flags_dead)
        emit_restore_flags(e);
    restore(l);
    restore(l);
}

/* Behind instruction i: counts them. */
static void lower_element_counts(struct lower *l, unsigned i, bool flags_dead)
{
    struct emit *e = &l->e;
    const struct insn *in = &l->unit->insn[i];
    const struct plugin_op *op = l->unit->ops[l->tb] + l->op;
    spill(l, GPR_RAX, 2);
    spill(l, GPR_RDX, 3);
    if (!flags_dead)
        emit_save_flags(e);
    for (unsigned n = count_mem_ops(l, i); n > 0; n--, op++) {
        int32_t by = (int32_t)(op->imm * guest_count_each(in, op->rw));
        if (!by)
            continue;
        emit_load_gs(e, GPR_RDX, SLOT(5));
        if (in->flags & (INSN_REP | INSN_REPNE))
            emit_sub_rdx_rcx(e);
        if (by != 1)
            emit_multiply_rdx(e, by);
        emit_add_gs(e, (int32_t)op->offset, GPR_RDX);
    }
    if (!flags_dead)
        emit_restore_flags(e);
    restore(l);
    restore(l);
}

/* Before or behind an instruction that does not touch the flags, which may be dead there. */
static void lower_counted(struct lower *l, unsigned i,
                          void (*lower_part)(struct lower *l, unsigned i, bool flags_dead))
{
    bool flags_dead = !(l->unit->live[i] & FLAGS_ARITH);
    l->lost |= flags_dead ? FLAGS_ARITH : 0;
    lower_part(l, i, flags_dead);
}

/* Before instruction i. */
static void lower_mem_before(struct lower *l, unsigned i)
{
    const struct insn *in = &l->unit->insn[i];
    if (!has_mem_ops(l, i) || !in->nmem)
        return;
    enum mem_order order = find_mem_order(l, i);
    if (order == MEM_LISTED) {
        lower_listed(l, i, PAD_MEM_BEFORE);
        return;
    }
    if (order == MEM_COUNTED) {
        lower_counted(l, i, lower_elements);
        return;
    }
    lower_mem_addresses(l, in, order == MEM_AROUND);
    if (order == MEM_AROUND)
        lower_mem_operands(l, i, MEM_READ);
}

/* Behind instruction i. */
static void lower_mem_after(struct lower *l, unsigned i)
{
    if (!has_mem_ops(l, i) || !l->unit->insn[i].nmem)
        return;
    enum mem_order order = find_mem_order(l, i);
    if (order == MEM_LISTED)
        lower_listed(l, i, PAD_MEM_AFTER);
    else if (order == MEM_COUNTED)
        lower_counted(l, i, lower_element_counts);
    else
        lower_mem_operands(l, i, order == MEM_AROUND ? MEM_WRITE : MEM_READ | MEM_WRITE);
}

/* ---- repetitions
 * --------------------------------------------------------------------------------------------
 * QEMU 10.2 leaves a repeated string instruction each time that the elements still to come are one
 * more than a multiple of 65536, but for a single one, and enters it again as a block of its own:
 * block and instruction run, and count, once more. Code that reports one of them does the same. */

static bool is_compare(const struct insn *in)
{
    return (in->opcode & 0xf6) == 0xa6; /* cmps a6 a7, scas ae af */
}

/* The condition on which a repetition of cmps or scas ends. */
static int end_condition(const struct insn *in)
{
    return in->flags & INSN_REP ? CC_NE : CC_E;
}

static void lower_string(struct lower *l, const struct insn *in, const uint8_t *code, bool once)
{
    if (uses_moved(in))
        lower_moved_string(l, in, code, once);
    else
        emit_string(&l->e, in, code, once);
}

/* A short jump of this opcode, to where land_short is called. */
static uint8_t *emit_short_hole(struct emit *e, unsigned opcode)
{
    emit_short(e, 0, opcode, 0);
    return e->p;
}

static void land_short(const struct emit *e, uint8_t *hole)
{
    hole[-1] = (uint8_t)(e->p - hole);
}

/* rcx elements are left, one more than a multiple of 65536: enters in anew, but for a single one.
 */
static void lower_reenter(struct lower *l, const struct insn *in)
{
    struct emit *e = &l->e;
    emit_op_rm(e, 0x8d, GPR_RCX, GPR_RCX, -1);
    uint8_t *single = emit_short_hole(e, 0xe3);
    emit_op_rm(e, 0x8d, GPR_RCX, GPR_RCX, 1);
    lower_exit(l, in->pc);
    land_short(e, single);
    emit_op_rm(e, 0x8d, GPR_RCX, GPR_RCX, 1);
}

/* Slot 0 = the number of elements; goes on behind this if they are 65536 or more, else at what is
 * returned. */
static uint8_t *lower_is_long(struct lower *l, bool a32)
{
    struct emit *e = &l->e;
    emit_store_gs(e, SLOT(0), GPR_RCX);
    uint8_t *huge = NULL;
    if (!a32) {
        emit_load_gs32(e, GPR_RCX, SLOT(0) + 4);
        emit_short(e, 0, 0xe3, 2);
        huge = emit_short_hole(e, 0xeb);
    }
    emit_movzx_ecx_gs16(e, SLOT(0) + 2);
    emit_short(e, 0, 0xe3, 2);
    emit_short(e, 0, 0xeb, 5);
    emit_jmp(e, emit_here(e));
    uint8_t *site = e->p;
    if (huge)
        land_short(e, huge);
    return site;
}

static void land(const struct emit *e, uint8_t *site)
{
    store_rel32(site - 4, e->p);
}

/* rcx = the elements up to where the instruction is entered anew; those from there on in slot 0. */
static void lower_split(struct lower *l, bool a32)
{
    struct emit *e = &l->e;
    if (a32)
        emit_load_gs32(e, GPR_RCX, SLOT(0));
    else
        emit_load_gs(e, GPR_RCX, SLOT(0));
    emit_op_rm(e, 0x8d, GPR_RCX, GPR_RCX, -2);
    emit_store_gs(e, SLOT(0), GPR_RCX);
    emit_movzx_ecx_cx(e);
    emit_op_rm(e, 0x8d, GPR_RCX, GPR_RCX, 1);
    emit_store_gs_imm16(e, SLOT(0), 1);
}

/* Whole where there are few elements; else up to where it is entered anew. */
static void lower_rep(struct lower *l, const struct insn *in, const uint8_t *code)
{
    struct emit *e = &l->e;
    bool a32 = in->flags & INSN_ADDR32;
    uint8_t *few = lower_is_long(l, a32), *ends = NULL;
    lower_split(l, a32);
    struct roll before = e->now;
    e->now.part = true;
    lower_string(l, in, code, false);
    e->now = before;
    if (is_compare(in))
        ends = emit_short_hole(e, 0x70 | end_condition(in));
    emit_load_gs(e, GPR_RCX, SLOT(0));
    lower_reenter(l, in);
    emit_store_gs(e, SLOT(0), GPR_RCX);
    if (is_compare(in)) {
        uint8_t *last = emit_short_hole(e, 0xeb);
        land_short(e, ends);
        emit_store_gs(e, SLOT(2), GPR_RAX);
        emit_load_gs(e, GPR_RAX, SLOT(0));
        emit_lea_index(e, GPR_RCX, GPR_RCX, GPR_RAX);
        emit_load_gs(e, GPR_RAX, SLOT(2));
        emit_jmp(e, emit_here(e));
        ends = e->p;
        land_short(e, last);
    }
    land(e, few);
    emit_load_gs(e, GPR_RCX, SLOT(0));
    lower_string(l, in, code, false);
    if (ends)
        land(e, ends);
}

/* Goes on at next unless the instruction is to be entered anew. */
static void lower_next_element(struct lower *l, const struct insn *in, const uint8_t *next)
{
    struct emit *e = &l->e;
    if (counts_runs(l)) {
        emit_store_gs(e, SLOT(0), GPR_RCX);
        emit_op_rm(e, 0x8d, GPR_RCX, GPR_RCX, -1);
        emit_movzx_ecx_cx(e);
        uint8_t *full = emit_short_hole(e, 0xe3);
        emit_load_gs(e, GPR_RCX, SLOT(0));
        emit_jmp(e, next);
        land_short(e, full);
        emit_load_gs(e, GPR_RCX, SLOT(0));
        lower_reenter(l, in);
    }
    e->now.clean = !counts_runs(l); /* nothing would count again for a signal here */
    emit_jmp(e, next);
    e->now.clean = false;
}

/* A repeated string instruction of which only the number of elements is wanted. */
static void lower_rep_counted(struct lower *l, unsigned i, const uint8_t *code)
{
    const struct insn *in = &l->unit->insn[i];
    emit_store_gs(&l->e, SLOT(5), GPR_RCX);
    roll_set(l, ROLL_REPEATED);
    emit_copy(&l->e, code, in->len);
    roll_set(l, ROLL_BACK);
    l->e.now.pc = in->pc + in->len;
    lower_element_counts(l, i, false);
}

/* A repeated string instruction whose accesses are wanted: one element at a time.
 *   next: jrcxz done; movs; reports; lea rcx, [rcx - 1]; jnz/jz done (cmps, scas); jmp next; done:
 */
static void lower_rep_elements(struct lower *l, unsigned i, const uint8_t *code)
{
    struct emit *e = &l->e;
    const struct insn *in = &l->unit->insn[i];
    unsigned a32 = in->flags & INSN_ADDR32 ? PREFIX_A32 : 0;
    const uint8_t *next = emit_here(e);
    emit_short(e, a32, 0xe3, 2);
    emit_short(e, 0, 0xeb, 5);
    emit_jmp(e, next);
    uint8_t *done = e->p, *ends = NULL;
    lower_mem_before(l, i);
    lower_string(l, in, code, true);
    lower_mem_after(l, i);
    if (a32)
        emit_u8(e, PREFIX_A32);
    emit_op_rm(e, 0x8d, GPR_RCX, GPR_RCX, -1);
    if (is_compare(in)) {
        emit_jcc(e, end_condition(in), next);
        ends = e->p;
    }
    lower_next_element(l, in, next);
    land(e, done);
    if (ends)
        land(e, ends);
}

/* ---- branches
 * ------------------------------------------------------------------------------------- */

static uint32_t return_index(uint64_t pc)
{
    return pc & (uint32_t)(count_returns() - 1);
}

static bool is_shared_return(uint64_t pc)
{
    return shared_returns[return_index(pc) / 8] >> return_index(pc) % 8 & 1;
}

static bool has_fast_pad(uint64_t pc, enum indirect by)
{
    return fast_pads && pc < FAST_PADS_END && !(by == BY_RETURN && is_shared_return(pc));
}

/* rcx -= pc, flags kept */
static void emit_subtract_pc(struct emit *e, uint64_t pc)
{
    if (fits_i32(-(int64_t)pc)) {
        emit_op_rm(e, 0x8d, GPR_RCX, GPR_RCX, -(int32_t)pc);
    } else {
        emit_store_gs(e, SLOT(2), GPR_RDX);
        emit_mov_imm(e, GPR_RDX, -pc);
        emit_lea_index(e, GPR_RCX, GPR_RCX, GPR_RDX);
        emit_load_gs(e, GPR_RDX, SLOT(2));
    }
}

/* Entry of indirect branches: slot 1 must be pc, else the table's entry was another's. The flags
 * stay: that other target may read them, whatever this one does.
 *   mov rcx, slot1; lea rcx, [rcx - pc]; jrcxz ok; jmp miss; ok: mov rcx, slot0
 * fast:
 *   mov rcx, slot1; mov rcx, gs:[rcx - pc + slot0] */
static void emit_pad(struct emit *e, uint64_t pc, bool fast)
{
    struct roll saved = e->now;
    e->now = (struct roll){.rule = ROLL_TO_TARGET, .pc = pc};
    emit_load_gs(e, GPR_RCX, SLOT(1));
    if (fast) {
        emit_load_gs_base(e, GPR_RCX, GPR_RCX, SLOT(0) - (int32_t)pc);
    } else {
        emit_subtract_pc(e, pc);
        emit_short(e, 0, 0xe3, 5);
        emit_jmp(e, pad_address(PAD_MISS));
        emit_load_gs(e, GPR_RCX, SLOT(0));
    }
    e->now = saved;
}

/* Entry of returns: the guest's return address is on top of the stack.
 *   pop rcx; lea rcx, [rcx - pc]; jrcxz ok; mov rcx, [rsp - 8]; jmp returned; ok: mov rcx, slot0
 * fast:
 *   pop rcx; mov rcx, gs:[rcx - pc + slot0] */
static void emit_return_pad(struct emit *e, uint64_t pc, bool fast)
{
    struct roll saved = e->now;
    e->now = (struct roll){.rule = ROLL_RETURN, .pc = pc};
    emit_pop(e, GPR_RCX);
    e->now.rule = ROLL_POPPED;
    if (fast) {
        emit_load_gs_base(e, GPR_RCX, GPR_RCX, SLOT(0) - (int32_t)pc);
    } else {
        emit_subtract_pc(e, pc);
        emit_short(e, 0, 0xe3, 0);
        uint8_t *hit = e->p;
        emit_op_rm(e, 0x8b, GPR_RCX, GPR_RSP, -8);
        emit_jmp(e, pad_address(PAD_RETURNED));
        hit[-1] = (uint8_t)(e->p - hit);
        emit_load_gs(e, GPR_RCX, SLOT(0));
    }
    e->now = saved;
}

static void lower_push_return(struct lower *l, uint64_t pc)
{
    if (fits_i32((int64_t)pc)) {
        emit_push_imm(&l->e, (int32_t)pc);
        return;
    }
    /* One 8-byte load: a return address stored in halves would stall its reload. */
    uint8_t *constant = cache.start;
    if (!l->replay) {
        cold_take(l, (uintptr_t)l->cold & 7); /* the guest may have alignment checks on */
        constant = cold_take(l, 8);
        memcpy(constant, &pc, 8);
    }
    emit_push_abs(&l->e, (uintptr_t)constant);
}

/* The block ends in a call that another one's host call makes: goes there. */
static bool lower_shared_call(struct lower *l)
{
    bool shared = l->tb + 1 == l->unit->n_tbs && l->unit->shared_call;
    if (shared)
        emit_jmp(&l->e, l->unit->shared_call);
    return shared;
}

/* Where the block always leads by its branch, or 0. */
static uint64_t known_target(const struct lower *l)
{
    return l->unit->target[l->tb];
}

/* A direct call, or one through a constant. */
static void lower_call(struct lower *l, const struct insn *in, unsigned i)
{
    uint64_t next = in->pc + in->len, target = known_target(l);
    struct link *link;
    lower_mem_before(l, i);
    lower_push_return(l, next);
    l->e.now.pc = target;
    lower_mem_after(l, i);
    if (lower_shared_call(l))
        return;
    bool paired = is_next(l, next);
    const uint8_t *stub = make_link(l, target, paired, &link);
    roll_set(l, ROLL_CALL);
    set_site(link, paired ? emit_hole_call(&l->e, stub) : emit_hole_jmp(&l->e, stub));
}

/* Slot 1 = the target of an indirect branch; rcx, which has it too, is in slot 0. */
static void lower_target(struct lower *l, const struct insn *in, const uint8_t *code, unsigned i)
{
    lower_mem_before(l, i);
    spill(l, GPR_RCX, 0);
    lower_load_target(l, in, code);
    emit_store_gs(&l->e, SLOT(1), GPR_RCX);
}

/* Reports the branch's accesses; then ecx = index of the target in the jump table. */
static void lower_target_index(struct lower *l, uint64_t pc, unsigned i)
{
    l->e.now = (struct roll){.rule = ROLL_TO_TARGET, .pc = pc};
    if (has_mem_ops(l, i)) {
        emit_load_gs(&l->e, GPR_RCX, SLOT(0));
        lower_mem_after(l, i);
        emit_load_gs(&l->e, GPR_RCX, SLOT(1));
    }
    emit_movzx_ecx_cx(&l->e);
}

/* The same for jumps. */
static void lower_jump(struct lower *l, unsigned i)
{
    lower_mem_before(l, i);
    l->e.now.pc = known_target(l);
    lower_mem_after(l, i);
    lower_fallthrough(l, known_target(l));
}

static void lower_jump_ind(struct lower *l, const struct insn *in, const uint8_t *code, unsigned i)
{
    if (known_target(l)) {
        lower_jump(l, i);
        return;
    }
    lower_target(l, in, code, i);
    lower_target_index(l, in->pc, i);
    emit_jmp_rcx_table(&l->e, JUMP_TABLE);
}

/* The host call leads to a thunk, as the jump behind it is not to push again. */
static uint8_t *make_call_thunk(struct lower *l)
{
    if (l->replay)
        return cache.start;
    uint8_t *thunk = cold_take(l, 12);
    struct emit e = {.p = thunk};
    emit_op_rm(&e, 0x8d, GPR_RSP, GPR_RSP, 8);
    emit_jmp_rcx_table(&e, JUMP_TABLE);
    return thunk;
}

static void lower_call_ind(struct lower *l, const struct insn *in, const uint8_t *code, unsigned i)
{
    uint64_t next = in->pc + in->len;
    if (known_target(l)) {
        lower_call(l, in, i);
        return;
    }
    lower_target(l, in, code, i);
    lower_push_return(l, next);
    lower_target_index(l, in->pc, i);
    if (lower_shared_call(l))
        return;
    if (is_next(l, next)) {
        roll_set(l, ROLL_CALL);
        emit_hole_call(&l->e, make_call_thunk(l));
    } else {
        emit_jmp_rcx_table(&l->e, JUMP_TABLE);
    }
}

/* ret imm16 pops more than the pad of a return does: it goes by the jump table. */
static void lower_ret_imm(struct lower *l, const struct insn *in)
{
    struct emit *e = &l->e;
    emit_op_rm(e, 0x8b, GPR_RCX, GPR_RSP, 0);
    emit_store_gs(e, SLOT(1), GPR_RCX);
    emit_movzx_ecx_cx(e);
    emit_op_rm(e, 0x8d, GPR_RSP, GPR_RSP, (int32_t)(in->imm & 0xffff) + 8);
    e->now = (struct roll){.rule = ROLL_TO_TARGET, .pc = in->pc};
    emit_jmp_rcx_table(e, JUMP_TABLE);
}

/* ecx = index in the return table of the address on top of the stack; the flags stay. */
static void emit_return_index(struct emit *e)
{
    if (is_narrow()) {
        emit_movzx_ecx_stack(e);
    } else {
        emit_mov_ecx_stack(e);
        emit_pext_ecx(e, RETURN_MASK);
    }
}

static void lower_ret(struct lower *l, const struct insn *in, unsigned i)
{
    struct emit *e = &l->e;
    lower_mem_before(l, i);
    spill(l, GPR_RCX, 0);
    if (in->imm_size) {
        lower_ret_imm(l, in);
        return;
    }
    emit_return_index(e);
    emit_mov_ecx_table(e, RETURN_TABLE);
    roll_set(l, ROLL_RETURN);
    emit_push(e, GPR_RCX);
    emit_ret(e);
}

/* loop, loope, loopne, jrcxz have only a short form: it leads around a jump over the long one. */
static void lower_short_cond(struct lower *l, const struct insn *in)
{
    unsigned prefix = in->flags & INSN_ADDR32 ? PREFIX_A32 : 0;
    struct link *link;
    const uint8_t *stub = make_link(l, in->target, false, &link);
    emit_align_hole(&l->e, !!prefix + 2 + 2 + 1);
    emit_short(&l->e, prefix, in->opcode, 2);
    emit_short(&l->e, 0, 0xeb, 5);
    emit_jmp(&l->e, stub);
    set_site(link, emit_here(&l->e) - 4);
}

static bool is_short_cond(const struct insn *in)
{
    return in->map == 0 && in->opcode >= 0xe0;
}

/* How often the code of the block is laid out; more than once: it is a loop. */
static unsigned count_copies(const struct lower *l)
{
    const struct plugin_op *op = l->unit->ops[l->tb];
    return l->unit->n_ops[l->tb] && op->copies ? op->copies : 1;
}

/* Ends a copy that another follows: the loop goes on in that one, or leaves behind the last. */
static void lower_turn(struct lower *l, const struct insn *in)
{
    struct emit *e = &l->e;
    if (is_short_cond(in)) {
        emit_short(e, in->flags & INSN_ADDR32 ? PREFIX_A32 : 0, in->opcode, 5);
        emit_jmp(e, emit_here(e));
    } else {
        emit_jcc(e, (in->opcode & 15) ^ 1, emit_here(e));
    }
    l->leaves[l->copy] = e->p;
}

static void lower_cond(struct lower *l, const struct insn *in)
{
    if (l->copy + 1 < count_copies(l)) {
        lower_turn(l, in);
        return;
    }
    if (is_short_cond(in)) {
        lower_short_cond(l, in);
    } else {
        struct link *link;
        const uint8_t *stub = make_link(l, in->target, false, &link);
        set_site(link, emit_hole_jcc(&l->e, in->opcode & 15, stub));
    }
    for (unsigned i = 0; i < l->copy; i++)
        land(&l->e, l->leaves[i]);
    lower_fallthrough(l, in->pc + in->len);
}

/* Straight to the kernel unless the route of this number is C. rcx and r11 are the instruction's
 * to clobber: r11 = flags comes out right, rcx is set to the guest's next pc. */
static void lower_syscall(struct lower *l, const struct insn *in)
{
    struct emit *e = &l->e;
    uint64_t next = in->pc + in->len;
    uint8_t *stub = cache.start;
    if (!l->replay) {
        stub = cold_take(l, 9 + 24 + 5);
        struct emit cold = {.p = stub};
        emit_load_gs(&cold, GPR_RCX, SLOT(0));
        emit_exit_at(&cold, next, PAD_SYSCALL);
    }
    spill(l, GPR_RCX, 0);
    emit_movzx_ecx_ax(e);
    emit_movzx_ecx_table(e, ROUTES);
    emit_short(e, 0, 0xe3, 5);
    emit_jmp(e, stub);
    emit_syscall(e);
    e->now = (struct roll){.rule = ROLL_NEXT, .pc = next};
    emit_mov_imm(e, GPR_RCX, next);
    lower_fallthrough(l, next);
}

/* ---- blocks that check themselves (smc.c)
 * ----------------------------------------------------------- */

/* cmp reg, [base + offset] in pieces of 8, 4, 2 and 1 bytes with the block's bytes at code. */
static unsigned emit_compare_piece(struct emit *e, const uint8_t *code, unsigned left,
                                   int32_t offset)
{
    unsigned size = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
    uint64_t bytes = 0;
    memcpy(&bytes, code, size);
    emit_mov_imm64(e, GPR_RCX, bytes);
    emit_cmp_sized(e, size, GPR_RCX, GPR_RDX, offset);
    return size;
}

/* Leaves by PAD_STALE unless the bytes of tb are still those it was made from, and once when they
 * have been for long. lahf and seto keep the flags, rax, rcx and rdx are spilled. */
static void lower_check(struct lower *l, const struct tb *tb)
{
    struct emit *e = &l->e;
    uint8_t *stub = cache.start;
    spill(l, GPR_RAX, 2);
    spill(l, GPR_RCX, 3);
    spill(l, GPR_RDX, 4);
    if (!l->replay) {
        stub = cold_take(l, 3 * 9 + 3 + 24 + 5);
        struct emit cold = {.p = stub};
        emit_restore_flags(&cold);
        emit_load_gs(&cold, GPR_RDX, SLOT(4));
        emit_load_gs(&cold, GPR_RCX, SLOT(3));
        emit_load_gs(&cold, GPR_RAX, SLOT(2));
        emit_exit_at(&cold, tb->pc, PAD_STALE);
    }
    emit_save_flags(e);
    emit_mov_imm(e, GPR_RDX, (uintptr_t)&tb->patience);
    emit_sized_imm(e, 4, false, 0x81, 5, GPR_RDX, 0, 1);
    emit_jcc(e, CC_E, stub);
    emit_mov_imm64(e, GPR_RDX, tb->pc);
    for (unsigned i = 0; i < tb->size;) {
        i += emit_compare_piece(e, tb->code + i, tb->size - i, (int32_t)i);
        emit_jcc(e, CC_NE, stub);
    }
    emit_restore_flags(e);
    restore(l);
    restore(l);
    restore(l);
}

/* ---- instructions, blocks, superblocks
 * -------------------------------------------------------------- */

static void lower_trap(struct lower *l, const struct insn *in)
{
    emit_exit_at(&l->e, in->pc, PAD_TRAP);
}

/* Left to C: what changes a moved segment or its selector; xlat, maskmov and strings with 32-bit
 * addresses in one. */
static bool is_trapped(const struct insn *in)
{
    if (in->flags & trapped_flags)
        return true;
    if (!uses_moved(in))
        return false;
    if (in->flags & INSN_STRING)
        return in->flags & INSN_ADDR32;
    bool movabs = in->mem[0].flags & MEM_ABS64;
    return !movabs && (!in->modrm_off || in->modrm >= 0xc0);
}

bool jit_may_leave(const struct insn *in)
{
    return is_trapped(in) || in->flags & INSN_BRANCH_REL;
}

/* True if the instruction's code is the guest's. */
static bool is_copied(const struct insn *in)
{
    return in->kind == INSN_NEXT && !in->rip_relative &&
           !(in->flags & (trapped_flags | moved_segments | INSN_BRANCH_REL));
}

static void lower_next(struct lower *l, const struct insn *in, const uint8_t *code)
{
    bool moved = uses_moved(in);
    if (is_trapped(in)) {
        lower_trap(l, in);
    } else if (moved && in->flags & INSN_STRING) {
        lower_moved_string(l, in, code, false);
    } else if (in->flags & INSN_BRANCH_REL) {
        /* xbegin: a transaction may always abort; eax = 0, no reason given. */
        emit_mov_imm(&l->e, GPR_RAX, 0);
        lower_exit(l, in->target);
    } else if (moved && (in->flags & INSN_ADDR32 || !in->modrm_off)) {
        lower_with_address(l, in, code);
    } else if (moved) {
        lower_with_scratch(l, in, code);
    } else if (in->rip_relative) {
        lower_rip_relative(l, in, code);
    } else {
        emit_copy(&l->e, code, in->len);
    }
}

static void lower_plain(struct lower *l, unsigned i, const uint8_t *code)
{
    const struct insn *in = &l->unit->insn[i];
    bool repeats = in->flags & (INSN_REP | INSN_REPNE);
    if (repeats && has_mem_ops(l, i) && find_mem_order(l, i) == MEM_COUNTED) {
        lower_rep_counted(l, i, code);
    } else if (repeats && has_mem_ops(l, i)) {
        lower_rep_elements(l, i, code);
    } else if (repeats && !is_trapped(in) && counts_runs(l)) {
        lower_rep(l, in, code);
    } else {
        lower_mem_before(l, i);
        lower_next(l, in, code);
        lower_mem_after(l, i);
    }
}

/* done: rank of the first operation that is still to come. */
static void begin_insn(struct lower *l, uint64_t pc, unsigned done)
{
    l->e.now = (struct roll){.rule = ROLL_BACK,
                             .pc = pc,
                             .tb = &l->sb->tb[l->tb],
                             .done = (uint16_t)done,
                             .clean = true,
                             .flags_lost = l->lost != 0};
    emit_mark(&l->e);
}

/* What is lowered with a register that it does not use: of most instructions nobody asks which
 * those are. */
static bool may_need_scratch(const struct insn *in, const uint8_t *code)
{
    return uses_moved(in) || (in->rip_relative && rip_target(in, code) > INT32_MAX);
}

static void lower_insn(struct lower *l, unsigned i)
{
    struct insn *in = &l->unit->insn[i];
    const uint8_t *code = l->unit->code[i];
    if (may_need_scratch(in, code))
        decode_effects(in, code);
    if (i > l->unit->first[l->tb])
        begin_insn(l, in->pc, 2 * index_in_block(l, i) + 1);
    l->e.now.clean = false;
    lower_ops(l, i, PLACE_INSN);
    l->e.now.done = (uint16_t)(2 * index_in_block(l, i) + 2);
    switch (in->kind) {
    case INSN_NEXT:
        lower_plain(l, i, code);
        break;
    case INSN_JUMP:
        lower_jump(l, i);
        break;
    case INSN_COND:
        lower_cond(l, in);
        break;
    case INSN_CALL:
        lower_call(l, in, i);
        break;
    case INSN_RET:
        lower_ret(l, in, i);
        break;
    case INSN_JUMP_IND:
        lower_jump_ind(l, in, code, i);
        break;
    case INSN_CALL_IND:
        lower_call_ind(l, in, code, i);
        break;
    case INSN_SYSCALL:
        lower_syscall(l, in);
        break;
    default:
        lower_trap(l, in);
    }
    l->lost &= ~(unsigned)in->flags_written;
    while (has_mem_ops(l, i))
        l->op++;
}

static bool is_call(const struct insn *in)
{
    return in->kind == INSN_CALL || in->kind == INSN_CALL_IND;
}

/* What stands before a block's entry: the landing of the call before it, or what the first
 * branch to the superblock needs. */
static void lower_entry(struct lower *l, struct tb *tb, enum tb_entry entry)
{
    unsigned first = l->unit->first[l->tb];
    bool landing =
        l->tb > 0 && is_call(&l->unit->insn[first - 1]) &&
        l->unit->insn[first].pc == l->unit->insn[first - 1].pc + l->unit->insn[first - 1].len;
    if (landing || (l->tb == 0 && entry == ENTRY_RETURN)) {
        tb->pad[BY_RETURN] = emit_here(&l->e);
        tb->call_len = landing ? l->unit->insn[first - 1].len : 0;
        tb->fast_return = l->replay ? tb->fast_return : has_fast_pad(tb->pc, BY_RETURN);
        emit_return_pad(&l->e, tb->pc, tb->fast_return);
    } else if (l->tb == 0 && entry == ENTRY_INDIRECT) {
        tb->pad[BY_JUMP] = emit_here(&l->e);
        emit_pad(&l->e, tb->pc, has_fast_pad(tb->pc, BY_JUMP));
    } else if (l->tb == 0 && entry == ENTRY_CALL) {
        tb->call_host = emit_here(&l->e);
        l->e.now = (struct roll){.rule = ROLL_DROP, .pc = tb->pc};
        emit_op_rm(&l->e, 0x8d, GPR_RSP, GPR_RSP, 8);
    }
    tb->host = emit_here(&l->e);
}

static void lower_block_start(struct lower *l, struct tb *tb, enum tb_entry entry)
{
    if (l->copy == 0)
        lower_entry(l, tb, entry);
    /* What leads here may have changed flags that are dead. */
    l->lost = tb->flags_dead && plugin_wants_tb_trans() ? FLAGS_ARITH : 0;
    begin_insn(l, tb->pc, 0);
    l->e.now.clean = false;
    if (l->sb->checked)
        lower_check(l, tb);
    lower_ops(l, l->unit->first[l->tb], PLACE_TB);
}

static unsigned count_reports(const struct insn *in)
{
    unsigned n = 0;
    for (int m = 0; m < in->nmem; m++)
        for (unsigned at = 0; at < in->mem[m].size; n += 2)
            at += guest_access_size(in, at, in->mem[m].size);
    return n;
}

/* Most bytes that the operations of instruction i can take, from l->op on. */
static size_t max_ops_out(const struct lower *l, unsigned i)
{
    unsigned index = index_in_block(l, i);
    const struct plugin_op *op = l->unit->ops[l->tb] + l->op;
    size_t size = 0;
    for (size_t n = l->op; n < l->unit->n_ops[l->tb]; n++, op++) {
        if (op->place != PLACE_TB && op->insn != index)
            break;
        size += (op->place == PLACE_MEM ? count_reports(&l->unit->insn[i]) : 1) * MAX_OP_OUT;
    }
    return size;
}

static bool has_space(const struct lower *l, const uint8_t *limit, size_t size)
{
    return !l->full && l->e.p + size < limit;
}

/* Where the code of instruction i must end at the latest, with its operations and, before a block's
 * first, the block's check; NULL: there is no room for it. */
static const uint8_t *find_bound(const struct lower *l, const struct tb *tb, unsigned i)
{
    const uint8_t *limit = l->replay ? replay_code + sizeof(replay_code) : l->cold - MAX_INSN_COLD;
    size_t size = MAX_INSN_OUT;
    if (l->op < l->unit->n_ops[l->tb])
        size += max_ops_out(l, i);
    if (l->sb->checked && index_in_block(l, i) == 0)
        size += 128 + (tb->size / 8 + 3) * 24;
    return has_space(l, limit, size) ? l->e.p + size : NULL;
}

/* The first instruction, by its index in the unit, for which an operation is still to come. The
 * last one of a block with operations may be a repetition, which runs in parts then. */
static unsigned next_op_insn(const struct lower *l)
{
    const struct unit *u = l->unit;
    if (l->op < u->n_ops[l->tb])
        return u->first[l->tb] + u->ops[l->tb][l->op].insn;
    return u->first[l->tb + 1] - (u->n_ops[l->tb] != 0);
}

/* Copies as many instructions from i on as are copied at all; returns how many. Which one a host
 * address belongs to is only asked for in a replay. */
static unsigned lower_run(struct lower *l, unsigned i)
{
    const struct unit *u = l->unit;
    const uint8_t *code = u->code[i], *p = code;
    unsigned n = i, end = l->replay ? i : next_op_insn(l);
    for (; n < end && u->code[n] == p && is_copied(&u->insn[n]); n++)
        p += u->insn[n].len;
    size_t size = (size_t)(p - code);
    if (!has_space(l, l->cold - MAX_INSN_COLD, size))
        return 0;
    memcpy(l->e.p, code, size);
    l->e.p += size;
    return n - i;
}

static bool lower_copy(struct lower *l, struct tb *tb, enum tb_entry entry)
{
    unsigned first = l->unit->first[l->tb], end = l->unit->first[l->tb + 1];
    l->op = 0;
    const uint8_t *bound = find_bound(l, tb, first);
    if (!bound)
        return false;
    lower_block_start(l, tb, entry);
    for (unsigned i = first; i < end; i++) {
        if ((i += lower_run(l, i)) == end)
            break;
        if (i > first && !(bound = find_bound(l, tb, i)))
            return false;
        lower_insn(l, i);
        if (l->e.p > bound)
            die("the code for 0x%llx is longer than its bound",
                (unsigned long long)l->unit->insn[i].pc);
    }
    return !l->full;
}

static bool lower_block(struct lower *l, struct tb *tb, enum tb_entry entry)
{
    const struct insn *last = &l->unit->insn[l->unit->first[l->tb + 1] - 1];
    for (l->copy = 0; l->copy < count_copies(l); l->copy++)
        if (!lower_copy(l, tb, entry))
            return false;
    if (last->kind == INSN_NEXT)
        lower_fallthrough(l, last->pc + last->len);
    return !l->full;
}

static bool lower_superblock(struct lower *l)
{
    for (l->tb = 0; l->tb < l->unit->n_tbs; l->tb++)
        if (!lower_block(l, &l->sb->tb[l->tb], l->sb->entry))
            return false;
    return true;
}

static void bind_links(struct link *links)
{
    for (struct link *next; links; links = next) {
        next = links->next;
        tb_bind(links);
    }
}

bool jit_lower(struct superblock *sb, struct unit *unit, enum tb_entry entry)
{
    uint8_t *start = (uint8_t *)(((uintptr_t)cache.hot + 15) & ~(uintptr_t)15);
    struct lower l = {.e = {.p = start}, .sb = sb, .unit = unit, .cold = cache.cold};
    sb->entry = (uint8_t)entry;
    sb->host = start;
    if (!lower_superblock(&l)) {
        close_thunks(cache.cold); /* of those just made the memory is still free */
        return false;
    }
    sb->host_end = l.e.p;
    stats.host_bytes += (uint64_t)((l.e.p - cache.hot) + (cache.cold - l.cold));
    cache.hot = l.e.p;
    cache.cold = l.cold;
    tb_insert(sb);
    bind_links(l.links);
    return true;
}

/* ---- entries and the jump table
 * ---------------------------------------------------------------------- */

static uint8_t *cold_extend(size_t size)
{
    if (cache.cold - size < cache.hot)
        return NULL;
    stats.host_bytes += size;
    return cache.cold -= size;
}

static bool add_pad(struct tb *tb, enum indirect by, bool fast)
{
    uint8_t *p = cold_extend(80);
    if (!p)
        return false;
    struct emit e = {.p = p};
    if (by == BY_RETURN)
        emit_return_pad(&e, tb->pc, fast);
    else
        emit_pad(&e, tb->pc, fast);
    emit_jmp(&e, tb->host);
    tb->pad[by] = p;
    return true;
}

bool jit_add_pad(struct tb *tb, enum indirect by)
{
    return add_pad(tb, by, has_fast_pad(tb->pc, by));
}

bool jit_add_call_entry(struct tb *tb)
{
    uint8_t *p = cold_extend(10);
    if (!p)
        return false;
    struct emit e = {.p = p};
    emit_op_rm(&e, 0x8d, GPR_RSP, GPR_RSP, 8);
    emit_jmp(&e, tb->host);
    tb->call_host = p;
    return true;
}

static volatile uint64_t *jump_entry(uint64_t pc)
{
    return (uint64_t *)JUMP_TABLE + (pc & (JUMP_TABLE_SIZE - 1));
}

static volatile uint32_t *return_entry(uint64_t pc)
{
    return (uint32_t *)RETURN_TABLE + return_index(pc);
}

/* Where the tables send branches to pc now; pads for those that lead nowhere. */
static const uint8_t *table_get(uint64_t pc, enum indirect by)
{
    return (const uint8_t *)(by == BY_RETURN ? *return_entry(pc) : *jump_entry(pc));
}

static void table_put(uint64_t pc, enum indirect by, const uint8_t *host)
{
    if (by == BY_RETURN)
        *return_entry(pc) = (uint32_t)(uintptr_t)host;
    else
        *jump_entry(pc) = (uintptr_t)host;
}

static const uint8_t *table_nowhere(enum indirect by)
{
    return pad_address(by == BY_RETURN ? PAD_RETURN : PAD_MISS);
}

bool jit_table_has(const struct tb *tb, enum indirect by)
{
    return tb->pad[by] && table_get(tb->pc, by) == tb->pad[by];
}

/* The load of a fast pad, which no guest instruction lowers to. */
static const uint8_t pad_load[] = {0x65, 0x48, 0x8b, 0x89};

static bool is_fast_jump(const uint8_t *pad)
{
    return !memcmp(pad + GS_LOAD_LEN, pad_load, sizeof(pad_load));
}

/* Only targets that share an entry are in the large table, so that it takes few pages. Of returns
 * the fast pads that come to share one are found when they fault. */
void jit_table_set(struct tb *tb, enum indirect by)
{
    if (table_get(tb->pc, by) != table_nowhere(by) && !jit_table_has(tb, by)) {
        set_large_entry(tb->pc, tb->host);
        if (by == BY_JUMP && is_fast_jump(tb->pad[by]) && !add_pad(tb, by, false))
            return;
    }
    table_put(tb->pc, by, tb->pad[by]);
}

void jit_table_offer(struct tb *tb, enum indirect by)
{
    if (table_get(tb->pc, by) == table_nowhere(by))
        table_put(tb->pc, by, tb->pad[by]);
}

void jit_table_clear(struct tb *tb)
{
    volatile uint64_t *entry = large_entry(tb->pc);
    if (entry[0] == tb->pc && entry[1] == (uintptr_t)tb->host)
        clear_large_entry(entry);
    for (int by = BY_JUMP; by <= BY_RETURN; by++)
        if (jit_table_has(tb, by))
            table_put(tb->pc, by, table_nowhere(by));
}

/* ---- faults
 * --------------------------------------------------------------------------------------------- */

/* What host_pc in sb stands for: by lowering sb once more. */
static bool replay(struct superblock *sb, uint64_t host_pc, struct roll *roll, uint64_t *next)
{
    struct tb blocks[SUPERBLOCK_TBS];
    memcpy(blocks, sb->tb, sb->n_tbs * sizeof(blocks[0]));
    translate_again(sb, &replay_unit);
    struct lower l = {
        .e = {.p = replay_code, .shift = sb->host - replay_code, .watch = (const uint8_t *)host_pc},
        .sb = sb,
        .unit = &replay_unit,
        .replay = true};
    bool ok = lower_superblock(&l);
    if (!ok || emit_here(&l.e) != sb->host_end)
        die("internal error: the block at 0x%llx lowers differently",
            (unsigned long long)sb->tb[0].pc);
    memcpy(sb->tb, blocks, sb->n_tbs * sizeof(blocks[0]));
    *roll = l.e.found;
    *next = (uintptr_t)l.e.next_clean;
    return l.e.has_found;
}

/* False: host_pc is in a stub. *next: the next guest instruction's host address, 0 at the end. */
static bool find_roll(uint64_t host_pc, struct roll *roll, uint64_t *next)
{
    tb_lock();
    struct superblock *sb = tb_by_host(host_pc);
    bool found = sb && replay(sb, host_pc, roll, next);
    tb_unlock();
    return found;
}

/* A repeated string instruction is left in the middle. */
static void count_repeated(struct cpu *cpu, const struct roll *roll, uint64_t n)
{
    const struct tb *tb = roll->tb;
    const uint8_t *code = tb->code ? tb->code + (roll->pc - tb->pc) : (const uint8_t *)roll->pc;
    struct insn in;
    decode(&in, code, INSN_MAX, roll->pc);
    plugin_ops_count(cpu, tb, roll->done / 2u - 1, &in, n);
}

static void apply_roll(struct cpu *cpu, const struct roll *roll, struct host_state *state)
{
    for (int i = roll->n_spilled - 1; i >= 0; i--)
        state->reg[roll->spilled[i].reg] = cpu->slot[roll->spilled[i].slot];
    state->pc = roll->pc;
    if (roll->part)
        state->reg[GPR_RCX] += cpu->slot[0];
    if (roll->rule == ROLL_REPEATED)
        count_repeated(cpu, roll, cpu->slot[5] - state->reg[GPR_RCX]);
    if (roll->rule == ROLL_BACK || roll->rule == ROLL_REPEATED || roll->rule == ROLL_SOURCE)
        plugin_ops_settle(cpu, roll->tb, roll->done);
    if (roll->rule == ROLL_TO_TARGET || roll->rule == ROLL_RETURN || roll->rule == ROLL_POPPED)
        state->reg[GPR_RCX] = cpu->slot[0];
    if (roll->rule == ROLL_TO_TARGET)
        state->pc = cpu->slot[1];
    if (roll->rule == ROLL_RETURN || roll->rule == ROLL_POPPED)
        guest_copy(&state->pc,
                   (const uint8_t *)state->reg[GPR_RSP] - (roll->rule == ROLL_POPPED ? 8 : 0),
                   sizeof(state->pc));
    if (roll->rule == ROLL_RETURN || roll->rule == ROLL_DROP)
        state->reg[GPR_RSP] += 8;
    if (roll->rule == ROLL_SOURCE)
        state->reg[GPR_RSI] -= cpu->slot[3];
    if (roll->rule == ROLL_NEXT)
        state->reg[GPR_RCX] = roll->pc;
}

/* A host call faulted on the word below the guest's stack: go on as if it had been written. */
static void skip_dead_push(struct host_state *state)
{
    int32_t disp;
    memcpy(&disp, (const uint8_t *)state->pc + 1, 4);
    state->pc += 5 + (int64_t)disp;
    state->reg[GPR_RSP] -= 8;
}

bool jit_runs_page(uint64_t host_pc, uint64_t address)
{
    const struct superblock *sb = tb_by_host(host_pc);
    for (int i = 0; sb && i < sb->n_pages; i++)
        if (sb->page[i] == (address & ~0xfffull))
            return true;
    return false;
}

/* Two jumps share the entry that has the fast pad at pad: its block gets one that compares. */
static void share_jump(uint64_t pc, const uint8_t *pad)
{
    struct tb *tb = tb_lookup(pc);
    while (tb && (tb->pc != pc || tb->pad[BY_JUMP] != pad))
        tb = tb->next;
    if (table_get(pc, BY_JUMP) == pad)
        table_put(pc, BY_JUMP,
                  tb && add_pad(tb, BY_JUMP, false) ? tb->pad[BY_JUMP] : table_nowhere(BY_JUMP));
}

/* Two returns do: the blocks that they lead to are to be translated anew. */
static void share_return(uint64_t pc, uint64_t other)
{
    shared_returns[return_index(pc) / 8] |= (uint8_t)(1u << return_index(pc) % 8);
    n_shared++;
    tb_invalidate(pc, 1);
    tb_invalidate(other, 1);
}

/* At the load of a fast pad, which rcx says is another target's; that goes to the large table. */
static bool leave_fast_pad(struct host_state *state)
{
    const uint8_t *load = (const uint8_t *)state->pc;
    uint64_t target = state->reg[GPR_RCX];
    int32_t disp;
    if (memcmp(load, pad_load, sizeof(pad_load)) != 0)
        return false;
    memcpy(&disp, load + sizeof(pad_load), sizeof(disp));
    uint64_t pc = (uint64_t)(SLOT(0) - disp);
    bool returns = load[-1] == POP_RCX;
    tb_lock();
    if (returns)
        share_return(pc, target);
    else
        share_jump(pc, load - GS_LOAD_LEN);
    tb_unlock();
    state->pc = (uintptr_t)pad_address(returns ? PAD_RETURNED : PAD_MISS);
    return true;
}

enum stop jit_fault(struct cpu *cpu, struct host_state *state, uint64_t address)
{
    if (leave_fast_pad(state))
        return STOP_RESUME;
    struct roll roll;
    uint64_t next;
    if (!find_roll(state->pc, &roll, &next))
        die("internal error: fault at host address 0x%llx (address 0x%llx), which is no guest "
            "instruction's",
            (unsigned long long)state->pc, (unsigned long long)address);
    if (roll.rule == ROLL_PLUGIN)
        return STOP_PLUGIN;
    if (roll.rule == ROLL_CALL) {
        skip_dead_push(state);
        return STOP_RESUME;
    }
    state->write = roll.write;
    if (roll.clean) /* the instruction begins here, and has been counted */
        roll.done = (uint16_t)((roll.done | 1) + 1);
    apply_roll(cpu, &roll, state);
    if (roll.rule == ROLL_RETURN) {
        cpu->pc = state->pc;
        state->pc = jit_lookup_pad();
        return STOP_RESUME;
    }
    return STOP_GUEST;
}

/* True where the handler may not see the flags that the guest has set. They are the guest's again
 * soon, but for a loop that never sets them. */
static bool are_flags_lost(struct cpu *cpu, const struct roll *roll)
{
    if (!roll->flags_lost || cpu->steps >= MAX_STEPS)
        return false;
    cpu->steps++;
    return true;
}

/* A guest syscall may be about to block, or has just been interrupted: there the state is exact
 * enough to stop at once. Elsewhere instrumentation must not be cut in two. */
enum stop jit_interrupt(struct cpu *cpu, struct host_state *state)
{
    static const uint8_t syscall_code[] = {0x0f, 0x05};
    struct roll roll;
    uint64_t next;
    if (state->pc > cpu->step_from && state->pc < cpu->step_to)
        return STOP_STEP;
    if (cpu->holds_lock) /* whoever has tb_lock may wait for the plugin's */
        return STOP_STEP;
    cpu->step_to = 0;
    if (!find_roll(state->pc, &roll, &next))
        return STOP_STEP;
    bool at_syscall = !memcmp((const void *)state->pc, syscall_code, sizeof(syscall_code));
    bool exact = (roll.clean && !are_flags_lost(cpu, &roll)) || roll.rule == ROLL_NEXT;
    if (!exact && !at_syscall) {
        cpu->step_from = state->pc;
        cpu->step_to = next;
        return STOP_STEP;
    }
    apply_roll(cpu, &roll, state);
    return STOP_GUEST;
}

uint64_t jit_lookup_pad(void)
{
    return (uintptr_t)pad_address(PAD_LOOKUP);
}

/* ---- the host processor
 * ------------------------------------------------------------------------------------ */

uint32_t jit_vector_state(uint64_t *components)
{
    enum { TILES = 3 << 17 };
    unsigned low, high, offset, len, c, d;
    uint32_t size = 512 + 64;
    *components = 0;
    if (!(host_features & FEATURE_AVX))
        return 512;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    *components = ((uint64_t)high << 32 | low) & ~(uint64_t)TILES;
    for (int i = 2; i < 63; i++) {
        if (!(*components >> i & 1)) /* cpuid is slow in a virtual machine */
            continue;
        __cpuid_count(13, i, len, offset, c, d);
        if (offset + len > size)
            size = offset + len;
    }
    return size;
}

void jit_attach(struct cpu *cpu)
{
    cpu->features = host_features;
    cpu->mxcsr = 0x1f80;
    if (syscall(SYS_arch_prctl, ARCH_GET_FS, &cpu->host_fs) ||
        syscall(SYS_arch_prctl, ARCH_SET_GS, cpu))
        die("cannot set the thread's segment base: %s", strerror(errno));
}
