/* drcov.c: which basic blocks ran, as a DynamoRIO drcov file of version 2.
 *
 *   filename=PATH   where to (default file.drcov.trace); %p becomes the process id. Without %p
 *                   processes other than the first append it (process.h)
 *   format=qemu     QEMU's form: one module, absolute addresses cut to 32 bits
 *   hits=on         how often, too: behind the entries comes the line "Hit Count Table: version 1,
 *                   count N" and one 32-bit number per entry, and the flavor ends in "-hits". As
 *                   tracers for Frida write it; Lighthouse and Cartographer skip it, drcov2lcov,
 *                   Lightkeeper and bncov do not take such files
 *
 * One row per file whose code the program mapped, one entry per executed block, relative to the
 * file's lowest mapping. A block marks itself by an inline store into its slot of a scoreboard. */
#define EMU_PLUGIN_API_VERSION 4
#include "blocks.h"
#include "modules.h"
#include "options.h"
#include "process.h"

#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

#define CHUNK 1024 /* slots per scoreboard */

static struct modules modules;
static struct blocks blocks; /* the number of each is that of its slot */
static struct map returns = {.record_size = sizeof(uint64_t)}; /* see watch_mappings */
static struct qemu_plugin_scoreboard **chunks;                 /* the slots */
static size_t n_chunks, chunk_room;
static qemu_plugin_u64 changed; /* not 0: mappings may have changed since the last scan */
static const char *filename = "file.drcov.trace";
static bool qemu_format, hits;
static pid_t first_pid;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- noticing new mappings ----------------------------------------------------------- */

/* A syscall event would slow down every system call. Instead the blocks that end in a syscall are
 * looked at: one that may be mmap or the like notes, inline, that mappings change. */

static bool maps_memory(uint8_t num)
{
    static const uint8_t nums[] = {9, 11, 25, 30, 67}; /* mmap munmap mremap shmat shmdt */
    return memchr(nums, num, sizeof nums);
}

/* True if the block ends in such a syscall: its number, where the block loads it, says so. */
static bool may_map(const struct qemu_plugin_tb *tb, size_t n)
{
    uint8_t code[5];
    if (qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, n - 1), code, 2) < 2 || code[0] != 0x0f ||
        code[1] != 0x05)
        return false;
    for (size_t i = n - 1; i-- > 0;) {
        size_t len = qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i), code, 5);
        if (len == 2 && (code[0] == 0x31 || code[0] == 0x33) && code[1] == 0xc0)
            return false;                /* xor %eax,%eax: read */
        if (len == 5 && code[0] == 0xb8) /* mov $num,%eax */
            return maps_memory(code[1]) && !code[2] && !code[3] && !code[4];
    }
    return true;
}

/* Marks mappings as changed before such a syscall, and again behind it, where they are: another
 * thread may scan in between. */
static void watch_mappings(struct qemu_plugin_tb *tb, uint64_t pc, size_t n)
{
    if (returns.n && map_entry(&returns, pc)->slot)
        qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_STORE_U64, changed,
                                                          1);
    if (!may_map(tb, n))
        return;
    struct qemu_plugin_insn *last = qemu_plugin_tb_get_insn(tb, n - 1);
    qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(last, QEMU_PLUGIN_INLINE_STORE_U64, changed,
                                                        1);
    map_get(&returns, qemu_plugin_insn_vaddr(last) + qemu_plugin_insn_size(last));
}

static void refresh_modules(uint64_t pc)
{
    if (!qemu_plugin_u64_sum(changed) && modules_find_span(&modules, pc))
        return;
    for (int i = 0; i < qemu_plugin_num_vcpus(); i++)
        qemu_plugin_u64_set(changed, (unsigned)i, 0);
    modules_scan(&modules);
}

/* ---- blocks -------------------------------------------------------------------------- */

/* Fills in where the block is; false if it is in no file. */
static bool locate_block(uint64_t pc, struct entry *entry)
{
    uint64_t offset = pc;
    int module = 0;
    if (!qemu_format) {
        refresh_modules(pc);
        module = modules_locate(&modules, pc, &offset);
    }
    entry->start = (uint32_t)offset;
    entry->module = (uint16_t)module;
    return module >= 0;
}

/* A block has one slot for all its translations. One that has run is only marked again if it is to
 * be known how often. */
static void watch_block(struct qemu_plugin_tb *tb, const struct entry *entry)
{
    size_t known = blocks.n, block = blocks_find(&blocks, entry);
    bool is_new = blocks.n > known;
    if (is_new && known % CHUNK == 0) {
        GROW_ARRAY(chunks, n_chunks, chunk_room);
        chunks[n_chunks++] = qemu_plugin_scoreboard_new(CHUNK * sizeof(uint64_t));
    }
    qemu_plugin_u64 slot = {chunks[block / CHUNK], block % CHUNK * sizeof(uint64_t)};
    if (hits || is_new || !qemu_plugin_u64_sum(slot))
        qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
            tb, hits ? QEMU_PLUGIN_INLINE_ADD_U64 : QEMU_PLUGIN_INLINE_STORE_U64, slot, 1);
}

