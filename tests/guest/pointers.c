/* Calls and jumps through a pointer on a page that cannot be written, as procedure linkage tables
 * make them, and all ways by which the pointer changes nevertheless. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE      4096
#define TARGETS   128
#define DONTUNMAP 4 /* MREMAP_DONTUNMAP */
#define READ      PROT_READ
#define WRITE     (PROT_READ | PROT_WRITE)

/* Function n of targets returns n. call_slot, call_again and jump_slot return what the function at
 * slot returns, or what the handler of a fault says. race_slot fills n words, reads published and
 * then calls: 1 if it gets less. */
__asm__(".pushsection .text\n"
        "        .balign 4096\n"
        "targets: .set n, 0\n"
        "        .rept 128\n"
        "        mov $n, %eax\n\tret\n\t.balign 8\n\t.set n, n + 1\n"
        "        .endr\n"
        "call_slot: push %rbx\n"
        "call_site: call *slot(%rip)\n"
        "call_behind: pop %rbx\n\tret\n"
        "call_again: push %rbx\n\tjmp call_site\n"
        "jump_slot: jmp *slot(%rip)\n"
        "race_slot: push %rbx\n\tmov %rsi, %rcx\n\txor %eax, %eax\n\tcld\n"
        "        movl $1, racing(%rip)\n"
        "        rep stosq\n"
        "        mov published(%rip), %ebx\n"
        "        call *slot(%rip)\n"
        "        cmp %ebx, %eax\n\tsetl %al\n\tmovzbl %al, %eax\n\tpop %rbx\n\tret\n"
        "        .balign 4096\n"
        ".popsection\n"
        ".pushsection .bss\n"
        "        .balign 4096\n\t.zero 4096\n"
        "slot:   .zero 4096\n"
        "racing: .zero 4\n"
        "published: .zero 4\n"
        "        .balign 4096\n"
        ".popsection");
extern const unsigned char targets[], call_site[], call_behind[];
extern int call_slot(void), call_again(void), jump_slot(void), race_slot(uint64_t *fill, size_t n);
extern uintptr_t slot[PAGE / sizeof(uintptr_t)];
extern atomic_int racing, published;

static uintptr_t target(int n)
{
    return (uintptr_t)(targets + 8 * (ptrdiff_t)n);
}

/* From now on all of it is translated as if it had not run before. */
static void renew_code(void)
{
    mprotect((void *)(uintptr_t)targets, PAGE, PROT_READ | PROT_EXEC);
}

static void set_slot(int n)
{
    mprotect(slot, PAGE, WRITE);
    slot[0] = target(n);
    mprotect(slot, PAGE, READ);
}

/* Often enough that all ways there are linked. */
static long use_slot(void)
{
    long sum = 0;

    for (int i = 0; i < 3; i++)
        sum = 1000 * sum + call_slot() + jump_slot();
    return sum;
}

