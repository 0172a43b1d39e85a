/* lockstep.c: the processor as oracle: finds the first instruction that emu executes wrongly.
 *
 *   emu -plugin liblockstep.so[,steps=N] PROGRAM ARGS
 *
 * Before the first instruction the process forks. The copy has the guest's memory at the guest's
 * addresses, and is single-stepped natively beside the guest: before each instruction all registers
 * that ptrace has must agree, before each syscall all writable memory. Syscalls are not repeated:
 * the copy takes over what they did to the guest. So are instructions whose result is not
 * determined (rdtsc, cpuid ...), and what a fault's handler starts with. The first difference ends
 * the run with status 99, after N instructions without one it ends with 0.
 *
 * Follows the first thread of the first process. Programs with several threads that share data,
 * with asynchronous signals or with code in shared mappings are beyond it. */
#include "bytes.h"

#include <cpuid.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

#define FAILED     99
#define FLAGS      0xcd5ull /* CF PF AF ZF SF DF OF */
#define FLAG_TF    0x100
#define MAX_RANGES 4096
#define CHUNK      65536
#define HISTORY    8 /* instructions to show before the one that differs */
#define PAGE       4096ull
#define PAGE_UP(x) (((x) + PAGE - 1) & ~(PAGE - 1))

/* Of emu's address space: images below tables and code cache, heap far above (emu.h). */
#define LOW_TABLES 0x34000000ull
#define HIGH_BRK   0x550000000000ull

enum kind {
    PLAIN,
    SYSCALL,
    CALL_OR_RET,
    PUSHF,
    OWN_REGISTERS, /* its result is not determined (rdtsc): the copy takes the guest's registers */
    OWN_STATE,     /* and memory */
};

struct place { /* an instruction */
    uint64_t pc;
    enum kind kind;
    const char *symbol;
    char *text;
};

struct range {
    uint64_t start, end;
};

/* The guest's state as the API shows it, in the processor's form. */
struct state {
    struct user_regs_struct regs;
    uint8_t xmm[16][16];
};

#define FIELD(name)                                                                                \
    {                                                                                              \
#name, offsetof(struct user_regs_struct, name)                                             \
    }
static const struct {
    const char *name;
    size_t offset;
} fields[] = {
    FIELD(rax), FIELD(rbx), FIELD(rcx), FIELD(rdx),    FIELD(rsi),     FIELD(rdi),     FIELD(rbp),
    FIELD(rsp), FIELD(r8),  FIELD(r9),  FIELD(r10),    FIELD(r11),     FIELD(r12),     FIELD(r13),
    FIELD(r14), FIELD(r15), FIELD(rip), FIELD(eflags), FIELD(fs_base), FIELD(gs_base),
};
#define FIELDS   (sizeof fields / sizeof *fields)
#define COMPARED 17 /* the general registers and rip; flags need a mask */

static struct qemu_plugin_register *handles[FIELDS], *xmm_handles[16];
static struct bytes buffer;
static struct range ranges[MAX_RANGES]; /* guest memory to keep equal */
static size_t n_ranges;
static pid_t owner, copy;
static int copy_memory, own_memory;
static const struct place *history[HISTORY], *last;
static struct state guest_before; /* at last */
static struct state native;       /* of the copy, as last read */
static uint64_t heap_end, steps /* instructions */, max_steps = UINT64_MAX;

/* Where xsave's image has the registers of a family, or a part of them: component (its offset is
 * cpuid's), offset, size, distance. */
static const struct piece {
    const char *family;
    int first, end;
    unsigned component, at, size, step;
} pieces[] = {
    {"fctrl", 0, 1, 0, 0, 2, 0},  {"fstat", 0, 1, 0, 2, 2, 0},    {"mxcsr", 0, 1, 0, 24, 4, 0},
    {"st", 0, 8, 0, 32, 10, 16},  {"xmm", 0, 16, 0, 160, 16, 16}, {"ymm", 0, 16, 0, 160, 16, 16},
    {"ymm", 0, 16, 2, 0, 16, 16}, {"zmm", 0, 16, 0, 160, 16, 16}, {"zmm", 0, 16, 2, 0, 16, 16},
    {"zmm", 0, 16, 6, 0, 32, 32}, {"zmm", 16, 32, 7, 0, 64, 64},  {"k", 0, 8, 5, 0, 8, 8},
};
#define MAX_PIECES   3
#define MAX_EXTENDED 96
#define COMPONENTS   0xe7ull /* x87, sse, avx, avx512 */

