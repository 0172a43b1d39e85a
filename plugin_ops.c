/* plugin_ops.c: makes what plugins asked for in a block cheaper, in a way that no plugin can tell.
 *
 * Calls whose effect is known (plugin_fold_x86_64.c) become inline operations. Additions to one
 * counter become one addition where the flags are dead, if nothing in between can look at the
 * counter. What is counted too early or too late when the guest leaves a block in the middle is
 * corrected then: the merged operations are kept behind those that are carried out.
 *
 * A counter that every block adds to is a chain: each addition waits for the one before it. So, as
 * long as plugins only count inline, a block counts its executions in a cell of its own, one
 * addition for all its counters, and the scoreboards are brought up to date when somebody looks.
 * A callback that stays a call, or a pointer into a scoreboard, may look at any time: from then on
 * there are no cells. A block that is a short loop is laid out several times, for cells in turn:
 * one alone would still be such a chain.
 *
 * A constant that is stored to a word to which nothing else is done is a mark, and makes no
 * difference the second time: while there is one thread, and no plugin may look unseen, code that
 * has made its mark has a nop in its place (jit_x86_64.c). With more threads, each of which has
 * marks of its own, they are made each time. A plugin need not mark again what has a mark, but only
 * it knows that. So, when the program has settled, its code is translated anew, and the plugin is
 * asked again.
 *
 * May know: decoded instructions and the list of operations. Must not know: any ISA, the API, or
 * how operations become code. Everything here runs under tb_lock. */
#include "emu.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MAX_GUARDS  8  /* in a block; with more, calls stay calls */
#define MAX_FOLDED  16 /* operations of one call */
#define MAX_LEADERS 16 /* counters of one segment */
#define MAX_SHARES  (2 * MAX_CELLS)
#define MAX_LOOKS   64 /* at counters in cells, before there are none */
#define LOOP_INSNS  24 /* a longer loop does not wait for its counter */

#define TICK_MS     10   /* of the thread's time in user mode */
#define SETTLED     32   /* blocks: a program that meets fewer new ones in a tick has settled */
#define TICK_BLOCKS 1000 /* are translated in a seventh of a tick */
#define PATIENCE    4 /* times as long until the next time: the plugin may want its marks again */

static unsigned rank_of(const struct plugin_op *op)
{
    return op->place == PLACE_TB ? 0 : 1 + 2u * op->insn + (op->place == PLACE_MEM);
}

static bool is_at_pointer(const struct plugin_op *op)
{
    return op->kind >= OP_ADD_PTR;
}

static void add_to_word(struct cpu *cpu, const struct plugin_op *op, uint64_t by);

/* ---- cells ---------------------------------------------------------------------------- */

/* What a counter gets each time that a cell counts one. Shares of one cell lie together. */
struct share {
    int64_t counter; /* offset from the cpu */
    uint64_t by;
    uint32_t cell;
};

/* Cells and shares are added under tb_lock; they are read under the lock here, the innermost. */
static struct {
    struct lock lock;
    bool exposed; /* there may be no more cells */
    unsigned looks;
    uint32_t n, n_shares;
    struct share share[MAX_SHARES]; /* not mapped: a large mapping would crowd the guest's */
} cells;

/* Calls that can be proven to be harmless are there only once nothing is hidden. */
void plugin_ops_init(void)
{
    void (*const whole[])(void) = {plugin_ops_observe, plugin_ops_expose};
    void (*const word[])(int64_t) = {plugin_ops_read, plugin_ops_write};
    for (int i = 0; i < 2; i++) {
        callee_set_idle(*(void *const *)&whole[i]);
        callee_set_idle(*(void *const *)&word[i]);
    }
}

bool plugin_ops_hides(void)
{
    return !cells.exposed && !plugin_is_exiting();
}

void plugin_ops_lock(void)
{
    lock_take(&cells.lock);
}

void plugin_ops_unlock(void)
{
    lock_release(&cells.lock);
}

static int64_t cell_offset(uint32_t cell)
{
    return CELLS_OFFSET + (int64_t)(cell * sizeof(uint64_t));
}

/* Adds a cell, whose number goes to *cell; false: there is to be none. */
static bool take_cell(uint32_t *cell)
{
    if (cells.exposed || cells.n == MAX_CELLS || cells.n_shares > MAX_SHARES - MAX_LEADERS)
        return false;
    *cell = cells.n;
    __atomic_store_n(&cells.n, cells.n + 1, __ATOMIC_RELAXED);
    return true;
}

