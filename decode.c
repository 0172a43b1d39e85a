/* decode.c: x86-64 machine code to struct insn, for 64-bit mode.
 *
 * It knows the encoding and nothing else: no memory but the bytes given, no state between calls,
 * no other file of the program. What the instructions are is said in opcodes_x86_64.h; the tables
 * built from it here are indexed directly, so that a row costs two loads to find. Where makers
 * differ this is Intel's hardware (Software Developer's Manual, volume 2, chapters 2 and A). */
#include "opcodes_x86_64.h"

#include <string.h>

#define JOIN_(a, b) a##b
#define JOIN(a, b)  JOIN_(a, b)

/* ---- tables, built from the rows ------------------------------------------------------------ */

/* clang-format off */

/* Each row is known by its line in the header: ROW_<line> is its number. */
enum {
    ROW_NONE,
#define X(cell, ...) JOIN(ROW_, __LINE__),
#define G(cell, name, shape)
#include "opcodes_x86_64.h"
#undef X
#undef G
    ROW_COUNT
};

/* Bits of the key that select within a group: rm, reg, register form, pp, REX.B, VEX.L. */
enum { KEY_RM = 0, KEY_REG = 3, KEY_MOD = 6, KEY_PP = 7, KEY_B = 9, KEY_LEN = 10 };
enum {
    SHIFT_REG = KEY_REG,    BITS_REG = 3,
    SHIFT_MOD = KEY_MOD,    BITS_MOD = 1,
    SHIFT_REGMOD = KEY_REG, BITS_REGMOD = 4,
    SHIFT_REGMOD_PP = KEY_REG, BITS_REGMOD_PP = 6,
    SHIFT_BYTE = KEY_RM,    BITS_BYTE = 7,
    SHIFT_BYTE_PP = KEY_RM, BITS_BYTE_PP = 9,
    SHIFT_PP_B = KEY_PP,    BITS_PP_B = 3,
    SHIFT_LEN = KEY_LEN,    BITS_LEN = 2,
};

/* Cells of groups lie behind one cell per row, which makes both kinds of entry one load. */
enum {
    GROUPS = ROW_COUNT - 1,
#define X(cell, ...)
#define G(cell, name, shape) name, JOIN(name, _last) = name + (1 << BITS_##shape) - 1,
#include "opcodes_x86_64.h"
#undef X
#undef G
    CELL_COUNT
};

/* What an opcode's entry says: base, shift and bits by line. */
enum {
#define X(cell, ...) \
    JOIN(BASE_, __LINE__) = JOIN(ROW_, __LINE__), JOIN(SHIFT_, __LINE__) = 0, \
    JOIN(BITS_, __LINE__) = 0,
#define G(cell, name, shape) \
    JOIN(BASE_, __LINE__) = name, JOIN(SHIFT_, __LINE__) = SHIFT_##shape, \
    JOIN(BITS_, __LINE__) = BITS_##shape,
#include "opcodes_x86_64.h"
#undef X
#undef G
};

struct entry {
    uint16_t base; /* cell = base + (key >> shift & mask) */
    uint8_t shift;
    uint8_t bits; /* of the mask */
};

/* Parts of the opcode index. Maps that select by mandatory prefix have four entries per opcode,
 * those with VEX.W eight. */
enum {
    INDEX_OP = 0,
    INDEX_NOW = INDEX_OP + 256,
    INDEX_OF = INDEX_NOW + 256,
    INDEX_OF38 = INDEX_OF + 1024,
    INDEX_OF3A = INDEX_OF38 + 1024,
    INDEX_VF = INDEX_OF3A + 1024,
    INDEX_VF38 = INDEX_VF + 2048,
    INDEX_VF3A = INDEX_VF38 + 2048,
    INDEX_XF8 = INDEX_VF3A + 2048,
    INDEX_XF9 = INDEX_XF8 + 2048,
    INDEX_XFA = INDEX_XF9 + 2048,
    INDEX_EF = INDEX_XFA + 2048,
    INDEX_EF38 = INDEX_EF + 2048,
    INDEX_EF3A = INDEX_EF38 + 2048,
    INDEX_E5 = INDEX_EF3A + 2048,
    INDEX_E6 = INDEX_E5 + 2048,
    INDEX_NOTHING = INDEX_E6 + 2048, /* a map without rows */
    INDEX_COUNT = INDEX_NOTHING + 2048,
};

/* Cells that one row stands for. PUT is what goes there: set differently in the two tables. */
#define PP_NP(to, at)  to((at) + 0)
#define PP_66(to, at)  to((at) + 1)
#define PP_F3(to, at)  to((at) + 2)
#define PP_F2(to, at)  to((at) + 3)
#define PP_NFx(to, at) to((at) + 0) to((at) + 1)
#define PP___(to, at)  to((at) + 0) to((at) + 1) to((at) + 2) to((at) + 3)
#define PUT_W0(at)     PUT(at)
#define PUT_W1(at)     PUT((at) + 4)
#define PUT_WIG(at)    PUT(at) PUT((at) + 4)

#define NO_CELL(...)

static const struct entry opcode_index[INDEX_COUNT] = {
#define PUT(at) \
    [at] = {JOIN(BASE_, __LINE__), JOIN(SHIFT_, __LINE__), JOIN(BITS_, __LINE__)},
#define X(cell, ...)         ENTRY_##cell
#define G(cell, name, shape) ENTRY_##cell
#define ENTRY_OP(op)          PUT(INDEX_OP + (op))
#define ENTRY_NOW(op)         PUT(INDEX_NOW + (op))
#define ENTRY_OF(op, pp)      PP_##pp(PUT, INDEX_OF + (op) * 4)
#define ENTRY_OF38(op, pp)    PP_##pp(PUT, INDEX_OF38 + (op) * 4)
#define ENTRY_OF3A(op, pp)    PP_##pp(PUT, INDEX_OF3A + (op) * 4)
#define ENTRY_VF(op, pp, w)   PP_##pp(PUT_##w, INDEX_VF + (op) * 8)
#define ENTRY_VF38(op, pp, w) PP_##pp(PUT_##w, INDEX_VF38 + (op) * 8)
#define ENTRY_VF3A(op, pp, w) PP_##pp(PUT_##w, INDEX_VF3A + (op) * 8)
#define ENTRY_XF8(op, w)      PUT_##w(INDEX_XF8 + (op) * 8)
#define ENTRY_XF9(op, w)      PUT_##w(INDEX_XF9 + (op) * 8)
#define ENTRY_XFA(op, w)      PUT_##w(INDEX_XFA + (op) * 8)
#define ENTRY_EF(op, pp, w)   PP_##pp(PUT_##w, INDEX_EF + (op) * 8)
#define ENTRY_EF38(op, pp, w) PP_##pp(PUT_##w, INDEX_EF38 + (op) * 8)
#define ENTRY_EF3A(op, pp, w) PP_##pp(PUT_##w, INDEX_EF3A + (op) * 8)
#define ENTRY_E5(op, pp, w)   PP_##pp(PUT_##w, INDEX_E5 + (op) * 8)
#define ENTRY_E6(op, pp, w)   PP_##pp(PUT_##w, INDEX_E6 + (op) * 8)
#define ENTRY_REG             NO_CELL
#define ENTRY_MOD             NO_CELL
#define ENTRY_REGMOD          NO_CELL
#define ENTRY_PPB             NO_CELL
#define ENTRY_LEN             NO_CELL
#define ENTRY_RMP             NO_CELL
#define ENTRY_BYTE            NO_CELL
#define ENTRY_BYTEM           NO_CELL
#define ENTRY_BYTER           NO_CELL
#define ENTRY_BPP             NO_CELL
#define ENTRY_BPPM            NO_CELL
#define ENTRY_BPPR            NO_CELL
#include "opcodes_x86_64.h"
#undef X
#undef G
#undef PUT
};

