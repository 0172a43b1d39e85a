/* opcode.h: the class of an x86_64 instruction, from its bytes, for plugins.
 *
 * Looks at prefixes, opcode and ModRM only. Opcode maps as in the appendix of Intel's manual:
 * 0 one byte, 1 behind 0F, 2 behind 0F 38, 3 behind 0F 3A, 5 and 6 of EVEX. */
#ifndef OPCODE_H
#define OPCODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MAX_CODE  15 /* bytes of an instruction */
#define CODE_ROOM 20 /* what is looked at lies within */

enum insn_class {
    CLASS_CALL,
    CLASS_RETURN,
    CLASS_COND_BRANCH,
    CLASS_JUMP,
    CLASS_MOVE,
    CLASS_COND_MOVE,
    CLASS_LEA,
    CLASS_STACK,
    CLASS_STRING,
    CLASS_ALU,
    CLASS_COMPARE,
    CLASS_MULTIPLY,
    CLASS_SHIFT,
    CLASS_BIT,
    CLASS_ATOMIC,
    CLASS_NOP,
    CLASS_BARRIER,
    CLASS_SYSTEM,
    CLASS_X87,
    CLASS_SCALAR,
    CLASS_MMX,
    CLASS_SIMD128,
    CLASS_SIMD256,
    CLASS_SIMD512,
    CLASS_MASK,
    CLASS_CRYPTO,
    CLASS_OTHER,
    N_CLASSES,
    /* In the table only: SIMD of the length that the prefix tells; fused multiply-add of any */
    CLASS_VECTOR,
    CLASS_FUSED,
};

struct opcode {
    uint8_t map, byte, modrm;
    uint8_t prefix; /* 1 << of what the manual calls pp: 0 none, 1 66, 2 F3, 3 F2 */
    uint8_t form;   /* legacy, VEX or EVEX */
    uint8_t length; /* of vectors: 0 to 2 */
    bool lock;
};

/* In a row: what the prefix and the form may be, and of ModRM which reg fields, with what mod. */
enum { NONE = 1, P66 = 2, F3 = 4, F2 = 8, ANY_PREFIX = 15 };
enum { LEGACY = 1, VEX = 2, EVEX = 4, VEX_EVEX = 6, ANY_FORM = 7 };
enum { ANY_REG = 255 };

