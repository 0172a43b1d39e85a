/* What the kernel does when a thread ends: robust mutexes whose owner is gone, the word of
 * CLONE_CHILD_CLEARTID, and which thread's end is the end of the process.
 *
 *   ends robust | tid | group | first | last */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 200

/* ---- robust mutexes ---- */

static pthread_mutex_t *make_mutex(int protocol, int shared)
{
    pthread_mutex_t *m =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutexattr_t attr;

    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setprotocol(&attr, protocol);
    pthread_mutexattr_setpshared(&attr, shared);
    pthread_mutex_init(m, &attr);
    return m;
}

static void *keep(void *mutex)
{
    pthread_mutex_lock(mutex);
    return NULL;
}

static _Atomic bool is_kept;

static void *keep_for_a_while(void *mutex)
{
    pthread_mutex_lock(mutex);
    is_kept = true;
    usleep(20000);
    return NULL;
}

static int take(pthread_mutex_t *m)
{
    int error = pthread_mutex_lock(m);

    if (error == EOWNERDEAD)
        pthread_mutex_consistent(m);
    if (!error || error == EOWNERDEAD)
        pthread_mutex_unlock(m);
    return error;
}

/* The owner has been joined: its mutex must be known to be left by then. */
static void lock_after_join(const char *name, pthread_mutex_t *m)
{
    int dead = 0;

    for (int i = 0; i < ROUNDS; i++) {
        pthread_t t;

        pthread_create(&t, NULL, keep, m);
        pthread_join(t, NULL);
        int error = pthread_mutex_trylock(m);
        dead += error == EOWNERDEAD;
        if (error != EOWNERDEAD)
            printf("%s: %s in round %d\n", name, strerror(error), i);
        pthread_mutex_consistent(m);
        pthread_mutex_unlock(m);
    }
    printf("%s: owner dead %d times\n", name, dead);
}

static void wait_for_owner(const char *name, pthread_mutex_t *m)
{
    pthread_t t;

    is_kept = false;
    pthread_create(&t, NULL, keep_for_a_while, m);
    while (!is_kept)
        usleep(100);
    printf("%s: waiter %s", name, strerror(take(m)));
    printf(", then %s\n", strerror(take(m)));
    pthread_join(t, NULL);
}

enum end { EXIT, KILL, EXEC, CANCEL };

static void lock_in_child(pthread_mutex_t *m, enum end how)
{
    pthread_mutex_lock(m);
    if (how == KILL)
        raise(SIGKILL);
    if (how == EXEC)
        execl("/bin/true", "true", (char *)NULL);
    _exit(3);
}

static void owner_in_process(const char *name, pthread_mutex_t *m)
{
    for (enum end how = EXIT; how <= EXEC; how++) {
        int status;
        pid_t pid = fork();

        if (!pid)
            lock_in_child(m, how);
        waitpid(pid, &status, 0);
        printf("%s: end %d status %x, %s\n", name, how, (unsigned)status, strerror(take(m)));
    }
}

/* A list of the program's own: an entry, the one that is about to be locked, and a loop. */
static struct {
    struct robust_list_head head;
    struct entry {
        struct robust_list list;
        _Atomic uint32_t word;
    } locked, pending, other;
} own;

static void *die_with_own_list(void *arg)
{
    uint32_t tid = (uint32_t)syscall(SYS_gettid);

    (void)arg;
    own.locked.list.next = &own.other.list;
    own.other.list.next = &own.locked.list; /* the kernel gives up after some steps */
    own.head.list.next = &own.locked.list;
    own.head.list_op_pending = &own.pending.list;
    own.head.futex_offset = offsetof(struct entry, word);
    own.locked.word = tid | FUTEX_WAITERS;
    own.pending.word = tid;
    own.other.word = tid + 1;
    syscall(SYS_set_robust_list, &own.head, sizeof own.head);
    return (void *)(uintptr_t)tid;
}

static void *die_with_bad_list(void *arg)
{
    own.head.list.next = arg;
    own.head.list_op_pending = NULL;
    syscall(SYS_set_robust_list, &own.head, sizeof own.head);
    return NULL;
}

static void own_list(void)
{
    pthread_t t;
    void *tid;

    pthread_create(&t, NULL, die_with_own_list, NULL);
    pthread_join(t, &tid);
    printf("own list: %x %x %d\n", own.locked.word, own.pending.word,
           own.other.word == (uint32_t)(uintptr_t)tid + 1);
    pthread_create(&t, NULL, die_with_bad_list, (void *)8);
    pthread_join(t, NULL);
    printf("bad list\n");
}

