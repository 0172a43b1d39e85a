/* disas.c: text of decoded instructions, and listings of ELF files for -disas.
 *
 * AT&T text has the form that QEMU's plugins show: every mnemonic with its size suffix, a blank
 * behind a mnemonic without operands, numbers up to 9 decimal and others hexadecimal, branch
 * targets absolute, displacements as they are. Intel text follows the manual. It may know the
 * opcode table; it must not know anything of the running guest. */
#include "opcodes_x86_64.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- names ----------------------------------------------------------------------------------- */

/* clang-format off */
/* Register names as in AT&T syntax; Intel's starts one character later. Eight bytes each, so that
 * one copy of fixed length writes any of them. */
struct reg_name {
    char text[7];
    uint8_t len;
};
#define N(name) {"%" name, sizeof(name)}
static const struct reg_name gpr_names[5][16] = {
    {N("al"), N("cl"), N("dl"), N("bl"), N("spl"), N("bpl"), N("sil"), N("dil"),
     N("r8b"), N("r9b"), N("r10b"), N("r11b"), N("r12b"), N("r13b"), N("r14b"), N("r15b")},
    {N("ax"), N("cx"), N("dx"), N("bx"), N("sp"), N("bp"), N("si"), N("di"),
     N("r8w"), N("r9w"), N("r10w"), N("r11w"), N("r12w"), N("r13w"), N("r14w"), N("r15w")},
    {N("eax"), N("ecx"), N("edx"), N("ebx"), N("esp"), N("ebp"), N("esi"), N("edi"),
     N("r8d"), N("r9d"), N("r10d"), N("r11d"), N("r12d"), N("r13d"), N("r14d"), N("r15d")},
    {N("rax"), N("rcx"), N("rdx"), N("rbx"), N("rsp"), N("rbp"), N("rsi"), N("rdi"),
     N("r8"), N("r9"), N("r10"), N("r11"), N("r12"), N("r13"), N("r14"), N("r15")},
    {[4] = N("ah"), N("ch"), N("dh"), N("bh")}, /* bytes 4 to 7 without REX */
};
static const struct reg_name rip_name = N("rip"), eip_name = N("eip");
static const struct reg_name vec_names[4] = {N("xmm"), N("ymm"), N("zmm"), N("zmm")};
static const char segment_names[8][3] = {"es", "cs", "ss", "ds", "fs", "gs", "?", "?"};

/* Predicates of cmpps and its like; SSE has the first eight. */
static const char compare_names[32][9] = {
    "eq", "lt", "le", "unord", "neq", "nlt", "nle", "ord",
    "eq_uq", "nge", "ngt", "false", "neq_oq", "ge", "gt", "true",
    "eq_os", "lt_oq", "le_oq", "unord_s", "neq_us", "nlt_uq", "nle_uq", "ord_s",
    "eq_us", "nge_uq", "ngt_uq", "false_os", "neq_os", "ge_oq", "gt_oq", "true_us",
};
static const char int_compare_names[8][6] = {"eq", "lt", "le", "", "neq", "nlt", "nle", ""};
static const char xop_compare_names[8][6] = {"lt", "le", "gt", "ge", "eq", "neq", "false", "true"};
static const char rounding_names[4][10] = {"{rn-sae}", "{rd-sae}", "{ru-sae}", "{rz-sae}"};
/* clang-format on */

/* ---- output ---------------------------------------------------------------------------------- */

/* No instruction's text is longer, with room for copies of fixed length. */
enum { TEXT_MAX = 128 };

struct text {
    char *p;
    bool att;
};

static inline void put_char(struct text *t, char c)
{
    *t->p++ = c;
}

static inline void put(struct text *t, const char *s)
{
    while (*s)
        put_char(t, *s++);
}

static void put_hex(struct text *t, uint64_t v)
{
    put(t, "0x");
    int shift = v ? (63 - __builtin_clzll(v)) & ~3 : 0;
    for (; shift >= 0; shift -= 4)
        put_char(t, "0123456789abcdef"[v >> shift & 15]);
}

/* Up to 9 decimal, else hexadecimal. */
static void put_unsigned(struct text *t, uint64_t v)
{
    if (v <= 9)
        put_char(t, (char)('0' + v));
    else
        put_hex(t, v);
}

