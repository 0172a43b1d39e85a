/* A tree of calls whose shape is random: returns that no table of recent targets predicts. */
#include <stdint.h>
#include <stdio.h>

static uint64_t state = 88172645463325252;
static unsigned visits;

static unsigned next_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)(state >> 32);
}

#define NODE(name, first, second, third)                                                           \
    __attribute__((noinline)) static void name(int depth)                                          \
    {                                                                                              \
        visits++;                                                                                  \
        if (depth == 0)                                                                            \
            return;                                                                                \
        switch (next_random() % 3) {                                                               \
        case 0:                                                                                    \
            first(depth - 1);                                                                      \
            second(depth - 1);                                                                     \
            break;                                                                                 \
        case 1:                                                                                    \
            third(depth - 1);                                                                      \
            break;                                                                                 \
        default:                                                                                   \
            second(depth - 1);                                                                     \
            third(depth - 1);                                                                      \
            visits++;                                                                              \
        }                                                                                          \
    }

static void b(int depth);
static void c(int depth);
static void d(int depth);
NODE(a, b, c, d)
NODE(b, c, d, a)
NODE(c, a, d, b)
NODE(d, b, a, c)

int main(void)
{
    for (int i = 0; i < 1200; i++)
        a(20);
    printf("%u\n", visits);
    return 0;
}