static void add_share(uint32_t cell, int64_t counter, uint64_t by)
{
    cells.share[cells.n_shares] = (struct share){counter, by, cell};
    __atomic_store_n(&cells.n_shares, cells.n_shares + 1, __ATOMIC_RELEASE);
}

/* Adds a cell that counts what the latest one does. */
static bool repeat_cell(void)
{
    uint32_t end = cells.n_shares, i = end, latest = cells.n - 1, cell;
    if (!take_cell(&cell))
        return false;
    while (i > 0 && cells.share[i - 1].cell == latest)
        i--;
    for (; i < end; i++)
        add_share(cell, cells.share[i].counter, cells.share[i].by);
    return true;
}

/* Adds what cells have counted since the last time to the vCPU's scoreboards. Its thread may go on
 * counting: what a cell holds stays, and what of it is in the scoreboards is kept beside it. */
static void settle_cells(struct cpu *cpu)
{
    uint32_t n = __atomic_load_n(&cells.n_shares, __ATOMIC_ACQUIRE);
    for (uint32_t i = 0; i < n;) {
        uint32_t cell = cells.share[i].cell;
        volatile uint64_t *count = (uint64_t *)((uint8_t *)cpu + cell_offset(cell));
        uint64_t now = *count, more = now - count[MAX_CELLS];
        for (; i < n && cells.share[i].cell == cell; i++) {
            const struct plugin_op word = {.kind = OP_ADD, .offset = cells.share[i].counter};
            if (more)
                add_to_word(cpu, &word, more * cells.share[i].by);
        }
        if (more)
            count[MAX_CELLS] = now;
    }
}

static void settle_all_cells(void)
{
    for (int i = 0; i < cpu_count() && cells.n; i++)
        if (cpu_by_index((unsigned)i))
            settle_cells(cpu_by_index((unsigned)i));
}

void plugin_ops_observe(void)
{
    plugin_ops_lock();
    settle_all_cells();
    cells.exposed |= cells.n && ++cells.looks > MAX_LOOKS;
    plugin_ops_unlock();
}

void plugin_ops_expose(void)
{
    plugin_ops_observe();
    cells.exposed = true;
}

/* ---- words of the scoreboards -------------------------------------------------------- */

/* What happens to a word: code adds to it, the interface sets it or adds to it, or more than that;
 * 1 to MAX_MARK: code stores that constant, and nothing else does anything. */
enum use { USE_NONE, MAX_MARK = 252, USE_COUNT, USE_SET, USE_MIXED };

static uint8_t uses[SCOREBOARD_MAX / sizeof(uint64_t) + 1]; /* under cells.lock */

/* Cells know nothing of what is stored, and what is stored once nothing of what comes after. */
static void use_word(uint8_t *word, unsigned use)
{
    bool counts = *word == USE_COUNT || use == USE_COUNT;
    if (*word == USE_NONE || *word == use) {
        *word = (uint8_t)use;
    } else if (counts && (*word == USE_SET || use == USE_SET)) {
        *word = USE_COUNT;
    } else {
        cells.exposed |= counts || *word <= MAX_MARK;
        *word = USE_MIXED;
    }
}

static uint8_t *find_use(int64_t offset)
{
    return &uses[(uint64_t)(offset - SCOREBOARD_OFFSET) / sizeof(uint64_t)];
}

static void use_words(int64_t offset, unsigned use)
{
    use_word(find_use(offset), use);
    if (find_use(offset + 7) != find_use(offset))
        use_word(find_use(offset + 7), use);
}

void plugin_ops_read(int64_t offset)
{
    const uint8_t *word = find_use(offset), *last = find_use(offset + 7);
    if (__atomic_load_n(word, __ATOMIC_RELAXED) == USE_COUNT ||
        __atomic_load_n(last, __ATOMIC_RELAXED) == USE_COUNT)
        plugin_ops_observe();
}

void plugin_ops_write(int64_t offset)
{
    plugin_ops_lock();
    use_words(offset, USE_SET);
    plugin_ops_unlock();
}