static void robust(void)
{
    pthread_mutex_t *plain = make_mutex(PTHREAD_PRIO_NONE, PTHREAD_PROCESS_PRIVATE);
    pthread_mutex_t *shared = make_mutex(PTHREAD_PRIO_NONE, PTHREAD_PROCESS_SHARED);
    pthread_mutex_t *inherit = make_mutex(PTHREAD_PRIO_INHERIT, PTHREAD_PROCESS_SHARED);

    lock_after_join("plain", plain);
    lock_after_join("inherit", inherit);
    wait_for_owner("plain", plain);
    wait_for_owner("shared", shared);
    wait_for_owner("inherit", inherit);
    owner_in_process("shared", shared);
    owner_in_process("inherit", inherit);
    own_list();
}

/* ---- CLONE_CHILD_CLEARTID, without a library ---- */

static _Atomic int child_word, other_word, parent_word;
static atomic_int runs, go;

static int run_until_told(void *arg)
{
    void *address = NULL;

    if (arg)
        syscall(SYS_set_tid_address, arg);
    else if (!prctl(PR_GET_TID_ADDRESS, &address)) /* not every kernel tells */
        syscall(SYS_set_tid_address, address);
    runs = 1;
    while (!go)
        ;
    syscall(SYS_exit, 0);
    return 0;
}

static void wait_while_set(_Atomic int *word)
{
    for (int value; (value = *word);)
        syscall(SYS_futex, word, FUTEX_WAIT, value, NULL, NULL, 0);
}

static void clear_tid(_Atomic int *moved_to)
{
    static const int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                             CLONE_SYSVSEM | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID |
                             CLONE_CHILD_CLEARTID;
    char *stack = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    child_word = other_word = parent_word = runs = go = 0;
    if (moved_to)
        *moved_to = 1;
    int tid =
        clone(run_until_told, stack + 65536, flags, moved_to, &parent_word, NULL, &child_word);
    while (!runs)
        ;
    int stored = parent_word == tid && child_word == tid;
    go = 1;
    wait_while_set(moved_to ? moved_to : &child_word);
    printf("both told %d, child word %s, other word %d\n", stored,
           child_word == tid ? "kept" : "cleared", other_word);
}

/* ---- the end of the process ---- */

static pthread_barrier_t all_run;

static void *compute(void *arg)
{
    pthread_barrier_wait(&all_run);
    for (volatile unsigned long i = 0;; i++)
        if (!arg)
            getpid();
    return NULL;
}

static void *end_group(void *arg)
{
    pthread_barrier_wait(&all_run);
    usleep(1000);
    printf("ended by a thread\n");
    fflush(stdout);
    syscall(SYS_exit_group, 23);
    return arg;
}

static void group(void)
{
    pthread_t t;

    pthread_barrier_init(&all_run, NULL, 6);
    for (long i = 0; i < 4; i++)
        pthread_create(&t, NULL, compute, (void *)(i % 2));
    pthread_create(&t, NULL, end_group, NULL);
    compute((void *)1);
}

/* The process's state and threads, as long as one of them runs. */
static void *look_around(void *arg)
{
    char path[64], is[64] = "";
    FILE *f;

    snprintf(path, sizeof path, "/proc/self/task/%d/stat", getpid());
    for (int i = 0; i < 1000 && *is != 'Z'; i++) {
        usleep(10000);
        f = fopen(path, "r");
        if (!f || fscanf(f, "%*d %*s %63s", is) != 1)
            break;
        fclose(f);
    }
    printf("first thread is %s\n", is);
    printf("sent %d\n", kill(getpid(), 0));
    fflush(stdout);
    syscall(SYS_exit, 5);
    return arg;
}

/* ends the first thread before the other, or behind it */
static void end_first(int status)
{
    pthread_t t;

    pthread_create(&t, NULL, look_around, NULL);
    syscall(SYS_exit, status);
}

static void *end_at_once(void *arg)
{
    syscall(SYS_exit, 6);
    return arg;
}

static void end_last(void)
{
    pthread_t t;

    pthread_create(&t, NULL, end_at_once, NULL);
    pthread_join(t, NULL);
    syscall(SYS_exit, 7);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    if (!strcmp(what, "robust"))
        robust();
    if (!strcmp(what, "tid")) {
        clear_tid(NULL);
        clear_tid(&other_word);
    }
    if (!strcmp(what, "group"))
        group();
    if (!strcmp(what, "first"))
        end_first(4);
    if (!strcmp(what, "last"))
        end_last();
    return 0;
}
