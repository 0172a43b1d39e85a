/* mem.c: counts or lists memory accesses.
 *
 *   track=r|w|rw        which (default rw)
 *   inline=on           count by inline operations
 *   callback=on         count by callbacks (the default)
 *   haddr=on            also count device accesses (none in user mode)
 *   print-accesses=on   one CSV line per access
 *   region-summary=on   reads and writes per 16 KiB, and whether the values read are those that
 *                       were written before, by instructions that were seen */
#define EMU_PLUGIN_API_VERSION 4
#include "map.h"
#include "options.h"

#include <pthread.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

#define REGION_SIZE 16384

struct region {
    uint64_t base, reads, writes;
    bool unseen;               /* a read gave something else than the writes to it */
    uint8_t data[REGION_SIZE]; /* as the writes left it */
};
struct place { /* an instruction, for print-accesses */
    uint64_t pc;
    const char *symbol;
};

static qemu_plugin_u64 accesses, io_accesses;
static enum qemu_plugin_mem_rw track = QEMU_PLUGIN_MEM_RW;
static bool do_inline, do_callback, do_haddr, do_print, do_regions;
static struct map regions = {.record_size = sizeof(struct region)};
static struct map places = {.record_size = sizeof(struct place)};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Holds a value that was read against what was written there, or keeps what is written. */
static void follow_value(struct region *r, qemu_plugin_meminfo_t info, uint64_t offset)
{
    qemu_plugin_mem_value value = qemu_plugin_mem_get_value(info);
    size_t size = 1u << qemu_plugin_mem_size_shift(info);
    uint8_t bytes[16];
    memcpy(bytes, &value.data, size);
    for (size_t i = 0; qemu_plugin_mem_is_big_endian(info) && i < size; i++)
        bytes[i] = ((const uint8_t *)&value.data)[size - 1 - i];
    if (size > REGION_SIZE - offset)
        size = REGION_SIZE - offset;
    if (qemu_plugin_mem_is_store(info)) {
        memcpy(r->data + offset, bytes, size);
    } else if (!r->unseen && memcmp(r->data + offset, bytes, size)) {
        outf("Warning: 0x%016" PRIx64 ":%" PRIu64 " read an un-instrumented value\n", r->base,
             offset);
        r->unseen = true;
    }
}

static void vcpu_mem(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *userdata)
{
    (void)userdata;
    if (do_haddr && qemu_plugin_hwaddr_is_io(qemu_plugin_get_hwaddr(info, vaddr)))
        qemu_plugin_u64_add(io_accesses, vcpu, 1);
    else
        qemu_plugin_u64_add(accesses, vcpu, 1);
    if (!do_regions)
        return;
    pthread_mutex_lock(&lock);
    struct region *r = map_get(&regions, vaddr / REGION_SIZE * REGION_SIZE);
    ++*(qemu_plugin_mem_is_store(info) ? &r->writes : &r->reads);
    follow_value(r, info, vaddr % REGION_SIZE);
    pthread_mutex_unlock(&lock);
}

/* The value in hexadecimal, padded to its size. */
static void format_value(char *text, size_t size, const qemu_plugin_mem_value *v)
{
    if (v->type == QEMU_PLUGIN_MEM_VALUE_U128) {
        snprintf(text, size, "0x%016" PRIx64 "%016" PRIx64, v->data.u128.high, v->data.u128.low);
        return;
    }
    const uint64_t values[] = {v->data.u8, v->data.u16, v->data.u32, v->data.u64};
    snprintf(text, size, "0x%0*" PRIx64, 2 << v->type, values[v->type]);
}

static void print_access(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *userdata)
{
    (void)vcpu;
    const struct place *place = userdata;
    qemu_plugin_mem_value value = qemu_plugin_mem_get_value(info);
    char text[40];
    format_value(text, sizeof text, &value);
    outf("0x%" PRIx64 ",%s,0x%" PRIx64 ",0x0,%d,%s,%s\n", place->pc,
         place->symbol ? place->symbol : "", vaddr, 8 << qemu_plugin_mem_size_shift(info),
         qemu_plugin_mem_is_store(info) ? "store" : "load", text);
}

static void vcpu_tb_trans(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        if (do_inline)
            qemu_plugin_register_vcpu_mem_inline_per_vcpu(insn, track, QEMU_PLUGIN_INLINE_ADD_U64,
                                                          accesses, 1);
        if (do_callback || do_regions)
            qemu_plugin_register_vcpu_mem_cb(insn, vcpu_mem, QEMU_PLUGIN_CB_NO_REGS, track, NULL);
        if (do_print) {
            pthread_mutex_lock(&lock);
            struct place *place = map_get(&places, qemu_plugin_insn_vaddr(insn));
            place->symbol = qemu_plugin_insn_symbol(insn);
            pthread_mutex_unlock(&lock);
            qemu_plugin_register_vcpu_mem_cb(insn, print_access, QEMU_PLUGIN_CB_NO_REGS, track,
                                             place);
        }
    }
}

static int compare_regions(const void *a, const void *b)
{
    uint64_t x = (*(const struct region *const *)a)->base;
    uint64_t y = (*(const struct region *const *)b)->base;
    return (x > y) - (x < y);
}

static void plugin_exit(qemu_plugin_id_t id, void *userdata)
{
    (void)id, (void)userdata;
    if (do_inline || do_callback)
        outf("mem accesses: %" PRIu64 "\n", qemu_plugin_u64_sum(accesses));
    if (do_haddr)
        outf("io accesses: %" PRIu64 "\n", qemu_plugin_u64_sum(io_accesses));
    if (!do_regions)
        return;
    pthread_mutex_lock(&lock);
    void **sorted = map_sorted(&regions, compare_regions);
    outf("Region Base, Reads, Writes, Seen all\n");
    for (size_t i = 0; i < regions.n; i++) {
        const struct region *r = sorted[i];
        outf("0x%016" PRIx64 ", %" PRIu64 ", %" PRIu64 ", %s\n", r->base, r->reads, r->writes,
             r->unseen ? "false" : "true");
    }
    free(sorted);
    pthread_mutex_unlock(&lock);
}

static bool parse_track(const char *value)
{
    static const char *const names[] = {"", "r", "w", "rw"};
    for (int rw = QEMU_PLUGIN_MEM_R; rw <= QEMU_PLUGIN_MEM_RW; rw++)
        if (!strcmp(value, names[rw])) {
            track = (enum qemu_plugin_mem_rw)rw;
            return true;
        }
    return false;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    const struct option options[] = {
        {"track", OPTION_CALL, NULL, parse_track},
        {"inline", OPTION_BOOL, &do_inline, NULL},
        {"callback", OPTION_BOOL, &do_callback, NULL},
        {"haddr", OPTION_BOOL, &do_haddr, NULL},
        {"print-accesses", OPTION_BOOL, &do_print, NULL},
        {"region-summary", OPTION_BOOL, &do_regions, NULL},
        {0},
    };
    (void)info;
    if (!parse_options(options, argc, argv))
        return -1;
    if (do_inline && do_callback) {
        fprintf(stderr, "can't enable inline and callback counting at the same time\n");
        return -1;
    }
    do_callback |= !do_inline && !do_print && !do_regions;
    accesses = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    io_accesses = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    if (do_print)
        outf("insn_vaddr,insn_symbol,mem_vaddr,mem_hwaddr,access_size,access_type,mem_value\n");
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans);
    qemu_plugin_register_atexit_cb(id, plugin_exit, NULL);
    return 0;
}
