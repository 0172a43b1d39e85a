/* ticks.c: signals while indirect calls miss the tables of their targets. Each must come, wherever
 * on the way to the target the one before it was. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>

enum { TICKS = 1000, FUNCTIONS = 8 };
#define STRIDE (1 << 20) /* they differ in the high bits of their addresses */

static volatile sig_atomic_t ticks;

static void tick(int sig)
{
    (void)sig;
    ticks++;
}

int main(void)
{
    const struct itimerval every = {{0, 300}, {0, 300}};
    char *code = mmap(NULL, FUNCTIONS * STRIDE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    void (*function[FUNCTIONS])(void);

    for (int i = 0; i < FUNCTIONS; i++) {
        code[i * STRIDE] = (char)0xc3; /* ret */
        *(void **)&function[i] = code + i * STRIDE;
    }
    mprotect(code, FUNCTIONS * STRIDE, PROT_READ | PROT_EXEC);
    signal(SIGALRM, tick);
    setitimer(ITIMER_REAL, &every, NULL);
    while (ticks < TICKS)
        for (int i = 0; i < FUNCTIONS; i++)
            function[i]();
    printf("all came\n");
    return 0;
}
