/* Every integer instruction with flags: all operand sizes, corner values, register and memory
 * forms. Prints results and the flags that are defined. */
#include <stdint.h>
#include <stdio.h>

#define CF    0x001
#define ARITH 0x8d5 /* all six */
#define LOGIC 0x8c5 /* without AF */

static const uint64_t values[] = {
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fffffff,
    0x80000000,
    0xffffffff,
    0x7fffffffffffffff,
    0x8000000000000000,
    0xffffffffffffffff,
    0x123456789abcdef0,
};
#define VALUES (sizeof values / sizeof values[0])

static uint64_t sum; /* of everything seen; printed per instruction */

static void note(uint64_t result, uint64_t flags, uint64_t mask)
{
    sum = (sum ^ result) * 0x9e3779b97f4a7c15;
    sum = (sum ^ (flags & mask)) * 0xc2b2ae3d27d4eb4f + (sum >> 29);
}

static void report(const char *name)
{
    printf("%-12s %016llx\n", name, (unsigned long long)sum);
    sum = 0;
}

/* Destination in a register, then in memory; carry in from the low bit of b. */
#define FORM(insn, type, src, con, mask)                                                           \
    do {                                                                                           \
        type d = (type)a, m = (type)a;                                                             \
        uint64_t f, g;                                                                             \
        __asm__ volatile("bt $0, %q3\n\t" insn " " src ", %0\n\tpushfq\n\tpop %1"                  \
                         : "+r"(d), "=&r"(f)                                                       \
                         : con((type)b), "r"(b)                                                    \
                         : "cc", "memory");                                                        \
        note(d, f, mask);                                                                          \
        __asm__ volatile("bt $0, %q3\n\t" insn " " src ", %0\n\tpushfq\n\tpop %1"                  \
                         : "+m"(m), "=&r"(g)                                                       \
                         : con((type)b), "r"(b)                                                    \
                         : "cc", "memory");                                                        \
        note(m, g, mask);                                                                          \
    } while (0)