static void note_uses(const struct plugin_op *ops, size_t n)
{
    plugin_ops_lock();
    for (size_t i = 0; i < n; i++) {
        bool can_mark = ops[i].imm - 1 < MAX_MARK && ops[i].offset % (int64_t)sizeof(uint64_t) == 0;
        if (ops[i].kind == OP_ADD)
            use_words(ops[i].offset, USE_COUNT);
        else if (ops[i].kind == OP_STORE)
            use_words(ops[i].offset, can_mark ? (unsigned)ops[i].imm : USE_MIXED);
        else /* calls may look */
            cells.exposed |= ops[i].kind == OP_CALL || ops[i].kind == OP_CALL_COND;
    }
    plugin_ops_unlock();
}

/* ---- marks ---------------------------------------------------------------------------- */

/* Since the last flush. Written under tb_lock but by ticks; each field is read as it is. */
static struct {
    bool ticking, due;
    bool shared;       /* there is, or has been, another thread */
    uint32_t n_once;   /* marks that are made once */
    uint32_t n, ticks; /* blocks with marks in their code */
    uint32_t rate;     /* blocks that a tick pays for */
    uint64_t before;   /* stats.blocks then */
    uint64_t latest;   /* blocks at the latest tick */
} marks = {.rate = TICK_BLOCKS};

static bool is_mark(const struct plugin_op *op)
{
    return op->kind == OP_STORE && op->place != PLACE_MEM && *find_use(op->offset) <= MAX_MARK;
}

/* A mark that has to be made once. For the block that runs as soon as it is translated that is
 * done here: false, it need not stay. */
static bool keep_once(struct plugin_op *op, bool runs_now)
{
    bool done = runs_now && op->place == PLACE_TB;
    if (done)
        plugin_ops_run(this_cpu, op);
    op->once = true;
    marks.n_once++;
    return !done;
}

static void start_ticks(void)
{
    if (!marks.ticking)
        signal_start_ticks(TICK_MS);
    marks.ticking = true;
}

/* Takes out of a block's n operations what need not stay; returns how many do. */
static size_t settle_marks(struct plugin_op *ops, size_t n, bool runs_now)
{
    bool once = !cells.exposed && !marks.shared, stays = false;
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        bool mark = is_mark(&ops[i]);
        if (mark && once && !keep_once(&ops[i], runs_now))
            continue;
        stays |= mark;
        if (kept != i)
            ops[kept] = ops[i];
        kept++;
    }
    marks.n += stays;
    if (stays)
        start_ticks();
    return kept;
}

void plugin_ops_share(void)
{
    marks.shared = true;
}

/* To translate anew what the program runs now has to be cheap beside what has run, and of use. */
bool plugin_ops_tick(void)
{
    uint64_t blocks = __atomic_load_n(&stats.blocks, __ATOMIC_RELAXED) - marks.before;
    bool settled = blocks - marks.latest < SETTLED;
    marks.latest = blocks;
    if (blocks < (uint64_t)++marks.ticks * marks.rate && settled && 2 * marks.n > blocks)
        __atomic_store_n(&marks.due, true, __ATOMIC_RELAXED);
    return marks.due;
}

static void forget_marks(void)
{
    if (marks.due)
        marks.rate /= PATIENCE;
    marks.n = marks.n_once = marks.ticks = 0;
    marks.before = stats.blocks;
    marks.latest = 0;
    __atomic_store_n(&marks.due, false, __ATOMIC_RELAXED);
}

void plugin_ops_fork_child(void)
{
    marks.ticking = false;           /* the timer is the parent's */
    marks.before = marks.latest = 0; /* as stats are the child's own */
}

/* ---- memory for lists ---------------------------------------------------------------- */

#define FIRST_CHUNK (256ull << 10) /* is enough for a short program */
#define CHUNK       (2ull << 20)   /* a huge page */

/* What an operation, its leader, does at once for another one that has gone. */
struct part {
    union { /* as of the other */
        int64_t offset;
        void *ptr;
    };
    uint64_t imm;
    uint32_t leader; /* index in the block's list */
    uint16_t rank;   /* of the other */
    uint8_t kind, size;
};

static struct lists {
    struct chunk {
        struct chunk *next;
        size_t size;
        char bytes[];
    } * first, *latest;
    size_t used; /* of the latest; those behind it are free */
} lists;

static struct chunk *map_chunk(size_t room)
{
    size_t size = sizeof(struct chunk) + room;
    size = lists.first || size > FIRST_CHUNK ? (size + CHUNK - 1) & ~(CHUNK - 1) : FIRST_CHUNK;
    struct chunk *chunk = aligned_alloc(CHUNK, size);
    if (!chunk)
        die("out of memory");
    madvise(chunk, size & ~(CHUNK - 1), MADV_HUGEPAGE);
    chunk->size = size - sizeof *chunk;
    return chunk;
}

