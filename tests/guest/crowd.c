/* Eight threads compute, make short-lived threads and never end: the program ends while they run.
 * Its argument is the number of rounds that they do first. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { THREADS = 8, STEPS = 2000 };

static atomic_int arrived;
static int rounds;
static uint64_t results[THREADS];
static uint64_t scratch[THREADS][64];

static __attribute__((noinline)) uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    return x * 0xff51afd7ed558ccdull + 1;
}

static __attribute__((noinline)) uint64_t stir(uint64_t x, uint64_t *words)
{
    for (int i = 0; i < STEPS; i++) {
        uint64_t *word = &words[x >> 5 & 63];
        *word += x & 1 ? mix(x) : x >> 3;
        x = mix(x + *word);
    }
    return x;
}

static void *live_briefly(void *arg)
{
    *(uint64_t *)arg = mix(*(uint64_t *)arg);
    return NULL;
}

static void *work(void *arg)
{
    int n = (int)(intptr_t)arg;
    uint64_t x = (uint64_t)n + 1;

    for (int i = 0; i < rounds; i++) {
        pthread_t brief;
        x = stir(x, scratch[n]) + (uint64_t)(syscall(SYS_getppid) > 0);
        if (i % 8 == n && !pthread_create(&brief, NULL, live_briefly, &x))
            pthread_join(brief, NULL);
    }
    results[n] = x;
    atomic_fetch_add(&arrived, 1);
    for (;;)
        x = stir(x, scratch[n]);
    return NULL;
}

int main(int argc, char **argv)
{
    uint64_t sum = 0;

    rounds = argc > 1 ? atoi(argv[1]) : 10;
    for (intptr_t i = 0; i < THREADS; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, (void *)i))
            return 1;
    }
    while (atomic_load(&arrived) < THREADS)
        usleep(1000);
    for (int i = 0; i < THREADS; i++)
        sum = sum * 31 + results[i];
    printf("%llx\n", (unsigned long long)sum);
    return 0;
}
