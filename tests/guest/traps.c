/* Faults of every kind and signals from outside. Each handler prints what it finds in its frame:
 * where the program stood, and some registers.
 *   traps           faults, then signals
 *   traps skip      a ud2 without a handler: fatal, unless somebody steps over it */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#define FLAGS 0xcd5ull /* CF PF AF ZF SF DF OF */

static uint64_t resume; /* where a fault goes on */
static volatile int signals;
static char *beyond; /* a page behind the end of its file */

static void show(const char *what, uint64_t pc, uint64_t to, const ucontext_t *uc)
{
    char line[160];
    const greg_t *reg = uc->uc_mcontext.gregs;
    const uint32_t *xmm5 = uc->uc_mcontext.fpregs->_xmm[5].element;
    int n = snprintf(line, sizeof line, "%s %llx to %llx rax %llx xmm5 %x flags %llx\n", what,
                     (unsigned long long)pc, (unsigned long long)to,
                     (unsigned long long)reg[REG_RAX], xmm5[0], reg[REG_EFL] & FLAGS);

    if (write(1, line, (size_t)n) != n)
        _exit(1);
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    uint64_t pc = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];

    if (sig == SIGTRAP && info->si_code == SI_KERNEL) /* the pc is behind int3 */
        pc--;
    show("exception", pc, pc, uc);
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)resume;
    uc->uc_mcontext.gregs[REG_EFL] &= ~0x400;
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;

    (void)sig, (void)info;
    show("interrupt", (uint64_t)uc->uc_mcontext.gregs[REG_RIP], (uintptr_t)on_signal, uc);
    signals++;
}

#define FAULT(number, text)                                                                        \
    __asm__ volatile("lea 1f(%%rip), %%rcx\n\tmov %%rcx, %0\n\tmov $" #number                      \
                     ", %%eax\n\tmovd %%eax, %%xmm5\n\tcmp $3, %%eax\n\t" text "\n1:"              \
                     : "=m"(resume)                                                                \
                     : "S"(beyond), "D"(8ull)                                                      \
                     : "rax", "rcx", "rdx", "rbx", "xmm5", "xmm6", "cc", "memory")

static void fault_in_every_way(void)
{
    FAULT(1, "mov 8, %%rdx");
    FAULT(2, "movb $1, 8");
    FAULT(3, "addl $1, 8");
    FAULT(4, "mov $1, %%edx\n\tror $1, %%rdx\n\tmov (%%rdx), %%rdx");
    FAULT(5, "jmp *%%rdi");
    FAULT(6, "xor %%edx, %%edx\n\tdiv %%edx");
    FAULT(7, "ud2");
    FAULT(8, "int3");
    FAULT(9, "int $0x20");
    FAULT(10, "hlt");
    FAULT(11, "lea 1(%%rsp), %%rdx\n\tmovaps (%%rdx), %%xmm6");
    FAULT(12, "mov (%%rsi), %%rdx");
    FAULT(13, "std\n\tmovsb");
    FAULT(14, "push %%rax\n\tpush $0x1d80\n\tldmxcsr (%%rsp)\n\tadd $16, %%rsp\n\t"
              "xorps %%xmm6, %%xmm6\n\tdivss %%xmm6, %%xmm5");
    FAULT(15, "mov $3, %%ecx\n\tlea -1(%%rsi), %%rsi\n\trep movsb");
}

/* What runs here changes flags and registers all the time. */
static void be_interrupted(void)
{
    static const struct itimerval soon = {{0}, {0, 300}};
    sigset_t alarm, none;
    uint64_t x = 1;

    for (int n = 1; n <= 30; n++) {
        setitimer(ITIMER_REAL, &soon, NULL);
        while (signals < n)
            for (int i = 0; i < 100; i++)
                x = x * 6364136223846793005 + (x >> 60 > 7 ? 1442695040888963407 : (uint64_t)i);
    }
    raise(SIGUSR1);
    kill(getpid(), SIGUSR2);
    sigemptyset(&none);
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    sigprocmask(SIG_BLOCK, &alarm, NULL);
    setitimer(ITIMER_REAL, &soon, NULL);
    sigsuspend(&none);
}

int main(int argc, char **argv)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    static const int others[] = {SIGALRM, SIGUSR1, SIGUSR2};
    struct sigaction act = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};

    if (argc > 1 && !strcmp(argv[1], "skip")) {
        __asm__ volatile("ud2");
        return 5;
    }
    sigfillset(&act.sa_mask);
    for (int i = 0; i < 5; i++)
        sigaction(faults[i], &act, NULL);
    act.sa_sigaction = on_signal;
    for (int i = 0; i < 3; i++)
        sigaction(others[i], &act, NULL);
    int fd = open("/dev/shm/emu-traps", O_RDWR | O_CREAT | O_TRUNC, 0600);
    unlink("/dev/shm/emu-traps");
    beyond = (char *)mmap(NULL, 8192, PROT_READ, MAP_PRIVATE, fd, 0) + 4096;
    if (ftruncate(fd, 4096))
        return 1;
    fault_in_every_way();
    be_interrupted();
    return 0;
}
