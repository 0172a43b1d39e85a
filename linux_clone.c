/* linux_clone.c: making and ending threads and processes: clone, fork, vfork, exit.
 *
 * A guest thread is a host thread of libc's making, so that C has its thread-local storage; what
 * the kernel would do for the guest's flags (TLS, tids, the futex at the end) is done here. Must
 * not know how code is run. */

#include "emu.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define THREAD_STACK (256 << 10) /* of C code; the guest has its own */
#define TID_FLAGS    (CLONE_SETTLS | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | CLONE_PARENT_SETTID)
#define THREAD_FLAGS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD)

/* clone's arguments; fork and vfork are special cases of it. */
struct clone_args {
    uint64_t flags, stack, ptid, ctid, tls;
};

/* As for the kernel, a bad address is not an error. */
static void store_tid(uint64_t addr, int tid)
{
    guest_copy((void *)addr, &tid, sizeof tid);
}

static bool is_first_thread(const struct cpu *cpu)
{
    return cpu->tid == getpid();
}

/* What differs between parent and child, in the child. */
static void set_child_state(struct cpu *cpu, const struct clone_args *args)
{
    cpu->tid = (int)syscall(SYS_gettid);
    cpu->clear_tid = 0;
    guest_set_result(cpu, 0);
    if (args->flags & CLONE_SETTLS)
        cpu->fs_base = args->tls;
    if (args->stack)
        guest_set_sp(cpu, args->stack);
    if (args->flags & CLONE_CHILD_SETTID)
        store_tid(args->ctid, cpu->tid);
}

/* ---- processes ---------------------------------------------------------------------------------
 */

/* What the child of a fork has of the parent's signals: the mask. */
static void set_child_signals(struct cpu *cpu, uint64_t mask)
{
    signal_forget_held(cpu);
    signal_set_mask(cpu, mask);
}

/* libc's fork where it will do, as it also looks after malloc's locks. CLONE_PIDFD's result goes
 * where CLONE_PARENT_SETTID's would. */
static int64_t call_fork(const struct clone_args *args)
{
    const uint64_t arg[6] = {args->flags & ~(uint64_t)TID_FLAGS, 0, args->ptid};
    if (arg[0] != SIGCHLD)
        return host_syscall(SYS_clone, arg);
    pid_t pid = fork();
    return pid < 0 ? -errno : pid;
}

static int64_t fork_process(struct cpu *cpu, const struct clone_args *args)
{
    uint64_t mask = signal_block(cpu);
    mem_lock();
    tb_lock();
    tb_before_fork(cpu);
    plugin_before_fork();
    vma_lock();
    int64_t pid = call_fork(args);
    vma_unlock();
    plugin_after_fork(pid == 0);
    tb_unlock();
    mem_unlock();
    if (pid == 0) {
        cpu_fork_child(cpu);
        tb_fork_child();
        set_child_state(cpu, args);
        if (args->flags & CLONE_CHILD_CLEARTID)
            syscall(SYS_set_tid_address, args->ctid);
        set_child_signals(cpu, mask);
        return 0;
    }
    if (pid > 0 && args->flags & CLONE_PARENT_SETTID)
        store_tid(args->ptid, (int)pid);
    signal_set_mask(cpu, mask);
    return pid;
}

/* ---- vfork: the child runs in the parent's memory while the parent waits
 * --------------------------- */

struct vfork_start {
    struct cpu *cpu;
    const struct clone_args *args;
    uint64_t mask; /* the guest's signal mask */
};

static int run_vfork_child(void *arg)
{
    const struct vfork_start *start = arg;
    set_child_state(start->cpu, start->args);
    start->cpu->vfork_child = true;
    set_child_signals(start->cpu, start->mask);
    cpu_loop(start->cpu);
}

/* The child takes over the parent's vCPU, and its host thread-local storage, on a stack of its own;
 * the parent puts back what it finds changed. The kernel wakes it when the child has gone. */
