/* test_decode.c: the decoder and the disassembler, as rows of data. Links decode.o and disas.o
 * alone. decode_rows.h has the text of every row of the opcode table, checked against objdump; the
 * tables here say what else struct insn must tell. To add a case, add a line. */
#include "../emu.h"
#include "../opcodes_x86_64.h"
#include "objdump_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define PC           0x1000
#define COUNT(array) (sizeof(array) / sizeof *(array))

static size_t parse_bytes(const char *hex, uint8_t *out)
{
    size_t n = 0;
    for (; *hex; hex += hex[2] ? 3 : 2)
        out[n++] = (uint8_t)strtoul((char[]){hex[0], hex[1], 0}, NULL, 16);
    return n;
}

static size_t decode_hex(const char *hex, uint8_t *bytes, struct insn *in)
{
    size_t n = parse_bytes(hex, bytes);
    memset(in, 0xA5, sizeof *in);
    assert_int_equal(decode(in, bytes, n, PC), DECODE_OK);
    return n;
}

/* ---- length and text --------------------------------------------------------------------------
 */

struct text_row {
    const char *bytes, *text;
};
#define ROW(bytes, text) {bytes, text},
static const struct text_row text_rows[] = {
#include "decode_rows.h"
};

/* The strings QEMU's plugins get. */
/* clang-format off */
static const struct text_row plugin_rows[] = {
    {"48 8d 1d f9 0f 00 00", "leaq 0xff9(%rip), %rbx"},
    {"8b 05 e9 0f 00 00", "movl 0xfe9(%rip), %eax"},
    {"c6 03 01", "movb $1, (%rbx)"},
    {"0f be 03", "movsbl (%rbx), %eax"},
    {"68 34 12 00 00", "pushq $0x1234"},
    {"f0 83 03 01", "lock addl $1, (%rbx)"},
    {"87 03", "xchgl %eax, (%rbx)"},
    {"f0 0f b1 0b", "lock cmpxchgl %ecx, (%rbx)"},
    {"f0 0f c1 0b", "lock xaddl %ecx, (%rbx)"},
    {"e8 3b 00 00 00", "callq 0x1040"},
    {"c3", "retq "},
    {"74 02", "je 0x1004"},
    {"0f 11 03", "movups %xmm0, (%rbx)"},
    {"f3 0f 7f 43 03", "movdqu %xmm0, 3(%rbx)"},
    {"fc", "cld "},
    {"f3 a4", "rep movsb (%rsi), (%rdi)"},
    {"f3 a6", "repe cmpsb (%rdi), (%rsi)"},
    {"f3 aa", "rep stosb %al, (%rdi)"},
    {"f0 48 0f c7 0b", "lock cmpxchg16b (%rbx)"},
    {"41 0f ae 00", "fxsave (%r8)"},
    {"41 db 28", "fldt (%r8)"},
    {"41 db 78 20", "fstpt 0x20(%r8)"},
    {"0f 18 0b", "prefetcht0 (%rbx)"},
    {"66 0f 1f 04 00", "nopw (%rax, %rax)"},
    {"f3 0f 1e fa", "endbr64 "},
    {"48 0f a3 03", "btq %rax, (%rbx)"},
    {"48 0f 45 03", "cmovneq (%rbx), %rax"},
    {"48 b8 88 77 66 55 44 33 22 11", "movabsq $0x1122334455667788, %rax"},
    {"0f ba 2b 03", "btsl $3, (%rbx)"},
    {"0f 05", "syscall "},
    {"8b 44 c8 f8", "movl -8(%rax, %rcx, 8), %eax"},
    {"83 e4 f0", "andl $0xfffffff0, %esp"},
    {"48 83 c4 80", "addq $-0x80, %rsp"},
    {"66 2e 0f 1f 84 00 00 00 00 00", "nopw %cs:(%rax, %rax)"},
    {"f3 90", "pause "},
    {"90", "nop "},
    {"41 90", "xchgl %r8d, %eax"},
    {"64 2e 8b 00", "movl %fs:(%rax), %eax"}, /* cs has no effect, not even this */
    {"48 ed", "inl %dx, %eax"},
    {"62 f1 7c 58 58 01", "vaddps (%rcx){1to16}, %zmm0, %zmm0"},
    {"62 f1 7c 18 58 c1", "vaddps {rn-sae}, %zmm1, %zmm0, %zmm0"},
};
/* clang-format on */

