/* Code that is written from elsewhere: through other mappings, by the kernel, by other threads and
 * processes; and mappings of code that come and go. */
#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE 4096
#define RWX  (PROT_READ | PROT_WRITE | PROT_EXEC)

static unsigned char *map(size_t pages, int prot, int flags, int fd)
{
    return mmap(NULL, pages * PAGE, prot, flags | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
}

/* mov $value, %eax; ret */
static void put_function(unsigned char *at, int32_t value)
{
    at[0] = 0xb8;
    memcpy(at + 1, &value, 4);
    at[5] = 0xc3;
}

static int run(const void *p)
{
    int (*f)(void);

    memcpy(&f, &p, sizeof f);
    return f();
}

/* ---- mappings ---- */

/* One memory, mapped to be written and mapped to be run, by descriptor and by duplication. */
static void two_views(void)
{
    int fd = memfd_create("code", 0);
    long sum = 0, copies = 0;

    if (ftruncate(fd, PAGE))
        return;
    unsigned char *writes = map(1, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    unsigned char *runs = map(1, PROT_READ | PROT_EXEC, MAP_SHARED, fd);
    unsigned char *also = map(1, RWX, MAP_SHARED, fd);
    unsigned char *twin = mremap(also, 0, PAGE, MREMAP_MAYMOVE);
    for (int i = 0; i < 300; i++) {
        put_function(writes, i);
        sum += run(runs) + run(also);
        put_function(twin, 2 * i);
        copies += run(runs) + run(twin);
    }
    printf("two views %ld %ld", sum, copies);
    put_function(writes + 100, 11);
    sum = run(runs + 100);
    if (pwrite(fd, "\x16", 1, 101) == 1)
        sum += run(runs + 100);
    printf(", through the file %ld\n", sum);
    close(fd);
}

/* New code at an old address. */
static void replace_mappings(void)
{
    unsigned char *at = map(2, RWX, MAP_PRIVATE, -1);
    long fixed = 0, again = 0, moved = 0, dropped = 0;

    for (int i = 0; i < 50; i++) {
        put_function(at, i);
        fixed += run(at);
        mmap(at, PAGE, RWX, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        put_function(at, i + 1);
        fixed += run(at);
        munmap(at, PAGE);
        mmap(at, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        put_function(at, i + 2);
        mprotect(at, PAGE, PROT_READ | PROT_EXEC);
        again += run(at);
        mprotect(at, PAGE, RWX);
        unsigned char *other = map(1, RWX, MAP_PRIVATE, -1);
        put_function(other, i + 3);
        again += run(other);
        mremap(other, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at);
        moved += run(at);
        at[1]++;
        moved += run(at);
        madvise(at, PAGE, MADV_DONTNEED);
        put_function(at, i + 4);
        dropped += run(at);
    }
    printf("fixed %ld, again %ld, moved %ld, dropped %ld\n", fixed, again, moved, dropped);
    munmap(at, 2 * PAGE);
}

/* What was written to private pages of a file is dropped: the file's code is back. */
static void drop_changes(void)
{
    unsigned char file[PAGE];
    int fd = memfd_create("code", 0);
    long sum = 0;

    put_function(file, 7);
    if (write(fd, file, PAGE) != PAGE)
        return;
    unsigned char *at = map(1, RWX, MAP_PRIVATE, fd);
    for (int i = 0; i < 50; i++) {
        sum += run(at);
        at[1] = 100;
        sum += run(at);
        madvise(at, PAGE, MADV_DONTNEED);
    }
    printf("dropped changes %ld\n", sum);
    munmap(at, PAGE);
    close(fd);
}

/* From the second page on, a call whose return address is dropped; the loop around it is entered at
 * two places. */
__asm__(".pushsection .text\n"
        "loop_start: lea 1(%rdi), %rdi\n"
        "loop_again: call loop_next\n"
        "loop_behind: .fill 200, 1, 0x90\n\tud2\n"
        "loop_next: lea 8(%rsp), %rsp\n\tdec %rdi\n\tjnz loop_again\n\tret\n"
        "loop_end:\n.popsection");
extern const unsigned char loop_start[], loop_behind[], loop_next[], loop_end[];

static volatile int ticks;

static void tick(int sig)
{
    (void)sig;
    ticks++;
}

/* What is behind the call, on a page of its own, changes: the call is made as before, and signals
 * that come on the way find their place. */
static void change_behind_call(void)
{
    size_t behind = (size_t)(loop_behind - loop_start), near = (size_t)(loop_next - loop_behind);
    unsigned char *at = map(3, RWX, MAP_PRIVATE, -1), *code = at + PAGE - behind - 16;
    struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    void (*f)(long);

    memcpy(code, loop_start, (size_t)(loop_end - loop_start));
    memset(code + behind + 32, 0x90, near - 34); /* 16 bytes of them are on the first page */
    mprotect(at, 3 * PAGE, PROT_READ | PROT_EXEC);
    memcpy(&f, &code, sizeof f);
    f(100);
    mprotect(at + PAGE, PAGE, RWX);
    memset(at + PAGE, 0x0b, near - 16 - 2); /* no instructions any more */
    mprotect(at + PAGE, PAGE, PROT_READ | PROT_EXEC);
    signal(SIGALRM, tick);
    setitimer(ITIMER_REAL, &often, NULL);
    while (ticks < 300)
        f(100000);
    setitimer(ITIMER_REAL, &never, NULL);
    printf("call goes on\n");
    munmap(at, 3 * PAGE);
}

static volatile int faults;

/* Goes on behind a call that faulted, with -1. */
static void return_from_fault(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    greg_t *reg = uc->uc_mcontext.gregs;

    (void)sig;
    faults += info->si_addr == (void *)(uintptr_t)reg[REG_RIP];
    reg[REG_RIP] = *(greg_t *)(uintptr_t)reg[REG_RSP];
    reg[REG_RSP] += 8;
    reg[REG_RAX] = -1;
}

/* Code that may be run, or not, from one moment to the next. */
static void toggle_execution(void)
{
    struct sigaction act = {.sa_sigaction = return_from_fault, .sa_flags = SA_SIGINFO}, old;
    unsigned char *at = map(1, RWX, MAP_PRIVATE, -1);
    long sum = 0;

    sigaction(SIGSEGV, &act, &old);
    for (int i = 0; i < 50; i++) {
        put_function(at, i);
        sum += run(at);
        mprotect(at, PAGE, PROT_READ | PROT_WRITE);
        sum += run(at);
        at[1] ^= 1;
        mprotect(at, PAGE, PROT_READ | PROT_EXEC);
        sum += run(at);
        mprotect(at, PAGE, PROT_NONE);
        sum += run(at);
        mprotect(at, PAGE, RWX);
    }
    munmap(at, PAGE);
    sum += run(at);
    sigaction(SIGSEGV, &old, NULL);
    printf("toggled %ld, faults %d\n", sum, faults);
}

/* ---- the kernel writes ---- */

static int fds[2];

/* Puts functions with these values where a call will have written them, and runs them. */
static void prepare(unsigned char *pages, int value)
{
    put_function(pages + PAGE, value);
    run(pages + PAGE);
    put_function(pages + 2 * PAGE, value);
    run(pages + 2 * PAGE);
}

/* A buffer over three pages of which two hold code: not less than all of it comes. */
static void read_over_code(unsigned char *pages)
{
    unsigned char source[2 * PAGE + 6] = {0};
    struct iovec parts[2] = {{pages, PAGE + 50}, {pages + PAGE + 50, PAGE - 44}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    long sum = 0, bytes = 0;

    for (int i = 0; i < 30; i++) {
        prepare(pages, i);
        put_function(source + PAGE, 2 * i);
        put_function(source + 2 * PAGE, 3 * i);
        if (send(fds[1], source, sizeof source, 0) != sizeof source)
            return;
        bytes += i % 3 == 0   ? recv(fds[0], pages, sizeof source, 0)
                 : i % 3 == 1 ? recvmsg(fds[0], &message, 0)
                              : readv(fds[0], parts, 2);
        sum += run(pages + PAGE) + run(pages + 2 * PAGE);
    }
    printf("read over code %ld, %ld bytes\n", sum, bytes);
}

/* What cannot be asked for twice, stored beside code. */
static void store_results(unsigned char *page)
{
    int sum = 0;

    for (int i = 0; i < 10; i++) {
        put_function(page, i);
        sum += run(page);
        pid_t pid = fork();
        if (!pid)
            _exit(i);
        int *status = (int *)(void *)(page + 64);
        struct rusage *usage = (struct rusage *)(void *)(page + PAGE - 64); /* into the next */
        sum += wait4(pid, status, 0, usage) == pid;
        sum += WEXITSTATUS(*status);
        put_function(page, i);
        sum += run(page);
        int *pair = (int *)(void *)(page + 128);
        sum += pipe(pair) == 0 && write(pair[1], "x", 1) == 1 && read(pair[0], page + 1, 1) == 1;
        sum += run(page) & 0xff;
        close(pair[0]);
        close(pair[1]);
    }
    printf("stored results %d\n", sum);
}

/* Errors of calls that mean memory without code stay errors. */
static void bad_addresses(unsigned char *page)
{
    int errors = 0;

    put_function(page, 1);
    run(page);
    for (int i = 0; i < 20; i++) {
        errors += read(fds[0], (void *)8, 0) == 0;
        errors += syscall(SYS_pipe, 16) == -1 && errno == EFAULT;
        errors += syscall(SYS_uname, 8) == -1 && errno == EFAULT;
        errors += syscall(SYS_uname, -1L) == -1 && errno == EFAULT;
    }
    printf("bad addresses %d, %d\n", errors, run(page));
}

static void written_by_kernel(void)
{
    unsigned char *pages = map(4, RWX, MAP_PRIVATE, -1);

    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, fds))
        return;
    read_over_code(pages);
    store_results(pages);
    bad_addresses(pages);
    munmap(pages, 4 * PAGE);
}

/* ---- other threads and processes write ---- */

#define RUNNERS 3

static atomic_int stop, started, strange;
static unsigned char *site;

/* Calls the site, whose call leads to one of two functions. */
static void *run_site(void *arg)
{
    (void)arg;
    atomic_fetch_add(&started, 1);
    while (!atomic_load(&stop)) {
        int value = run(site);
        if (value != 1000 && value != 2000)
            atomic_fetch_add(&strange, 1);
    }
    return NULL;
}

static void start_runners(pthread_t *threads)
{
    stop = started = 0;
    for (int i = 0; i < RUNNERS; i++)
        pthread_create(&threads[i], NULL, run_site, NULL);
    while (atomic_load(&started) < RUNNERS)
        ;
}

static void end_runners(pthread_t *threads)
{
    stop = 1;
    for (int i = 0; i < RUNNERS; i++)
        pthread_join(threads[i], NULL);
}

/* A call with its displacement in one aligned word, as compilers of running code lay it. */
static void patch_call(void)
{
    unsigned char *code = map(1, RWX, MAP_PRIVATE, -1);
    pthread_t threads[RUNNERS];
    int wrong = 0;

    put_function(code + 1024, 1000);
    put_function(code + 2048, 2000);
    site = code + 3; /* the displacement is at 4 */
    memcpy(code + 3, "\xe8\0\0\0\0\x90\xc3", 7);
    _Atomic int32_t *word = (_Atomic int32_t *)(void *)(code + 4);
    atomic_store(word, 1024 - 8);
    start_runners(threads);
    for (int i = 0; i < 2000; i++) {
        atomic_store(word, (i % 2 ? 1024 : 2048) - 8);
        wrong += run(site) != (i % 2 ? 1000 : 2000);
    }
    end_runners(threads);
    printf("patched call: strange %d, wrong %d, last %d\n", strange, wrong, run(site));
}

static atomic_int traps;

/* A thread has met the breakpoint: once more from there. */
static void on_trap(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)info;
    traps = 1;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP]--;
}

static void serialize(void)
{
    syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
}

/* An instruction that is replaced behind a breakpoint (the manual's way for any bytes). */
static void patch_behind_trap(void)
{
    struct sigaction act = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO}, old;
    unsigned char *code = map(1, RWX, MAP_PRIVATE, -1);
    pthread_t threads[RUNNERS];

    syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
    sigaction(SIGTRAP, &act, &old);
    site = code + 61; /* over a cache line's end */
    put_function(site, 1000);
    start_runners(threads);
    for (int i = 0; i < 300; i++) {
        int32_t value = i % 2 ? 1000 : 2000;
        *(volatile unsigned char *)site = 0xcc;
        serialize();
        memcpy(site + 1, &value, 4);
        serialize();
        *(volatile unsigned char *)site = 0xb8;
        serialize();
    }
    end_runners(threads);
    sigaction(SIGTRAP, &old, NULL);
    printf("patched behind a trap: strange %d, last %d\n", strange, run(site));
}

