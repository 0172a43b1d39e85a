/* tb.c: the block cache: which blocks exist, where they are, who jumps to whom.
 *
 * Neutral: knows no ISA. Code bytes are jit_x86_64.c's business; a block is dropped by unbinding
 * the exits that lead to it, and its memory is used again only after a flush. */

#include "emu.h"

#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define BUCKET_BITS 16
#define BUCKETS     (1 << BUCKET_BITS)
#define PAGES       (1 << 14)
#define FILTER_BITS 21
#define WAIT_BITS   16
#define META_MIN    (64ull << 20)
#define META_ALIGN  (2ull << 20) /* of huge pages */
#define PAGE        4096ull
#define MANY        10000 /* superblocks: more entries for returns pay */

static struct {
    struct tables {
        struct tb *bucket[BUCKETS];
        uint64_t filter[(1 << FILTER_BITS) / 64]; /* by hash: a block may begin there */
        struct link *waiting[1 << WAIT_BITS];     /* by hash: exits whose target has no block yet */
        struct superblock *page[PAGES];           /* superblocks with code in pages of this hash */
    } * tables;
    struct superblock **by_host; /* sorted: blocks are laid out upwards; room for all */
    size_t n;
    uint8_t *meta, *meta_end;
    unsigned generation;
} cache;

/* See emu.h for the order. Recursive: the owner is the thread's cpu, which fork() does not change,
 * or the address of something else of the thread. */
static struct lock lock;
static const void *owner;
static int depth;
static int stopped; /* a thread keeps the others out of the cache, also without the lock */
static const void *stopper;

/* A thread that is in the cache (in a callback or signal handler) or in a callback elsewhere may go
 * on while others are stopped: it is what the stopping thread waits for. */
static void lock_as(const void *me, bool is_busy)
{
    if (__atomic_load_n(&owner, __ATOMIC_RELAXED) == me) {
        depth++;
        return;
    }
    lock_take(&lock);
    while (stopped && stopper != me && !is_busy) {
        lock_release(&lock);
        lock_wait(&stopped, true);
        lock_take(&lock);
    }
    __atomic_store_n(&owner, me, __ATOMIC_RELAXED);
    depth = 1;
}

void tb_lock_bare(struct cpu *cpu)
{
    lock_as(cpu, cpu->in_cache || cpu->in_plugin);
}

void tb_lock(void)
{
    static __thread char no_cpu;
    if (this_cpu)
        tb_lock_bare(this_cpu);
    else
        lock_as(&no_cpu, false);
}

void tb_unlock(void)
{
    if (--depth > 0)
        return;
    __atomic_store_n(&owner, NULL, __ATOMIC_RELAXED);
    lock_release(&lock);
}

void tb_share(void)
{
    jit_route_to_c();
    plugin_ops_share();
    if (plugin_ops_must_flush())
        tb_flush();
}

/* All that the code cache leaves of its place: blocks of few instructions need more for what is
 * known of them than for their code. It must be low, as generated code names links by imm32. */