static void put_signed(struct text *t, int64_t v)
{
    if (v < 0) {
        put_char(t, '-');
        v = (int64_t)(0 - (uint64_t)v);
    }
    put_unsigned(t, (uint64_t)v);
}

static inline void put_reg(struct text *t, const char *name)
{
    if (t->att)
        put_char(t, '%');
    put(t, name);
}

static inline void put_reg_name(struct text *t, const struct reg_name *name)
{
    unsigned skip = !t->att;
    memcpy(t->p, name->text + skip, 6);
    t->p += name->len - skip;
}

static inline void put_number(struct text *t, unsigned n)
{
    if (n >= 10)
        put_char(t, (char)('0' + n / 10));
    put_char(t, (char)('0' + n % 10));
}

/* A register with a number: xmm12, k1. */
static void put_numbered(struct text *t, const char *stem, unsigned n)
{
    put_reg(t, stem);
    put_number(t, n);
}

/* ---- registers ------------------------------------------------------------------------------- */

static inline unsigned log2_size(unsigned opsize)
{
    return opsize == 8 ? 3 : opsize >> 1;
}

/* Index into gpr_names of a general register operand. */
static unsigned gpr_log(const struct insn *in, unsigned size)
{
    switch (size) {
    case SZ_b:
        return 0;
    case SZ_w:
        return 1;
    case SZ_d:
    case SZ_ss:
    case SZ_dw:
    case SZ_db:
        return 2;
    case SZ_y:
        return in->opsize == 8 ? 3 : 2;
    case SZ_z:
        return in->opsize == 2 ? 1 : 2;
    case SZ_v:
    case SZ_vw:
        return log2_size(in->opsize);
    case SZ_a:
        return in->flags & INSN_ADDR32 ? 2 : 3;
    default:
        return 3;
    }
}

static void put_gpr(struct text *t, const struct insn *in, unsigned size, unsigned n)
{
    unsigned log = gpr_log(in, size);
    n &= 15;
    if (log == 0 && n >= 4 && n < 8 && !in->rex && in->enc == ENC_LEGACY)
        log = 4;
    put_reg_name(t, &gpr_names[log][n]);
}

/* Length class of a vector register operand: a half is as long as the next class holds. */
static unsigned vec_class(const struct insn *in, unsigned size)
{
    switch (size) {
    case SZ_x:
    case SZ_dd:
    case SZ_xb:
    case SZ_xw:
    case SZ_xd:
    case SZ_xq:
        return in->vec_len;
    case SZ_h:
        return in->vec_len ? in->vec_len - 1u : 0;
    case SZ_qq:
        return 1;
    case SZ_zq:
        return 2;
    default:
        return 0;
    }
}

static void put_vec(struct text *t, const struct insn *in, unsigned size, unsigned n)
{
    put_reg_name(t, &vec_names[vec_class(in, size)]);
    put_number(t, n);
}

static void put_st(struct text *t, unsigned n)
{
    put_reg(t, "st(");
    put_char(t, (char)('0' + n));
    put_char(t, ')');
}

static void put_register(struct text *t, const struct insn *in, unsigned operand, unsigned n)
{
    unsigned size = OPERAND_SIZE(operand);
    switch (OPERAND_CLASS(operand)) {
    case IN_GPR:
        put_gpr(t, in, size, n);
        break;
    case IN_VEC:
        put_vec(t, in, size, n);
        break;
    case IN_MMX:
        put_numbered(t, "mm", n & 7);
        break;
    case IN_MASK:
        put_numbered(t, "k", n & 7);
        break;
    case IN_SEG:
        put_reg(t, segment_names[n & 7]);
        break;
    case IN_CR:
        put_numbered(t, "cr", n);
        break;
    case IN_DR:
        put_numbered(t, "dr", n);
        break;
    case IN_ST:
        put_st(t, n & 7);
        break;
    case IN_BND:
        put_numbered(t, "bnd", n & 3);
        break;
    default:
        put_numbered(t, "tmm", n & 7);
    }
}

/* ---- memory operands ------------------------------------------------------------------------- */

/* The segment override: fs or gs, else the last of the others as written: it has no effect. */
static const char *segment_prefix(const struct insn *in, const uint8_t *code)
{
    const char *name = NULL;
    if (in->prefixes & (PREFIX_FS | PREFIX_GS))
        return in->prefixes & PREFIX_FS ? "fs" : "gs";
    for (unsigned i = 0; in->prefixes & PREFIX_NULL && i < in->prefix_len; i++)
        if ((code[i] & 0xE7) == 0x26)
            name = segment_names[code[i] >> 3 & 3];
    return name;
}

