/* signal.c: guest signals.
 *
 * Every delivery goes through a host signal frame: only there are all registers of the guest,
 * vectors included, at hand and exact. The host handler finds the guest's state for the host pc
 * (jit_fault, jit_interrupt), writes the frame the kernel would have written on the guest's
 * stack, and lets the host frame return into the guest's handler. Signals that find the thread
 * in C, or between two guest instructions' pieces, wait: in C until the cache is entered again
 * (jit_raise makes a frame like the kernel's then), in the cache by single steps to the next
 * instruction.
 *
 * The guest's signal mask is the host's but for the synchronous signals, which stay open for
 * emu's own use; the guest's wish for those is kept in the thread's state. One of them that was
 * sent (kill, raise) while the guest blocks it is sent again with the host blocking it too, so that
 * the kernel keeps it pending. While a signal waits, everything is blocked on the host and the
 * guest's mask is kept in the state too.
 *
 * signal_handle() and what it calls run on the thread's own alternate stack with the host's %fs
 * (entry_x86_64.S sees to that). Handlers may come between any two instructions of emu, but they
 * use locks and memory only if they interrupted generated code, where emu holds none. */

#include "emu.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define SIGNALS              64
#define HOST_STACK           (256 << 10)
#define RAISED_FRAME         (32 << 10) /* struct frame and the vector state of jit_raise */
#define VECTOR_OFFSET        4096
#define RED_ZONE             128
#define KERNEL_SA_RESTORER   0x04000000
#define KERNEL_MINSIGSTKSZ   2048

#define BIT(sig)             (1ull << ((sig)-1))
#define SYNC_MASK            (BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGFPE) | BIT(SIGILL) | BIT(SIGTRAP))

#define TRAP_PF              14
#define WRITE_ERROR          2 /* in a page fault's error code */
#define FLAG_RF              0x10000

#define KERNEL_SS_AUTODISARM (1u << 31)

/* uc_flags (arch/x86/include/uapi/asm/ucontext.h) and the selectors of a 64-bit program. */
#define FLAG_FP_XSTATE       1
#define FLAG_SIGCONTEXT_SS   2
#define FLAG_STRICT_RESTORE  4
#define USER_CS_AND_SS       0x2b000000000033
#define VECTOR_MAGIC1        0x46505853
#define VECTOR_MAGIC2        0x46505845

/* Kernel's struct sigaction. */
struct action {
    uint64_t handler, flags, restorer, mask;
};

/* Kernel's struct rt_sigframe (arch/x86/include/asm/sigframe.h). */
struct frame {
    uint64_t restorer;
    struct {
        uint64_t flags, link;
        stack_t stack;
        uint8_t mcontext[256];
        uint64_t mask;
    } uc;
    siginfo_t info;
};
_Static_assert(sizeof(struct frame) == 440, "kernel layout");
_Static_assert(offsetof(ucontext_t, uc_sigmask) == 296, "kernel layout");

/* What C asks for at the next entry of the cache, besides a held signal. REQUEST_SIGNAL is that
 * signal, for which the state in the cpu is exact already. */
enum request { REQUEST_NONE, REQUEST_SIGNAL, REQUEST_FAULT, REQUEST_RETURN };

struct signal_state {
    enum request request;
    siginfo_t fault; /* REQUEST_FAULT, with the processor's trap number and error code */
    bool unseen;     /* no signal of the host came with it */
    int showing;     /* the signal that a tracer is shown, until it has let it through */
    int trap, error;
    uint64_t frame;     /* REQUEST_RETURN: the guest's struct frame */
    bool closed;        /* C has blocked everything on the host */
    bool pushes_flags;  /* the instruction that is being stepped over does */
    bool held;          /* an asynchronous signal waits; all are blocked on the host */
    bool told;          /* plugins have heard of what waits */
    bool give_back;     /* the guest blocks what waits: it goes back to the kernel */
    siginfo_t info;     /* that signal */
    uint64_t mask;      /* and the guest's mask meanwhile */
    uint64_t sync_mask; /* synchronous signals that the guest blocks */
    uint64_t sent_mask; /* those of them that were sent: the host blocks them as well */
    stack_t alt;        /* guest's alternate stack: size 0: none; flags as sigaltstack was given */
    void *host_stack;   /* the handlers' own; in it, below what they use, the raised frame */
    uint64_t raised;    /* guest's mask where jit_raise was entered */
    struct {
        greg_t trap, error, address;
    } latest; /* fault of this thread, which the kernel shows in the frames of all signals */
};

static struct action actions[SIGNALS + 1];               /* as the guest set them */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of actions; innermost */
static bool is_traced; /* by a parent that the guest has asked to */

void signal_entry(int sig, siginfo_t *info, void *context);
void signal_restorer(void);
void signal_handle(int sig, siginfo_t *info, ucontext_t *uc);
void *signal_change_state(struct cpu *cpu);

/* ---- host side
 * -------------------------------------------------------------------------------------- */

static void set_host_action(int sig, const struct action *act)
{
    syscall(SYS_rt_sigaction, sig, act, NULL, sizeof(act->mask));
}

static bool is_fatal_by_default(int sig)
{
    switch (sig) {
    case 0: /* none: leave_block_soon */
    case SIGCHLD:
    case SIGCONT:
    case SIGURG:
    case SIGWINCH:
    case SIGSTOP:
    case SIGTSTP:
    case SIGTTIN:
    case SIGTTOU:
    case SIGKILL:
        return false;
    }
    return true;
}

/* Host disposition for the guest's: fatal defaults are caught too, so that plugins' output is
 * written before the end, and synchronous ones always. */
static void mirror_action(int sig)
{
    const struct action *guest = &actions[sig];
    bool sync = SYNC_MASK & BIT(sig);
    struct action host = {.handler = guest->handler};
    if (sync || guest->handler > 1 || (guest->handler == 0 && is_fatal_by_default(sig))) {
        host.handler = (uintptr_t)signal_entry;
        host.flags =
            SA_SIGINFO | SA_ONSTACK | KERNEL_SA_RESTORER |
            (guest->flags & (SA_RESTART | SA_NOCLDSTOP | SA_NOCLDWAIT)) |
            (guest->handler == 1 ? SA_RESTART : 0); /* what is ignored interrupts nothing */
        host.restorer = (uintptr_t)signal_restorer;
        host.mask = ~SYNC_MASK;
    } else {
        host.flags = guest->flags & (SA_NOCLDSTOP | SA_NOCLDWAIT);
    }
    set_host_action(sig, &host);
}

