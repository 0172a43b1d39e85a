/* cpu.c: virtual CPUs and their run loop. A vCPU is a guest thread on a host thread of its own.
 *
 * Neutral: knows exits by their reasons, registers not at all. */

#include "emu.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_CPUS 65536

__thread struct cpu *this_cpu;
static __thread sigjmp_buf loop_start;

static struct {
    pthread_mutex_t lock; /* innermost */
    struct cpu *by_index[MAX_CPUS];
    bool live[MAX_CPUS];
    int count;
} cpus = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* QEMU's numbering: one more than the largest live index. */
static int next_index(void)
{
    int i = cpus.count;
    while (i > 0 && !cpus.live[i - 1])
        i--;
    return i;
}

/* Zeros at start, or anywhere if that is 0; NULL: something is there. */
static uint8_t *map_zeros(uint64_t start, size_t size)
{
    int fixed = start ? MAP_FIXED_NOREPLACE : 0;
    void *p = mmap((void *)start, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | fixed, -1, 0);
    if (p == MAP_FAILED && errno != EEXIST)
        die("out of memory for a virtual CPU: %s", strerror(errno));
    if (p == MAP_FAILED || !start || p == (void *)start)
        return p == MAP_FAILED ? NULL : p;
    munmap(p, size); /* a kernel that takes the place for a hint */
    return NULL;
}

/* Without plugins there are no scoreboards: limits on address space count them. */
static bool map_in_window(uint64_t cpu)
{
    if (!map_zeros(cpu, CPU_SIZE))
        return false;
    if (plugin_is_loaded() &&
        !map_zeros(cpu + (uint64_t)SCOREBOARD_OFFSET, SCOREBOARD_MAX + CELLS_SIZE)) {
        munmap((void *)cpu, CPU_SIZE);
        return false;
    }
    vma_keep_clear(cpu - CPU_WINDOW_BELOW, cpu + CPU_WINDOW_ABOVE);
    return true;
}

/* In the next window that is free. Once there is none left, generated code does without. */
static struct cpu *map_cpu(void)
{
    static uint64_t next = CPU_WINDOWS_END - CPU_WINDOW_ABOVE;
    while (next >= CPU_WINDOWS_START) {
        uint64_t cpu = next;
        next -= CPU_WINDOW;
        if (map_in_window(cpu))
            return (struct cpu *)cpu;
    }
    jit_stop_faults();
    size_t below = plugin_is_loaded() ? (size_t)-SCOREBOARD_OFFSET : 0;
    return (struct cpu *)(void *)(map_zeros(0, below + CPU_SIZE) + below);
}

struct cpu *cpu_create(void)
{
    pthread_mutex_lock(&cpus.lock);
    int index = next_index();
    if (index == MAX_CPUS)
        die("more than %d threads at once", MAX_CPUS);
    if (!cpus.by_index[index])
        cpus.by_index[index] = map_cpu();
    struct cpu *cpu = cpus.by_index[index];
    memset(cpu, 0, sizeof(*cpu));
    cpu->self = cpu;
    cpu->index = index;
    cpu->tid = (int)syscall(SYS_gettid);
    cpus.live[index] = true;
    if (index >= cpus.count)
        cpus.count = index + 1;
    pthread_mutex_unlock(&cpus.lock);
    this_cpu = cpu;
    jit_attach(cpu);
    signal_thread_init(cpu);
    return cpu;
}

struct cpu *cpu_by_index(unsigned index)
{
    return index < MAX_CPUS ? cpus.by_index[index] : NULL;
}

int cpu_count(void)
{
    return cpus.count;
}

bool cpu_is_live(const struct cpu *cpu)
{
    return cpus.live[cpu->index];
}

void cpu_retire(struct cpu *cpu)
{
    signal_thread_exit(cpu);
    pthread_mutex_lock(&cpus.lock);
    cpus.live[cpu->index] = false;
    pthread_mutex_unlock(&cpus.lock);
}

static bool is_in_cache(const struct cpu *cpu)
{
    return cpu->in_cache;
}

