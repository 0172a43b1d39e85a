/* Shows every memory access of the functions named row_*, one a line:
 * "NAME KIND R|W BYTES FLAGS ADDRESS VALUE"; KIND is "row" for the instruction behind the marker,
 * else "setup". With outside=on, only those of rows that are not on the operand's pages. With
 * count=on, how many reads and writes there were, counted inline: "NAME READS WRITES". Also runs
 * under QEMU. */
#include <inttypes.h>
#include <qemu-plugin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../accesses.h"

#ifndef VERSION
#define VERSION QEMU_PLUGIN_VERSION
#endif
QEMU_PLUGIN_EXPORT int qemu_plugin_version = VERSION;

static const unsigned char marker[] = {0x0f, 0x1f, 0x80, 0x5a, 0x5a, 0x5a, 0x5a};

static int only_outside, only_count;

#define MAX_ROWS 512
static struct count {
    const char *name;
    qemu_plugin_u64 reads, writes;
} counts[MAX_ROWS];

struct place {
    const char *name, *kind;
};

static void vcpu_mem(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *userdata)
{
    const struct place *place = userdata;
    qemu_plugin_mem_value value = qemu_plugin_mem_get_value(info);
    unsigned shift = qemu_plugin_mem_size_shift(info);
    uint64_t low = 0, high = 0;
    (void)vcpu;
    if (only_outside && vaddr - ACCESS_PAGE <= 4 * 4096 - (1ul << shift))
        return;
    switch (value.type) {
    case QEMU_PLUGIN_MEM_VALUE_U8:
        low = value.data.u8;
        break;
    case QEMU_PLUGIN_MEM_VALUE_U16:
        low = value.data.u16;
        break;
    case QEMU_PLUGIN_MEM_VALUE_U32:
        low = value.data.u32;
        break;
    case QEMU_PLUGIN_MEM_VALUE_U64:
        low = value.data.u64;
        break;
    case QEMU_PLUGIN_MEM_VALUE_U128:
        low = value.data.u128.low;
        high = value.data.u128.high;
        break;
    }
    fprintf(stderr, "%s %s %c %u %s%s- 0x%" PRIx64 " 0x%016" PRIx64 "%016" PRIx64 "%s\n",
            place->name, place->kind, qemu_plugin_mem_is_store(info) ? 'W' : 'R', 1u << shift,
            qemu_plugin_mem_is_sign_extended(info) ? "s" : "",
            qemu_plugin_mem_is_big_endian(info) ? "b" : "", vaddr, high, low,
            (unsigned)value.type == shift ? "" : " type FAILED");
}

static int is_marker(struct qemu_plugin_insn *insn)
{
#if VERSION <= 2
    const void *code = qemu_plugin_insn_data(insn);
#else
    unsigned char code[sizeof marker];
    qemu_plugin_insn_data(insn, code, sizeof code);
#endif
    return qemu_plugin_insn_size(insn) == sizeof marker && !memcmp(code, marker, sizeof marker);
}

static void watch(struct qemu_plugin_insn *insn, const char *name, int is_row)
{
    struct place *place = malloc(sizeof *place);
    if (!place)
        abort();
    *place = (struct place){name, is_row ? "row" : "setup"};
    qemu_plugin_register_vcpu_mem_cb(insn, vcpu_mem, QEMU_PLUGIN_CB_R_REGS, QEMU_PLUGIN_MEM_RW,
                                     place);
}

static struct count *find_count(const char *name)
{
    struct count *c = counts;
    while (c->name && strcmp(c->name, name))
        c++;
    if (c == counts + MAX_ROWS - 1)
        abort();
    if (!c->name) {
        c->name = name;
        c->reads = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(8));
        c->writes = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(8));
    }
    return c;
}

static void count(struct qemu_plugin_insn *insn, const char *name)
{
    struct count *c = find_count(name);
    qemu_plugin_register_vcpu_mem_inline_per_vcpu(insn, QEMU_PLUGIN_MEM_R,
                                                  QEMU_PLUGIN_INLINE_ADD_U64, c->reads, 1);
    qemu_plugin_register_vcpu_mem_inline_per_vcpu(insn, QEMU_PLUGIN_MEM_W,
                                                  QEMU_PLUGIN_INLINE_ADD_U64, c->writes, 3);
}

static void show_counts(qemu_plugin_id_t id, void *userdata)
{
    (void)id, (void)userdata;
    for (struct count *c = counts; c->name; c++)
        fprintf(stderr, "%s %" PRIu64 " %" PRIu64 "\n", c->name, qemu_plugin_u64_sum(c->reads),
                qemu_plugin_u64_sum(c->writes) / 3);
}

static void vcpu_tb_trans(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    static int after_marker;
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        const char *name = qemu_plugin_insn_symbol(insn);
        if (name && !strncmp(name, "row_", 4) && (after_marker || !(only_outside || only_count)))
            (only_count ? count(insn, name + 4) : watch(insn, name + 4, after_marker));
        after_marker = is_marker(insn);
    }
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    (void)info;
    only_outside = argc > 0 && !strcmp(argv[0], "outside=on");
    only_count = argc > 0 && !strcmp(argv[0], "count=on");
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans);
    if (only_count)
        qemu_plugin_register_atexit_cb(id, show_counts, NULL);
    return 0;
}