static void *take_room(size_t room)
{
    if (!lists.latest || lists.latest->size - lists.used < room) {
        struct chunk **next = lists.latest ? &lists.latest->next : &lists.first;
        if (!*next || (*next)->size < room) {
            struct chunk *chunk = map_chunk(room);
            chunk->next = *next;
            *next = chunk;
        }
        lists.latest = *next;
        lists.used = 0;
    }
    lists.used += room;
    return lists.latest->bytes + lists.used - room;
}

static void keep_list(struct unit *u, int block, const struct plugin_op *ops, size_t n,
                      const struct part *parts, size_t n_parts)
{
    u->n_ops[block] = n;
    u->n_parts[block] = n_parts;
    u->ops[block] = NULL;
    if (!n)
        return;
    u->ops[block] = take_room(n * sizeof *ops + n_parts * sizeof *parts);
    memcpy(u->ops[block], ops, n * sizeof *ops);
    if (n_parts)
        memcpy(u->ops[block] + n, parts, n_parts * sizeof *parts);
}

void plugin_ops_keep(struct unit *u, int block)
{
    keep_list(u, block, u->ops[block], u->n_ops[block], NULL, 0);
}

/* ---- all code anew ------------------------------------------------------------------- */

bool plugin_ops_must_flush(void)
{
    return (cells.exposed && __atomic_load_n(&cells.n, __ATOMIC_RELAXED)) ||
           ((cells.exposed || marks.shared) && __atomic_load_n(&marks.n_once, __ATOMIC_RELAXED)) ||
           __atomic_load_n(&marks.due, __ATOMIC_RELAXED);
}

void plugin_ops_flush(void)
{
    plugin_ops_lock();
    settle_all_cells();
    for (int i = 0; i < cpu_count() && cells.n; i++) {
        uint8_t *cpu = (uint8_t *)cpu_by_index((unsigned)i);
        if (!cpu)
            continue;
        memset(cpu + cell_offset(0), 0, cells.n * sizeof(uint64_t));
        memset(cpu + cell_offset(MAX_CELLS), 0, cells.n * sizeof(uint64_t));
    }
    cells.n = cells.n_shares = 0;
    plugin_ops_unlock();
    lists.latest = NULL;
    forget_marks();
}

/* ---- calls that become operations ---------------------------------------------------- */

/* The lists of the blocks of a unit, being made from what was asked for. */
struct folding {
    struct plugin_op *all; /* one list after the other */
    size_t n_all, room;
    struct plugin_op *out; /* the latest list, and what is in it */
    size_t n;
    struct plugin_op guard[MAX_GUARDS];
    int n_guards;
    bool may_guard; /* nothing in the block can change what a guard has found */
    /* The latest call and what became of it: many blocks have only one, again and again. */
    struct plugin_op call, folded[MAX_FOLDED];
    int n_folded;
};

static void append_op(struct folding *f, const struct plugin_op *op)
{
    if (f->n_all + f->n == f->room) {
        f->room = 2 * f->room + 64;
        f->all = realloc(f->all, f->room * sizeof *f->all);
        if (!f->all)
            die("out of memory");
        f->out = f->all + f->n_all;
    }
    f->out[f->n++] = *op;
}

static void fold_again(struct folding *f, const struct plugin_op *op)
{
    if (f->n_folded && f->call.func == op->func && f->call.udata == op->udata &&
        f->call.place == op->place)
        return;
    f->call = *op;
    f->n_folded = plugin_fold(op, f->folded, MAX_FOLDED);
}

static bool add_guard(struct folding *f, const struct plugin_op *guard)
{
    for (int i = 0; i < f->n_guards; i++)
        if (f->guard[i].ptr == guard->ptr && f->guard[i].size == guard->size)
            return f->guard[i].imm == guard->imm;
    if (!f->may_guard || f->n_guards == MAX_GUARDS)
        return false;
    f->guard[f->n_guards] = *guard;
    f->guard[f->n_guards].place = PLACE_TB;
    f->guard[f->n_guards++].insn = 0;
    return true;
}

/* Appends what the call op does; false: it stays a call. */
static bool fold_call(struct folding *f, const struct plugin_op *op)
{
    int i = 0;
    fold_again(f, op);
    if (f->n_folded < 0)
        return false;
    for (; i < f->n_folded && f->folded[i].kind == OP_GUARD; i++)
        if (!add_guard(f, &f->folded[i]))
            return false;
    for (; i < f->n_folded; i++) {
        struct plugin_op part = f->folded[i];
        part.insn = op->insn;
        part.pc = op->pc;
        part.rw = op->rw;
        append_op(f, &part);
    }
    return true;
}