static const uint16_t cells[CELL_COUNT] = {
#define PUT(at) [at] = JOIN(ROW_, __LINE__),
#define PUT8(at) \
    PUT((at) + 0) PUT((at) + 1) PUT((at) + 2) PUT((at) + 3) \
    PUT((at) + 4) PUT((at) + 5) PUT((at) + 6) PUT((at) + 7)
#define MOD_m(to, at, step) to(at)
#define MOD_r(to, at, step) to((at) + (step))
#define MOD__(to, at, step) to(at) to((at) + (step))
#define RMP_m(to, pp, at)   PP_##pp(to, at)
#define PUT_PP16(at)        PUT(at)
#define X(cell, ...) [JOIN(ROW_, __LINE__)] = JOIN(ROW_, __LINE__), CELL_##cell
#define G(cell, name, shape)
#define CELL_OP   NO_CELL
#define CELL_NOW  NO_CELL
#define CELL_OF   NO_CELL
#define CELL_OF38 NO_CELL
#define CELL_OF3A NO_CELL
#define CELL_VF   NO_CELL
#define CELL_VF38 NO_CELL
#define CELL_VF3A NO_CELL
#define CELL_XF8  NO_CELL
#define CELL_XF9  NO_CELL
#define CELL_XFA  NO_CELL
#define CELL_EF   NO_CELL
#define CELL_EF38 NO_CELL
#define CELL_EF3A NO_CELL
#define CELL_E5   NO_CELL
#define CELL_E6   NO_CELL
#define CELL_REG(g, reg)         PUT((g) + (reg))
#define CELL_MOD(g, mod)         MOD_##mod(PUT, g, 1)
#define CELL_REGMOD(g, reg, mod) MOD_##mod(PUT, (g) + (reg), 8)
#define CELL_PPB(g, pp, b)       PP_##pp(PUT, (g) + (b) * 4)
#define CELL_LEN(g, len)         PUT((g) + (len))
#define STEP16_NP(to, at)        to(at)
#define STEP16_66(to, at)        to((at) + 16)
#define STEP16_F3(to, at)        to((at) + 32)
#define STEP16_F2(to, at)        to((at) + 48)
#define STEP16_NFx(to, at)       to(at) to((at) + 16)
#define STEP16___(to, at)        to(at) to((at) + 16) to((at) + 32) to((at) + 48)
#define STEP128_NP(to, at)       to(at)
#define STEP128_66(to, at)       to((at) + 128)
#define STEP128_F3(to, at)       to((at) + 256)
#define STEP128_F2(to, at)       to((at) + 384)
#define STEP128_NFx(to, at)      to(at) to((at) + 128)
#define STEP128___(to, at)       to(at) to((at) + 128) to((at) + 256) to((at) + 384)
#define CELL_RMP(g, reg, mod, pp) RMPMOD_##mod(g, reg, pp)
#define RMPMOD_m(g, reg, pp)     STEP16_##pp(PUT, (g) + (reg))
#define RMPMOD_r(g, reg, pp)     STEP16_##pp(PUT, (g) + (reg) + 8)
#define CELL_BYTE(g, byte)       PUT((g) + 64 + ((byte) & 63))
#define CELL_BYTEM(g, reg)       PUT8((g) + (reg) * 8)
#define CELL_BYTER(g, reg)       PUT8((g) + 64 + (reg) * 8)
#define CELL_BPP(g, byte, pp)    STEP128_##pp(PUT, (g) + 64 + ((byte) & 63))
#define CELL_BPPM(g, reg, pp)    STEP128_##pp(PUT8, (g) + (reg) * 8)
#define CELL_BPPR(g, reg, pp)    STEP128_##pp(PUT8, (g) + 64 + (reg) * 8)
#include "opcodes_x86_64.h"
#undef X
#undef G
#undef PUT
};

/* What the rows say of operand i, two bits: 1 read, 2 written. */
#define ACCESS_W(i)  ((i) == 0 ? 2 : 1)
#define ACCESS_M(i)  ((i) == 0 ? 3 : 1)
#define ACCESS_R(i)  1
#define ACCESS_X(i)  ((i) < 2 ? 3 : 1)
#define ACCESS_WW(i) ((i) < 2 ? 2 : 1)
#define ACCESS_CX(i) ((i) < 2 ? 3 : 1)
#define ACCESS_N(i)  0

/* A write of 8 or 16 bits keeps the rest of the register: it reads it. */
#define SMALL(o) \
    (OPERAND_SIZE(o) == SZ_b || OPERAND_SIZE(o) == SZ_w)
#define IS_GPR(o) (OPERAND_CLASS(o) == IN_GPR)
#define GPR_AT(o, p, acc) \
    (IS_GPR(o) && (OPERAND_PLACE(o) == (p) || ((p) == AT_RM && OPERAND_PLACE(o) == AT_RMREG)) \
     ? (acc) | ((acc) == 2 && SMALL(o) ? 1 : 0) | (OPERAND_SIZE(o) == SZ_b ? 4 : 0) : 0)
#define GPR4(a, b, c, d, p, acc) \
    (GPR_AT(a, p, acc(0)) | GPR_AT(b, p, acc(1)) | GPR_AT(c, p, acc(2)) | GPR_AT(d, p, acc(3)))
#define FIXED_AT(o, acc, bit) \
    (OPERAND_PLACE(o) == AT_FIXED && IS_GPR(o) && \
     ((acc) | ((acc) == 2 && SMALL(o) ? 1 : 0)) & (bit) ? 1 << OPERAND_NUMBER(o) : 0)
#define FIXED4(a, b, c, d, acc, bit) \
    (FIXED_AT(a, acc(0), bit) | FIXED_AT(b, acc(1), bit) | FIXED_AT(c, acc(2), bit) | \
     FIXED_AT(d, acc(3), bit))
#define IS_RM(o)    (OPERAND_PLACE(o) == AT_RM || OPERAND_PLACE(o) == AT_RMMEM)
#define AT(o, p)    (OPERAND_PLACE(o) == (p))
#define ANY(a, b, c, d, test, arg) (test(a, arg) || test(b, arg) || test(c, arg) || test(d, arg))
#define HAS_SIZE(o, s)  (OPERAND_SIZE(o) == (s) && !AT(o, AT_FIXED))
#define IS_OPERAND(o, x) ((o) == (x))
#define IS_CLASS(o, c)  (OPERAND_CLASS(o) == (c))
#define RM_CLASS(o, c)  (IS_CLASS(o, c) && (IS_RM(o) || AT(o, AT_RMREG)))
#define MODRM_OF(a, b, c, d, at) \
    ((ANY(a, b, c, d, AT, AT_RM) ? ROW_MODRM | ROW_MEM_OK | ROW_REG_OK : 0) | \
     (ANY(a, b, c, d, AT, AT_RMREG) ? ROW_MODRM | ROW_REG_OK : 0) | \
     (ANY(a, b, c, d, AT, AT_RMMEM) ? ROW_MODRM | ROW_MEM_OK : 0) | \
     (ANY(a, b, c, d, AT, AT_REG) || (at) & MODRM ? ROW_MODRM : 0) | \
     (ANY(a, b, c, d, AT, AT_VVVV) ? ROW_VVVV : 0) | ((at) & VSIB ? ROW_VSIB : 0))
#define IMM_OF(a, b, c, d) \
    (ANY(a, b, c, d, IS_OPERAND, OPND_Iw) ? ANY(a, b, c, d, IS_OPERAND, OPND_Ib) ? IMM_WB : IMM_W \
     : (b) == OPND_Iub && (c) == OPND_Iub ? IMM_BB \
     : (c) == OPND_Iub && (d) == OPND_Iub ? IMM_BB \
     : ANY(a, b, c, d, IS_OPERAND, OPND_Ib) || ANY(a, b, c, d, IS_OPERAND, OPND_Isb) || \
       ANY(a, b, c, d, IS_OPERAND, OPND_Iub) || ANY(a, b, c, d, AT, AT_IS4) ? IMM_B \
     : ANY(a, b, c, d, IS_OPERAND, OPND_Iz) ? IMM_Z \
     : ANY(a, b, c, d, IS_OPERAND, OPND_Iv) ? IMM_V \
     : ANY(a, b, c, d, IS_OPERAND, OPND_Id) ? IMM_D \
     : ANY(a, b, c, d, IS_OPERAND, OPND_Jb) ? IMM_REL8 \
     : ANY(a, b, c, d, IS_OPERAND, OPND_Jz) ? IMM_RELZ \
     : ANY(a, b, c, d, AT, AT_MOFFS) ? IMM_MOFFS : IMM_NONE)
