/* %fs and %gs as base registers: thread-local storage, arch_prctl, and the FSGSBASE instructions
 * where the kernel allows them. */
#include <asm/prctl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static __thread int local = 5;
static uint64_t area[16];

static uint64_t read_gs(long offset)
{
    uint64_t v;

    __asm__ volatile("mov %%gs:(%1), %0" : "=r"(v) : "r"(offset));
    return v;
}

static void use_gs(void)
{
    uint64_t v, base = 0;

    syscall(SYS_arch_prctl, ARCH_SET_GS, area + 4);
    for (int i = 0; i < 16; i++)
        area[i] = 0x100 + (uint64_t)i;
    printf("gs:0 %llx gs:8 %llx gs:-8 %llx\n", (unsigned long long)read_gs(0),
           (unsigned long long)read_gs(8), (unsigned long long)read_gs(-8));
    __asm__ volatile("movq $0x77, %%gs:16\n\tincq %%gs:16\n\tlock addq $2, %%gs:24\n\t"
                     "pushq %%gs:0\n\tpopq %%gs:32\n\tmov %%gs:16, %0\n\t"
                     "movq %%gs:(%1,%1), %%xmm3\n\tmovq %%xmm3, %%gs:40"
                     : "=&r"(v)
                     : "r"(4ul)
                     : "memory", "cc", "xmm3");
    printf("gs:16 %llx, memory %llx %llx %llx %llx\n", (unsigned long long)v,
           (unsigned long long)area[6], (unsigned long long)area[7], (unsigned long long)area[8],
           (unsigned long long)area[9]);
    __asm__ volatile(
        "mov $3, %%ecx\n\tlea %1, %%rdi\n\txor %%esi, %%esi\n\trep movsb %%gs:(%%rsi), (%%rdi)"
        : "+m"(v)
        : "m"(v)
        : "rcx", "rdi", "rsi", "memory");
    printf("string %llx\n", (unsigned long long)v);
    syscall(SYS_arch_prctl, ARCH_GET_GS, &base);
    printf("base %d\n", base == (uint64_t)(area + 4));
    unsigned short selector;
    __asm__ volatile("mov %%gs, %0" : "=r"(selector));
    printf("selector %x\n", selector);
}

/* All the ways to address memory through %fs, in a thread's own block. */
static void use_fs(void)
{
    static __thread uint64_t block[4] = {0x1122334455667788, 2, 3, 4};
    uint64_t fs, at, v = 7, w = 0, sum = 0;

    syscall(SYS_arch_prctl, ARCH_GET_FS, &fs);
    at = (uint64_t)block - fs;
    __asm__ volatile("mov %%fs:(%1), %0" : "=r"(v) : "r"(at));
    printf("load %llx", (unsigned long long)v);
    v = at;
    __asm__ volatile("mov %%fs:8(%0), %0\n\tadd %%fs:8(%1), %0" : "+&r"(v) : "r"(at));
    printf(" own base %llx", (unsigned long long)v);
    __asm__ volatile("xor %%eax, %%eax\n\tmov %%fs:(%1,%%rax,8), %%r9d\n\tmov %%r9, %0\n\t"
                     "movzbl %%fs:1(%1), %%eax\n\tadd %%rax, %0"
                     : "=&r"(v)
                     : "r"(at)
                     : "rax", "r9");
    printf(" parts %llx", (unsigned long long)v);
    __asm__ volatile("lock incq %%fs:8(%1)\n\tpushq %%fs:8(%1)\n\tpopq %%fs:16(%1)\n\t"
                     "movq %%fs:16(%1), %%xmm2\n\tmovq %%xmm2, %%fs:24(%1)\n\tsub %%fs:16(%1), %0"
                     : "+&r"(w)
                     : "r"(at)
                     : "memory", "xmm2");
    for (int i = 1; i < 4; i++)
        sum += block[i];
    printf(" stores %llu %lld\n", (unsigned long long)sum, (long long)w);
    __asm__ volatile(
        "mov $4, %%ecx\n\tlea %0, %%rdi\n\tmov %1, %%rsi\n\trep movsb %%fs:(%%rsi), (%%rdi)"
        : "+m"(v)
        : "r"(at)
        : "rcx", "rdi", "rsi", "memory");
    printf("string %llx", (unsigned long long)v);
    __asm__ volatile("mov %%fs:0, %0\n\tmovabs %%fs:0, %%rax\n\tsub %%rax, %0"
                     : "=&r"(w)
                     :
                     : "rax");
    printf(" movabs %llu", (unsigned long long)w);
    __asm__ volatile("lea 1f(%%rip), %%rax\n\tmov %%rax, %%fs:8(%1)\n\tcall *%%fs:8(%1)\n\tjmp 2f\n"
                     "1:\tmov $9, %0\n\tret\n2:"
                     : "=&r"(w)
                     : "r"(at)
                     : "rax", "memory", "cc");
    printf(" call %llu\n", (unsigned long long)w);
}

