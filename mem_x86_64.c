/* mem_x86_64.c: which memory an instruction accesses, as plugins are told: in which order, and in
 * pieces of which size. What QEMU 10.2 shows is the model; where that is an artefact of how it
 * emulates (reads of more than the instruction needs, say), it is what the processor does.
 * tests/accesses.h lists the differences.
 *
 * Knows the guest ISA. Must not know plugins, nor generated code.
 *
 * Most accesses follow from the instruction alone; these are listed while it runs, from the
 * guest's registers: elements that a mask or vector selects, bit strings, state images. */

#include "emu.h"
#include "opcodes_x86_64.h"

#include <cpuid.h>
#include <string.h>

#define LEGACY_IMAGE  416 /* bytes of the fxsave area that the processor uses */
#define HEADER        512 /* of the xsave area */
#define HEADER_SIZE   64
#define MXCSR_INITIAL 0x1f80
#define COMPONENTS    20 /* of the extended state, more than there are */

/* The list being made. */
struct lister {
    const struct cpu *cpu;
    const struct insn *in;
    struct access *list;
    size_t n;
};

unsigned guest_access_size(const struct insn *in, unsigned offset, unsigned size)
{
    bool table = in->map == 1 && in->opcode == 0x01; /* sgdt and the like: limit, then base */
    unsigned piece = 16;
    if (table && offset == 0 && size == 10)
        return 2;
    while (piece > size - offset)
        piece /= 2;
    return piece;
}

/* ---- kinds of instructions ------------------------------------------------------------------ */

static bool is_named(const struct insn *in, const char *part)
{
    return in->row && strstr(opcode_name(in->row), part);
}

static unsigned enter_level(const struct insn *in)
{
    const uint8_t *code = (const uint8_t *)in->pc;
    return in->map == 0 && in->opcode == 0xc8 ? code[in->imm_off + 2] & 31 : 0;
}

static bool is_state_image(const struct insn *in)
{
    unsigned size = in->row ? in->row->mem_size : SZ_none;
    return size == SZ_xs || size == SZ_fx || size == SZ_sv || size == SZ_tile;
}

bool guest_accesses_vary(const struct insn *in)
{
    const unsigned flags = MEM_VSIB | MEM_MASKED | MEM_BITS | MEM_INDEX8;
    for (int i = 0; i < in->nmem; i++)
        if (in->mem[i].flags & flags)
            return true;
    return is_state_image(in) || enter_level(in);
}

/* True if their number does not follow from the instruction alone. */
static bool is_number_open(const struct insn *in)
{
    for (int i = 0; i < in->nmem; i++)
        if (in->mem[i].flags & (MEM_VSIB | MEM_MASKED))
            return true;
    return in->flags & (INSN_REP | INSN_REPNE) || is_state_image(in) || enter_level(in);
}

static unsigned count_pieces(const struct insn *in, const struct mem_op *m, unsigned size,
                             unsigned rw)
{
    unsigned n = 0, kinds = !!(m->flags & rw & MEM_READ) + !!(m->flags & rw & MEM_WRITE);
    for (unsigned at = 0; at < size; at += guest_access_size(in, at, size))
        n += kinds;
    return n;
}

int guest_count_accesses(const struct insn *in, unsigned rw)
{
    unsigned n = 0;
    if (is_number_open(in))
        return -1;
    for (int m = 0; m < in->nmem; m++)
        n += count_pieces(in, &in->mem[m], in->mem[m].size, rw);
    return (int)n;
}

/* Legacy vector instructions want their 16-byte operands aligned, but for some; of the VEX and
 * EVEX ones only the aligned moves do (Intel SDM vol. 1, 14.9). */
bool guest_read_is_aligned(const struct insn *in)
{
    static const char *const exempt[] = {"movup", "movdqu", "lddqu", "str"};
    const struct mem_op *m = &in->mem[in->mem_index];
    if (!in->nmem || !(m->flags & MEM_READ) || m->size < 16)
        return false;
    if (in->map == 1 && in->opcode == 0xc7) /* cmpxchg16b */
        return true;
    if (in->enc != ENC_LEGACY)
        return is_named(in, "movap") || is_named(in, "movdqa") || is_named(in, "movntdqa");
    for (size_t i = 0; i < sizeof(exempt) / sizeof(exempt[0]); i++)
        if (is_named(in, exempt[i]))
            return false;
    return in->flags & INSN_USES_VEC;
}

