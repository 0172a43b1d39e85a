/* A 10 kHz timer signal in each of eight threads, over integer, AVX-512 and x87 code in which every
 * register has a known value: handlers compare all they are given with what it must be and spoil
 * what they can, the code checks that its registers are untouched.
 *
 *   endure [SECONDS [COUNTS]]    default: 1 second of a lower rate, where emu may be slow */
#include <cpuid.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>
#include <time.h>
#include <unistd.h>

#define THREADS 8
#define PERIOD  100000 /* ns */

enum part { INTEGER, VECTOR, X87, PARTS };

static atomic_long hits[PARTS], wrong;
static atomic_int stop;
static unsigned high_offset, mask_offset, upper_offset; /* in the frame's vector state */
static int has_avx512, strict;

static __thread volatile uint64_t seed;
static __thread timer_t timer;

/* Fill all registers from the seed, go some times through code that keeps them, store them all.
 * General register n holds seed + n, the others the seed, as the mantissa in x87 registers. */
void run_integer(uint64_t value, uint64_t turns, uint64_t *out);
void run_vector(uint64_t value, uint64_t turns, uint64_t *out);
void run_x87(uint64_t value, uint64_t turns, uint64_t *out);
extern const char integer_start[], integer_end[], vector_start[], vector_end[], x87_start[],
    x87_end[];

/* clang-format off */
__asm__(
    "run_integer:\n"
    "push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n push %rdx\n"
    "mov %rsi, %rcx\n mov %rdi, %rax\n lea 1(%rax), %rbx\n lea 2(%rax), %rdx\n"
    "lea 3(%rax), %rsi\n lea 4(%rax), %rdi\n lea 5(%rax), %r8\n lea 6(%rax), %r9\n"
    "lea 7(%rax), %r10\n lea 8(%rax), %r11\n lea 9(%rax), %r12\n lea 10(%rax), %r13\n"
    "lea 11(%rax), %r14\n lea 12(%rax), %r15\n lea 13(%rax), %rbp\n cmp %rax, %rax\n"
    "integer_start:\n"
    "1: push %rax\n pop %rax\n call 3f\n lea (%rbx), %rbx\n xchg %rdx, %rdx\n"
    "cmp %r8, %r8\n jne 2f\n jmp *4f(%rip)\n"
    "3: mov %r9, %r9\n ret\n"
    "5: push %rdi\n mov %rdi, -8(%rsp)\n pop %rdi\n call *6f(%rip)\n"
    "lea -1(%rcx), %rcx\n jrcxz 2f\n jmp 1b\n"
    "2:\n"
    "integer_end:\n"
    "mov (%rsp), %rcx\n mov %rax, (%rcx)\n mov %rbx, 8(%rcx)\n mov %rdx, 16(%rcx)\n"
    "mov %rsi, 24(%rcx)\n mov %rdi, 32(%rcx)\n mov %r8, 40(%rcx)\n mov %r9, 48(%rcx)\n"
    "mov %r10, 56(%rcx)\n mov %r11, 64(%rcx)\n mov %r12, 72(%rcx)\n mov %r13, 80(%rcx)\n"
    "mov %r14, 88(%rcx)\n mov %r15, 96(%rcx)\n mov %rbp, 104(%rcx)\n"
    "pop %rdx\n pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n"
    ".pushsection .data.rel, \"aw\"\n .balign 8\n 4: .quad 5b\n 6: .quad 3b\n .popsection\n"

    "run_vector:\n"
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
    "vpbroadcastq %rdi, %zmm\\n\n .endr\n"
    ".irp n, 0,1,2,3,4,5,6,7\n kmovq %rdi, %k\\n\n .endr\n"
    "mov %rsi, %rcx\n"
    "vector_start:\n"
    "1: vpandq %zmm3, %zmm17, %zmm3\n vporq %zmm0, %zmm1, %zmm31\n kandq %k1, %k2, %k3\n"
    "vpbroadcastq %rdi, %zmm5\n vpternlogq $0xf0, %zmm9, %zmm8, %zmm20{%k4}\n call 3f\n"
    "lea -1(%rcx), %rcx\n jrcxz 2f\n jmp 1b\n"
    "3: vshufi64x2 $0x4e, %zmm12, %zmm12, %zmm12\n ret\n"
    "2:\n"
    "vector_end:\n"
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
    "vmovdqu64 %zmm\\n, 64*\\n(%rdx)\n .endr\n"
    ".irp n, 0,1,2,3,4,5,6,7\n kmovq %k\\n, 2048+8*\\n(%rdx)\n .endr\n"
    "vzeroupper\n ret\n"

    "run_x87:\n"
    "mov %rdi, -24(%rsp)\n btsq $63, -24(%rsp)\n movw $0x3fff, -16(%rsp)\n"
    ".rept 8\n fldt -24(%rsp)\n .endr\n mov %rsi, %rcx\n"
    "x87_start:\n"
    "1: fabs\n fxch %st(3)\n fincstp\n fdecstp\n call 3f\n fdecstp\n fincstp\n"
    "lea -1(%rcx), %rcx\n jrcxz 2f\n jmp 1b\n"
    "3: fxch %st(7)\n ret\n"
    "2:\n"
    "x87_end:\n"
    ".set at, 0\n .rept 8\n fstpt -24(%rsp)\n mov -24(%rsp), %rax\n mov %rax, at(%rdx)\n"
    ".set at, at+8\n .endr\n ret\n");
