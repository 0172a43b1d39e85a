/* execlog.c: one line per executed instruction: vCPU, address, code, text, accesses, registers.
 *
 *   ifilter=TEXT   only instructions whose text starts with TEXT; may be repeated
 *   afilter=ADDR   only the instruction at ADDR; may be repeated
 *   reg=GLOB       show registers of that name when they change; may be repeated
 *   rdisas=on      look at a register only after instructions whose text names it */
#include "bytes.h"
#include "map.h"
#include "options.h"

#include <fnmatch.h>
#include <pthread.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

#define MAX_FILTERS 64
#define MAX_REGS    96
#define REG_SIZE    16

struct reg { /* a register that is shown */
    const char *name;
    struct qemu_plugin_register *handle;
};

struct line { /* what is known of a vCPU's last instruction, printed when the next one runs */
    char text[512];
    size_t len;
    const uint64_t *named; /* set of registers its text names, NULL: all */
    uint8_t value[MAX_REGS][REG_SIZE];
};

struct place { /* an instruction */
    uint64_t pc;
    char *text;                           /* `0xPC, 0xCODE, "TEXT"` */
    uint64_t named[(MAX_REGS + 63) / 64]; /* registers its text names */
};

static struct qemu_plugin_scoreboard *lines;
static struct map places = {.record_size = sizeof(struct place)};
static const char *ifilters[MAX_FILTERS], *reg_globs[MAX_FILTERS];
static uint64_t afilters[MAX_FILTERS];
static size_t n_ifilters, n_afilters, n_reg_globs;
static struct reg regs[MAX_REGS];
static size_t n_regs;
static bool rdisas;
static struct bytes buffer;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((format(printf, 2, 3))) static void append(struct line *line, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line->text + line->len, sizeof line->text - line->len, fmt, ap);
    va_end(ap);
    line->len += (size_t)n;
    if (line->len >= sizeof line->text)
        line->len = sizeof line->text - 1;
}

/* Reads register i into value; returns its size. Under lock. */
static unsigned read_reg(size_t i, uint8_t *value)
{
    buffer.array.len = 0;
    if (!qemu_plugin_read_register(regs[i].handle, &buffer.array) || buffer.array.len > REG_SIZE)
        return 0;
    memcpy(value, buffer.array.data, buffer.array.len);
    return buffer.array.len;
}

/* Adds the registers that the last instruction changed. */
static void append_changes(struct line *line)
{
    uint8_t value[REG_SIZE] = {0};
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < n_regs; i++) {
        if (line->named && !(line->named[i / 64] >> i % 64 & 1))
            continue;
        unsigned size = read_reg(i, value);
        if (!memcmp(line->value[i], value, size))
            continue;
        memcpy(line->value[i], value, size);
        append(line, ", %s -> 0x", regs[i].name);
        while (size--)
            append(line, "%02x", value[size]);
    }
    pthread_mutex_unlock(&lock);
}

static void flush_line(struct line *line)
{
    if (!line->len)
        return;
    append(line, "\n");
    line->text[line->len - 1] = '\n';
    qemu_plugin_outs(line->text);
    line->len = 0;
}

static void vcpu_insn_exec(unsigned vcpu, void *userdata)
{
    const struct place *place = userdata;
    struct line *line = qemu_plugin_scoreboard_find(lines, vcpu);
    if (line->len && n_regs)
        append_changes(line);
    flush_line(line);
    line->named = rdisas ? place->named : NULL;
    append(line, "%u, %s", vcpu, place->text);
}

/* For instructions that are filtered out: ends the line before them. */
static void vcpu_insn_end_line(unsigned vcpu, void *userdata)
{
    (void)userdata;
    struct line *line = qemu_plugin_scoreboard_find(lines, vcpu);
    if (line->len && n_regs)
        append_changes(line);
    flush_line(line);
}

static void vcpu_mem(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *userdata)
{
    (void)userdata;
    struct line *line = qemu_plugin_scoreboard_find(lines, vcpu);
    append(line, ", %s, 0x%08" PRIx64, qemu_plugin_mem_is_store(info) ? "store" : "load", vaddr);
}

