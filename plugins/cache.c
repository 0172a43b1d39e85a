/* cache.c: simulates data, instruction and second-level caches.
 *
 *   iblksize= iassoc= icachesize=      instruction cache (default 64, 8, 16384)
 *   dblksize= dassoc= dcachesize=      data cache (the same)
 *   l2=on l2blksize= l2assoc= l2cachesize=   second level (default 64, 16, 2097152)
 *   cores=N       caches; vCPU i uses number i modulo N (default 1)
 *   limit=N       rows of the lists (default 32)
 *   evict=lru|fifo|rand */
#define EMU_PLUGIN_API_VERSION 4
#include "map.h"
#include "options.h"

#include <pthread.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

enum { DATA, INSN, L2, N_LEVELS };
enum policy { LRU, FIFO, RANDOM };

struct shape {
    uint64_t block_size, ways, size;
};
struct cache {
    uint64_t *tags, *ages; /* [set * ways + way]; tag 0: empty */
    uint64_t clock, accesses, misses;
};
struct place { /* an instruction */
    uint64_t pc;
    char *text;
    const char *symbol;
    uint64_t misses[N_LEVELS];
};

static struct shape shapes[N_LEVELS] = {{64, 8, 16384}, {64, 8, 16384}, {64, 16, 2097152}};
static struct cache *caches; /* [core * N_LEVELS + level] */
static uint64_t cores = 1, limit = 32;
static bool use_l2;
static enum policy policy;
static uint64_t seed = 1;
static int sort_level;
static struct map places = {.record_size = sizeof(struct place)};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The way of the set to replace: an empty or the oldest one. */
static uint64_t choose_victim(const uint64_t *ages, uint64_t ways)
{
    uint64_t victim = 0;
    if (policy == RANDOM && ages[ways - 1]) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        return (seed >> 33) % ways;
    }
    for (uint64_t way = 1; way < ways; way++)
        if (ages[way] < ages[victim])
            victim = way;
    return victim;
}

/* True if addr hits; afterwards it is cached. */
static bool touch(uint64_t core, int level, uint64_t addr)
{
    const struct shape *shape = &shapes[level];
    struct cache *cache = &caches[core * N_LEVELS + (uint64_t)level];
    uint64_t block = addr / shape->block_size;
    uint64_t sets = shape->size / shape->block_size / shape->ways;
    uint64_t *tags = cache->tags + block % sets * shape->ways;
    uint64_t *ages = cache->ages + block % sets * shape->ways;
    cache->accesses++;
    cache->clock++;
    for (uint64_t way = 0; way < shape->ways; way++)
        if (tags[way] == block + 1) {
            if (policy == LRU)
                ages[way] = cache->clock;
            return true;
        }
    uint64_t victim = choose_victim(ages, shape->ways);
    tags[victim] = block + 1;
    ages[victim] = cache->clock;
    cache->misses++;
    return false;
}

static void simulate(unsigned vcpu, int level, uint64_t addr, struct place *place)
{
    pthread_mutex_lock(&lock);
    if (!touch(vcpu % cores, level, addr)) {
        place->misses[level]++;
        if (use_l2 && !touch(vcpu % cores, L2, addr))
            place->misses[L2]++;
    }
    pthread_mutex_unlock(&lock);
}

static void vcpu_mem(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *userdata)
{
    const struct qemu_plugin_hwaddr *hwaddr = qemu_plugin_get_hwaddr(info, vaddr);
    if (!hwaddr || !qemu_plugin_hwaddr_is_io(hwaddr))
        simulate(vcpu, DATA, vaddr, userdata);
}

static void vcpu_insn_exec(unsigned vcpu, void *userdata)
{
    struct place *place = userdata;
    simulate(vcpu, INSN, place->pc, place);
}

static void vcpu_tb_trans(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        pthread_mutex_lock(&lock);
        struct place *place = map_get(&places, qemu_plugin_insn_vaddr(insn));
        if (!place->text) {
            place->text = qemu_plugin_insn_disas(insn);
            place->symbol = qemu_plugin_insn_symbol(insn);
        }
        pthread_mutex_unlock(&lock);
        qemu_plugin_register_vcpu_mem_cb(insn, vcpu_mem, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_RW,
                                         place);
        qemu_plugin_register_vcpu_insn_exec_cb(insn, vcpu_insn_exec, QEMU_PLUGIN_CB_NO_REGS, place);
    }
}

static double miss_rate(const struct cache *cache)
{
    return cache->accesses ? 100.0 * (double)cache->misses / (double)cache->accesses : 0;
}