static struct extended {
    struct qemu_plugin_register *handle;
    const char *name;
    unsigned at[MAX_PIECES], size[MAX_PIECES], n;
    uint8_t guest[64];
} extended[MAX_EXTENDED];
static size_t n_extended;
static uint8_t image[16384]; /* of the copy, as last read */
static size_t image_size;

void lockstep_syscall(void);
__asm__(".globl lockstep_syscall\n.hidden lockstep_syscall\nlockstep_syscall: syscall\nint3\n");

static uint64_t *field(struct user_regs_struct *regs, size_t i)
{
    return (uint64_t *)(void *)((char *)regs + fields[i].offset);
}

static void read_into(void *to, struct qemu_plugin_register *handle, size_t size)
{
    buffer.array.len = 0;
    if (handle && qemu_plugin_read_register(handle, &buffer.array))
        memcpy(to, buffer.array.data, buffer.array.len < size ? buffer.array.len : size);
}

static void read_guest(struct state *state)
{
    memset(state, 0, sizeof *state);
    for (size_t i = 0; i < FIELDS; i++)
        read_into(field(&state->regs, i), handles[i], 8);
    for (int i = 0; i < 16; i++)
        read_into(state->xmm[i], xmm_handles[i], 16);
}

static void note_extended(const qemu_plugin_reg_descriptor *d)
{
    size_t letters = strcspn(d->name, "0123456789");
    int number = atoi(d->name + letters);
    struct extended *x = &extended[n_extended];
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        const struct piece *p = &pieces[i];
        unsigned a, base = 0, c, e;
        if (strlen(p->family) != letters || strncmp(p->family, d->name, letters) ||
            number < p->first || number >= p->end)
            continue;
        if (p->component)
            __cpuid_count(13, p->component, a, base, c, e);
        x->at[x->n] = base + p->at + (unsigned)(number - p->first) * p->step;
        x->size[x->n++] = p->size;
    }
    x->handle = d->handle;
    x->name = d->name;
    n_extended += x->n > 0 && n_extended < MAX_EXTENDED - 1;
}

static void read_extended(void)
{
    for (struct extended *x = extended; x < extended + n_extended; x++)
        read_into(x->guest, x->handle, sizeof x->guest);
}

static void read_image(void)
{
    struct iovec to = {image, sizeof image};
    ptrace(PTRACE_GETREGSET, copy, NT_X86_XSTATE, &to);
    image_size = to.iov_len;
}

static void set_extended(void)
{
    uint64_t present, enabled; /* the kernel keeps XCR0 at 464 */
    read_image();
    for (const struct extended *x = extended; x < extended + n_extended; x++)
        for (unsigned i = 0, from = 0; i < x->n; from += x->size[i++])
            memcpy(image + x->at[i], x->guest + from, x->size[i]);
    memcpy(&present, image + 512, 8);
    memcpy(&enabled, image + 464, 8);
    present |= COMPONENTS & enabled;
    memcpy(image + 512, &present, 8);
    ptrace(PTRACE_SETREGSET, copy, NT_X86_XSTATE, &(struct iovec){image, image_size});
}

/* The first register that differs, or NULL. */
static const char *find_extended_difference(void)
{
    read_image();
    for (const struct extended *x = extended; x < extended + n_extended; x++)
        for (unsigned i = 0, from = 0; i < x->n; from += x->size[i++])
            if (memcmp(image + x->at[i], x->guest + from, x->size[i]))
                return x->name;
    return NULL;
}

static void read_copy(void)
{
    struct user_fpregs_struct fp;
    ptrace(PTRACE_GETREGS, copy, 0, &native.regs);
    ptrace(PTRACE_GETFPREGS, copy, 0, &fp);
    memcpy(native.xmm, fp.xmm_space, sizeof native.xmm);
}

/* ---- the copy -----------------------------------------------------------------------------------
 */

/* One instruction; the signal it stopped by. */
static int step_copy(void)
{
    int status = 0;
    ptrace(PTRACE_SINGLESTEP, copy, 0, 0);
    while (waitpid(copy, &status, __WALL) < 0 && errno == EINTR)
        ;
    return WIFSTOPPED(status) ? WSTOPSIG(status) : SIGKILL;
}

