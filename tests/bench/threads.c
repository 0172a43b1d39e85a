/* threads.c: as many threads as the argument says, each with the same work on memory of its own. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define ROUNDS 60000000

static uint32_t step_odd(uint32_t x)
{
    return 3 * x + 1;
}

static uint32_t step_even(uint32_t x)
{
    return x / 2;
}

static void *work(void *result)
{
    static uint32_t (*const steps[])(uint32_t) = {step_even, step_odd};
    uint32_t table[1024] = {0}, x = 27;

    for (int i = 0; i < ROUNDS; i++) {
        x = steps[x & 1](x) + (x == 1) * (uint32_t)i;
        table[x % 1024] += x;
    }
    for (int i = 0; i < 1024; i++)
        *(uint32_t *)result += table[i];
    return NULL;
}

int main(int argc, char **argv)
{
    enum { MAX = 64 };
    int n = argc > 1 ? atoi(argv[1]) : 1;
    static uint32_t results[MAX][64];
    pthread_t threads[MAX];

    for (int i = 0; i < n && i < MAX; i++)
        if (pthread_create(&threads[i], NULL, work, results[i]))
            return 1;
    for (int i = 0; i < n && i < MAX; i++) {
        pthread_join(threads[i], NULL);
        printf("%u\n", results[i][0]);
    }
    return 0;
}