/* clang-format on */

static int is_between(uint64_t pc, const char *start, const char *end)
{
    return pc >= (uintptr_t)start && pc < (uintptr_t)end;
}

static void complain(const char *what, int n, uint64_t is, uint64_t expected)
{
    if (atomic_fetch_add(&wrong, 1) < 20)
        fprintf(stderr, "%s %d is %llx, not %llx\n", what, n, (unsigned long long)is,
                (unsigned long long)expected);
}

/* rcx counts, rsp is the stack; the flags are those of equal numbers compared. */
static void check_integer(const ucontext_t *uc)
{
    static const int regs[] = {REG_RAX, REG_RBX, REG_RDX, REG_RSI, REG_RDI, REG_R8,  REG_R9,
                               REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15, REG_RBP};
    const greg_t *reg = uc->uc_mcontext.gregs;

    for (int i = 0; i < 14; i++)
        if ((uint64_t)reg[regs[i]] != seed + (unsigned)i)
            complain("general register", i, (uint64_t)reg[regs[i]], seed + (unsigned)i);
    if ((reg[REG_EFL] & 0xdd5) != 0x44)
        complain("flags", 0, (uint64_t)reg[REG_EFL], 0x44);
}

static void check_words(const char *what, int n, const uint8_t *p, unsigned words)
{
    for (unsigned i = 0; i < words; i++) {
        uint64_t word;
        memcpy(&word, p + 8 * i, 8);
        if (word != seed)
            complain(what, n, word, seed);
    }
}

static void check_vector(const ucontext_t *uc)
{
    const uint8_t *fp = (const uint8_t *)uc->uc_mcontext.fpregs;

    for (int i = 0; i < 16; i++) {
        check_words("xmm", i, fp + 160 + 16 * i, 2);
        check_words("ymm", i, fp + 576 + 16 * i, 2);
        check_words("upper zmm", i, fp + upper_offset + 32 * i, 4);
        check_words("zmm", 16 + i, fp + high_offset + 64 * i, 8);
    }
    for (int i = 0; i < 8; i++)
        check_words("k", i, fp + mask_offset + 8 * i, 1);
}

/* st0 is on top of seven more of the same. */
static void check_x87(const ucontext_t *uc)
{
    const uint8_t *fp = (const uint8_t *)uc->uc_mcontext.fpregs;

    for (int i = 0; i < 8; i++) {
        uint64_t word;
        memcpy(&word, fp + 32 + 16 * i, 8);
        if (word != (seed | 1ull << 63))
            complain("st", i, word, seed | 1ull << 63);
    }
}

