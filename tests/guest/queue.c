/* Signals as messages: values, senders, queues, synchronous waiting, masks of calls, timers,
 * signalfd, flags of sigaction. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile int depth, deepest, values, seen;

static void on_value(int sig, siginfo_t *info, void *context)
{
    (void)context;
    values = values * 10 + info->si_value.sival_int;
    printf("signal %d code %d value %d own %d\n", sig - SIGRTMIN, info->si_code,
           info->si_value.sival_int, info->si_pid == getpid());
}

static void on_nested(int sig)
{
    if (++depth > deepest)
        deepest = depth;
    if (depth < 4)
        raise(sig);
    depth--;
}

static void on_plain(int sig)
{
    seen = sig;
}

static void queue_values(void)
{
    struct sigaction act = {.sa_sigaction = on_value, .sa_flags = SA_SIGINFO};
    sigset_t set;

    sigaction(SIGRTMIN + 1, &act, NULL);
    sigaction(SIGRTMIN + 2, &act, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    sigaddset(&set, SIGRTMIN + 2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    for (int i = 1; i <= 3; i++) {
        sigqueue(getpid(), SIGRTMIN + 2, (union sigval){.sival_int = i + 4});
        sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i});
    }
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    printf("values %d\n", values);
}

static void wait_for_signals(void)
{
    struct timespec none = {0, 0};
    siginfo_t info;
    sigset_t set, empty;

    sigemptyset(&empty);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN + 3);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGUSR1);
    printf("sigwaitinfo %d", sigwaitinfo(&set, &info) == SIGUSR1);
    printf(" code %d\n", info.si_code);
    printf("sigtimedwait %d %m\n", sigtimedwait(&set, &info, &none));
    int fd = signalfd(-1, &set, SFD_NONBLOCK);
    struct signalfd_siginfo si;
    sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = 9});
    if (read(fd, &si, sizeof si) == sizeof si)
        printf("signalfd value %d\n", si.ssi_int);
    struct sigaction act = {.sa_handler = on_plain};
    sigaction(SIGUSR1, &act, NULL);
    raise(SIGUSR1);
    printf("sigsuspend %d %m\n", sigsuspend(&empty));
    printf("seen %d\n", seen);
    raise(SIGUSR1);
    struct timespec long_time = {10, 0};
    printf("ppoll %d %m\n", ppoll(NULL, 0, &long_time, &empty));
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void action_flags(void)
{
    struct sigaction act = {.sa_handler = on_nested, .sa_flags = SA_NODEFER}, old;

    deepest = 0;
    sigaction(SIGUSR2, &act, NULL);
    raise(SIGUSR2);
    printf("SA_NODEFER: deepest %d\n", deepest);
    sigaction(SIGUSR2, NULL, &old);
    printf("kept: %d %x\n", old.sa_handler == on_nested, old.sa_flags & SA_NODEFER);
    printf("SIGKILL: %d %m\n", sigaction(SIGKILL, &act, NULL));
    printf("no such: %d %m\n", sigaction(100, &act, NULL));
    signal(SIGUSR2, SIG_IGN);
    raise(SIGUSR2);
    pid_t pid = fork();
    if (!pid)
        execl("/bin/sh", "sh", "-c", "kill -USR2 $$; exit 3", (char *)NULL);
    int status;
    waitpid(pid, &status, 0);
    printf("ignored over exec: %d\n", WEXITSTATUS(status));
    signal(SIGCHLD, on_plain);
    pid = fork();
    if (!pid)
        _exit(0);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    printf("SIGCHLD %d\n", seen == SIGCHLD);
}

static void timers(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1};
    struct itimerspec spec = {{0, 0}, {0, 100000000}};
    struct timespec rest = {5, 0};
    timer_t timer;

    event.sigev_value.sival_int = 6;
    timer_create(CLOCK_MONOTONIC, &event, &timer);
    timer_settime(timer, 0, &spec, NULL);
    printf("nanosleep %d %m\n", nanosleep(&rest, &rest));
    timer_delete(timer);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    queue_values();
    wait_for_signals();
    action_flags();
    timers();
    return 0;
}
