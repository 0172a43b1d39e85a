/* Synchronous and asynchronous signals: what handlers are told, the state they see and change,
 * alternate stacks, masks, nesting, and leaving by siglongjmp. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

static sigjmp_buf env;
static char *page;
static char alternate[65536];

static void install(int sig, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction act = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};

    sigemptyset(&act.sa_mask);
    if (sigaction(sig, &act, NULL))
        perror("sigaction");
}

static void report_and_jump(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;

    printf("signal %d code %d errno %d", sig, info->si_code, info->si_errno);
    if (sig == SIGSEGV)
        printf(" address %+ld trap %lld error %lld",
               (char *)info->si_addr - (info->si_code == SI_KERNEL ? NULL : page),
               uc->uc_mcontext.gregs[REG_TRAPNO], uc->uc_mcontext.gregs[REG_ERR]);
    else
        printf(" at pc: %d", info->si_addr == (void *)uc->uc_mcontext.gregs[REG_RIP]);
    printf(" r12 %llx\n", uc->uc_mcontext.gregs[REG_R12]);
    siglongjmp(env, 1);
}

#define FAULT(text, code)                                                                          \
    do {                                                                                           \
        if (!sigsetjmp(env, 1)) {                                                                  \
            printf("%s: ", text);                                                                  \
            __asm__ volatile("mov $0xabcd, %%r12d\n\t" code ::"D"(page)                            \
                             : "rax", "rcx", "rdx", "r12", "cc", "memory");                        \
            printf("no fault\n");                                                                  \
        }                                                                                          \
    } while (0)

static void raise_faults(void)
{
    FAULT("read", "mov 16(%%rdi), %%eax");
    FAULT("write", "movb $1, 24(%%rdi)");
    FAULT("push", "lea 64(%%rdi), %%rax\n\txchg %%rsp, %%rax\n\tpush $1\n\tmov %%rax, %%rsp");
    FAULT("string", "mov $9, %%ecx\n\txor %%eax, %%eax\n\trep stosb");
    FAULT("non-canonical", "movabs $0x8000000000000000, %%rax\n\tmov (%%rax), %%eax");
    FAULT("jump", "jmp *%%rdi");
    FAULT("call", "call *%%rdi");
    FAULT("return", "push %%rdi\n\tret");
    FAULT("divide by zero", "xor %%ecx, %%ecx\n\tmov $1, %%eax\n\tcltd\n\tidiv %%ecx");
    FAULT("divide overflow", "mov $2, %%edx\n\tmov $1, %%ecx\n\tdiv %%ecx");
    FAULT("ud2", "ud2");
    FAULT("undefined", ".byte 0x0f, 0x04");
    FAULT("lock on register", ".byte 0xf0, 0x01, 0xc0");
    FAULT("hlt", "hlt");
    FAULT("in", "in $0x80, %%al");
    FAULT("int3", "int3");
    FAULT("int 3", ".byte 0xcd, 3");
    FAULT("int 0x55", "int $0x55");
    FAULT("aligned", "movaps 1(%%rsp), %%xmm0");
}

/* Fills the faulting load's register and steps over it. */
static void repair(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;

    (void)sig, (void)info;
    uc->uc_mcontext.gregs[REG_RAX] = 0x1234;
    uc->uc_mcontext.gregs[REG_R9] += 5;
    uc->uc_mcontext.gregs[REG_EFL] |= 1;
    uc->uc_mcontext.gregs[REG_RIP] += 3;
}

static void change_context(void)
{
    uint64_t rax, r9, flags;

    install(SIGSEGV, repair, 0);
    __asm__ volatile("xor %%eax, %%eax\n\tmov $10, %%r9d\n\tcmp %%eax, %%eax\n\t"
                     ".byte 0x48, 0x8b, 0x07\n\tmov %%rax, %0\n\tmov %%r9, %1\n\tpushfq\n\tpop %2"
                     : "=&r"(rax), "=&r"(r9), "=&r"(flags)
                     : "D"(page)
                     : "rax", "r9", "cc");
    printf("repaired %llx %llu %llx\n", (unsigned long long)rax, (unsigned long long)r9,
           (unsigned long long)(flags & 0x41));
}