static void put_segment(struct text *t, const struct insn *in, const uint8_t *code)
{
    const char *name = segment_prefix(in, code);
    if (name) {
        put_reg(t, name);
        put_char(t, ':');
    }
}

static void put_address_reg(struct text *t, const struct insn *in, int reg)
{
    if (reg == REG_PC)
        put_reg_name(t, in->flags & INSN_ADDR32 ? &eip_name : &rip_name);
    else
        put_reg_name(t, &gpr_names[in->flags & INSN_ADDR32 ? 2 : 3][reg & 15]);
}

/* A vector index is as long as the vectors, or half if its elements are half as wide as the data:
 * even opcodes have 32-bit indices. */
static void put_vector_index(struct text *t, const struct insn *in, const struct mem_op *m)
{
    bool half = !(in->opcode & 1) && m->size == 8 && in->vec_len;
    put_reg_name(t, &vec_names[in->vec_len - half]);
    put_number(t, (unsigned)m->index & 31);
}

static void put_index(struct text *t, const struct insn *in, const struct mem_op *m)
{
    if (m->flags & MEM_VSIB)
        put_vector_index(t, in, m);
    else
        put_address_reg(t, in, m->index);
}

static void put_att_address(struct text *t, const struct insn *in, const struct mem_op *m,
                            int64_t disp)
{
    bool plain = m->base == REG_NONE && m->index == REG_NONE;
    if (plain)
        put_unsigned(t, (uint64_t)disp);
    else if (disp)
        put_signed(t, disp);
    if (plain)
        return;
    put_char(t, '(');
    if (m->base != REG_NONE)
        put_address_reg(t, in, m->base);
    if (m->index != REG_NONE) {
        put(t, ", ");
        put_index(t, in, m);
        if (m->scale > 1) {
            put(t, ", ");
            put_char(t, (char)('0' + m->scale));
        }
    }
    put_char(t, ')');
}

static void put_intel_address(struct text *t, const struct insn *in, const struct mem_op *m,
                              int64_t disp)
{
    bool first = true;
    put_char(t, '[');
    if (m->base != REG_NONE) {
        put_address_reg(t, in, m->base);
        first = false;
    }
    if (m->index != REG_NONE) {
        put(t, first ? "" : " + ");
        if (m->scale > 1) {
            put_char(t, (char)('0' + m->scale));
            put_char(t, '*');
        }
        put_index(t, in, m);
        first = false;
    }
    if (first) {
        put_unsigned(t, (uint64_t)disp);
    } else if (disp) {
        put(t, disp < 0 ? " - " : " + ");
        put_unsigned(t, disp < 0 ? 0 - (uint64_t)disp : (uint64_t)disp);
    }
    put_char(t, ']');
}

static void put_pointer_size(struct text *t, unsigned size)
{
    static const struct {
        uint8_t size;
        char name[15];
    } names[] = {{1, "byte ptr "},     {2, "word ptr "},     {4, "dword ptr "},
                 {6, "fword ptr "},    {8, "qword ptr "},    {10, "tbyte ptr "},
                 {16, "xmmword ptr "}, {32, "ymmword ptr "}, {64, "zmmword ptr "}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].size == size)
            put(t, names[i].name);
}

/* Elements of a broadcast: as many as the operand has without it. */
static unsigned broadcast_count(const struct insn *in, unsigned element)
{
    unsigned size = 16u << in->vec_len;
    unsigned operand = in->row->mem_size;
    size >>= operand == SZ_h ? 1 : operand == SZ_f ? 2 : operand == SZ_e ? 3 : 0;
    return size / element;
}

static void put_broadcast(struct text *t, const struct insn *in, unsigned element)
{
    unsigned n = broadcast_count(in, element);
    put(t, "{1to");
    put_number(t, n);
    put_char(t, '}');
}