/* ---- registers and addresses ----------------------------------------------------------------- */

static uint64_t segment_base(const struct cpu *cpu, unsigned seg)
{
    return seg == SEG_FS ? cpu->fs_base : seg == SEG_GS ? cpu->gs_base : 0;
}

/* Linear address of an operand, displaced by offset before its address is cut to 32 bits. */
static uint64_t linear_address(const struct lister *l, const struct mem_op *m, uint64_t offset)
{
    uint64_t address = offset + (uint64_t)(int64_t)m->disp;
    if (m->flags & MEM_ABS64)
        address = l->in->imm;
    else if (m->base == REG_PC)
        address += l->in->pc + l->in->len;
    else if (m->base != REG_NONE)
        address += l->cpu->reg[m->base];
    if (m->flags & MEM_INDEX8)
        address += l->cpu->reg[m->index] & 0xff;
    else if (m->index != REG_NONE && !(m->flags & MEM_VSIB))
        address += l->cpu->reg[m->index] * m->scale;
    if (l->in->flags & INSN_ADDR32 && !(m->flags & MEM_STACK))
        address = (uint32_t)address;
    return address + segment_base(l->cpu, m->seg);
}

/* Element i, of size bytes, of a vector register, sign-extended. */
static int64_t vector_element(const struct cpu *cpu, unsigned reg, unsigned i, unsigned size)
{
    uint8_t vec[64];
    uint64_t value = 0;
    guest_read_vector(cpu, (int)reg, vec);
    memcpy(&value, vec + i * size, size);
    return (int64_t)(value << (64 - 8 * size)) >> (64 - 8 * size);
}

static void add_access(struct lister *l, uint64_t vaddr, unsigned size, unsigned flags)
{
    if (l->n < MAX_ACCESSES)
        l->list[l->n++] = (struct access){vaddr, (uint16_t)size, (uint16_t)flags};
}

/* size bytes at vaddr, in pieces. */
static void add_range(struct lister *l, uint64_t vaddr, unsigned size, unsigned flags)
{
    for (unsigned at = 0, piece; at < size; at += piece) {
        piece = guest_access_size(l->in, at, size);
        add_access(l, vaddr + at, piece, flags);
    }
}

/* One operand: what is read, then what is written. */
static void add_operand(struct lister *l, const struct mem_op *m, uint64_t vaddr, unsigned size)
{
    unsigned kind = m->flags & (MEM_SIGNED | MEM_BIGEND);
    if (m->flags & MEM_READ)
        add_range(l, vaddr, size, MEM_READ | kind);
    if (m->flags & MEM_WRITE)
        add_range(l, vaddr, size, MEM_WRITE | kind);
}

/* ---- masks ------------------------------------------------------------------------------------
 */

/* EVEX instructions with a mask whose operand does not have as many elements as it has
 * broadcast-sized pieces, nor elements as its name ends. */
static const struct {
    const char *name;
    uint8_t size;
} element_names[] = {
    {"movups", 4},  {"movupd", 8}, {"movaps", 4}, {"movapd", 8}, {"dqa32", 4},    {"dqa64", 8},
    {"dqu8", 1},    {"dqu16", 2},  {"dqu32", 4},  {"dqu64", 8},  {"movsxb", 1},   {"movzxb", 1},
    {"movsxw", 2},  {"movzxw", 2}, {"movsxd", 4}, {"movzxd", 4}, {"cvtph2ps", 2}, {"pressps", 4},
    {"presspd", 8}, {"pressb", 1}, {"pressw", 2}, {"pressd", 4}, {"pressq", 8},   {"pandps", 4},
    {"pandpd", 8},  {"pandb", 1},  {"pandw", 2},  {"pandd", 4},  {"pandq", 8},    {"wb", 1},
    {"db", 1},      {"qb", 1},     {"dw", 2},     {"qw", 2},     {"qd", 4},
};