/* clang-format off */
static const struct text_row intel_rows[] = {
    {"48 8d 1d f9 0f 00 00", "lea rbx, [rip + 0xff9]"},
    {"48 89 c3", "mov rbx, rax"},
    {"c6 03 01", "mov byte ptr [rbx], 1"},
    {"0f b6 44 8b f8", "movzx eax, byte ptr [rbx + 4*rcx - 8]"},
    {"64 48 8b 04 25 28 00 00 00", "mov rax, qword ptr fs:[0x28]"},
    {"0f 1f 40 00", "nop dword ptr [rax]"},
    {"0f 18 0e", "prefetcht0 byte ptr [rsi]"},
    {"c3", "ret "},
    {"98", "cwde "},
    {"dc e1", "fsubr st(1), st(0)"},
    {"48 63 c8", "movsxd rcx, eax"},
    {"f3 48 ab", "rep stosq qword ptr es:[rdi], rax"},
};
/* clang-format on */

static void check_texts(const struct text_row *rows, size_t count, enum disas_syntax syntax)
{
    for (size_t i = 0; i < count; i++) {
        uint8_t bytes[16];
        char text[128];
        struct insn in;
        size_t n = decode_hex(rows[i].bytes, bytes, &in);
        disas(text, sizeof text, &in, bytes, syntax);
        if (in.len != n || strcmp(text, rows[i].text) != 0)
            fail_msg("%s: length %d, \"%s\", not \"%s\"", rows[i].bytes, in.len, text,
                     rows[i].text);
    }
}

static void test_text_of_every_row(void **state)
{
    (void)state;
    check_texts(text_rows, COUNT(text_rows), DISAS_ATT);
}

static void test_text_for_plugins(void **state)
{
    (void)state;
    check_texts(plugin_rows, COUNT(plugin_rows), DISAS_ATT);
}

static void test_text_intel(void **state)
{
    (void)state;
    check_texts(intel_rows, COUNT(intel_rows), DISAS_INTEL);
}

static int compare_pointers(const void *a, const void *b)
{
    const struct opcode *x = *(const struct opcode *const *)a,
                        *y = *(const struct opcode *const *)b;
    return x < y ? -1 : x > y;
}

/* A row that no case reaches is a row that nobody checked. */
static void test_all_rows_have_a_case(void **state)
{
    enum {
#define X(...) +1
#define G(...)
        TABLE_ROWS = 0
#include "../opcodes_x86_64.h"
#undef X
#undef G
    };
    static const struct opcode *seen[COUNT(text_rows)];
    size_t distinct = 0;
    (void)state;
    for (size_t i = 0; i < COUNT(text_rows); i++) {
        uint8_t bytes[16];
        struct insn in;
        decode_hex(text_rows[i].bytes, bytes, &in);
        seen[i] = in.row;
    }
    qsort(seen, COUNT(seen), sizeof *seen, compare_pointers);
    for (size_t i = 0; i < COUNT(seen); i++)
        distinct += i == 0 || seen[i] != seen[i - 1];
    assert_int_equal(distinct, TABLE_ROWS);
}

static void test_every_prefix_of_an_insn_is_partial(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(text_rows); i++) {
        uint8_t bytes[16];
        struct insn in;
        size_t n = parse_bytes(text_rows[i].bytes, bytes);
        for (size_t limit = 0; limit < n; limit++)
            if (decode(&in, bytes, limit, PC) != DECODE_PARTIAL && in.row)
                fail_msg("%s: legal with %zu bytes", text_rows[i].bytes, limit);
    }
}

/* ---- what an instruction does -----------------------------------------------------------------
 */

#define RAX        (1 << GPR_RAX)
#define RCX        (1 << GPR_RCX)
#define RDX        (1 << GPR_RDX)
#define RBX        (1 << GPR_RBX)
#define RSP        (1 << GPR_RSP)
#define RBP        (1 << GPR_RBP)
#define RSI        (1 << GPR_RSI)
#define RDI        (1 << GPR_RDI)
#define R8         (1 << 8)
#define ALL        FLAGS_ARITH
#define MULTIPLIED (FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF) /* left undefined */