static bool overlap(const struct plugin_op *a, const struct plugin_op *b)
{
    uintptr_t x = (uintptr_t)a->ptr, y = (uintptr_t)b->ptr;
    return x < y + b->size && y < x + a->size;
}

/* True if nothing that the block does changes a word that a guard has looked at. */
static bool guards_hold(const struct folding *f)
{
    for (size_t i = 0; i < f->n; i++)
        for (int g = 0; is_at_pointer(&f->out[i]) && g < f->n_guards; g++)
            if (overlap(&f->out[i], &f->guard[g]))
                return false;
    return true;
}

/* False: there are guards, and a call that stays may change what they look at. */
static bool fold_list(struct folding *f, const struct plugin_op *ops, size_t n)
{
    f->n = 0;
    f->n_guards = f->n_folded = 0;
    for (size_t i = 0; i < n; i++) {
        if (ops[i].kind == OP_CALL && fold_call(f, &ops[i]))
            continue;
        if (f->may_guard && (ops[i].kind == OP_CALL || ops[i].kind == OP_CALL_COND))
            return false;
        append_op(f, &ops[i]);
    }
    return guards_hold(f);
}

static void insert_guards(struct folding *f)
{
    size_t n = f->n, n_guards = (size_t)f->n_guards;
    for (size_t i = 0; i < n_guards; i++)
        append_op(f, &f->guard[i]);
    if (n && n_guards)
        memmove(f->out + n_guards, f->out, n * sizeof *f->out);
    if (n_guards)
        memcpy(f->out, f->guard, n_guards * sizeof *f->out);
}

void plugin_ops_fold(struct unit *u, int block, const struct plugin_op *asked, size_t n)
{
    static struct folding f;
    f.n_all = block ? f.n_all : 0;
    f.out = f.all + f.n_all;
    f.may_guard = true;
    if (!fold_list(&f, asked, n)) {
        f.may_guard = false;
        fold_list(&f, asked, n);
    }
    note_uses(f.out, f.n);
    f.n = settle_marks(f.out, f.n, block == 0);
    insert_guards(&f);
    u->n_ops[block] = f.n;
    f.n_all += f.n;
    for (size_t i = 0, at = 0; i <= (size_t)block; at += u->n_ops[i++]) /* they may have moved */
        u->ops[i] = f.all + at;
}

/* ---- additions that become one ------------------------------------------------------- */

/* Operations [start, end) of a block, in which nothing looks at counters, and the instructions
 * before which an operation may run with them. */
struct segment {
    size_t start, end;
    unsigned first, last;
    unsigned limit;    /* highest rank that belongs to it */
    bool before_block; /* an operation of the block's own follows: stay before that */
};

/* The merged list of one block, which is no longer than what was asked for and its leaders. */
struct merging {
    const struct unit *u;
    int block;
    struct plugin_op *out;
    struct part *parts;
    size_t n, n_parts, room;
};

/* One counter of a segment. */
struct leader {
    struct plugin_op op;
    unsigned parts;
    bool in_place; /* the flags are dead where its latest part is */
    bool worth;    /* it is cheaper than its parts */
    bool in_cell;
    size_t index; /* in the merged list */
};
static struct leader never; /* of operations that never run */

static const struct insn *block_insn(const struct merging *m, unsigned index)
{
    return &m->u->insn[m->u->first[m->block] + index];
}

static bool flags_dead(const struct merging *m, unsigned index)
{
    return !(m->u->live[m->u->first[m->block] + index] & FLAGS_ARITH);
}

static bool is_addition(const struct plugin_op *op)
{
    return op->kind == OP_ADD || (op->kind == OP_ADD_PTR && !op->locked);
}

/* True if something that looks runs between the accesses that operation k counts. */
static bool is_watched(const struct merging *m, size_t k)
{
    const struct plugin_op *ops = m->u->ops[m->block];
    unsigned rank = rank_of(&ops[k]);
    while (k > 0 && rank_of(&ops[k - 1]) == rank)
        k--;
    for (; k < m->u->n_ops[m->block] && rank_of(&ops[k]) == rank; k++)
        if (!is_addition(&ops[k]))
            return true;
    return false;
}