static void put_anonymous(int prot, int n)
{
    mmap(slot, PAGE, WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    slot[0] = target(n);
    mprotect(slot, PAGE, prot);
}

static int make_file(int n)
{
    int fd = memfd_create("pointers", 0);
    uintptr_t page[PAGE / sizeof(uintptr_t)] = {target(n)};

    return write(fd, page, PAGE) == PAGE ? fd : -1;
}

/* ---- other values ---- */

static void change(void)
{
    long sum = 0;

    mprotect(slot, PAGE, WRITE);
    slot[0] = target(1);
    sum += call_slot();
    set_slot(2);
    sum += call_again(); /* the same call, now that its target is known */
    printf("written %ld\n", sum);
    for (int i = 0; i < TARGETS; i++) {
        set_slot(i);
        sum += use_slot();
        put_anonymous(READ, TARGETS - 1 - i);
        sum = 3 * sum + use_slot();
        mprotect(slot, PAGE, WRITE); /* and written while it is writable */
        sum += use_slot();
        slot[0] = target(i / 2);
        sum = 3 * sum + use_slot();
        renew_code();
    }
    printf("changed %lx\n", sum);
}

static void replace(void)
{
    int fd = make_file(11);
    long sum = 0;

    set_slot(10);
    sum += use_slot();
    mmap(slot, PAGE, READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
    printf("before %ld, file %ld", sum, use_slot());
    set_slot(12);
    printf(", its private page %ld", use_slot());
    madvise(slot, PAGE, MADV_DONTNEED);
    printf(", dropped %ld", use_slot());
    uintptr_t *other = mmap(NULL, PAGE, WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *other = target(13);
    mprotect(other, PAGE, READ);
    mremap(other, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, slot);
    printf(", moved here %ld\n", use_slot());
    close(fd);
}

/* Shared memory is written elsewhere. */
static void share(void)
{
    int fd = make_file(20), id = shmget(IPC_PRIVATE, PAGE, IPC_CREAT | 0600);
    uintptr_t *views[2] = {mmap(NULL, PAGE, WRITE, MAP_SHARED, fd, 0), shmat(id, NULL, 0)};
    long sum = 0;

    shmctl(id, IPC_RMID, NULL);
    views[1][0] = target(21);
    for (int which = 0; which < 2; which++) {
        put_anonymous(READ, 22);
        sum += use_slot();
        if (which)
            shmat(id, slot, SHM_RDONLY | SHM_REMAP);
        else
            mmap(slot, PAGE, READ, MAP_SHARED | MAP_FIXED, fd, 0);
        for (int i = 30; i < 40; i++) {
            sum = 3 * sum + use_slot();
            views[which][0] = target(i);
            sum = 3 * sum + use_slot();
        }
    }
    printf("shared %lx\n", sum);
    close(fd);
}

static void change_in_child(void)
{
    int status;

    put_anonymous(READ, 40);
    use_slot();
    pid_t pid = fork();
    if (!pid) {
        set_slot(41);
        _exit(call_slot());
    }
    waitpid(pid, &status, 0);
    printf("child %d, parent %ld\n", WEXITSTATUS(status), use_slot());
}

/* ---- none ---- */

static int faults, strange;

/* The call or jump that faulted returns -1. */
static void skip_branch(int sig, siginfo_t *info, void *context)
{
    greg_t *reg = ((ucontext_t *)context)->uc_mcontext.gregs;
    bool at_call = (const unsigned char *)(uintptr_t)reg[REG_RIP] == call_site;

    (void)sig;
    faults++;
    if (reg[REG_RIP] == 0)
        strange += info->si_addr != NULL;
    else
        strange +=
            info->si_addr != slot || (!at_call && reg[REG_RIP] != (greg_t)(uintptr_t)jump_slot);
    reg[REG_RAX] = -1000 * reg[REG_ERR] - info->si_code;
    if (at_call) {
        reg[REG_RIP] = (greg_t)(uintptr_t)call_behind;
        return;
    }
    reg[REG_RIP] = *(greg_t *)(uintptr_t)reg[REG_RSP];
    reg[REG_RSP] += 8;
}

static void show_faults(const char *what)
{
    long sum = use_slot();

    printf("%s %ld: %d faults, strange %d\n", what, sum, faults, strange);
    put_anonymous(READ, 50);
    renew_code();
    use_slot();
}

static void take_away(void)
{
    struct sigaction act = {.sa_sigaction = skip_branch, .sa_flags = SA_SIGINFO}, old;

    sigaction(SIGSEGV, &act, &old);
    put_anonymous(READ, 49);
    use_slot();
    munmap(slot, PAGE);
    show_faults("unmapped");
    mprotect(slot, PAGE, PROT_NONE);
    show_faults("protected");
    mremap(slot, PAGE, PAGE, MREMAP_MAYMOVE | DONTUNMAP, NULL);
    show_faults("moved away");
    mprotect(slot, 2 * PAGE, READ);
    madvise(slot, PAGE, MADV_DONTNEED);
    show_faults("zero");
    mprotect(slot + PAGE / sizeof *slot, PAGE, WRITE);
    sigaction(SIGSEGV, &old, NULL);
}

/* ---- changed by another thread ---- */

#define ROUNDS 30
#define LONG   6 /* every so many rounds is a long one */
#define WORDS  (128 << 10)

static uint64_t *fill;
static atomic_int stop;

static void *race(void *arg)
{
    long *late = arg;

    for (int i = 0; i < ROUNDS; i++) {
        while (published < i)
            ;
        *late += race_slot(fill, i % LONG ? 1 : WORDS);
    }
    return NULL;
}

/* While the other thread is on its way to the call. */
static void change_under_way(void)
{
    pthread_t thread;
    long late = 0;

    fill = mmap(NULL, WORDS * 8, WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    put_anonymous(READ, 0);
    race_slot(fill, WORDS);
    racing = 0;
    pthread_create(&thread, NULL, race, &late);
    for (int i = 1; i <= ROUNDS; i++) {
        while (!racing)
            ;
        racing = 0;
        set_slot(i);
        published = i;
    }
    pthread_join(thread, NULL);
    printf("under way: late %ld, last %ld\n", late, use_slot());
}

static void *loop(void *arg)
{
    long *late = arg;

    while (!stop) {
        int before = published;
        *late += call_slot() < before;
        before = published;
        *late += jump_slot() < before;
    }
    return NULL;
}

static void change_in_loops(void)
{
    pthread_t threads[2];
    long late[2] = {0, 0};

    set_slot(published = 0);
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, loop, &late[i]);
    for (int i = 1; i < TARGETS; i++) {
        renew_code(); /* the loops have run it while the page could be written */
        use_slot();
        set_slot(i);
        published = i;
        for (int k = 0; k < 20; k++)
            late[0] += call_slot() != i || jump_slot() != i;
    }
    stop = 1;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    printf("loops: late %ld\n", late[0] + late[1]);
}

/* A register says that it cannot be read. The last: such a process is never trusted again. */
static void lock_away(void)
{
    struct sigaction act = {.sa_sigaction = skip_branch, .sa_flags = SA_SIGINFO};
    int key = pkey_alloc(0, 0);

    sigaction(SIGSEGV, &act, NULL);
    pkey_mprotect(slot, PAGE, READ, key);
    renew_code();
    use_slot();
    if (key > 0)
        pkey_set(key, PKEY_DISABLE_ACCESS);
    show_faults("locked");
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    change();
    replace();
    share();
    change_in_child();
    take_away();
    change_under_way();
    change_in_loops();
    lock_away();
    return 0;
}
