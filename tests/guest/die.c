/* Ends in the way its argument names: the wait status must be the native one. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static int recurse(volatile int *p)
{
    volatile int frame[256] = {*p};

    return frame[0] ? 0 : recurse(frame) + frame[1];
}

static void print_at_exit(void)
{
    printf("at exit\n");
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "";
    struct rlimit no_core = {0, 0};
    int zero = 0;

    setrlimit(RLIMIT_CORE, &no_core);
    atexit(print_at_exit);
    printf("by %s\n", how);
    if (strcmp(how, "return"))
        fflush(stdout);
    if (!strcmp(how, "segv"))
        *(volatile char *)8 = 1;
    if (!strcmp(how, "fpe"))
        __asm__ volatile("div %0" ::"r"(0), "a"(1), "d"(0));
    if (!strcmp(how, "ill"))
        __asm__ volatile("ud2");
    if (!strcmp(how, "trap"))
        __asm__ volatile("int3");
    if (!strcmp(how, "abort"))
        abort();
    if (!strcmp(how, "term"))
        raise(SIGTERM);
    if (!strcmp(how, "overflow"))
        return recurse(&zero);
    if (!strcmp(how, "quick"))
        _exit(33);
    return !strcmp(how, "return") ? 44 : 1;
}