/* The first row that fits holds. */
static const struct opcode_row {
    uint8_t form, map, first, last, prefix, regs;
    uint8_t insn_class;
} opcode_rows[] = {
    /* one byte; the eight operations of 00 to 3F, of which the last compares */
    {LEGACY, 0, 0x38, 0x3d, ANY_PREFIX, ANY_REG, CLASS_COMPARE},
    {LEGACY, 0, 0x00, 0x3f, ANY_PREFIX, ANY_REG, CLASS_ALU},
    {LEGACY, 0, 0x50, 0x5f, ANY_PREFIX, ANY_REG, CLASS_STACK},
    {LEGACY, 0, 0x63, 0x63, ANY_PREFIX, ANY_REG, CLASS_MOVE},
    {LEGACY, 0, 0x69, 0x69, ANY_PREFIX, ANY_REG, CLASS_MULTIPLY},
    {LEGACY, 0, 0x68, 0x6a, ANY_PREFIX, ANY_REG, CLASS_STACK},
    {LEGACY, 0, 0x6b, 0x6b, ANY_PREFIX, ANY_REG, CLASS_MULTIPLY},
    {LEGACY, 0, 0x6c, 0x6f, ANY_PREFIX, ANY_REG, CLASS_SYSTEM}, /* ins outs */
    {LEGACY, 0, 0x70, 0x7f, ANY_PREFIX, ANY_REG, CLASS_COND_BRANCH},
    {LEGACY, 0, 0x80, 0x83, ANY_PREFIX, 1 << 7, CLASS_COMPARE},
    {LEGACY, 0, 0x80, 0x83, ANY_PREFIX, ANY_REG, CLASS_ALU},
    {LEGACY, 0, 0x84, 0x85, ANY_PREFIX, ANY_REG, CLASS_COMPARE},
    {LEGACY, 0, 0x8d, 0x8d, ANY_PREFIX, ANY_REG, CLASS_LEA},
    {LEGACY, 0, 0x8f, 0x8f, ANY_PREFIX, ANY_REG, CLASS_STACK},
    {LEGACY, 0, 0x90, 0x90, ANY_PREFIX, ANY_REG, CLASS_NOP},
    {LEGACY, 0, 0x86, 0x97, ANY_PREFIX, ANY_REG, CLASS_MOVE},
    {LEGACY, 0, 0x98, 0x99, ANY_PREFIX, ANY_REG, CLASS_ALU}, /* cltq cqto */
    {LEGACY, 0, 0x9b, 0x9b, ANY_PREFIX, ANY_REG, CLASS_X87}, /* fwait */
    {LEGACY, 0, 0x9c, 0x9d, ANY_PREFIX, ANY_REG, CLASS_STACK},
    {LEGACY, 0, 0x9e, 0xa3, ANY_PREFIX, ANY_REG, CLASS_MOVE},
    {LEGACY, 0, 0xa8, 0xa9, ANY_PREFIX, ANY_REG, CLASS_COMPARE},
    {LEGACY, 0, 0xa4, 0xaf, ANY_PREFIX, ANY_REG, CLASS_STRING},
    {LEGACY, 0, 0xb0, 0xbf, ANY_PREFIX, ANY_REG, CLASS_MOVE},
    {LEGACY, 0, 0xc0, 0xc1, ANY_PREFIX, ANY_REG, CLASS_SHIFT},
    {LEGACY, 0, 0xc2, 0xc3, ANY_PREFIX, ANY_REG, CLASS_RETURN},
    {LEGACY, 0, 0xc6, 0xc7, ANY_PREFIX, 1 << 0, CLASS_MOVE},
    {LEGACY, 0, 0xc6, 0xc7, ANY_PREFIX, ANY_REG, CLASS_SYSTEM}, /* xabort xbegin */
    {LEGACY, 0, 0xc8, 0xc9, ANY_PREFIX, ANY_REG, CLASS_STACK},  /* enter leave */
    {LEGACY, 0, 0xcc, 0xce, ANY_PREFIX, ANY_REG, CLASS_SYSTEM},
    {LEGACY, 0, 0xca, 0xcf, ANY_PREFIX, ANY_REG, CLASS_RETURN},
    {LEGACY, 0, 0xd0, 0xd3, ANY_PREFIX, ANY_REG, CLASS_SHIFT},
    {LEGACY, 0, 0xd7, 0xd7, ANY_PREFIX, ANY_REG, CLASS_MOVE}, /* xlat */
    {LEGACY, 0, 0xd8, 0xdf, ANY_PREFIX, ANY_REG, CLASS_X87},
    {LEGACY, 0, 0xe0, 0xe3, ANY_PREFIX, ANY_REG, CLASS_COND_BRANCH}, /* loop jrcxz */
    {LEGACY, 0, 0xe8, 0xe8, ANY_PREFIX, ANY_REG, CLASS_CALL},
    {LEGACY, 0, 0xe9, 0xeb, ANY_PREFIX, ANY_REG, CLASS_JUMP},
    {LEGACY, 0, 0xe4, 0xf4, ANY_PREFIX, ANY_REG, CLASS_SYSTEM},
    {LEGACY, 0, 0xf5, 0xf5, ANY_PREFIX, ANY_REG, CLASS_ALU}, /* cmc */
    {LEGACY, 0, 0xf6, 0xf7, ANY_PREFIX, 3 << 0, CLASS_COMPARE},
    {LEGACY, 0, 0xf6, 0xf7, ANY_PREFIX, 3 << 2, CLASS_ALU}, /* not neg */
    {LEGACY, 0, 0xf6, 0xf7, ANY_PREFIX, ANY_REG, CLASS_MULTIPLY},
    {LEGACY, 0, 0xfa, 0xfb, ANY_PREFIX, ANY_REG, CLASS_SYSTEM},
    {LEGACY, 0, 0xf8, 0xfd, ANY_PREFIX, ANY_REG, CLASS_ALU}, /* clc stc cld std */
    {LEGACY, 0, 0xfe, 0xff, ANY_PREFIX, 3 << 0, CLASS_ALU},  /* inc dec */
    {LEGACY, 0, 0xff, 0xff, ANY_PREFIX, 3 << 2, CLASS_CALL},
    {LEGACY, 0, 0xff, 0xff, ANY_PREFIX, 3 << 4, CLASS_JUMP},
    {LEGACY, 0, 0xff, 0xff, ANY_PREFIX, 1 << 6, CLASS_STACK},
    /* 0F */
    {LEGACY, 1, 0x0d, 0x0d, ANY_PREFIX, ANY_REG, CLASS_NOP}, /* prefetchw */
    {LEGACY, 1, 0x0f, 0x0f, ANY_PREFIX, ANY_REG, CLASS_MMX}, /* 3DNow! */
    {LEGACY, 1, 0x00, 0x0e, ANY_PREFIX, ANY_REG, CLASS_SYSTEM},
    {LEGACY, 1, 0x18, 0x1f, ANY_PREFIX, ANY_REG, CLASS_NOP}, /* prefetch, endbr64, MPX too */
    {LEGACY, 1, 0x20, 0x23, ANY_PREFIX, ANY_REG, CLASS_SYSTEM},
    {LEGACY, 1, 0x30, 0x37, ANY_PREFIX, ANY_REG, CLASS_SYSTEM},
    {LEGACY, 1, 0x40, 0x4f, ANY_PREFIX, ANY_REG, CLASS_COND_MOVE},
    {LEGACY, 1, 0x80, 0x8f, ANY_PREFIX, ANY_REG, CLASS_COND_BRANCH},
    {LEGACY, 1, 0x90, 0x9f, ANY_PREFIX, ANY_REG, CLASS_COND_MOVE},
    {LEGACY, 1, 0xa0, 0xa1, ANY_PREFIX, ANY_REG, CLASS_STACK},
    {LEGACY, 1, 0xa2, 0xa2, ANY_PREFIX, ANY_REG, CLASS_SYSTEM}, /* cpuid */
    {LEGACY, 1, 0xa4, 0xa5, ANY_PREFIX, ANY_REG, CLASS_SHIFT},
    {LEGACY, 1, 0xa8, 0xa9, ANY_PREFIX, ANY_REG, CLASS_STACK},
    {LEGACY, 1, 0xa3, 0xab, ANY_PREFIX, ANY_REG, CLASS_BIT},
    {LEGACY, 1, 0xac, 0xad, ANY_PREFIX, ANY_REG, CLASS_SHIFT},
    {ANY_FORM, 1, 0xae, 0xae, NONE, 7 << 5, CLASS_BARRIER}, /* fences; xsaveopt, clflush too */
    {ANY_FORM, 1, 0xae, 0xae, ANY_PREFIX, ANY_REG, CLASS_SYSTEM},
    {LEGACY, 1, 0xaf, 0xaf, ANY_PREFIX, ANY_REG, CLASS_MULTIPLY},
    {LEGACY, 1, 0xb3, 0xb3, ANY_PREFIX, ANY_REG, CLASS_BIT},
    {LEGACY, 1, 0xb6, 0xb7, ANY_PREFIX, ANY_REG, CLASS_MOVE},
    {LEGACY, 1, 0xb8, 0xb8, F3, ANY_REG, CLASS_BIT}, /* popcnt */
    {LEGACY, 1, 0xb9, 0xb9, ANY_PREFIX, ANY_REG, CLASS_SYSTEM},
    {LEGACY, 1, 0xba, 0xbd, ANY_PREFIX, ANY_REG, CLASS_BIT},
    {LEGACY, 1, 0xb0, 0xbf, ANY_PREFIX, ANY_REG, CLASS_MOVE}, /* cmpxchg movsx; lss lfs lgs */
    {LEGACY, 1, 0xc0, 0xc1, ANY_PREFIX, ANY_REG, CLASS_ALU},  /* xadd */
    {LEGACY, 1, 0xc3, 0xc3, NONE, ANY_REG, CLASS_MOVE},       /* movnti */
    {LEGACY, 1, 0xc7, 0xc7, ANY_PREFIX, 1 << 1, CLASS_MOVE},  /* cmpxchg16b */
    {LEGACY, 1, 0xc7, 0xc7, ANY_PREFIX, ANY_REG, CLASS_SYSTEM},
    {LEGACY, 1, 0xc8, 0xcf, ANY_PREFIX, ANY_REG, CLASS_MOVE}, /* bswap */
    {LEGACY, 1, 0xff, 0xff, ANY_PREFIX, ANY_REG, CLASS_SYSTEM},
    {VEX, 1, 0x41, 0x4b, ANY_PREFIX, ANY_REG, CLASS_MASK},
    {VEX, 1, 0x90, 0x99, ANY_PREFIX, ANY_REG, CLASS_MASK},
    {ANY_FORM, 1, 0x2e, 0x2f, ANY_PREFIX, ANY_REG, CLASS_SCALAR}, /* comiss */
    {ANY_FORM, 1, 0x10, 0x11, F3 | F2, ANY_REG, CLASS_SCALAR},
    {ANY_FORM, 1, 0x2a, 0x2d, F3 | F2, ANY_REG, CLASS_SCALAR},
    {ANY_FORM, 1, 0x51, 0x5a, F3 | F2, ANY_REG, CLASS_SCALAR},
    {ANY_FORM, 1, 0x5c, 0x5f, F3 | F2, ANY_REG, CLASS_SCALAR},
    {ANY_FORM, 1, 0xc2, 0xc2, F3 | F2, ANY_REG, CLASS_SCALAR},
    {EVEX, 1, 0x78, 0x7b, F3 | F2, ANY_REG, CLASS_SCALAR}, /* vcvtss2usi and back */
    {LEGACY, 1, 0x60, 0x7f, NONE, ANY_REG, CLASS_MMX},
    {LEGACY, 1, 0xc4, 0xc5, NONE, ANY_REG, CLASS_MMX},
    {LEGACY, 1, 0xd0, 0xfe, NONE, ANY_REG, CLASS_MMX},
    {ANY_FORM, 1, 0x10, 0xfe, ANY_PREFIX, ANY_REG, CLASS_VECTOR},
    /* 0F 38 */
    {LEGACY, 2, 0xc8, 0xcd, NONE, ANY_REG, CLASS_CRYPTO}, /* sha */
    {ANY_FORM, 2, 0xdb, 0xdf, P66, ANY_REG, CLASS_CRYPTO},
    {LEGACY, 2, 0x80, 0x82, ANY_PREFIX, ANY_REG, CLASS_SYSTEM},
    {LEGACY, 2, 0xf0, 0xf1, F2, ANY_REG, CLASS_BIT},            /* crc32 */
    {LEGACY, 2, 0xf0, 0xf1, ANY_PREFIX, ANY_REG, CLASS_MOVE},   /* movbe */
    {LEGACY, 2, 0xf6, 0xf6, P66 | F3, ANY_REG, CLASS_ALU},      /* adcx adox */
    {LEGACY, 2, 0xf5, 0xff, ANY_PREFIX, ANY_REG, CLASS_SYSTEM}, /* movdir, shadow stacks */
    {VEX, 2, 0xf7, 0xf7, P66 | F3 | F2, ANY_REG, CLASS_SHIFT},  /* shlx */
    {VEX, 2, 0xf6, 0xf6, F2, ANY_REG, CLASS_MULTIPLY},          /* mulx */
    {VEX, 2, 0xf2, 0xf7, ANY_PREFIX, ANY_REG, CLASS_BIT},       /* andn pext bextr */
    {VEX_EVEX, 2, 0x96, 0xbf, P66, ANY_REG, CLASS_FUSED},
    {EVEX, 2, 0x2d, 0x2d, P66, ANY_REG, CLASS_SCALAR}, /* vscalefss */
    {EVEX, 2, 0x43, 0x43, P66, ANY_REG, CLASS_SCALAR}, /* vgetexpss */
    {EVEX, 2, 0x4d, 0x4d, P66, ANY_REG, CLASS_SCALAR}, /* vrcp14ss */
    {EVEX, 2, 0x4f, 0x4f, P66, ANY_REG, CLASS_SCALAR}, /* vrsqrt14ss */
    {LEGACY, 2, 0x00, 0x1e, NONE, ANY_REG, CLASS_MMX}, /* SSSE3 */
    {ANY_FORM, 2, 0x00, 0xcf, ANY_PREFIX, ANY_REG, CLASS_VECTOR},
    /* 0F 3A */
    {VEX, 3, 0x30, 0x33, P66, ANY_REG, CLASS_MASK},
    {VEX, 3, 0xf0, 0xf0, F2, ANY_REG, CLASS_SHIFT},        /* rorx */
    {ANY_FORM, 3, 0x0a, 0x0b, P66, ANY_REG, CLASS_SCALAR}, /* roundss */
    {ANY_FORM, 3, 0x44, 0x44, P66, ANY_REG, CLASS_CRYPTO}, /* pclmulqdq */
    {LEGACY, 3, 0xcc, 0xcc, NONE, ANY_REG, CLASS_CRYPTO},  /* sha */
    {ANY_FORM, 3, 0xdf, 0xdf, P66, ANY_REG, CLASS_CRYPTO}, /* aes */
    {LEGACY, 3, 0x0f, 0x0f, NONE, ANY_REG, CLASS_MMX},     /* palignr */
    {ANY_FORM, 3, 0x00, 0xcf, ANY_PREFIX, ANY_REG, CLASS_VECTOR},
    {EVEX, 5, 0x00, 0xff, F3 | F2, ANY_REG, CLASS_SCALAR}, /* half precision */
    {EVEX, 5, 0x00, 0xff, ANY_PREFIX, ANY_REG, CLASS_VECTOR},
    {EVEX, 6, 0x00, 0xff, ANY_PREFIX, ANY_REG, CLASS_VECTOR},
};