bool signal_has_tracer(void)
{
    char text[1024] = "";
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
    const char *tracer = n > 0 ? strstr(text, "TracerPid:") : NULL;
    if (fd >= 0)
        close(fd);
    return tracer && strtol(strchr(tracer, ':') + 1, NULL, 10) != 0;
}

void signal_init(void)
{
    for (int sig = 1; sig <= SIGNALS; sig++) {
        struct action inherited;
        if (sig == SIGKILL || sig == SIGSTOP ||
            syscall(SYS_rt_sigaction, sig, NULL, &inherited, sizeof(inherited.mask)))
            continue;
        actions[sig].handler = inherited.handler == 1;
        mirror_action(sig);
    }
}

static uint64_t get_host_mask(void)
{
    uint64_t mask = 0;
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, sizeof(mask));
    return mask;
}

/* What the host blocks for the guest's mask. */
static uint64_t mask_for_host(const struct signal_state *state, uint64_t mask)
{
    return (mask & ~SYNC_MASK) | state->sent_mask;
}

static void set_host_mask(const struct signal_state *state, uint64_t mask)
{
    mask = mask_for_host(state, mask);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
}

/* The guest's mask, wherever it is. */
static uint64_t current_mask(const struct signal_state *state)
{
    return (state->held ? state->mask : get_host_mask() & ~SYNC_MASK) | state->sync_mask;
}

static uint64_t *context_mask(ucontext_t *uc)
{
    return (uint64_t *)(void *)&uc->uc_sigmask;
}

/* The guest goes on with this mask when the host's handler returns. */
static void set_context_mask(struct signal_state *state, ucontext_t *uc, uint64_t mask)
{
    state->closed = false;
    state->sync_mask = mask & SYNC_MASK;
    state->sent_mask &= mask;
    *context_mask(uc) = mask_for_host(state, mask);
}

_Noreturn void signal_die(struct cpu *cpu, int sig)
{
    (void)cpu;
    struct action fatal = {0};
    uint64_t only = ~BIT(sig);
    qemu_plugin_atexit_cb();
    stats_print();
    set_host_action(sig, &fatal);
    syscall(SYS_kill, getpid(), sig);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &only, NULL, sizeof(only));
    for (;;)
        pause();
}

/* Sends a signal that the kernel has delivered to this thread once more. */
static void queue_signal(const siginfo_t *info)
{
    syscall(SYS_rt_tgsigqueueinfo, getpid(), (pid_t)syscall(SYS_gettid), info->si_signo, info);
}

/* Sends the held signal again, to be found when the guest's mask is back. */
static void release_held(struct cpu *cpu)
{
    struct signal_state *state = cpu->signals;
    if (state->held)
        queue_signal(&state->info);
    state->held = state->told = state->give_back = false;
    cpu->pending = 0;
}

/* ---- guest frames
 * ------------------------------------------------------------------------------------- */

static bool is_within_alt_stack(const struct signal_state *state, uint64_t sp)
{
    uint64_t base = (uintptr_t)state->alt.ss_sp;
    return sp > base && sp - base <= state->alt.ss_size;
}

static bool on_alt_stack(const struct signal_state *state, uint64_t sp)
{
    return !((unsigned)state->alt.ss_flags & KERNEL_SS_AUTODISARM) &&
           is_within_alt_stack(state, sp);
}

static int alt_stack_flags(const struct signal_state *state, uint64_t sp)
{
    if (!state->alt.ss_size)
        return SS_DISABLE;
    return on_alt_stack(state, sp) ? SS_ONSTACK : 0;
}

/* sigaltstack's part that sets; sp: the guest's. */
static int64_t set_alt_stack(struct signal_state *state, const stack_t *new, uint64_t sp)
{
    unsigned mode = (unsigned)new->ss_flags & ~KERNEL_SS_AUTODISARM;
    if (on_alt_stack(state, sp))
        return -EPERM;
    if (mode != SS_DISABLE && mode != SS_ONSTACK && mode != 0)
        return -EINVAL;
    if (mode != SS_DISABLE && new->ss_size < KERNEL_MINSIGSTKSZ)
        return -ENOMEM;
    state->alt = *new;
    if (mode == SS_DISABLE)
        state->alt = (stack_t){.ss_flags = new->ss_flags};
    return 0;
}

/* Bytes of the vector state in a host frame (struct _fpx_sw_bytes at 464). */
static uint32_t vector_state_size(const uint8_t *fp)
{
    uint32_t magic, size;
    memcpy(&magic, fp + 464, 4);
    memcpy(&size, fp + 468, 4);
    return magic == VECTOR_MAGIC1 ? size : 512;
}

/* What the kernel writes into the frames it makes (struct _fpx_sw_bytes), as far as it can be known
 * before the first one. Tile state is there only for who has asked for it. */
static void describe_vector_state(uint8_t *fp)
{
    static const uint32_t magic[] = {VECTOR_MAGIC1, VECTOR_MAGIC2};
    uint64_t components;
    uint32_t size = jit_vector_state(&components), extended = size + sizeof(magic[1]);
    if (!components)
        return;
    memcpy(fp + 464, &magic[0], 4);
    memcpy(fp + 468, &extended, 4);
    memcpy(fp + 472, &components, 8);
    memcpy(fp + 480, &size, 4);
    memcpy(fp + size, &magic[1], 4);
}

static stack_t host_alt_stack(const struct signal_state *state)
{
    return (stack_t){.ss_sp = (char *)state->host_stack + RAISED_FRAME,
                     .ss_size = HOST_STACK - RAISED_FRAME};
}