static void map_meta(void)
{
    uint64_t start = (LOW_CACHE + opt.tb_size + META_ALIGN - 1) & ~(META_ALIGN - 1);
    size_t size = LOW_CACHE_END - start;
    void *p = mmap((void *)start, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (p != (void *)start)
        die("cannot map %zu bytes at 0x%llx for the block table", size, (unsigned long long)start);
    madvise(p, size, MADV_HUGEPAGE);
    cache.tables = p;
    cache.meta = (uint8_t *)(cache.tables + 1);
    cache.meta_end = (uint8_t *)p + size;
}

void tb_init(void)
{
    if (opt.tb_size > LOW_CACHE_END - META_MIN - LOW_CACHE)
        opt.tb_size = LOW_CACHE_END - META_MIN - LOW_CACHE;
    map_meta();
    size_t room =
        (size_t)(cache.meta_end - cache.meta) / sizeof(struct superblock) * sizeof(*cache.by_host);
    cache.by_host = mmap(NULL, room, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (cache.by_host == MAP_FAILED)
        die("out of memory for the block table");
    jit_init();
}

void *tb_alloc(size_t size)
{
    size = (size + 7) & ~(size_t)7;
    if ((size_t)(cache.meta_end - cache.meta) < size)
        return NULL;
    cache.meta += size;
    return cache.meta - size;
}

/* ---- lookup -------------------------------------------------------------------------------------
 */

/* Code that lies together uses entries that lie together: a child of fork() that translates a
 * little code copies few pages of the tables. */
static uint64_t hash(uint64_t pc, unsigned shift, unsigned bits)
{
    return ((pc >> shift) ^ (pc >> (shift + bits)) * 0x9e5) & ((1ull << bits) - 1);
}

static struct tb **bucket_of(uint64_t pc)
{
    return &cache.tables->bucket[hash(pc, 3, BUCKET_BITS)];
}

static void filter_add(uint64_t pc)
{
    uint64_t index = hash(pc, 0, FILTER_BITS);
    cache.tables->filter[index / 64] |= 1ull << index % 64;
}

static bool filter_has(uint64_t pc)
{
    uint64_t index = hash(pc, 0, FILTER_BITS);
    return cache.tables->filter[index / 64] >> index % 64 & 1;
}

static struct superblock **page_list(uint64_t page)
{
    return &cache.tables->page[page / PAGE & (PAGES - 1)];
}

/* False if an earlier page of sb has the same hash: sb is on that list already. */
static bool enters_list(const struct superblock *sb, int i)
{
    for (int k = 0; k < i; k++)
        if (page_list(sb->page[k]) == page_list(sb->page[i]))
            return false;
    return true;
}

static struct superblock **next_on_list(struct superblock *sb, struct superblock **list)
{
    int k = 0;
    while (page_list(sb->page[k]) != list)
        k++;
    return &sb->page_next[k];
}

/* Most look-ups are the translator's, which asks of every instruction whether a block begins there:
 * the filter answers them without a cache miss. */
struct tb *tb_lookup(uint64_t pc)
{
    if (!filter_has(pc))
        return NULL;
    struct tb *tb = *bucket_of(pc);
    while (tb && tb->pc != pc)
        tb = tb->next;
    return tb;
}

struct tb *tb_find_landing(uint64_t pc, unsigned len)
{
    struct tb *tb = tb_lookup(pc);
    while (tb && (tb->pc != pc || tb->call_len != len || tb->sb->checked))
        tb = tb->next;
    return tb;
}

struct tb *tb_find(struct cpu *cpu, uint64_t pc, enum tb_entry entry)
{
    struct tb *tb = tb_lookup(pc);
    if (tb)
        return tb;
    tb_note_entry(pc, entry);
    return translator_loop(cpu, pc, entry);
}

struct superblock *tb_by_host(uint64_t host_pc)
{
    size_t low = 0, high = cache.n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if ((uintptr_t)cache.by_host[mid]->host <= host_pc)
            low = mid + 1;
        else
            high = mid;
    }
    if (!low || host_pc >= (uintptr_t)cache.by_host[low - 1]->host_end)
        return NULL;
    return cache.by_host[low - 1];
}

static bool bind(struct link *link, struct tb *tb)
{
    if (link->call && !tb->call_host && !jit_add_call_entry(tb))
        return false;
    link->next = tb->in;
    tb->in = link;
    jit_bind(link, tb);
    return true;
}

static struct link **waiting_list(uint64_t target)
{
    return &cache.tables->waiting[hash(target, 3, WAIT_BITS)];
}

/* Binds the exits that wait for tb; those that cannot be bound stay. */
static void bind_waiting(struct tb *tb)
{
    for (struct link **p = waiting_list(tb->pc), *link; (link = *p);) {
        struct link *next = link->next;
        if (link->target == tb->pc && bind(link, tb))
            *p = next;
        else
            p = &link->next;
    }
}

/* A landing may exist twice. The latest is the one behind the call that runs now: returns must go
 * there to be predicted. */
static void insert_tb(struct tb *tb)
{
    struct tb **bucket = bucket_of(tb->pc), *older = tb_lookup(tb->pc);
    for (int by = BY_JUMP; older && by <= BY_RETURN; by++)
        if (tb->pad[by] && jit_table_has(older, by))
            jit_table_set(tb, by);
    tb->next = *bucket;
    *bucket = tb;
    stats.blocks++;
    stats.insns += tb->n_insns;
    stats.guest_bytes += tb->size;
    filter_add(tb->pc);
    if (opt.log & LOG_NOCHAIN)
        return;
    bind_waiting(tb);
    if (tb->pad[BY_RETURN]) /* the call that is before it will return soon */
        jit_table_offer(tb, BY_RETURN);
}

static void widen_returns(void)
{
    if (!jit_widen_returns())
        return;
    for (size_t i = 0; i < cache.n; i++)
        for (int k = 0; k < cache.by_host[i]->n_tbs; k++)
            if (cache.by_host[i]->tb[k].pad[BY_RETURN] && !cache.by_host[i]->dead)
                jit_table_offer(&cache.by_host[i]->tb[k], BY_RETURN);
}

void tb_insert(struct superblock *sb)
{
    if (cache.n == MANY)
        widen_returns();
    cache.by_host[cache.n++] = sb;
    stats.superblocks++;
    for (int i = 0; i < sb->n_tbs; i++)
        insert_tb(&sb->tb[i]);
    for (int i = 0; i < sb->n_pages; i++) {
        if (!enters_list(sb, i))
            continue;
        struct superblock **list = page_list(sb->page[i]);
        sb->page_next[i] = *list;
        *list = sb;
    }
}

void tb_bind(struct link *link)
{
    struct tb *tb = opt.log & LOG_NOCHAIN ? NULL : tb_lookup(link->target);
    if (tb && bind(link, tb))
        return;
    struct link **list = waiting_list(link->target);
    link->next = *list;
    *list = link;
}

/* ---- dropping
 * ------------------------------------------------------------------------------------ */

static void unbind_all(struct tb *tb)
{
    for (struct link *link = tb->in, *next; link; link = next) {
        struct link **list = waiting_list(link->target);
        next = link->next;
        jit_unbind(link);
        link->next = *list;
        *list = link;
    }
    tb->in = NULL;
}

static void drop_tb(struct tb *tb)
{
    struct tb **p = bucket_of(tb->pc);
    while (*p != tb)
        p = &(*p)->next;
    *p = tb->next;
    jit_table_clear(tb);
    unbind_all(tb);
}

/* Takes sb off the list of its page i. */
static void leave_page(struct superblock *sb, int i)
{
    struct superblock **list = page_list(sb->page[i]), **p = list;
    while (*p != sb)
        p = next_on_list(*p, list);
    *p = sb->page_next[i];
}

static void drop_superblock(struct superblock *sb)
{
    sb->dead = true;
    for (int i = 0; i < sb->n_tbs; i++)
        drop_tb(&sb->tb[i]);
    for (int i = 0; i < sb->n_pages; i++)
        if (enters_list(sb, i))
            leave_page(sb, i);
}

/* True if sb relies on a constant in [start, end). */
static bool relies_on(const struct superblock *sb, uint64_t start, uint64_t end)
{
    for (int i = 0; i < sb->n_constants; i++)
        if (sb->constants[i].at < end && sb->constants[i].at + 8 > start)
            return true;
    return false;
}

static bool overlaps(const struct superblock *sb, uint64_t start, uint64_t end)
{
    for (int i = 0; i < sb->n_tbs; i++)
        if (sb->tb[i].pc < end && sb->tb[i].pc + sb->tb[i].size > start)
            return true;
    return relies_on(sb, start, end);
}

/* Drops sb if it is made of anything in [start, end); returns whether it relied on a constant. */
static bool invalidate(struct superblock *sb, uint64_t start, uint64_t end)
{
    if (!overlaps(sb, start, end))
        return false;
    drop_superblock(sb);
    return relies_on(sb, start, end);
}

static bool invalidate_page(uint64_t page, uint64_t start, uint64_t end)
{
    struct superblock **list = page_list(page), *next;
    bool relied = false;
    for (struct superblock *sb = *list; sb; sb = next) {
        next = *next_on_list(sb, list);
        relied |= invalidate(sb, start, end);
    }
    return relied;
}

static bool invalidate_range(uint64_t start, uint64_t end)
{
    bool relied = false;
    if ((end - start) / PAGE > cache.n) {
        for (size_t i = 0; i < cache.n; i++)
            relied |= !cache.by_host[i]->dead && invalidate(cache.by_host[i], start, end);
    } else {
        for (uint64_t page = start & ~(PAGE - 1); page < end; page += PAGE)
            relied |= invalidate_page(page, start, end);
    }
    return relied;
}

/* True if the guest's bytes are those that tb was made from. */
static bool is_unchanged(const struct tb *tb)
{
    uint8_t now[64];
    for (size_t at = 0, part; at < tb->size; at += part) {
        part = tb->size - at < sizeof(now) ? tb->size - at : sizeof(now);
        if (!guest_copy(now, (const uint8_t *)tb->pc + at, part) ||
            memcmp(now, tb->code + at, part) != 0)
            return false;
    }
    return true;
}

void tb_drop_stale(uint64_t pc)
{
    tb_lock();
    struct tb *tb = tb_lookup(pc);
    if (tb) {
        plugin_ops_stale(tb);
        if (tb->sb->checked && is_unchanged(tb)) {
            smc_cool(tb->pc);
            smc_cool(tb->pc + tb->size - 1);
        }
        drop_superblock(tb->sb);
    }
    tb_unlock();
}

/* Takes a superblock out of every table, as cheaply as its size allows: small caches are flushed
 * often. */
static void forget_superblock(struct superblock *sb)
{
    for (int i = 0; i < sb->n_tbs; i++) {
        jit_table_clear(&sb->tb[i]);
        *bucket_of(sb->tb[i].pc) = NULL;
    }
    for (int i = 0; i < sb->n_pages; i++)
        *page_list(sb->page[i]) = NULL;
}

/* Unbinds every exit and empties the jump table: no thread stays in the cache for long. */
static void cut_all(void)
{
    for (size_t i = 0; i < cache.n; i++)
        for (int k = 0; k < cache.by_host[i]->n_tbs; k++)
            unbind_all(&cache.by_host[i]->tb[k]);
    jit_clear_table();
}

void tb_cut(void)
{
    tb_lock();
    cut_all();
    tb_unlock();
}

void tb_try_cut(void)
{
    if (!lock_try(&lock))
        return;
    __atomic_store_n(&owner, this_cpu, __ATOMIC_RELAXED);
    depth = 1;
    cut_all();
    tb_unlock();
}

/* Lets go of the lock, however often it was taken, while it waits for something. */
static void wait_unlocked(void (*wait)(void))
{
    int held = depth;
    __atomic_store_n(&owner, NULL, __ATOMIC_RELAXED);
    lock_release(&lock);
    wait();
    lock_take(&lock);
    __atomic_store_n(&owner, this_cpu, __ATOMIC_RELAXED);
    depth = held;
}

/* A thread whose page is still to come may wait for one of those that wait for it here. */
static void wait_for_cache(void)
{
    enum { SPINS = 1000, EVERY_MS = 16 };
    static const struct timespec ms = {.tv_nsec = 1000000};
    for (int i = 0; cpu_others_in_cache(this_cpu); i++) {
        if (i < SPINS) {
            sched_yield();
            continue;
        }
        if (i % EVERY_MS == 0)
            cpu_evict_others(this_cpu);
        nanosleep(&ms, NULL);
    }
}

/* The links stay: it would take long to make all of them again. */
static void wait_for_evicted(void)
{
    enum { SPINS = 1000, EVERY = 50 };
    static const struct timespec ms = {.tv_nsec = 1000000};
    for (int i = 0; cpu_others_in_cache(this_cpu); i++) {
        if (i % EVERY == 0)
            cpu_evict_others(this_cpu);
        if (i < SPINS)
            sched_yield();
        else
            nanosleep(&ms, NULL);
    }
}

/* A callback that blocks does not hold up the end of the process for longer than this. */
#define PATIENCE 1000 /* ms */

static void wait_for_callbacks(void)
{
    static const struct timespec ms = {.tv_nsec = 1000000};
    for (int i = 0; i < PATIENCE && cpu_others_busy(this_cpu); i++)
        nanosleep(&ms, NULL);
}

/* From now on no other thread enters the cache. */
static void keep_out(void (*wait)(void))
{
    stopper = this_cpu;
    __atomic_store_n(&stopped, true, __ATOMIC_SEQ_CST); /* before it looks who is busy */
    wait_unlocked(wait);
}

/* The same, and those that are in it come out. */
static void stop_others(void (*wait)(void))
{
    if (!this_cpu || cpu_is_last(this_cpu))
        return;
    cut_all();
    keep_out(wait);
}

static void release_others(void)
{
    if (!stopped || stopper != this_cpu)
        return;
    stopper = NULL;
    __atomic_store_n(&stopped, false, __ATOMIC_SEQ_CST);
    lock_wake_all(&stopped);
}

void tb_stop(void)
{
    tb_lock();
    stop_others(wait_for_callbacks);
    tb_unlock();
}

void tb_go_on(void)
{
    tb_lock();
    release_others();
    tb_unlock();
}

bool tb_is_stopped(void)
{
    return __atomic_load_n(&stopped, __ATOMIC_SEQ_CST) && stopper != this_cpu;
}

void tb_wait_stopped(void)
{
    while (tb_is_stopped())
        lock_wait(&stopped, true);
}

/* Threads need no synchronization to see another's data, as they do to see its code: none may stay
 * in a dropped block and branch by the pointer that was there. */
static void leave_dropped(void)
{
    if (stopped || cpu_is_last(this_cpu))
        return;
    keep_out(wait_for_evicted);
    release_others();
}

void tb_invalidate(uint64_t start, uint64_t len)
{
    tb_lock();
    bool relied = invalidate_range(start, start + len);
    if (relied && this_cpu && !this_cpu->in_cache && !this_cpu->in_plugin)
        leave_dropped();
    tb_unlock();
}

void tb_unmap(uint64_t start, uint64_t len)
{
    tb_lock();
    smc_forget(start, len);
    tb_invalidate(start, len);
    tb_unlock();
}

/* Blocks of a flushed cache may not be overwritten while a thread runs them. */
void tb_flush(void)
{
    tb_lock();
    bool is_stopper = stopped && stopper == this_cpu;
    stop_others(wait_for_cache);
    plugin_ops_flush();
    for (size_t i = 0; i < cache.n; i++)
        forget_superblock(cache.by_host[i]);
    memset(cache.tables->filter, 0, sizeof(cache.tables->filter));
    memset(cache.tables->waiting, 0, sizeof(cache.tables->waiting));
    cache.n = 0;
    cache.meta = (uint8_t *)(cache.tables + 1);
    cache.generation++;
    stats.flushes++;
    jit_reset();
    qemu_plugin_flush_cb();
    if (!is_stopper)
        release_others();
    tb_unlock();
}

bool tb_is_empty(void)
{
    return cache.n == 0;
}

unsigned tb_generation(void)
{
    return cache.generation;
}

/* ---- children of fork()
 * ------------------------------------------------------------------------------
 *
 * A shell's subshells run code that the shell itself never runs: each would translate it again, and
 * copy many pages for that. So they write down what they lack, for the parent to have it when it
 * forks again. Plugins would see code translated that their process does not run. */

#define LESSONS     8191
#define ENTRY_SHIFT 56 /* enum tb_entry, above the pc */

static struct lessons {
    uint64_t n;
    uint64_t entry[LESSONS]; /* 0: not written yet */
} * lessons;                 /* shared by all */
static uint64_t n_learned;
static bool teaches;

void tb_note_entry(uint64_t pc, enum tb_entry entry)
{
    if (!teaches || lessons->n >= LESSONS)
        return;
    uint64_t i = __atomic_fetch_add(&lessons->n, 1, __ATOMIC_RELAXED);
    if (i < LESSONS)
        lessons->entry[i] = pc | (uint64_t)entry << ENTRY_SHIFT;
}

static void learn(struct cpu *cpu, uint64_t lesson)
{
    enum tb_entry entry = lesson >> ENTRY_SHIFT;
    enum indirect by = entry == ENTRY_RETURN ? BY_RETURN : BY_JUMP;
    uint64_t pc = lesson & ((1ull << ENTRY_SHIFT) - 1);
    struct tb *tb = tb_lookup(pc);
    if (!tb)
        tb = translator_loop(cpu, pc, entry);
    if (tb && entry >= ENTRY_INDIRECT && (tb->pad[by] || jit_add_pad(tb, by)))
        jit_table_offer(tb, by);
}

void tb_before_fork(struct cpu *cpu)
{
    if (plugin_wants_tb_trans() || opt.log & (LOG_IN_ASM | LOG_NOCHAIN))
        return;
    if (!lessons) {
        void *p =
            mmap(NULL, sizeof(*lessons), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        lessons = p == MAP_FAILED ? NULL : p;
    }
    for (; lessons && n_learned < lessons->n && n_learned < LESSONS; n_learned++)
        if (lessons->entry[n_learned])
            learn(cpu, lessons->entry[n_learned]);
}

void tb_fork_child(void)
{
    teaches = lessons;
    stats = (struct stats){0};
}
