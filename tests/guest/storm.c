/* A storm of asynchronous signals over every kind of code: calls and returns, indirect jumps,
 * string instructions, flags carried over branches, vector and mask registers, x87. Whatever the
 * moment, the handler must see a sound state and the sums must come out as without signals. */
#include <immintrin.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

static volatile sig_atomic_t hits;
static volatile uint64_t wrong;
static uint64_t stack_low, stack_high;

static void on_alarm(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    uint64_t sp = (uint64_t)uc->uc_mcontext.gregs[REG_RSP];

    (void)info;
    hits++;
    wrong += sig != SIGALRM;
    wrong += sp < stack_low || sp > stack_high;
    wrong += !(uc->uc_mcontext.gregs[REG_EFL] & 2);
    __asm__ volatile("pcmpeqd %%xmm0, %%xmm0\n\tmovdqa %%xmm0, %%xmm7\n\tfninit\n\tstc\n\tcld" ::
                         : "xmm0", "xmm7", "cc");
}

static unsigned fib(unsigned n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static uint64_t interpret(unsigned steps)
{
    static void *const labels[] = {&&one, &&two, &&three};
    uint64_t acc = 7;

    goto *labels[0];
one:
    acc = acc * 6364136223846793005 + 1;
    goto *labels[(acc >> 33) % 3];
two:
    acc ^= acc >> 11;
    if (!steps--)
        return acc;
    goto *labels[(acc >> 21) % 3];
three:
    acc += acc << 3;
    if (!steps--)
        return acc;
    goto *labels[(acc >> 40) % 3];
}

/* A carry that lives over a hundred branches. */
static uint64_t carries(void)
{
    uint64_t sum = 0;

    for (int i = 0; i < 3000; i++)
        __asm__ volatile("mov $100, %%ecx\n\tstc\n1:\tadc $0, %0\n\tlea -1(%%rcx), %%rcx\n\t"
                         "jrcxz 2f\n\tstc\n\tjmp 1b\n2:"
                         : "+r"(sum)::"rcx", "cc");
    return sum;
}

static uint64_t strings(void)
{
    static char a[5000], b[5000];
    uint64_t sum = 0;

    for (int i = 0; i < 150; i++) {
        size_t n = sizeof a;
        char *to = b, *from = a;
        memset(a, i, sizeof a);
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory");
        n = 3000;
        __asm__ volatile("std\n\trep stosb\n\tcld" : "+D"(to), "+c"(n) : "a"(i + 1) : "memory");
        for (size_t k = 0; k < sizeof b; k += 50)
            sum = sum * 31 + (uint8_t)b[k];
    }
    return sum;
}

static uint64_t red_zone(void)
{
    uint64_t sum = 0;

    for (int i = 0; i < 20000; i++) {
        uint64_t v;
        __asm__ volatile("mov %1, -8(%%rsp)\n\tmov %1, -120(%%rsp)\n\tmov $9, %%ecx\n"
                         "1:\tdec %%ecx\n\tjnz 1b\n\tmov -8(%%rsp), %0\n\tadd -120(%%rsp), %0"
                         : "=&r"(v)
                         : "r"((uint64_t)i)
                         : "rcx", "cc", "memory");
        sum += v;
    }
    return sum;
}

__attribute__((target("avx2"))) static uint64_t vectors(void)
{
    __m256i acc = _mm256_set1_epi64x(3), step = _mm256_set_epi64x(1, 2, 3, 4);
    uint64_t out[4];

    for (int i = 0; i < 60000; i++)
        acc = _mm256_xor_si256(_mm256_add_epi64(acc, step), _mm256_slli_epi64(acc, 7));
    memcpy(out, &acc, sizeof out);
    return out[0] ^ out[1] * 3 ^ out[2] * 5 ^ out[3] * 7;
}

__attribute__((target("avx512f,avx512bw"))) static uint64_t masks(void)
{
    __m512i acc = _mm512_set1_epi32(1);
    uint64_t sum = 0;

    for (int i = 0; i < 40000; i++) {
        __mmask16 k = _mm512_cmpgt_epi32_mask(acc, _mm512_set1_epi32(i * 977));
        acc = _mm512_mask_add_epi32(acc, k, _mm512_slli_epi32(acc, 3), _mm512_set1_epi32(i | 1));
        sum += k;
    }
    return sum + (uint64_t)_mm512_reduce_add_epi32(acc);
}

static uint64_t x87(void)
{
    long double v = 1;
    uint64_t bits;

    for (int i = 1; i < 20000; i++)
        v = v / 3 + (long double)i * 1.1L;
    memcpy(&bits, &v, 8);
    return bits;
}

/* How emu gets from one instruction to the next must not show. */
static uint64_t pushed_flags(void)
{
    uint64_t flags, sum = 0;

    for (int i = 0; i < 40000; i++) {
        __asm__ volatile("cmp %1, %1\n\tpushfq\n\tpop %0" : "=r"(flags) : "r"(sum) : "cc");
        sum += flags & ~0x200ul;
        __asm__ volatile("pushfw\n\tpopw %w0" : "=r"(flags)::"cc");
        sum += flags & 0x100;
    }
    return sum;
}

static uint64_t calls_to_kernel(void)
{
    uint64_t sum = 0;

    for (int i = 0; i < 5000; i++)
        sum += getppid() > 0;
    return sum;
}

static uint64_t recursion(void)
{
    return fib(21);
}

static uint64_t interpreter(void)
{
    return interpret(150000);
}

static const struct {
    const char *name, *needs;
    uint64_t (*run)(void);
} parts[] = {
    {"recursion", NULL, recursion},      {"interpreter", NULL, interpreter},
    {"carries", NULL, carries},          {"strings", NULL, strings},
    {"red zone", NULL, red_zone},        {"vectors", "avx2", vectors},
    {"masks", "avx512bw", masks},        {"x87", NULL, x87},
    {"syscalls", NULL, calls_to_kernel}, {"pushed flags", NULL, pushed_flags},
};

static int has(const char *feature)
{
    return !feature || (!strcmp(feature, "avx2") ? __builtin_cpu_supports("avx2")
                                                 : __builtin_cpu_supports("avx512bw"));
}

int main(void)
{
    struct sigaction act = {.sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO | SA_RESTART};
    struct itimerval timer = {{0, 200}, {0, 200}};

    stack_high = (uint64_t)__builtin_frame_address(0) + 4096;
    stack_low = stack_high - (1 << 20);
    sigaction(SIGALRM, &act, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (!has(parts[i].needs))
            continue;
        uint64_t first = parts[i].run(), differ = 0;
        for (int n = 0; n < 4; n++)
            differ += parts[i].run() != first;
        printf("%-12s %016llx, %d differ\n", parts[i].name, (unsigned long long)first, (int)differ);
    }
    timer = (struct itimerval){{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &timer, NULL);
    printf("many signals %d, wrong %d\n", hits > 10, (int)wrong);
    return 0;
}
