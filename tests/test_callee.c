/* test_callee.c: what callee_x86_64.c proves of functions written for it, each with a known
 * effect, and what it must refuse to prove. */
#include "emu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define RAX      (1 << GPR_RAX)
#define RCX      (1 << GPR_RCX)
#define RDX      (1 << GPR_RDX)
#define RDI      (1 << GPR_RDI)
#define R11      (1 << 11)
#define COUNT(a) (sizeof(a) / sizeof *(a))

/* A function of its own: name, body. */
#define CODE(name, body)                                                                           \
    extern const char name[];                                                                      \
    __asm__(".pushsection .text\n" #name ":\n" body "\n.popsection")

CODE(empty, "ret");
CODE(landing, "endbr64; bnd ret");
CODE(move, "mov %edi, %edx; lea 4(%rdx), %rax; ret");
CODE(saved, "push %rbx; xor %ebx, %ebx; pop %rbx; ret");
CODE(partial, "mov $1, %cl; ret");
CODE(both_ways, "test %edi, %edi; jne 1f; xor %ecx, %ecx; ret; 1: xor %r11d, %r11d; ret");
CODE(loop, "1: dec %rdi; jnz 1b; ret");
CODE(calls, "call move; ret");
CODE(jumps, "jmp move");
CODE(recursive, "test %edi, %edi; jz 1f; dec %edi; call recursive; 1: ret");
CODE(imported, "jmp *labs@GOTPCREL(%rip)");
CODE(imported_call, "sub $8, %rsp; call *labs@GOTPCREL(%rip); add $8, %rsp; ret");
CODE(traps, "test %edi, %edi; jz 1f; ret; 1: ud2; syscall");
CODE(atomic, "lock xadd %rax, (%rdi); ret");
CODE(vectors, "movdqu (%rdi), %xmm1; paddq %xmm1, %xmm9; movups %xmm9, (%rdi); ret");

static const struct {
    const char *name, *code;
    uint16_t regs, xmm;
} proven[] = {
    {"empty", empty, 0, 0},
    {"landing", landing, 0, 0},
    {"move", move, RAX | RDX, 0},
    {"saved", saved, 0, 0},
    {"partial", partial, RCX, 0},
    {"both_ways", both_ways, RCX | R11, 0},
    {"loop", loop, RDI, 0},
    {"calls", calls, RAX | RDX, 0},
    {"jumps", jumps, RAX | RDX, 0},
    {"recursive", recursive, RDI, 0},
    {"traps", traps, 0, 0},
    {"atomic", atomic, RAX, 0},
    {"vectors", vectors, 0, 1 << 1 | 1 << 9},
};

__asm__(".pushsection .data\n.balign 8\ncallee_pointer: .quad empty\n.popsection");
CODE(fs, "mov %fs:0x28, %rax; ret");
CODE(gs, "incq %gs:8; ret");
CODE(fs_base, "rdfsbase %rax; ret");
CODE(kernel, "syscall; ret");
CODE(string, "rep stosb; ret");
CODE(direction, "std; cld; ret");
CODE(all_flags, "pushfq; popfq; ret");
CODE(float_sum, "addps %xmm0, %xmm1; ret");
CODE(float_cast, "cvtsi2sd %edi, %xmm0; ret");
CODE(mxcsr, "ldmxcsr (%rdi); ret");
CODE(avx, "vpaddq %xmm0, %xmm1, %xmm2; ret");
CODE(upper, "vzeroupper; ret");
CODE(mask, "kxorw %k1, %k1, %k1; ret");
CODE(mmx, "movq %rdi, %mm0; emms; ret");
CODE(x87, "fld1; fstp %st(0); ret");
CODE(five_vectors, "pxor %xmm0, %xmm1; pxor %xmm2, %xmm3; pxor %xmm4, %xmm4; ret");
CODE(through_register, "call *%rdi; ret");
CODE(through_memory, "jmp *(%rdi)");
CODE(through_variable, "jmp *callee_pointer(%rip)");
CODE(one_way, "test %edi, %edi; jz 1f; ret; 1: jmp kernel");
CODE(below, "call calls_kernel; ret; calls_kernel: jmp kernel");
CODE(import_of_unknown, "jmp *getenv@GOTPCREL(%rip)");
CODE(far_return, "lret");
CODE(illegal, ".byte 6; ret");
CODE(halt, "hlt; ret");
CODE(breakpoint, "int3; ret");
CODE(endless, ".fill 5000, 1, 0x90; ret");

static const struct {
    const char *name, *code;
} refused[] = {
    {"fs", fs},
    {"gs", gs},
    {"fs_base", fs_base},
    {"kernel", kernel},
    {"string", string},
    {"direction", direction},
    {"all_flags", all_flags},
    {"float_sum", float_sum},
    {"float_cast", float_cast},
    {"mxcsr", mxcsr},
    {"avx", avx},
    {"upper", upper},
    {"mask", mask},
    {"mmx", mmx},
    {"x87", x87},
    {"five_vectors", five_vectors},
    {"through_register", through_register},
    {"through_memory", through_memory},
    {"through_variable", through_variable},
    {"one_way", one_way},
    {"below", below},
    {"import_of_unknown", import_of_unknown},
    {"far_return", far_return},
    {"illegal", illegal},
    {"halt", halt},
    {"breakpoint", breakpoint},
    {"endless", endless},
};

static void test_proven(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(proven); i++) {
        struct callee callee = {0};
        if (!callee_examine(proven[i].code, &callee) || callee.regs != proven[i].regs ||
            callee.xmm != proven[i].xmm)
            fail_msg("%s: regs %x, xmm %x", proven[i].name, callee.regs, callee.xmm);
    }
}

static void test_refused(void **state)
{
    struct callee callee;
    (void)state;
    for (size_t i = 0; i < COUNT(refused); i++)
        if (callee_examine(refused[i].code, &callee))
            fail_msg("%s is taken for harmless", refused[i].name);
}

/* Which registers labs() changes is the libc's choice, but it returns in rax. */
static void test_imports(void **state)
{
    struct callee callee;
    (void)state;
    assert_true(callee_examine(imported, &callee));
    assert_true(callee.regs & RAX);
    assert_true(callee_examine(imported_call, &callee));
}

/* Code that can be written, or belongs to no loaded object, may not stay as it is. */
static void test_writable(void **state)
{
    struct callee callee;
    uint8_t *page =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)state;
    assert_true(page != MAP_FAILED);
    *page = 0xc3;
    assert_false(callee_examine(page, &callee));
    assert_false(callee_examine(NULL, &callee));
    munmap(page, 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_proven),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_imports),
        cmocka_unit_test(test_writable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
