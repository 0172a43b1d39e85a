/* stoptrigger.c: ends the program at a point.
 *
 *   icount=N[:CODE]   after N instructions of one vCPU, with exit status CODE (default 0)
 *   addr=A[:CODE]     when the instruction at A, say 0x401000, is reached; may be repeated */
#define EMU_PLUGIN_API_VERSION 4
#include "map.h"
#include "options.h"

#include <pthread.h>
#include <unistd.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

struct trigger {
    uint64_t addr;
    int code;
};

static qemu_plugin_u64 insns;
static uint64_t icount;
static int icount_code;
static struct map triggers = {.record_size = sizeof(struct trigger)};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void exit_icount_reached(unsigned vcpu, void *pc)
{
    (void)vcpu;
    pthread_mutex_lock(&lock); /* one thread ends the process */
    outf("icount reached at 0x%" PRIx64 ", exiting\n", (uint64_t)(uintptr_t)pc);
    exit(icount_code);
}

static void exit_address_reached(unsigned vcpu, void *userdata)
{
    (void)vcpu;
    const struct trigger *t = userdata;
    pthread_mutex_lock(&lock);
    outf("0x%" PRIx64 " reached, exiting\n", t->addr);
    exit(t->code);
}

static void vcpu_tb_trans(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        uint64_t pc = qemu_plugin_insn_vaddr(insn);
        if (icount) {
            qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, QEMU_PLUGIN_INLINE_ADD_U64,
                                                                insns, 1);
            qemu_plugin_register_vcpu_insn_exec_cond_cb(insn, exit_icount_reached,
                                                        QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_COND_EQ,
                                                        insns, icount + 1, (void *)(uintptr_t)pc);
        }
        uint32_t slot = triggers.n ? map_entry(&triggers, pc)->slot : 0;
        if (slot)
            qemu_plugin_register_vcpu_insn_exec_cb(
                insn, exit_address_reached, QEMU_PLUGIN_CB_NO_REGS, triggers.records[slot - 1]);
    }
}

/* NUMBER[:CODE] */
static bool parse_trigger(const char *value, uint64_t *number, int *code)
{
    char *end;
    *code = 0;
    *number = strtoull(value, &end, 0);
    if (end == value)
        return false;
    if (*end == ':' && end[1])
        *code = (int)strtol(end + 1, &end, 0);
    return !*end;
}

static bool parse_icount(const char *value)
{
    return parse_trigger(value, &icount, &icount_code) && icount;
}

static bool parse_addr(const char *value)
{
    uint64_t addr;
    int code;
    if (!parse_trigger(value, &addr, &code))
        return false;
    ((struct trigger *)map_get(&triggers, addr))->code = code;
    return true;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    const struct option options[] = {
        {"icount", OPTION_CALL, NULL, parse_icount},
        {"addr", OPTION_CALL, NULL, parse_addr},
        {0},
    };
    (void)info;
    if (!parse_options(options, argc, argv))
        return -1;
    if (!icount && !triggers.n) {
        fprintf(stderr, "'icount' or 'addr' argument missing\n");
        return -1;
    }
    insns = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans);
    return 0;
}