/* How often operation k runs each time the block does; -1: it is better not asked. */
static int count_runs(const struct merging *m, size_t k)
{
    const struct plugin_op *op = &m->u->ops[m->block][k];
    if (op->place != PLACE_MEM)
        return 1;
    return is_watched(m, k) ? -1 : guest_count_accesses(block_insn(m, op->insn), op->rw);
}

static bool same_counter(const struct plugin_op *a, const struct plugin_op *b)
{
    return a->kind == b->kind &&
           (a->kind == OP_ADD ? a->offset == b->offset : a->ptr == b->ptr && a->size == b->size);
}

/* Two counters that share bytes: their order matters. */
static bool entangled(const struct plugin_op *a, const struct plugin_op *b)
{
    if (a->kind != b->kind)
        return false;
    return a->kind == OP_ADD ? a->offset < b->offset + 8 && b->offset < a->offset + 8
                             : overlap(a, b);
}

/* The segment of the block's list that begins at operation start; nothing of it may run before
 * instruction first. */
static struct segment find_segment(const struct merging *m, size_t start, unsigned first)
{
    const struct plugin_op *ops = m->u->ops[m->block];
    size_t n = m->u->n_ops[m->block];
    unsigned last = m->u->first[m->block + 1] - m->u->first[m->block] - 1u;
    struct segment s = {start, start, first, last, 2 + 2 * last, false};
    for (unsigned i = first; i < s.last; i++)
        if (jit_may_leave(block_insn(m, i))) {
            s.last = i;
            s.limit = 1 + 2 * i;
        }
    while (s.end < n && is_addition(&ops[s.end]) && rank_of(&ops[s.end]) <= s.limit)
        s.end++;
    if (s.end < n && rank_of(&ops[s.end]) <= s.limit) {
        s.before_block = ops[s.end].place == PLACE_TB;
        s.last = s.before_block ? 0 : ops[s.end].insn;
    }
    return s;
}

/* The counter of op among the leaders, added if need be; NULL: it is not to be merged. */
static struct leader *find_leader(struct leader *leaders, unsigned *n, const struct plugin_op *op)
{
    for (unsigned i = 0; i < *n; i++)
        if (same_counter(&leaders[i].op, op))
            return &leaders[i];
    for (unsigned i = 0; i < *n; i++)
        if (entangled(&leaders[i].op, op))
            return NULL;
    if (*n == MAX_LEADERS)
        return NULL;
    leaders[*n] = (struct leader){.op = *op};
    leaders[*n].op.imm = 0;
    return &leaders[(*n)++];
}

/* Where the segment's additions are made: before the first instruction with dead flags. */
static unsigned choose_place(const struct merging *m, const struct segment *s)
{
    for (unsigned i = s->first; i <= s->last; i++)
        if (flags_dead(m, i))
            return i;
    return s->first;
}

/* Finds the segment's counters; returns their number. leader_of[k]: that of operation start + k,
 * or NULL. */
static unsigned find_leaders(const struct merging *m, const struct segment *s,
                             struct leader *leaders, struct leader **leader_of)
{
    unsigned n = 0;
    for (size_t k = s->start; k < s->end; k++) {
        const struct plugin_op *op = &m->u->ops[m->block][k];
        int runs = count_runs(m, k);
        struct leader *leader = runs < 0 ? NULL : runs ? find_leader(leaders, &n, op) : &never;
        leader_of[k - s->start] = leader;
        if (!leader || leader == &never)
            continue;
        leader->op.imm += op->imm * (unsigned)runs;
        leader->in_place = flags_dead(m, op->insn);
        leader->worth |= op->place == PLACE_MEM || leader->parts++;
    }
    return n;
}

/* Takes the leaders that are no cheaper at instruction place back. */
static void drop_leaders(const struct merging *m, struct leader *leaders, unsigned n,
                         struct leader **leader_of, size_t parts, unsigned place)
{
    for (unsigned i = 0; i < n; i++)
        leaders[i].worth |= (!leaders[i].in_place && flags_dead(m, place)) ||
                            (leaders[i].op.kind == OP_ADD && !cells.exposed);
    for (size_t k = 0; k < parts; k++)
        if (leader_of[k] && leader_of[k] != &never && !leader_of[k]->worth)
            leader_of[k] = NULL;
}