static void set_copy(const struct state *state)
{
    struct user_regs_struct regs;
    struct user_fpregs_struct fp;
    ptrace(PTRACE_GETREGS, copy, 0, &regs);
    for (size_t i = 0; i < FIELDS; i++)
        *field(&regs, i) = *field((struct user_regs_struct *)(uintptr_t)&state->regs, i);
    regs.orig_rax = ~0ull;
    ptrace(PTRACE_SETREGS, copy, 0, &regs);
    ptrace(PTRACE_GETFPREGS, copy, 0, &fp);
    memcpy(fp.xmm_space, state->xmm, sizeof state->xmm);
    ptrace(PTRACE_SETFPREGS, copy, 0, &fp);
}

static void make_syscall(uint64_t nr, uint64_t a, uint64_t b, uint64_t c)
{
    struct user_regs_struct regs;
    ptrace(PTRACE_GETREGS, copy, 0, &regs);
    regs.rip = (uintptr_t)lockstep_syscall;
    regs.orig_rax = ~0ull;
    regs.rax = nr;
    regs.rdi = a;
    regs.rsi = b;
    regs.rdx = c;
    regs.r10 = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
    regs.r8 = ~0ull;
    regs.r9 = 0;
    ptrace(PTRACE_SETREGS, copy, 0, &regs);
    step_copy();
}

static void start_copy(void)
{
    char path[64];
    int status;
    owner = getpid();
    copy = fork();
    if (copy == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        for (;;)
            raise(SIGSTOP);
    }
    if (copy < 0 || waitpid(copy, &status, __WALL) != copy || !WIFSTOPPED(status))
        exit(FAILED);
    ptrace(PTRACE_SETOPTIONS, copy, 0, PTRACE_O_EXITKILL);
    snprintf(path, sizeof path, "/proc/%d/mem", (int)copy);
    copy_memory = open(path, O_RDWR | O_CLOEXEC);
    own_memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
}

/* ---- memory
 * --------------------------------------------------------------------------------------- */

static void add_range(uint64_t start, uint64_t end)
{
    if (n_ranges < MAX_RANGES && start < end)
        ranges[n_ranges++] = (struct range){start, end};
}

static void remove_range(uint64_t start, uint64_t end)
{
    for (size_t i = 0, n = n_ranges; i < n; i++) {
        struct range r = ranges[i];
        if (r.end <= start || r.start >= end)
            continue;
        ranges[i].end = r.start < start ? start : r.start;
        add_range(r.end > end ? end : r.end, r.end);
    }
}

/* The end of the stack, where the program's name is: the kernel joins mappings that touch, and the
 * next may be emu's. */
static uint64_t find_stack_end(uint64_t sp)
{
    const uint64_t *word = (const uint64_t *)sp + 1; /* behind argc: argv, envp, auxv */
    for (int i = 0; i < 2; i++)
        while (*word++)
            ;
    while (*word != AT_NULL && *word != AT_EXECFN)
        word += 2;
    return PAGE_UP(*word == AT_EXECFN ? word[1] + strlen((const char *)word[1]) + 9 : sp);
}

static void add_stack(uint64_t start, uint64_t sp)
{
    struct rlimit limit;
    uint64_t end = find_stack_end(sp);
    getrlimit(RLIMIT_STACK, &limit);
    add_range(end - start > limit.rlim_cur ? end - limit.rlim_cur : start, end);
}

/* Writable memory of the guest at its start: all there is but emu's own. */
static void find_ranges(uint64_t sp)
{
    char line[4400], perm[5];
    uint64_t start, end;
    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps && fgets(line, sizeof line, maps)) {
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &start, &end, perm) != 3 || perm[1] != 'w')
            continue;
        bool image = start < LOW_TABLES || (start >= HIGH_BRK && start < HIGH_BRK + (1ull << 32));
        if (image)
            add_range(start, end);
        else if (sp >= start && sp < end)
            add_stack(start, sp);
    }
    if (maps)
        fclose(maps);
}

/* The first word in which the chunk differs. */
static void report_word(uint64_t at, const uint8_t *own, const uint8_t *other)
{
    uint64_t ours, native;
    do {
        memcpy(&ours, own, 8);
        memcpy(&native, other, 8);
        at += 8, own += 8, other += 8;
    } while (ours == native);
    fprintf(stderr, "lockstep: 0x%" PRIx64 " holds 0x%" PRIx64 ", natively 0x%" PRIx64 "\n", at - 8,
            ours, native);
}