/* The first thread starts with the mask it was executed with, others with everything blocked. */
void signal_thread_init(struct cpu *cpu)
{
    uint64_t mask = get_host_mask();
    struct signal_state *state = calloc(1, sizeof(*state));
    uint8_t *stack =
        mmap(NULL, HOST_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool first = cpu->tid == getpid();
    if (!state || stack == MAP_FAILED)
        die("out of memory for a thread's signal stack");
    state->alt.ss_flags = first ? 0 : SS_DISABLE; /* as the kernel starts them */
    state->host_stack = stack;
    state->closed = !first;
    cpu->signals = state;
    cpu->vector_frame = stack + VECTOR_OFFSET;
    describe_vector_state(cpu->vector_frame);
    stack_t alt = host_alt_stack(state);
    sigaltstack(&alt, NULL);
    state->sync_mask = mask & SYNC_MASK;
    set_host_mask(state, mask);
}

void signal_inherit(struct cpu *cpu, const struct cpu *parent)
{
    cpu->signals->latest = parent->signals->latest;
}

/* Where the vector state of a new frame goes (get_sigframe in arch/x86/kernel/signal.c); 0: it
 * would overflow the alternate stack. */
static uint64_t place_frame(const struct signal_state *state, const struct action *act, uint64_t sp,
                            uint32_t fp_size)
{
    bool on_alt = on_alt_stack(state, sp);
    uint64_t top = sp - RED_ZONE;
    if (act->flags & SA_ONSTACK && alt_stack_flags(state, top) == 0) {
        top = (uintptr_t)state->alt.ss_sp + state->alt.ss_size;
        on_alt = true;
    }
    uint64_t fp_at = (top - fp_size) & ~63ull;
    return on_alt && !is_within_alt_stack(state, fp_at - sizeof(struct frame) - 8) ? 0 : fp_at;
}

/* Writes the guest's frame; false: its stack cannot take it. *sp: in the stack pointer, out the
 * frame's address. */
static bool write_frame(struct signal_state *state, const struct action *act, const siginfo_t *info,
                        ucontext_t *uc, uint64_t mask, uint64_t *sp)
{
    const uint8_t *fp = (const uint8_t *)uc->uc_mcontext.fpregs;
    greg_t *reg = uc->uc_mcontext.gregs;
    uint32_t fp_size = vector_state_size(fp);
    uint64_t fp_at = place_frame(state, act, *sp, fp_size);
    uint64_t frame_at = ((fp_at - sizeof(struct frame)) & ~15ull) - 8;
    struct frame frame = {.restorer = act->restorer,
                          .uc = {.flags = uc->uc_flags, .stack = state->alt, .mask = mask},
                          .info = *info};
    reg[REG_TRAPNO] = state->latest.trap;
    reg[REG_ERR] = state->latest.error;
    reg[REG_CR2] = state->latest.address;
    reg[REG_OLDMASK] = (greg_t)mask;
    memcpy(frame.uc.mcontext, &uc->uc_mcontext, sizeof(frame.uc.mcontext));
    memcpy(frame.uc.mcontext + offsetof(mcontext_t, fpregs), &fp_at, sizeof(fp_at));
    *sp = frame_at;
    if (!fp_at || !guest_copy((void *)fp_at, fp, fp_size) ||
        !guest_copy((void *)frame_at, &frame, sizeof(frame)))
        return false;
    if ((unsigned)state->alt.ss_flags & KERNEL_SS_AUTODISARM)
        state->alt = (stack_t){.ss_flags = SS_DISABLE};
    return true;
}

/* The handler starts with initial vector and x87 state. */
static void reset_vector_state(uint8_t *fp)
{
    static const uint32_t mxcsr = 0x1f80;
    uint64_t components;
    if (vector_state_size(fp) > 512) {
        memcpy(&components, fp + 512, 8);
        components &= 1 << 9; /* protection keys stay */
        memcpy(fp + 512, &components, 8);
    }
    memcpy(fp + 24, &mxcsr, 4);
}

/* The guest's own end, told apart from emu's: signal, address, function and instruction. */
static void report_crash(const siginfo_t *info, uint64_t pc)
{
    char text[128] = "(cannot be read)", bytes[3 * 15 + 1] = "";
    uint8_t code[15];
    struct insn in;
    uint64_t offset = 0;
    const char *symbol = elf_symbol(pc, &offset);
    size_t avail = vma_code_avail(pc, sizeof(code));
    if (avail && guest_copy(code, (const void *)pc, avail) &&
        decode(&in, code, avail, pc) == DECODE_OK) {
        disas(text, sizeof(text), &in, code, DISAS_ATT);
        for (int i = 0; i < in.len; i++)
            snprintf(bytes + 3 * i, 4, " %02x", code[i]);
    }
    warn("uncaught target signal %d (%s), address %p, at 0x%llx <%s+0x%llx>: %s (bytes%s)",
         info->si_signo, strsignal(info->si_signo), info->si_addr, (unsigned long long)pc,
         symbol ? symbol : "?", (unsigned long long)offset, text, bytes);
}

/* Sends the signal once more, with its default action, to arrive when the host frame returns: then
 * the registers, and with them a core dump and a tracer, are the guest's at the instruction in uc.
 */
static void die_as_guest(const siginfo_t *info, ucontext_t *uc)
{
    struct action fatal = {0};
    qemu_plugin_atexit_cb();
    stats_print();
    set_host_action(info->si_signo, &fatal);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &(uint64_t){~0ull}, NULL, sizeof(uint64_t));
    queue_signal(info);
    *context_mask(uc) = ~BIT(info->si_signo);
}

/* uc holds the guest's state at the instruction the signal stands before: makes it the handler's
 * first. mask: the guest's before the signal. */
static void enter_handler(struct cpu *cpu, const siginfo_t *info, ucontext_t *uc, uint64_t mask,
                          bool fault)
{
    static const siginfo_t bad_stack = {.si_signo = SIGSEGV, .si_code = SI_KERNEL};
    struct signal_state *state = cpu->signals;
    greg_t *reg = uc->uc_mcontext.gregs;
    int sig = info->si_signo;
    pthread_mutex_lock(&lock);
    struct action act = actions[sig];
    bool ignored_fault = fault && (act.handler == 1 || mask & BIT(sig));
    if (act.flags & SA_RESETHAND && act.handler > 1) {
        actions[sig] = (struct action){0};
        mirror_action(sig);
    }
    pthread_mutex_unlock(&lock);
    reg[REG_EFL] &= ~FLAG_TF;
    bool harmless = !fault && act.handler == 0 && !is_fatal_by_default(sig);
    if (harmless && sig) /* its handler went while it waited */
        queue_signal(info);
    if (harmless || (act.handler == 1 && !ignored_fault)) {
        set_context_mask(state, uc, mask);
        cpu->pc = (uint64_t)reg[REG_RIP];
        reg[REG_RIP] = (greg_t)jit_lookup_pad();
        return;
    }
    if (act.handler == 0 || ignored_fault) {
        if (fault)
            report_crash(info, (uint64_t)reg[REG_RIP]);
        die_as_guest(info, uc);
        return;
    }
    uint64_t sp = (uint64_t)reg[REG_RSP];
    if (!write_frame(state, &act, info, uc, mask, &sp)) {
        if (sig == SIGSEGV)
            signal_die(cpu, SIGSEGV);
        enter_handler(cpu, &bad_stack, uc, mask, true);
        return;
    }
    set_context_mask(state, uc, mask | act.mask | (act.flags & SA_NODEFER ? 0 : BIT(sig)));
    reset_vector_state((uint8_t *)uc->uc_mcontext.fpregs);
    reg[REG_RDI] = sig;
    reg[REG_RSI] = (greg_t)(sp + offsetof(struct frame, info));
    reg[REG_RDX] = (greg_t)(sp + offsetof(struct frame, uc));
    reg[REG_RAX] = 0;
    reg[REG_RSP] = (greg_t)sp;
    reg[REG_EFL] &= ~(FLAG_DF | FLAG_RF);
    cpu->pc = act.handler;
    reg[REG_RIP] = (greg_t)jit_lookup_pad();
}