static bool is_busy(const struct cpu *cpu)
{
    return cpu->in_cache || cpu->in_plugin;
}

static bool have_others(const struct cpu *cpu, bool (*property)(const struct cpu *))
{
    bool found = false;
    pthread_mutex_lock(&cpus.lock);
    for (int i = 0; i < cpus.count && !found; i++)
        found = cpus.live[i] && i != cpu->index && property(cpus.by_index[i]);
    pthread_mutex_unlock(&cpus.lock);
    return found;
}

bool cpu_is_last(const struct cpu *cpu)
{
    return !have_others(cpu, cpu_is_live);
}

bool cpu_others_in_cache(const struct cpu *cpu)
{
    return have_others(cpu, is_in_cache);
}

void cpu_evict_others(const struct cpu *cpu)
{
    pthread_mutex_lock(&cpus.lock);
    for (int i = 0; i < cpus.count; i++)
        if (cpus.live[i] && i != cpu->index && is_in_cache(cpus.by_index[i]))
            signal_evict(cpus.by_index[i]);
    pthread_mutex_unlock(&cpus.lock);
}

bool cpu_others_busy(const struct cpu *cpu)
{
    return have_others(cpu, is_busy);
}

void cpu_fork_child(struct cpu *cpu)
{
    memset(cpus.live, 0, sizeof(cpus.live));
    cpus.live[cpu->index] = true;
}

struct cpu_snapshot {
    struct cpu cpu;
    sigjmp_buf loop_start;
    struct signal_snapshot *signals;
};

struct cpu_snapshot *cpu_save(struct cpu *cpu)
{
    struct cpu_snapshot *snapshot = aligned_alloc(_Alignof(struct cpu), sizeof(*snapshot));
    if (!snapshot)
        die("out of memory for a child process");
    snapshot->cpu = *cpu;
    memcpy(&snapshot->loop_start, &loop_start, sizeof(loop_start));
    snapshot->signals = signal_save(cpu);
    return snapshot;
}

void cpu_restore(struct cpu *cpu, struct cpu_snapshot *snapshot)
{
    *cpu = snapshot->cpu;
    memcpy(&loop_start, &snapshot->loop_start, sizeof(loop_start));
    signal_restore(cpu, snapshot->signals);
    free(snapshot);
}

/* ---- the run loop
 * -------------------------------------------------------------------------------- */

/* Where the indirect branch that missed should have led: its block gets a pad in the table. */
static void learn_target(struct tb *tb, enum indirect by)
{
    if (opt.log & LOG_NOCHAIN)
        return;
    if (!tb->pad[by]) {
        if (!jit_add_pad(tb, by))
            return;
        tb_note_entry(tb->pc, by == BY_RETURN ? ENTRY_RETURN : ENTRY_INDIRECT);
    }
    jit_table_set(tb, by);
}

/* Sets cpu->jump for cpu->pc; what brought it here decides the prefix the block gets. The cpu may
 * be bare. */
static void find_code(struct cpu *cpu, uint64_t reason)
{
    static const uint8_t entries[] = {[EXIT_MISS] = ENTRY_INDIRECT, [EXIT_RETURN] = ENTRY_RETURN};
    tb_lock_bare(cpu);
    bool fresh = reason == EXIT_LINK && cpu->generation == tb_generation();
    struct link *link = fresh ? (struct link *)cpu->exit_arg : NULL;
    enum tb_entry entry = link && link->call ? ENTRY_CALL : entries[reason];
    stats.looked_up[reason]++;
    struct tb *tb = tb_find(cpu, cpu->pc, entry);
    if (!tb) {
        tb_unlock();
        jit_use_libc(cpu);
        guest_fetch_fault(cpu);
        signal_deliver(cpu);
        return;
    }
    if (reason == EXIT_MISS || reason == EXIT_RETURN)
        learn_target(tb, reason == EXIT_RETURN ? BY_RETURN : BY_JUMP);
    cpu->jump = (uintptr_t)tb->host;
    cpu->generation = tb_generation();
    cpu->in_cache = true;
    tb_unlock();
}