/* Brings a range of the copy up to date; false: check, and it was not. */
static bool sync_range(uint64_t start, uint64_t end, bool check)
{
    static uint8_t own[CHUNK], other[CHUNK];
    for (uint64_t at = start; at < end; at += CHUNK) {
        size_t size = end - at < CHUNK ? end - at : CHUNK;
        ssize_t n = pread(own_memory, own, size, (off_t)at);
        if (n <= 0 || pread(copy_memory, other, (size_t)n, (off_t)at) != n ||
            !memcmp(own, other, (size_t)n))
            continue;
        if (check) {
            report_word(at, own, other);
            return false;
        }
        if (pwrite(copy_memory, own, (size_t)n, (off_t)at) != n)
            fprintf(stderr, "lockstep: cannot write to the copy at 0x%" PRIx64 "\n", at);
    }
    return true;
}

static bool sync_memory(bool check)
{
    for (size_t i = 0; i < n_ranges; i++)
        if (!sync_range(ranges[i].start, ranges[i].end, check))
            return false;
    return true;
}

static void add_mapping(uint64_t start, uint64_t len, uint64_t prot)
{
    uint64_t end = PAGE_UP(start + len);
    remove_range(start, end);
    make_syscall(SYS_mmap, start, end - start, prot);
    sync_range(start, end, false);
    if (prot & PROT_WRITE)
        add_range(start, end);
}

static void remove_mapping(uint64_t start, uint64_t len)
{
    uint64_t end = PAGE_UP(start + len);
    remove_range(start, end);
    make_syscall(SYS_munmap, start, end - start, 0);
}

/* The copy gets the mappings that the guest's syscall has made. */
static void follow_mappings(const struct user_regs_struct *call, uint64_t ret)
{
    uint64_t old = heap_end;
    if (ret > -4096ull)
        return;
    switch (call->rax) {
    case SYS_mmap:
        add_mapping(ret, call->rsi, call->rdx);
        break;
    case SYS_munmap:
        remove_mapping(call->rdi, call->rsi);
        break;
    case SYS_mprotect:
        make_syscall(SYS_mprotect, call->rdi, PAGE_UP(call->rsi), call->rdx);
        sync_range(call->rdi, call->rdi + PAGE_UP(call->rsi), false);
        remove_range(call->rdi, call->rdi + PAGE_UP(call->rsi));
        if (call->rdx & PROT_WRITE)
            add_range(call->rdi, call->rdi + PAGE_UP(call->rsi));
        break;
    case SYS_mremap:
        remove_mapping(call->rdi, call->rsi);
        add_mapping(ret, call->rdx, PROT_READ | PROT_WRITE);
        break;
    case SYS_brk:
        heap_end = PAGE_UP(ret);
        if (old && heap_end > old)
            add_mapping(old, heap_end - old, PROT_READ | PROT_WRITE);
        else if (old && heap_end < old)
            remove_mapping(heap_end, old - heap_end);
        break;
    }
}

/* ---- comparing
 * --------------------------------------------------------------------------------------- */

static void report_registers(struct state *guest)
{
    for (size_t i = 0; i < FIELDS; i++) {
        uint64_t before = *field(&guest_before.regs, i), own = *field(&guest->regs, i),
                 other = *field(&native.regs, i);
        fprintf(stderr, "  %-7s 0x%016" PRIx64 " -> 0x%016" PRIx64, fields[i].name, before, own);
        fprintf(stderr, own == other ? "\n" : ", natively 0x%016" PRIx64 "\n", other);
    }
    for (int i = 0; i < 16; i++)
        if (memcmp(guest->xmm[i], native.xmm[i], 16))
            fprintf(stderr, "  xmm%d differs\n", i);
}

/* Both states behind the last instruction, which is the one executed wrongly. */
_Noreturn static void report(struct state *guest)
{
    fprintf(stderr, "lockstep: after %" PRIu64 " steps, behind\n", steps);
    for (uint64_t i = 0; i < HISTORY; i++) {
        const struct place *place = history[(steps + i) % HISTORY];
        if (place)
            fprintf(stderr, "  0x%" PRIx64 " <%s>: %s\n", place->pc, place->symbol, place->text);
    }
    report_registers(guest);
    kill(copy, SIGKILL);
    _exit(FAILED);
}

static bool is_same(struct state *guest)
{
    bool same = !((guest->regs.eflags ^ native.regs.eflags) & FLAGS) &&
                !memcmp(guest->xmm, native.xmm, sizeof native.xmm);
    for (size_t i = 0; i < COMPARED; i++)
        same &= *field(&guest->regs, i) == *field(&native.regs, i);
    return same;
}