/* rt_sigreturn: the host frame takes over what the guest's frame holds. */
static void leave_handler(struct cpu *cpu, ucontext_t *uc)
{
    struct signal_state *state = cpu->signals;
    struct frame frame;
    ucontext_t guest;
    uint8_t *fp = (uint8_t *)uc->uc_mcontext.fpregs;
    if (!guest_copy(&frame, (const void *)state->frame, sizeof(frame)))
        signal_die(cpu, SIGSEGV);
    memcpy(&guest.uc_mcontext, frame.uc.mcontext, sizeof(frame.uc.mcontext));
    uint32_t size = vector_state_size(fp);
    const uint8_t *guest_fp = (const uint8_t *)guest.uc_mcontext.fpregs;
    if (guest_fp) {
        uint8_t sw_bytes[48]; /* what the kernel checks on return stays as the kernel made it */
        memcpy(sw_bytes, fp + 464, sizeof(sw_bytes));
        if (!guest_copy(fp, guest_fp, size))
            signal_die(cpu, SIGSEGV);
        memcpy(fp + 464, sw_bytes, sizeof(sw_bytes));
    }
    for (int i = 0; i < REG_CSGSFS; i++)
        uc->uc_mcontext.gregs[i] = guest.uc_mcontext.gregs[i];
    cpu->pc = (uint64_t)guest.uc_mcontext.gregs[REG_RIP];
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)jit_lookup_pad();
    set_context_mask(state, uc, frame.uc.mask);
    set_alt_stack(state, &frame.uc.stack, (uint64_t)uc->uc_mcontext.gregs[REG_RSP]);
}

/* ---- the handler
 * -------------------------------------------------------------------------------------- */

static const uint8_t greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                    REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                    REG_R12, REG_R13, REG_R14, REG_R15};

static struct host_state get_state(const ucontext_t *uc)
{
    struct host_state state = {.pc = (uint64_t)uc->uc_mcontext.gregs[REG_RIP],
                               .flags = (uint64_t)uc->uc_mcontext.gregs[REG_EFL]};
    for (int i = 0; i < 16; i++)
        state.reg[i] = (uint64_t)uc->uc_mcontext.gregs[greg_of[i]];
    return state;
}

static void set_state(ucontext_t *uc, const struct host_state *state)
{
    for (int i = 0; i < 16; i++)
        uc->uc_mcontext.gregs[greg_of[i]] = (greg_t)state->reg[i];
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)state->pc;
}

static uint64_t guest_mask(struct cpu *cpu, const ucontext_t *uc)
{
    const struct signal_state *state = cpu->signals;
    uint64_t mask = state->held ? state->mask : *(const uint64_t *)(const void *)&uc->uc_sigmask;
    return (mask & ~SYNC_MASK) | state->sync_mask;
}

/* Keeps a signal for later; until then no other comes. */
static void hold_signal(struct cpu *cpu, const siginfo_t *info, ucontext_t *uc)
{
    struct signal_state *state = cpu->signals;
    state->mask = guest_mask(cpu, uc);
    state->held = true;
    state->info = *info;
    cpu->pending = 1;
    *context_mask(uc) = mask_for_host(state, ~0ull);
}

static bool is_between(uint64_t pc, const char *start, const char *end)
{
    return pc >= (uintptr_t)start && pc < (uintptr_t)end;
}

/* Gives a sent signal back to the kernel, for this thread or for any of the process. */
static void block_sent_signal(struct cpu *cpu, const siginfo_t *info, ucontext_t *uc)
{
    cpu->signals->sent_mask |= BIT(info->si_signo);
    *context_mask(uc) |= BIT(info->si_signo);
    if (info->si_code == SI_TKILL)
        queue_signal(info);
    else
        syscall(SYS_rt_sigqueueinfo, getpid(), info->si_signo, info);
}

/* The state in uc is the guest's, which goes on there, but not in the code that it is in. */
static void give_back_signal(struct cpu *cpu, const siginfo_t *info, ucontext_t *uc, uint64_t mask)
{
    greg_t *reg = uc->uc_mcontext.gregs;
    cpu->signals->give_back = false;
    cpu->pc = (uint64_t)reg[REG_RIP];
    reg[REG_EFL] &= ~FLAG_TF;
    reg[REG_RIP] = (greg_t)jit_lookup_pad();
    set_context_mask(cpu->signals, uc, mask);
    block_sent_signal(cpu, info, uc);
}

/* The state in uc is the guest's: goes to the handler of a signal that came from outside. */
static void deliver(struct cpu *cpu, const siginfo_t *info, ucontext_t *uc)
{
    siginfo_t copy = *info;
    uint64_t mask = guest_mask(cpu, uc);
    cpu->signals->held = cpu->signals->told = false;
    cpu->pending = 0;
    cpu->steps = 0;
    if (cpu->signals->give_back)
        give_back_signal(cpu, &copy, uc, mask);
    else
        enter_handler(cpu, &copy, uc, mask, false);
}

/* The same for a fault of the guest's instruction; a held signal comes after it. */
static void deliver_fault(struct cpu *cpu, const siginfo_t *info, ucontext_t *uc)
{
    const greg_t *reg = uc->uc_mcontext.gregs;
    struct signal_state *state = cpu->signals;
    uint64_t mask = guest_mask(cpu, uc);
    state->latest.trap = reg[REG_TRAPNO];
    state->latest.error = reg[REG_ERR];
    if (reg[REG_TRAPNO] == TRAP_PF)
        state->latest.address = reg[REG_CR2];
    release_held(cpu);
    enter_handler(cpu, info, uc, mask, true);
}

/* The state in uc is the guest's, exactly. Plugins see it, and may change it, in C: there the
 * signal waits at the guest's pc. */
static void leave_for_plugins(struct cpu *cpu, enum request request, ucontext_t *uc)
{
    greg_t *reg = uc->uc_mcontext.gregs;
    cpu->signals->request = request;
    cpu->signals->told = false;
    cpu->pending = 1;
    cpu->pc = (uint64_t)reg[REG_RIP];
    reg[REG_EFL] &= ~FLAG_TF;
    reg[REG_RIP] = (greg_t)jit_lookup_pad();
}