static void vcpu_tb_trans(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    uint64_t pc = qemu_plugin_tb_vaddr(tb);
    size_t n = qemu_plugin_tb_n_insns(tb);
    struct qemu_plugin_insn *last = qemu_plugin_tb_get_insn(tb, n - 1);
    uint64_t end = qemu_plugin_insn_vaddr(last) + qemu_plugin_insn_size(last);
    struct entry entry = {.size = (uint16_t)(end - pc)};
    pthread_mutex_lock(&lock);
    if (!qemu_format)
        watch_mappings(tb, pc, n);
    if (locate_block(pc, &entry))
        watch_block(tb, &entry);
    pthread_mutex_unlock(&lock);
}

/* ---- output -------------------------------------------------------------------------- */

/* Executions per block over all vCPUs, as far as 32 bits count. */
static uint32_t *count_hits(void)
{
    uint32_t *counts = map_alloc(NULL, (blocks.n + 1) * sizeof *counts);
    memset(counts, 0, (blocks.n + 1) * sizeof *counts);
    for (size_t c = 0; c < n_chunks; c++)
        for (int cpu = 0; cpu < qemu_plugin_num_vcpus(); cpu++) {
            const uint64_t *slots = qemu_plugin_scoreboard_find(chunks[c], (unsigned)cpu);
            for (size_t i = c * CHUNK; i < blocks.n && i < (c + 1) * CHUNK; i++) {
                uint64_t sum = counts[i] + slots[i % CHUNK];
                counts[i] = sum < UINT32_MAX ? (uint32_t)sum : UINT32_MAX;
            }
        }
    return counts;
}

static void write_modules(FILE *out)
{
    fprintf(out, "Module Table: version 2, count %d\nColumns: id, base, end, entry, path\n",
            qemu_format ? 1 : modules.listed);
    if (qemu_format)
        fprintf(out, "0, 0x%" PRIx64 ", 0x%" PRIx64 ", 0x%" PRIx64 ", %s\n",
                qemu_plugin_start_code(), qemu_plugin_end_code(), qemu_plugin_entry_code(),
                qemu_plugin_path_to_binary());
    for (int id = 0; !qemu_format && id < modules.listed; id++)
        for (const struct module *m = modules.module; m < modules.module + modules.n; m++)
            if (m->id == id)
                fprintf(out, "%d, 0x%016" PRIx64 ", 0x%016" PRIx64 ", 0x%016" PRIx64 ", %s\n", id,
                        m->base, m->end, m->entry, m->path);
}

static void write_coverage(FILE *out)
{
    uint32_t *counts = count_hits(), executed = 0;
    struct entry *entries = map_alloc(NULL, (blocks.n + 1) * sizeof *entries);
    for (size_t i = 0; i < blocks.n; i++)
        if (counts[i]) {
            entries[executed] = blocks.block[i].entry;
            counts[executed++] = counts[i];
        }
    fprintf(out, "DRCOV VERSION: 2\nDRCOV FLAVOR: drcov-64%s\n", hits ? "-hits" : "");
    write_modules(out);
    fprintf(out, "BB Table: %u bbs\n", executed);
    fwrite(entries, sizeof *entries, executed, out);
    if (hits) {
        fprintf(out, "Hit Count Table: version 1, count %u\n", executed);
        fwrite(counts, sizeof *counts, executed, out);
    }
    free(entries);
    free(counts);
}

/* A plain file is whole or not there: it is written under another name first. A device, a pipe or
 * a link stays what it is. */
static bool write_file(const char *name)
{
    char temporary[4128];
    struct stat st;
    bool plain = lstat(name, &st) || S_ISREG(st.st_mode);
    snprintf(temporary, sizeof temporary, "%s.%d.tmp", name, getpid());
    FILE *out = fopen(plain ? temporary : name, "wbe");
    if (out)
        write_coverage(out);
    return out && !fclose(out) && (!plain || !rename(temporary, name));
}

/* May be called more than once: a failed execve is not the end. */
static void plugin_exit(qemu_plugin_id_t id, void *userdata)
{
    (void)id, (void)userdata;
    char name[4096];
    name_file(name, sizeof name, filename, first_pid);
    pthread_mutex_lock(&lock);
    if (!qemu_format)
        modules_scan(&modules);
    if (!write_file(name))
        fprintf(stderr, "drcov: cannot write %s: %s\n", name, strerror(errno));
    pthread_mutex_unlock(&lock);
}

/* ---- start --------------------------------------------------------------------------- */

static bool parse_format(const char *name)
{
    qemu_format = !strcmp(name, "qemu");
    return qemu_format || !strcmp(name, "drcov");
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    const struct option options[] = {
        {"filename", OPTION_STRING, &filename, NULL},
        {"format", OPTION_CALL, NULL, parse_format},
        {"hits", OPTION_BOOL, &hits, NULL},
        {0},
    };
    (void)info;
    if (!parse_options(options, argc, argv) || !bytes_init(&modules.header, 64))
        return -1;
    filename = absolute_name(filename);
    first_pid = getpid();
    changed = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans);
    qemu_plugin_register_atexit_cb(id, plugin_exit, NULL);
    return 0;
}