static int64_t vfork_process(struct cpu *cpu, const struct clone_args *args)
{
    char *stack = mmap(NULL, THREAD_STACK, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED)
        return -ENOMEM;
    /* A signal that came before the parent's state is back would be lost with the child's. */
    struct vfork_start start = {cpu, args, signal_block(cpu)};
    struct cpu_snapshot *before = cpu_save(cpu);
    int flags = (int)(args->flags & ~(uint64_t)TID_FLAGS) | CLONE_VM | CLONE_VFORK;
    int pid = clone(run_vfork_child, stack + THREAD_STACK, flags, &start, (pid_t *)args->ptid);
    int64_t result = pid < 0 ? -errno : pid;
    cpu_restore(cpu, before);
    signal_set_mask(cpu, start.mask);
    munmap(stack, THREAD_STACK);
    if (pid > 0 && args->flags & CLONE_PARENT_SETTID)
        store_tid(args->ptid, pid);
    return result;
}

/* ---- threads
 * ---------------------------------------------------------------------------------------- */

struct thread_start {
    const struct cpu *parent;
    const struct clone_args *args;
    uint64_t mask; /* the parent's guest signal mask */
    int tid;       /* set by the child before ready */
    sem_t ready;
};

static __thread sigjmp_buf thread_end;

static void *run_thread(void *arg)
{
    struct thread_start *start = arg;
    struct cpu *cpu = cpu_create();
    guest_copy_state(cpu, start->parent);
    set_child_state(cpu, start->args);
    if (start->args->flags & CLONE_PARENT_SETTID)
        store_tid(start->args->ptid, cpu->tid);
    signal_inherit(cpu, start->parent);
    cpu->clear_tid = start->args->flags & CLONE_CHILD_CLEARTID ? start->args->ctid : 0;
    signal_set_mask(cpu, start->mask);
    start->tid = cpu->tid;
    sem_post(&start->ready);
    if (!sigsetjmp(thread_end, 0))
        cpu_loop(cpu);
    return NULL;
}

static int create_thread(struct thread_start *start)
{
    pthread_t thread;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, THREAD_STACK);
    int error = pthread_create(&thread, &attr, run_thread, start);
    pthread_attr_destroy(&attr);
    return error;
}

/* Its tid or -errno. The child starts with everything blocked and opens its mask itself. */
static int64_t clone_thread(struct cpu *cpu, const struct clone_args *args)
{
    if ((args->flags & THREAD_FLAGS) != THREAD_FLAGS)
        return -EINVAL;
    tb_share();
    struct thread_start start = {.parent = cpu, .args = args, .mask = signal_block(cpu)};
    sem_init(&start.ready, 0, 0);
    int error = create_thread(&start);
    while (!error && sem_wait(&start.ready))
        ;
    sem_destroy(&start.ready);
    signal_set_mask(cpu, start.mask);
    return error ? -error : start.tid;
}

/* ---- the end of a thread
 * ---------------------------------------------------------------------------- */

/* The thread was the owner of the futex, or about to become it or to wake somebody (pending).
 * False: its word is none. */
static bool abandon_futex(const struct cpu *cpu, uint64_t word, bool inherits, bool pending)
{
    uint32_t old, seen;
    if (word % sizeof old || !guest_copy(&seen, (void *)word, sizeof seen))
        return false;
    do {
        old = seen;
        uint32_t owner = old & FUTEX_TID_MASK;
        bool handed_over = pending && !inherits && !owner;
        if (handed_over)
            syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
        if (handed_over || owner != (uint32_t)cpu->tid)
            return true;
        if (!guest_replace((uint32_t *)word, &seen, (old & FUTEX_WAITERS) | FUTEX_OWNER_DIED))
            return false;
    } while (seen != old);
    if (!inherits && old & FUTEX_WAITERS)
        syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
    return true;
}

/* An entry's address says in its lowest bit whether the futex inherits priorities. */
static bool read_robust_entry(uint64_t at, uint64_t *entry, bool *inherits)
{
    if (!guest_copy(entry, (void *)at, sizeof *entry))
        return false;
    *inherits = *entry & 1;
    *entry &= ~1ull;
    return true;
}