static void report_row(const char *name, const struct cache *levels)
{
    const struct cache *d = &levels[DATA], *i = &levels[INSN], *l2 = &levels[L2];
    outf("%-8s%-14" PRIu64 " %-12" PRIu64 " %9.4f%%  %-14" PRIu64 " %-12" PRIu64 " %9.4f%%", name,
         d->accesses, d->misses, miss_rate(d), i->accesses, i->misses, miss_rate(i));
    if (l2->misses)
        outf("  %-12" PRIu64 " %-11" PRIu64 " %10.4f%%", l2->accesses, l2->misses, miss_rate(l2));
    outf("\n");
}

static void report_cores(void)
{
    struct cache sum[N_LEVELS] = {{0}};
    outf("core #, data accesses, data misses, dmiss rate, insn accesses, insn misses, imiss "
         "rate%s\n",
         use_l2 ? ", l2 accesses, l2 misses, l2 miss rate" : "");
    for (uint64_t core = 0; core < cores; core++) {
        char name[24];
        snprintf(name, sizeof name, "%" PRIu64, core);
        report_row(name, &caches[core * N_LEVELS]);
        for (int level = 0; level < N_LEVELS; level++) {
            sum[level].accesses += caches[core * N_LEVELS + (uint64_t)level].accesses;
            sum[level].misses += caches[core * N_LEVELS + (uint64_t)level].misses;
        }
    }
    if (cores > 1)
        report_row("sum", sum);
}

static int compare_places(const void *a, const void *b)
{
    const struct place *x = *(const struct place *const *)a, *y = *(const struct place *const *)b;
    uint64_t v = x->misses[sort_level], w = y->misses[sort_level];
    return v != w ? (v < w) - (v > w) : (x->pc > y->pc) - (x->pc < y->pc);
}

static void report_level(int level, const char *title)
{
    sort_level = level;
    void **sorted = map_sorted(&places, compare_places);
    outf("\naddress, %s misses, instruction\n", title);
    for (size_t i = 0; i < places.n && i < limit; i++) {
        const struct place *p = sorted[i];
        outf("0x%" PRIx64 "%s%s%s, %" PRIu64 ", %s\n", p->pc, p->symbol ? " (" : "",
             p->symbol ? p->symbol : "", p->symbol ? ")" : "", p->misses[level], p->text);
    }
    free(sorted);
}

static void plugin_exit(qemu_plugin_id_t id, void *userdata)
{
    (void)id, (void)userdata;
    pthread_mutex_lock(&lock);
    report_cores();
    report_level(DATA, "data");
    report_level(INSN, "fetch");
    if (use_l2)
        report_level(L2, "L2");
    pthread_mutex_unlock(&lock);
}

static bool make_cache(struct cache *cache, const struct shape *shape)
{
    uint64_t blocks = shape->block_size ? shape->size / shape->block_size : 0;
    if (!blocks || !shape->ways || blocks % shape->ways || shape->size % shape->block_size) {
        fprintf(stderr, "cache: size must be a multiple of block size times associativity\n");
        return false;
    }
    cache->tags = calloc(blocks, sizeof *cache->tags);
    cache->ages = calloc(blocks, sizeof *cache->ages);
    return cache->tags && cache->ages;
}

static bool parse_evict(const char *value)
{
    static const char *const names[] = {"lru", "fifo", "rand"};
    for (int i = LRU; i <= RANDOM; i++)
        if (!strcmp(value, names[i])) {
            policy = (enum policy)i;
            return true;
        }
    return false;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    const struct option options[] = {
        {"dblksize", OPTION_U64, &shapes[DATA].block_size, NULL},
        {"dassoc", OPTION_U64, &shapes[DATA].ways, NULL},
        {"dcachesize", OPTION_U64, &shapes[DATA].size, NULL},
        {"iblksize", OPTION_U64, &shapes[INSN].block_size, NULL},
        {"iassoc", OPTION_U64, &shapes[INSN].ways, NULL},
        {"icachesize", OPTION_U64, &shapes[INSN].size, NULL},
        {"l2", OPTION_BOOL, &use_l2, NULL},
        {"l2blksize", OPTION_U64, &shapes[L2].block_size, NULL},
        {"l2assoc", OPTION_U64, &shapes[L2].ways, NULL},
        {"l2cachesize", OPTION_U64, &shapes[L2].size, NULL},
        {"cores", OPTION_U64, &cores, NULL},
        {"limit", OPTION_U64, &limit, NULL},
        {"evict", OPTION_CALL, NULL, parse_evict},
        {0},
    };
    (void)info;
    if (!parse_options(options, argc, argv))
        return -1;
    cores = cores ? cores : 1;
    caches = calloc(cores * N_LEVELS, sizeof *caches);
    for (uint64_t i = 0; i < cores * N_LEVELS; i++)
        if (!caches || !make_cache(&caches[i], &shapes[i % N_LEVELS]))
            return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans);
    qemu_plugin_register_atexit_cb(id, plugin_exit, NULL);
    return 0;
}