/* Makes the page readable, so that the instruction runs again. */
static void unprotect(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)info, (void)context;
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
}

static void restart(void)
{
    install(SIGSEGV, unprotect, 0);
    for (int i = 0; i < 3; i++) {
        mprotect(page, 4096, PROT_NONE);
        ((volatile char *)page)[100 + i]++;
    }
    printf("restarted %d %d %d\n", page[100], page[101], page[102]);
}

static volatile sig_atomic_t hits;

static void on_alternate(int sig, siginfo_t *info, void *context)
{
    char here;
    stack_t now;

    (void)info, (void)context;
    sigaltstack(NULL, &now);
    printf("signal %d on alternate stack: %d %d\n", sig,
           &here > alternate && &here < alternate + sizeof alternate, now.ss_flags == SS_ONSTACK);
}

static void use_alternate(void)
{
    stack_t stack;

    install(SIGUSR1, on_alternate, SA_ONSTACK);
    raise(SIGUSR1);
    sigaltstack(NULL, &stack);
    printf("flags now %d\n", stack.ss_flags);
}

static void nested(int sig, siginfo_t *info, void *context)
{
    (void)info, (void)context;
    printf("enter %d\n", sig);
    if (sig == SIGUSR1)
        raise(SIGUSR2);
    sigset_t blocked;
    sigprocmask(SIG_BLOCK, NULL, &blocked);
    printf("leave %d, blocked %d %d\n", sig, sigismember(&blocked, SIGUSR1),
           sigismember(&blocked, SIGUSR2));
}

static void nest_and_block(void)
{
    sigset_t set;

    install(SIGUSR1, nested, 0);
    install(SIGUSR2, nested, 0);
    raise(SIGUSR1);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGUSR1);
    sigset_t pending;
    sigpending(&pending);
    printf("pending %d\n", sigismember(&pending, SIGUSR1));
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    install(SIGUSR1, nested, SA_RESETHAND);
    raise(SIGUSR1);
    struct sigaction old;
    sigaction(SIGUSR1, NULL, &old);
    printf("reset %d\n", old.sa_handler == SIG_DFL);
}

static void count(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)info, (void)context;
    hits++;
}

/* A loop of code without a single system call must still be interrupted. */
static void interrupt_loop(void)
{
    struct itimerval timer = {{0, 2000}, {0, 2000}}, off = {{0, 0}, {0, 0}};
    volatile uint64_t turns = 0;
    double x = 1;

    install(SIGALRM, count, SA_RESTART);
    setitimer(ITIMER_REAL, &timer, NULL);
    while (hits < 20) {
        turns++;
        x = x * 1.0000001 + 1e-9;
    }
    setitimer(ITIMER_REAL, &off, NULL);
    printf("interrupted %d\n", hits >= 20 && turns > 0 && x > 1);
}

static void interrupt_call(void)
{
    int fds[2];
    char c;
    struct itimerval timer = {{0, 50000}, {0, 5000}}, off = {{0, 0}, {0, 0}};

    install(SIGALRM, count, 0);
    if (pipe(fds))
        return;
    setitimer(ITIMER_REAL, &timer, NULL); /* again, in case the first comes before the read */
    long n = read(fds[0], &c, 1);
    int error = errno;
    setitimer(ITIMER_REAL, &off, NULL);
    errno = error;
    printf("read: %ld %m\n", n);
}

int main(void)
{
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};

    sigaltstack(&stack, NULL); /* some of the faults leave no stack to stand on */
    setvbuf(stdout, NULL, _IOLBF, 0);
    page = mmap(NULL, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    install(SIGSEGV, report_and_jump, SA_ONSTACK);
    install(SIGFPE, report_and_jump, SA_ONSTACK);
    install(SIGILL, report_and_jump, SA_ONSTACK);
    install(SIGTRAP, report_and_jump, SA_ONSTACK);
    raise_faults();
    change_context();
    restart();
    use_alternate();
    nest_and_block();
    interrupt_loop();
    interrupt_call();
    return 0;
}