__attribute__((target("fsgsbase"))) static void use_instructions(void)
{
    uint64_t fs = __builtin_ia32_rdfsbase64(), self;

    __asm__("mov %%fs:0, %0" : "=r"(self));
    printf("rdfsbase %d\n", fs == self);
    __builtin_ia32_wrgsbase64((uint64_t)(area + 8));
    printf("wrgsbase %llx %d\n", (unsigned long long)read_gs(8),
           __builtin_ia32_rdgsbase64() == (uint64_t)(area + 8));
    uint64_t copy[8] = {0xabc}, v;
    __builtin_ia32_wrfsbase64((uint64_t)copy);
    __asm__ volatile("mov %%fs:0, %0" : "=r"(v));
    __builtin_ia32_wrfsbase64(fs);
    printf("wrfsbase %llx\n", (unsigned long long)v);
}

static sigjmp_buf back;

static void report(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;

    printf(" signal %d code %x error %llx address %p\n", sig, (unsigned)info->si_code,
           (unsigned long long)uc->uc_mcontext.gregs[REG_ERR], info->si_addr);
    siglongjmp(back, 1);
}

/* Loads a selector into %gs in the three ways that there are. */
static void load_gs(unsigned long selector, int way)
{
    if (sigsetjmp(back, 1))
        return;
    printf("selector %lx way %d:", selector, way);
    if (way == 0)
        __asm__ volatile("mov %w0, %%gs" : : "r"(selector));
    else if (way == 1)
        __asm__ volatile("mov %0, %%gs" : : "m"(selector));
    else
        __asm__ volatile("push %0\n\tpop %%gs" : : "r"(selector) : "memory");
    uint64_t wide = ~0ull, pushed, low = ~0ull;
    uint16_t stored;
    __asm__ volatile("mov %%gs, %k0\n\tmov %%gs, %1\n\tpush %%gs\n\tpop %2\n\tmov %%gs, %w3"
                     : "+r"(wide), "=m"(stored), "=r"(pushed), "+r"(low));
    printf(" reads %llx %x %llx %llx, base", (unsigned long long)wide, stored,
           (unsigned long long)pushed, (unsigned long long)low);
    syscall(SYS_arch_prctl, ARCH_GET_GS, &pushed);
    printf(" %llx\n", (unsigned long long)pushed);
}

/* A selector in %fs means another base: nothing may use the thread's memory until it is back. */
static void load_fs(unsigned long selector)
{
    long fs, ok;

    if (sigsetjmp(back, 1))
        return;
    printf("%%fs %lx:", selector);
    syscall(SYS_arch_prctl, ARCH_GET_FS, &fs);
    __asm__ volatile("mov %w[selector], %%fs\n\t"
                     "mov %%fs:(%[selector_at]), %[ok]\n\t"
                     "mov $158, %%eax\n\tmov $0x1002, %%edi\n\tmov %[fs], %%rsi\n\tsyscall"
                     : [ok] "=&r"(ok)
                     : [selector] "r"(selector), [selector_at] "r"(&selector), [fs] "r"(fs)
                     : "rax", "rcx", "rdi", "rsi", "r11", "memory");
    printf(" reads %lx\n", ok);
}

static void use_selectors(void)
{
    struct sigaction act = {.sa_sigaction = report, .sa_flags = SA_SIGINFO};
    /* null ones, user data and code, the kernel's, past the table, of a table that is not there */
    static const unsigned short selectors[] = {0, 3, 0x2b, 0x2a, 0x33, 0x10, 0x18, 0xffff, 0x7};

    sigaction(SIGSEGV, &act, NULL);
    for (size_t i = 0; i < sizeof selectors / sizeof *selectors; i++)
        for (int way = 0; way < 3; way++)
            load_gs(selectors[i], way);
    syscall(SYS_arch_prctl, ARCH_SET_GS, area);
    load_gs(0x2b, 0);
    syscall(SYS_arch_prctl, ARCH_SET_GS, area);
    unsigned selector;
    __asm__ volatile("mov %%gs, %0" : "=r"(selector));
    printf("reset %x\n", selector);
    load_fs(0x2b);
    load_fs(0x18);
    if (!sigsetjmp(back, 1))
        __asm__ volatile("mov 8, %gs");
    if (!sigsetjmp(back, 1))
        __asm__ volatile("mov %gs, 8");
}

int main(void)
{
    uint64_t fs;

    local += 3;
    printf("local %d\n", local);
    syscall(SYS_arch_prctl, ARCH_GET_FS, &fs);
    printf("fs %d\n", *(uint64_t *)fs == fs);
    use_gs();
    use_fs();
    if (getauxval(AT_HWCAP2) & 2)
        use_instructions();
    use_selectors();
    printf("local %d\n", local);
    return 0;
}