/* Reads a VEX or EVEX prefix at p; what follows it is the opcode. */
static inline const uint8_t *read_vex(const uint8_t *p, struct opcode *op)
{
    uint8_t last = *p == 0xc5 ? p[1] : p[2]; /* the byte with pp, and of VEX L */
    op->form = *p == 0x62 ? EVEX : VEX;
    op->map = *p == 0xc5 ? 1 : p[1] & (op->form == EVEX ? 7 : 31);
    op->prefix = (uint8_t)(1u << (last & 3));
    op->length = last >> 2 & 1;
    if (op->form == EVEX) /* with a rounding mode in the place of the length it is 512 */
        op->length = p[3] & 16 && p[5] >= 0xc0 ? 2 : p[3] >> 5 & 3;
    return p + (*p == 0xc5 ? 2 : *p == 0xc4 ? 3 : 4);
}

/* Reads legacy prefixes, REX and the escape bytes of a map. */
static inline const uint8_t *read_legacy(const uint8_t *p, const uint8_t *end, struct opcode *op)
{
    for (; p < end && memchr("\x66\xf2\xf3\xf0\x2e\x36\x3e\x26\x64\x65\x67", *p, 11); p++) {
        op->lock |= *p == 0xf0;
        if (*p == 0xf2 || *p == 0xf3) /* outweighs 66 */
            op->prefix = *p == 0xf2 ? F2 : F3;
        else if (*p == 0x66 && op->prefix == NONE)
            op->prefix = P66;
    }
    p += p < end && *p >> 4 == 4; /* REX */
    if (p < end && *p == 0x0f) {
        p++;
        op->map = *p == 0x38 ? 2 : *p == 0x3a ? 3 : 1;
        p += op->map > 1;
    }
    return p;
}

