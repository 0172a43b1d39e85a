/* decode.c: x86-64 machine code to struct insn, for 64-bit mode.
 *
 * It knows the encoding and nothing else: no memory but the bytes given, no state between calls,
 * no other file of the program. What the instructions are is said in opcodes_x86_64.h; the tables
 * built from it here are indexed directly, so that a row costs two loads to find. Where makers
 * differ this is Intel's hardware (Software Developer's Manual, volume 2, chapters 2 and A). */
#include "opcodes_x86_64.h"

#include <stddef.h>
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

/* The cells of the groups, one group behind the other. */
enum {
    GROUPS = -1,
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

struct entry { /* a row; of a group, cell base + (key >> shift & mask) */
    uint32_t base : 16, mask : 12, shift : 4;
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
    [at] = {JOIN(BASE_, __LINE__), (1 << JOIN(BITS_, __LINE__)) - 1, JOIN(SHIFT_, __LINE__)},
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
#define X(cell, ...) CELL_##cell
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

/* What the rows say of operand i: MEM_READ, MEM_WRITE. */
#define ACCESS_W(i)  ((i) == 0 ? 2 : 1)
#define ACCESS_M(i)  ((i) == 0 ? 3 : 1)
#define ACCESS_R(i)  1
#define ACCESS_X(i)  ((i) < 2 ? 3 : 1)
#define ACCESS_WW(i) ((i) < 2 ? 2 : 1)
#define ACCESS_CX(i) ((i) < 2 ? 3 : 1)
#define ACCESS_N(i)  0

/* What an operand alone says of its row. The rows only combine these: a preprocessor that had to
 * derive them 2500 times would take longer than all the rest of the program. */
#define IS_GPR(place, class, at)  ((class) == IN_GPR && (place) == (at))
#define IS_RM(place)              ((place) == AT_RM || (place) == AT_RMREG)
#define IS_BYTE(place, class, size, at) (IS_GPR(place, class, at) && (size) == SZ_b)
#define REGISTERS_AT(place, class, at) \
    ((place) != (at) ? 0 : (class) == IN_MASK || (class) == IN_TMM ? 8 : (class) == IN_GPR ? 16 : 32)
#define BY_SIZE(b, w, d, q)       ((b) | (w) << 4 | (d) << 8 | (q) << 12)
#define FACTS(name, place, class, size, number) \
    /* 1 if it is a general register there; a fixed one's bit */ \
    IN_REG_##name = IS_GPR(place, class, AT_REG), \
    IN_RM_##name = IS_RM(place) && (class) == IN_GPR, \
    IN_THIRD_##name = IS_GPR(place, class, AT_VVVV) || IS_GPR(place, class, AT_OPC), \
    IN_FIXED_##name = IS_GPR(place, class, AT_FIXED) << (number), \
    /* a write of 8 or 16 bits keeps the rest of the register: it reads it */ \
    PART_##name = (size) == SZ_b || (size) == SZ_w, \
    /* as in row->byte_regs */ \
    BYTE_##name = IS_BYTE(place, class, size, AT_OPC) << 2 | \
        (IS_RM(place) && (class) == IN_GPR && (size) == SZ_b) << 5 | \
        IS_BYTE(place, class, size, AT_REG) << 8, \
    REGS_##name = REGISTERS_AT(place, class, AT_REG), \
    VVVVS_##name = REGISTERS_AT(place, class, AT_VVVV), \
    /* has ModRM, and the form that ModRM may not have */ \
    FORM_##name = (IS_RM(place) || (place) == AT_RMMEM || (place) == AT_REG ? ROW_MODRM : 0) | \
        ((place) == AT_RMREG ? ROW_MEM_OK : 0) | ((place) == AT_RMMEM ? ROW_REG_OK : 0) | \
        ((place) == AT_MOFFS ? ROW_REFINE : 0), \
    IS_MEM_##name = (place) == AT_RM || (place) == AT_RMMEM, \
    MEM_SIZE_##name = IS_MEM_##name ? (size) : SZ_none, \
    USES_##name = (class) == IN_VEC || (class) == IN_TMM ? INSN_USES_VEC \
        : (class) == IN_MASK ? INSN_USES_MASK \
        : (class) == IN_MMX || (class) == IN_ST ? INSN_USES_X87 : 0, \
    /* what it says of the operand size */ \
    SIZED_V_##name = (size) == SZ_v || (size) == SZ_z || (size) == SZ_vw, \
    SIZED_B_##name = (size) == SZ_b && \
        ((class) == IN_GPR || (place) == AT_SI || (place) == AT_DI), \
    IS_REG_##name = (class) == IN_GPR || (class) == IN_VEC, \
    IMM_KIND_##name = (place) == AT_IS4 ? IMM_B \
        : (place) == AT_MOFFS ? IMM_MOFFS \
        : (place) == AT_REL ? ((size) == SZ_b ? IMM_REL8 : IMM_RELZ) \
        : (place) != AT_IMM ? IMM_NONE \
        : (size) == SZ_w ? IMM_W : (size) == SZ_d ? IMM_D \
        : (size) == SZ_z ? IMM_Z : (size) == SZ_y ? IMM_V : IMM_B, \
    IMM_SIZES_##name = IMM_KIND_##name == IMM_B || IMM_KIND_##name == IMM_REL8 ? 0x1111 \
        : IMM_KIND_##name == IMM_W ? 0x2222 : IMM_KIND_##name == IMM_D ? 0x4444 \
        : IMM_KIND_##name == IMM_Z ? 0x4421 : IMM_KIND_##name == IMM_RELZ ? 0x4424 \
        : IMM_KIND_##name == IMM_V ? 0x8421 : IMM_KIND_##name == IMM_MOFFS ? 0x8888 : 0,
enum { OPERANDS(FACTS) };

#define ALL4(fact, a, b, c, d) (fact##a | fact##b | fact##c | fact##d)
#define KIND4(a, b, c, d)      (IMM_KIND_##a + IMM_KIND_##b + IMM_KIND_##c + IMM_KIND_##d)

/* Access of an operand as a register set: REGS_READ(1), REGS_WRITTEN(1) or both. */
#define TOUCH(o, acc)          (((acc) & 1) | ((acc) >> 1 & PART_##o) | ((acc) & 2) << 15)
#define REGS4(in, a, b, c, d, acc) \
    (in##a * TOUCH(a, acc(0)) | in##b * TOUCH(b, acc(1)) | in##c * TOUCH(c, acc(2)) | \
     in##d * TOUCH(d, acc(3)))
#define MEM4(a, b, c, d, acc) \
    (IS_MEM_##a * acc(0) | IS_MEM_##b * acc(1) | IS_MEM_##c * acc(2) | IS_MEM_##d * acc(3))

/* Both forms of ModRM unless an operand takes one away. */
#define FORM_OF(a, b, c, d, at) \
    ((ALL4(FORM_, a, b, c, d) ^ (ROW_MEM_OK | ROW_REG_OK)) | ((at) & MODRM ? ROW_MODRM : 0) | \
     ((at) & (NO66 | MOVSEG | MODREG) ? ROW_RULES : 0) | ((at) & VSIB ? ROW_VSIB : 0) | \
     ((at) & (SIGNED | BIGEND | BITS | VSIB | VMASKED) ? ROW_MEM_SHAPE : 0) | \
     ((at) & (STRING | MOVSEG) || ATTR_FL(at) - EFFECT_SHIFTI <= 2 ? ROW_REFINE : 0))
#define MEMORY_BELOW_OF(a, b, c, d, at) \
    (ALL4(FORM_, a, b, c, d) & ROW_MODRM || (at) & MODRM ? (at) & MODREG ? 0 : 0xC0 : 0)

/* Operand sizes as log2 of bytes, two bits each, by 66 and W (1, 2). */
#define LOGS(none, p66, w, w66) ((none) | (p66) << 2 | (w) << 4 | (w66) << 6)
enum {
    LOGS_V = LOGS(2, 1, 3, 3), LOGS_D64 = LOGS(3, 1, 3, 3), LOGS_F64 = LOGS(3, 3, 3, 3),
    LOGS_Y = LOGS(2, 2, 3, 3), LOGS_B = LOGS(0, 0, 0, 0), LOGS_Z = LOGS(2, 1, 2, 2),
};
#define LOGS_OF(a, b, c, mode) \
    ((mode) == ATTR_MODE(D64) ? LOGS_D64 : (mode) == ATTR_MODE(F64) ? LOGS_F64 \
     : (mode) == ATTR_MODE(MODE_Y) ? LOGS_Y : (mode) == ATTR_MODE(MODE_B) ? LOGS_B \
     : (mode) == ATTR_MODE(MODE_Z) ? LOGS_Z \
     : (mode) == ATTR_MODE(MODE_V) || SIZED_V_##a | SIZED_V_##b | SIZED_V_##c ? LOGS_V \
     : SIZED_B_##a || (SIZED_B_##b && !IS_REG_##a) ? LOGS_B : LOGS_Y)

/* The mnemonics, one behind the other. The rows have offsets into them: 2600 pointers would make the
 * dynamic linker write to 40 pages each time the program starts. */
static const struct names {
    char bad[6];
#define X(cell, name, ...) char JOIN(of_, __LINE__)[sizeof(name)];
#define G(cell, name, shape)
#include "opcodes_x86_64.h"
#undef X
} names = {
    "(bad)",
#define X(cell, name, ...) name,
#include "opcodes_x86_64.h"
#undef X
#undef G
};

#define ROW_DATA(name, a, b, c, d, acc, at) \
    {at, {OPND_##a, OPND_##b, OPND_##c, OPND_##d}, \
     REGS4(IN_FIXED_, a, b, c, d, acc), REGS4(IN_REG_, a, b, c, d, acc), \
     REGS4(IN_RM_, a, b, c, d, acc), REGS4(IN_THIRD_, a, b, c, d, acc), \
     name, ATTR_FLAGS(at) | ALL4(USES_, a, b, c, d) | (ATTR_KIND(at) != INSN_NEXT ? INSN_ENDS_TB : 0), \
     KIND4(a, b, c, d) == IMM_WB ? IMM_SIZES_Iw : ALL4(IMM_SIZES_, a, b, c, d), \
     ALL4(BYTE_, a, b, c, d), FORM_OF(a, b, c, d, at), MEMORY_BELOW_OF(a, b, c, d, at), \
     ATTR_KIND(at), ATTR_FL(at), ATTR_IM(at), KIND4(a, b, c, d), \
     KIND4(a, b, c, d) == IMM_BB || KIND4(a, b, c, d) == IMM_WB || (at) & OPCODE_LAST, \
     ALL4(MEM_SIZE_, a, b, c, d), \
     (at) & NOMEM ? 0 : MEM4(a, b, c, d, acc), LOGS_OF(a, b, c, ATTR_MODE(at)), \
     ALL4(REGS_, a, b, c, d) ? ALL4(REGS_, a, b, c, d) : 32, \
     ALL4(VVVVS_, a, b, c, d) ? ALL4(VVVVS_, a, b, c, d) : 1},

/* A cell that is chosen by ModRM has one, whether or not an operand shows it. */
#define IMPLIED_OP(...)      0
#define IMPLIED_NOW(...)     OPCODE_LAST
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
    [ROW_NONE] = {.attr = KIND(ILLEGAL), .kind = INSN_ILLEGAL},
#define X(cell, name, a, b, c, d, acc, at) \
    ROW_DATA(offsetof(struct names, JOIN(of_, __LINE__)), a, b, c, d, ACCESS_##acc, \
             (at) | IMPLIED_##cell)
#define G(cell, name, shape)
#include "opcodes_x86_64.h"
#undef X
#undef G
};

static const uint8_t legacy_prefix[256] = {
    [0x26] = PREFIX_NULL, [0x2E] = PREFIX_NULL, [0x36] = PREFIX_NULL, [0x3E] = PREFIX_NULL,
    [0x64] = PREFIX_FS,   [0x65] = PREFIX_GS,   [0x66] = PREFIX_66,   [0x67] = PREFIX_67,
    [0xF0] = PREFIX_LOCK, [0xF2] = PREFIX_F2,   [0xF3] = PREFIX_F3,
};

/* What a byte is at the start of an instruction or behind its REX. */
enum { BYTE_OPCODE, BYTE_0F, BYTE_VEX, BYTE_PREFIX };
#define BYTES_OF_REX \
    [0x40] = BYTE_PREFIX, BYTE_PREFIX, BYTE_PREFIX, BYTE_PREFIX, BYTE_PREFIX, BYTE_PREFIX, \
    BYTE_PREFIX, BYTE_PREFIX, BYTE_PREFIX, BYTE_PREFIX, BYTE_PREFIX, BYTE_PREFIX, BYTE_PREFIX, \
    BYTE_PREFIX, BYTE_PREFIX, BYTE_PREFIX
static const uint8_t byte_class[256] = {
    BYTES_OF_REX, [0x0F] = BYTE_0F,
    [0xC4] = BYTE_VEX, [0xC5] = BYTE_VEX, [0x62] = BYTE_VEX, [0x8F] = BYTE_VEX, /* XOP or pop */
    [0x26] = BYTE_PREFIX, [0x2E] = BYTE_PREFIX, [0x36] = BYTE_PREFIX, [0x3E] = BYTE_PREFIX,
    [0x64] = BYTE_PREFIX, [0x65] = BYTE_PREFIX, [0x66] = BYTE_PREFIX, [0x67] = BYTE_PREFIX,
    [0xF0] = BYTE_PREFIX, [0xF2] = BYTE_PREFIX, [0xF3] = BYTE_PREFIX,
};

/* What a ModRM byte says of an operand's address: the size of its displacement and these. */
enum { SHAPE_DISP = 7, SHAPE_SIB = 8, SHAPE_RIP = 16 };
#define EIGHT_REGS(...) \
    __VA_ARGS__, __VA_ARGS__, __VA_ARGS__, __VA_ARGS__, __VA_ARGS__, __VA_ARGS__, __VA_ARGS__, \
    __VA_ARGS__
static const uint8_t modrm_shape[256] = {
    EIGHT_REGS(0, 0, 0, 0, SHAPE_SIB, SHAPE_RIP | 4, 0, 0),
    EIGHT_REGS(1, 1, 1, 1, SHAPE_SIB | 1, 1, 1, 1),
    EIGHT_REGS(4, 4, 4, 4, SHAPE_SIB | 4, 4, 4, 4),
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

#define ARITH_BITS FLAGS_ARITH
#define ALL_FLAGS  (ARITH_BITS | FLAG_DF)
#define NOT(bits)  (ARITH_BITS & ~(bits))
#define BMI_UNDEF  (FLAG_AF | FLAG_PF)

/* Flags read, written whatever the operands are, and left undefined by the manual. Of the
 * undefined ones, written has those that every processor writes; some or all keep the others (mul,
 * div, bt). Shifts by cl, and by an immediate of 0 (see refine_shift), may keep all flags: they
 * read them. */
static const struct flag_sets { uint16_t read, written, undefined; } flag_effects[EFFECT_COUNT] = {
    [EFFECT_ARITH] = {0, ARITH_BITS, 0},
    [EFFECT_LOGIC] = {0, ARITH_BITS, FLAG_AF},
    [EFFECT_ADC] = {FLAG_CF, ARITH_BITS, 0},
    [EFFECT_INC] = {0, NOT(FLAG_CF), 0},
    [EFFECT_MUL] = {0, FLAG_CF | FLAG_OF, NOT(FLAG_CF | FLAG_OF)}, /* AMD keeps them */
    [EFFECT_DIV] = {0, 0, ARITH_BITS},
    [EFFECT_BT] = {0, FLAG_CF, NOT(FLAG_CF | FLAG_ZF)},
    [EFFECT_BSF] = {0, ARITH_BITS, NOT(FLAG_ZF)},
    [EFFECT_TZCNT] = {0, FLAG_CF | FLAG_ZF, NOT(FLAG_CF | FLAG_ZF)}, /* likewise */
    [EFFECT_BMI] = {0, ARITH_BITS, BMI_UNDEF},
    [EFFECT_BEXTR] = {0, ARITH_BITS, BMI_UNDEF | FLAG_SF},
    [EFFECT_ZF] = {0, FLAG_ZF, 0},
    [EFFECT_ZFR] = {FLAG_ZF, 0, 0},
    [EFFECT_CC_O] = {FLAG_OF, 0, 0},
    [EFFECT_CC_B] = {FLAG_CF, 0, 0},
    [EFFECT_CC_Z] = {FLAG_ZF, 0, 0},
    [EFFECT_CC_BE] = {FLAG_CF | FLAG_ZF, 0, 0},
    [EFFECT_CC_S] = {FLAG_SF, 0, 0},
    [EFFECT_CC_P] = {FLAG_PF, 0, 0},
    [EFFECT_CC_L] = {FLAG_SF | FLAG_OF, 0, 0},
    [EFFECT_CC_LE] = {FLAG_SF | FLAG_OF | FLAG_ZF, 0, 0},
    [EFFECT_SHIFTI] = {0, ARITH_BITS, FLAG_AF},
    [EFFECT_SHIFT1] = {0, ARITH_BITS, FLAG_AF},
    [EFFECT_SHIFTC] = {ARITH_BITS, 0, FLAG_AF | FLAG_OF},
    [EFFECT_ROTI] = {0, FLAG_CF | FLAG_OF, 0},
    [EFFECT_ROT1] = {0, FLAG_CF | FLAG_OF, 0},
    [EFFECT_ROTC] = {ARITH_BITS, 0, FLAG_OF},
    [EFFECT_RCI] = {FLAG_CF, FLAG_CF | FLAG_OF, 0},
    [EFFECT_RC1] = {FLAG_CF, FLAG_CF | FLAG_OF, 0},
    [EFFECT_RCC] = {ARITH_BITS, 0, FLAG_OF},
    [EFFECT_STR] = {FLAG_DF, 0, 0},
    [EFFECT_STRCMP] = {FLAG_DF, ARITH_BITS, 0},
    [EFFECT_CMC] = {FLAG_CF, FLAG_CF, 0},
    [EFFECT_SETC] = {0, FLAG_CF, 0},
    [EFFECT_SETD] = {0, FLAG_DF, 0},
    [EFFECT_SAHF] = {0, NOT(FLAG_OF), 0},
    [EFFECT_LAHF] = {NOT(FLAG_OF), 0, 0},
    [EFFECT_PUSHF] = {ALL_FLAGS, 0, 0},
    [EFFECT_POPF] = {0, ALL_FLAGS, 0},
    [EFFECT_ALL] = {ALL_FLAGS, 0, 0},
    [EFFECT_FCMOV] = {FLAG_CF | FLAG_PF | FLAG_ZF, 0, 0},
    [EFFECT_ADCX] = {FLAG_CF, FLAG_CF, 0},
    [EFFECT_ADOX] = {FLAG_OF, FLAG_OF, 0},
};

/* Implicit operands. Sizes of 0 mean the operand size; disp is in units of the size. A segment
 * prefix applies to ds:rsi and ds:rbx, not to the stack and es:rdi. */
struct implicit_mem {
    int8_t base, index, disp;
    uint8_t flags, size;
    bool segment;
};
struct implicit {
    uint16_t read, written;
    uint8_t count, after; /* memory operands; how many come after the explicit one */
    struct implicit_mem mem[2];
};

#define R(reg)  (1 << GPR_##reg)
#define R11     (1 << 11)
#define PLAIN(base, disp, flags, size) {base, REG_NONE, disp, flags, size, false}
#define STACK_W     PLAIN(GPR_RSP, -1, MEM_WRITE | MEM_STACK, 0)
#define STACK_R     PLAIN(GPR_RSP, 0, MEM_READ | MEM_STACK, 0)
#define AT_RSI      {GPR_RSI, REG_NONE, 0, MEM_READ, 0, true}
#define AT_RDI      PLAIN(GPR_RDI, 0, MEM_READ, 0)
#define TO_RDI      PLAIN(GPR_RDI, 0, MEM_WRITE, 0)
#define MASKED(n)   {GPR_RDI, REG_NONE, 0, MEM_WRITE | MEM_MASKED, n, true} /* ds:rdi */

static const struct implicit implicits[IMPLICIT_COUNT] = {
    [IMPLICIT_PUSH] = {R(RSP), R(RSP), 1, 0, {STACK_W}},
    [IMPLICIT_PUSH_AFTER] = {R(RSP), R(RSP), 1, 1, {STACK_W}},
    [IMPLICIT_POP] = {R(RSP), R(RSP), 1, 0, {STACK_R}},
    [IMPLICIT_CALL] = {R(RSP), R(RSP), 1, 0, {STACK_W}},
    [IMPLICIT_CALL_IND] = {R(RSP), R(RSP), 1, 1, {STACK_W}},
    [IMPLICIT_RET] = {R(RSP), R(RSP), 1, 0, {STACK_R}},
    [IMPLICIT_ENTER] = {R(RSP) | R(RBP), R(RSP) | R(RBP), 1, 0, {STACK_W}},
    [IMPLICIT_LEAVE] = {R(RBP), R(RSP) | R(RBP), 1, 0,
                        {PLAIN(GPR_RBP, 0, MEM_READ | MEM_STACK, 0)}},
    [IMPLICIT_FARRET] = {R(RSP), R(RSP), 2, 0,
                         {STACK_R, PLAIN(GPR_RSP, 1, MEM_READ | MEM_STACK, 0)}},
    [IMPLICIT_FARCALL] = {R(RSP), R(RSP), 2, 2,
                          {STACK_W, PLAIN(GPR_RSP, -2, MEM_WRITE | MEM_STACK, 0)}},
    [IMPLICIT_IRET] = {R(RSP), R(RSP), 2, 0,
                       {STACK_R, PLAIN(GPR_RSP, 1, MEM_READ | MEM_STACK, 0)}},
    [IMPLICIT_INS] = {R(RDI) | R(RDX), R(RDI), 1, 0, {TO_RDI}},
    [IMPLICIT_OUTS] = {R(RSI) | R(RDX), R(RSI), 1, 0, {AT_RSI}},
    [IMPLICIT_MOVS] = {R(RSI) | R(RDI), R(RSI) | R(RDI), 2, 0, {AT_RSI, TO_RDI}},
    [IMPLICIT_CMPS] = {R(RSI) | R(RDI), R(RSI) | R(RDI), 2, 0, {AT_RDI, AT_RSI}},
    [IMPLICIT_STOS] = {R(RDI), R(RDI), 1, 0, {TO_RDI}},
    [IMPLICIT_LODS] = {R(RSI), R(RSI), 1, 0, {AT_RSI}},
    [IMPLICIT_SCAS] = {R(RDI), R(RDI), 1, 0, {AT_RDI}},
    [IMPLICIT_XLAT] = {R(RAX) | R(RBX), R(RAX), 1, 0, {{GPR_RBX, GPR_RAX, 0, MEM_READ | MEM_INDEX8, 1, true}}},
    [IMPLICIT_MASKMOVQ] = {R(RDI), 0, 1, 0, {MASKED(8)}},
    [IMPLICIT_MASKMOVDQU] = {R(RDI), 0, 1, 0, {MASKED(16)}},
    [IMPLICIT_MOVDIR64B] = {0, 0, 1, 1, {PLAIN(REG_NONE, 0, MEM_WRITE, 64)}},
    [IMPLICIT_CLZERO] = {R(RAX), 0, 1, 0, {{GPR_RAX, REG_NONE, 0, MEM_WRITE, 64, true}}},
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

/* Most of the time goes into branches that are mispredicted, for one instruction says little of
 * the next: what can be computed for all instructions alike is, and what few have is behind one
 * test of row->form or of the prefixes. */

enum { MAX_LEN = 15, MAP_3DNOW = 15 };
/* Bytes that may be looked at before the length is known: 14 prefixes and the longest rest. */
enum { READ_AHEAD = 40 };
/* What makes every instruction special. */
enum { PREFIX_REFINES = PREFIX_LOCK | PREFIX_67 | PREFIX_FS | PREFIX_GS };

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* The state of decoding. Only functions that are inlined take its address: it stays in registers.
 */
struct fields {
    const uint8_t *start, *p; /* first byte, next byte */
    unsigned prefixes;        /* set of PREFIX_* */
    unsigned rep;             /* the last of F3 and F2, as pp: 2, 3; 0 if none */
    unsigned rex;             /* W R X B as in a REX byte: 8 4 2 1 */
    unsigned pp;
    unsigned high_reg, high_rm; /* EVEX: 16 */
    unsigned entry;             /* index into opcode_index */
    unsigned op_log;            /* operand size, log2 */
    enum seg seg;               /* of memory operands that a prefix can override */
    bool memory;                /* ModRM is a memory operand */
    bool special;               /* may have what decode_special() is for */
};

static inline uint32_t load32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* The low 0 to 8 bytes of v. Two shifts each way: one by 64 is undefined. */
static inline int64_t sign_extend(uint64_t v, unsigned bytes)
{
    unsigned half = 32 - 4 * bytes;
    return (int64_t)(v << half << half) >> half >> half;
}

struct prefixes {
    uint8_t len, set, rep, rex;
};

/* Legacy prefixes, then REX: one that another prefix follows is ignored (volume 2, 2.2.1). */
static struct prefixes scan_all_prefixes(const uint8_t *code)
{
    struct prefixes f = {0, 0, 0, 0};
    for (; f.len < MAX_LEN; f.len++) {
        unsigned byte = code[f.len], bit = legacy_prefix[byte];
        bool is_rex = byte >> 4 == 4;
        if (!bit && !is_rex)
            break;
        if (bit & (PREFIX_F3 | PREFIX_F2))
            f.rep = bit == PREFIX_F3 ? 2 : 3;
        if (bit & (PREFIX_FS | PREFIX_GS))
            f.set &= (uint8_t) ~(PREFIX_FS | PREFIX_GS);
        f.set = (uint8_t)(f.set | bit);
        f.rex = is_rex ? (uint8_t)byte : 0;
    }
    return f;
}

static ALWAYS_INLINE void scan_rex(struct fields *f)
{
    unsigned is_rex = *f->p >> 4 == 4;
    f->rex = *f->p & (0 - is_rex);
    f->p += is_rex;
}

static inline void scan_prefixes(struct fields *f)
{
    struct prefixes all = scan_all_prefixes(f->start);
    f->p = f->start + all.len;
    f->prefixes = all.set;
    f->rex = all.rex;
    f->rep = all.rep;
    f->pp = all.rep ? all.rep : all.set & PREFIX_66;
    f->seg = all.set & PREFIX_GS ? SEG_GS : all.set & PREFIX_FS ? SEG_FS : SEG_NONE;
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

/* Behind 0F. Of 0F 0F the opcode follows the operands. */
static ALWAYS_INLINE void select_0f(struct fields *f, struct insn *in)
{
    unsigned byte = *f->p++;
    unsigned index = INDEX_OF, map = 1;
    if (byte == 0x38 || byte == 0x3A) {
        index = byte == 0x38 ? INDEX_OF38 : INDEX_OF3A;
        map = byte == 0x38 ? 2 : 3;
        byte = *f->p++;
    } else if (byte == 0x0F) {
        in->map = MAP_3DNOW;
        in->opcode = f->p[modrm_length(f->p)];
        f->entry = INDEX_NOW + in->opcode;
        return;
    }
    in->map = (uint8_t)map;
    in->opcode = (uint8_t)byte;
    f->entry = index + byte * 4 + f->pp;
}

/* Where the maps of VEX and EVEX begin in the index, by mmmmm. */
static const uint16_t vex_index[32] = {
    [1] = INDEX_VF,
    [2] = INDEX_VF38,
    [3] = INDEX_VF3A,
};
static const uint16_t evex_index[8] = {
    [1] = INDEX_EF, [2] = INDEX_EF38, [3] = INDEX_EF3A, [5] = INDEX_E5, [6] = INDEX_E6,
};
static const uint16_t xop_index[32] = {[8] = INDEX_XF8, [9] = INDEX_XF9, [10] = INDEX_XFA};

/* Behind C5, C4 and 8F; returns where the map is in the index. */
static inline unsigned parse_vex(struct fields *f, struct insn *in, unsigned escape)
{
    unsigned p0 = *f->p++;
    unsigned p1 = p0, map = 1;
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
    in->map = (uint8_t)map;
    return escape == 0x8F ? xop_index[map] : vex_index[map];
}

/* Behind 62. */
static inline unsigned parse_evex(struct fields *f, struct insn *in)
{
    unsigned p0 = f->p[0], p1 = f->p[1], p2 = f->p[2];
    f->p += 3;
    f->rex = (~p0 >> 5 & 7) | (p1 >> 4 & 8);
    f->pp = p1 & 3;
    in->enc = ENC_EVEX;
    f->high_reg = ~p0 & 16;
    f->high_rm = ~p0 >> 2 & 16;
    in->vvvv = (uint8_t)((~p1 >> 3 & 15) | (~p2 << 1 & 16));
    in->vec_len = (uint8_t)(p2 >> 5 & 3);
    in->evex = (uint8_t)(p2 & (EVEX_Z | EVEX_B | EVEX_AAA));
    in->map = p0 & 7;
    return p0 & 8 || !(p1 & 4) ? 0 : evex_index[p0 & 7];
}

/* Behind a byte that opens VEX, EVEX or XOP. Legacy 66 F2 F3, LOCK and REX before them are #UD. */
static inline void select_vex(struct fields *f, struct insn *in, unsigned escape)
{
    bool legal = !f->rex && !(f->prefixes & (PREFIX_66 | PREFIX_F2 | PREFIX_F3 | PREFIX_LOCK));
    unsigned index = escape == 0x62 ? parse_evex(f, in) : parse_vex(f, in, escape);
    unsigned byte = *f->p++;
    in->opcode = (uint8_t)byte;
    f->entry = (index && legal ? index : INDEX_NOTHING) + byte * 8 + f->pp + (f->rex >> 3) * 4;
}

static ALWAYS_INLINE void select_opcode(struct fields *f, struct insn *in)
{
    unsigned byte = *f->p++;
    if (byte_class[byte] == BYTE_0F) {
        select_0f(f, in);
    } else if (f->special && byte_class[byte] == BYTE_VEX && (byte != 0x8F || (*f->p & 31) >= 8)) {
        select_vex(f, in, byte);
    } else {
        in->map = 0;
        in->opcode = (uint8_t)byte;
        f->entry = INDEX_OP + byte;
    }
}

static ALWAYS_INLINE const struct opcode *find_row(const struct insn *in, const struct fields *f)
{
    struct entry entry = opcode_index[f->entry];
    if (!entry.mask)
        return &rows[entry.base];
    unsigned modrm = *f->p;
    unsigned key = (modrm & 63) | (modrm >= 0xC0) << KEY_MOD | f->pp << KEY_PP |
                   (f->rex & 1) << KEY_B | (unsigned)in->vec_len << KEY_LEN;
    return &rows[cells[entry.base + (key >> entry.shift & entry.mask)]];
}

/* ---- legality ------------------------------------------------------------------------------- */

/* Vector lengths (bit set) that each length attribute allows. */
static const uint8_t allowed_lengths[8] = {
    [0] = 7,
    [ATTR_LEN(L0)] = 1,
    [ATTR_LEN(L1)] = 2,
    [ATTR_LEN(L12)] = 6,
    [ATTR_LEN(L2)] = 4,
    [ATTR_LEN(LIG)] = 7,
};

static bool evex_illegal(struct insn *in, const struct opcode *row, bool memory)
{
    uint64_t attr = row->attr;
    bool masked = in->evex & EVEX_AAA, zeroing = in->evex & EVEX_Z;
    bool to_memory = memory && row->mem_access & MEM_WRITE;
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

/* modrm: where it is; rex_x: bit 3 of the index. */
static bool gather_illegal(const struct insn *in, const struct opcode *row, const uint8_t *modrm,
                           unsigned rex_x)
{
    unsigned index = (modrm[1] >> 3 & 7) | rex_x << 3;
    if ((modrm[0] & 7) != 4)
        return true;
    if (in->enc == ENC_EVEX)
        return row->mem_access & MEM_READ && in->reg == (index | (in->vvvv & 16));
    return index == in->reg || index == in->vvvv || in->reg == in->vvvv;
}

/* True if the encoding has what VEX and EVEX forbid (volume 2, 2.4 and 2.7). */
static bool vex_illegal(struct insn *in, const struct opcode *row, const uint8_t *modrm,
                        unsigned rex_x, bool memory)
{
    uint64_t attr = row->attr;
    /* register numbers that do not exist in their class; ModRM.rm's are cut instead */
    if (in->reg >= row->reg_count || (in->vvvv & (attr & VSIB ? 15 : 31)) >= row->vvvv_count)
        return true;
    if (in->enc == ENC_EVEX && evex_illegal(in, row, memory))
        return true;
    if (!(allowed_lengths[ATTR_LEN(attr)] >> in->vec_len & 1))
        return true;
    if (ATTR_LEN(attr) == ATTR_LEN(LIG))
        in->vec_len = 0;
    if (attr & VSIB)
        return gather_illegal(in, row, modrm, rex_x);
    if (attr & TMM3 && (in->reg == in->rm || in->reg == in->vvvv || in->rm == in->vvvv))
        return true;
    if (attr & DISTINCT && (in->reg == in->vvvv || (!memory && in->reg == in->rm)))
        return true;
    return attr & SIB && (*modrm & 7) != 4;
}

static bool lock_illegal(const struct opcode *row, bool memory)
{
    unsigned place = OPERAND_PLACE(row->op[0]);
    return !(row->attr & LOCK) || !memory || (place != AT_RM && place != AT_RMMEM);
}

/* Segment registers 6 and 7 and a move to cs; control and debug registers that do not exist. */
static bool register_illegal(const struct insn *in, const struct opcode *row)
{
    static const uint32_t control = 1u << 0 | 1u << 2 | 1u << 3 | 1u << 4 | 1u << 8;
    for (unsigned i = 0; i < 2; i++) {
        unsigned class = OPERAND_CLASS(row->op[i]);
        if (class == IN_SEG && ((in->reg & 7) > 5 || (i == 0 && (in->reg & 7) == 1)))
            return true;
        if (class == IN_CR && !(control >> in->reg & 1))
            return true;
        if (class == IN_DR && in->reg > 7)
            return true;
    }
    return false;
}

/* f->p is at ModRM, if there is one. */
static ALWAYS_INLINE bool is_illegal(struct insn *in, const struct opcode *row,
                                     const struct fields *f)
{
    if (!(row->form & ROW_REG_OK << f->memory))
        return true;
    if (in->enc != ENC_LEGACY && vex_illegal(in, row, f->p, f->rex >> 1 & 1, f->memory))
        return true;
    if (f->prefixes & PREFIX_LOCK && lock_illegal(row, f->memory))
        return true;
    return f->special && row->form & ROW_RULES &&
           ((row->attr & NO66 && f->prefixes & PREFIX_66) || register_illegal(in, row));
}

static void set_illegal(struct insn *in, size_t len, enum insn_kind kind)
{
    in->kind = (uint8_t)kind;
    in->len = (uint8_t)(len > MAX_LEN ? MAX_LEN : len);
    in->row = NULL;
    in->rip_relative = false;
    in->flags = INSN_ENDS_TB;
}

/* ---- form: what the bytes are --------------------------------------------------------------- */

/* Offset of the next byte, 0 if size is 0. */
static inline unsigned offset_if(const struct fields *f, unsigned size)
{
    return (unsigned)(f->p - f->start) & (0u - (size != 0));
}

/* SIB and displacement of the ModRM memory operand; f->p is behind ModRM. */
static ALWAYS_INLINE void parse_address(struct insn *in, struct fields *f, unsigned modrm)
{
    unsigned shape = modrm_shape[modrm], size = shape & SHAPE_DISP;
    if (shape & SHAPE_SIB && (*f->p++ & 7) == 5 && modrm < 0x40)
        size = 4;
    in->rip_relative = shape / SHAPE_RIP & 1;
    in->disp_off = (uint8_t)offset_if(f, size);
    in->disp_size = (uint8_t)size;
    f->p += size;
}

/* ModRM and, if it says memory, the address; false if the instruction is illegal. An instruction
 * without ModRM passes through unchanged. */
static ALWAYS_INLINE bool parse_modrm(struct insn *in, const struct opcode *row, struct fields *f)
{
    unsigned modrm = *f->p, has_modrm = row->form & ROW_MODRM;
    f->memory = modrm < row->memory_below;
    in->modrm = (uint8_t)modrm;
    in->modrm_off = (uint8_t)offset_if(f, has_modrm);
    in->reg = (uint8_t)((modrm >> 3 & 7) | (f->rex & 4) << 1 | f->high_reg);
    in->rm = (uint8_t)((modrm & 7) | (f->rex & 1) << 3 | f->high_rm);
    if (is_illegal(in, row, f)) {
        f->p += has_modrm + (row->form & ROW_VSIB ? 1 : 0); /* SIB was looked at */
        return false;
    }
    f->p += has_modrm;
    if (f->memory)
        parse_address(in, f, modrm);
    return true;
}

static ALWAYS_INLINE void parse_immediates(struct insn *in, const struct opcode *row,
                                           struct fields *f)
{
    unsigned size = row->imm_sizes >> 4 * f->op_log & 15;
    if (row->imm == IMM_MOFFS && f->prefixes & PREFIX_67)
        size = 4;
    in->imm_off = (uint8_t)offset_if(f, size);
    in->imm_size = (uint8_t)size;
    in->imm = (uint64_t)sign_extend(load64(f->p), size);
    f->p += size + row->tail_size;
}

/* A move to or from a segment register. QEMU ends its block behind a load. */
static void flag_segment(struct insn *in, const struct opcode *row)
{
    bool load = OPERAND_PLACE(row->op[0]) == AT_REG;
    unsigned seg = in->reg & 7;
    if (seg == 5)
        in->flags |= INSN_SETS_GS;
    if (seg == 4 && load)
        in->flags |= INSN_SETS_FS;
    if (load && seg < 4)
        in->flags |= INSN_ENDS_TB;
}

/* What the row alone does not say, for rows with ROW_REFINE. */
static ALWAYS_INLINE void refine_form(struct insn *in, const struct opcode *row,
                                      const struct fields *f)
{
    if (f->special && row->attr & MOVSEG)
        flag_segment(in, row);
    if (row->attr & STRING && f->rep)
        in->flags |= INSN_ENDS_TB | (f->rep == 2 ? INSN_REP : INSN_REPNE);
    if (row->imm == IMM_MOFFS && f->prefixes & PREFIX_67)
        in->imm &= 0xFFFFFFFF;
}

/* True if a segment prefix applies to one of the memory operands. */
static bool has_segment(const struct opcode *row, bool memory)
{
    const struct implicit *effect = &implicits[row->implicit];
    if ((memory && row->mem_access) || row->imm == IMM_MOFFS)
        return true;
    for (unsigned i = 0; i < effect->count; i++)
        if (effect->mem[i].segment)
            return true;
    return false;
}

/* Flags that depend on prefixes. */
static ALWAYS_INLINE void flag_prefixes(struct insn *in, const struct opcode *row,
                                        const struct fields *f)
{
    if (f->prefixes & PREFIX_LOCK)
        in->flags |= INSN_LOCK;
    if (f->prefixes & PREFIX_67)
        in->flags |= INSN_ADDR32;
    if (in->evex & EVEX_AAA)
        in->flags |= INSN_USES_MASK;
    if (f->seg != SEG_NONE && has_segment(row, f->memory))
        in->flags |= f->seg == SEG_GS ? INSN_USES_GS : INSN_USES_FS;
}

/* Everything behind the opcode. */
static ALWAYS_INLINE void decode_rest(struct insn *in, const struct opcode *row, struct fields *f)
{
    f->op_log = row->op_logs >> ((f->prefixes & PREFIX_66) * 2 + (f->rex & 8) / 2) & 3;
    in->opsize = (uint8_t)(1u << f->op_log);
    if (!parse_modrm(in, row, f)) {
        set_illegal(in, (size_t)(f->p - f->start), INSN_ILLEGAL);
        return;
    }
    parse_immediates(in, row, f);
    size_t len = (size_t)(f->p - f->start);
    if (len > MAX_LEN) {
        set_illegal(in, len, INSN_PRIV);
        return;
    }
    in->len = (uint8_t)len;
    in->kind = row->kind;
    in->flags = row->flags;
    in->target = in->pc + len + in->imm;
    if (row->form & ROW_REFINE)
        refine_form(in, row, f);
    if (f->prefixes & PREFIX_REFINES || in->evex)
        flag_prefixes(in, row, f);
}

static void decode_special(struct insn *in, const uint8_t *code);

/* f->p is behind the prefixes. */
static ALWAYS_INLINE void decode_opcode(struct insn *in, struct fields *f)
{
    in->prefix_len = (uint8_t)(f->p - f->start);
    in->rex = (uint8_t)f->rex;
    in->prefixes = (uint8_t)f->prefixes;
    in->enc = ENC_LEGACY;
    in->vvvv = in->vec_len = in->evex = 0;
    in->disp_off = in->disp_size = 0;
    in->rip_relative = false;
    if (f->p - f->start >= MAX_LEN) {
        set_illegal(in, MAX_LEN, INSN_PRIV);
        return;
    }
    select_opcode(f, in);
    in->wrxb = f->rex & 15;
    in->row = find_row(in, f);
    if (in->row->kind == INSN_ILLEGAL)
        set_illegal(in, (size_t)(f->p + 1 - f->start), INSN_ILLEGAL);
    else if (in->row->form & ROW_RULES && !f->special)
        decode_special(in, f->start);
    else
        decode_rest(in, in->row, f);
}

/* With prefixes other than REX, VEX, EVEX, XOP or rules. */
static __attribute__((noinline)) void decode_special(struct insn *in, const uint8_t *code)
{
    struct fields f = {.start = code, .p = code, .special = true};
    scan_rex(&f);
    if (byte_class[*f.p] == BYTE_PREFIX)
        scan_prefixes(&f);
    decode_opcode(in, &f);
}

/* Few bytes are left: gives the decoder more to look at. */
static __attribute__((noinline)) int decode_padded(struct insn *in, const uint8_t *code,
                                                   size_t limit, uint64_t pc)
{
    uint8_t padded[READ_AHEAD] = {0};
    memcpy(padded, code, limit < MAX_LEN ? limit : MAX_LEN);
    decode_form(in, padded, READ_AHEAD, pc);
    return in->len <= limit ? DECODE_OK : DECODE_PARTIAL;
}

/* Most instructions have nothing special: for them the compiler lays out decode_opcode() once more,
 * without all that hangs on f->special and on prefixes. */
int decode_form(struct insn *in, const uint8_t *code, size_t limit, uint64_t pc)
{
    if (limit < READ_AHEAD)
        return decode_padded(in, code, limit, pc);
    struct fields f = {.start = code, .p = code};
    in->pc = pc;
    scan_rex(&f);
    if (byte_class[*f.p] <= BYTE_0F)
        decode_opcode(in, &f);
    else
        decode_special(in, code);
    return DECODE_OK;
}

/* ---- effects: what it does ------------------------------------------------------------------ */

static inline uint32_t gpr_bit(int reg)
{
    return 1u << (reg & 31) & 0xFFFF; /* nothing for REG_NONE and REG_PC */
}

static enum seg segment_of(const struct insn *in)
{
    return in->prefixes & PREFIX_GS ? SEG_GS : in->prefixes & PREFIX_FS ? SEG_FS : SEG_NONE;
}

/* The displacement; nothing is behind the code that may be read. */
static int32_t load_disp(const struct insn *in, const uint8_t *code)
{
    const uint8_t *p = code + in->disp_off;
    return in->disp_size == 4 ? (int32_t)load32(p) : in->disp_size ? (int8_t)*p : 0;
}

/* The address of the ModRM memory operand; returns the registers in it. */
static uint32_t describe_address(const struct insn *in, struct mem_op *m, const uint8_t *code,
                                 bool vsib)
{
    bool has_sib = (in->modrm & 7) == 4;
    unsigned sib = has_sib ? code[in->modrm_off + 1] : 4 << 3 | (in->modrm & 7u);
    int base = (int)((sib & 7) | (in->wrxb & 1) << 3);
    int index = (int)((sib >> 3 & 7) | (in->wrxb & 2u) << 2);
    if ((sib & 7) == 5 && in->modrm < 0x40)
        base = has_sib ? REG_NONE : REG_PC;
    if (!has_sib || (index == 4 && !vsib))
        index = REG_NONE;
    m->base = (int8_t)base;
    m->index = (int8_t)index;
    m->scale = (uint8_t)(1u << (sib >> 6));
    m->disp = load_disp(in, code);
    return gpr_bit(base) | (vsib ? 0 : gpr_bit(index));
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

static void add_evex_memory(const struct insn *in, const struct opcode *row, struct mem_op *m)
{
    if (in->evex & EVEX_B)
        m->size = (uint16_t)(1u << ATTR_BC(row->attr));
    if (in->evex & EVEX_AAA)
        m->flags |= MEM_MASKED;
    if (in->disp_size == 1)
        m->disp *= (int)disp8_scale(row, m->size);
}

/* Number of elements of a gather or scatter: as many as fit of the wider of element and index.
 * Odd opcodes have 64-bit indices. */
static unsigned vsib_count(const struct insn *in, unsigned element)
{
    unsigned index = in->opcode & 1 ? 8 : 4;
    return (16u << in->vec_len) / (element > index ? element : index);
}

/* What the attributes say of the memory operand. */
static void shape_memory(const struct insn *in, const struct opcode *row, struct mem_op *m)
{
    uint64_t attr = row->attr;
    if (attr & SIGNED && m->size < 8)
        m->flags |= MEM_SIGNED;
    if (attr & BIGEND)
        m->flags |= MEM_BIGEND;
    if (attr & BITS) {
        m->flags |= MEM_BITS;
        m->bit_reg = in->reg;
    }
    if (attr & VSIB) {
        m->flags |= MEM_VSIB | MEM_MASKED;
        m->count = (uint8_t)vsib_count(in, m->size);
        if (in->enc == ENC_EVEX)
            m->index = (int8_t)(m->index | (in->vvvv & 16));
    }
    if (attr & VMASKED) { /* vmaskmov: by opcode; vpmaskmov: by W */
        bool wide = in->opcode < 0x80 ? in->opcode & 1 : in->wrxb >> 3;
        unsigned vector = m->size;
        m->flags |= MEM_MASKED;
        m->size = wide ? 8 : 4;
        m->count = (uint8_t)(vector / m->size);
    }
}

/* The ModRM memory operand, always mem[0] at first; returns the registers in its address. */
static uint32_t describe_memory(struct insn *in, const struct opcode *row, const uint8_t *code)
{
    struct mem_op *m = &in->mem[0];
    unsigned op_log = (unsigned)__builtin_ctz(in->opsize);
    uint32_t regs = describe_address(in, m, code, row->form & ROW_VSIB);
    m->seg = (uint8_t)segment_of(in);
    m->flags = row->mem_access;
    m->size = mem_size[row->mem_size][op_log * 4 + in->vec_len];
    m->count = 1;
    m->bit_reg = 0;
    if (in->enc == ENC_EVEX)
        add_evex_memory(in, row, m);
    if (row->form & ROW_MEM_SHAPE)
        shape_memory(in, row, m);
    in->nmem = row->mem_access != 0;
    return regs;
}

/* The general registers in ModRM and vvvv or opcode. Without REX and VEX byte registers 4 to 7 are
 * ah ch dh bh. */
static uint32_t operand_regs(const struct insn *in, const struct opcode *row, bool memory)
{
    unsigned bytes = in->rex || in->enc != ENC_LEGACY ? 0 : row->byte_regs;
    unsigned low = ((in->opcode & 7u) | (in->wrxb & 1u) << 3) & ~bytes;
    unsigned third = in->enc == ENC_LEGACY ? low : in->vvvv & 15;
    uint32_t rm_regs = memory ? 0 : row->gpr_rm << (in->rm & 15 & ~(bytes >> 3));
    return row->gpr_reg << (in->reg & 15 & ~(bytes >> 6)) | row->gpr_third << third | rm_regs;
}

static void add_implicit_mem(struct mem_op *m, const struct implicit_mem *from, unsigned opsize,
                             enum seg seg)
{
    unsigned size = from->size ? from->size : opsize;
    *m = (struct mem_op){.base = from->base,
                         .index = from->index,
                         .scale = 1,
                         .seg = (uint8_t)(from->segment ? seg : SEG_NONE),
                         .flags = from->flags,
                         .size = (uint16_t)size,
                         .disp = from->disp * (int)size,
                         .count = 1};
}

/* Implicit memory; returns implicit registers. The explicit memory operand is in mem[0] still. */
static uint32_t add_implicit(struct insn *in, enum implicit_effect which, enum seg seg)
{
    const struct implicit *effect = &implicits[which];
    uint32_t regs = REGS_READ(effect->read) | REGS_WRITTEN(effect->written);
    unsigned before = effect->count - effect->after;
    if (before && in->nmem) {
        in->mem[before] = in->mem[0];
        in->mem_index = (uint8_t)before;
        /* pop (%rsp): the address is taken after rsp has moved */
        if (which == IMPLICIT_POP && in->mem[1].base == GPR_RSP)
            in->mem[1].disp += in->opsize;
    }
    for (unsigned i = 0; i < effect->count; i++)
        add_implicit_mem(&in->mem[i < before ? i : i + in->nmem], &effect->mem[i], in->opsize, seg);
    if (which == IMPLICIT_MOVDIR64B) {
        in->mem[in->nmem].base = (int8_t)in->reg;
        regs |= REGS_READ(gpr_bit(in->reg));
    }
    in->nmem = (uint8_t)(in->nmem + effect->count);
    return regs;
}

/* Shifts by an immediate that is 0 after masking change neither flags nor registers. By more than
 * one they leave OF undefined, which rotations keep; by more than there are bits also CF. */
static void refine_shift(struct insn *in, unsigned effect)
{
    unsigned count = (unsigned)in->imm & (in->opsize == 8 ? 63 : 31);
    if (count == 0) {
        in->flags_read = ARITH_BITS;
        in->flags_written = in->flags_undefined = 0;
        return;
    }
    if (count > 1) {
        in->flags_undefined |= FLAG_OF;
        if (effect != EFFECT_SHIFTI) {
            in->flags_read |= FLAG_OF;
            in->flags_written &= (uint16_t)~FLAG_OF;
        }
    }
    if (effect == EFFECT_SHIFTI && count >= 8u * in->opsize)
        in->flags_undefined |= FLAG_CF;
}

static void describe_moffs(struct insn *in, const struct opcode *row)
{
    bool store = OPERAND_PLACE(row->op[0]) == AT_MOFFS;
    in->mem[0] = (struct mem_op){.base = REG_NONE,
                                 .index = REG_NONE,
                                 .scale = 1,
                                 .seg = (uint8_t)segment_of(in),
                                 .flags = MEM_ABS64 | (store ? MEM_WRITE : MEM_READ),
                                 .size = in->opsize,
                                 .count = 1};
    in->nmem = 1;
}

/* The string instructions' rep: counts in rcx, with 0 there nothing is written and flags survive.
 */
static uint32_t describe_rep(struct insn *in, uint32_t regs)
{
    if (in->flags_written) {
        in->flags_read |= ARITH_BITS;
        in->flags_written = 0;
    }
    regs |= REGS_WRITTEN(1 << GPR_RCX);
    return regs | regs >> 16;
}

/* What the row alone does not say, for rows with ROW_REFINE; returns the registers. */
static uint32_t refine_effects(struct insn *in, const struct opcode *row, uint32_t regs)
{
    if (row->imm == IMM_MOFFS)
        describe_moffs(in, row);
    else if (in->flags & (INSN_REP | INSN_REPNE))
        return describe_rep(in, regs);
    else if (!(row->attr & (STRING | MOVSEG)))
        refine_shift(in, row->effect);
    return regs;
}

static void set_illegal_effects(struct insn *in)
{
    in->regs_read = 0xFFFF;
    in->regs_written = 0;
    in->flags_read = ALL_FLAGS;
    in->flags_written = in->flags_undefined = 0;
}

void decode_effects(struct insn *in, const uint8_t *code)
{
    const struct opcode *row = in->row;
    in->nmem = in->mem_index = 0;
    if (!row) {
        set_illegal_effects(in);
        return;
    }
    const struct flag_sets *flags = &flag_effects[row->effect];
    bool memory = in->modrm < row->memory_below;
    uint32_t regs = row->gpr_fixed | operand_regs(in, row, memory);
    in->flags_read = flags->read;
    in->flags_written = flags->written;
    in->flags_undefined = flags->undefined;
    if (memory)
        regs |= describe_memory(in, row, code);
    if (row->implicit)
        regs |= add_implicit(in, row->implicit, segment_of(in));
    if (row->form & ROW_REFINE)
        regs = refine_effects(in, row, regs);
    regs |= in->opsize <= 2 ? regs >> 16 : 0; /* 8 and 16 bits keep the rest */
    in->regs_read = (uint16_t)regs;
    in->regs_written = (uint16_t)(regs >> 16);
}

int decode(struct insn *in, const uint8_t *code, size_t limit, uint64_t pc)
{
    int result = decode_form(in, code, limit, pc);
    if (result == DECODE_OK)
        decode_effects(in, code);
    return result;
}

const char *opcode_name(const struct opcode *row)
{
    return (const char *)&names + row->name;
}

uint64_t decode_branch_slot(const struct insn *in)
{
    const struct mem_op *m = &in->mem[in->mem_index];
    if ((in->kind != INSN_JUMP_IND && in->kind != INSN_CALL_IND) || in->modrm >= 0xc0 ||
        in->flags & INSN_ADDR32 || m->seg != SEG_NONE || m->index != REG_NONE)
        return 0;
    uint64_t disp = (uint64_t)(int64_t)m->disp;
    return m->base == REG_PC ? in->pc + in->len + disp : m->base == REG_NONE ? disp : 0;
}