/* Lets one addition to a cell do what leaders of scoreboards do. */
static void append_cell(struct merging *m, struct leader *leaders, unsigned n)
{
    uint32_t cell;
    const struct leader *first = NULL;
    for (unsigned i = 0; i < n; i++) {
        struct leader *leader = &leaders[i];
        if (!leader->worth || leader->op.kind != OP_ADD || (!first && !take_cell(&cell)))
            continue;
        first = first ? first : leader;
        add_share(cell, leader->op.offset, leader->op.imm);
        leader->index = m->n;
        leader->in_cell = true;
    }
    if (!first)
        return;
    m->out[m->n] = first->op;
    m->out[m->n].offset = cell_offset(cell);
    m->out[m->n++].imm = 1;
}

static void append_leaders(struct merging *m, const struct segment *s, struct leader *leaders,
                           unsigned n, unsigned place)
{
    for (unsigned i = 0; i < n; i++) {
        struct plugin_op *op = &leaders[i].op;
        op->place = s->before_block ? PLACE_TB : PLACE_INSN;
        op->insn = (uint16_t)place;
        op->pc = block_insn(m, place)->pc;
    }
    append_cell(m, leaders, n);
    for (unsigned i = 0; i < n; i++)
        if (leaders[i].worth && !leaders[i].in_cell) {
            leaders[i].index = m->n;
            m->out[m->n++] = leaders[i].op;
        }
}

/* The guest leaves no block between its start and what runs with its first instruction. */
static unsigned settled_rank(const struct plugin_op *op)
{
    unsigned rank = rank_of(op);
    return rank ? rank : 1;
}

/* Keeps what leaders do now, for plugin_ops_settle, unless they do it at the same time. */
static void keep_parts(struct merging *m, const struct segment *s, struct leader **leader_of)
{
    for (size_t k = s->start; k < s->end; k++) {
        const struct leader *leader = leader_of[k - s->start];
        const struct plugin_op *op = &m->u->ops[m->block][k];
        if (!leader || leader == &never || settled_rank(op) == settled_rank(&m->out[leader->index]))
            continue;
        m->parts[m->n_parts++] = (struct part){.offset = op->offset,
                                               .imm = op->imm * (unsigned)count_runs(m, k),
                                               .leader = (uint32_t)leader->index,
                                               .rank = (uint16_t)rank_of(op),
                                               .kind = op->kind,
                                               .size = op->size};
    }
}

static void merge_segment(struct merging *m, const struct segment *s)
{
    struct leader leaders[MAX_LEADERS], *leader_of[s->end - s->start];
    const struct plugin_op *ops = m->u->ops[m->block];
    unsigned n = find_leaders(m, s, leaders, leader_of), place = choose_place(m, s);
    size_t k = s->start;
    drop_leaders(m, leaders, n, leader_of, s->end - s->start, place);
    for (; k < s->end && rank_of(&ops[k]) < 1 + 2 * place; k++)
        if (!leader_of[k - s->start])
            m->out[m->n++] = ops[k];
    append_leaders(m, s, leaders, n, place);
    for (; k < s->end; k++)
        if (!leader_of[k - s->start])
            m->out[m->n++] = ops[k];
    keep_parts(m, s, leader_of);
}

static void copy_segment(struct merging *m, const struct segment *s)
{
    for (size_t k = s->start; k < s->end; k++)
        m->out[m->n++] = m->u->ops[m->block][k];
}

/* Additions that stay where they are, in cells: only plugin_ops_observe writes to scoreboards. */
static void move_to_cells(struct plugin_op *ops, size_t n)
{
    uint32_t cell;
    for (size_t i = 0; i < n; i++)
        if (ops[i].kind == OP_ADD && ops[i].offset < CELLS_OFFSET && take_cell(&cell)) {
            add_share(cell, ops[i].offset, 1);
            ops[i].offset = cell_offset(cell);
        }
}

/* True if the block is a short loop, of code that cannot change while it runs. */
static bool is_short_loop(const struct unit *u, int block)
{
    const struct insn *first = &u->insn[u->first[block]];
    const struct insn *last = &u->insn[u->first[block + 1] - 1];
    return last->kind == INSN_COND && last->target == first->pc && last - first < LOOP_INSNS &&
           !u->can_change && !(opt.log & LOG_NOCHAIN);
}

/* Each copy of a loop gets a cell of its own. */
static void copy_loop(const struct unit *u, int block, struct plugin_op *ops, size_t n)
{
    if (n != 1 || ops[0].kind != OP_ADD || ops[0].place == PLACE_MEM ||
        ops[0].offset < CELLS_OFFSET || !is_short_loop(u, block))
        return;
    ops[0].copies = 1;
    while (ops[0].copies < LOOP_COPIES && repeat_cell())
        ops[0].copies++;
}

