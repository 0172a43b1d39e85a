/* translate.c: cuts guest code into translation blocks as QEMU does, shows them to the plugins,
 * lines blocks that follow each other up as a superblock and has it lowered.
 *
 * Knows decoded instructions by their kind only; must not know any ISA or write code. */

#include "emu.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* No further block is added to a superblock that has this many instructions (measured: cold code
 * pays for what is translated ahead, hot code is chained anyway). */
#define SUPERBLOCK_INSNS 64
#define LANDING_INSNS    128 /* but behind a call, for its return to be predicted */
#define PAGE             4096ull

static struct unit unit; /* under tb_lock */
_Static_assert(sizeof unit.insn / sizeof *unit.insn >= LANDING_INSNS + TB_MAX_INSNS,
               "room for the last block");

/* In code that changes itself the next block's check comes right behind a store. */
static bool writes_memory(struct insn *in, const uint8_t *code)
{
    decode_effects(in, code);
    for (int i = 0; i < in->nmem; i++)
        if (in->mem[i].flags & MEM_WRITE)
            return true;
    return false;
}

/* Blocks are seen from outside. Otherwise one may end where another begins: code exists once, and
 * a return finds the landing of the call that ran. */
static bool shape_matters(void)
{
    return plugin_wants_tb_trans() || opt.log & LOG_IN_ASM;
}

/* Writable code is rare, and watching it takes libc. */
static bool watch_code(struct cpu *cpu, struct unit *u, uint64_t addr)
{
    if (!smc_is_writable(addr))
        return false;
    u->can_change = true;
    jit_use_libc(cpu);
    return smc_watch(addr);
}

/* Decodes the instruction at pc; of a hot page from a copy, as the bytes may change meanwhile. */
static bool decode_insn(struct unit *u, unsigned n, uint64_t pc, size_t avail, bool hot)
{
    const uint8_t *code = (const uint8_t *)pc;
    if (hot) {
        avail = avail < INSN_MAX ? avail : INSN_MAX;
        code = memcpy(u->copy + u->copied, code, avail);
    }
    u->code[n] = code;
    return decode_form(&u->insn[n], code, avail, pc) == DECODE_OK;
}

/* The end of the code from pc on, of which at most max bytes are of interest. */
static uint64_t find_code_end(uint64_t pc, uint64_t max)
{
    const struct vma *vma = vma_find_code(pc);
    if (vma && vma->prot & PROT_EXEC && vma->end - pc >= max)
        return pc + max;
    return pc + vma_code_avail(pc, max);
}

/* Decodes one block at pc into the unit behind its instructions; false: its first instruction
 * cannot be fetched. A block ends where QEMU ends it: behind a branch and its like, at 512
 * instructions, at the end of its first page; an instruction that crosses the page is a block of
 * its own. *checked: it has to check itself. */
static bool decode_block(struct cpu *cpu, struct unit *u, uint64_t pc, bool *checked)
{
    unsigned first = u->first[u->n_tbs], n = first;
    uint64_t page_end = (pc & ~(PAGE - 1)) + PAGE;
    uint64_t code_end = find_code_end(pc, page_end + 16 - pc);
    bool hot = code_end > pc && watch_code(cpu, u, pc), shaped = shape_matters();
    for (;;) {
        struct insn *in = &u->insn[n];
        if (n > first && !shaped && tb_lookup(pc))
            break;
        if (pc >= code_end || !decode_insn(u, n, pc, code_end - pc, hot))
            break;
        if (pc + in->len > page_end) {
            if (n > first)
                break;
            hot |= watch_code(cpu, u, page_end);
            if (!decode_insn(u, n, pc, code_end - pc, hot)) /* it may have changed until now */
                break;
        }
        u->copied += hot ? in->len : 0;
        n++;
        pc += in->len;
        if (in->kind != INSN_NEXT || in->flags & INSN_ENDS_TB || n - first == u->max_insns ||
            pc >= page_end || (hot && writes_memory(in, u->code[n - 1])))
            break;
    }
    u->first[u->n_tbs + 1] = (uint16_t)n;
    *checked = hot;
    return n > first;
}

