/* execlog.c: one line per executed instruction: vCPU, address, code, text, accesses, registers.
 *
 *   ifilter=TEXT   only instructions whose text starts with TEXT; may be repeated
 *   afilter=ADDR   only the instruction at ADDR; may be repeated
 *   reg=GLOB       show registers of that name when they change; may be repeated
 *   rdisas=on      look at them only at the end of blocks and behind instructions whose text names
 *                  one, which are shown whatever the filters say */
#define EMU_PLUGIN_API_VERSION 4
#include "bytes.h"
#include "map.h"
#include "options.h"

#include <fnmatch.h>
#include <pthread.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

#define MAX_FILTERS 64
#define MAX_REGS    192
#define REG_SIZE    64 /* of zmm0 */

struct line { /* what is known of a vCPU's last instruction, printed when the next one runs */
    char *text;
    size_t len, room;
    bool check; /* whether it changed registers */
    uint8_t value[MAX_REGS][REG_SIZE];
};

struct place { /* an instruction */
    uint64_t pc;
    char *text; /* `0xPC, 0xCODE, "TEXT"` */
    bool check;
};

static struct qemu_plugin_scoreboard *lines;
static struct map places = {.record_size = sizeof(struct place)};
static const char *ifilters[MAX_FILTERS], *reg_globs[MAX_FILTERS];
static uint64_t afilters[MAX_FILTERS];
static size_t n_ifilters, n_afilters, n_reg_globs;
static qemu_plugin_reg_descriptor regs[MAX_REGS]; /* that are shown */
static size_t n_regs;
static bool rdisas;
static struct bytes buffer;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((format(printf, 2, 3))) static void append(struct line *line, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    size_t n = strlen(text);
    if (line->len + n >= line->room) {
        line->room = 2 * line->room + sizeof text;
        line->text = map_alloc(line->text, line->room);
    }
    memcpy(line->text + line->len, text, n + 1);
    line->len += n;
}

/* Reads register i into value; returns its size. Under lock. */
static unsigned read_reg(size_t i, uint8_t *value)
{
    buffer.len = 0;
    if (qemu_plugin_read_register(regs[i].handle, &buffer.array) <= 0)
        return 0;
    memcpy(value, buffer.data, buffer.len);
    return buffer.len;
}

/* Adds the registers that the last instruction changed. */
static void append_changes(struct line *line)
{
    uint8_t value[REG_SIZE] = {0};
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < n_regs; i++) {
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

static void end_line(struct line *line)
{
    if (!line->len)
        return;
    if (line->check)
        append_changes(line);
    append(line, "\n");
    qemu_plugin_outs(line->text);
    line->len = 0;
}

/* An instruction that is filtered out has no place; it only ends the line before it. */
static void vcpu_insn_exec(unsigned vcpu, void *userdata)
{
    const struct place *place = userdata;
    struct line *line = qemu_plugin_scoreboard_find(lines, vcpu);
    end_line(line);
    if (!place)
        return;
    line->check = place->check;
    append(line, "%u, %s", vcpu, place->text);
}

static void vcpu_mem(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *userdata)
{
    (void)userdata;
    struct line *line = qemu_plugin_scoreboard_find(lines, vcpu);
    append(line, ", %s, 0x%08" PRIx64, qemu_plugin_mem_is_store(info) ? "store" : "load", vaddr);
}

static void vcpu_init(qemu_plugin_id_t id, unsigned vcpu)
{
    (void)id;
    pthread_mutex_lock(&lock);
    GArray *all = n_reg_globs && !n_regs ? qemu_plugin_get_registers() : NULL;
    for (unsigned i = 0; all && i < all->len; i++) {
        const qemu_plugin_reg_descriptor *d = (const qemu_plugin_reg_descriptor *)all->data + i;
        size_t g = 0;
        while (g < n_reg_globs && fnmatch(reg_globs[g], d->name, 0))
            g++;
        if (g < n_reg_globs && n_regs < MAX_REGS)
            regs[n_regs++] = *d;
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

/* True if an operand is a register that is shown. */
static bool names_reg(const char *text)
{
    for (size_t i = 0; i < n_regs; i++)
        if (strstr(text + strcspn(text, " "), regs[i].name))
            return true;
    return false;
}

static struct place *make_place(const struct qemu_plugin_insn *insn, const char *text, bool check)
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
    place->check = check;
    pthread_mutex_unlock(&lock);
    return place;
}

static void vcpu_tb_trans(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    const enum qemu_plugin_cb_flags flags =
        n_reg_globs ? QEMU_PLUGIN_CB_R_REGS : QEMU_PLUGIN_CB_NO_REGS;
    bool last_wanted = true; /* by an earlier block, maybe */
    size_t n = qemu_plugin_tb_n_insns(tb);
    for (size_t i = 0; i < n; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        char *text = qemu_plugin_insn_disas(insn);
        bool named = rdisas && names_reg(text), check = !rdisas || named || i == n - 1;
        bool wanted = named || is_wanted(text, qemu_plugin_insn_vaddr(insn));
        if (wanted) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, vcpu_insn_exec, flags,
                                                   make_place(insn, text, check));
            qemu_plugin_register_vcpu_mem_cb(insn, vcpu_mem, QEMU_PLUGIN_CB_NO_REGS,
                                             QEMU_PLUGIN_MEM_RW, NULL);
        } else if (last_wanted) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, vcpu_insn_exec, flags, NULL);
        }
        last_wanted = wanted;
        free(text);
    }
}

static void plugin_exit(qemu_plugin_id_t id, void *userdata)
{
    (void)id, (void)userdata;
    for (int i = 0; i < qemu_plugin_num_vcpus(); i++) {
        struct line *line = qemu_plugin_scoreboard_find(lines, (unsigned)i);
        line->check = false; /* registers cannot be read now */
        end_line(line);
    }
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
    if (n_afilters < MAX_FILTERS)
        afilters[n_afilters++] = strtoull(value, &end, 16);
    return n_afilters < MAX_FILTERS && *value && !*end;
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
    if (!parse_options(options, argc, argv) || !bytes_init(&buffer, REG_SIZE))
        return -1;
    lines = qemu_plugin_scoreboard_new(sizeof(struct line));
    qemu_plugin_register_vcpu_init_cb(id, vcpu_init);
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans);
    qemu_plugin_register_atexit_cb(id, plugin_exit, NULL);
    return 0;
}