static void deliver_or_tell(struct cpu *cpu, const siginfo_t *info, ucontext_t *uc)
{
    if (!plugin_wants_discon() || cpu->signals->told) {
        deliver(cpu, info, uc);
        return;
    }
    if (!cpu->signals->held)
        hold_signal(cpu, info, uc);
    leave_for_plugins(cpu, REQUEST_SIGNAL, uc);
}

static void deliver_or_tell_fault(struct cpu *cpu, const siginfo_t *info, ucontext_t *uc)
{
    struct signal_state *state = cpu->signals;
    if (!plugin_wants_discon()) {
        deliver_fault(cpu, info, uc);
        return;
    }
    state->fault = *info;
    state->trap = (int)uc->uc_mcontext.gregs[REG_TRAPNO];
    state->error = (int)uc->uc_mcontext.gregs[REG_ERR];
    leave_for_plugins(cpu, REQUEST_FAULT, uc);
}

static bool is_pushf(const uint8_t *code)
{
    return code[0] == 0x9c || ((code[0] == 0x66 || code[0] == 0x48) && code[1] == 0x9c);
}

/* The word that the guest has pushed while it was stepped must not show it. */
static void clear_pushed_trap_flag(struct signal_state *state, const ucontext_t *uc)
{
    uint8_t *byte = (uint8_t *)uc->uc_mcontext.gregs[REG_RSP] + 1;
    if (state->pushes_flags)
        *byte &= (uint8_t) ~(FLAG_TF >> 8);
    state->pushes_flags = false;
}

/* An asynchronous signal in the cache, or the next step after one. */
static void interrupt_cache(struct cpu *cpu, const siginfo_t *info, ucontext_t *uc)
{
    struct host_state host = get_state(uc);
    bool fault_first = cpu->signals->request == REQUEST_FAULT;
    if (!fault_first && jit_interrupt(cpu, &host) == STOP_GUEST) {
        set_state(uc, &host);
        deliver_or_tell(cpu, info, uc);
        return;
    }
    if (!cpu->signals->held)
        hold_signal(cpu, info, uc);
    cpu->signals->pushes_flags = is_pushf((const uint8_t *)host.pc);
    uc->uc_mcontext.gregs[REG_EFL] |= FLAG_TF;
}

/* The guest's mask is the host's already, but the call is not made. */
static bool is_about_to_exec(uint64_t pc)
{
    return is_between(pc, jit_exec_open, jit_exec_made);
}

/* An asynchronous signal outside the cache. */
static void interrupt_host(struct cpu *cpu, const siginfo_t *info, ucontext_t *uc)
{
    uint64_t pc = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
    if (pc == (uintptr_t)jit_forward_syscall) {
        /* All registers are the guest's; the call is not made, or to be made again. */
        uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(cpu->pc - 2);
        deliver_or_tell(cpu, info, uc);
        return;
    }
    if (info->si_signo == SIGABRT && cpu->in_plugin && info->si_pid == getpid())
        signal_die(cpu, SIGABRT); /* the plugin's own abort() */
    if (!cpu->signals->held)
        hold_signal(cpu, info, uc);
    if (is_about_to_exec(pc))
        uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)jit_exec_cancelled;
    /* From there the way may lead back into the cache and pass no check. */
    if (is_between(pc, jit_enter_jump, jit_leave) || jit_in_pads(pc))
        uc->uc_mcontext.gregs[REG_EFL] |= FLAG_TF;
    else
        uc->uc_mcontext.gregs[REG_EFL] &= ~FLAG_TF;
}

/* On the way into the cache only general registers and flags are still to be loaded from the cpu.
 */
static void finish_entry(const struct cpu *cpu, ucontext_t *uc)
{
    struct host_state host = {.pc = cpu->back};
    memcpy(host.reg, cpu->reg, sizeof(host.reg));
    set_state(uc, &host);
    uc->uc_mcontext.gregs[REG_EFL] = (greg_t)cpu->flags;
}

/* A synchronous signal that was sent, not raised, while the guest blocks it or nothing else could
 * have come. If the host blocks it already, the mask of a call (sigsuspend) has let it through. */
static bool is_sent_to_blocked(const struct cpu *cpu, const siginfo_t *info, ucontext_t *uc)
{
    const struct signal_state *state = cpu->signals;
    uint64_t bit = BIT(info->si_signo);
    return SYNC_MASK & bit && info->si_code <= 0 && !(*context_mask(uc) & bit) &&
           !is_about_to_exec((uint64_t)uc->uc_mcontext.gregs[REG_RIP]) &&
           (state->sync_mask & bit || state->closed || state->held);
}

/* Before the host blocks the signal of faults, code that relies on them is left behind: this one
 * waits for that, and what waits already comes again. In C that happens by itself. */
static bool must_leave_first(struct cpu *cpu, const siginfo_t *info)
{
    struct signal_state *state = cpu->signals;
    if (info->si_signo != SIGSEGV || !jit_stop_faults() || state->closed || state->request)
        return false;
    if (state->held)
        queue_signal(&state->info);
    state->info = *info;
    state->give_back = state->told = true;
    return true;
}

/* A step towards the next guest instruction: in the cache, on the way in, or out of it. */
static bool handle_step(struct cpu *cpu, const siginfo_t *info, ucontext_t *uc)
{
    uint64_t pc = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
    if (!cpu->signals->held || info->si_code != TRAP_TRACE)
        return false;
    siginfo_t waiting = cpu->signals->info;
    clear_pushed_trap_flag(cpu->signals, uc);
    if (jit_in_cache(pc))
        interrupt_cache(cpu, &waiting, uc);
    else
        interrupt_host(cpu, &waiting, uc);
    return true;
}

/* The guest's code at pc in hexadecimal. */
static void print_bytes(char *text, size_t size, uint64_t pc)
{
    uint8_t code[15];
    size_t n = vma_code_avail(pc, sizeof(code));
    if (!guest_copy(code, (const void *)pc, n))
        n = 0;
    *text = 0;
    for (size_t i = 0; i < n; i++)
        snprintf(text + 3 * i, size - 3 * i, " %02x", code[i]);
}