static void put_modrm_memory(struct text *t, const struct insn *in, const uint8_t *code)
{
    const struct mem_op *m = &in->mem[in->mem_index];
    int64_t disp = m->disp;
    if (in->mem_index && m->base == GPR_RSP)
        disp -= in->opsize; /* pop (%rsp): decode() counted in that rsp moves first */
    bool indirect = in->kind == INSN_JUMP_IND || in->kind == INSN_CALL_IND || in->kind == INSN_FAR;
    if (t->att && indirect)
        put_char(t, '*');
    if (!t->att)
        put_pointer_size(t, m->size);
    put_segment(t, in, code);
    if (t->att)
        put_att_address(t, in, m, disp);
    else
        put_intel_address(t, in, m, disp);
    if (in->evex & EVEX_B)
        put_broadcast(t, in, m->size);
}

/* rsi, rdi or rbx of string instructions and xlat. */
static void put_string_memory(struct text *t, const struct insn *in, const uint8_t *code, int reg,
                              bool segment)
{
    if (!t->att)
        put_pointer_size(t, in->opsize);
    if (segment)
        put_segment(t, in, code);
    else if (!t->att)
        put(t, "es:");
    put_char(t, t->att ? '(' : '[');
    put_address_reg(t, in, reg);
    put_char(t, t->att ? ')' : ']');
}

/* ---- immediates ------------------------------------------------------------------------------ */

static bool is_immediate(unsigned operand)
{
    return OPERAND_PLACE(operand) == AT_IMM;
}

static uint64_t mask_to_size(uint64_t v, unsigned bytes)
{
    return bytes >= 8 ? v : v & ((1ull << 8 * bytes) - 1);
}

/* Counts show their sign; bits (and, or, xor) and what is as wide as the operand do not. */
static bool shows_sign(const struct insn *in, unsigned operand)
{
    if (in->row->attr & BITWISE)
        return false;
    return operand == OPND_Isb || (operand == OPND_Iz && in->opsize == 8);
}

static void put_immediate(struct text *t, const struct insn *in, const uint8_t *code, unsigned i)
{
    unsigned operand = in->row->op[i];
    uint64_t v = in->imm;
    if (t->att)
        put_char(t, '$');
    if (i > 0 && is_immediate(in->row->op[i - 1])) { /* enter, extrq: the second immediate */
        put_unsigned(t, code[in->imm_off + in->imm_size]);
        return;
    }
    if (OPERAND_CLASS(operand) == IN_UIMM)
        put_unsigned(t, mask_to_size(v, in->imm_size));
    else if (shows_sign(in, operand))
        put_signed(t, (int64_t)v);
    else
        put_unsigned(t, mask_to_size(v, in->opsize));
}

/* ---- operands -------------------------------------------------------------------------------- */

static void put_fixed(struct text *t, const struct insn *in, unsigned operand)
{
    unsigned number = OPERAND_NUMBER(operand);
    switch (OPERAND_CLASS(operand)) {
    case IN_ONE:
        put(t, t->att ? "$1" : "1");
        break;
    case IN_SEG:
        put_reg(t, segment_names[4 + number]);
        break;
    default:
        put_register(t, in, operand, number);
    }
}

static void put_rm(struct text *t, const struct insn *in, const uint8_t *code, unsigned operand)
{
    bool is_register = in->modrm >= 0xC0 || in->row->attr & MODREG;
    if (!is_register) {
        put_modrm_memory(t, in, code);
        return;
    }
    if (t->att && (in->kind == INSN_JUMP_IND || in->kind == INSN_CALL_IND))
        put_char(t, '*');
    put_register(t, in, operand, in->rm);
}

static void put_is4(struct text *t, const struct insn *in, unsigned operand)
{
    put_register(t, in, operand, (unsigned)in->imm >> 4 & 15);
}

static void put_moffs(struct text *t, const struct insn *in, const uint8_t *code)
{
    if (!t->att)
        put_pointer_size(t, in->opsize);
    put_segment(t, in, code);
    put(t, t->att ? "" : "[");
    put_unsigned(t, in->imm);
    put(t, t->att ? "" : "]");
}