/* From the name: the size of an element, or 0. */
static unsigned find_element_size(const struct insn *in)
{
    static const char *const whole[] = {"unpck",     "pack",  "shuf",  "perm",  "align",
                                        "broadcast", "vpsll", "vpsrl", "vpsra", "dup"};
    const char *name = opcode_name(in->row);
    for (size_t i = 0; i < sizeof(whole) / sizeof(whole[0]); i++)
        if (is_named(in, whole[i]))
            return 0;
    for (size_t i = 0; i < sizeof(element_names) / sizeof(element_names[0]); i++)
        if (is_named(in, element_names[i].name))
            return element_names[i].size;
    switch (name[strlen(name) - 1]) {
    case 'b':
        return 1;
    case 'w':
        return 2;
    default:
        return 0;
    }
}

/* Bytes of one element of an EVEX instruction's masked memory operand; 0: not accessed by elements,
 * but as a whole or not at all. A name is searched once: memcmp runs millions of these. */
static unsigned element_size(const struct insn *in)
{
    static uint8_t known[UINT16_MAX + 1]; /* by name: one more than its size */
    uint8_t *size = &known[in->row->name];
    unsigned broadcast = ATTR_BC(in->row->attr);
    if (in->evex & EVEX_B)
        return 0;
    if (broadcast)
        return 1u << broadcast;
    if (!*size)
        *size = (uint8_t)(find_element_size(in) + 1);
    return *size - 1u;
}

/* Elements that an EVEX mask register selects. */
static uint64_t evex_mask(const struct lister *l)
{
    unsigned k = l->in->evex & EVEX_AAA;
    return k ? guest_read_mask(l->cpu, (int)k) : UINT64_MAX;
}

/* vmaskmov and vpmaskmov */
static bool is_vector_masked(const struct insn *in, const struct mem_op *m)
{
    return m->flags & MEM_MASKED && !(m->flags & MEM_VSIB) && in->enc == ENC_VEX && in->map == 2;
}

bool guest_find_elements(const struct insn *in, struct elements *elements)
{
    const struct mem_op *m = in->mem;
    if (in->flags & (INSN_REP | INSN_REPNE)) {
        *elements = (struct elements){.by = ELEMENTS_REPEATED};
        return !(in->flags & INSN_ADDR32);
    }
    if (in->nmem != 1 || is_state_image(in) || !(m->flags & MEM_MASKED) || m->flags & MEM_VSIB)
        return false;
    if (is_vector_masked(in, m)) {
        *elements = (struct elements){ELEMENTS_SIGNS, in->vvvv, m->count, (uint8_t)m->size};
        return true;
    }
    unsigned size = in->enc == ENC_EVEX ? element_size(in) : 0;
    if (!size)
        return false;
    *elements = (struct elements){ELEMENTS_MASK, in->evex & EVEX_AAA, (uint8_t)(m->size / size),
                                  (uint8_t)size};
    return true;
}

unsigned guest_count_each(const struct insn *in, unsigned rw)
{
    struct elements elements;
    unsigned n = 0;
    if (guest_find_elements(in, &elements) && elements.by != ELEMENTS_REPEATED)
        return count_pieces(in, in->mem, elements.size, rw);
    for (int m = 0; m < in->nmem; m++)
        n += count_pieces(in, &in->mem[m], in->mem[m].size, rw);
    return n;
}

/* compress and expand: as many elements as are selected, one behind the other. */
static bool is_dense(const struct insn *in)
{
    return is_named(in, "compress") || is_named(in, "expand");
}

static void list_evex(struct lister *l, const struct mem_op *m)
{
    uint64_t mask = evex_mask(l), base = linear_address(l, m, 0);
    unsigned size = element_size(l->in), n = size ? m->size / size : 0;
    bool dense = is_dense(l->in);
    if (l->in->evex & EVEX_B)
        n = (16u << l->in->vec_len) / m->size;
    if (n && n < 64)
        mask &= (1ull << n) - 1;
    if (!size) {
        if (mask)
            add_operand(l, m, base, m->size);
        return;
    }
    for (unsigned i = 0, at = 0; i < n; i++)
        if (mask >> i & 1)
            add_operand(l, m, base + size * (dense ? at++ : i), size);
}

