/* fuzz_decode.c: random and biased bytes for the decoder.
 *
 *   fuzz_decode [-s SEED] [-n COUNT] [-t SECONDS] [-x]
 *   fuzz_decode -w
 *
 * Every input lies directly before a guard page, at a random length, so that reading past the limit
 * faults; what decode() and disas() promise is checked. With -x each instruction is also executed,
 * under the trap flag and at the end of its page, and the processor's verdict is compared: legal or
 * #UD, the length, the memory operand, and the registers and flags read and written. -w instead
 * executes all opcodes of all maps in many forms (25 million, some minutes). On failure the seed
 * and the command that repeats it are printed. With -DLIBFUZZER the same check is a libFuzzer
 * target.
 */
#include "../emu.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, LONGEST = 15, WIDTH = 24 };

static uint8_t *guarded_end; /* of a page before an inaccessible one */
static const char *program = "fuzz_decode";
static uint64_t seed;
static unsigned long number; /* of the input */

/* How to run the present input again. */
static void print_repeat(const char *option)
{
    printf("repeat: %s %s-s %" PRIu64 " -n 1\n", program, option, seed + number);
}

static _Noreturn void fail(const char *what, const uint8_t *bytes, size_t len)
{
    printf("FAIL: %s:", what);
    for (size_t i = 0; i < len; i++)
        printf(" %02x", bytes[i]);
    putchar('\n');
    print_repeat("");
    exit(1);
}

static void check(bool good, const char *what, const uint8_t *bytes, size_t len)
{
    if (!good)
        fail(what, bytes, len);
}

static void map_guarded(void)
{
    uint8_t *page =
        mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED || mprotect(page + PAGE, PAGE, PROT_NONE)) {
        perror("mmap");
        exit(2);
    }
    guarded_end = page + PAGE;
}

static void check_insn(const struct insn *in, const uint8_t *code, size_t len)
{
    char text[128], intel[128];
    check(in->len >= 1 && in->len <= LONGEST, "length out of range", code, len);
    check(in->row || in->kind == INSN_ILLEGAL || in->kind == INSN_PRIV, "no row", code, len);
    check(in->nmem <= 3 && in->mem_index < 3, "memory operands", code, len);
    check(in->disp_off + in->disp_size <= in->len || !in->row, "displacement", code, len);
    check(in->imm_off + in->imm_size <= in->len || !in->row, "immediate", code, len);
    check(in->pc == 0x1000, "pc", code, len);
    size_t n = disas(text, sizeof text, in, code, DISAS_ATT);
    check(n == strlen(text) && n < sizeof text - 1, "AT&T text", code, len);
    n = disas(intel, sizeof intel, in, code, DISAS_INTEL);
    check(n == strlen(intel) && n < sizeof intel - 1, "Intel text", code, len);
}

/* What must hold for any bytes; in is what they decode to. */
static void check_bytes(const uint8_t *bytes, size_t len, struct insn *in)
{
    uint8_t *code = guarded_end - len;
    memcpy(code, bytes, len);
    int result = decode(in, code, len, 0x1000);
    if (result == DECODE_PARTIAL) {
        check(len < LONGEST, "partial with 15 bytes", bytes, len);
        return;
    }
    check(result == DECODE_OK, "result", bytes, len);
    check(in->len <= len, "longer than the input", bytes, len);
    check_insn(in, code, len);
    /* Exactly its own bytes must be enough, and one less too few. */
    struct insn again;
    memmove(guarded_end - in->len, code, in->len);
    check(decode(&again, guarded_end - in->len, in->len, 0x1000) == DECODE_OK &&
              again.len == in->len && again.kind == in->kind && again.row == in->row,
          "differs without what follows", bytes, len);
    if (in->row && in->len > 1)
        check(decode(&again, guarded_end - in->len, in->len - 1u, 0x1000) == DECODE_PARTIAL ||
                  !again.row,
              "shorter input is not partial", bytes, len);
}

#ifdef LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct insn in;
    if (!guarded_end)
        map_guarded();
    if (size)
        check_bytes(data, size < WIDTH ? size : WIDTH, &in);
    return 0;
}
#else

#include "hardware.h"

