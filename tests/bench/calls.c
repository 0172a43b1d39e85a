/* calls.c: as many system calls or signals as the second argument says. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile long handled;

static void handler(int sig)
{
    (void)sig;
    handled++;
}

int main(int argc, char **argv)
{
    long n = argc > 2 ? atol(argv[2]) : 0;

    if (argc > 1 && !strcmp(argv[1], "signal")) {
        signal(SIGUSR1, handler);
        for (long i = 0; i < n; i++)
            raise(SIGUSR1);
        return handled != n;
    }
    for (long i = 0; i < n; i++)
        syscall(SYS_getppid);
    return 0;
}
