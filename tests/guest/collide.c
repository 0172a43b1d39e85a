/* Branches and returns to addresses that differ in their high bits only: where translators keep
 * targets by the low ones, they meet. Registers and flags go through all of them. In children, also
 * with mappings and signals that could be in the way of one that checks a target by what is mapped.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOW    0x10000000ul
#define SIZE   0x1000ul
#define ROUNDS 40
#define COUNT  (sizeof places / sizeof *places)
#define CPU    0x7eef00000000 /* emu.h: CPU_WINDOWS_END - CPU_WINDOW_ABOVE */

/* From how far on addresses are alike: in their low 16, 18, 20 and 32 bits. */
static const uint64_t places[] = {LOW, LOW + 0x10000, LOW + 0x40000, LOW + 0x100000,
                                  LOW + 0x500000000000};

/* run(n): n rounds of a call, in which the carry and rcx come back, of two whose places of return
 * are two bytes apart, and of a jump, which takes rcx and the zero flag along; the sum of what came
 * and where. first_landing is where the call returns, go_to(place) leads where it says by a return,
 * leap_to(place) by a jump. many() makes so many calls, and returns their number, that where two
 * copies of it run a translator may find another way to keep targets. */
__asm__(".pushsection .text\n"
        "run:    lea run(%rip), %rax\n"
        "again:  mov %rdi, %rcx\n"
        "        call callee\n"
        "first_landing: adc %rcx, %rax\n"
        "        lea first_landing(%rip), %rdx\n"
        "        add %rdx, %rax\n"
        "        lea callee(%rip), %rdx\n"
        "        .balign 4\n\tnop\n\tnop\n"
        "        call *%rdx\n"
        "        call *%rdx\n"
        "        lea landing(%rip), %rdx\n"
        "        test $1, %dil\n"
        "        jmp *%rdx\n"
        "        .balign 16\n"
        "landing: setnz %dl\n"
        "        movzbl %dl, %edx\n"
        "        lea (%rcx,%rdx), %rcx\n"
        "        add %rcx, %rax\n"
        "        lea landing(%rip), %rdx\n"
        "        add %rdx, %rax\n"
        "        dec %edi\n"
        "        jnz again\n"
        "        ret\n"
        "callee: lea 3(%rcx), %rcx\n"
        "        bt $1, %edi\n"
        "        ret\n"
        "run_end:\n"
        "go_to:  push %rdi\n\tret\n"
        "leap_to: jmp *%rdi\n"
        "many:   xor %eax, %eax\n"
        "        .rept 100\n"
        "        call count\n"
        "        .endr\n"
        "        ret\n"
        "count:  inc %eax\n"
        "        ret\n"
        "many_end:\n"
        ".popsection");
extern const unsigned char run[], run_end[], first_landing[], landing[], many[], many_end[];
extern void go_to(uint64_t place), leap_to(uint64_t place);

static sigjmp_buf env;
static volatile uintptr_t fault;

static void note_fault(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)context;
    fault = (uintptr_t)info->si_addr;
    siglongjmp(env, 1);
}

static int map(uint64_t place, uint64_t size)
{
    return mmap((void *)place, size, PROT_READ | PROT_WRITE | PROT_EXEC,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == (void *)place;
}

static void add_copy(uint64_t place, const unsigned char *code, const unsigned char *end)
{
    if (!map(place, SIZE))
        printf("no memory at %#lx\n", place);
    memcpy((void *)place, code, (size_t)(end - code));
}

static uint64_t run_at(uint64_t place, uint64_t n)
{
    return ((uint64_t(*)(uint64_t))place)(n);
}

/* Runs copies in turn. */
static void run_each(const char *name, const uint64_t *place, size_t n)
{
    uint64_t sum = 0;

    for (uint64_t round = 1; round <= ROUNDS; round++)
        for (size_t i = 0; i < n; i++)
            sum = sum * 31 + run_at(place[i], round);
    printf("%s %lx\n", name, sum);
}

static void run_all(const char *name)
{
    run_each(name, places, COUNT);
}

/* Where nothing is, with a return and a jump that others have led to places alike. */
static void go_astray(uint64_t distance)
{
    uint64_t offset[] = {(uint64_t)(first_landing - run), (uint64_t)(landing - run)};
    void (*leave[])(uint64_t) = {go_to, leap_to};

    for (int i = 0; i < 2; i++) {
        uint64_t place = LOW + distance + offset[i];
        run_at(LOW, 5);
        fault = 0;
        if (sigsetjmp(env, 1) == 0)
            leave[i](place);
        printf("astray %lx %s\n", distance, fault == place ? "there" : "elsewhere");
    }
}

static void stay(void)
{
    go_astray(0x700000);
    go_astray(0x200000000);
    go_astray(0x300000000000);
    run_all("stayed");
}

static void share_many(void)
{
    for (int i = 0; i < 2; i++)
        add_copy(LOW + 0x20000 + (uint64_t)i * 0x10000, many, many_end);
    for (int i = 0; i < 6; i++)
        printf("many %lu\n", run_at(LOW + 0x20000 + (uint64_t)i % 2 * 0x10000, 0));
    stay();
}

/* Maps what LOW's check would find for LOW + 0x100000. */
static void crowd_window(void)
{
    printf("mapped %d\n", map(CPU + 0x100000, 0x10000));
    run_each("crowded", (uint64_t[]){LOW, LOW + 0x100000}, 2);
}

/* The same for LOW + 4 GiB. */
static void run_in_the_middle(void)
{
    printf("mapped %d\n", map(CPU + 0x100000000, 0x10000));
    add_copy(LOW + 0x100000000, run, run_end);
    run_each("middle", (uint64_t[]){LOW, LOW + 0x100000000}, 2);
}

/* Only the first place has run before. */
static void block_faults(void)
{
    sigset_t set, pending;

    sigemptyset(&set);
    sigaddset(&set, SIGSEGV);
    run_at(LOW, 5);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGSEGV);
    run_all("blocked");
    sigpending(&pending);
    printf("pending %d\n", sigismember(&pending, SIGSEGV));
    if (sigsetjmp(env, 1) == 0)
        sigprocmask(SIG_UNBLOCK, &set, NULL);
    printf("unblocked\n");
}

int main(void)
{
    void (*parts[])(void) = {stay, share_many, crowd_window, run_in_the_middle, block_faults};
    struct sigaction act = {.sa_sigaction = note_fault, .sa_flags = SA_SIGINFO};

    sigaction(SIGSEGV, &act, NULL);
    for (size_t i = 0; i < COUNT; i++)
        add_copy(places[i], run, run_end);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        fflush(stdout);
        if (fork() == 0) {
            parts[i]();
            return 0;
        }
        wait(NULL);
    }
    run_all("all");
    return 0;
}