/* vmaskmov and vpmaskmov: the signs of a vector's elements select. */
static void list_vector_masked(struct lister *l, const struct mem_op *m)
{
    for (unsigned i = 0; i < m->count; i++)
        if (vector_element(l->cpu, l->in->vvvv, i, m->size) < 0)
            add_operand(l, m, linear_address(l, m, 0) + i * m->size, m->size);
}

/* maskmovq, maskmovdqu: the signs of the bytes select. */
static void list_byte_masked(struct lister *l, const struct mem_op *m)
{
    uint8_t mask[64];
    if (m->size == 8)
        memcpy(mask, guest_mmx(l->cpu, l->in->rm & 7), 8);
    else
        guest_read_vector(l->cpu, l->in->rm, mask);
    for (unsigned i = 0; i < m->size; i++)
        if (mask[i] & 0x80)
            add_operand(l, m, linear_address(l, m, 0) + i, 1);
}

/* Gathers and scatters. A VEX gather has its mask in a vector, an EVEX one in a mask register. */
static void list_vsib(struct lister *l, const struct mem_op *m)
{
    const struct insn *in = l->in;
    unsigned index_size = in->opcode & 1 ? 8 : 4;
    uint64_t mask = in->enc == ENC_EVEX ? evex_mask(l) : 0;
    for (unsigned i = 0; i < m->count; i++) {
        bool active =
            in->enc == ENC_EVEX ? mask >> i & 1 : vector_element(l->cpu, in->vvvv, i, m->size) < 0;
        int64_t index = vector_element(l->cpu, (unsigned)m->index, i, index_size);
        if (active)
            add_operand(l, m, linear_address(l, m, (uint64_t)index * m->scale), m->size);
    }
}

/* ---- other instructions -------------------------------------------------------------------------
 */

/* bt, bts, btr, btc with a register: its signed value counts bits from the operand. */
static void list_bit_string(struct lister *l, const struct mem_op *m)
{
    unsigned bits = 8u * m->size;
    int64_t bit = (int64_t)(l->cpu->reg[m->bit_reg] << (64 - bits)) >> (64 - bits);
    int64_t unit = bit / (int)bits - (bit % (int)bits < 0);
    add_operand(l, m, linear_address(l, m, (uint64_t)(unit * m->size)), m->size);
}

/* enter with a nesting level: pushes rbp, copies the frame pointers above it, pushes its own
 * frame's. */
static void list_enter(struct lister *l)
{
    unsigned size = l->in->opsize, level = enter_level(l->in);
    uint64_t sp = l->cpu->reg[GPR_RSP], bp = l->cpu->reg[GPR_RBP];
    add_access(l, sp -= size, size, MEM_WRITE);
    for (unsigned i = 1; i < level; i++) {
        add_access(l, bp -= size, size, MEM_READ);
        add_access(l, sp -= size, size, MEM_WRITE);
    }
    add_access(l, sp - size, size, MEM_WRITE);
}

/* What CPUID says of a component of the extended state (leaf 0xd). */
struct component {
    uint32_t size, offset, flags;
};
#define COMPONENT_ALIGNED 2 /* flags: starts at a multiple of 64 in the compacted form */

static struct component find_component(unsigned i)
{
    struct component c = {0};
    unsigned edx;
    __cpuid_count(13, i, c.size, c.offset, c.flags, edx);
    return c;
}

static uint64_t read_xgetbv(uint32_t which)
{
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(which));
    return low | (uint64_t)high << 32;
}

/* x87, SSE and MXCSR parts of an xsave area. */
static void add_legacy(struct lister *l, uint64_t base, uint64_t parts, uint64_t mxcsr,
                       unsigned flags)
{
    if (parts & 1)
        add_range(l, base, 24, flags);
    if (mxcsr)
        add_range(l, base + 24, 8, flags);
    if (parts & 1)
        add_range(l, base + 32, 128, flags);
    if (parts & 2)
        add_range(l, base + 160, 256, flags);
}