static void put_operand(struct text *t, const struct insn *in, const uint8_t *code, unsigned i)
{
    unsigned operand = in->row->op[i];
    switch (OPERAND_PLACE(operand)) {
    case AT_REG:
        put_register(t, in, operand, in->reg);
        break;
    case AT_RM:
    case AT_RMREG:
    case AT_RMMEM:
        put_rm(t, in, code, operand);
        break;
    case AT_VVVV:
        put_register(t, in, operand, in->vvvv);
        break;
    case AT_OPC:
        put_register(t, in, operand, (in->opcode & 7u) | (in->rex & 1u) << 3);
        break;
    case AT_IS4:
        put_is4(t, in, operand);
        break;
    case AT_FIXED:
        put_fixed(t, in, operand);
        break;
    case AT_IMM:
        put_immediate(t, in, code, i);
        break;
    case AT_REL:
        put_hex(t, in->target);
        break;
    case AT_MOFFS:
        put_moffs(t, in, code);
        break;
    case AT_SI:
        put_string_memory(t, in, code, GPR_RSI, true);
        break;
    case AT_DI:
        put_string_memory(t, in, code, GPR_RDI, false);
        break;
    default:
        put_string_memory(t, in, code, GPR_RBX, true);
    }
}

static void put_mask(struct text *t, const struct insn *in)
{
    if (in->evex & EVEX_AAA) {
        put(t, " {");
        put_numbered(t, "k", in->evex & EVEX_AAA);
        put_char(t, '}');
    }
    if (in->evex & EVEX_Z)
        put(t, " {z}");
}

static void put_rounding(struct text *t, const struct insn *in, const uint8_t *code)
{
    unsigned mode = code[in->prefix_len + 3] >> 5 & 3;
    put(t, in->row->attr & ER ? rounding_names[mode] : "{sae}");
}

static bool has_rounding(const struct insn *in)
{
    return in->evex & EVEX_B && in->modrm >= 0xC0;
}

static unsigned count_operands(const struct opcode *row)
{
    unsigned n = 0;
    while (n < 4 && row->op[n])
        n++;
    return n;
}

static void put_separator(struct text *t, bool *first)
{
    if (!*first)
        put(t, ", ");
    *first = false;
}

/* One operand and what belongs to it: the mask behind the destination. */
static void put_one(struct text *t, const struct insn *in, const uint8_t *code, unsigned i,
                    bool *first)
{
    put_separator(t, first);
    put_operand(t, in, code, i);
    if (i == 0 && in->evex)
        put_mask(t, in);
}

/* Rounding stands between the registers and the immediate, and in front of a general register. */
static unsigned rounding_place(const struct insn *in, unsigned n)
{
    unsigned place = n;
    while (place > 0 && is_immediate(in->row->op[place - 1]))
        place--;
    if (place > 1 && OPERAND_CLASS(in->row->op[place - 1]) == IN_GPR)
        place--;
    return place;
}

static void put_operands(struct text *t, const struct insn *in, const uint8_t *code)
{
    unsigned n = count_operands(in->row);
    unsigned rounding = has_rounding(in) ? rounding_place(in, n) : 9;
    /* enter, monitor and mwait are written as Intel does */
    unsigned op = in->row->op[0];
    bool backward = t->att && op != OPND_Iw && op != OPND_rAXa && op != OPND_EAX;
    bool first = true;
    if (in->row->attr & IS5 && t->att) {
        put_separator(t, &first);
        put_char(t, '$');
        put_unsigned(t, in->imm & 15);
    }
    for (unsigned k = 0; k <= n; k++) {
        unsigned i = backward ? n - k : k;
        if (i == rounding && !backward) {
            put_separator(t, &first);
            put_rounding(t, in, code);
        }
        if (i < n)
            put_one(t, in, code, i, &first);
        if (i == rounding && backward) {
            put_separator(t, &first);
            put_rounding(t, in, code);
        }
    }
    if (in->row->attr & IS5 && !t->att) {
        put(t, ", ");
        put_unsigned(t, in->imm & 15);
    }
}

/* ---- mnemonic -------------------------------------------------------------------------------- */

static void put_prefixes(struct text *t, const struct insn *in)
{
    if (in->flags & INSN_LOCK)
        put(t, "lock ");
    if (in->flags & (INSN_REP | INSN_REPNE)) {
        bool compares = ATTR_FL(in->row->attr) == EFFECT_STRCMP;
        put(t, in->flags & INSN_REPNE ? "repne " : compares ? "repe " : "rep ");
    }
    if (in->prefixes & PREFIX_F2 && in->kind >= INSN_JUMP && in->kind <= INSN_CALL_IND)
        put(t, "bnd ");
}