static const struct {
    const char *bytes;
    unsigned kind, read, written, flags_read, flags_written, flags_undefined, flags;
} effect_rows[] = {
    /* clang-format off */
    {"48 89 c3",             INSN_NEXT,     RAX, RBX, 0, 0, 0, 0},
    {"88 c3",                INSN_NEXT,     RAX | RBX, RBX, 0, 0, 0, 0},
    {"88 e7",                INSN_NEXT,     RAX | RBX, RBX, 0, 0, 0, 0}, /* ah, bh */
    {"40 88 e7",             INSN_NEXT,     RSP | RDI, RDI, 0, 0, 0, 0}, /* spl, dil */
    {"66 89 c3",             INSN_NEXT,     RAX | RBX, RBX, 0, 0, 0, 0},
    {"89 c3",                INSN_NEXT,     RAX, RBX, 0, 0, 0, 0},
    {"01 c3",                INSN_NEXT,     RAX | RBX, RBX, 0, ALL, 0, 0},
    {"11 c3",                INSN_NEXT,     RAX | RBX, RBX, FLAG_CF, ALL, 0, 0},
    {"ff c0",                INSN_NEXT,     RAX, RAX, 0, ALL & ~FLAG_CF, 0, 0},
    {"39 c3",                INSN_NEXT,     RAX | RBX, 0, 0, ALL, 0, 0},
    {"21 c3",                INSN_NEXT,     RAX | RBX, RBX, 0, ALL, FLAG_AF, 0},
    {"f7 d0",                INSN_NEXT,     RAX, RAX, 0, 0, 0, 0},
    {"c1 e0 05",             INSN_NEXT,     RAX, RAX, 0, ALL, FLAG_AF | FLAG_OF, 0},
    {"c1 e0 20",             INSN_NEXT,     RAX, RAX, ALL, 0, 0, 0}, /* masked to 0 */
    {"48 c1 e0 20",          INSN_NEXT,     RAX, RAX, 0, ALL, FLAG_AF | FLAG_OF, 0},
    {"66 c1 e0 11",          INSN_NEXT,     RAX, RAX, 0, ALL, FLAG_AF | FLAG_OF | FLAG_CF, 0},
    {"d1 e0",                INSN_NEXT,     RAX, RAX, 0, ALL, FLAG_AF, 0},
    {"d3 e0",                INSN_NEXT,     RAX | RCX, RAX, ALL, 0, FLAG_AF | FLAG_OF, 0},
    {"d1 c0",                INSN_NEXT,     RAX, RAX, 0, FLAG_CF | FLAG_OF, 0, 0},
    {"d1 d0",                INSN_NEXT,     RAX, RAX, FLAG_CF, FLAG_CF | FLAG_OF, 0, 0},
    {"f7 e3",                INSN_NEXT,     RAX | RBX, RAX | RDX, 0, FLAG_CF | FLAG_OF, MULTIPLIED, 0},
    {"f6 e3",                INSN_NEXT,     RAX | RBX, RAX, 0, FLAG_CF | FLAG_OF, MULTIPLIED, 0},
    {"f7 f3",                INSN_NEXT,     RAX | RBX | RDX, RAX | RDX, 0, 0, ALL, 0},
    {"99",                   INSN_NEXT,     RAX, RDX, 0, 0, 0, 0},
    {"0f af c3",             INSN_NEXT,     RAX | RBX, RAX, 0, FLAG_CF | FLAG_OF, MULTIPLIED, 0},
    {"6b c3 05",             INSN_NEXT,     RBX, RAX, 0, FLAG_CF | FLAG_OF, MULTIPLIED, 0},
    {"0f 44 c3",             INSN_NEXT,     RAX | RBX, RAX, FLAG_ZF, 0, 0, 0},
    {"0f 9f c0",             INSN_NEXT,     RAX, RAX, FLAG_ZF | FLAG_SF | FLAG_OF, 0, 0, 0},
    {"0f a3 d8",             INSN_NEXT,     RAX | RBX, 0, 0, FLAG_CF, FLAG_OF | FLAG_SF | FLAG_AF | FLAG_PF, 0},
    {"0f bc c3",             INSN_NEXT,     RAX | RBX, RAX, 0, ALL, ALL & ~FLAG_ZF, 0},
    {"f3 ac",                INSN_NEXT,     RAX | RCX | RSI, RAX | RCX | RSI, FLAG_DF, 0, 0,
     INSN_STRING | INSN_REP | INSN_ENDS_TB},
    {"c1 c0 05",             INSN_NEXT,     RAX, RAX, FLAG_OF, FLAG_CF, FLAG_OF, 0},
    {"f3 0f bc c3",          INSN_NEXT,     RBX, RAX, 0, FLAG_CF | FLAG_ZF, ALL & ~(FLAG_CF | FLAG_ZF), 0},
    {"c4 e2 60 f2 c1",       INSN_NEXT,     RBX | RCX, RAX, 0, ALL, FLAG_AF | FLAG_PF, 0}, /* andn */
    {"c4 e2 70 f7 c3",       INSN_NEXT,     RBX | RCX, RAX, 0, ALL, FLAG_AF | FLAG_PF | FLAG_SF, 0},
    {"0f b1 cb",             INSN_NEXT,     RAX | RBX | RCX, RAX | RBX, 0, ALL, 0, 0},
    {"48 0f c7 0b",          INSN_NEXT,     RAX | RBX | RCX | RDX, RAX | RDX, 0, FLAG_ZF, 0, 0},
    {"8d 04 8b",             INSN_NEXT,     RBX | RCX, RAX, 0, 0, 0, 0},
    {"50",                   INSN_NEXT,     RAX | RSP, RSP, 0, 0, 0, 0},
    {"41 58",                INSN_NEXT,     RSP, RSP | R8, 0, 0, 0, 0},
    {"c9",                   INSN_NEXT,     RBP, RSP | RBP, 0, 0, 0, 0},
    {"9c",                   INSN_NEXT,     RSP, RSP, ALL | FLAG_DF, 0, 0, 0},
    {"9d",                   INSN_NEXT,     RSP, RSP, 0, ALL | FLAG_DF, 0, INSN_ENDS_TB},
    {"fd",                   INSN_NEXT,     0, 0, 0, FLAG_DF, 0, 0},
    {"a4",                   INSN_NEXT,     RSI | RDI, RSI | RDI, FLAG_DF, 0, 0, INSN_STRING},
    {"f3 ab",                INSN_NEXT,     RAX | RCX | RDI, RCX | RDI, FLAG_DF, 0, 0,
     INSN_STRING | INSN_REP | INSN_ENDS_TB},
    {"f2 ae",                INSN_NEXT,     RAX | RCX | RDI, RCX | RDI, ALL | FLAG_DF, 0, 0,
     INSN_STRING | INSN_REPNE | INSN_ENDS_TB},
    {"0f a2",                INSN_NEXT,     RAX | RCX, RAX | RBX | RCX | RDX, 0, 0, 0, 0},
    {"0f 31",                INSN_NEXT,     0, RAX | RDX, 0, 0, 0, INSN_ENDS_TB},
    {"c4 e2 e3 f6 c1",       INSN_NEXT,     RCX | RDX, RAX | RBX, 0, 0, 0, 0}, /* mulx */
    {"f2 0f 2c c1",          INSN_NEXT,     0, RAX, 0, 0, 0, INSN_USES_VEC},
    {"66 0f 2e c1",          INSN_NEXT,     0, 0, 0, ALL, 0, INSN_USES_VEC},
    {"c5 f8 93 c1",          INSN_NEXT,     0, RAX, 0, 0, 0, INSN_USES_MASK},
    {"d9 c0",                INSN_NEXT,     0, 0, 0, 0, 0, INSN_USES_X87},
    {"df e9",                INSN_NEXT,     0, 0, 0, ALL, 0, INSN_USES_X87},
    {"62 f1 7c 49 28 c1",    INSN_NEXT,     0, 0, 0, 0, 0, INSN_USES_VEC | INSN_USES_MASK},
    {"65 8b 03",             INSN_NEXT,     RBX, RAX, 0, 0, 0, INSN_USES_GS},
    {"65 8d 03",             INSN_NEXT,     RBX, RAX, 0, 0, 0, 0},
    {"8e e8",                INSN_NEXT,     RAX, 0, 0, 0, 0, INSN_SETS_GS},
    {"8e d8",                INSN_NEXT,     RAX, 0, 0, 0, 0, INSN_ENDS_TB},
    {"8e e0",                INSN_NEXT,     RAX, 0, 0, 0, 0, INSN_SETS_FS},
    {"f0 01 03",             INSN_NEXT,     RAX | RBX, 0, 0, ALL, 0, INSN_LOCK},
    {"67 8b 03",             INSN_NEXT,     RBX, RAX, 0, 0, 0, INSN_ADDR32},
    {"eb 10",                INSN_JUMP,     0, 0, 0, 0, 0, INSN_ENDS_TB},
    {"72 10",                INSN_COND,     0, 0, FLAG_CF, 0, 0, INSN_ENDS_TB},
    {"e2 10",                INSN_COND,     RCX, RCX, 0, 0, 0, INSN_ENDS_TB},
    {"e8 00 00 00 00",       INSN_CALL,     RSP, RSP, 0, 0, 0, INSN_ENDS_TB},
    {"c3",                   INSN_RET,      RSP, RSP, 0, 0, 0, INSN_ENDS_TB},
    {"ff e0",                INSN_JUMP_IND, RAX, 0, 0, 0, 0, INSN_ENDS_TB},
    {"ff d0",                INSN_CALL_IND, RAX | RSP, RSP, 0, 0, 0, INSN_ENDS_TB},
    {"cb",                   INSN_FAR,      RSP, RSP, 0, 0, 0, INSN_ENDS_TB},
    {"cc",                   INSN_TRAP,     0, 0, ALL | FLAG_DF, 0, 0, INSN_ENDS_TB},
    {"0f 0b",                INSN_TRAP,     0, 0, 0, 0, 0, INSN_ENDS_TB},
    {"f4",                   INSN_PRIV,     0, 0, 0, 0, 0, INSN_ENDS_TB},
    /* clang-format on */
};