static void vcpu_init(unsigned vcpu, void *userdata)
{
    (void)userdata;
    pthread_mutex_lock(&lock);
    GArray *all = n_reg_globs && !n_regs ? qemu_plugin_get_registers() : NULL;
    for (unsigned i = 0; all && i < all->len; i++) {
        const qemu_plugin_reg_descriptor *d = (const qemu_plugin_reg_descriptor *)all->data + i;
        bool wanted = false;
        for (size_t g = 0; g < n_reg_globs; g++)
            wanted |= !fnmatch(reg_globs[g], d->name, 0);
        if (wanted && n_regs < MAX_REGS)
            regs[n_regs++] = (struct reg){d->name, d->handle};
    }
    struct line *line = qemu_plugin_scoreboard_find(lines, vcpu);
    for (size_t i = 0; i < n_regs; i++)
        read_reg(i, line->value[i]);
    pthread_mutex_unlock(&lock);
}

static bool is_wanted(const char *text, uint64_t pc)
{
    for (size_t i = 0; i < n_ifilters; i++)
        if (!strncmp(text, ifilters[i], strlen(ifilters[i])))
            return true;
    for (size_t i = 0; i < n_afilters; i++)
        if (pc == afilters[i])
            return true;
    return !n_ifilters && !n_afilters;
}

static struct place *make_place(const struct qemu_plugin_insn *insn, const char *text)
{
    uint32_t code = 0;
    char line[256];
    uint64_t pc = qemu_plugin_insn_vaddr(insn);
    qemu_plugin_insn_data(insn, &code, sizeof code);
    snprintf(line, sizeof line, "0x%" PRIx64 ", 0x%x, \"%s\"", pc, code, text);
    pthread_mutex_lock(&lock);
    struct place *place = map_get(&places, pc);
    if (!place->text || strcmp(place->text, line))
        place->text = strdup(line); /* an old one may still be in use */
    memset(place->named, 0, sizeof place->named);
    for (size_t i = 0; i < n_regs; i++)
        if (strstr(text, regs[i].name))
            place->named[i / 64] |= 1ull << i % 64;
    pthread_mutex_unlock(&lock);
    return place;
}

static void vcpu_tb_trans(struct qemu_plugin_tb *tb, void *userdata)
{
    (void)userdata;
    const enum qemu_plugin_cb_flags flags =
        n_reg_globs ? QEMU_PLUGIN_CB_R_REGS : QEMU_PLUGIN_CB_NO_REGS;
    bool last_wanted = true; /* by an earlier block, maybe */
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        char *text = qemu_plugin_insn_disas(insn);
        bool wanted = is_wanted(text, qemu_plugin_insn_vaddr(insn));
        if (wanted) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, vcpu_insn_exec, flags,
                                                   make_place(insn, text));
            qemu_plugin_register_vcpu_mem_cb(insn, vcpu_mem, QEMU_PLUGIN_CB_NO_REGS,
                                             QEMU_PLUGIN_MEM_RW, NULL);
        } else if (last_wanted) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, vcpu_insn_end_line, flags, NULL);
        }
        last_wanted = wanted;
        free(text);
    }
}

static void plugin_exit(void *userdata)
{
    (void)userdata;
    for (int i = 0; i < qemu_plugin_num_vcpus(); i++)
        flush_line(qemu_plugin_scoreboard_find(lines, (unsigned)i));
}

static bool parse_ifilter(const char *value)
{
    if (n_ifilters < MAX_FILTERS)
        ifilters[n_ifilters++] = value;
    return true;
}

static bool parse_afilter(const char *value)
{
    char *end;
    uint64_t addr = strtoull(value, &end, 16);
    if (n_afilters < MAX_FILTERS)
        afilters[n_afilters++] = addr;
    return *value && !*end;
}

static bool parse_reg(const char *value)
{
    if (n_reg_globs < MAX_FILTERS)
        reg_globs[n_reg_globs++] = value;
    return true;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    const struct option options[] = {
        {"ifilter", OPTION_CALL, NULL, parse_ifilter},
        {"afilter", OPTION_CALL, NULL, parse_afilter},
        {"reg", OPTION_CALL, NULL, parse_reg},
        {"rdisas", OPTION_BOOL, &rdisas, NULL},
        {0},
    };
    (void)info;
    if (!parse_options(options, argc, argv) || !bytes_init(&buffer, 64))
        return -1;
    lines = qemu_plugin_scoreboard_new(sizeof(struct line));
    qemu_plugin_register_vcpu_init_cb(id, vcpu_init, NULL);
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans, NULL);
    qemu_plugin_register_atexit_cb(id, plugin_exit, NULL);
    return 0;
}
