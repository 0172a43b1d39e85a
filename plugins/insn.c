/* insn.c: counts instructions per vCPU.
 *
 *   inline=on    count by inline operations
 *   sizes=on     how many instructions were translated of each size
 *   match=TEXT   count executions of instructions whose text starts with TEXT; may be repeated
 *   trace=on     report each of these when it runs */
#define EMU_PLUGIN_API_VERSION 4
#include "map.h"
#include "options.h"

#include <pthread.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

#define MAX_SIZE    16
#define MAX_MATCHES 64

struct match { /* what was asked for */
    const char *text;
    struct qemu_plugin_scoreboard *hits;
    struct map places;
};
struct hits {                   /* of a match, per vCPU */
    uint64_t n, last, distance; /* last: when, in instructions */
};
struct place { /* an instruction that matches */
    uint64_t pc;
    char *text;
    const struct match *match;
    qemu_plugin_u64 hits;
};

static qemu_plugin_u64 insns;
static bool do_inline, do_sizes, do_trace;
static uint64_t sizes[MAX_SIZE];
static struct match matches[MAX_MATCHES];
static size_t n_matches;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void vcpu_insn_exec(unsigned vcpu, void *userdata)
{
    (void)userdata;
    qemu_plugin_u64_add(insns, vcpu, 1);
}

static void vcpu_match_exec(unsigned vcpu, void *userdata)
{
    const struct place *place = userdata;
    struct hits *hits = qemu_plugin_scoreboard_find(place->match->hits, vcpu);
    uint64_t now = qemu_plugin_u64_get(insns, vcpu), distance = now - hits->last;
    qemu_plugin_u64_add(place->hits, vcpu, 1);
    hits->n++;
    hits->distance += distance;
    hits->last = now;
    if (do_trace)
        outf("0x%" PRIx64 ", '%s', %" PRIu64 " hits , cpu %u, %" PRIu64 " match hits, Δ+%" PRIu64
             " since last match, %" PRIu64 " avg insns/match\n",
             place->pc, place->text, qemu_plugin_u64_sum(place->hits), vcpu, hits->n, distance,
             hits->distance / hits->n);
}

static void watch_place(struct qemu_plugin_insn *insn, struct match *match, const char *text)
{
    struct place *place = map_get(&match->places, qemu_plugin_insn_vaddr(insn));
    if (!place->hits.score) {
        place->hits = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
        place->match = match;
    }
    if (!place->text || strcmp(place->text, text))
        place->text = strdup(text); /* an old one may still be in use */
    qemu_plugin_register_vcpu_insn_exec_cb(insn, vcpu_match_exec, QEMU_PLUGIN_CB_NO_REGS, place);
}

static void watch_matches(struct qemu_plugin_insn *insn)
{
    char *text = qemu_plugin_insn_disas(insn);
    for (size_t i = 0; i < n_matches; i++)
        if (!strncmp(text, matches[i].text, strlen(matches[i].text)))
            watch_place(insn, &matches[i], text);
    free(text);
}

static void vcpu_tb_trans(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        if (do_inline)
            qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, QEMU_PLUGIN_INLINE_ADD_U64,
                                                                insns, 1);
        else
            qemu_plugin_register_vcpu_insn_exec_cb(insn, vcpu_insn_exec, QEMU_PLUGIN_CB_NO_REGS,
                                                   NULL);
        sizes[qemu_plugin_insn_size(insn) % MAX_SIZE]++;
        if (n_matches)
            watch_matches(insn);
    }
    pthread_mutex_unlock(&lock);
}

static void report_match(const struct match *match)
{
    outf("Match: %s, hits %" PRIu64 "\n", match->text,
         qemu_plugin_u64_sum(qemu_plugin_scoreboard_u64_in_struct(match->hits, struct hits, n)));
    for (size_t i = 0; i < match->places.n; i++) {
        const struct place *place = match->places.records[i];
        outf("  %" PRIx64 ": %s (hits %" PRIu64 ")\n", place->pc, place->text,
             qemu_plugin_u64_sum(place->hits));
    }
}

static void plugin_exit(qemu_plugin_id_t id, void *userdata)
{
    (void)id, (void)userdata;
    for (int i = 0; do_sizes && i < MAX_SIZE; i++)
        if (sizes[i])
            outf("len %d bytes: %" PRIu64 " insns\n", i, sizes[i]);
    for (int i = 0; !do_sizes && i < qemu_plugin_num_vcpus(); i++)
        outf("cpu %d insns: %" PRIu64 "\n", i, qemu_plugin_u64_get(insns, (unsigned)i));
    if (!do_sizes)
        outf("total insns: %" PRIu64 "\n", qemu_plugin_u64_sum(insns));
    for (size_t i = 0; i < n_matches; i++)
        report_match(&matches[i]);
}

static bool parse_match(const char *text)
{
    if (n_matches == MAX_MATCHES)
        return false;
    matches[n_matches++] = (struct match){.text = text,
                                          .hits = qemu_plugin_scoreboard_new(sizeof(struct hits)),
                                          .places = {.record_size = sizeof(struct place)}};
    return true;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    const struct option options[] = {
        {"inline", OPTION_BOOL, &do_inline, NULL},
        {"sizes", OPTION_BOOL, &do_sizes, NULL},
        {"match", OPTION_CALL, NULL, parse_match},
        {"trace", OPTION_BOOL, &do_trace, NULL},
        {0},
    };
    (void)info;
    if (!parse_options(options, argc, argv))
        return -1;
    insns = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans);
    qemu_plugin_register_atexit_cb(id, plugin_exit, NULL);
    return 0;
}