static void test_effects(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(effect_rows); i++) {
        uint8_t bytes[16];
        struct insn in;
        decode_hex(effect_rows[i].bytes, bytes, &in);
        if (in.kind != effect_rows[i].kind || in.regs_read != effect_rows[i].read ||
            in.regs_written != effect_rows[i].written ||
            in.flags_read != effect_rows[i].flags_read ||
            in.flags_written != effect_rows[i].flags_written ||
            in.flags_undefined != effect_rows[i].flags_undefined ||
            in.flags != effect_rows[i].flags)
            fail_msg("%s: kind %d, registers %x %x, flags %x %x %x, %x", effect_rows[i].bytes,
                     in.kind, in.regs_read, in.regs_written, in.flags_read, in.flags_written,
                     in.flags_undefined, in.flags);
    }
}

/* ---- memory operands ---------------------------------------------------------------------------
 */

static const struct {
    const char *bytes;
    struct mem_op mem[3];
    unsigned nmem;
} memory_rows[] = {
/* clang-format off */
#define M(base, index, scale, disp, size, flags) {base, index, scale, SEG_NONE, flags, size, disp, 1, 0}
#define NO REG_NONE
    {"8b 43 08",          {M(GPR_RBX, NO, 1, 8, 4, MEM_READ)}, 1},
    {"01 04 8b",          {M(GPR_RBX, GPR_RCX, 4, 0, 4, MEM_READ | MEM_WRITE)}, 1},
    {"8b 05 10 00 00 00", {M(REG_PC, NO, 1, 0x10, 4, MEM_READ)}, 1},
    {"8b 04 25 10 00 00 00", {M(NO, NO, 1, 0x10, 4, MEM_READ)}, 1},
    {"0f be 03",          {M(GPR_RBX, NO, 1, 0, 1, MEM_READ | MEM_SIGNED)}, 1},
    {"69 03 00 00 00 00", {M(GPR_RBX, NO, 1, 0, 4, MEM_READ | MEM_SIGNED)}, 1},
    {"48 69 03 00 00 00 00", {M(GPR_RBX, NO, 1, 0, 8, MEM_READ)}, 1},
    {"df 03",             {M(GPR_RBX, NO, 1, 0, 2, MEM_READ | MEM_SIGNED)}, 1},
    {"db 03",             {M(GPR_RBX, NO, 1, 0, 4, MEM_READ)}, 1},
    {"66 63 03",          {M(GPR_RBX, NO, 1, 0, 2, MEM_READ | MEM_SIGNED)}, 1},
    {"0f 38 f0 03",       {M(GPR_RBX, NO, 1, 0, 4, MEM_READ | MEM_BIGEND)}, 1},
    {"50",                {M(GPR_RSP, NO, 1, -8, 8, MEM_WRITE | MEM_STACK)}, 1},
    {"66 50",             {M(GPR_RSP, NO, 1, -2, 2, MEM_WRITE | MEM_STACK)}, 1},
    {"58",                {M(GPR_RSP, NO, 1, 0, 8, MEM_READ | MEM_STACK)}, 1},
    {"c3",                {M(GPR_RSP, NO, 1, 0, 8, MEM_READ | MEM_STACK)}, 1},
    {"e8 00 00 00 00",    {M(GPR_RSP, NO, 1, -8, 8, MEM_WRITE | MEM_STACK)}, 1},
    {"c9",                {M(GPR_RBP, NO, 1, 0, 8, MEM_READ | MEM_STACK)}, 1},
    {"ff 33",             {M(GPR_RBX, NO, 1, 0, 8, MEM_READ),
                           M(GPR_RSP, NO, 1, -8, 8, MEM_WRITE | MEM_STACK)}, 2},
    {"ff 13",             {M(GPR_RBX, NO, 1, 0, 8, MEM_READ),
                           M(GPR_RSP, NO, 1, -8, 8, MEM_WRITE | MEM_STACK)}, 2},
    {"8f 44 24 08",       {M(GPR_RSP, NO, 1, 0, 8, MEM_READ | MEM_STACK),
                           M(GPR_RSP, NO, 1, 16, 8, MEM_WRITE)}, 2},
    {"48 a5",             {M(GPR_RSI, NO, 1, 0, 8, MEM_READ), M(GPR_RDI, NO, 1, 0, 8, MEM_WRITE)}, 2},
    {"a6",                {M(GPR_RDI, NO, 1, 0, 1, MEM_READ), M(GPR_RSI, NO, 1, 0, 1, MEM_READ)}, 2},
    {"d7",                {M(GPR_RBX, GPR_RAX, 1, 0, 1, MEM_READ | MEM_INDEX8)}, 1},
    {"0f 11 03",          {M(GPR_RBX, NO, 1, 0, 16, MEM_WRITE)}, 1},
    {"c5 fc 28 03",       {M(GPR_RBX, NO, 1, 0, 32, MEM_READ)}, 1},
    {"62 f1 7c 48 28 43 01", {M(GPR_RBX, NO, 1, 64, 64, MEM_READ)}, 1},
    {"62 f1 7c 58 58 43 01", {M(GPR_RBX, NO, 1, 4, 4, MEM_READ)}, 1},
    {"62 f1 7c 49 28 03", {M(GPR_RBX, NO, 1, 0, 64, MEM_READ | MEM_MASKED)}, 1},
    {"f3 0f 10 03",       {M(GPR_RBX, NO, 1, 0, 4, MEM_READ)}, 1},
    {"c4 e2 79 18 03",    {M(GPR_RBX, NO, 1, 0, 4, MEM_READ)}, 1},
    {"db 2b",             {M(GPR_RBX, NO, 1, 0, 10, MEM_READ)}, 1},
    {"8d 43 08",          {{0}}, 0},
    {"0f 1f 03",          {{0}}, 0},
    {"0f 18 0b",          {{0}}, 0},
    /* clang-format on */
};

