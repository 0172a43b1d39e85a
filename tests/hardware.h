/* hardware.h: asks the processor about an instruction, for fuzz_decode -x.
 *
 * The instruction runs under the trap flag with all registers 0, so that memory accesses fault,
 * and ends at the end of a page that a page without rights follows. The signal says what it was:
 * a fetch from the second page means longer, SIGILL #UD, everything else legal.
 *
 * For the register and flag sets it runs a second time, with other values in all that it is said
 * not to read: what it is said to write must come out the same, the rest must stay. */
#ifndef HARDWARE_H
#define HARDWARE_H

#include "../emu.h"
#include "../opcodes_x86_64.h"

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum verdict { LONGER, UNDEFINED, LEGAL };

static uint8_t *const code_end = (uint8_t *)0x100000001000;
static sigjmp_buf back;
static volatile enum verdict verdict;
enum { SCRATCH = 1 << 12 };
static uint8_t *scratch; /* memory operands */
static uint8_t fpu_state[512] __attribute__((aligned(64)));
static struct {
    uint8_t x87[24];
    uint32_t mxcsr;
    uint8_t rest[8192];
} initial_state __attribute__((aligned(64))) = {.mxcsr = 0x1F80};

/* General registers in the numbering of instructions, flags and signal, before and after. */
struct machine {
    uint64_t reg[16], flags;
    int signal;
};
static struct machine after;

static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                REG_R12, REG_R13, REG_R14, REG_R15};

static void on_signal(int sig, siginfo_t *info, void *context)
{
    const greg_t *gregs = ((ucontext_t *)context)->uc_mcontext.gregs;
    bool fetch = sig == SIGSEGV && info->si_addr == code_end && gregs[REG_ERR] & 16;
    verdict = fetch ? LONGER : sig == SIGILL ? UNDEFINED : LEGAL;
    for (int i = 0; i < 16; i++)
        after.reg[i] = (uint64_t)gregs[greg_of[i]];
    after.flags = (uint64_t)gregs[REG_EFL];
    after.signal = sig;
    siglongjmp(back, 1);
}

/* Jumps to code with the trap flag set and the registers of m; by iretq, so that the first trap is
 * the one behind the instruction. */
static _Noreturn void enter(const uint8_t *code, const struct machine *m)
{
    static uint64_t frame[5];
    uint64_t flags;
    uint16_t cs, ss;
    __asm__ volatile("pushfq; popq %0; movw %%cs, %1; movw %%ss, %2"
                     : "=r"(flags), "=r"(cs), "=r"(ss));
    frame[0] = (uint64_t)(uintptr_t)code;
    frame[1] = cs;
    frame[2] = (flags & ~(uint64_t)(FLAGS_ARITH | FLAG_DF)) | m->flags | 0x100;
    frame[3] = m->reg[GPR_RSP];
    frame[4] = ss;
    __asm__ volatile("xrstor64 %0" ::"m"(initial_state), "a"(0xE7), "d"(0)); /* all but mxcsr 0 */
    __asm__ volatile(
        "movq %0, %%rsp\n\t"
        "movq 8(%1), %%rcx; movq 16(%1), %%rdx; movq 24(%1), %%rbx\n\t"
        "movq 40(%1), %%rbp; movq 48(%1), %%rsi; movq 56(%1), %%rdi\n\t"
        "movq 64(%1), %%r8; movq 72(%1), %%r9; movq 80(%1), %%r10\n\t"
        "movq 88(%1), %%r11; movq 96(%1), %%r12; movq 104(%1), %%r13\n\t"
        "movq 112(%1), %%r14; movq 120(%1), %%r15; movq (%1), %%rax; iretq" ::"r"(frame),
        "a"(m));
    __builtin_unreachable();
}