static bool is_call(const struct insn *in)
{
    return in->kind == INSN_CALL || in->kind == INSN_CALL_IND;
}

static bool is_indirect(const struct insn *in)
{
    return in->kind == INSN_JUMP_IND || in->kind == INSN_CALL_IND;
}

/* Where an instruction always leads by itself, or 0. */
static uint64_t own_target(const struct insn *in)
{
    return in->kind == INSN_JUMP || in->kind == INSN_CALL ? in->target : 0;
}

/* Where the code goes on without an exit behind block i, or 0. */
static uint64_t follow(const struct unit *u, int i)
{
    const struct insn *last = &u->insn[u->first[i + 1] - 1];
    switch (last->kind) {
    case INSN_NEXT:
    case INSN_COND:
    case INSN_CALL:
    case INSN_CALL_IND:
    case INSN_SYSCALL:
        return last->pc + last->len;
    default:
        return u->target[i];
    }
}

static uint64_t start_bit(uint64_t pc)
{
    return 1ull << pc % 64;
}

static bool is_in_unit(const struct unit *u, uint64_t pc)
{
    if (!(u->starts & start_bit(pc)))
        return false;
    for (int i = 0; i < u->n_tbs; i++)
        if (u->insn[u->first[i]].pc == pc)
            return true;
    return false;
}

/* Adds the pages of [start, end) to the superblock's, or none; false: it has too many. */
static bool add_pages(struct superblock *sb, uint64_t start, uint64_t end)
{
    uint8_t before = sb->n_pages;
    for (uint64_t page = start & ~(PAGE - 1); page < end; page += PAGE) {
        int i = 0;
        while (i < sb->n_pages && sb->page[i] != page)
            i++;
        if (i == SUPERBLOCK_PAGES) {
            sb->n_pages = before;
            return false;
        }
        if (i == sb->n_pages)
            sb->page[sb->n_pages++] = page;
    }
    return true;
}

/* Finds where the block decoded last leads if it always leads there. What its branch goes through
 * may be a constant: that one's page is one of the superblock's, too. */
static void find_target(struct unit *u, struct superblock *pages)
{
    unsigned n = u->first[u->n_tbs + 1] - 1u;
    struct insn *last = &u->insn[n];
    u->target[u->n_tbs] = own_target(last);
    if (!is_indirect(last))
        return;
    decode_effects(last, u->code[n]);
    struct constant c = {.at = decode_branch_slot(last), .i = u->n_tbs};
    if (!c.at || !smc_read_constant(c.at, &c.value) || !add_pages(pages, c.at, c.at + 1))
        return;
    u->target[u->n_tbs] = c.value;
    u->constant[u->n_constants++] = c;
}

/* The block that was decoded last becomes part of the unit unless it must not be: blocks ahead of
 * execution are only taken where they are sound and cost nothing. */
static bool accept_block(struct unit *u, struct superblock *pages, bool checked)
{
    const struct insn *first = &u->insn[u->first[u->n_tbs]];
    const struct insn *last = &u->insn[u->first[u->n_tbs + 1] - 1];
    if (u->n_tbs > 0 && (last->kind == INSN_ILLEGAL || checked != u->checked))
        return false;
    if (!add_pages(pages, first->pc, last->pc + last->len))
        return false;
    find_target(u, pages);
    u->checked = checked;
    u->starts |= start_bit(first->pc);
    u->n_tbs++;
    return true;
}

static bool wants_more(const struct unit *u, uint64_t next)
{
    const struct insn *last = &u->insn[u->first[u->n_tbs] - 1];
    if (!next || u->max_insns < TB_MAX_INSNS || u->n_tbs == SUPERBLOCK_TBS ||
        u->first[u->n_tbs] >= (is_call(last) ? LANDING_INSNS : SUPERBLOCK_INSNS))
        return false;
    if (opt.log & (LOG_NOCHAIN | LOG_IN_ASM) || is_in_unit(u, next))
        return false;
    return is_call(last) ? !u->shared_call : !tb_lookup(next);
}