static bool same_memory(const struct mem_op *a, const struct mem_op *b)
{
    return a->base == b->base && a->index == b->index && a->scale == b->scale && a->seg == b->seg &&
           a->flags == b->flags && a->count == b->count && a->size == b->size && a->disp == b->disp;
}

static void test_memory(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(memory_rows); i++) {
        uint8_t bytes[16];
        struct insn in;
        decode_hex(memory_rows[i].bytes, bytes, &in);
        bool good = in.nmem == memory_rows[i].nmem;
        for (unsigned k = 0; good && k < in.nmem; k++)
            good = same_memory(&in.mem[k], &memory_rows[i].mem[k]);
        if (!good)
            fail_msg("%s: %d operands, first base %d index %d size %d disp %d flags %x",
                     memory_rows[i].bytes, in.nmem, in.mem[0].base, in.mem[0].index, in.mem[0].size,
                     in.mem[0].disp, in.mem[0].flags);
    }
}

static void test_gather(void **state)
{
    uint8_t bytes[16];
    struct insn in;
    (void)state;
    decode_hex("62 f2 7d 49 92 04 2f", bytes, &in); /* vgatherdps (%rdi, %zmm5), %zmm0 {%k1} */
    assert_int_equal(in.mem[0].count, 16);
    assert_int_equal(in.mem[0].size, 4);
    assert_int_equal(in.mem[0].index, 5);
    assert_int_equal(in.mem[0].flags, MEM_READ | MEM_VSIB | MEM_MASKED);
    assert_int_equal(in.regs_read, RDI);
}

