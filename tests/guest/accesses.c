/* accesses.c: executes every instruction of accesses.h and shows what is in memory afterwards;
 * "probe": shows instead which bytes an instruction needs, by where it faults beside a page that
 * is not there. */
#include "../accesses.h"

#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGES_END (ACCESS_PAGE + 4 * 4096)

/* Signs: dwords 1, 4 and 5, qwords 0 and 2, bytes 7 and 12. */
const uint32_t access_mask[16] = {0x00112233, 0x80000000, 0, 0x00000080, 0xffffffff, 0xffffffff};
const uint32_t access_index[16] = {0, 3, 5, 0, 9, 0, 2, 0, 1, 4, 7, 6};
const uint32_t access_data[16] = {0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c,
                                  0x13121110, 0x17161514, 0x1b1a1918, 0x1f1e1d1c};

/* The instruction in question stands behind a long nop; the rest sets things up. */
#define CODE(name, feature, align, setup, insn, ours, qemu)                                        \
    __asm__(".text\n.type row_" #name ", @function\nrow_" #name ":\n" setup                        \
            "nopl 0x5a5a5a5a(%rax)\n" insn "\njmp access_done\n.size row_" #name                   \
            ", . - row_" #name);
ACCESS_ROWS(CODE)

#define DECLARE(name, feature, align, setup, insn, ours, qemu) void row_##name(void);
ACCESS_ROWS(DECLARE)

struct row {
    const char *name;
    void (*code)(void);
    unsigned align;
};
#define ROW(name, feature, align, setup, insn, ours, qemu)                                         \
    {__builtin_cpu_supports(feature) ? #name : NULL, row_##name, align},

/* access_run(code, operand): code ends at access_done, whatever it did to the registers. */
void access_run(void (*code)(void), uint64_t at);
__asm__(".text\naccess_run:\n"
        "push %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp, access_sp(%rip)\nmov %rdi, %r15\nmov %rsi, %rbx\nlea 64(%rsi), %rdi\n"
        "mov $3, %ecx\nmov $5, %edx\nmov $0x81828384, %eax\nmov %rax, %rbp\n"
        "movdqu access_data(%rip), %xmm0\nmovdqu access_data(%rip), %xmm1\n"
        "fninit\nadd $1, %eax\njmp *%r15\n"
        "access_done:\nmov access_sp(%rip), %rsp\ncld\nfninit\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nret\n"
        ".local access_sp\n.comm access_sp, 8, 8\n");

static sigjmp_buf fault;

static void on_fault(int sig)
{
    siglongjmp(fault, sig);
}

static uint8_t pattern[4 * 4096];

static void fill(void)
{
    memcpy((void *)ACCESS_PAGE, pattern, sizeof(pattern));
}

static void show_memory(const struct row *row)
{
    fill();
    access_run(row->code, ACCESS_AT);
    printf("%s ", row->name);
    for (unsigned i = 0; i < ACCESS_BYTES; i++)
        printf("%02x", ((volatile uint8_t *)ACCESS_FROM)[i]);
    printf("\n");
}

static int runs_at(const struct row *row, uint64_t at)
{
    fill();
    if (sigsetjmp(fault, 1))
        return 0;
    access_run(row->code, at);
    return 1;
}

/* The operand moves away from the edge until the instruction no longer faults. */
static long find_edge(const struct row *row, uint64_t edge, int direction)
{
    long distance = -ACCESS_REACH;
    while (distance < ACCESS_REACH && !runs_at(row, edge + (uint64_t)(direction * distance)))
        distance += row->align;
    return distance;
}

static void show_extent(const struct row *row)
{
    printf("%s %ld %ld\n", row->name, -find_edge(row, ACCESS_PAGE, 1),
           find_edge(row, PAGES_END, -1));
}

int main(int argc, char **argv)
{
    __builtin_cpu_init();
    const struct row rows[] = {ACCESS_ROWS(ROW)};
    static uint8_t stack[65536];
    stack_t alt = {.ss_sp = stack, .ss_size = sizeof(stack)};
    struct sigaction act = {.sa_handler = on_fault, .sa_flags = SA_ONSTACK};
    int probe = argc > 1 && !strcmp(argv[1], "probe");

    for (unsigned i = 0; i < sizeof(pattern); i++)
        pattern[i] = (uint8_t)(i * 7 + (i >> 8) + 3);
    sigaltstack(&alt, NULL);
    sigaction(SIGSEGV, &act, NULL);
    sigaction(SIGBUS, &act, NULL);
    if (mmap((void *)ACCESS_PAGE, 4 * 4096, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != (void *)ACCESS_PAGE)
        return 1;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].name && !probe)
            show_memory(&rows[i]);
        else if (rows[i].name && rows[i].align)
            show_extent(&rows[i]);
    }
    return 0;
}
