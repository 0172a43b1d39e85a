/* Callbacks that take a lock, as GLib's mutex does: an inline count must agree with theirs, and the
 * slow paths must run whenever the lock is not free. From the system call on that holds=N gives, it
 * is held between every other two, while there is one thread; without that, never. With stores=on
 * callbacks of stores take it too. */
#include <qemu-plugin.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static int word; /* 0: free, 1: held, 2: somebody waits */
static bool held, with_stores;
static unsigned syscalls, first_hold;
static uint64_t counted, wrong, waits, wakes, held_blocks, held_since, stored, translated;
static qemu_plugin_u64 blocks, stores;

static __attribute__((noinline)) void wait_for_lock(void)
{
    if (held)
        waits++;
    while (__atomic_exchange_n(&word, 2, __ATOMIC_ACQUIRE) != 0 && !held)
        sched_yield();
}

static __attribute__((noinline)) void wake_others(void)
{
    if (held) {
        wakes++;
        word = 1;
    }
}

static __attribute__((noinline)) void lock(int *at)
{
    int expected = 0;
    if (!__atomic_compare_exchange_n(at, &expected, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        wait_for_lock();
}

static __attribute__((noinline)) void unlock(int *at)
{
    if (__atomic_exchange_n(at, 0, __ATOMIC_RELEASE) != 1)
        wake_others();
}

static void vcpu_tb_exec(unsigned vcpu, void *userdata)
{
    (void)vcpu, (void)userdata;
    lock(&word);
    counted++;
    unlock(&word);
}

/* The lock is seen to be held by who holds it. */
static void vcpu_tb_look(unsigned vcpu, void *userdata)
{
    (void)vcpu, (void)userdata;
    lock(&word);
    if (*(volatile int *)&word == 0)
        wrong++;
    counted++;
    unlock(&word);
}

static void vcpu_mem(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *userdata)
{
    (void)vcpu, (void)info, (void)vaddr, (void)userdata;
    lock(&word);
    stored++;
    unlock(&word);
}

static void count_stores(struct qemu_plugin_insn *insn)
{
    qemu_plugin_register_vcpu_mem_inline_per_vcpu(insn, QEMU_PLUGIN_MEM_W,
                                                  QEMU_PLUGIN_INLINE_ADD_U64, stores, 1);
    qemu_plugin_register_vcpu_mem_cb(insn, vcpu_mem, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_W,
                                     NULL);
}

/* Whoever waits here keeps others from translating. */
static void count_translation(void)
{
    lock(&word);
    translated++;
    unlock(&word);
}

static void vcpu_tb_trans(struct qemu_plugin_tb *tb, void *userdata)
{
    bool looks = qemu_plugin_tb_vaddr(tb) % 8 == 0;
    (void)userdata;
    if (!first_hold)
        count_translation();
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64, blocks, 1);
    qemu_plugin_register_vcpu_tb_exec_cb(tb, looks ? vcpu_tb_look : vcpu_tb_exec,
                                         QEMU_PLUGIN_CB_NO_REGS, NULL);
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb) && with_stores; i++)
        count_stores(qemu_plugin_tb_get_insn(tb, i));
}

static void vcpu_syscall(unsigned vcpu, int64_t num, uint64_t a1, uint64_t a2, uint64_t a3,
                         uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8,
                         void *userdata)
{
    (void)vcpu, (void)a1, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7;
    (void)a8, (void)userdata;
    bool alone = qemu_plugin_num_vcpus() == 1 && num != SYS_clone && num != SYS_clone3;
    uint64_t sum = qemu_plugin_u64_sum(blocks);
    if (held) {
        held_blocks += sum - held_since;
        word = 0;
    }
    held = alone && !held && first_hold && ++syscalls >= first_hold;
    held_since = sum;
    if (held)
        word = 1;
}

static void plugin_exit(void *userdata)
{
    uint64_t sum = qemu_plugin_u64_sum(blocks);
    (void)userdata;
    if (held)
        held_blocks += sum - held_since;
    if (counted != sum || waits != held_blocks || wakes != held_blocks || wrong ||
        stored != qemu_plugin_u64_sum(stores) || !held_blocks != !first_hold)
        fprintf(stderr, "FAILED: ");
    fprintf(stderr, "%lu of %lu blocks counted, %lu waited and %lu woke of %lu, %lu wrong\n",
            counted, sum, waits, wakes, held_blocks, wrong);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    (void)info;
    if (argc == 1 && !strncmp(argv[0], "holds=", 6))
        first_hold = (unsigned)atoi(argv[0] + 6);
    with_stores = argc == 1 && !strcmp(argv[0], "stores=on");
    blocks = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    stores = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans, NULL);
    qemu_plugin_register_vcpu_syscall_cb(id, vcpu_syscall, NULL);
    qemu_plugin_register_atexit_cb(id, plugin_exit, NULL);
    return 0;
}