/* ---- fields that the translator patches --------------------------------------------------------
 */

static void test_offsets(void **state)
{
    uint8_t bytes[16];
    struct insn in;
    (void)state;
    decode_hex("66 81 05 04 03 02 01 34 12", bytes, &in); /* addw $0x1234, 0x1020304(%rip) */
    assert_int_equal(in.prefix_len, 1);
    assert_int_equal(in.modrm_off, 2);
    assert_int_equal(in.disp_off, 3);
    assert_int_equal(in.disp_size, 4);
    assert_int_equal(in.imm_off, 7);
    assert_int_equal(in.imm_size, 2);
    assert_int_equal(in.imm, 0x1234);
    assert_true(in.rip_relative);
    decode_hex("0f 84 fa ff ff ff", bytes, &in);
    assert_int_equal(in.target, PC);
    assert_int_equal(in.imm_off, 2);
    assert_false(in.rip_relative);
    decode_hex("64 48 a1 08 07 06 05 04 03 02 01", bytes, &in); /* movabs */
    assert_int_equal(in.imm, 0x102030405060708);
    assert_int_equal(in.mem[0].flags, MEM_READ | MEM_ABS64);
    assert_int_equal(in.mem[0].seg, SEG_FS);
}

/* ---- legality ----------------------------------------------------------------------------------
 */

/* clang-format off */
static const char *const illegal_rows[] = {
    /* not in 64-bit mode */
    "06", "0e", "27", "60", "82 c0 00", "9a 00", "ce", "d4 00", "d6", "ea 00",
    /* holes */
    "0f 04", "0f 0a", "0f 24", "0f 36", "0f 39",
    /* lock: nothing to lock, no memory, a memory source */
    "f0 90", "f0 01 c0", "f0 39 03", "f0 8b 03", "f0 f6 03 00",
    /* ModRM */
    "8d c0", "0f c3 c0", "8c f0", "8e c8", "0f 20 c8", "c7 c8 00 00 00 00",
    /* prefixes before VEX */
    "66 c5 f8 28 c0", "48 c5 f8 28 c0", "f2 c5 f8 28 c0", "f0 c5 f8 28 c0",
    /* VEX: vvvv, one register twice in a gather, W, vvvv, L, mask register 8 */
    "c5 f0 28 c0", "c4 e2 7d 92 04 08", "c4 e3 7d 00 c0 00", "c5 70 77", "c4 e2 7c f2 c0",
    "c5 bc 42 e8",
    /* EVEX: no row, reserved bits, zeroing without mask, length 3, a gather without mask */
    "62 f1 7c 48 ff c0", "62 f9 7c 48 28 c0", "62 f1 78 48 28 c0", "62 f1 7c c8 28 c0",
    "62 f1 7c 68 28 c0", "62 f2 7d 48 92 04 2f",
};
/* clang-format on */