/* ---- inputs ---------------------------------------------------------------------------------- */

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u; /* splitmix64 */
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static size_t make_legacy(uint8_t *out, uint64_t r)
{
    static const uint8_t prefixes[] = {0x66, 0x67, 0xF2, 0xF3, 0xF0, 0x2E, 0x64, 0x48, 0x41, 0x66};
    static const uint8_t escapes[][3] = {{0}, {0x0F}, {0x0F, 0x38}, {0x0F, 0x3A}, {0x0F, 0x0F}};
    static const uint8_t escape_len[] = {0, 1, 2, 2, 2};
    size_t n = 0;
    for (unsigned count = r & 3; count; count--, r >>= 5)
        out[n++] = prefixes[(r >> 2) % sizeof prefixes];
    unsigned escape = (unsigned)(r >> 16) % 5;
    memcpy(out + n, escapes[escape], escape_len[escape]);
    return n + escape_len[escape];
}

/* A VEX, EVEX or XOP prefix, mostly with reserved fields as they must be. */
static size_t make_vex(uint8_t *out, uint64_t r)
{
    bool spare = (r & 0xF) != 0; /* vvvv = 1111 */
    uint8_t p1 = (uint8_t)(r >> 8);
    if (spare && r & 0x10)
        p1 |= 0x78;
    switch (r >> 5 & 7) {
    case 0:
        out[0] = 0xC5;
        out[1] = p1;
        return 2;
    case 1:
        out[0] = 0x8F;
        out[1] = (uint8_t)((r >> 16 & 0xE0) | (8 + (r >> 24) % 3));
        out[2] = p1 & 0xFC;
        return 3;
    case 2:
    case 3:
    case 4:
        out[0] = 0xC4;
        out[1] = (uint8_t)((r >> 16 & 0xE0) | (1 + (r >> 24) % 3));
        out[2] = p1;
        return 3;
    default:
        out[0] = 0x62;
        out[1] = (uint8_t)((r >> 16 & 0xF0) | (1 + (r >> 24) % 6));
        out[2] = p1 | 4;
        out[3] = (uint8_t)(r >> 32);
        if (r & 0x1000000000)
            out[3] = (out[3] & 0x7F) | 8;
        if ((r & 0x6000000000) == 0)
            out[3] &= 0xEF;
        return 4;
    }
}

static void make_input(uint8_t *out, uint64_t *state)
{
    uint64_t r = next_random(state);
    for (size_t i = 0; i < WIDTH; i += 8) {
        uint64_t bytes = next_random(state);
        memcpy(out + i, &bytes, 8);
    }
    switch (r & 7) {
    case 0:
        break;
    case 1:
    case 2:
    case 3:
        make_legacy(out, r >> 3);
        break;
    default:
        make_vex(out, r >> 3);
    }
}

/* ---- all opcodes ------------------------------------------------------------------------------
 */

static void walk_one(const uint8_t *bytes, size_t len)
{
    uint8_t padded[WIDTH];
    struct insn in;
    memset(padded, 0x90, sizeof padded);
    memcpy(padded, bytes, len);
    memcpy(padded + len, "\x24\x11\x22\x33\x44\x55\x16\x27", 8);
    decode(&in, padded, LONGEST, 0x1000);
    hardware_check(&in, padded);
}

/* The opcode with every register form, or two of each, and memory with and without SIB. */
static void walk_modrm(uint8_t *bytes, size_t len, bool all)
{
    for (unsigned modrm = 0; modrm < 256; modrm++) {
        unsigned rm = modrm & 7;
        bool simple = modrm >= 0xC0 ? rm < 2 : modrm < 0x40;
        if ((modrm < 0xC0 && rm != 0 && rm != 4) || (!all && !simple))
            continue;
        bytes[len] = (uint8_t)modrm;
        walk_one(bytes, len + 1);
    }
}

static void walk_legacy(void)
{
    static const uint8_t prefixes[][3] = {
        {0},       {1, 0x66}, {1, 0xF2},       {1, 0xF3},       {2, 0x66, 0xF2}, {2, 0x66, 0xF3},
        {1, 0x48}, {1, 0x41}, {2, 0xF3, 0x48}, {2, 0x66, 0x48}, {1, 0xF0},       {1, 0x44}};
    static const uint8_t escapes[][3] = {{0}, {1, 0x0F}, {2, 0x0F, 0x38}, {2, 0x0F, 0x3A}};
    static const char not_opcodes[] = "\x0F\x62\xC4\xC5\x8F\x64";
    uint8_t bytes[WIDTH];
    for (unsigned i = 0; i < 12 * 4 * 256; i++) {
        const uint8_t *prefix = prefixes[i >> 10], *escape = escapes[i >> 8 & 3];
        uint8_t opcode = (uint8_t)i;
        size_t len = prefix[0];
        if (!escape[0] && (memchr(not_opcodes, opcode, sizeof not_opcodes - 1) || opcode >> 4 == 4))
            continue;
        memcpy(bytes, prefix + 1, prefix[0]);
        memcpy(bytes + len, escape + 1, escape[0]);
        len += escape[0];
        bytes[len++] = opcode;
        walk_modrm(bytes, len, true);
    }
}