/* A fault of C code, told apart from those of the guest. Inside libc it is its caller's. */
static void explain_own_fault(int sig, const siginfo_t *info, const ucontext_t *uc)
{
    uint64_t pc = this_cpu ? this_cpu->pc : 0;
    const char *whose = plugin_at((const void *)uc->uc_mcontext.gregs[REG_RIP]);
    char bytes[3 * 15 + 1];
    print_bytes(bytes, sizeof(bytes), pc);
    if (!whose)
        whose = this_cpu && this_cpu->in_plugin ? "emu or of the plugin that it runs" : "emu";
    warn("internal error: version " EMU_VERSION ", signal %d (%s) at host pc 0x%llx, address %p, "
         "last guest pc in C 0x%llx (bytes%s): this is a fault of %s, not of the program",
         sig, strsignal(sig), (unsigned long long)uc->uc_mcontext.gregs[REG_RIP], info->si_addr,
         (unsigned long long)pc, bytes, whose);
}

_Noreturn static void report_own_fault(int sig, const siginfo_t *info, const ucontext_t *uc)
{
    if (!plugin_explain_fault((const void *)uc->uc_mcontext.gregs[REG_RIP]))
        explain_own_fault(sig, info, uc);
    struct action fatal = {0};
    uint64_t only = ~BIT(sig);
    set_host_action(sig, &fatal);
    syscall(SYS_kill, getpid(), sig);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &only, NULL, sizeof(only));
    _exit(128 + sig);
}

/* si_addr of these is the instruction: the guest's, not the copy's. */
static void fix_address(siginfo_t *info, uint64_t pc)
{
    if (info->si_signo == SIGFPE || info->si_signo == SIGILL || info->si_signo == SIGTRAP)
        info->si_addr = (void *)pc;
}

/* Lets the guest's instruction at the interrupted pc end, which plugins have seen; then the block
 * that it is in is left, as for a signal, but there is none: it has written to its own page. */
static void leave_block_soon(struct cpu *cpu, ucontext_t *uc)
{
    static const siginfo_t nothing = {0};
    if (!cpu->signals->held) {
        hold_signal(cpu, &nothing, uc);
        cpu->signals->told = true;
        cpu->steps = INT_MAX; /* whatever the flags are */
    }
    uc->uc_mcontext.gregs[REG_EFL] |= FLAG_TF;
}

/* The value of the signal that signal_evict() sends. */
static const char eviction;

static bool is_eviction(const siginfo_t *info)
{
    return info->si_signo == SIGTRAP && info->si_code == SI_QUEUE &&
           info->si_value.sival_ptr == &eviction;
}

void signal_evict(const struct cpu *cpu)
{
    siginfo_t info = {.si_signo = SIGTRAP, .si_code = SI_QUEUE};
    info.si_value.sival_ptr = (void *)(uintptr_t)&eviction;
    syscall(SYS_rt_tgsigqueueinfo, getpid(), cpu->tid, SIGTRAP, &info);
}

/* The block is left as for a signal, but there is none. What plugins count before the instruction
 * must not be done twice: then it has to end first, and the page to come. */
static void handle_eviction(struct cpu *cpu, ucontext_t *uc)
{
    static const siginfo_t nothing = {0};
    if (!jit_in_cache((uint64_t)uc->uc_mcontext.gregs[REG_RIP]) || cpu->signals->held)
        return;
    hold_signal(cpu, &nothing, uc);
    cpu->signals->told = true;
    cpu->steps = INT_MAX; /* whatever the flags are */
    interrupt_cache(cpu, &nothing, uc);
}

/* The value of the signal of the timer below. */
static const char tick;

static bool is_tick(const siginfo_t *info)
{
    return info->si_signo == SIGTRAP && info->si_code == SI_TIMER &&
           info->si_value.sival_ptr == &tick;
}

/* Time in user mode grows in ticks that interrupt user mode: this timer ends no system call
 * (kernel/time/posix-cpu-timers.c; the clock's number is in linux/posix-timers.h). The program's
 * own timers get other numbers by it. */
void signal_start_ticks(unsigned ms)
{
    const int own_user_time = (int)(~0u << 3 | 4 | 1);
    struct { /* as struct sigevent, which libraries name differently */
        const void *value;
        int signo, notify, tid, unused[11];
    } event = {&tick, SIGTRAP, SIGEV_THREAD_ID, (int)syscall(SYS_gettid), {0}};
    const struct timespec span = {.tv_nsec = ms * 1000000l};
    const struct itimerspec every = {span, span};
    int timer;
    if (syscall(SYS_timer_create, own_user_time, &event, &timer) == 0)
        syscall(SYS_timer_settime, timer, 0, &every, NULL);
}

/* The thread leaves the cache at the end of a block, as always. */
static void handle_tick(uint64_t pc)
{
    if (plugin_ops_tick() && jit_in_cache(pc))
        tb_try_cut();
}

/* A write to a page that smc.c protects. In the cache the block that writes may be one that goes.
 */
static bool handle_code_write(struct cpu *cpu, const siginfo_t *info, ucontext_t *uc)
{
    greg_t *reg = uc->uc_mcontext.gregs;
    struct host_state host = get_state(uc);
    uint64_t address = (uintptr_t)info->si_addr;
    if (info->si_signo != SIGSEGV || info->si_code != SEGV_ACCERR || !(reg[REG_ERR] & 2))
        return false;
    bool in_cache = jit_in_cache(host.pc);
    tb_lock();
    bool own_code = in_cache && jit_runs_page(host.pc, address);
    bool done = smc_write_fault(address, own_code);
    tb_unlock();
    if (done && own_code)
        leave_block_soon(cpu, uc);
    return done;
}

/* A fault of the instruction at the interrupted pc. */
static void handle_fault(struct cpu *cpu, int sig, siginfo_t *info, ucontext_t *uc)
{
    struct host_state host = get_state(uc);
    if (handle_code_write(cpu, info, uc))
        return;
    if (is_between(host.pc, (const char *)(uintptr_t)guest_copy, guest_copy_end)) {
        uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)guest_copy_fault;
        return;
    }
    if (!jit_in_cache(host.pc))
        report_own_fault(sig, info, uc);
    enum stop stop = jit_fault(cpu, &host, (uintptr_t)info->si_addr);
    if (stop == STOP_PLUGIN)
        report_own_fault(sig, info, uc);
    set_state(uc, &host);
    if (host.write && uc->uc_mcontext.gregs[REG_TRAPNO] == TRAP_PF)
        uc->uc_mcontext.gregs[REG_ERR] |= WRITE_ERROR;
    if (stop != STOP_GUEST)
        return;
    fix_address(info, host.pc);
    deliver_or_tell_fault(cpu, info, uc);
}