#define TWO(name, mask)                                                                            \
    static void test_##name(void)                                                                  \
    {                                                                                              \
        for (size_t i = 0; i < VALUES; i++)                                                        \
            for (size_t j = 0; j < VALUES; j++) {                                                  \
                uint64_t a = values[i], b = values[j];                                             \
                FORM(#name "b", uint8_t, "%2", "r", mask);                                         \
                FORM(#name "w", uint16_t, "%2", "r", mask);                                        \
                FORM(#name "l", uint32_t, "%2", "r", mask);                                        \
                FORM(#name "q", uint64_t, "%2", "r", mask);                                        \
            }                                                                                      \
        report(#name);                                                                             \
    }

#define ONE_FORM(insn, type, mask)                                                                 \
    do {                                                                                           \
        type d = (type)a, m = (type)a;                                                             \
        uint64_t f;                                                                                \
        __asm__ volatile("stc\n\t" insn " %0\n\tpushfq\n\tpop %1" : "+r"(d), "=&r"(f)::"cc");      \
        note(d, f, mask);                                                                          \
        __asm__ volatile("clc\n\t" insn " %0\n\tpushfq\n\tpop %1" : "+m"(m), "=&r"(f)::"cc");      \
        note(m, f, mask);                                                                          \
    } while (0)

#define ONE(name, mask)                                                                            \
    static void test_##name(void)                                                                  \
    {                                                                                              \
        for (size_t i = 0; i < VALUES; i++) {                                                      \
            uint64_t a = values[i];                                                                \
            ONE_FORM(#name "b", uint8_t, mask);                                                    \
            ONE_FORM(#name "w", uint16_t, mask);                                                   \
            ONE_FORM(#name "l", uint32_t, mask);                                                   \
            ONE_FORM(#name "q", uint64_t, mask);                                                   \
        }                                                                                          \
        report(#name);                                                                             \
    }

/* Counts in %cl, all that are valid without undefined results; only CF is looked at. */
#define SHIFT(name)                                                                                \
    static void test_##name(void)                                                                  \
    {                                                                                              \
        for (size_t i = 0; i < VALUES; i++)                                                        \
            for (uint64_t b = 0; b < 8; b++) {                                                     \
                uint64_t a = values[i];                                                            \
                FORM(#name "b", uint8_t, "%b2", "c", CF);                                          \
                FORM(#name "w", uint16_t, "%b2", "c", CF);                                         \
                FORM(#name "l", uint32_t, "%b2", "c", CF);                                         \
                FORM(#name "q", uint64_t, "%b2", "c", CF);                                         \
                ONE_FORM(#name "b $1,", uint8_t, LOGIC & ~0xc4);                                   \
                ONE_FORM(#name "w $5,", uint16_t, CF);                                             \
                ONE_FORM(#name "l $31,", uint32_t, CF);                                            \
                ONE_FORM(#name "q $63,", uint64_t, CF);                                            \
            }                                                                                      \
        report(#name);                                                                             \
    }

TWO(add, ARITH)
TWO(adc, ARITH)
TWO(sub, ARITH)
TWO(sbb, ARITH)
TWO(cmp, ARITH)
TWO(and, LOGIC)
TWO(or, LOGIC)
TWO(xor, LOGIC)
TWO(test, LOGIC)
ONE(inc, ARITH)
ONE(dec, ARITH)
ONE(neg, ARITH)
ONE(not, CF) /* changes no flag */
SHIFT(rol)
SHIFT(ror)
SHIFT(rcl)
SHIFT(rcr)
SHIFT(shl)
SHIFT(shr)
SHIFT(sar)

/* The instruction text with %0 as destination and %2 as source. */
#define REGISTER_FORM(text, type, mask)                                                            \
    do {                                                                                           \
        type d = (type)a;                                                                          \
        uint64_t f;                                                                                \
        __asm__ volatile("or %0, %0\n\t" text "\n\tpushfq\n\tpop %1"                               \
                         : "+r"(d), "=&r"(f)                                                       \
                         : "r"((type)b)                                                            \
                         : "cc");                                                                  \
        note(d, f, mask);                                                                          \
    } while (0)
#define ALL_VALUES                                                                                 \
    for (size_t i = 0; i < VALUES; i++)                                                            \
        for (uint64_t j = 0, a = values[i], b; j < VALUES && (b = values[j], 1); j++)

static void test_bits(void)
{
    ALL_VALUES
    {
        REGISTER_FORM("bt %2, %0", uint16_t, CF);
        REGISTER_FORM("bts %2, %0", uint32_t, CF);
        REGISTER_FORM("btr %2, %0", uint64_t, CF);
        REGISTER_FORM("btc $5, %0", uint64_t, CF);
        REGISTER_FORM("popcnt %2, %0", uint64_t, ARITH);
        REGISTER_FORM("lzcnt %2, %0", uint32_t, 0x41);
        REGISTER_FORM("tzcnt %2, %0", uint16_t, 0x41);
        REGISTER_FORM("shld $3, %2, %0", uint64_t, CF);
        REGISTER_FORM("shrd $9, %2, %0", uint32_t, CF);
        if (b) {
            REGISTER_FORM("bsf %2, %0", uint64_t, 0x40);
            REGISTER_FORM("bsr %2, %0", uint64_t, 0x40);
        }
    }
    report("bits");
}

static void test_bit_strings(void)
{
    uint64_t field[4] = {0x1111, 0x2222, 0x4444, 0x8888};

    for (int64_t bit = -64; bit < 192; bit += 3) {
        uint64_t f;
        __asm__ volatile("btsq %2, %0\n\tpushfq\n\tpop %1"
                         : "+m"(field[1]), "=&r"(f)
                         : "r"(bit)
                         : "cc", "memory");
        note(field[(bit >> 6) + 1], f, CF);
    }
    report("bit strings");
}

static void test_moves(void)
{
    ALL_VALUES
    {
        REGISTER_FORM("cmovo %2, %0", uint64_t, LOGIC);
        REGISTER_FORM("cmovs %2, %0", uint32_t, LOGIC);
        REGISTER_FORM("cmovp %2, %0", uint16_t, LOGIC);
        REGISTER_FORM("movsbq %b2, %q0", uint64_t, LOGIC);
        REGISTER_FORM("movswl %w2, %k0", uint32_t, LOGIC);
        REGISTER_FORM("movslq %k2, %q0", uint64_t, LOGIC);
        REGISTER_FORM("movzwl %w2, %k0", uint32_t, LOGIC);
        REGISTER_FORM("xchg %2, %0", uint64_t, LOGIC);
        REGISTER_FORM("bswap %0", uint64_t, LOGIC);
        REGISTER_FORM("bswap %0", uint32_t, LOGIC);
        REGISTER_FORM("setg %b0", uint64_t, LOGIC);
        REGISTER_FORM("xadd %2, %0", uint32_t, ARITH);
        REGISTER_FORM("imul %2, %0", uint64_t, 0x801);
        REGISTER_FORM("imul $-77, %2, %0", uint32_t, 0x801);
        REGISTER_FORM("imul $0x1234, %2, %0", uint16_t, 0x801);
    }
    report("moves");
}

static void test_high_bytes(void)
{
    uint64_t a = 0x1122334455667788, b = 0x99aabbccddeeff00, c = 0;

    __asm__ volatile("addb %%bh, %%ah\n\tmovb %%ah, %%ch\n\tsubb %%bl, %%ch\n\txchg %%ah, %%bl\n\t"
                     "movzbl %%bh, %%edx\n\tadd %%rdx, %2"
                     : "+a"(a), "+b"(b), "+c"(c)::"rdx", "cc");
    note(a ^ b * 3 ^ c * 5, 0, 0);
    report("high bytes");
}

static void test_multiply_divide(void)
{
    ALL_VALUES
    {
        uint64_t low = a, high = 0, f;
        __asm__ volatile("mulq %3\n\tpushfq\n\tpop %2"
                         : "+a"(low), "+d"(high), "=&r"(f)
                         : "r"(b)
                         : "cc");
        note(low ^ high * 7, f, 0x801);
        low = a;
        __asm__ volatile("imulb %b3\n\tpushfq\n\tpop %2"
                         : "+a"(low), "+d"(high), "=&r"(f)
                         : "r"(b)
                         : "cc");
        note(low, f, 0x801);
        if (b) {
            low = a, high = 0;
            __asm__ volatile("divq %2" : "+a"(low), "+d"(high) : "m"(b) : "cc");
            note(low ^ high * 7, 0, 0);
        }
        if (b & 0x7fffffff && b != ~0ull && (uint32_t)b != ~0u) {
            low = (uint32_t)a;
            __asm__ volatile("cltd\n\tidivl %k2" : "+a"(low), "=&d"(high) : "r"(b) : "cc");
            note(low ^ high * 7, 0, 0);
        }
    }
    report("mul div");
}

static void test_conversions(void)
{
    for (size_t i = 0; i < VALUES; i++) {
        uint64_t a = values[i], d = 0;
        __asm__ volatile("cbtw" : "+a"(a));
        note(a, 0, 0);
        __asm__ volatile("cwtl\n\tcltd" : "+a"(a), "+d"(d));
        note(a ^ d, 0, 0);
        __asm__ volatile("cltq\n\tcqto" : "+a"(a), "+d"(d));
        note(a ^ d, 0, 0);
    }
    report("conversions");
}

static void test_compare_exchange(void)
{
    _Alignas(16) uint64_t pair[2] = {1, 2};

    ALL_VALUES
    {
        uint64_t m = a, old = b, f, low = pair[0], high = pair[1] + (j & 1);
        __asm__ volatile("lock cmpxchgq %3, %1\n\tpushfq\n\tpop %2"
                         : "+a"(old), "+m"(m), "=&r"(f)
                         : "r"(a + b)
                         : "cc");
        note(m ^ old * 3, f, ARITH);
        __asm__ volatile("lock cmpxchg16b %0"
                         : "+m"(pair), "+a"(low), "+d"(high)
                         : "b"(a), "c"(b)
                         : "cc", "memory");
        note(pair[0] ^ low * 3 ^ pair[1] * 5 ^ high * 7, 0, 0);
        __asm__ volatile("lock xaddl %k0, %1\n\tlock btcq $3, %1" : "+r"(old), "+m"(m)::"cc");
        note(m ^ old, 0, 0);
    }
    report("cmpxchg");
}

int main(void)
{
    test_add(), test_adc(), test_sub(), test_sbb(), test_cmp();
    test_and(), test_or(), test_xor(), test_test();
    test_inc(), test_dec(), test_neg(), test_not();
    test_rol(), test_ror(), test_rcl(), test_rcr(), test_shl(), test_shr(), test_sar();
    test_bits();
    test_bit_strings();
    test_moves();
    test_high_bytes();
    test_multiply_divide();
    test_conversions();
    test_compare_exchange();
    return 0;
}