/* Prefix, length, W, vvvv used or not, R: by the bits of i. */
static void walk_vex(void)
{
    for (unsigned map = 0; map < 8; map++)
        for (unsigned i = 0; i < 64 * 256; i++) {
            unsigned x = i >> 8;
            uint8_t bytes[WIDTH] = {0xC4, (uint8_t)((0xE0 | map) ^ (x & 32 ? 0x80 : 0)),
                                    (uint8_t)((x & 7) | (x & 8) << 4 | (x & 16 ? 0x78 : 0x50)),
                                    (uint8_t)i};
            walk_modrm(bytes, 4, false);
        }
}

/* Likewise, with mask, zeroing and the broadcast bit. */
static void walk_evex(void)
{
    static const uint8_t masks[] = {0x00, 0x01, 0x82, 0x03, 0x80, 0x05};
    for (unsigned map = 0; map < 8; map++)
        for (unsigned i = 0; i < 384 * 256; i++) {
            unsigned x = i >> 8, odd = x + i % 256;
            uint8_t flip = (odd % 5 ? 0 : 0x10) | (odd % 11 ? 0 : 0x80);
            uint8_t bytes[WIDTH] = {
                0x62, (uint8_t)((0xF0 | map) ^ flip),
                (uint8_t)(4 | (x & 3) | (x & 4) << 5 | (odd % 3 ? 0x78 : 0x50)),
                (uint8_t)((x >> 3 & 3) << 5 | (x & 32) >> 1 | (odd % 7 ? 8 : 0) | masks[x >> 6]),
                (uint8_t)i};
            walk_modrm(bytes, 5, false);
        }
}

static int walk(void)
{
    hardware_init();
    walk_legacy();
    walk_vex();
    walk_evex();
    return hardware_report();
}

/* ---- main ------------------------------------------------------------------------------------ */

/* Compares with the processor; an input that differs says how to repeat it. */
static void execute_input(const struct insn *in, const uint8_t *bytes, uint64_t random)
{
    unsigned long before = hardware_differences();
    hardware_check(in, bytes);
    hardware_check_memory(in, bytes);
    hardware_check_effects(in, bytes, random);
    if (hardware_differences() != before)
        print_repeat("-x ");
}

int main(int argc, char **argv)
{
    unsigned long limit = ULONG_MAX;
    double seconds = 0;
    bool execute = false;
    int option;
    program = argv[0];
    seed = (uint64_t)time(NULL) << 20;
    while ((option = getopt(argc, argv, "s:n:t:xw")) != -1) {
        switch (option) {
        case 's':
            seed = strtoull(optarg, NULL, 0);
            break;
        case 'n':
            limit = strtoul(optarg, NULL, 0);
            break;
        case 't':
            seconds = atof(optarg);
            break;
        case 'x':
            execute = true;
            break;
        case 'w':
            return walk();
        default:
            return 2;
        }
    }
    if (limit == ULONG_MAX && seconds == 0)
        limit = 10000000;
    map_guarded();
    if (execute)
        hardware_init();
    time_t start = time(NULL);
    unsigned long legal = 0;
    for (number = 0; number < limit; number++) {
        uint8_t bytes[WIDTH];
        uint64_t state = seed + number;
        struct insn in;
        if (seconds > 0 && number % 4096 == 0 && difftime(time(NULL), start) >= seconds)
            break;
        make_input(bytes, &state);
        check_bytes(bytes, LONGEST, &in);
        legal += in.row != NULL;
        if (execute)
            execute_input(&in, bytes, next_random(&state));
        check_bytes(bytes, 1 + next_random(&state) % LONGEST, &in);
    }
    printf("%lu inputs, %lu legal; repeat: %s %s-s %" PRIu64 " -n %lu\n", number, legal, program,
           execute ? "-x " : "", seed, number);
    return execute ? hardware_report() : 0;
}
#endif