#define MEM_SIZE_OF(a, b, c, d) \
    (IS_RM(a) ? OPERAND_SIZE(a) : IS_RM(b) ? OPERAND_SIZE(b) : IS_RM(c) ? OPERAND_SIZE(c) \
     : IS_RM(d) ? OPERAND_SIZE(d) : SZ_none)
#define MEM_ACCESS_OF(a, b, c, d, acc, at) \
    ((at) & NOMEM ? 0 \
     : (IS_RM(a) ? acc(0) : 0) | (IS_RM(b) ? acc(1) : 0) | (IS_RM(c) ? acc(2) : 0) | \
       (IS_RM(d) ? acc(3) : 0))
#define VEX_SIZED(o) (HAS_SIZE(o, SZ_v) || HAS_SIZE(o, SZ_z) || HAS_SIZE(o, SZ_vw))
#define RAX_SIZED(o, x) (AT(o, AT_FIXED) && IS_GPR(o) && OPERAND_SIZE(o) == (x))
#define MODE_OF(a, b, c, d, at) \
    (ATTR_MODE(at) ? ATTR_MODE(at) \
     : VEX_SIZED(a) || VEX_SIZED(b) || VEX_SIZED(c) || (a) == OPND_Isb || \
       RAX_SIZED(a, SZ_v) || RAX_SIZED(b, SZ_v) || RAX_SIZED(a, SZ_z) || RAX_SIZED(b, SZ_z) \
      ? ATTR_MODE(MODE_V) \
     : (IS_GPR(a) && HAS_SIZE(a, SZ_b)) || (IS_GPR(b) && HAS_SIZE(b, SZ_b) && !IS_GPR(a) && \
         !IS_CLASS(a, IN_VEC)) || RAX_SIZED(a, SZ_b) || \
       (AT(a, AT_SI) && HAS_SIZE(a, SZ_b)) || (AT(a, AT_DI) && HAS_SIZE(a, SZ_b)) || \
       (RAX_SIZED(b, SZ_b) && !IS_GPR(a)) ? ATTR_MODE(MODE_B) : ATTR_MODE(MODE_Y))
#define CLASS_FLAGS(a, b, c, d) \
    ((ANY(a, b, c, d, IS_CLASS, IN_VEC) || ANY(a, b, c, d, IS_CLASS, IN_TMM) ? VEC : 0) | \
     (ANY(a, b, c, d, IS_CLASS, IN_MASK) ? KMASK : 0) | \
     (ANY(a, b, c, d, IS_CLASS, IN_MMX) || ANY(a, b, c, d, IS_CLASS, IN_ST) ? X87 : 0))

#define ROW_DATA(name, a, b, c, d, acc, at) \
    {name, (at) | CLASS_FLAGS(a, b, c, d), {a, b, c, d}, FIXED4(a, b, c, d, acc, 1), \
     FIXED4(a, b, c, d, acc, 2), \
     GPR4(a, b, c, d, AT_REG, acc) | GPR4(a, b, c, d, AT_RM, acc) << 4 | \
         GPR4(a, b, c, d, AT_VVVV, acc) << 8 | GPR4(a, b, c, d, AT_OPC, acc) << 12, \
     MODRM_OF(a, b, c, d, at), IMM_OF(a, b, c, d), MEM_SIZE_OF(a, b, c, d), \
     MEM_ACCESS_OF(a, b, c, d, acc, at), MODE_OF(a, b, c, d, at)},

/* A cell that is chosen by ModRM has one, whether or not an operand shows it. */
#define IMPLIED_OP(...)      0
#define IMPLIED_NOW(...)     0
#define IMPLIED_OF(...)      0
#define IMPLIED_OF38(...)    0
#define IMPLIED_OF3A(...)    0
#define IMPLIED_VF(...)      0
#define IMPLIED_VF38(...)    0
#define IMPLIED_VF3A(...)    0
#define IMPLIED_XF8(...)     0
#define IMPLIED_XF9(...)     0
#define IMPLIED_XFA(...)     0
#define IMPLIED_EF(...)      0
#define IMPLIED_EF38(...)    0
#define IMPLIED_EF3A(...)    0
#define IMPLIED_E5(...)      0
#define IMPLIED_E6(...)      0
#define IMPLIED_PPB(...)     0
#define IMPLIED_LEN(...)     0
#define IMPLIED_REG(...)     MODRM
#define IMPLIED_MOD(...)     MODRM
#define IMPLIED_REGMOD(...)  MODRM
#define IMPLIED_RMP(...)     MODRM
#define IMPLIED_BYTE(...)    MODRM
#define IMPLIED_BYTEM(...)   MODRM
#define IMPLIED_BYTER(...)   MODRM
#define IMPLIED_BPP(...)     MODRM
#define IMPLIED_BPPM(...)    MODRM
#define IMPLIED_BPPR(...)    MODRM

