/* %fs and %gs as base registers: thread-local storage, arch_prctl, and the FSGSBASE instructions
 * where the kernel allows them. */
#include <asm/prctl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
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
    printf("local %d\n", local);
    return 0;
}