static void written_by_child(void)
{
    unsigned char *shared = map(1, RWX, MAP_SHARED, -1), *own = map(1, RWX, MAP_PRIVATE, -1);
    int sum = 0, status;

    for (int i = 0; i < 20; i++) {
        put_function(shared, i);
        put_function(own, i);
        sum += run(shared) + run(own);
        pid_t pid = fork();
        if (!pid) {
            put_function(shared, 2 * i);
            put_function(own, 50);
            _exit(run(shared) + run(own) == 2 * i + 50 ? 0 : 1);
        }
        waitpid(pid, &status, 0);
        sum += run(shared) + run(own) + 1000 * (status != 0);
    }
    printf("written by a child %d\n", sum);
}

/* Code at an address where the parent has none, or other code. */
static void made_by_child(void)
{
    unsigned char *at = map(2, PROT_NONE, MAP_PRIVATE, -1);
    int sum = 0, status;

    for (int i = 0; i < 20; i++) {
        pid_t pid = fork();
        if (!pid) {
            mprotect(at, PAGE, RWX);
            put_function(at, i);
            _exit(run(at));
        }
        waitpid(pid, &status, 0);
        sum += WEXITSTATUS(status);
        mprotect(at + PAGE, PAGE, RWX);
        put_function(at + PAGE, 2 * i);
        if (i > 10) {
            mprotect(at, PAGE, RWX);
            put_function(at, 3 * i);
            sum += run(at);
        }
        sum += run(at + PAGE);
    }
    printf("made by a child %d\n", sum);
}