static char suffix(const struct insn *in)
{
    unsigned first = in->row->op[0], second = in->row->op[1];
    bool word = OPERAND_SIZE(first) == SZ_vw ||
                (OPERAND_SIZE(second) == SZ_vw && OPERAND_CLASS(first) == IN_SEG);
    if (word && in->modrm < 0xC0)
        return 'w';
    return "bwlq"[log2_size(in->opsize)];
}

/* The vector length where the registers do not tell it. */
static const char *length_suffix(const struct insn *in)
{
    bool narrow = OPERAND_CLASS(in->row->op[0]) == IN_VEC; /* a conversion: only zmm gives ymm */
    if (in->modrm >= 0xC0)
        return narrow && in->enc == ENC_VEX && in->vec_len == 1 ? "y" : "";
    if (in->evex & EVEX_B)
        return "";
    return in->vec_len == 0 ? "x" : in->vec_len == 1 ? "y" : narrow ? "" : "z";
}

/* Which of the alternatives that '/' separates: two are for W0 and W1, three for operand sizes 2,
 * 4 and 8. */
static const char *choose_alternative(const struct insn *in, const char *from)
{
    unsigned count = 1, log = log2_size(in->opsize);
    for (const char *p = from; *p && *p != ';'; p++)
        count += *p == '/';
    for (unsigned n = count == 3 ? (log ? log - 1 : 0) : in->opsize == 8; n; n--)
        from = strchr(from, '/') + 1;
    return from;
}

/* What a special character of a mnemonic stands for; others are themselves. */
static void put_special(struct text *t, const struct insn *in, char c)
{
    if (c == '*') {
        char letter = suffix(in);
        if (t->att)
            put_char(t, letter);
        else if (in->row->attr & STRING)
            put_char(t, letter == 'l' ? 'd' : letter);
    } else if (c == '#') {
        put(t, t->att ? length_suffix(in) : "");
    } else if (c == '%') {
        put_char(t, in->flags & INSN_ADDR32 ? 'e' : 'r');
    } else {
        put_char(t, c);
    }
}

/* Writes a mnemonic up to its end or to `end`. */
static void put_template(struct text *t, const struct insn *in, const char *from, const char *end)
{
    char *start = t->p;
    for (const char *p = from; p != end && *p && *p != ';'; p++) {
        if (*p > '/') {
            put_char(t, *p);
        } else if (*p == '/') {
            if (end)
                break; /* of the chosen alternative */
            t->p = start;
            from = choose_alternative(in, from);
            end = from + strcspn(from, "/;");
            p = from - 1;
        } else {
            put_special(t, in, *p);
        }
    }
}

/* cmpps and its like carry the predicate in the immediate; text has it in the name: "cmp" or
 * "pcmp" or "pcom", predicate, type. */
struct predicate {
    const char *names;
    unsigned width, count, stem;
};

static bool find_predicate(const struct insn *in, struct predicate *out)
{
    const char *name = opcode_name(in->row);
    unsigned v = *name == 'v';
    if (in->row->imm != IMM_B)
        return false;
    unsigned last = count_operands(in->row);
    if (last < 3 || !is_immediate(in->row->op[last - 1]) || (*name != 'v' && *name != 'c'))
        return false;
    if (strncmp(name + v, "cmp", 3) == 0)
        *out = (struct predicate){compare_names[0], sizeof compare_names[0], v ? 32 : 8, 3 + v};
    else if (strncmp(name, "vpcmp", 5) == 0 && name[5] != 'e' && name[5] != 'i')
        *out = (struct predicate){int_compare_names[0], sizeof int_compare_names[0], 8, 5};
    else if (strncmp(name, "vpcom", 5) == 0)
        *out = (struct predicate){xop_compare_names[0], sizeof xop_compare_names[0], 8, 5};
    else
        return false;
    const char *predicate = out->names + (in->imm & 0xFF) % out->count * out->width;
    return (in->imm & 0xFF) < out->count && *predicate;
}

static void put_mnemonic(struct text *t, const struct insn *in)
{
    const char *name = opcode_name(in->row);
    const char *intel = t->att ? NULL : strchr(name, ';');
    put_template(t, in, intel ? intel + 1 : name, NULL);
}