/* Keeps the bytes of all of its blocks: sb may be dropped and its host call still be made. */
static bool keep_code(struct superblock *sb)
{
    for (struct tb *tb = sb->tb; tb < sb->tb + sb->n_tbs; tb++) {
        uint8_t *copy = tb->code ? NULL : tb_alloc(tb->size);
        if (!tb->code && (!copy || !guest_copy(copy, (const void *)tb->pc, tb->size)))
            return false;
        if (copy)
            tb->code = copy;
    }
    return true;
}

/* The constant that block i goes through, or 0. */
static uint64_t constant_at(const struct superblock *sb, long i)
{
    for (int k = 0; k < sb->n_constants; k++)
        if (sb->constants[k].i == i)
            return sb->constants[k].at;
    return 0;
}

/* True if what is before the landing makes the call that ends the unit's last block as that would:
 * through a constant or not. */
static bool calls_alike(const struct unit *u, const struct tb *landing)
{
    int n = u->n_constants;
    uint64_t at = n && u->constant[n - 1].i == u->n_tbs - 1 ? u->constant[n - 1].at : 0;
    return constant_at(landing->sb, landing - landing->sb->tb - 1) == at;
}

/* A call's landing is wanted right behind it, for the processor to predict returns, even if the
 * code exists elsewhere. But if the same call has a landing already, in another block, it is to
 * make the host call: a return can lead to one of them only. */
static void share_call(struct unit *u)
{
    const struct insn *last = &u->insn[u->first[u->n_tbs] - 1];
    struct tb *landing = is_call(last) && !u->checked && !(opt.log & LOG_NOCHAIN)
                             ? tb_find_landing(last->pc + last->len, last->len)
                             : NULL;
    bool shared = landing && calls_alike(u, landing) && keep_code(landing->sb);
    u->shared_call = shared ? landing->pad[BY_RETURN] - JIT_CALL_LEN : NULL;
}

/* Fills the unit from pc; false: the fetch at pc faults. */
static bool build_unit(struct cpu *cpu, struct unit *u, uint64_t pc, struct superblock *pages)
{
    u->n_tbs = u->n_constants = 0;
    u->first[0] = 0;
    u->copied = 0;
    u->starts = 0;
    u->can_change = false;
    u->shared_call = NULL;
    uint64_t next = pc;
    bool checked;
    do {
        if (!decode_block(cpu, u, next, &checked) || !accept_block(u, pages, checked))
            break;
        next = follow(u, u->n_tbs - 1);
        share_call(u);
    } while (wants_more(u, next));
    return u->n_tbs > 0;
}

/* Shows block i to the plugins and takes what they ask for. */
static void instrument_block(struct cpu *cpu, struct unit *u, int i)
{
    plugin_gen_tb_start(cpu, u->insn[u->first[i]].pc);
    for (unsigned n = u->first[i]; n < u->first[i + 1]; n++) {
        plugin_gen_insn_start(&u->insn[n]);
        plugin_gen_insn_end();
    }
    size_t n_asked;
    const struct plugin_op *asked = plugin_gen_tb_end(cpu, &n_asked);
    plugin_ops_fold(u, i, asked, n_asked);
}

/* For a start, all flags are live where a callback runs in block i: it may look at them. */
static void mark_calls(struct unit *u, int i)
{
    memset(u->live + u->first[i], 0, (u->first[i + 1] - u->first[i]) * sizeof(u->live[0]));
    for (size_t k = 0; k < u->n_ops[i]; k++) {
        const struct plugin_op *op = &u->ops[i][k];
        if (op->kind == OP_CALL || op->kind == OP_CALL_COND)
            u->live[u->first[i] + (op->place == PLACE_TB ? 0 : op->insn)] = UINT16_MAX;
    }
}