/* The other parts; compact: format bits of XCOMP_BV, or 0 for the standard places. */
static void add_extended(struct lister *l, uint64_t base, uint64_t parts, uint64_t compact,
                         unsigned flags)
{
    uint64_t at = HEADER + HEADER_SIZE;
    for (unsigned i = 2; i < COMPONENTS; i++) {
        struct component c = find_component(i);
        if (c.flags & COMPONENT_ALIGNED)
            at = (at + 63) & ~63ull;
        if (parts >> i & 1)
            add_range(l, base + (compact ? at : c.offset), c.size, flags);
        if (compact >> i & 1)
            at += c.size;
    }
}

/* xrstor: what the header says is there. */
static void list_xrstor(struct lister *l, uint64_t base, uint64_t asked)
{
    uint64_t header[2] = {0};
    add_range(l, base + HEADER, HEADER_SIZE, MEM_READ);
    if (!guest_copy(header, (const void *)(base + HEADER), sizeof(header)))
        return;
    bool compact = header[1] >> 63;
    uint64_t mxcsr = compact ? header[0] & asked & 2 : asked & 6;
    add_legacy(l, base, header[0] & asked, mxcsr, MEM_READ);
    add_extended(l, base, header[0] & asked, compact ? header[1] : 0, MEM_READ);
}

/* xsave, xsaveopt, xsavec. The latter two leave out what is in its initial state; xsaveopt may
 * also leave out what has not changed, which cannot be known here. */
static void list_xsave(struct lister *l, uint64_t base, uint64_t asked)
{
    bool compact = is_named(l->in, "savec");
    uint64_t parts = asked;
    if (compact || is_named(l->in, "saveopt"))
        parts &= l->cpu->vec_class | (l->cpu->mxcsr != MXCSR_INITIAL ? 2 : 0);
    if (!compact)
        add_range(l, base + HEADER, 8, MEM_READ);
    add_legacy(l, base, parts, compact ? parts & 2 : asked & 6, MEM_WRITE);
    add_range(l, base + HEADER, compact ? 16 : 8, MEM_WRITE);
    add_extended(l, base, parts, compact ? asked | 1ull << 63 : 0, MEM_WRITE);
}

static void list_state_image(struct lister *l, const struct mem_op *m)
{
    uint64_t base = linear_address(l, m, 0);
    uint64_t asked = (l->cpu->reg[GPR_RDX] << 32) | (uint32_t)l->cpu->reg[GPR_RAX];
    switch ((enum operand_size)l->in->row->mem_size) {
    case SZ_fx:
        add_operand(l, m, base, LEGACY_IMAGE);
        break;
    case SZ_xs:
        asked &= read_xgetbv(0);
        if (m->flags & MEM_WRITE)
            list_xsave(l, base, asked);
        else
            list_xrstor(l, base, asked);
        break;
    case SZ_tile: /* rows as far apart as a register says: nothing is reported */
        break;
    default:
        add_operand(l, m, base, m->size);
    }
}

static void list_operand(struct lister *l, const struct mem_op *m)
{
    const struct insn *in = l->in;
    bool explicit = m == &in->mem[in->mem_index] && in->modrm < 0xc0;
    if (explicit && is_state_image(in))
        list_state_image(l, m);
    else if (m->flags & MEM_VSIB)
        list_vsib(l, m);
    else if (m->flags & MEM_MASKED && in->enc == ENC_EVEX)
        list_evex(l, m);
    else if (is_vector_masked(in, m))
        list_vector_masked(l, m);
    else if (m->flags & MEM_MASKED)
        list_byte_masked(l, m);
    else if (m->flags & MEM_BITS)
        list_bit_string(l, m);
    else
        add_operand(l, m, linear_address(l, m, 0), m->size);
}

size_t guest_list_accesses(const struct cpu *cpu, struct access *list)
{
    struct insn in;
    struct lister l = {.cpu = cpu, .in = &in, .list = list};
    if (decode(&in, (const uint8_t *)cpu->pc, 15, cpu->pc) != DECODE_OK)
        return 0;
    const struct mem_op *m = &in.mem[in.mem_index];
    if (guest_read_is_aligned(&in) && linear_address(&l, m, 0) & (m->size - 1u))
        return 0;
    if (enter_level(&in)) {
        list_enter(&l);
        return l.n;
    }
    for (int i = 0; i < in.nmem; i++)
        list_operand(&l, &in.mem[i]);
    return l.n;
}