static void install(int sig, void (*handler)(int, siginfo_t *, void *))
{
    struct sigaction action = {.sa_sigaction = handler,
                               .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    sigaction(sig, &action, NULL);
}

static void hardware_init(void)
{
    static const int signals[] = {SIGILL, SIGSEGV, SIGTRAP, SIGFPE, SIGBUS, SIGSYS};
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_TILEDATA = 18 };
    syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_TILEDATA);
    size_t stack_size = 65536;
    stack_t stack = {.ss_sp = malloc(stack_size), .ss_size = stack_size};
    sigaltstack(&stack, NULL);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        install(signals[i], on_signal);
    void *page = mmap(code_end - 4096, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    scratch = mmap(NULL, SCRATCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED || scratch == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
}

/* Runs the first len of the bytes at the end of the page. */
static enum verdict run(const uint8_t *bytes, size_t len, const struct machine *m)
{
    memset(code_end - 64, 0x90, 64);
    memcpy(code_end - len, bytes, len);
    __asm__ volatile("fxsave64 %0" : "=m"(fpu_state));
    if (!sigsetjmp(back, 0))
        enter(code_end - len, m);
    __asm__ volatile("fninit; fxrstor64 %0; cld" ::"m"(fpu_state));
    return verdict;
}

/* Where AMD's processors differ from Intel's, whose rules the opcode table has. */
static const struct {
    uint8_t enc, map, first, last; /* opcodes */
    unsigned prefixes;             /* one of them is needed; 0: none */
} amd_differs[] = {
    {ENC_LEGACY, 0, 0x70, 0x7F, PREFIX_66},   /* near branches: 66 makes them 16-bit */
    {ENC_LEGACY, 0, 0xE0, 0xE9, PREFIX_66},   /* loop, jrcxz, call, jmp */
    {ENC_LEGACY, 0, 0xEB, 0xEB, PREFIX_66},   /* jmp */
    {ENC_LEGACY, 0, 0xC2, 0xC3, PREFIX_66},   /* ret */
    {ENC_LEGACY, 0, 0xFF, 0xFF, PREFIX_66},   /* call, jmp */
    {ENC_LEGACY, 1, 0x80, 0x8F, PREFIX_66},   /* jcc */
    {ENC_LEGACY, 0, 0x63, 0x63, PREFIX_66},   /* movsxd reads 32 bits */
    {ENC_LEGACY, 1, 0x00, 0x00, PREFIX_LOCK}, /* verw, which clears buffers, runs with lock */
    {ENC_LEGACY, 1, 0x20, 0x23, PREFIX_LOCK}, /* lock mov to and from cr0 is cr8 */
    {ENC_LEGACY, 1, 0x78, 0x78, 0},           /* no vmread, but extrq and insertq */
    {ENC_VEX, 3, 0x00, 0x01, 0},              /* vpermq and vpermpd ignore W */
    {ENC_XOP, 8, 0x00, 0xFF, 0},              /* known, and too long before undefined */
    {ENC_XOP, 9, 0x00, 0xFF, 0},
    {ENC_XOP, 10, 0x00, 0xFF, 0},
};

static bool maker_differs(const struct insn *in)
{
    for (size_t i = 0; __builtin_cpu_is("amd") && i < sizeof amd_differs / sizeof *amd_differs; i++)
        if (in->enc == amd_differs[i].enc && in->map == amd_differs[i].map &&
            in->opcode >= amd_differs[i].first && in->opcode <= amd_differs[i].last &&
            (!amd_differs[i].prefixes || in->prefixes & amd_differs[i].prefixes))
            return true;
    return false;
}

/* Some of Intel's run clwb with a VEX or EVEX prefix too, and vldmxcsr with a vvvv, against the
 * manual (seen on Cascade Lake). */
static bool is_undocumented(const struct insn *in)
{
    return __builtin_cpu_is("intel") && (in->enc == ENC_VEX || in->enc == ENC_EVEX) &&
           in->map == 1 && in->opcode == 0xAE;
}

/* Rows whose longer vectors are an extension of their own: VAES, VPCLMULQDQ. */
static bool is_extension_missing(const struct insn *in)
{
    const char *name = opcode_name(in->row);
    if (in->enc != ENC_VEX || in->vec_len == 0)
        return false;
    return (!strncmp(name, "vaes", 4) && !__builtin_cpu_supports("vaes")) ||
           (!strcmp(name, "vpclmulqdq") && !__builtin_cpu_supports("vpclmulqdq"));
}

/* Instructions that would harm the tester, or that say nothing about legality. */
static bool may_run(const struct insn *in, const uint8_t *bytes)
{
    static const char *const harmful[] = {
        "wrfsbase*", "wrgsbase*", "lfs*",     "lgs*",  "lss*", "wrpkru", "xbegin",
        "enclu",     "vmcall",    "vmfunc",   "xend",  "stui", "clui",   "tpause",
        "umwait",    "sldt*",     "str*",     "smsw*", "sgdt", "sidt", /* emulated by the kernel */
        "senduipi",  "uiret",     "sysenter", "cpuid" /* by the hypervisor */};
    /* %fs leads to the tester's own memory */
    if (memchr(bytes, 0x64, in->prefix_len) || maker_differs(in))
        return false;
    if (!in->row)
        return true;
    if (in->kind == INSN_SYSCALL || in->kind == INSN_TRAP || in->row->attr & OTHER ||
        is_extension_missing(in))
        return false;
    for (size_t i = 0; i < sizeof harmful / sizeof *harmful; i++)
        if (strcmp(opcode_name(in->row), harmful[i]) == 0)
            return false;
    return OPERAND_CLASS(in->row->op[0]) != IN_SEG && !(in->row->attr & MOVSEG);
}

#define MAX_ROWS 4096
static const struct machine zero;
static struct {
    const struct opcode *row;
    unsigned long legal, undefined;
    uint8_t example[16];
    uint8_t example_len;
} seen[MAX_ROWS];
static unsigned seen_count;
static unsigned long effects_checked, effects_wrong;
static unsigned long ran, wrong_length, wrongly_legal, wrongly_illegal;

static unsigned row_slot(const struct opcode *row)
{
    for (unsigned i = 0; i < seen_count; i++)
        if (seen[i].row == row)
            return i;
    seen[seen_count].row = row;
    return seen_count++;
}

static void print_bytes(const char *what, const uint8_t *bytes, size_t len, const char *name)
{
    printf("%s:", what);
    for (size_t i = 0; i < len; i++)
        printf(" %02x", bytes[i]);
    printf("  %s\n", name);
}

/* Processors that take an undefined encoding for as long as its opcode's others, or look at LOCK
 * last, raise #GP if that is over 15 bytes: #UD is seen without those prefixes that it does not
 * need to be undefined. */
static bool is_undefined_when_shorter(const struct insn *in, const uint8_t *bytes)
{
    uint8_t now[15];
    unsigned needed = 0;
    memcpy(now, bytes, sizeof now);
    for (unsigned i = 0; i < in->prefix_len; i++) {
        uint8_t shorter[15] = {0};
        struct insn rest;
        memcpy(shorter, now, needed);
        memcpy(shorter + needed, now + needed + 1, sizeof now - needed - 1);
        if (decode(&rest, shorter, sizeof shorter, 0) != DECODE_OK || rest.kind != INSN_ILLEGAL) {
            needed++;
            continue;
        }
        memcpy(now, shorter, sizeof now);
        if (run(now, sizeof now, &zero) == UNDEFINED)
            return true;
    }
    return false;
}

static void hardware_check(const struct insn *in, const uint8_t *bytes)
{
    if (!may_run(in, bytes))
        return;
    ran++;
    if (!in->row && !is_undocumented(in)) {
        enum verdict v = run(bytes, 15, &zero);
        if (in->kind == INSN_ILLEGAL && v != UNDEFINED && !is_undefined_when_shorter(in, bytes)) {
            wrongly_illegal++;
            print_bytes("processor runs it, decoder says illegal", bytes, 15, "");
        }
    }
    if (!in->row)
        return;
    enum verdict whole = run(bytes, in->len, &zero);
    unsigned slot = row_slot(in->row);
    if (whole == LONGER ||
        (in->len > 1 && whole == LEGAL && run(bytes, in->len - 1u, &zero) != LONGER)) {
        wrong_length++;
        print_bytes(whole == LONGER ? "processor's is longer" : "processor's is shorter", bytes, 15,
                    opcode_name(in->row));
    } else if (whole == LEGAL) {
        seen[slot].legal++;
    } else {
        seen[slot].undefined++;
        memcpy(seen[slot].example, bytes, in->len);
        seen[slot].example_len = in->len;
    }
}

/* ---- register and flag sets ---- */

/* True if every operand can be made to lie in the scratch area. */
static bool place_operands(const struct insn *in, struct machine *m)
{
    for (unsigned i = 0; i < in->nmem; i++) {
        const struct mem_op *op = &in->mem[i];
        if (op->flags & (MEM_VSIB | MEM_ABS64) || op->base == REG_NONE || op->base == REG_PC ||
            op->seg == SEG_GS)
            return false;
        if (op->index != REG_NONE)
            m->reg[op->index] &= 15;
        m->reg[op->base] = (uint64_t)(uintptr_t)(scratch + SCRATCH / 2);
        if (!(op->flags & MEM_STACK) && op->base != op->index)
            m->reg[op->base] -= (uint64_t)(int64_t)op->disp;
        m->reg[op->base] &= ~15ull;
        if (op->flags & MEM_BITS)
            m->reg[op->bit_reg] &= 63;
    }
    if (in->flags & (INSN_REP | INSN_REPNE))
        m->reg[GPR_RCX] &= 3;
    return true;
}

static struct machine run_from(const uint8_t *bytes, size_t len, const struct machine *m)
{
    for (size_t i = 0; i < SCRATCH; i++)
        scratch[i] = (uint8_t)(i * 31);
    run(bytes, len, m);
    return after;
}

static const char *compare_effects(const struct insn *in, const struct machine *a,
                                   const struct machine *a_out, const struct machine *b,
                                   const struct machine *b_out)
{
    if (a_out->signal != b_out->signal)
        return "fault depends on what is not read";
    for (int i = 0; i < 16; i++) {
        bool written = in->regs_written >> i & 1;
        if (written && a_out->reg[i] != b_out->reg[i])
            return "a read is missing";
        if (!written && (a_out->reg[i] != a->reg[i] || b_out->reg[i] != b->reg[i]))
            return "a write is missing";
    }
    uint64_t stay = ~(uint64_t)(in->flags_written | in->flags_undefined | in->flags_read) &
                    (FLAGS_ARITH | FLAG_DF);
    if ((a_out->flags ^ b_out->flags) & in->flags_written)
        return "a flag is not always written";
    if (((a_out->flags ^ a->flags) | (b_out->flags ^ b->flags)) & stay)
        return "a flag write is missing";
    return NULL;
}

/* Legal instructions only. */
static void hardware_check_effects(const struct insn *in, const uint8_t *bytes, uint64_t random)
{
    static const char *const changing[] = {"rdtsc", "rdtscp", "rdrand*", "rdseed*",
                                           "cpuid", "rdpmc",  "popf*" /* may set AC */};
    struct machine a, b;
    if (!in->row || in->kind != INSN_NEXT || !may_run(in, bytes))
        return;
    for (size_t i = 0; i < sizeof changing / sizeof *changing; i++)
        if (strcmp(opcode_name(in->row), changing[i]) == 0)
            return;
    for (int i = 0; i < 16; i++) {
        a.reg[i] = random = random * 6364136223846793005u + 1442695040888963407u;
        b.reg[i] = in->regs_read >> i & 1 ? a.reg[i] : ~a.reg[i];
    }
    a.flags = (random >> 20) & (FLAGS_ARITH | FLAG_DF);
    b.flags = a.flags ^ (~in->flags_read & (FLAGS_ARITH | FLAG_DF));
    if (!place_operands(in, &a) || !place_operands(in, &b))
        return;
    const char *wrong = "";
    effects_checked++;
    for (int i = 0; wrong && i < 3; i++) { /* hypervisors lose a trap now and then */
        struct machine a_out = run_from(bytes, in->len, &a);
        if (verdict != LEGAL || a_out.signal != SIGTRAP)
            return;
        struct machine b_out = run_from(bytes, in->len, &b);
        wrong = compare_effects(in, &a, &a_out, &b, &b_out);
    }
    if (wrong) {
        effects_wrong++;
        print_bytes(wrong, bytes, in->len, opcode_name(in->row));
    }
}

/* ---- memory operands ---- */

static uint8_t *writable_end, *readable_end; /* of pages before an inaccessible one */
static unsigned long memory_checked, memory_wrong;

static uint8_t *map_before_gap(int prot)
{
    uint8_t *pages = mmap(NULL, 2 * 4096, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || mprotect(pages + 4096, 4096, PROT_NONE)) {
        perror("mmap");
        exit(2);
    }
    return pages + 4096;
}

/* Runs with the operand beginning at addr; true if that faults. */
static bool faults_at(const struct insn *in, const uint8_t *bytes, uint8_t *addr)
{
    struct machine m = {.reg = {0}};
    m.reg[in->mem[0].base] = (uint64_t)(uintptr_t)addr - (uint64_t)(int64_t)in->mem[0].disp;
    run(bytes, in->len, &m);
    return after.signal == SIGSEGV || after.signal == SIGBUS;
}

/* The operand must fit before the gap, and not one byte later; where it is written, a page that
 * can only be read must fault, and only there. */
static const char *compare_memory(const struct insn *in, const uint8_t *bytes)
{
    unsigned size = in->mem[0].size;
    bool writes = in->mem[0].flags & MEM_WRITE;
    memset(writable_end - 4096, 0, 4096);
    if (faults_at(in, bytes, writable_end - size))
        return "operand is larger or elsewhere";
    if (!faults_at(in, bytes, writable_end - size + 1))
        return "operand is smaller";
    if (faults_at(in, bytes, readable_end - size) != writes)
        return writes ? "operand is not written" : "operand is written";
    return NULL;
}

static bool has_one_plain_operand(const struct insn *in)
{
    const struct mem_op *m = &in->mem[0];
    return in->nmem == 1 && m->base >= 0 && m->base < 16 && m->index == REG_NONE &&
           m->seg == SEG_NONE && m->size && m->size <= 64 &&
           !(m->flags & (MEM_STACK | MEM_MASKED | MEM_BITS)) &&
           strcmp(opcode_name(in->row), "bndmov") != 0; /* a nop without MPX */
}

static void hardware_check_memory(const struct insn *in, const uint8_t *bytes)
{
    if (!in->row || in->kind != INSN_NEXT || in->flags & (INSN_ADDR32 | INSN_REP | INSN_REPNE) ||
        !may_run(in, bytes) || !has_one_plain_operand(in))
        return;
    if (!writable_end) {
        writable_end = map_before_gap(PROT_READ | PROT_WRITE);
        readable_end = map_before_gap(PROT_READ);
    }
    if (run(bytes, in->len, &zero) == UNDEFINED)
        return;
    memory_checked++;
    const char *wrong = compare_memory(in, bytes);
    if (wrong) {
        memory_wrong++;
        print_bytes(wrong, bytes, in->len, opcode_name(in->row));
    }
}

/* ---- verdict ---- */

/* Instructions that differed so far. Those that the processor refuses are known at the end only:
 * it may lack the extension. */
static unsigned long hardware_differences(void)
{
    return wrong_length + wrongly_illegal + effects_wrong + memory_wrong;
}

/* Rows that the processor refused always belong to extensions it lacks. */
static int hardware_report(void)
{
    unsigned lacking = 0;
    for (unsigned i = 0; i < seen_count; i++) {
        if (!seen[i].undefined)
            continue;
        if (!seen[i].legal) {
            lacking++;
            print_bytes("not on this processor", seen[i].example, seen[i].example_len,
                        opcode_name(seen[i].row));
            continue;
        }
        wrongly_legal += seen[i].undefined;
        print_bytes("processor refuses some of", seen[i].example, seen[i].example_len,
                    opcode_name(seen[i].row));
    }
    printf("%lu executed; wrong length %lu, legal only here %lu, legal only there %lu; %u rows not "
           "on this processor\n",
           ran, wrong_length, wrongly_legal, wrongly_illegal, lacking);
    printf("%lu checked for registers and flags, %lu wrong\n", effects_checked, effects_wrong);
    printf("%lu checked for memory operands, %lu wrong\n", memory_checked, memory_wrong);
    return hardware_differences() || wrongly_legal;
}

#endif