static void spoil_registers(void)
{
    __asm__ volatile("fninit\n\tfldpi\n\tpcmpeqd %%xmm0, %%xmm0\n\tmovdqa %%xmm0, %%xmm15\n\t"
                     "mov $-1, %%r8\n\tmov %%r8, %%r15\n\tstd\n\tcld\n\tstc\n\tfninit" ::
                         : "xmm0", "xmm15", "r8", "r15", "cc");
    if (has_avx512)
        __asm__ volatile("vpternlogd $0xff, %zmm0, %zmm0, %zmm0\n\tkxnorq %k1, %k1, %k1\n\t"
                         "vpternlogd $0xff, %zmm20, %zmm20, %zmm20");
}

/* Where handlers take longer than the period, it must start anew behind them. */
static void set_timer(void)
{
    struct itimerspec spec = {{0, strict ? PERIOD : 0}, {0, strict ? PERIOD : 10 * PERIOD}};

    timer_settime(timer, 0, &spec, NULL);
}

static void on_timer(int sig, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;
    uint64_t pc = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];

    (void)sig, (void)info;
    if (is_between(pc, integer_start, integer_end)) {
        hits[INTEGER]++;
        check_integer(uc);
    } else if (is_between(pc, vector_start, vector_end)) {
        hits[VECTOR]++;
        check_vector(uc);
    } else if (is_between(pc, x87_start, x87_end)) {
        hits[X87]++;
        check_x87(uc);
    }
    spoil_registers();
    if (!strict)
        set_timer();
}

static void start_timer(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};

    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    if (timer_create(CLOCK_MONOTONIC, &event, &timer))
        perror("timer_create");
    set_timer();
}

static void run_parts(void)
{
    uint64_t out[2048 / 8 + 8], turns = strict ? 5000 : 500;

    run_integer(seed, turns, out);
    for (unsigned i = 0; i < 14; i++)
        if (out[i] != seed + i)
            complain("own general register", (int)i, out[i], seed + i);
    run_x87(seed, turns, out);
    for (int i = 0; i < 8; i++)
        if (out[i] != (seed | 1ull << 63))
            complain("own st", i, out[i], seed | 1ull << 63);
    if (!has_avx512)
        return;
    run_vector(seed, turns, out);
    for (int i = 0; i < 2048 / 8 + 8; i++)
        if (out[i] != seed)
            complain("own word of zmm and k", i, out[i], seed);
}

static void *run_thread(void *arg)
{
    seed = (uint64_t)(uintptr_t)arg;
    start_timer();
    while (!stop) {
        seed = seed * 6364136223846793005 + 1442695040888963407;
        run_parts();
    }
    timer_delete(timer);
    return NULL;
}

static unsigned find_component(int number)
{
    unsigned size, offset, c, d;

    __cpuid_count(13, number, size, offset, c, d);
    return offset;
}

int main(int argc, char **argv)
{
    struct sigaction act = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO | SA_RESTART};
    struct timespec rest = {argc > 1 ? atoi(argv[1]) : 1, 0};
    pthread_t thread[THREADS];

    strict = argc > 1;
    has_avx512 = __builtin_cpu_supports("avx512bw");
    mask_offset = find_component(5);
    upper_offset = find_component(6);
    high_offset = find_component(7);
    sigaction(SIGUSR1, &act, NULL);
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&thread[i], NULL, run_thread, (void *)i);
    while (nanosleep(&rest, &rest))
        ;
    stop = 1;
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    printf("wrong %ld, many signals in integer %d, vector %d, x87 code %d\n", wrong,
           hits[INTEGER] > 10, !has_avx512 || hits[VECTOR] > 10, hits[X87] > 10);
    if (argc > 2)
        printf("%ld %ld %ld signals\n", hits[INTEGER], hits[VECTOR], hits[X87]);
    return wrong > 0;
}