/* The kernel lets the trap flag be seen by pushf. */
static void clear_pushed_trap_flag(void)
{
    struct user_regs_struct regs;
    ptrace(PTRACE_GETREGS, copy, 0, &regs);
    long word = ptrace(PTRACE_PEEKDATA, copy, regs.rsp, 0);
    ptrace(PTRACE_POKEDATA, copy, regs.rsp, word & ~(long)FLAG_TF);
}

/* Calls and returns of emu's leave an address of its own right below the stack, where programs that
 * look at memory they have not written can find it. */
static void copy_dead_words(uint64_t sp)
{
    uint64_t words[2];
    if (pread(own_memory, words, sizeof words, (off_t)(sp - sizeof words)) == sizeof words &&
        pwrite(copy_memory, words, sizeof words, (off_t)(sp - sizeof words)) != sizeof words)
        fprintf(stderr, "lockstep: cannot write to the copy at 0x%" PRIx64 "\n", sp);
}

static void adopt(const struct state *guest)
{
    sync_memory(false);
    set_copy(guest);
    set_extended();
}

/* Executes last in the copy. A repeated string instruction takes a step per element, and the guest
 * may enter it anew on the way. False: its result is the guest's for want of a better one. */
static bool follow_last(const struct state *guest)
{
    do {
        if (step_copy() != SIGTRAP) {
            adopt(guest);
            return false;
        }
        read_copy();
    } while (native.regs.rip == last->pc &&
             (guest->regs.rip != last->pc || guest->regs.rcx != native.regs.rcx));
    if (native.regs.rip == last->pc) /* cmps and scas set the flags at their end, or before */
        native.regs.eflags = guest->regs.eflags;
    if (last->kind == CALL_OR_RET)
        copy_dead_words(guest->regs.rsp);
    if (last->kind == PUSHF)
        clear_pushed_trap_flag();
    if (last->kind == OWN_REGISTERS)
        set_copy(guest);
    if (last->kind == OWN_STATE)
        adopt(guest);
    return last->kind != OWN_REGISTERS && last->kind != OWN_STATE;
}

/* A syscall changes rax, rcx, r11 and no other register. */
static void check_syscall(struct state *guest)
{
    struct user_regs_struct *regs = &native.regs;
    if (guest_before.regs.rax == SYS_rt_sigreturn)
        return;
    native = guest_before;
    regs->rax = guest->regs.rax;
    regs->rip = regs->rcx = last->pc + 2;
    regs->r11 = (guest->regs.r11 & ~FLAGS) | (guest_before.regs.eflags & FLAGS);
    if (!is_same(guest))
        report(guest);
}

static void follow_guest(struct state *guest)
{
    if (last->kind == SYSCALL) {
        check_syscall(guest);
        follow_mappings(&guest_before.regs, guest->regs.rax);
        adopt(guest);
    } else if (follow_last(guest) && !is_same(guest)) {
        report(guest);
    }
}

static void compare_extended(struct state *guest)
{
    const char *differs = find_extended_difference();
    read_copy();
    if (guest->regs.fs_base != native.regs.fs_base || guest->regs.gs_base != native.regs.gs_base)
        differs = "fs_base or gs_base";
    if (!differs)
        return;
    fprintf(stderr, "lockstep: %s differs\n", differs);
    report(guest);
}

static void finish(void)
{
    kill(copy, SIGKILL);
    fprintf(stderr, "lockstep: %" PRIu64 " steps agree\n", steps);
}

static void vcpu_insn_exec(unsigned vcpu, void *userdata)
{
    const struct place *place = userdata;
    struct state guest;
    if (vcpu != 0)
        return;
    read_guest(&guest);
    read_extended();
    if (guest.regs.rip != place->pc)
        fprintf(stderr, "lockstep: rip reads 0x%llx FAILED\n", guest.regs.rip);
    if (!last) {
        start_copy();
        find_ranges(guest.regs.rsp);
        set_copy(&guest);
        set_extended();
    } else if (getpid() == owner) { /* a forked child: its parent is the one that is followed */
        follow_guest(&guest);
        compare_extended(&guest);
    } else {
        return;
    }
    guest_before = guest;
    last = place;
    history[steps++ % HISTORY] = place;
    if (steps >= max_steps) {
        finish();
        _exit(0);
    }
    if (last->kind == SYSCALL && !sync_memory(true))
        report(&guest);
}