static const struct opcode rows[ROW_COUNT] = {
    [ROW_NONE] = {.name = "(bad)", .attr = KIND(ILLEGAL)},
#define X(cell, name, a, b, c, d, acc, at) \
    ROW_DATA(name, OPND_##a, OPND_##b, OPND_##c, OPND_##d, ACCESS_##acc, (at) | IMPLIED_##cell)
#define G(cell, name, shape)
#include "opcodes_x86_64.h"
#undef X
#undef G
};
/* clang-format on */

/* clang-format off */

static const uint8_t legacy_prefix[256] = {
    [0x26] = PREFIX_NULL, [0x2E] = PREFIX_NULL, [0x36] = PREFIX_NULL, [0x3E] = PREFIX_NULL,
    [0x64] = PREFIX_FS,   [0x65] = PREFIX_GS,   [0x66] = PREFIX_66,   [0x67] = PREFIX_67,
    [0xF0] = PREFIX_LOCK, [0xF2] = PREFIX_F2,   [0xF3] = PREFIX_F3,
};

/* Bytes of memory an operand size stands for: by operand size (1 2 4 8) and vector length. */
#define BY_LEN(a, b, c)         a, b, c, c
#define FIXED(n)                {BY_LEN(n, n, n), BY_LEN(n, n, n), BY_LEN(n, n, n), BY_LEN(n, n, n)}
#define BY_OP(a, b, c, d)       {BY_LEN(a, a, a), BY_LEN(b, b, b), BY_LEN(c, c, c), BY_LEN(d, d, d)}
#define VECTOR(a, b, c)         {BY_LEN(a, b, c), BY_LEN(a, b, c), BY_LEN(a, b, c), BY_LEN(a, b, c)}
static const uint16_t mem_size[SZ_COUNT][16] = {
    [SZ_none] = FIXED(0),         [SZ_b] = FIXED(1),            [SZ_w] = FIXED(2),
    [SZ_d] = FIXED(4),            [SZ_q] = FIXED(8),            [SZ_dq] = FIXED(16),
    [SZ_qq] = FIXED(32),          [SZ_zq] = FIXED(64),          [SZ_t] = FIXED(10),
    [SZ_ss] = FIXED(4),           [SZ_sd] = FIXED(8),           [SZ_v] = BY_OP(1, 2, 4, 8),
    [SZ_z] = BY_OP(1, 2, 4, 4),   [SZ_y] = BY_OP(4, 4, 4, 8),   [SZ_a] = FIXED(0),
    [SZ_x] = VECTOR(16, 32, 64),  [SZ_h] = VECTOR(8, 16, 32),   [SZ_f] = VECTOR(4, 8, 16),
    [SZ_e] = VECTOR(2, 4, 8),     [SZ_dd] = VECTOR(8, 32, 64),  [SZ_xb] = VECTOR(16, 32, 64),
    [SZ_xw] = VECTOR(16, 32, 64), [SZ_xd] = VECTOR(16, 32, 64), [SZ_xq] = VECTOR(16, 32, 64),
    [SZ_p] = BY_OP(4, 4, 6, 10),  [SZ_s] = FIXED(10),           [SZ_en] = BY_OP(14, 14, 28, 28),
    [SZ_sv] = BY_OP(94, 94, 108, 108), [SZ_fx] = FIXED(512),    [SZ_xs] = FIXED(576),
    [SZ_tc] = FIXED(64),          [SZ_tile] = FIXED(1024),      [SZ_kl] = FIXED(64),
    [SZ_cx] = BY_OP(8, 8, 8, 16), [SZ_vw] = FIXED(2),           [SZ_dw] = FIXED(2),
    [SZ_db] = FIXED(1),
};

/* Immediate bytes by operand size; what a second immediate adds is in imm2_size. */
static const uint8_t imm_size[IMM_COUNT][4] = {
    [IMM_B] = {1, 1, 1, 1},    [IMM_W] = {2, 2, 2, 2},    [IMM_D] = {4, 4, 4, 4},
    [IMM_Z] = {1, 2, 4, 4},    [IMM_V] = {1, 2, 4, 8},    [IMM_REL8] = {1, 1, 1, 1},
    [IMM_RELZ] = {4, 2, 4, 4}, [IMM_MOFFS] = {8, 8, 8, 8}, [IMM_WB] = {2, 2, 2, 2},
    [IMM_BB] = {1, 1, 1, 1},
};
static const uint8_t imm2_size[IMM_COUNT] = {[IMM_WB] = 1, [IMM_BB] = 1};

#define ARITH_BITS FLAGS_ARITH
#define ALL_FLAGS  (ARITH_BITS | FLAG_DF)




/* Flags read, and flags written whatever the operands are. What the manual calls undefined but
 * hardware keeps (bt, bsf) is not called written. Shifts by cl, and by an immediate of 0 (see
 * refine_shift), may keep all flags: they read them. */
static const struct { uint16_t read, written; } flag_effects[EFFECT_COUNT] = {
    [EFFECT_ARITH] = {0, ARITH_BITS},
    [EFFECT_ADC] = {FLAG_CF, ARITH_BITS},
    [EFFECT_INC] = {0, ARITH_BITS & ~FLAG_CF},
    [EFFECT_BT] = {0, FLAG_CF},
    [EFFECT_DIV] = {0, 0}, /* all undefined; Intel's keep some */
    [EFFECT_ZF] = {0, FLAG_ZF},
    [EFFECT_ZFR] = {FLAG_ZF, 0},
    [EFFECT_SHIFTI] = {0, ARITH_BITS},
    [EFFECT_SHIFTC] = {ARITH_BITS, 0},
    [EFFECT_ROTI] = {0, FLAG_CF | FLAG_OF},
    [EFFECT_ROT1] = {0, FLAG_CF | FLAG_OF},
    [EFFECT_ROTC] = {ARITH_BITS, 0},
    [EFFECT_RCI] = {FLAG_CF, FLAG_CF | FLAG_OF},
    [EFFECT_RC1] = {FLAG_CF, FLAG_CF | FLAG_OF},
    [EFFECT_RCC] = {ARITH_BITS, 0},
    [EFFECT_STR] = {FLAG_DF, 0},
    [EFFECT_STRCMP] = {FLAG_DF, ARITH_BITS},
    [EFFECT_CMC] = {FLAG_CF, FLAG_CF},
    [EFFECT_SETC] = {0, FLAG_CF},
    [EFFECT_SETD] = {0, FLAG_DF},
    [EFFECT_SAHF] = {0, FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF},
    [EFFECT_LAHF] = {FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF, 0},
    [EFFECT_PUSHF] = {ALL_FLAGS, 0},
    [EFFECT_POPF] = {0, ALL_FLAGS},
    [EFFECT_ALL] = {ALL_FLAGS, 0},
    [EFFECT_FCMOV] = {FLAG_CF | FLAG_PF | FLAG_ZF, 0},
    [EFFECT_ADCX] = {FLAG_CF, FLAG_CF},
    [EFFECT_ADOX] = {FLAG_OF, FLAG_OF},
};

/* Flags a condition reads, by the upper three bits of its code. */
static const uint16_t condition_flags[8] = {
    FLAG_OF, FLAG_CF, FLAG_ZF, FLAG_CF | FLAG_ZF, FLAG_SF, FLAG_PF, FLAG_SF | FLAG_OF,
    FLAG_SF | FLAG_OF | FLAG_ZF,
};

/* Implicit operands. Sizes of 0 mean the operand size; disp is in units of the size. */
struct implicit_mem {
    int8_t base, disp;
    uint8_t flags, size, index;
};
struct implicit {
    uint16_t read, written;
    uint8_t count, after; /* memory operands; how many come after the explicit one */
    struct implicit_mem mem[2];
};

#define R(reg)  (1 << GPR_##reg)
#define R11     (1 << 11)
#define STACK_W {GPR_RSP, -1, MEM_WRITE | MEM_STACK, 0, 0}
#define STACK_R {GPR_RSP, 0, MEM_READ | MEM_STACK, 0, 0}
#define AT_RSI  {GPR_RSI, 0, MEM_READ, 0, 0}
#define AT_RDI  {GPR_RDI, 0, MEM_READ, 0, 0}
#define TO_RDI  {GPR_RDI, 0, MEM_WRITE, 0, 0}

static const struct implicit implicits[IMPLICIT_COUNT] = {
    [IMPLICIT_PUSH] = {R(RSP), R(RSP), 1, 0, {STACK_W}},
    [IMPLICIT_PUSH_AFTER] = {R(RSP), R(RSP), 1, 1, {STACK_W}},
    [IMPLICIT_POP] = {R(RSP), R(RSP), 1, 0, {STACK_R}},
    [IMPLICIT_CALL] = {R(RSP), R(RSP), 1, 0, {STACK_W}},
    [IMPLICIT_CALL_IND] = {R(RSP), R(RSP), 1, 1, {STACK_W}},
    [IMPLICIT_RET] = {R(RSP), R(RSP), 1, 0, {STACK_R}},
    [IMPLICIT_ENTER] = {R(RSP) | R(RBP), R(RSP) | R(RBP), 1, 0, {STACK_W}},
    [IMPLICIT_LEAVE] = {R(RBP), R(RSP) | R(RBP), 1, 0,
                        {{GPR_RBP, 0, MEM_READ | MEM_STACK, 0, 0}}},
    [IMPLICIT_FARRET] = {R(RSP), R(RSP), 2, 0,
                         {STACK_R, {GPR_RSP, 1, MEM_READ | MEM_STACK, 0, 0}}},
    [IMPLICIT_FARCALL] = {R(RSP), R(RSP), 2, 2,
                          {STACK_W, {GPR_RSP, -2, MEM_WRITE | MEM_STACK, 0, 0}}},
    [IMPLICIT_IRET] = {R(RSP), R(RSP), 2, 0,
                       {STACK_R, {GPR_RSP, 1, MEM_READ | MEM_STACK, 0, 0}}},
    [IMPLICIT_INS] = {R(RDI) | R(RDX), R(RDI), 1, 0, {TO_RDI}},
    [IMPLICIT_OUTS] = {R(RSI) | R(RDX), R(RSI), 1, 0, {AT_RSI}},
    [IMPLICIT_MOVS] = {R(RSI) | R(RDI), R(RSI) | R(RDI), 2, 0, {AT_RSI, TO_RDI}},
    [IMPLICIT_CMPS] = {R(RSI) | R(RDI), R(RSI) | R(RDI), 2, 0, {AT_RDI, AT_RSI}},
    [IMPLICIT_STOS] = {R(RDI), R(RDI), 1, 0, {TO_RDI}},
    [IMPLICIT_LODS] = {R(RSI), R(RSI), 1, 0, {AT_RSI}},
    [IMPLICIT_SCAS] = {R(RDI), R(RDI), 1, 0, {AT_RDI}},
    [IMPLICIT_XLAT] = {R(RAX) | R(RBX), R(RAX), 1, 0, {{GPR_RBX, 0, MEM_READ, 1, 1}}},
    [IMPLICIT_MASKMOVQ] = {R(RDI), 0, 1, 0, {{GPR_RDI, 0, MEM_WRITE | MEM_MASKED, 8, 0}}},
    [IMPLICIT_MASKMOVDQU] = {R(RDI), 0, 1, 0, {{GPR_RDI, 0, MEM_WRITE | MEM_MASKED, 16, 0}}},
    [IMPLICIT_MOVDIR64B] = {0, 0, 1, 1, {{REG_NONE, 0, MEM_WRITE, 64, 0}}},
    [IMPLICIT_CLZERO] = {R(RAX), 0, 1, 0, {{GPR_RAX, 0, MEM_WRITE, 64, 0}}},
    [IMPLICIT_CBW] = {R(RAX), R(RAX), 0, 0, {{0}}},
    [IMPLICIT_CWD] = {R(RAX), R(RDX), 0, 0, {{0}}},
    [IMPLICIT_MUL] = {R(RAX), R(RAX) | R(RDX), 0, 0, {{0}}},
    [IMPLICIT_DIV] = {R(RAX) | R(RDX), R(RAX) | R(RDX), 0, 0, {{0}}},
    [IMPLICIT_READ_RAX] = {R(RAX) | R(RCX) | R(RDX) | R(RBX), 0, 0, 0, {{0}}},
    [IMPLICIT_MOD_RAX] = {R(RAX), R(RAX), 0, 0, {{0}}},
    [IMPLICIT_READ_RDX] = {R(RDX), 0, 0, 0, {{0}}},
    [IMPLICIT_LOOP] = {R(RCX), R(RCX), 0, 0, {{0}}},
    [IMPLICIT_JCXZ] = {R(RCX), 0, 0, 0, {{0}}},
    [IMPLICIT_CMPXCHG8B] = {R(RAX) | R(RDX) | R(RBX) | R(RCX), R(RAX) | R(RDX), 0, 0, {{0}}},
    [IMPLICIT_CPUID] = {R(RAX) | R(RCX), R(RAX) | R(RBX) | R(RCX) | R(RDX), 0, 0, {{0}}},
    [IMPLICIT_RDTSC] = {0, R(RAX) | R(RDX), 0, 0, {{0}}},
    [IMPLICIT_RDTSCP] = {0, R(RAX) | R(RDX) | R(RCX), 0, 0, {{0}}},
    [IMPLICIT_XGETBV] = {R(RCX), R(RAX) | R(RDX), 0, 0, {{0}}},
    [IMPLICIT_XSAVE] = {R(RAX) | R(RDX), 0, 0, 0, {{0}}},
    [IMPLICIT_RDPKRU] = {R(RCX), R(RAX) | R(RDX), 0, 0, {{0}}},
    [IMPLICIT_WRPKRU] = {R(RAX) | R(RCX) | R(RDX), 0, 0, 0, {{0}}},
    [IMPLICIT_SYSCALL] = {0xFFFF, R(RAX) | R(RCX) | R11, 0, 0, {{0}}},
    [IMPLICIT_PCMPESTRI] = {R(RAX) | R(RDX), R(RCX), 0, 0, {{0}}},
    [IMPLICIT_PCMPESTRM] = {R(RAX) | R(RDX), 0, 0, 0, {{0}}},
    [IMPLICIT_PCMPISTRI] = {0, R(RCX), 0, 0, {{0}}},
    [IMPLICIT_ENCL] = {0xFFFF, R(RAX) | R(RBX) | R(RCX) | R(RDX), 0, 0, {{0}}},
    [IMPLICIT_ALL] = {0xFFFF, R(RAX) | R(RBX) | R(RCX) | R(RDX), 0, 0, {{0}}},
};
/* clang-format on */

/* ---- decoding ------------------------------------------------------------------------------- */

enum { MAX_LEN = 15, MAP_3DNOW = 15 };
/* Bytes that may be looked at before the length is known: 14 prefixes and the longest rest. */
enum { READ_AHEAD = 40 };

/* The fields of an instruction that stand before ModRM. */
struct fields {
    const uint8_t *start, *p; /* first byte, next byte */
    unsigned prefixes;        /* set of PREFIX_* */
    unsigned rep;             /* the last of F3 and F2, as pp: 2, 3; 0 if none */
    unsigned rex;             /* W R X B as in a REX byte: 8 4 2 1 */
    bool high_bytes;          /* byte registers 4 to 7 are ah ch dh bh: no REX, VEX or EVEX */
    unsigned pp;
    unsigned entry;         /* index into opcode_index */
    unsigned op_log;        /* operand size, log2 */
    unsigned read, written; /* general registers so far */
    bool memory;            /* ModRM is a memory operand */
};

static inline int32_t load32(const uint8_t *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline int64_t load64(const uint8_t *p)
{
    int64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Legacy prefixes, then REX: one that another prefix follows is ignored (volume 2, 2.2.1). */
static inline void scan_prefixes(struct fields *f)
{
    const uint8_t *p = f->p;
    unsigned byte = *p;
    for (;;) {
        while (legacy_prefix[byte] && p - f->start < MAX_LEN) {
            unsigned bit = legacy_prefix[byte];
            if (bit & (PREFIX_F3 | PREFIX_F2))
                f->rep = bit == PREFIX_F3 ? 2 : 3;
            if (bit & (PREFIX_FS | PREFIX_GS))
                f->prefixes &= ~(unsigned)(PREFIX_FS | PREFIX_GS);
            f->prefixes |= bit;
            byte = *++p;
        }
        unsigned rex = byte >> 4 == 4 ? byte : 0;
        p += rex != 0;
        byte = *p;
        f->rex = rex;
        if (!rex || (!legacy_prefix[byte] && byte >> 4 != 4) || p - f->start >= MAX_LEN)
            break;
    }
    f->p = p;
    f->high_bytes = !f->rex;
    f->pp = f->rep ? f->rep : f->prefixes & PREFIX_66;
}

/* Behind 0F. */
static inline void select_0f(struct fields *f, struct insn *in)
{
    unsigned byte = *f->p++;
    unsigned index = INDEX_OF, map = 1;
    if (byte == 0x38 || byte == 0x3A) {
        index = byte == 0x38 ? INDEX_OF38 : INDEX_OF3A;
        map = byte == 0x38 ? 2 : 3;
        byte = *f->p++;
    }
    in->map = (uint8_t)map;
    in->opcode = (uint8_t)byte;
    f->entry = index + byte * 4 + f->pp;
}

/* Where the maps of VEX and EVEX begin in the index, by mmmmm. */
static const uint16_t vex_index[32] = {
    [1] = INDEX_VF - 0,
    [2] = INDEX_VF38,
    [3] = INDEX_VF3A,
};
static const uint16_t evex_index[8] = {
    [1] = INDEX_EF, [2] = INDEX_EF38, [3] = INDEX_EF3A, [5] = INDEX_E5, [6] = INDEX_E6,
};
static const uint16_t xop_index[32] = {[8] = INDEX_XF8, [9] = INDEX_XF9, [10] = INDEX_XFA};

static inline void select_map(struct fields *f, struct insn *in, unsigned index, unsigned map)
{
    unsigned byte = *f->p++;
    in->map = (uint8_t)map;
    in->opcode = (uint8_t)byte;
    f->entry = (index ? index : INDEX_NOTHING) + byte * 8 + f->pp + (f->rex >> 3) * 4;
}

/* Behind C5, C4 and 8F. Legacy 66 F2 F3, LOCK and REX before them are #UD. */
static void select_vex(struct fields *f, struct insn *in, unsigned escape)
{
    bool legal = !f->rex && !(f->prefixes & (PREFIX_66 | PREFIX_F2 | PREFIX_F3 | PREFIX_LOCK));
    unsigned p0 = *f->p++;
    unsigned p1 = p0, map = 1;
    f->high_bytes = false;
    f->rex = ~p0 >> 5 & 4;
    if (escape != 0xC5) {
        map = p0 & 31;
        p1 = *f->p++;
        f->rex = (~p0 >> 5 & 7) | (p1 >> 4 & 8);
    }
    f->pp = p1 & 3;
    in->enc = escape == 0x8F ? ENC_XOP : ENC_VEX;
    in->vvvv = (uint8_t)(~p1 >> 3 & 15);
    in->vec_len = (uint8_t)(p1 >> 2 & 1);
    unsigned index = escape == 0x8F ? xop_index[map] : vex_index[map];
    select_map(f, in, legal ? index : INDEX_NOTHING, map);
}

/* Behind 62. in->reg and in->rm get their fifth bits here. */
static void select_evex(struct fields *f, struct insn *in)
{
    bool legal = !f->rex && !(f->prefixes & (PREFIX_66 | PREFIX_F2 | PREFIX_F3 | PREFIX_LOCK));
    unsigned p0 = f->p[0], p1 = f->p[1], p2 = f->p[2];
    f->p += 3;
    f->high_bytes = false;
    legal = legal && !(p0 & 8) && (p1 & 4);
    f->rex = (~p0 >> 5 & 7) | (p1 >> 4 & 8);
    f->pp = p1 & 3;
    in->enc = ENC_EVEX;
    in->reg = (uint8_t)(~p0 & 16);
    in->rm = (uint8_t)(~p0 >> 2 & 16);
    in->vvvv = (uint8_t)((~p1 >> 3 & 15) | (~p2 << 1 & 16));
    in->vec_len = (uint8_t)(p2 >> 5 & 3);
    in->evex = (uint8_t)(p2 & (EVEX_Z | EVEX_B | EVEX_AAA));
    select_map(f, in, legal ? evex_index[p0 & 7] : INDEX_NOTHING, p0 & 7);
}

/* Bytes from ModRM to the end of the displacement. */
static unsigned modrm_length(const uint8_t *p)
{
    unsigned mod = p[0] >> 6, rm = p[0] & 7;
    if (mod == 3)
        return 1;
    unsigned sib = rm == 4;
    unsigned base = sib ? p[1] & 7 : rm;
    unsigned disp = mod == 1 ? 1 : mod == 2 || base == 5 ? 4 : 0;
    return 1 + sib + disp;
}

/* 0F 0F: the opcode follows the operands. */
static void select_3dnow(struct fields *f, struct insn *in)
{
    in->map = MAP_3DNOW;
    in->opcode = f->p[modrm_length(f->p)];
    f->entry = INDEX_NOW + in->opcode;
}

static inline void select_opcode(struct fields *f, struct insn *in)
{
    unsigned byte = *f->p++;
    in->map = 0;
    in->opcode = (uint8_t)byte;
    f->entry = INDEX_OP + byte;
    if (byte == 0x0F) {
        if (*f->p == 0x0F) {
            f->p++;
            select_3dnow(f, in);
        } else {
            select_0f(f, in);
        }
    } else if (byte == 0xC4 || byte == 0xC5) {
        select_vex(f, in, byte);
    } else if (byte == 0x62) {
        select_evex(f, in);
    } else if (byte == 0x8F && (*f->p & 31) >= 8) {
        select_vex(f, in, byte);
    }
}

/* The displacement of an EVEX instruction's disp8 is in units of what is accessed. */
static unsigned disp8_scale(const struct opcode *row, unsigned size)
{
    switch (row->mem_size) {
    case SZ_xb:
        return 1;
    case SZ_xw:
        return 2;
    case SZ_xd:
        return 4;
    case SZ_xq:
        return 8;
    default:
        return size ? size : 1;
    }
}

/* Fills in the ModRM memory operand's address; SIB and displacement are next. */
static inline void parse_address(struct insn *in, struct mem_op *m, struct fields *f)
{
    const uint8_t *p = f->p;
    unsigned mod = in->modrm >> 6, rm = in->modrm & 7;
    int base = (int)(rm | (f->rex & 1) << 3), index = REG_NONE;
    unsigned scale = 1, low_base = rm;
    if (rm == 4) {
        unsigned sib = *p++;
        low_base = sib & 7;
        base = (int)(low_base | (f->rex & 1) << 3);
        index = (int)((sib >> 3 & 7) | (f->rex & 2) << 2);
        scale = 1u << (sib >> 6);
        if (index == 4 && !(in->row->modrm & ROW_VSIB))
            index = REG_NONE;
    }
    unsigned size = mod == 1 ? 1 : mod == 2 ? 4 : 0;
    if (mod == 0 && low_base == 5) {
        size = 4;
        in->rip_relative = rm == 5;
        base = rm == 5 ? REG_PC : REG_NONE;
    }
    m->base = (int8_t)base;
    m->index = (int8_t)index;
    m->scale = (uint8_t)scale;
    in->disp_off = (uint8_t)(size ? p - f->start : 0);
    in->disp_size = (uint8_t)size;
    m->disp = size == 4 ? load32(p) : size == 1 ? (int8_t)*p : 0;
    f->p = p + size;
}

/* Number of elements of a gather or scatter: as many as fit of the wider of element and index.
 * Odd opcodes have 64-bit indices. */
static unsigned vsib_count(const struct insn *in, unsigned element)
{
    unsigned index = in->opcode & 1 ? 8 : 4;
    return (16u << in->vec_len) / (element > index ? element : index);
}

/* What the ModRM memory operand is used for. */
static inline void describe_mem(struct insn *in, struct mem_op *m, const struct fields *f)
{
    const struct opcode *row = in->row;
    uint64_t attr = row->attr;
    unsigned size = mem_size[row->mem_size][f->op_log * 4 + in->vec_len];
    unsigned flags = row->mem_access;
    m->count = 1;
    m->bit_reg = 0;
    if (in->enc == ENC_EVEX) {
        if (in->evex & EVEX_B)
            size = 1u << ATTR_BC(attr);
        if (in->evex & EVEX_AAA)
            flags |= MEM_MASKED;
        if (in->disp_size == 1)
            m->disp *= (int)disp8_scale(row, size);
    }
    if (attr & (SIGNED | BIGEND | BITS | VSIB | VMASKED)) {
        flags |= attr & SIGNED && size < 8 ? MEM_SIGNED : 0;
        flags |= attr & BIGEND ? MEM_BIGEND : 0;
        if (attr & BITS) {
            flags |= MEM_BITS;
            m->bit_reg = in->reg;
        }
        if (attr & VSIB) {
            flags |= MEM_VSIB | MEM_MASKED;
            m->count = (uint8_t)vsib_count(in, size);
            if (in->enc == ENC_EVEX)
                m->index = (int8_t)(m->index | (in->vvvv & 16));
        }
        if (attr & VMASKED) { /* vmaskmov: by opcode; vpmaskmov: by W */
            unsigned vector = size, wide = in->opcode < 0x80 ? in->opcode & 1 : f->rex >> 3 & 1;
            flags |= MEM_MASKED;
            size = wide ? 8 : 4;
            m->count = (uint8_t)(vector / size);
        }
    }
    m->size = (uint16_t)size;
    m->flags = (uint16_t)flags;
    m->seg = f->prefixes & PREFIX_GS ? SEG_GS : f->prefixes & PREFIX_FS ? SEG_FS : SEG_NONE;
}

static uint16_t gpr_bit(int reg)
{
    return (uint16_t)(reg >= 0 && reg < 16 ? 1 << reg : 0);
}

static inline unsigned address_regs(const struct mem_op *m)
{
    return gpr_bit(m->base) | (m->flags & MEM_VSIB ? 0 : gpr_bit(m->index));
}

/* Adds implicit memory operand number i of the row to in->mem[at]. */
static void add_implicit_mem(struct insn *in, const struct implicit *effect, unsigned i,
                             unsigned at, const struct fields *f)
{
    const struct implicit_mem *from = &effect->mem[i];
    struct mem_op *m = &in->mem[at];
    unsigned size = from->size ? from->size : in->opsize;
    m->base = from->base == REG_NONE ? (int8_t)in->reg : from->base;
    m->index = from->index ? GPR_RAX : REG_NONE;
    m->scale = 1;
    m->flags = from->flags | (from->index ? MEM_INDEX8 : 0);
    m->count = 1;
    m->bit_reg = 0;
    m->size = (uint16_t)size;
    m->disp = from->disp * (int)size;
    /* es:rdi cannot be overridden, ds:rsi and ds:rbx can */
    bool fixed = m->flags & MEM_STACK || from->base == GPR_RDI || from->base == REG_NONE;
    if (from->flags & MEM_MASKED) /* maskmovq: ds:rdi */
        fixed = false;
    m->seg = fixed                     ? SEG_NONE
             : f->prefixes & PREFIX_GS ? SEG_GS
             : f->prefixes & PREFIX_FS ? SEG_FS
                                       : SEG_NONE;
}

/* Implicit registers and memory. The explicit memory operand, if any, is in mem[0] still. */
static void add_implicit(struct insn *in, struct fields *f)
{
    unsigned which = ATTR_IM(in->row->attr);
    const struct implicit *effect = &implicits[which];
    f->read |= effect->read;
    f->written |= effect->written;
    unsigned before = effect->count - effect->after;
    if (before && in->nmem) {
        in->mem[before] = in->mem[0];
        in->mem_index = (uint8_t)before;
        /* pop (%rsp): the address is taken after rsp has moved */
        if (which == IMPLICIT_POP && in->mem[1].base == GPR_RSP)
            in->mem[1].disp += in->opsize;
    }
    for (unsigned i = 0; i < effect->count; i++)
        add_implicit_mem(in, effect, i, i < before ? i : i + in->nmem, f);
    in->nmem = (uint8_t)(in->nmem + effect->count);
    if (which == IMPLICIT_MOVDIR64B)
        f->read |= gpr_bit(in->reg & 15);
}

/* Shifts by an immediate that is 0 after masking change neither flags nor registers. Rotations set
 * OF only if they are by one. */
static void refine_shift(struct insn *in, unsigned effect)
{
    unsigned count = (unsigned)in->imm & (in->opsize == 8 ? 63 : 31);
    if (count == 0) {
        in->flags_read = ARITH_BITS;
        in->flags_written = 0;
    } else if (count > 1 && effect != EFFECT_SHIFTI) {
        in->flags_read |= FLAG_OF;
        in->flags_written &= (uint16_t)~FLAG_OF;
    }
}

static inline void describe_flags(struct insn *in)
{
    unsigned effect = ATTR_FL(in->row->attr);
    in->flags_read = flag_effects[effect].read;
    in->flags_written = flag_effects[effect].written;
    if (effect == EFFECT_CC)
        in->flags_read = condition_flags[in->opcode >> 1 & 7];
    else if (effect == EFFECT_SHIFTI || effect == EFFECT_ROTI || effect == EFFECT_RCI)
        refine_shift(in, effect);
}

/* One general register operand. access: 1 read, 2 written, 4 a byte. */
static inline void add_gpr(struct fields *f, unsigned access, unsigned n)
{
    n &= f->high_bytes && access & 4 && (n & 12) == 4 ? 3 : 15;
    f->read |= (access & 1) << n;
    f->written |= (access >> 1 & 1) << n;
}

/* Register sets of the explicit operands. */
static inline void describe_regs(const struct insn *in, struct fields *f)
{
    unsigned gpr = in->row->gpr;
    add_gpr(f, gpr, in->reg);
    if (!f->memory)
        add_gpr(f, gpr >> 4, in->rm);
    if (gpr >> 8) {
        add_gpr(f, gpr >> 8, in->vvvv);
        add_gpr(f, gpr >> 12, (in->opcode & 7u) | (f->rex & 1) << 3);
    }
}

static void set_illegal(struct insn *in, const struct fields *f, enum insn_kind kind)
{
    size_t len = (size_t)(f->p - f->start);
    in->kind = (uint8_t)kind;
    in->len = (uint8_t)(len > MAX_LEN ? MAX_LEN : len);
    in->row = NULL;
    in->nmem = 0;
    in->rip_relative = false;
    in->flags = INSN_ENDS_TB;
    in->regs_read = 0xFFFF;
    in->regs_written = 0;
    in->flags_read = ALL_FLAGS;
    in->flags_written = 0;
}

/* Vector lengths (bit set) that each length attribute allows. */
static const uint8_t allowed_lengths[8] = {
    [0] = 7,
    [ATTR_LEN(L0)] = 1,
    [ATTR_LEN(L1)] = 2,
    [ATTR_LEN(L12)] = 6,
    [ATTR_LEN(L2)] = 4,
    [ATTR_LEN(LIG)] = 7,
};

static bool evex_illegal(struct insn *in, bool memory)
{
    uint64_t attr = in->row->attr;
    bool masked = in->evex & EVEX_AAA, zeroing = in->evex & EVEX_Z;
    bool to_memory = memory && in->row->mem_access & MEM_WRITE;
    if (masked && !ATTR_MASK(attr))
        return true;
    if (zeroing && (!masked || attr & MASKK || to_memory))
        return true;
    if (attr & VSIB && !masked)
        return true;
    if (!(in->evex & EVEX_B))
        return false;
    if (memory)
        return !ATTR_BC(attr);
    in->vec_len = 2; /* the length bits say how to round */
    return !(attr & (ER | SAE));
}

static bool gather_illegal(const struct insn *in, const struct fields *f)
{
    unsigned sib = f->p[1];
    unsigned index = (sib >> 3 & 7) | (f->rex & 2) << 2;
    if ((in->modrm & 7) != 4)
        return true;
    if (in->enc == ENC_EVEX)
        return in->row->mem_access & MEM_READ && in->reg == (index | (in->vvvv & 16));
    return index == in->reg || index == in->vvvv || in->reg == in->vvvv;
}

/* Register numbers that do not exist in the class. ModRM.rm's are cut instead. */
static bool number_illegal(const struct insn *in)
{
    for (unsigned i = 0; i < 3; i++) {
        unsigned operand = in->row->op[i], class = OPERAND_CLASS(operand);
        unsigned count = class == IN_MASK || class == IN_TMM ? 8 : class == IN_GPR ? 16 : 32;
        if (OPERAND_PLACE(operand) == AT_REG && in->reg >= count)
            return true;
        if (OPERAND_PLACE(operand) == AT_VVVV && in->vvvv >= count)
            return true;
    }
    return false;
}

/* True if the encoding has what VEX and EVEX forbid (volume 2, 2.4 and 2.7). */
static bool vex_illegal(struct insn *in, const struct fields *f, bool memory)
{
    const struct opcode *row = in->row;
    uint64_t attr = row->attr;
    if (!(row->modrm & ROW_VVVV) && in->vvvv & (row->modrm & ROW_VSIB ? 15 : 31))
        return true;
    if (in->enc == ENC_EVEX && evex_illegal(in, memory))
        return true;
    if (!(allowed_lengths[ATTR_LEN(attr)] >> in->vec_len & 1))
        return true;
    if (ATTR_LEN(attr) == ATTR_LEN(LIG))
        in->vec_len = 0;
    if (number_illegal(in))
        return true;
    if (attr & VSIB)
        return gather_illegal(in, f);
    if (attr & TMM3 && (in->reg == in->rm || in->reg == in->vvvv || in->rm == in->vvvv))
        return true;
    if (attr & DISTINCT && (in->reg == in->vvvv || (!memory && in->reg == in->rm)))
        return true;
    return attr & SIB && (in->modrm & 7) != 4;
}

/* Operand sizes as log2 of bytes, by mode and by 66 and REX.W (1, 2). */
static const uint8_t operand_size[8][4] = {
    [ATTR_MODE(MODE_V)] = {2, 1, 3, 3}, [ATTR_MODE(D64)] = {3, 1, 3, 3},
    [ATTR_MODE(F64)] = {3, 3, 3, 3},    [ATTR_MODE(MODE_Y)] = {2, 2, 3, 3},
    [ATTR_MODE(MODE_B)] = {0, 0, 0, 0},
};

static bool lock_illegal(const struct insn *in, bool memory)
{
    uint64_t attr = in->row->attr;
    unsigned place = OPERAND_PLACE(in->row->op[0]);
    return !(attr & LOCK) || !memory || (place != AT_RM && place != AT_RMMEM);
}

/* Flags that depend on prefixes and operands. */
static inline unsigned describe_insn_flags(const struct insn *in, const struct fields *f)
{
    uint64_t attr = in->row->attr;
    unsigned flags = ATTR_FLAGS(attr);
    if (f->prefixes & PREFIX_LOCK)
        flags |= INSN_LOCK;
    if (f->prefixes & PREFIX_67)
        flags |= INSN_ADDR32;
    if (in->evex & EVEX_AAA)
        flags |= INSN_USES_MASK;
    if (f->prefixes & PREFIX_GS)
        for (unsigned i = 0; i < in->nmem; i++)
            flags |= in->mem[i].seg == SEG_GS ? INSN_USES_GS : 0;
    if (attr & STRING && f->rep)
        flags |= INSN_ENDS_TB | (f->rep == 2 ? INSN_REP : INSN_REPNE);
    if (attr & MOVSEG) {
        bool load = OPERAND_PLACE(in->row->op[0]) == AT_REG;
        unsigned seg = in->reg & 7;
        flags |= seg == 5 ? INSN_SETS_GS : 0;
        flags |= load && seg < 4 ? INSN_ENDS_TB : 0;
    }
    if (ATTR_KIND(attr) != INSN_NEXT)
        flags |= INSN_ENDS_TB;
    return flags;
}

/* Segment register 6 and 7 and a move to cs; control and debug registers that do not exist. */
static bool register_illegal(const struct insn *in)
{
    static const uint32_t control = 1u << 0 | 1u << 2 | 1u << 3 | 1u << 4 | 1u << 8;
    for (unsigned i = 0; i < 2; i++) {
        unsigned class = OPERAND_CLASS(in->row->op[i]);
        if (class == IN_SEG && ((in->reg & 7) > 5 || (i == 0 && (in->reg & 7) == 1)))
            return true;
        if (class == IN_CR && !(control >> in->reg & 1))
            return true;
        if (class == IN_DR && in->reg > 7)
            return true;
    }
    return false;
}

static inline void find_row(struct insn *in, const struct fields *f)
{
    const struct entry *entry = &opcode_index[f->entry];
    unsigned modrm = *f->p;
    unsigned key = (modrm & 63) | (modrm >= 0xC0) << KEY_MOD | f->pp << KEY_PP |
                   (f->rex & 1) << KEY_B | (unsigned)in->vec_len << KEY_LEN;
    unsigned cell = entry->base + (key >> entry->shift & ((1u << entry->bits) - 1));
    in->row = &rows[cells[cell]];
}

/* The legality rules that few instructions meet. */
static inline bool is_illegal(struct insn *in, const struct fields *f, bool memory)
{
    const struct opcode *row = in->row;
    if (row->modrm & ROW_MODRM && !(row->modrm & (memory ? ROW_MEM_OK : ROW_REG_OK)) &&
        row->modrm & (ROW_MEM_OK | ROW_REG_OK))
        return true;
    if (in->enc != ENC_LEGACY && vex_illegal(in, f, memory))
        return true;
    if (f->prefixes & PREFIX_LOCK && lock_illegal(in, memory))
        return true;
    if (row->attr & NO66 && f->prefixes & PREFIX_66)
        return true;
    return row->attr & (MOVSEG | MODREG) && register_illegal(in);
}

/* The string instructions' rep: counts in rcx, and flags survive if rcx is 0. */
static void describe_rep(struct insn *in, struct fields *f)
{
    f->written |= 1 << GPR_RCX;
    f->read |= f->written; /* with rcx = 0 nothing is written */
    if (in->flags_written) {
        in->flags_read |= ARITH_BITS;
        in->flags_written = 0;
    }
}

static void describe_moffs(struct insn *in, const struct fields *f)
{
    struct mem_op *m = &in->mem[0];
    bool store = OPERAND_PLACE(in->row->op[0]) == AT_MOFFS;
    *m = (struct mem_op){.base = REG_NONE,
                         .index = REG_NONE,
                         .scale = 1,
                         .seg = f->prefixes & PREFIX_GS   ? SEG_GS
                                : f->prefixes & PREFIX_FS ? SEG_FS
                                                          : SEG_NONE,
                         .flags = MEM_ABS64 | (store ? MEM_WRITE : MEM_READ),
                         .size = in->opsize,
                         .count = 1};
    in->nmem = 1;
    if (f->prefixes & PREFIX_67)
        in->imm &= 0xFFFFFFFF;
}

/* ModRM and, if it says memory, the address; false if the instruction is illegal. */
static inline bool parse_modrm(struct insn *in, struct fields *f)
{
    const struct opcode *row = in->row;
    unsigned modrm = *f->p;
    bool memory = modrm < 0xC0 && !(row->attr & MODREG);
    f->memory = memory;
    in->modrm = (uint8_t)modrm;
    in->modrm_off = (uint8_t)(f->p - f->start);
    in->reg |= (uint8_t)((modrm >> 3 & 7) | (f->rex & 4) << 1);
    in->rm |= (uint8_t)((modrm & 7) | (f->rex & 1) << 3);
    if (is_illegal(in, f, memory)) {
        f->p += 1 + (row->attr & VSIB ? 1 : 0); /* SIB was looked at */
        return false;
    }
    f->p++;
    if (memory) {
        struct mem_op *m = &in->mem[0];
        parse_address(in, m, f);
        describe_mem(in, m, f);
        in->nmem = (m->flags & (MEM_READ | MEM_WRITE)) != 0;
        f->read |= address_regs(m);
    }
    return true;
}

static inline void parse_immediates(struct insn *in, struct fields *f)
{
    const struct opcode *row = in->row;
    unsigned size = imm_size[row->imm][f->op_log];
    if (row->imm == IMM_MOFFS && f->prefixes & PREFIX_67)
        size = 4;
    if (row->imm == IMM_RELZ && row->mode == ATTR_MODE(F64))
        size = 4;
    unsigned unused = 64 - 8 * size;
    in->imm_off = (uint8_t)(f->p - f->start);
    in->imm_size = (uint8_t)size;
    in->imm = (uint64_t)((int64_t)((uint64_t)load64(f->p) << unused) >> unused);
    f->p += size + imm2_size[row->imm];
}

/* Kind, registers, flags and implicit operands, when all bytes are known. */
static inline void describe_insn(struct insn *in, struct fields *f)
{
    const struct opcode *row = in->row;
    in->kind = ATTR_KIND(row->attr);
    describe_flags(in);
    describe_regs(in, f);
    if (row->imm == IMM_MOFFS)
        describe_moffs(in, f);
    else if (row->imm == IMM_REL8 || row->imm == IMM_RELZ)
        in->target = in->pc + in->len + in->imm;
    if (ATTR_IM(row->attr))
        add_implicit(in, f);
    if (row->attr & STRING && f->rep)
        describe_rep(in, f);
    if (f->op_log <= 1)
        f->read |= f->written;
    in->flags = (uint16_t)describe_insn_flags(in, f);
    in->regs_read = (uint16_t)f->read;
    in->regs_written = (uint16_t)f->written;
}

/* Everything behind the opcode. */
static inline void decode_rest(struct insn *in, struct fields *f)
{
    const struct opcode *row = in->row;
    f->read = row->fixed_read;
    f->written = row->fixed_written;
    f->op_log = operand_size[row->mode][(f->prefixes & PREFIX_66) | (f->rex >> 2 & 2)];
    in->opsize = (uint8_t)(1u << f->op_log);
    in->modrm_off = in->disp_off = in->disp_size = in->imm_off = in->imm_size = 0;
    in->nmem = in->mem_index = 0;
    in->rip_relative = false;
    in->imm = 0;
    if (row->modrm & ROW_MODRM ? !parse_modrm(in, f) : is_illegal(in, f, false)) {
        set_illegal(in, f, INSN_ILLEGAL);
        return;
    }
    if (row->imm)
        parse_immediates(in, f);
    f->p += in->map == MAP_3DNOW;
    if (f->p - f->start > MAX_LEN) {
        set_illegal(in, f, INSN_PRIV);
        return;
    }
    in->len = (uint8_t)(f->p - f->start);
    describe_insn(in, f);
}

static void decode_bytes(struct insn *in, const uint8_t *code)
{
    struct fields f = {.start = code, .p = code};
    scan_prefixes(&f);
    in->prefix_len = (uint8_t)(f.p - code);
    in->rex = (uint8_t)f.rex;
    in->prefixes = (uint8_t)f.prefixes;
    in->enc = ENC_LEGACY;
    in->reg = in->rm = in->vvvv = in->vec_len = in->evex = 0;
    if (f.p - code >= MAX_LEN) {
        set_illegal(in, &f, INSN_PRIV);
        return;
    }
    select_opcode(&f, in);
    find_row(in, &f);
    if (in->row == &rows[ROW_NONE]) {
        f.p++;
        set_illegal(in, &f, INSN_ILLEGAL);
        return;
    }
    decode_rest(in, &f);
}

int decode(struct insn *in, const uint8_t *code, size_t limit, uint64_t pc)
{
    uint8_t padded[READ_AHEAD] = {0};
    in->pc = pc;
    if (limit < READ_AHEAD) {
        memcpy(padded, code, limit < MAX_LEN ? limit : MAX_LEN);
        code = padded;
    }
    decode_bytes(in, code);
    return in->len <= limit ? DECODE_OK : DECODE_PARTIAL;
}