/* Runs from cpu->jump. A flush waits for this thread until it has read what its exit names. */
static uint64_t enter_cache(struct cpu *cpu)
{
    uint64_t reason = jit_enter(cpu);
    if (reason == EXIT_LINK)
        cpu->pc = ((struct link *)cpu->exit_arg)->target;
    cpu->in_cache = false;
    return reason;
}

static uint64_t run_syscall(struct cpu *cpu)
{
    guest_enter_syscall(cpu);
    cpu->syscall = guest_result(cpu);
    if (linux_syscall(cpu) == SYSCALL_DONE)
        return EXIT_LOOKUP;
    cpu->jump = (uintptr_t)jit_forward_syscall;
    return enter_cache(cpu);
}

/* The kernel could not write to a page that emu keeps from being written: false, once more. */
static bool can_retry(int64_t result)
{
    if (result != -EFAULT)
        return false;
    tb_lock();
    bool retry = smc_open(0, UINT64_MAX);
    tb_unlock();
    return retry;
}

/* The result is in the register that held the number, which the callbacks still see. False: the
 * call is to be made again. */
static bool finish_syscall(struct cpu *cpu)
{
    int64_t result = guest_result(cpu);
    guest_set_result(cpu, cpu->syscall);
    if (can_retry(result)) {
        cpu->jump = (uintptr_t)jit_forward_syscall;
        return false;
    }
    linux_syscall_ret(cpu, result);
    return true;
}

/* What runs at cpu->pc sets the flags before it reads them: counting may have changed them, which
 * the handler of a signal from outside is not to see. It is stepped to where it does not. */
static bool are_flags_lost(struct cpu *cpu)
{
    tb_lock();
    struct tb *tb = tb_lookup(cpu->pc);
    bool lost = tb && tb->flags_dead && plugin_wants_tb_trans();
    tb_unlock();
    return lost;
}

/* The last thing before the cache: pending signals, or the code at cpu->pc. Behind a system call
 * the flags are exact, as it reads them. */
static uint64_t run_code(struct cpu *cpu, uint64_t reason, bool called)
{
    for (;;) {
        /* Each is asked once: what comes behind a no would find the cpu bare. */
        bool signal = cpu->pending, request = plugin_is_pending(), flush = jit_must_flush();
        if (signal || request || flush || opt.log & LOG_IN_ASM)
            jit_use_libc(cpu);
        if (flush)
            tb_flush();
        if (request)
            plugin_run_pending();
        if (signal && (called || !signal_can_wait(cpu) || !are_flags_lost(cpu))) {
            signal_deliver(cpu);
            break;
        }
        if (guest_enter_vsyscall(cpu))
            return EXIT_SYSCALL;
        find_code(cpu, reason);
        if (!plugin_is_pending()) /* else asked for while code was translated: before that runs */
            break;
        cpu->in_cache = false; /* or it would stop others while one of them stops it */
        reason = EXIT_LOOKUP;
    }
    return enter_cache(cpu);
}

_Noreturn void cpu_loop(struct cpu *cpu)
{
    if (!cpu->initialised)
        qemu_plugin_vcpu_init_hook(cpu);
    sigsetjmp(loop_start, 0);
    for (uint64_t reason = EXIT_LOOKUP;;) {
        bool called = reason == EXIT_SYSCALL || reason == EXIT_SYSRET;
        switch (reason) {
        case EXIT_SYSCALL:
            plugin_run_pending();
            reason = run_syscall(cpu);
            if (reason != EXIT_LOOKUP)
                continue;
            break;
        case EXIT_SYSRET:
            if (!finish_syscall(cpu)) {
                reason = enter_cache(cpu);
                continue;
            }
            break;
        case EXIT_STALE:
            tb_drop_stale(cpu->pc);
            break;
        case EXIT_TRAP:
            plugin_run_pending();
            guest_trap(cpu);
            break;
        }
        reason = run_code(cpu, reason, called);
    }
}

_Noreturn void cpu_resume_at(struct cpu *cpu, uint64_t pc)
{
    cpu->pc = pc;
    siglongjmp(loop_start, 1);
}