static void test_illegal(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(illegal_rows); i++) {
        uint8_t bytes[16] = {0};
        struct insn in;
        parse_bytes(illegal_rows[i], bytes);
        assert_int_equal(decode(&in, bytes, 15, PC), DECODE_OK);
        if (in.kind != INSN_ILLEGAL || in.row)
            fail_msg("%s: kind %d", illegal_rows[i], in.kind);
    }
}

static void test_length_limit(void **state)
{
    uint8_t bytes[64];
    struct insn in;
    (void)state;
    memset(bytes, 0x66, sizeof bytes);
    bytes[14] = 0x90;
    assert_int_equal(decode(&in, bytes, sizeof bytes, PC), DECODE_OK);
    assert_int_equal(in.len, 15);
    assert_int_equal(in.kind, INSN_NEXT);
    bytes[14] = 0x66;
    assert_int_equal(decode(&in, bytes, sizeof bytes, PC), DECODE_OK);
    assert_int_equal(in.kind, INSN_PRIV); /* #GP */
    bytes[13] = 0x05;                     /* 13 + 1 + 2 */
    assert_int_equal(decode(&in, bytes, sizeof bytes, PC), DECODE_OK);
    assert_int_equal(in.kind, INSN_PRIV);
    assert_null(in.row);
}

static void test_rex_is_last(void **state)
{
    uint8_t bytes[16];
    struct insn in;
    (void)state;
    decode_hex("48 66 89 c3", bytes, &in);
    assert_int_equal(in.opsize, 2);
    assert_int_equal(in.rex, 0);
    decode_hex("66 48 89 c3", bytes, &in);
    assert_int_equal(in.opsize, 8);
    decode_hex("41 48 89 c3", bytes, &in); /* the last REX counts */
    assert_int_equal(in.rex, 0x48);
    assert_int_equal(in.regs_written, RBX);
}

/* ---- objdump ------------------------------------------------------------------------------------
 */

enum { SLOT = 32 };

/* Every mod and rm with one reg or the other, and every reg with memory and with a register. */
enum { FORMS = 4 * 8 + 2 * 8 };
static uint8_t walk_modrm(unsigned op, unsigned form)
{
    if (form < 32)
        return (uint8_t)((form >> 3) << 6 | ((op + form) & 7) << 3 | (form & 7));
    return (uint8_t)((form & 8 ? 0xC0 : 0) | (form & 7) << 3 | 3);
}

/* All opcodes of a map with every form of ModRM, SIB and displacement, one in each slot. */
static size_t make_walk(uint8_t *out, const char *prefix_hex)
{
    uint8_t prefix[16];
    size_t n = parse_bytes(prefix_hex, prefix), slots = 0;
    for (unsigned op = 0; op < 256; op++) {
        if (op == 0x9B && n < 2) /* fwait: objdump joins it with what follows */
            continue;
        for (unsigned form = 0; form < FORMS; form++, slots++) {
            uint8_t *p = out + slots * SLOT;
            memset(p, 0x90, SLOT);
            memcpy(p, prefix, n);
            p[n] = (uint8_t)op;
            p[n + 1] = walk_modrm(op, form);
            memcpy(p + n + 2, "\x4c\x22\x33\x44\x05\x16\x27\x38", n < 6 ? 8 : 15 - n - 2);
        }
    }
    return slots;
}

/* Mnemonics of objdump's: of encodings that we decode too, and of those that we refuse. */
enum { NAME_SIZE = 24, NAMES_MAX = 4000 };
struct names {
    size_t count;
    char name[NAMES_MAX][NAME_SIZE];
};

static bool has_name(const struct names *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->name[i], name) == 0)
            return true;
    return false;
}

static void add_name(struct names *names, const struct line *line)
{
    char name[NORMAL], operands[NORMAL];
    normalise(line->text, 8, name, operands);
    if (has_name(names, name))
        return;
    assert_true(names->count < NAMES_MAX && strlen(name) < NAME_SIZE);
    strcpy(names->name[names->count++], name);
}

struct walk {
    unsigned long slots, lengths, texts; /* encodings; those of which length, text differ */
    struct names decoded, refused;
};

/* Where both see an instruction, it must be the same. objdump lets pass what processors refuse; the
 * other way round is a row too much, or newer than objdump. */