/* The processor sets the resume flag where an instruction is to run again: not behind int n. */
static bool is_trap(int vector)
{
    return vector == 1 || vector == 3 || vector == 4; /* #DB by int1, #BP, #OF by int 4 */
}

/* At jit_raise: what signal_deliver() came for. */
static void handle_request(struct cpu *cpu, ucontext_t *uc)
{
    struct signal_state *state = cpu->signals;
    greg_t *reg = uc->uc_mcontext.gregs;
    enum request request = state->request;
    state->request = REQUEST_NONE;
    if (request == REQUEST_RETURN) {
        release_held(cpu);
        leave_handler(cpu, uc);
    } else if (request == REQUEST_FAULT) {
        reg[REG_TRAPNO] = state->trap;
        reg[REG_ERR] = state->error;
        reg[REG_CR2] = (greg_t)(uintptr_t)state->fault.si_addr;
        if (!is_trap(state->trap))
            reg[REG_EFL] |= FLAG_RF;
        deliver_fault(cpu, &state->fault, uc);
    } else {
        deliver(cpu, &state->info, uc);
    }
}

/* Makes the frame from which the kernel's rt_sigreturn goes on with the guest; returns its stack
 * pointer. */
void *signal_change_state(struct cpu *cpu)
{
    struct signal_state *state = cpu->signals;
    struct host_state guest = {.pc = cpu->pc};
    uint64_t *frame = state->host_stack;
    ucontext_t *uc = (ucontext_t *)(void *)(frame + 1); /* behind the restorer's address */
    memcpy(guest.reg, cpu->reg, sizeof(guest.reg));
    memset(uc, 0, sizeof(struct frame));
    uc->uc_flags = FLAG_SIGCONTEXT_SS | FLAG_STRICT_RESTORE;
    if (vector_state_size(cpu->vector_frame) > 512)
        uc->uc_flags |= FLAG_FP_XSTATE;
    uc->uc_stack = host_alt_stack(state);
    uc->uc_mcontext.fpregs = (fpregset_t)(void *)cpu->vector_frame;
    uc->uc_mcontext.gregs[REG_CSGSFS] = USER_CS_AND_SS;
    uc->uc_mcontext.gregs[REG_EFL] = (greg_t)cpu->flags;
    *context_mask(uc) = state->raised;
    set_state(uc, &guest);
    handle_request(cpu, uc);
    return uc;
}

/* A thread that has begun to use tiles gets larger frames. */
static void learn_vector_state(struct cpu *cpu, const uint8_t *fp)
{
    uint32_t size = vector_state_size(fp);
    if (size == vector_state_size(cpu->vector_frame) || size > RAISED_FRAME - VECTOR_OFFSET)
        return;
    memcpy(cpu->vector_frame + 464, fp + 464, 48);
    memcpy(cpu->vector_frame + size - 4, fp + size - 4, 4);
}

void signal_handle(int sig, siginfo_t *info, ucontext_t *uc)
{
    struct cpu *cpu = this_cpu;
    uint64_t pc = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
    int saved_errno = errno;
    learn_vector_state(cpu, (const uint8_t *)uc->uc_mcontext.fpregs);
    if (is_between(pc, jit_enter_check, jit_enter_jump + 1)) {
        finish_entry(cpu, uc);
        pc = cpu->back;
    }
    if (sig == cpu->signals->showing)
        cpu->signals->showing = 0;
    else if (is_eviction(info))
        handle_eviction(cpu, uc);
    else if (is_tick(info))
        handle_tick(pc);
    else if (sig == SIGTRAP && handle_step(cpu, info, uc))
        ;
    else if (SYNC_MASK & BIT(sig) && info->si_code > 0)
        handle_fault(cpu, sig, info, uc);
    else if (is_sent_to_blocked(cpu, info, uc) && !must_leave_first(cpu, info))
        block_sent_signal(cpu, info, uc);
    else if (jit_in_cache(pc))
        interrupt_cache(cpu, info, uc);
    else
        interrupt_host(cpu, info, uc);
    errno = saved_errno;
}

/* ---- C side
 * ------------------------------------------------------------------------------------------- */

/* False: nobody notices the signal. *to is where it leads: what ends the process, nowhere. */
static bool finds_target(const struct cpu *cpu, int sig, uint64_t *to)
{
    pthread_mutex_lock(&lock);
    uint64_t handler = actions[sig].handler;
    pthread_mutex_unlock(&lock);
    *to = handler > 1 ? handler : cpu->pc;
    return handler > 1 || (handler == 0 && is_fatal_by_default(sig));
}

/* Once of each signal, where the guest stands before it. A callback may set the pc and not come
 * back: then a fault is as good as repaired, and a signal from outside waits for the guest there.
 */
static void tell_plugins(struct cpu *cpu)
{
    struct signal_state *state = cpu->signals;
    enum request request = state->request;
    uint64_t to;
    if (request == REQUEST_RETURN || state->told || !plugin_wants_discon())
        return;
    state->told = true;
    if (request == REQUEST_FAULT)
        qemu_plugin_vcpu_exception(cpu, cpu->pc);
    else if (finds_target(cpu, state->info.si_signo, &to))
        qemu_plugin_vcpu_interrupt(cpu, cpu->pc, to);
}

void signal_cancel_fault(struct cpu *cpu)
{
    struct signal_state *state = cpu->signals;
    if (state->request == REQUEST_FAULT)
        state->told = false;
    if (state->request != REQUEST_RETURN)
        state->request = REQUEST_NONE;
    cpu->pending = state->held || state->request;
}

void signal_be_traced(void)
{
    is_traced = true;
    jit_stop_faults();
}

/* A fault that was found in C stops a traced process by a signal of the host's, as dying of it
 * would anyway. False: the tracer has kept it from the guest. */
static bool pass_tracer(struct cpu *cpu)
{
    struct signal_state *state = cpu->signals;
    int sig = state->fault.si_signo;
    if (!is_traced || !state->unseen || actions[sig].handler <= 1 || state->sent_mask & BIT(sig))
        return true;
    state->unseen = false;
    state->showing = sig;
    syscall(SYS_rt_tgsigqueueinfo, getpid(), cpu->tid, sig, &state->fault);
    bool kept = state->showing;
    state->showing = 0;
    return !kept;
}

/* Nothing may come between here and jit_raise. */
void signal_deliver(struct cpu *cpu)
{
    if (cpu->signals->request == REQUEST_FAULT && !pass_tracer(cpu)) {
        signal_cancel_fault(cpu);
        cpu->jump = jit_lookup_pad();
        return;
    }
    tell_plugins(cpu);
    cpu->signals->raised = signal_block(cpu);
    cpu->pending = 0;
    cpu->jump = (uintptr_t)jit_raise;
}