/* True if the arithmetic flags are written before they are read from the start of block i on. */
static bool block_kills_flags(const struct unit *u, int i)
{
    unsigned open = FLAGS_ARITH;
    for (unsigned n = u->first[i]; n < u->first[i + 1] && open; n++) {
        const struct insn *in = &u->insn[n];
        if (in->flags_read & open || in->kind != INSN_NEXT || u->live[n])
            return false;
        open &= ~(unsigned)in->flags_written;
    }
    return !open;
}

/* The same from guest address pc on, as far as it is known already. */
static bool flags_dead_at(const struct unit *u, uint64_t pc)
{
    for (int i = 0; i < u->n_tbs; i++)
        if (u->insn[u->first[i]].pc == pc)
            return block_kills_flags(u, i);
    const struct tb *tb = tb_lookup(pc);
    return tb && tb->flags_dead;
}

static bool is_inline(const struct unit *u, int i, uint64_t pc)
{
    return i + 1 < u->n_tbs && u->insn[u->first[i + 1]].pc == pc;
}

/* True if the flags are dead wherever block i leaves the superblock for a known target. */
static bool exits_kill_flags(const struct unit *u, int i)
{
    const struct insn *last = &u->insn[u->first[i + 1] - 1];
    uint64_t next = last->pc + last->len, target = u->target[i];
    switch (last->kind) {
    case INSN_JUMP:
    case INSN_JUMP_IND:
        return target && (is_inline(u, i, target) || flags_dead_at(u, target));
    case INSN_CALL:
    case INSN_CALL_IND:
        return target && flags_dead_at(u, target);
    case INSN_COND:
        return flags_dead_at(u, last->target) && (is_inline(u, i, next) || flags_dead_at(u, next));
    case INSN_NEXT:
        return is_inline(u, i, next) || flags_dead_at(u, next);
    default:
        return false;
    }
}

static void find_dead_exits(struct unit *u)
{
    u->exits_dead = 0;
    for (int i = 0; i < u->n_tbs; i++)
        u->exits_dead |= (uint32_t)exits_kill_flags(u, i) << i;
}

/* Flags live behind block i; after: those live at the start of the next block. */
static unsigned live_behind(const struct unit *u, int i, unsigned after)
{
    const struct insn *last = &u->insn[u->first[i + 1] - 1];
    unsigned live = u->exits_dead >> i & 1 ? 0 : ~0u;
    bool goes_on = last->kind == INSN_NEXT || last->kind == INSN_COND ||
                   (!is_call(last) && u->target[i] && is_inline(u, i, u->target[i]));
    return i + 1 < u->n_tbs && goes_on ? live | after : live;
}

/* One backward scan: which flags are read before they are written, from each instruction on. */
static void find_live_flags(struct unit *u)
{
    unsigned live = ~0u;
    for (int i = u->n_tbs - 1; i >= 0; i--) {
        live = live_behind(u, i, live);
        for (unsigned n = u->first[i + 1]; n-- > u->first[i];) {
            const struct insn *in = &u->insn[n];
            live = (live & ~(unsigned)in->flags_written) | in->flags_read | u->live[n];
            u->live[n] = (uint16_t)live;
        }
    }
}

/* Nothing is asked for, and nothing changes flags, whether they are live or not. */
static void leave_bare(struct unit *u)
{
    for (int i = 0; i < u->n_tbs; i++) {
        u->ops[i] = NULL;
        u->n_ops[i] = u->n_parts[i] = 0;
        u->live[u->first[i]] = UINT16_MAX;
    }
}

/* True if anything is to run between the guest's instructions that changes flags, or looks at
 * them, or is to run with their accesses. */
static bool needs_effects(const struct unit *u)
{
    for (int i = 0; i < u->n_tbs; i++)
        for (size_t k = 0; k < u->n_ops[i]; k++)
            if (u->ops[i][k].kind != OP_STORE || u->ops[i][k].place == PLACE_MEM)
                return true;
    return false;
}

