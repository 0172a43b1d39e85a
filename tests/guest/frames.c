/* What the kernel writes for a handler and takes back from it: flags, vector state header, last
 * fault, masks, alternate stacks in every mode, frames that do not fit; and synchronous signals
 * that are sent rather than raised. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/ucontext.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif
#define STACK_SIZE 65536

static char *alternate;
static sigjmp_buf env;

static uint32_t word_at(const uint8_t *p)
{
    uint32_t word;

    memcpy(&word, p, sizeof word);
    return word;
}

/* The processor leaves the arithmetic flags as they are: not ours to compare. */
static void show_frame(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    const greg_t *reg = uc->uc_mcontext.gregs;
    const uint8_t *fp = (const uint8_t *)uc->uc_mcontext.fpregs;
    uint32_t size = word_at(fp + 480);

    printf("signal %d code %d: flags %lx link %p segments %llx eflags %llx mask %lx old %llx\n",
           sig, info->si_code, uc->uc_flags, (void *)uc->uc_link, reg[REG_CSGSFS],
           reg[REG_EFL] & ~0x8d5ll, uc->uc_sigmask.__val[0], reg[REG_OLDMASK]);
    printf("  trap %lld error %lld address %d, stack flags %x size %zx\n", reg[REG_TRAPNO],
           reg[REG_ERR], (int)reg[REG_CR2], uc->uc_stack.ss_flags, uc->uc_stack.ss_size);
    printf("  vector state %x %x %u %u %x at %ld %ld\n", word_at(fp + 464), word_at(fp + 472),
           word_at(fp + 468), size, word_at(fp + size), (long)((uintptr_t)fp % 64),
           (long)(fp - (const uint8_t *)uc));
}

static void install(int sig, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction act = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};

    sigaction(sig, &act, NULL);
}

static void set_stack(size_t size, unsigned flags)
{
    stack_t stack = {.ss_sp = alternate, .ss_size = size, .ss_flags = (int)flags}, now;

    int result = sigaltstack(&stack, NULL);
    printf("sigaltstack %zu %x: %d %d", size, flags, result, result ? errno : 0);
    sigaltstack(NULL, &now);
    printf(", now %x %zx\n", now.ss_flags, now.ss_size);
}

static void leave(int sig, siginfo_t *info, void *context)
{
    (void)context;
    printf("left by signal %d code %d\n", sig, info->si_code);
    siglongjmp(env, 1);
}

static void skip_load(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;

    show_frame(sig, info, context);
    uc->uc_mcontext.gregs[REG_RIP] += 2;
}

/* The last fault shows in the frames of the signals after it. */
static void show_faults(void)
{
    install(SIGUSR1, show_frame, 0);
    install(SIGTRAP, show_frame, 0);
    install(SIGILL, skip_load, 0);
    install(SIGSEGV, skip_load, 0);
    raise(SIGUSR1);
    __asm__ volatile("mov (%0), %%eax" ::"a"(8L));
    raise(SIGUSR1);
    __asm__ volatile("int3");
    __asm__ volatile(".byte 0xf1");
    __asm__ volatile("ud2");
    raise(SIGSEGV);
    __asm__ volatile("mov (%0), %%eax" ::"a"(0x8000000000000000));
    raise(SIGUSR1);
}

/* The handler puts itself on the stack that SS_AUTODISARM has taken away meanwhile. */
static void rearm(int sig, siginfo_t *info, void *context)
{
    stack_t now;

    (void)sig, (void)info, (void)context;
    sigaltstack(NULL, &now);
    printf("disarmed %x\n", now.ss_flags);
    set_stack(STACK_SIZE / 2, 0);
}

static void show_stacks(void)
{
    static const unsigned modes[] = {0, SS_ONSTACK, SS_AUTODISARM, SS_DISABLE, 7};

    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        set_stack(STACK_SIZE, modes[i]);
        install(SIGUSR1, show_frame, SA_ONSTACK);
        raise(SIGUSR1);
    }
    set_stack(2047, 0);
    set_stack(STACK_SIZE, SS_AUTODISARM);
    install(SIGUSR1, rearm, SA_ONSTACK);
    raise(SIGUSR1);
    set_stack(STACK_SIZE, 0);
}

static void recurse(int sig, siginfo_t *info, void *context)
{
    (void)info, (void)context;
    raise(sig);
}

/* A frame that does not fit is a SIGSEGV, for which there may be a handler where there is room. */
static void overflow_stacks(void)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        close(2); /* emu reports the end there */
        install(SIGSEGV, leave, 0);
        install(SIGUSR1, recurse, SA_ONSTACK | SA_NODEFER);
        raise(SIGUSR1);
    }
    waitpid(pid, &status, 0);
    printf("alternate stack overflowed: %x\n", status & ~0x80);
    if (!sigsetjmp(env, 1)) {
        install(SIGSEGV, leave, SA_ONSTACK);
        char *low = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        install(SIGUSR2, show_frame, 0);
        __asm__ volatile(
            "mov %%rsp, %%rbx\n\tmov %0, %%rsp\n\tsyscall\n\tmov %%rbx, %%rsp" ::"r"(low + 1000),
            "a"(62), "D"(getpid()), "S"(SIGUSR2)
            : "rbx", "rcx", "r11", "memory");
        printf("not reached\n");
    }
}

static void note(int sig, siginfo_t *info, void *context)
{
    (void)context;
    printf("signal %d code %d value %d\n", sig, info->si_code,
           info->si_code == SI_QUEUE ? info->si_value.sival_int : 0);
}

/* Blocked, they wait like any other. */
static void send_synchronous(int sig)
{
    struct timespec none = {0, 0};
    struct signalfd_siginfo read_info;
    siginfo_t info;
    sigset_t set, pending;

    install(sig, note, 0);
    sigemptyset(&set);
    sigaddset(&set, sig);
    raise(sig);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(sig);
    sigpending(&pending);
    printf("blocked %d, pending %d\n", sig, sigismember(&pending, sig));
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    sigprocmask(SIG_BLOCK, &set, NULL);
    sigqueue(getpid(), sig, (union sigval){.sival_int = 5});
    printf("waited for %d", sigtimedwait(&set, &info, &none));
    printf(" code %d value %d\n", info.si_code, info.si_value.sival_int);
    kill(getpid(), sig);
    int fd = signalfd(-1, &set, SFD_NONBLOCK);
    if (read(fd, &read_info, sizeof read_info) == sizeof read_info)
        printf("read %d code %d\n", read_info.ssi_signo, read_info.ssi_code);
    close(fd);
    printf("then %d\n", sigtimedwait(&set, &info, &none));
    kill(getpid(), sig);
    sigset_t open;
    sigemptyset(&open);
    printf("sigsuspend %d\n", sigsuspend(&open));
    kill(getpid(), sig);
    printf("ppoll %d\n", ppoll(NULL, 0, &(struct timespec){5, 0}, &open));
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    signal(sig, SIG_IGN);
    raise(sig);
    signal(sig, SIG_DFL);
}

static void *show_in_thread(void *arg)
{
    install(SIGUSR1, show_frame, 0);
    __asm__ volatile("ud2");
    raise(SIGUSR1);
    return arg;
}

int main(void)
{
    pthread_t t;

    alternate = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    show_faults();
    show_stacks();
    overflow_stacks();
    int sigs[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    for (size_t i = 0; i < sizeof sigs / sizeof *sigs; i++)
        send_synchronous(sigs[i]);
    install(SIGILL, skip_load, 0);
    pthread_create(&t, NULL, show_in_thread, NULL);
    pthread_join(t, NULL);
    return 0;
}