bool signal_can_wait(const struct cpu *cpu)
{
    return cpu->signals->request == REQUEST_NONE;
}

void signal_raise(struct cpu *cpu, int sig, int code, uint64_t addr, int trap, int error)
{
    struct signal_state *state = cpu->signals;
    state->fault = (siginfo_t){.si_signo = sig, .si_code = code};
    state->fault.si_addr = (void *)addr;
    state->trap = trap;
    state->error = error;
    state->request = REQUEST_FAULT;
    state->unseen = true;
    state->told = true; /* by trap_x86_64.c, with the pc of the instruction */
    cpu->pending = 1;
}

int64_t signal_sigaction(struct cpu *cpu, int sig, uint64_t act, uint64_t old, size_t size)
{
    (void)cpu;
    struct action new, previous;
    if (size != sizeof(new.mask) || sig < 1 || sig > SIGNALS ||
        (act && (sig == SIGKILL || sig == SIGSTOP)))
        return -EINVAL;
    if (act && !guest_copy(&new, (const void *)act, sizeof(new)))
        return -EFAULT;
    pthread_mutex_lock(&lock);
    previous = actions[sig];
    if (act) {
        new.mask &= ~(BIT(SIGKILL) | BIT(SIGSTOP));
        actions[sig] = new;
        mirror_action(sig);
    }
    pthread_mutex_unlock(&lock);
    if (old && !guest_copy((void *)old, &previous, sizeof(previous)))
        return -EFAULT;
    return 0;
}

int64_t signal_sigprocmask(struct cpu *cpu, int how, uint64_t set, uint64_t old, size_t size)
{
    struct signal_state *state = cpu->signals;
    uint64_t bits = 0, mask, previous = current_mask(state);
    if (size != sizeof(bits))
        return -EINVAL;
    if (set && !guest_copy(&bits, (const void *)set, sizeof(bits)))
        return -EFAULT;
    bits &= ~(BIT(SIGKILL) | BIT(SIGSTOP));
    if (set) {
        if (how == SIG_BLOCK)
            mask = previous | bits;
        else if (how == SIG_UNBLOCK)
            mask = previous & ~bits;
        else if (how == SIG_SETMASK)
            mask = bits;
        else
            return -EINVAL;
        signal_set_mask(cpu, mask);
    }
    if (old && !guest_copy((void *)old, &previous, sizeof(previous)))
        return -EFAULT;
    return 0;
}

int64_t signal_sigaltstack(struct cpu *cpu, uint64_t ss, uint64_t old)
{
    struct signal_state *state = cpu->signals;
    uint64_t sp = guest_sp(cpu);
    stack_t new, previous = state->alt;
    previous.ss_flags =
        (int)((unsigned)previous.ss_flags & KERNEL_SS_AUTODISARM) | alt_stack_flags(state, sp);
    if (ss && !guest_copy(&new, (const void *)ss, sizeof(new)))
        return -EFAULT;
    int64_t error = ss ? set_alt_stack(state, &new, sp) : 0;
    if (!error && old && !guest_copy((void *)old, &previous, sizeof(previous)))
        return -EFAULT;
    return error;
}

/* The handler's return popped the restorer's address: the frame starts below. */
int64_t signal_sigreturn(struct cpu *cpu)
{
    struct signal_state *state = cpu->signals;
    state->frame = guest_sp(cpu) - offsetof(struct frame, uc);
    state->request = REQUEST_RETURN;
    cpu->pending = 1;
    return 0;
}

uint64_t signal_block(struct cpu *cpu)
{
    struct signal_state *state = cpu->signals;
    state->closed = true;
    uint64_t mask = current_mask(state);
    set_host_mask(state, ~0ull);
    return mask;
}

/* Everything is blocked first: a signal that came in between would bring the old mask back. One
 * that waits and is blocked now goes back to the kernel. */
void signal_set_mask(struct cpu *cpu, uint64_t mask)
{
    struct signal_state *state = cpu->signals;
    state->closed = true;
    set_host_mask(state, ~0ull);
    if (state->held && mask & BIT(state->info.si_signo))
        release_held(cpu);
    state->sync_mask = mask & SYNC_MASK;
    state->sent_mask &= mask;
    state->closed = false;
    if (state->held)
        state->mask = mask;
    set_host_mask(state, state->held ? ~0ull : mask);
}

/* What waits was sent to the parent, which still has it. */
void signal_forget_held(struct cpu *cpu)
{
    cpu->signals->held = cpu->signals->told = false;
    cpu->pending = 0;
}

void signal_thread_exit(struct cpu *cpu)
{
    stack_t none = {.ss_flags = SS_DISABLE};
    sigaltstack(&none, NULL);
    munmap(cpu->signals->host_stack, HOST_STACK);
    free(cpu->signals);
    cpu->signals = NULL;
}

struct signal_snapshot {
    struct action actions[SIGNALS + 1];
    struct signal_state state;
};

struct signal_snapshot *signal_save(struct cpu *cpu)
{
    struct signal_snapshot *snapshot = malloc(sizeof(*snapshot));
    if (!snapshot)
        die("out of memory for a child process");
    memcpy(snapshot->actions, actions, sizeof(actions));
    snapshot->state = *cpu->signals;
    return snapshot;
}

void signal_restore(struct cpu *cpu, struct signal_snapshot *snapshot)
{
    memcpy(actions, snapshot->actions, sizeof(actions));
    *cpu->signals = snapshot->state;
    free(snapshot);
}

/* What the guest ignores, the next program does; of the rest the kernel makes defaults. */
static void ignore_for_exec(void)
{
    static const struct action ignore = {.handler = 1};
    for (int sig = 1; sig <= SIGNALS; sig++)
        if (SYNC_MASK & BIT(sig) && actions[sig].handler == 1)
            set_host_action(sig, &ignore);
}

/* A signal that comes before the call is made must not get lost with this program; one that comes
 * later is the kernel's to keep for the next. */
int64_t signal_exec(struct cpu *cpu, long nr, const uint64_t *arg)
{
    uint64_t mask = signal_block(cpu);
    int64_t ret = EXEC_CANCELLED;
    if (!cpu->pending) {
        ignore_for_exec();
        ret = jit_exec(nr, arg, &mask);
        for (int sig = 1; sig <= SIGNALS; sig++)
            if (SYNC_MASK & BIT(sig))
                mirror_action(sig);
    }
    signal_set_mask(cpu, mask);
    return ret;
}