/* Merges the block's list into m->out. */
static void merge_list(struct merging *m)
{
    const struct plugin_op *ops = m->u->ops[m->block];
    size_t n = m->u->n_ops[m->block], k = 0;
    unsigned first = 0, count = m->u->first[m->block + 1] - m->u->first[m->block];
    while (k < n) {
        struct segment s = find_segment(m, k, first);
        if (s.end > s.start && first < count)
            merge_segment(m, &s);
        else
            copy_segment(m, &s);
        k = s.end;
        first = s.last + 1;
        if (k < n && rank_of(&ops[k]) <= s.limit) {
            first = s.last + (ops[k].place == PLACE_MEM);
            m->out[m->n++] = ops[k++];
        }
    }
}

static void make_room(struct merging *m, size_t n)
{
    if (m->room >= n)
        return;
    m->room = 2 * n;
    m->out = realloc(m->out, 2 * m->room * sizeof *m->out);
    m->parts = realloc(m->parts, m->room * sizeof *m->parts);
    if (!m->out || !m->parts)
        die("out of memory");
}

void plugin_ops_merge(struct unit *u, int block)
{
    static struct merging m;
    make_room(&m, u->n_ops[block]);
    m.u = u;
    m.block = block;
    m.n = m.n_parts = 0;
    merge_list(&m);
    move_to_cells(m.out, m.n);
    copy_loop(u, block, m.out, m.n);
    keep_list(u, block, m.out, m.n, m.parts, m.n_parts);
}

/* ---- in C ---------------------------------------------------------------------------- */

static void *word_of(struct cpu *cpu, const struct plugin_op *op)
{
    return is_at_pointer(op) ? op->ptr : (uint8_t *)cpu + op->offset;
}

static void add_to_word(struct cpu *cpu, const struct plugin_op *op, uint64_t by)
{
    void *word = word_of(cpu, op);
    switch (is_at_pointer(op) ? op->size : 8) {
    case 1:
        __atomic_fetch_add((uint8_t *)word, (uint8_t)by, __ATOMIC_RELAXED);
        break;
    case 2:
        __atomic_fetch_add((uint16_t *)word, (uint16_t)by, __ATOMIC_RELAXED);
        break;
    case 4:
        __atomic_fetch_add((uint32_t *)word, (uint32_t)by, __ATOMIC_RELAXED);
        break;
    default:
        __atomic_fetch_add((uint64_t *)word, by, __ATOMIC_RELAXED);
    }
}

void plugin_ops_run(struct cpu *cpu, const struct plugin_op *op)
{
    if (op->kind == OP_ADD || op->kind == OP_ADD_PTR)
        add_to_word(cpu, op, op->imm);
    else
        memcpy(word_of(cpu, op), &op->imm, op->kind == OP_STORE ? 8 : op->size);
}

void plugin_ops_settle(struct cpu *cpu, const struct tb *tb, unsigned done)
{
    const struct part *part = (const void *)(tb->ops + tb->n_ops);
    for (const struct part *end = part + tb->n_parts; part < end; part++) {
        const struct plugin_op word = {.kind = part->kind, .size = part->size, .ptr = part->ptr};
        bool counts = part->rank < done;
        bool counted = rank_of(&tb->ops[part->leader]) < done;
        if (counts != counted)
            add_to_word(cpu, &word, counts ? part->imm : -part->imm);
    }
}

void plugin_ops_count(struct cpu *cpu, const struct tb *tb, unsigned insn, const struct insn *in,
                      uint64_t n)
{
    for (uint32_t i = 0; i < tb->n_ops; i++) {
        const struct plugin_op *op = &tb->ops[i];
        if (op->place == PLACE_MEM && op->insn == insn)
            add_to_word(cpu, op, op->imm * n * guest_count_each(in, op->rw));
    }
}

void plugin_ops_stale(const struct tb *tb)
{
    for (uint32_t i = 0; i < tb->n_ops && tb->ops[i].kind == OP_GUARD; i++) {
        const struct plugin_op *guard = &tb->ops[i];
        uint64_t word = 0;
        memcpy(&word, guard->ptr, guard->size);
        if (word != guard->imm && guard->func)
            plugin_fold_failed(guard->func);
    }
}