/* What the opcode's class is where the row tells it only in part. */
static inline enum insn_class complete_class(const struct opcode *op, enum insn_class row)
{
    static const enum insn_class vectors[] = {CLASS_SIMD128, CLASS_SIMD256, CLASS_SIMD512,
                                              CLASS_OTHER};
    if (row == CLASS_FUSED && op->byte & 1 && (op->byte & 15) > 8)
        return CLASS_SCALAR;
    return row < N_CLASSES ? row : vectors[op->length];
}

/* The class of the instruction of size bytes, in an array of CODE_ROOM. */
static inline enum insn_class classify_insn(const uint8_t *code, size_t size)
{
    struct opcode op = {.form = LEGACY, .prefix = NONE};
    const uint8_t *p = read_legacy(code, code + size, &op);
    if (op.map == 0 && (*p == 0xc4 || *p == 0xc5 || *p == 0x62))
        p = read_vex(p, &op);
    op.byte = p[0];
    op.modrm = p[1];
    if (op.lock || (op.map == 0 && (op.byte | 1) == 0x87 && op.modrm < 0xc0)) /* xchg */
        return CLASS_ATOMIC;
    for (size_t i = 0; i < sizeof opcode_rows / sizeof *opcode_rows; i++) {
        const struct opcode_row *row = &opcode_rows[i];
        if (row->form & op.form && row->map == op.map && op.byte >= row->first &&
            op.byte <= row->last && row->prefix & op.prefix && row->regs >> (op.modrm >> 3 & 7) & 1)
            return complete_class(&op, (enum insn_class)row->insn_class);
    }
    return CLASS_OTHER;
}

#endif