/* Writes a comparison with its predicate in the name; false if the instruction is none. */
static bool put_comparison(struct text *t, const struct insn *in, const uint8_t *code)
{
    struct predicate predicate;
    if (!find_predicate(in, &predicate))
        return false;
    const char *name = opcode_name(in->row);
    put_template(t, in, name, name + predicate.stem);
    put(t, predicate.names + (in->imm & 0xFF) * predicate.width);
    put(t, name + predicate.stem);
    put_char(t, ' ');
    struct opcode row = *in->row;
    struct insn without = *in;
    row.op[count_operands(in->row) - 1] = OPND___;
    without.row = &row;
    put_operands(t, &without, code);
    return true;
}

static void put_insn(struct text *t, const struct insn *in, const uint8_t *code)
{
    if (!in->row) {
        put(t, "(bad)");
        return;
    }
    if (in->flags & (INSN_LOCK | INSN_REP | INSN_REPNE) || in->prefixes & PREFIX_F2)
        put_prefixes(t, in);
    if (put_comparison(t, in, code))
        return;
    put_mnemonic(t, in);
    put_char(t, ' ');
    if (in->row->op[0])
        put_operands(t, in, code);
}

size_t disas(char *buf, size_t size, const struct insn *in, const uint8_t *code,
             enum disas_syntax syntax)
{
    char whole[TEXT_MAX];
    char *start = size < TEXT_MAX ? whole : buf;
    struct text t = {.p = start, .att = syntax == DISAS_ATT};
    if (size == 0)
        return 0;
    put_insn(&t, in, code);
    size_t len = (size_t)(t.p - start);
    if (start == whole) {
        len = len < size ? len : size - 1;
        memcpy(buf, start, len);
    }
    buf[len] = '\0';
    return len;
}

/* ---- listings -------------------------------------------------------------------------------- */

struct symbol {
    uint64_t addr, size;
    const char *name;
};

/* An ELF file in memory, with the symbols of its code sorted by address. */
struct elf_file {
    const char *path;
    const uint8_t *data;
    size_t size;
    struct symbol *symbols;
    size_t symbol_count;
};

static bool complain(const char *path, const char *what)
{
    fprintf(stderr, "emu: %s: %s\n", path, what);
    return false;
}

/* The bytes [offset, offset + size) of the file; NULL if it has less. */
static const void *file_part(const struct elf_file *f, uint64_t offset, uint64_t size)
{
    return offset <= f->size && size <= f->size - offset ? f->data + offset : NULL;
}

static const Elf64_Shdr *sections(const struct elf_file *f, unsigned *count)
{
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)f->data;
    *count = header->e_shnum;
    return file_part(f, header->e_shoff, (uint64_t)header->e_shnum * sizeof(Elf64_Shdr));
}

static bool map_file(struct elf_file *f, const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) {
        return complain(path, strerror(errno));
    }
    f->path = path;
    f->size = (size_t)st.st_size;
    f->data = mmap(NULL, f->size ? f->size : 1, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)f->data;
    if (f->data == MAP_FAILED || f->size < sizeof *header ||
        memcmp(header->e_ident, ELFMAG, SELFMAG) != 0)
        return complain(path, "not an ELF file");
    if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_machine != EM_X86_64)
        return complain(path, "not an x86-64 file");
    unsigned count;
    if (!sections(f, &count) || header->e_shentsize != sizeof(Elf64_Shdr))
        return complain(path, "no section headers");
    return true;
}

static int compare_symbols(const void *a, const void *b)
{
    const struct symbol *x = a, *y = b;
    return x->addr < y->addr ? -1 : x->addr > y->addr;
}

/* A function, or a label of assembler code, which often has no type. */
static bool names_code(const struct elf_file *f, const Elf64_Sym *symbol)
{
    unsigned count, type = ELF64_ST_TYPE(symbol->st_info);
    const Elf64_Shdr *section = sections(f, &count);
    return (type == STT_FUNC || type == STT_GNU_IFUNC || type == STT_NOTYPE) &&
           symbol->st_shndx < count && section[symbol->st_shndx].sh_flags & SHF_EXECINSTR;
}

