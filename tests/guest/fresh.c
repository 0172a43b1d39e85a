/* Calls code that has not run before, thousands of times, and sends signals to a thread that
 * computes meanwhile. */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

enum { FUNCTIONS = 20000, ROOM = 16, EVERY = 4 /* functions: a signal */ };

static volatile sig_atomic_t done;

static void on_signal(int sig)
{
    (void)sig;
}

static void *compute(void *arg)
{
    uint64_t x = 1;
    while (!done)
        x = x & 1 ? x * 3 + 1 : x >> 1 | 1ull << 62;
    *(uint64_t *)arg = x;
    return NULL;
}

/* mov $value, %eax; ret */
static void put_function(unsigned char *at, int32_t value)
{
    at[0] = 0xb8;
    memcpy(at + 1, &value, 4);
    at[5] = 0xc3;
}

int main(void)
{
    unsigned char *code =
        mmap(NULL, FUNCTIONS * ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_t thread;
    uint64_t x, sum = 0;

    for (int i = 0; i < FUNCTIONS; i++)
        put_function(code + i * ROOM, i);
    mprotect(code, FUNCTIONS * ROOM, PROT_READ | PROT_EXEC);
    signal(SIGUSR1, on_signal);
    if (pthread_create(&thread, NULL, compute, &x))
        return 1;
    for (int i = 0; i < FUNCTIONS; i++) {
        int (*function)(void);
        const unsigned char *at = code + i * ROOM;
        memcpy(&function, &at, sizeof function);
        sum += (uint64_t)function();
        if (i % EVERY == 0)
            pthread_kill(thread, SIGUSR1);
    }
    done = 1;
    pthread_join(thread, NULL);
    printf("%lu\n", sum);
    return 0;
}