/* ---- translation
 * --------------------------------------------------------------------------------------- */

/* Of the two-byte opcodes at op. xsave tells which registers have been used, by emu too. */
static enum kind classify_0f(const uint8_t *op, size_t len)
{
    unsigned modrm = len > 1 ? op[1] : 0, reg = modrm >> 3 & 7;
    bool is_memory = modrm < 0xc0;
    switch (op[0]) {
    case 0x05:
        return SYSCALL;
    case 0x31: /* rdtsc */
    case 0xa2: /* cpuid */
        return OWN_REGISTERS;
    case 0x01: /* rdtscp, xgetbv */
        return modrm == 0xf9 || modrm == 0xd0 ? OWN_REGISTERS : PLAIN;
    case 0xae: /* xsave, xsaveopt */
        return is_memory && (reg == 4 || reg == 6) ? OWN_STATE : PLAIN;
    case 0xc7: /* xsavec, xsaves; rdrand, rdseed, rdpid */
        if (is_memory)
            return reg == 4 || reg == 5 ? OWN_STATE : PLAIN;
        return OWN_REGISTERS;
    }
    return PLAIN;
}

/* The time that code of the vDSO reads runs on: what it has stored is taken over at its end. */
static enum kind classify_vdso(const uint8_t *code)
{
    return code[0] == 0xc3 ? OWN_STATE : OWN_REGISTERS;
}

static enum kind classify(uint64_t pc, const uint8_t *code, size_t len)
{
    uint64_t vdso = getauxval(AT_SYSINFO_EHDR);
    size_t i = 0;
    if (vdso && pc - vdso < 2 * PAGE)
        return classify_vdso(code);
    while (i + 1 < len && (code[i] == 0x66 || code[i] == 0xf3 || code[i] == 0xf2 ||
                           code[i] == 0x3e || code[i] == 0x64 || (code[i] & 0xf0) == 0x40))
        i++;
    unsigned modrm = i + 1 < len ? code[i + 1] : 0;
    switch (code[i]) {
    case 0x0f:
        return i + 1 < len ? classify_0f(code + i + 1, len - i - 1) : PLAIN;
    case 0x9c:
        return PUSHF;
    case 0xff:
        return (modrm & 0x38) == 0x10 ? CALL_OR_RET : PLAIN;
    case 0xc2:
    case 0xc3:
    case 0xe8:
        return CALL_OR_RET;
    }
    return PLAIN;
}

static void vcpu_tb_trans(struct qemu_plugin_tb *tb, void *userdata)
{
    (void)userdata;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        struct place *place = malloc(sizeof *place);
        uint8_t code[16];
        if (!place)
            exit(FAILED);
        size_t len = qemu_plugin_insn_data(insn, code, sizeof code);
        place->pc = qemu_plugin_insn_vaddr(insn);
        place->kind = classify(place->pc, code, len);
        place->text = qemu_plugin_insn_disas(insn);
        place->symbol = qemu_plugin_insn_symbol(insn);
        if (!place->symbol)
            place->symbol = "?";
        qemu_plugin_register_vcpu_insn_exec_cb(insn, vcpu_insn_exec, QEMU_PLUGIN_CB_R_REGS, place);
    }
}

static void vcpu_init(unsigned vcpu, void *userdata)
{
    (void)userdata;
    GArray *all = vcpu == 0 ? qemu_plugin_get_registers() : NULL;
    for (unsigned i = 0; all && i < all->len; i++) {
        const qemu_plugin_reg_descriptor *d = (const qemu_plugin_reg_descriptor *)all->data + i;
        int n;
        for (size_t k = 0; k < FIELDS; k++)
            if (!strcmp(d->name, fields[k].name))
                handles[k] = d->handle;
        if (sscanf(d->name, "xmm%d", &n) == 1 && n >= 0 && n < 16)
            xmm_handles[n] = d->handle;
        note_extended(d);
    }
}

static void at_exit(void *userdata)
{
    (void)userdata;
    if (getpid() == owner)
        finish();
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    (void)info;
    if (argc > 1 || (argc == 1 && sscanf(argv[0], "steps=%" SCNu64, &max_steps) != 1)) {
        fprintf(stderr, "lockstep: the only option is steps=N\n");
        return 1;
    }
    if (!bytes_init(&buffer, 64))
        return 1;
    qemu_plugin_register_vcpu_init_cb(id, vcpu_init, NULL);
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans, NULL);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
    return 0;
}