static void add_symbols(struct elf_file *f, const Elf64_Shdr *table, const Elf64_Shdr *strings)
{
    const Elf64_Sym *from = file_part(f, table->sh_offset, table->sh_size);
    const char *names = file_part(f, strings->sh_offset, strings->sh_size);
    size_t count = table->sh_size / sizeof *from;
    struct symbol *to = from && names ? calloc(count + 1, sizeof *to) : NULL;
    if (!to)
        return;
    for (size_t i = 0; i < count; i++)
        if (names_code(f, &from[i]) && from[i].st_name < strings->sh_size)
            to[f->symbol_count++] =
                (struct symbol){from[i].st_value, from[i].st_size, names + from[i].st_name};
    qsort(to, f->symbol_count, sizeof *to, compare_symbols);
    f->symbols = to;
}

/* Takes the full symbol table if there is one, else the dynamic one. */
static void load_symbols(struct elf_file *f)
{
    unsigned count;
    const Elf64_Shdr *section = sections(f, &count), *best = NULL;
    for (unsigned i = 0; i < count; i++)
        if (section[i].sh_type == SHT_SYMTAB || (section[i].sh_type == SHT_DYNSYM && !best))
            best = &section[i];
    if (best && best->sh_link < count)
        add_symbols(f, best, &section[best->sh_link]);
}

static const struct symbol *symbol_at(const struct elf_file *f, uint64_t addr)
{
    struct symbol key = {.addr = addr};
    return f->symbol_count ? bsearch(&key, f->symbols, f->symbol_count, sizeof key, compare_symbols)
                           : NULL;
}

/* START or END: a hexadecimal address or a function. A function as START is listed to its end. */
static bool parse_bound(const struct elf_file *f, const char *s, uint64_t *addr, uint64_t *end)
{
    for (size_t i = 0; i < f->symbol_count; i++)
        if (strcmp(f->symbols[i].name, s) == 0) {
            *addr = f->symbols[i].addr;
            *end = f->symbols[i].size ? *addr + f->symbols[i].size : *end;
            return true;
        }
    char *rest;
    *addr = strtoull(s, &rest, 16);
    if (*s && !*rest)
        return true;
    fprintf(stderr, "emu: %s: neither an address nor a function of %s\n", s, f->path);
    return false;
}

/* "  401000:  48 89 e5                 movq %rsp, %rbp" */
static void print_insn(const struct insn *in, const uint8_t *code, unsigned len,
                       enum disas_syntax syntax)
{
    char bytes[3 * 16 + 1] = "", text[128];
    for (unsigned i = 0; i < len; i++)
        snprintf(bytes + 3 * i, 4, "%02x ", code[i]);
    disas(text, sizeof text, in, code, syntax);
    printf("%8" PRIx64 ":  %-33s %s\n", in->pc, bytes, text);
}

static void list_code(const struct elf_file *f, const uint8_t *code, uint64_t addr, uint64_t end,
                      enum disas_syntax syntax)
{
    while (addr < end) {
        const struct symbol *symbol = symbol_at(f, addr);
        struct insn in;
        size_t limit = end - addr;
        if (symbol)
            printf("\n%016" PRIx64 " <%s>:\n", addr, symbol->name);
        unsigned len = 1;
        if (decode(&in, code, limit, addr) != DECODE_OK)
            in.row = NULL;
        else if (in.row)
            len = in.len;
        print_insn(&in, code, len, syntax);
        code += len;
        addr += len;
    }
}

static void list_section(const struct elf_file *f, const Elf64_Shdr *section, uint64_t from,
                         uint64_t to, enum disas_syntax syntax)
{
    const uint8_t *code = file_part(f, section->sh_offset, section->sh_size);
    uint64_t start = section->sh_addr, end = start + section->sh_size;
    if (section->sh_type != SHT_PROGBITS || !(section->sh_flags & SHF_EXECINSTR) || !code)
        return;
    start = from > start ? from : start;
    end = to < end ? to : end;
    if (start < end)
        list_code(f, code + (start - section->sh_addr), start, end, syntax);
}

int disas_file(const char *path, const char *start, const char *end, enum disas_syntax syntax)
{
    struct elf_file file = {0};
    uint64_t from = 0, to = UINT64_MAX, ignored = 0;
    if (!map_file(&file, path))
        return 1;
    load_symbols(&file);
    if (start && !parse_bound(&file, start, &from, &to))
        return 1;
    if (end && !parse_bound(&file, end, &to, &ignored))
        return 1;
    unsigned count;
    const Elf64_Shdr *section = sections(&file, &count);
    for (unsigned i = 0; i < count; i++)
        list_section(&file, &section[i], from, to, syntax);
    free(file.symbols);
    return 0;
}