/* The guest's list of robust futexes as the kernel goes through it (exit_robust_list in
 * kernel/futex/core.c). The kernel would do it when the host's thread has ended, which is after
 * the guest's joiners have been told. */
static void abandon_futexes(const struct cpu *cpu, uint64_t list)
{
    uint64_t entry, next, pending, offset;
    bool inherits, next_inherits, pending_inherits, more = true;
    if (!read_robust_entry(list, &entry, &inherits) ||
        !guest_copy(&offset, (void *)(list + offsetof(struct robust_list_head, futex_offset)),
                    sizeof offset) ||
        !read_robust_entry(list + offsetof(struct robust_list_head, list_op_pending), &pending,
                           &pending_inherits))
        return;
    for (int i = 0; more && entry != list && i < ROBUST_LIST_LIMIT; i++) {
        more = read_robust_entry(entry, &next, &next_inherits);
        if (entry != pending && !abandon_futex(cpu, entry + offset, inherits, false))
            return;
        entry = next;
        inherits = next_inherits;
    }
    if (more && pending)
        abandon_futex(cpu, pending + offset, pending_inherits, true);
}

static void leave_robust_list(const struct cpu *cpu)
{
    struct robust_list_head *list = NULL;
    size_t size;
    syscall(SYS_get_robust_list, 0, &list, &size);
    if (list)
        abandon_futexes(cpu, (uint64_t)list);
    syscall(SYS_set_robust_list, NULL, sizeof *list);
}

/* What the kernel does for CLONE_CHILD_CLEARTID: joiners wait on that word. */
static void clear_tid(uint64_t addr)
{
    int zero = 0;
    if (addr && guest_copy((void *)addr, &zero, sizeof zero))
        syscall(SYS_futex, addr, FUTEX_WAKE, 1, NULL, NULL, 0);
}

_Noreturn static void exit_thread(struct cpu *cpu, int status)
{
    if (cpu_is_last(cpu))
        preexit_cleanup(cpu, status);
    qemu_plugin_vcpu_exit_hook(cpu);
    signal_block(cpu);
    uint64_t word = cpu->clear_tid;
    bool first = is_first_thread(cpu);
    leave_robust_list(cpu);
    cpu_retire(cpu);
    clear_tid(word);
    if (first)
        for (;;)
            syscall(SYS_exit, status);
    siglongjmp(thread_end, 1);
}

/* ---- the calls
 * --------------------------------------------------------------------------------------- */

static int64_t clone_any(struct cpu *cpu, const struct clone_args *args)
{
    if (args->flags & CLONE_VFORK)
        return vfork_process(cpu, args);
    if (args->flags & CLONE_VM)
        return clone_thread(cpu, args);
    return fork_process(cpu, args);
}

bool clone_fork(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    (void)arg;
    *ret = clone_any(cpu, &(struct clone_args){.flags = SIGCHLD});
    return true;
}

bool clone_vfork(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    (void)arg;
    *ret = clone_any(cpu, &(struct clone_args){.flags = CLONE_VFORK | CLONE_VM | SIGCHLD});
    return true;
}

bool clone_clone(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    *ret = clone_any(cpu, &(struct clone_args){arg[0], arg[1], arg[2], arg[3], arg[4]});
    return true;
}

/* What the kernel clears at the end of other threads belongs to the host's libc. */
bool clone_set_tid_address(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    if (is_first_thread(cpu))
        return false;
    cpu->clear_tid = arg[0];
    *ret = cpu->tid;
    return true;
}

/* prctl(PR_GET_TID_ADDRESS), if the kernel has it: what that tells of other threads is the host's.
 */
bool clone_get_tid_address(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    if (is_first_thread(cpu))
        return false;
    *ret = host_syscall(SYS_prctl, arg);
    if (*ret == 0 && !guest_copy((void *)arg[1], &cpu->clear_tid, sizeof cpu->clear_tid))
        *ret = -EFAULT;
    return true;
}

bool clone_exit(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    (void)ret;
    if (cpu->vfork_child) /* a process of one thread, whose vCPU is still the parent's */
        preexit_cleanup(cpu, (int)arg[0]);
    exit_thread(cpu, (int)arg[0]);
}