static void compare_insn(struct walk *walk, const struct line *line, const uint8_t *code)
{
    struct insn in;
    char text[128];
    if (decode(&in, code, SLOT, line->addr) != DECODE_OK || !in.row) {
        if (!(in.prefixes & PREFIX_LOCK)) /* almost nothing takes it */
            add_name(&walk->refused, line);
        return;
    }
    add_name(&walk->decoded, line);
    disas(text, sizeof text, &in, code, DISAS_ATT);
    if (in.len != line->len) {
        print_message("length %d: %s; objdump %d: %s\n", in.len, text, line->len, line->text);
        walk->lengths++;
    } else if (!same_text(line, &in, text) && !is_objdump_error(line)) {
        print_message("%s; objdump: %s\n", text, line->text);
        walk->texts++;
    }
}

static void compare_walk(struct walk *walk, const uint8_t *code, size_t slots)
{
    char path[] = "/tmp/test_decode_XXXXXX", command[200];
    struct line line;
    int fd = mkstemp(path);
    assert_int_equal(write(fd, code, slots * SLOT), (ssize_t)(slots * SLOT));
    close(fd);
    snprintf(command, sizeof command,
             "objdump -Dw -b binary -m i386:x86-64 -M suffix,intel64 --insn-width=15 %s", path);
    FILE *pipe = popen(command, "r");
    while (read_line(pipe, &line))
        if (line.addr % SLOT == 0 && !is_bad(&line) && !only_prefixes(&line))
            compare_insn(walk, &line, code + line.addr);
    assert_int_equal(pclose(pipe), 0);
    unlink(path);
    walk->slots += slots;
}

/* An instruction of objdump's that is refused wherever it comes is a row that is missing; but for
 * 66 movnti, which is #UD. */
static unsigned count_unknown(const struct walk *walk)
{
    unsigned unknown = 0;
    for (size_t i = 0; i < walk->refused.count; i++)
        if (!has_name(&walk->decoded, walk->refused.name[i]) &&
            strcmp(walk->refused.name[i], "movntiw") != 0) {
            print_message("no row: %s\n", walk->refused.name[i]);
            unknown++;
        }
    return unknown;
}

static void test_walk(void **state)
{
    static const char *const maps[] = {
        "",
        "66",
        "f3",
        "48",
        "0f",
        "66 0f",
        "f3 0f",
        "f2 0f",
        "48 0f",
        "0f 38",
        "66 0f 38",
        "f2 0f 38",
        "f3 0f 38",
        "0f 3a",
        "66 0f 3a",
        "c4 e1 78",
        "c4 e1 7c",
        "c4 e1 79",
        "c4 e1 7e",
        "c4 e1 7f",
        "c4 e1 58",
        "c4 e1 5d",
        "c4 e2 79",
        "c4 e2 5d",
        "c4 e2 fd",
        "c4 e2 78",
        "c4 e2 7a",
        "c4 e2 7b",
        "c4 e3 79",
        "c4 e3 5d",
        "c4 e3 fd",
        "8f e8 78",
        "8f e9 78",
        "8f ea 78",
        "62 f1 7c 48",
        "62 f1 fd 48",
        "62 f1 7e 08",
        "62 f1 ff 08",
        "62 f1 5c 4a",
        "62 f2 7d 48",
        "62 f2 fd 4b",
        "62 f2 5d 2a",
        "62 f2 7e 48",
        "62 f2 77 48",
        "62 f2 fd 49",
        "62 f2 7d 49",
        "62 f3 7d 48",
        "62 f3 dd 4a",
        "62 f5 7c 48",
        "62 f5 7e 08",
        "62 f6 7d 48",
        "62 f6 5d 08",
        "62 f1 5c 58",
    };
    enum { SLOTS = 256 * FORMS };
    static uint8_t code[SLOTS * SLOT];
    static struct walk walk;
    (void)state;
    for (size_t i = 0; i < COUNT(maps); i++)
        compare_walk(&walk, code, make_walk(code, maps[i]));
    print_message("%lu encodings, %lu texts differ\n", walk.slots, walk.texts);
    assert_int_equal(walk.lengths, 0);
    assert_int_equal(walk.texts, 0);
    assert_int_equal(count_unknown(&walk), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_of_every_row),
        cmocka_unit_test(test_text_for_plugins),
        cmocka_unit_test(test_text_intel),
        cmocka_unit_test(test_all_rows_have_a_case),
        cmocka_unit_test(test_every_prefix_of_an_insn_is_partial),
        cmocka_unit_test(test_effects),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_gather),
        cmocka_unit_test(test_offsets),
        cmocka_unit_test(test_illegal),
        cmocka_unit_test(test_length_limit),
        cmocka_unit_test(test_rex_is_last),
        cmocka_unit_test(test_walk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
