/* Resets itself all the time, and uninstalls itself after the number of resets that lives=N gives,
 * while threads run. Each life counts blocks and accesses in several ways, which must agree
 * whenever it ends; its memory is made inaccessible then, so that nothing may use it any more.
 * NAME tells several builds apart. */
#include <qemu-plugin.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { VCPUS = 256, LIFETIME = 400 /* heavy callbacks of a vCPU */ };

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

/* Callbacks get it as their userdata. */
struct life {
    uint64_t heavy[VCPUS], light[VCPUS]; /* blocks: a call that looks around, one that counts */
    uint64_t insns[VCPUS], accesses[VCPUS];
    void *element[VCPUS]; /* of the scoreboard: it never moves */
    unsigned flushes;
    struct qemu_plugin_scoreboard *score;
    qemu_plugin_u64 some_blocks, blocks, block_insns, each_insn, loads_and_stores;
};

static qemu_plugin_id_t my_id;
static struct life *life; /* NULL: it is uninstalled */
static unsigned lives, max_lives;
static atomic_int failures, initialised;

static void fail(const char *what)
{
    if (atomic_fetch_add(&failures, 1) < 10)
        fprintf(stderr, "%s: %s FAILED in life %u\n", NAME, what, lives);
}

/* ---- a life ---- */

static void start_life(void)
{
    life = mmap(NULL, sizeof *life, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (life == MAP_FAILED)
        abort();
    life->score = qemu_plugin_scoreboard_new(5 * sizeof(uint64_t));
    life->some_blocks = (qemu_plugin_u64){life->score, 32};
    life->blocks = (qemu_plugin_u64){life->score, 0};
    life->block_insns = (qemu_plugin_u64){life->score, 8};
    life->each_insn = (qemu_plugin_u64){life->score, 16};
    life->loads_and_stores = (qemu_plugin_u64){life->score, 24};
    lives++;
}

static void check_counts(void)
{
    for (unsigned i = 0; i < (unsigned)qemu_plugin_num_vcpus() && i < VCPUS; i++) {
        if (life->heavy[i] != qemu_plugin_u64_get(life->some_blocks, i))
            fail("some blocks");
        if (life->light[i] != qemu_plugin_u64_get(life->blocks, i))
            fail("blocks");
        if (life->insns[i] != qemu_plugin_u64_get(life->each_insn, i) ||
            life->insns[i] != qemu_plugin_u64_get(life->block_insns, i))
            fail("instructions");
        if (life->accesses[i] != qemu_plugin_u64_get(life->loads_and_stores, i))
            fail("accesses");
    }
}

/* Ends by reset or uninstall: the flush that is part of it came first. */
static void end_life(void)
{
    check_counts();
    if (!life->flushes)
        fail("flush");
    qemu_plugin_scoreboard_free(life->score);
    mprotect(life, sizeof *life, PROT_NONE);
    life = NULL;
}

/* ---- its callbacks ---- */

static void register_all(void);

static void on_uninstall(void *userdata)
{
    (void)userdata;
    end_life();
    fprintf(stderr, "%s: uninstalled after %u lives\n", NAME, lives);
}

static void on_reset(void *userdata)
{
    if (userdata != life)
        fail("userdata of reset");
    end_life();
    start_life();
    register_all();
}

static void end_soon(void)
{
    if (max_lives && lives >= max_lives)
        qemu_plugin_uninstall(my_id, on_uninstall, NULL);
    else
        qemu_plugin_reset(my_id, on_reset, life);
}

static void vcpu_tb_heavy(unsigned vcpu, void *userdata)
{
    struct life *mine = userdata;
    if (vcpu >= VCPUS)
        return;
    if (mine != life)
        fail("life of a block");
    void *element = qemu_plugin_scoreboard_find(mine->score, vcpu);
    if (mine->element[vcpu] && mine->element[vcpu] != element)
        fail("address of an element");
    mine->element[vcpu] = element;
    if (++mine->heavy[vcpu] == LIFETIME)
        end_soon();
}

static void vcpu_tb_light(unsigned vcpu, void *userdata)
{
    ((struct life *)userdata)->light[vcpu % VCPUS]++;
}

static void vcpu_insn(unsigned vcpu, void *userdata)
{
    ((struct life *)userdata)->insns[vcpu % VCPUS]++;
}

static void vcpu_mem(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *userdata)
{
    (void)info, (void)vaddr;
    ((struct life *)userdata)->accesses[vcpu % VCPUS]++;
}

static void vcpu_tb_trans(struct qemu_plugin_tb *tb, void *userdata)
{
    const enum qemu_plugin_op add = QEMU_PLUGIN_INLINE_ADD_U64;
    size_t n = qemu_plugin_tb_n_insns(tb);
    if (userdata != life)
        fail("life of a translation");
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, add, life->blocks, 1);
    if (qemu_plugin_tb_vaddr(tb) % 4 == 0) {
        qemu_plugin_register_vcpu_tb_exec_cb(tb, vcpu_tb_heavy, QEMU_PLUGIN_CB_R_REGS, life);
        qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, add, life->some_blocks, 1);
    }
    qemu_plugin_register_vcpu_tb_exec_cb(tb, vcpu_tb_light, QEMU_PLUGIN_CB_NO_REGS, life);
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, add, life->block_insns, n);
    for (size_t i = 0; i < n; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        qemu_plugin_register_vcpu_insn_exec_cb(insn, vcpu_insn, QEMU_PLUGIN_CB_NO_REGS, life);
        qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, add, life->each_insn, 1);
        qemu_plugin_register_vcpu_mem_inline_per_vcpu(insn, QEMU_PLUGIN_MEM_RW, add,
                                                      life->loads_and_stores, 1);
        qemu_plugin_register_vcpu_mem_cb(insn, vcpu_mem, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_RW,
                                         life);
    }
}

static void vcpu_syscall(unsigned vcpu, int64_t num, uint64_t a1, uint64_t a2, uint64_t a3,
                         uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8,
                         void *userdata)
{
    (void)vcpu, (void)a1, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (userdata != life || !life->score)
        fail("life of a syscall");
    if (num == 39) /* getpid: nobody does */
        qemu_plugin_register_vcpu_syscall_cb(my_id, NULL, NULL);
}

static void vcpu_init(unsigned vcpu, void *userdata)
{
    (void)vcpu;
    initialised++;
    if (userdata != life)
        fail("life of a thread");
}

static void flushed(void *userdata)
{
    ((struct life *)userdata)->flushes++;
}

static void plugin_exit(void *userdata)
{
    if (userdata != life)
        fail("life at the end");
    check_counts();
    fprintf(stderr, "%s: ends in life %u, %d threads\n", NAME, lives, initialised);
}

static void register_all(void)
{
    qemu_plugin_register_vcpu_init_cb(my_id, vcpu_init, life);
    qemu_plugin_register_vcpu_tb_trans_cb(my_id, vcpu_tb_trans, life);
    qemu_plugin_register_vcpu_syscall_cb(my_id, vcpu_syscall, life);
    qemu_plugin_register_flush_cb(my_id, flushed, life);
    qemu_plugin_register_atexit_cb(my_id, plugin_exit, life);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    (void)info;
    my_id = id;
    if (argc == 1 && !strncmp(argv[0], "lives=", 6))
        max_lives = (unsigned)atoi(argv[0] + 6);
    start_life();
    register_all();
    return 0;
}
