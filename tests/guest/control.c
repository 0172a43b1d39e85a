/* Control flow that compilers make: deep recursion, jump tables, computed gotos, indirect calls
 * with many targets, tail calls, setjmp, contexts with their own stacks, functions on red zones. */
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

static unsigned depth_sum(unsigned n)
{
    volatile unsigned local = n;

    return n ? depth_sum(n - 1) + (local & 3) : 0;
}

static unsigned ackermann(unsigned m, unsigned n)
{
    return !m ? n + 1 : !n ? ackermann(m - 1, 1) : ackermann(m - 1, ackermann(m, n - 1));
}

static int switch_table(int x)
{
    switch (x % 12) {
    case 0:
        return x * 3;
    case 1:
        return x + 100;
    case 2:
        return x ^ 0x55;
    case 3:
        return -x;
    case 4:
        return x << 2;
    case 5:
        return x / 3;
    case 6:
        return x * x;
    case 7:
        return 7;
    case 8:
        return x - 1;
    case 9:
        return x | 1;
    case 10:
        return ~x;
    default:
        return 0;
    }
}

/* Bytecode: every handler ends in its own indirect jump. */
static uint32_t interpret(uint32_t seed, int steps)
{
    static void *const labels[] = {&&add, &&shift, &&mix, &&twist};
    uint32_t acc = seed;

    goto *labels[acc & 3];
add:
    acc += 0x9e3779b9;
    if (!steps--)
        return acc;
    goto *labels[acc >> 9 & 3];
shift:
    acc ^= acc << 13;
    if (!steps--)
        return acc;
    goto *labels[acc >> 17 & 3];
mix:
    acc = acc * 1664525 + 1013904223;
    if (!steps--)
        return acc;
    goto *labels[acc >> 5 & 3];
twist:
    acc ^= acc >> 7;
    if (!steps--)
        return acc;
    goto *labels[acc >> 2 & 3];
}

#define TARGET(n)                                                                                  \
    __attribute__((noinline)) static unsigned target_##n(unsigned x)                               \
    {                                                                                              \
        return x * (2 * n + 3) + n;                                                                \
    }
/* clang-format off */
TARGET(0) TARGET(1) TARGET(2) TARGET(3) TARGET(4) TARGET(5) TARGET(6) TARGET(7)
TARGET(8) TARGET(9) TARGET(10) TARGET(11) TARGET(12) TARGET(13) TARGET(14) TARGET(15)
    /* clang-format on */

    static unsigned call_many(void)
{
    static unsigned (*const targets[])(unsigned) = {
        target_0, target_1, target_2,  target_3,  target_4,  target_5,  target_6,  target_7,
        target_8, target_9, target_10, target_11, target_12, target_13, target_14, target_15};
    unsigned x = 1;

    for (int i = 0; i < 20000; i++)
        x = targets[(x >> 11 ^ (unsigned)i) & 15](x);
    return x;
}

static jmp_buf env;
static int unwinds;

static void jump_out(int depth)
{
    if (depth < 0)
        return;
    if (depth == 0)
        longjmp(env, ++unwinds);
    jump_out(depth - 1);
    printf("never\n");
}

static ucontext_t main_context, coroutine;

static void run_coroutine(void)
{
    for (int i = 0; i < 5; i++) {
        printf("coroutine %d\n", i);
        swapcontext(&coroutine, &main_context);
    }
}

static void switch_stacks(void)
{
    static char stack[65536];

    getcontext(&coroutine);
    coroutine.uc_stack.ss_sp = stack;
    coroutine.uc_stack.ss_size = sizeof stack;
    coroutine.uc_link = &main_context;
    makecontext(&coroutine, run_coroutine, 0);
    for (int i = 0; i < 6; i++) {
        swapcontext(&main_context, &coroutine);
        printf("main %d\n", i);
    }
}

/* The stack pointer as an ordinary register; memory below it must survive. */
static void play_with_rsp(void)
{
    uint64_t a, b, other[64] = {0};
    uint64_t *top = other + 60;

    __asm__ volatile("mov $0x1111, %%eax\n\tmov %%rax, -8(%%rsp)\n\tmov %%rax, -128(%%rsp)\n\t"
                     "jmp 1f\n1:\tmov -8(%%rsp), %0\n\tadd -128(%%rsp), %0"
                     : "=&r"(a)::"rax", "memory");
    __asm__ volatile("xchg %%rsp, %0\n\tpush $77\n\tcall 1f\n1:\tpopq %%rax\n\tpop %1\n\t"
                     "xchg %%rsp, %0"
                     : "+r"(top), "=&r"(b)::"rax", "memory");
    printf("red zone %llx, other stack %llu %d\n", (unsigned long long)a, (unsigned long long)b,
           top == other + 60);
    __asm__ volatile("mov %%rsp, %%rbx\n\tand $-256, %%rsp\n\tsub $64, %%rsp\n\tpush %%rbx\n\t"
                     "pop %%rsp\n\tlea -4096(%%rsp), %%rsp\n\tadd $4096, %%rsp\n\tmov %%rsp, %0\n\t"
                     "sub %%rbx, %0"
                     : "=r"(a)::"rbx", "cc", "memory");
    printf("back at %lld\n", (long long)a);
}

static int compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

int main(void)
{
    int numbers[200];

    printf("depth %u, ackermann %u\n", depth_sum(20000), ackermann(2, 300));
    int sum = 0;
    for (int i = 0; i < 5000; i++)
        sum += switch_table(i);
    printf("switch %d, interpreter %x, calls %x\n", sum, interpret(42, 50000), call_many());
    for (volatile int i = 0; i < 3; i++)
        if (!setjmp(env))
            jump_out(50 + i);
    printf("unwinds %d\n", unwinds);
    switch_stacks();
    play_with_rsp();
    for (int i = 0; i < 200; i++)
        numbers[i] = (i * 7919) % 1009;
    qsort(numbers, 200, sizeof numbers[0], compare);
    printf("sorted %d %d %d\n", numbers[0], numbers[100], numbers[199]);
    return 0;
}
