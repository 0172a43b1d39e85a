/* inline.c: checks that callbacks, inline operations and conditional callbacks agree.
 *
 * Blocks, instructions and accesses are counted in four ways each; a difference aborts. */
#define EMU_PLUGIN_API_VERSION 4
#include "options.h"

#include <stdatomic.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

#define TRIGGER 100 /* a conditional callback runs every so many times */

enum { TB, INSN, MEM, N_EVENTS };
static const char *const names[N_EVENTS] = {"tb", "insn", "mem"};

struct counts { /* of one event, per vCPU */
    uint64_t called, inlined, since_trigger, triggers;
};

static _Atomic uint64_t totals[N_EVENTS];
static struct qemu_plugin_scoreboard *score;
static qemu_plugin_u64 called[N_EVENTS], inlined[N_EVENTS];
static qemu_plugin_u64 since_trigger[N_EVENTS], triggers[N_EVENTS];

static void count(unsigned vcpu, uintptr_t event)
{
    atomic_fetch_add_explicit(&totals[event], 1, memory_order_relaxed);
    qemu_plugin_u64_add(called[event], vcpu, 1);
}

static void vcpu_exec(unsigned vcpu, void *event)
{
    count(vcpu, (uintptr_t)event);
}

static void vcpu_exec_cond(unsigned vcpu, void *event)
{
    uintptr_t i = (uintptr_t)event;
    qemu_plugin_u64_add(triggers[i], vcpu, 1);
    qemu_plugin_u64_set(since_trigger[i], vcpu, 0);
}

static void vcpu_mem(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *event)
{
    (void)info, (void)vaddr;
    count(vcpu, (uintptr_t)event);
}

static void instrument_insn(struct qemu_plugin_insn *insn)
{
    const enum qemu_plugin_op add = QEMU_PLUGIN_INLINE_ADD_U64;
    const enum qemu_plugin_cb_flags flags = QEMU_PLUGIN_CB_NO_REGS;
    qemu_plugin_register_vcpu_insn_exec_cb(insn, vcpu_exec, flags, (void *)INSN);
    qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, add, inlined[INSN], 1);
    qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, add, since_trigger[INSN], 1);
    qemu_plugin_register_vcpu_insn_exec_cond_cb(insn, vcpu_exec_cond, flags, QEMU_PLUGIN_COND_EQ,
                                                since_trigger[INSN], TRIGGER, (void *)INSN);
    qemu_plugin_register_vcpu_mem_cb(insn, vcpu_mem, flags, QEMU_PLUGIN_MEM_RW, (void *)MEM);
    qemu_plugin_register_vcpu_mem_inline_per_vcpu(insn, QEMU_PLUGIN_MEM_RW, add, inlined[MEM], 1);
}

static void vcpu_tb_trans(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    const enum qemu_plugin_op add = QEMU_PLUGIN_INLINE_ADD_U64;
    const enum qemu_plugin_cb_flags flags = QEMU_PLUGIN_CB_NO_REGS;
    qemu_plugin_register_vcpu_tb_exec_cb(tb, vcpu_exec, flags, (void *)TB);
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, add, inlined[TB], 1);
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, add, since_trigger[TB], 1);
    qemu_plugin_register_vcpu_tb_exec_cond_cb(tb, vcpu_exec_cond, flags, QEMU_PLUGIN_COND_EQ,
                                              since_trigger[TB], TRIGGER, (void *)TB);
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++)
        instrument_insn(qemu_plugin_tb_get_insn(tb, i));
}

static void report_vcpu(unsigned vcpu)
{
    uint64_t n[4][N_EVENTS];
    for (size_t i = 0; i < N_EVENTS; i++) {
        const qemu_plugin_u64 ways[] = {called[i], inlined[i], triggers[i], since_trigger[i]};
        for (size_t way = 0; way < 4; way++)
            n[way][i] = qemu_plugin_u64_get(ways[way], vcpu);
    }
    outf("cpu %u: tb (%" PRIu64 ", %" PRIu64 ", %" PRIu64 " * %d + %" PRIu64 ") | insn (%" PRIu64
         ", %" PRIu64 ", %" PRIu64 " * %d + %" PRIu64 ") | mem (%" PRIu64 ", %" PRIu64 ")\n",
         vcpu, n[0][TB], n[1][TB], n[2][TB], TRIGGER, n[3][TB], n[0][INSN], n[1][INSN], n[2][INSN],
         TRIGGER, n[3][INSN], n[0][MEM], n[1][MEM]);
}

static void check(const char *name, const char *way, uint64_t n, uint64_t expected)
{
    outf("%s: %" PRIu64 "%s\n", name, n, way);
    if (n != expected) {
        fprintf(stderr, "inline: %s%s: %" PRIu64 ", expected %" PRIu64 "\n", name, way, n,
                expected);
        abort();
    }
}

static void plugin_exit(qemu_plugin_id_t id, void *userdata)
{
    (void)id, (void)userdata;
    for (int i = 0; i < qemu_plugin_num_vcpus(); i++)
        report_vcpu((unsigned)i);
    for (int i = 0; i < N_EVENTS; i++) {
        uint64_t n = totals[i];
        check(names[i], "", n, n);
        check(names[i], " (per vcpu)", qemu_plugin_u64_sum(called[i]), n);
        check(names[i], " (per vcpu inline)", qemu_plugin_u64_sum(inlined[i]), n);
        if (i != MEM)
            check(names[i], i == TB ? " (conditional cb)" : " (cond cb)",
                  qemu_plugin_u64_sum(triggers[i]) * TRIGGER +
                      qemu_plugin_u64_sum(since_trigger[i]),
                  n);
    }
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    const struct option options[] = {{0}};
    (void)info;
    if (!parse_options(options, argc, argv))
        return -1;
    score = qemu_plugin_scoreboard_new(N_EVENTS * sizeof(struct counts));
    for (size_t i = 0; i < N_EVENTS; i++) {
        size_t at = i * sizeof(struct counts);
        called[i] = (qemu_plugin_u64){score, at + offsetof(struct counts, called)};
        inlined[i] = (qemu_plugin_u64){score, at + offsetof(struct counts, inlined)};
        since_trigger[i] = (qemu_plugin_u64){score, at + offsetof(struct counts, since_trigger)};
        triggers[i] = (qemu_plugin_u64){score, at + offsetof(struct counts, triggers)};
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans);
    qemu_plugin_register_atexit_cb(id, plugin_exit, NULL);
    return 0;
}