static void merge_unit(struct unit *u)
{
    for (unsigned n = 0; n < u->first[u->n_tbs]; n++)
        decode_effects(&u->insn[n], u->code[n]);
    for (int i = 0; i < u->n_tbs; i++)
        mark_calls(u, i);
    find_dead_exits(u);
    find_live_flags(u);
    for (int i = 0; i < u->n_tbs; i++)
        plugin_ops_merge(u, i);
}

static void instrument_unit(struct cpu *cpu, struct unit *u)
{
    u->exits_dead = 0;
    leave_bare(u);
    if (!plugin_wants_tb_trans())
        return;
    jit_use_libc(cpu);
    plugin_gen_unit_start();
    for (int i = 0; i < u->n_tbs; i++)
        instrument_block(cpu, u, i);
    plugin_gen_unit_end();
    if (needs_effects(u))
        merge_unit(u);
    else
        for (int i = 0; i < u->n_tbs; i++)
            plugin_ops_keep(u, i);
}

/* Keeps the bytes that tb is made from. */
static bool copy_code(struct tb *tb, const uint8_t *code)
{
    uint8_t *copy = tb_alloc(tb->size);
    if (copy)
        memcpy(copy, code, tb->size);
    tb->code = copy;
    return copy;
}

static bool copy_constants(struct superblock *sb, const struct unit *u)
{
    size_t size = u->n_constants * sizeof(u->constant[0]);
    sb->n_constants = u->n_constants;
    sb->constants = tb_alloc(size);
    if (sb->constants)
        memcpy(sb->constants, u->constant, size);
    return sb->constants;
}

/* The superblock of the unit, its host addresses still open; NULL: no memory left. */
static struct superblock *make_superblock(const struct unit *u, const struct superblock *pages)
{
    size_t size = sizeof(struct superblock) + (size_t)u->n_tbs * sizeof(struct tb);
    struct superblock *sb = tb_alloc(size);
    if (!sb)
        return NULL;
    *sb = *pages;
    if (!copy_constants(sb, u))
        return NULL;
    sb->exits_dead = u->exits_dead;
    sb->checked = u->checked;
    sb->shared_call = u->shared_call;
    sb->n_tbs = (uint8_t)u->n_tbs;
    for (int i = 0; i < u->n_tbs; i++) {
        const struct insn *first = &u->insn[u->first[i]];
        const struct insn *last = &u->insn[u->first[i + 1] - 1];
        sb->tb[i] = (struct tb){
            .pc = first->pc,
            .sb = sb,
            .ops = u->ops[i],
            .n_ops = (uint32_t)u->n_ops[i],
            .n_parts = (uint32_t)u->n_parts[i],
            .n_insns = (uint16_t)(u->first[i + 1] - u->first[i]),
            .size = (uint16_t)(last->pc + last->len - first->pc),
            .flags_dead = !(u->live[u->first[i]] & FLAGS_ARITH),
        };
        if (u->checked)
            sb->tb[i].patience = smc_patience(first->pc);
        if (u->can_change && !copy_code(&sb->tb[i], u->code[u->first[i]]))
            return NULL;
    }
    return sb;
}

/* Of a text of disas(): with lock and rep, up to the blank before the operands. */
static size_t mnemonic_length(const char *text)
{
    static const char *const prefixes[] = {"lock ", "rep ", "repe ", "repne ", "bnd "};
    size_t len = 0;
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
        if (strncmp(text + len, prefixes[i], strlen(prefixes[i])) == 0)
            len += strlen(prefixes[i]);
    return len + strcspn(text + len, " ");
}

/* As QEMU does: eight bytes a line, mnemonic and operands in columns. */
static void log_insn(const struct insn *in)
{
    char text[128], bytes[3 * 15 + 1] = "";
    const uint8_t *code = (const uint8_t *)in->pc;
    for (int i = 0; i < in->len; i++)
        snprintf(bytes + 3 * i, 4, "%02x ", code[i]);
    disas(text, sizeof(text), in, code, DISAS_ATT);
    size_t name = mnemonic_length(text);
    log_printf("0x%08llx:  %-24.24s %-8.*s%s\n", (unsigned long long)in->pc, bytes, (int)name, text,
               text + name);
    if (in->len > 8)
        log_printf("0x%08llx:  %.*s\n", (unsigned long long)in->pc + 8, 3 * (in->len - 8) - 1,
                   bytes + 24);
}