/* ---- code that writes over itself ---- */

extern const unsigned char push_code[], push_value[], fill_code[], self_end[];

/* clang-format off */
__asm__(
    ".pushsection .rodata\n"
    "push_code:\n" /* the stack pointer is in the code: what is pushed is run next */
    "mov %rsp, %rcx\n lea 2f+8(%rip), %rsp\n"
    ".byte 0x48, 0xb8\n" /* mov $value, %rax */
    "push_value: mov $0, %eax\n nop\n nop\n nop\n"
    "push %rax\n"
    "2: .fill 8, 1, 0x90\n"
    "mov %rcx, %rsp\n ret\n"

    "fill_code:\n" /* rep stosb over what follows it */
    "push %rdi\n mov $0x90, %eax\n mov $2, %ecx\n lea 1f(%rip), %rdi\n"
    "rep stosb\n"
    "1: mov $1, %al\n pop %rdi\n ret\n"
    "self_end:\n .popsection\n");
/* clang-format on */

static void write_over_itself(void)
{
    unsigned char *at = map(1, RWX, MAP_PRIVATE, -1) + 512;
    size_t fill = (size_t)(fill_code - push_code);
    int pushed = 0, filled = 0;

    for (int i = 0; i < 20; i++) {
        memcpy(at, push_code, (size_t)(self_end - push_code));
        at[push_value - push_code + 1] = (unsigned char)i;
        pushed += run(at);
        filled += run(at + fill);
    }
    printf("pushed over the next %d, filled what follows %d\n", pushed, filled);
}

int main(void)
{
    two_views();
    replace_mappings();
    drop_changes();
    change_behind_call();
    toggle_execution();
    written_by_kernel();
    patch_call();
    patch_behind_trap();
    written_by_child();
    made_by_child();
    write_over_itself();
    return 0;
}
