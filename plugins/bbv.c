/* bbv.c: basic block vectors for SimPoint.
 *
 *   outfile=PREFIX   vCPU N writes PREFIX.N.bb (required); in other processes than the first, and
 *                    for %p, PREFIX holds the process id (process.h)
 *   interval=N       instructions per vector (default 100000000) */
#define EMU_PLUGIN_API_VERSION 4
#include "map.h"
#include "options.h"
#include "process.h"

#include <pthread.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

struct block {
    uint64_t start;
    uint64_t index;
    qemu_plugin_u64 insns; /* executed since the last vector */
};

struct vcpu {
    uint64_t insns; /* since the last vector */
    FILE *file;
};

static struct qemu_plugin_scoreboard *vcpus;
static qemu_plugin_u64 vcpu_insns;
static uint64_t interval = 100000000;
static const char *prefix;
static pid_t first_pid;
static struct map blocks = {.record_size = sizeof(struct block)};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void open_vector_file(struct vcpu *vcpu, unsigned index)
{
    char start[4096], name[4128];
    name_file(start, sizeof start, prefix, first_pid);
    snprintf(name, sizeof name, "%s.%u.bb", start, index);
    vcpu->file = fopen(name, "we");
    if (!vcpu->file) {
        perror(name);
        exit(1);
    }
}

static void write_vector(unsigned index)
{
    struct vcpu *vcpu = qemu_plugin_scoreboard_find(vcpus, index);
    pthread_mutex_lock(&lock);
    if (!vcpu->file)
        open_vector_file(vcpu, index);
    fputc('T', vcpu->file);
    for (size_t i = 0; i < blocks.n; i++) {
        const struct block *block = blocks.records[i];
        uint64_t insns = qemu_plugin_u64_get(block->insns, index);
        if (!insns)
            continue;
        fprintf(vcpu->file, ":%" PRIu64 ":%" PRIu64 " ", block->index, insns);
        qemu_plugin_u64_set(block->insns, index, 0);
    }
    fputc('\n', vcpu->file);
    vcpu->insns -= interval;
    pthread_mutex_unlock(&lock);
}

static void vcpu_interval_exec(unsigned index, void *userdata)
{
    (void)userdata;
    write_vector(index);
}

static void vcpu_tb_trans(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    uint64_t n = qemu_plugin_tb_n_insns(tb);
    pthread_mutex_lock(&lock);
    struct block *block = map_get(&blocks, qemu_plugin_tb_vaddr(tb));
    if (!block->index) {
        block->index = blocks.n;
        block->insns = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    }
    pthread_mutex_unlock(&lock);
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64, vcpu_insns,
                                                      n);
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64, block->insns,
                                                      n);
    qemu_plugin_register_vcpu_tb_exec_cond_cb(tb, vcpu_interval_exec, QEMU_PLUGIN_CB_NO_REGS,
                                              QEMU_PLUGIN_COND_GE, vcpu_insns, interval, NULL);
}

static void plugin_exit(qemu_plugin_id_t id, void *userdata)
{
    (void)id, (void)userdata;
    for (int i = 0; i < qemu_plugin_num_vcpus(); i++) {
        struct vcpu *vcpu = qemu_plugin_scoreboard_find(vcpus, (unsigned)i);
        if (vcpu->file)
            fflush(vcpu->file);
    }
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    const struct option options[] = {
        {"interval", OPTION_U64, &interval, NULL},
        {"outfile", OPTION_STRING, &prefix, NULL},
        {0},
    };
    (void)info;
    if (!parse_options(options, argc, argv))
        return -1;
    if (!prefix) {
        fprintf(stderr, "outfile unspecified\n");
        return -1;
    }
    prefix = absolute_name(prefix);
    first_pid = getpid();
    vcpus = qemu_plugin_scoreboard_new(sizeof(struct vcpu));
    vcpu_insns = qemu_plugin_scoreboard_u64_in_struct(vcpus, struct vcpu, insns);
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans);
    qemu_plugin_register_atexit_cb(id, plugin_exit, NULL);
    return 0;
}