static void log_block(struct unit *u, int i)
{
    uint64_t offset;
    const char *symbol = elf_symbol(u->insn[u->first[i]].pc, &offset);
    log_printf("----------------\nIN: %s\n", symbol ? symbol : "");
    for (unsigned n = u->first[i]; n < u->first[i + 1]; n++) {
        decode_effects(&u->insn[n], u->code[n]);
        log_insn(&u->insn[n]);
    }
    log_printf("\n");
}

/* The unit from pc, shown to the plugins, as host code; NULL: no room for it. */
static struct tb *translate_unit(struct cpu *cpu, struct superblock *pages, enum tb_entry entry)
{
    for (int i = 0; i < unit.n_tbs && opt.log & LOG_IN_ASM; i++)
        log_block(&unit, i);
    instrument_unit(cpu, &unit);
    struct superblock *sb = plugin_ops_must_flush() ? NULL : make_superblock(&unit, pages);
    if (sb && jit_lower(sb, &unit, entry))
        return &sb->tb[0];
    jit_use_libc(cpu);
    return NULL;
}

static struct tb *translate(struct cpu *cpu, uint64_t pc, enum tb_entry entry)
{
    unit.max_insns = opt.one_insn_per_tb ? 1 : TB_MAX_INSNS;
    for (;;) {
        struct superblock pages = {0};
        if (!build_unit(cpu, &unit, pc, &pages))
            return NULL;
        unsigned before = tb_generation();
        struct tb *tb = translate_unit(cpu, &pages, entry);
        if (tb)
            return tb;
        if (tb_is_empty() && unit.max_insns == 1)
            die("the code cache is too small for one instruction (-tb-size)");
        if (tb_is_empty()) /* not even that was enough: like QEMU, half the block */
            unit.max_insns /= 2;
        if (before == tb_generation())
            tb_flush();
    }
}

struct tb *translator_loop(struct cpu *cpu, uint64_t pc, enum tb_entry entry)
{
    if (!(opt.log & LOG_STATS))
        return translate(cpu, pc, entry);
    jit_use_libc(cpu);
    uint64_t start = stats_clock();
    struct tb *tb = translate(cpu, pc, entry);
    stats.translation_ns += stats_clock() - start;
    return tb;
}

void translate_again(const struct superblock *sb, struct unit *u)
{
    unsigned n = 0;
    for (u->n_tbs = 0; u->n_tbs < sb->n_tbs; u->n_tbs++) {
        const struct tb *tb = &sb->tb[u->n_tbs];
        uint64_t pc = tb->pc;
        u->first[u->n_tbs] = (uint16_t)n;
        u->ops[u->n_tbs] = tb->ops;
        u->n_ops[u->n_tbs] = tb->n_ops;
        u->n_parts[u->n_tbs] = tb->n_parts;
        const uint8_t *code = tb->code ? tb->code : (const uint8_t *)pc;
        for (unsigned end = n + tb->n_insns; n < end; n++) {
            decode(&u->insn[n], code, 15, pc);
            u->code[n] = code;
            code += u->insn[n].len;
            pc += u->insn[n].len;
        }
        u->target[u->n_tbs] = own_target(&u->insn[n - 1]);
    }
    for (int k = 0; k < sb->n_constants; k++)
        u->target[sb->constants[k].i] = sb->constants[k].value;
    u->first[u->n_tbs] = (uint16_t)n;
    u->exits_dead = sb->exits_dead;
    u->shared_call = sb->shared_call;
    for (int i = 0; i < u->n_tbs; i++)
        mark_calls(u, i);
    find_live_flags(u);
}
