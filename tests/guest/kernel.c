/* Corners of the kernel's interface in which an emulator could show: address space, names, limits,
 * tracing, rings and file descriptors of memory. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul

static const char *name(long ret)
{
    return ret == -1 ? strerrorname_np(errno) : "ok";
}

static const char *map_name(void *p)
{
    return p == MAP_FAILED ? strerrorname_np(errno) : "ok";
}

static sigjmp_buf jump;

static void leap(int sig)
{
    siglongjmp(jump, sig);
}

/* What touching p does: 0 or the signal. */
static int touch(volatile char *p)
{
    int sig = sigsetjmp(jump, 1);

    if (!sig)
        *p = 1;
    return sig;
}

/* ---- address space ---- */

static void *anonymous(void *at, size_t size, int flags)
{
    return mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
}

static void fixed(void)
{
    char *p = anonymous(NULL, 4 * PAGE, 0);
    void *q = anonymous(p + PAGE, PAGE, MAP_FIXED_NOREPLACE);

    printf("noreplace %s", map_name(q));
    munmap(p + PAGE, PAGE);
    q = anonymous(p + PAGE, PAGE, MAP_FIXED_NOREPLACE);
    printf(" %d", q == p + PAGE);
    printf(" low %s", map_name(anonymous((void *)PAGE, PAGE, MAP_FIXED)));
    printf(" high %s", map_name(anonymous((void *)0x7ffffffff000, PAGE, MAP_FIXED)));
    printf(" huge %s", map_name(anonymous(NULL, 1ul << 47, 0)));
    q = anonymous(NULL, PAGE, MAP_32BIT);
    printf(" 32bit %d\n", (uintptr_t)q < 1ul << 31);
}

static void grow_by_mremap(void)
{
    char *p = anonymous(NULL, PAGE, 0), *q;
    int moved = 0;

    for (size_t size = PAGE; size < 64 << 20; size *= 2, p = q) {
        p[size - 1] = (char)(size >> 12);
        q = mremap(p, size, 2 * size, MREMAP_MAYMOVE);
        moved += q == MAP_FAILED || q[size - 1] != (char)(size >> 12);
    }
    printf("mremap wrong %d", moved);
    q = anonymous(NULL, 8 * PAGE, 0);
    munmap(q + PAGE, 7 * PAGE);
    printf(" in place %d", mremap(q, PAGE, 4 * PAGE, 0) == q);
    printf(" over hole %s", map_name(mremap(q, 8 * PAGE, 16 * PAGE, MREMAP_MAYMOVE)));
    q[PAGE] = 7;
    char *to = anonymous(NULL, 4 * PAGE, 0);
    printf(" fixed %d", mremap(q, 4 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
    printf(" %d gone %d", to[PAGE], touch(q) == SIGSEGV);
    q = mremap(to, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
    printf(" left %d %d\n", q[PAGE], to[PAGE]);
}

static void grows_down(void)
{
    char *p = anonymous(NULL, 64 * PAGE, 0);

    munmap(p, 60 * PAGE);
    char *stack = anonymous(p + 60 * PAGE, 4 * PAGE, MAP_FIXED | MAP_GROWSDOWN);
    printf("growsdown");
    for (int i = 1; i <= 8; i++)
        printf(" %d", touch(stack - i * PAGE));
    printf(" protect %s", name(mprotect(stack, PAGE, PROT_READ | PROT_GROWSDOWN)));
    printf(" %d %d\n", touch(stack - PAGE), touch(stack + PAGE));
}

static void huge_break(void)
{
    char *start = sbrk(0), *end;

    printf("brk %s", sbrk(1l << 30) == start ? "ok" : "no");
    end = sbrk(0);
    printf(" %ld touch %d %d", (long)(end - start) >> 20, touch(end - 1), touch(start));
    printf(" back %d", brk(start + 100) == 0 && sbrk(0) == start + 100);
    printf(" beyond %d", touch(end - 1));
    printf(" too much %s\n", brk((void *)0x7fffffffff00) ? strerrorname_np(errno) : "ok");
}

static void address_limit(void)
{
    struct rlimit limit = {3ul << 30, RLIM_INFINITY};

    setrlimit(RLIMIT_AS, &limit);
    printf("limit: 4 GiB %s", map_name(anonymous(NULL, 4ul << 30, MAP_NORESERVE)));
    printf(" 64 MiB %s", map_name(anonymous(NULL, 64ul << 20, MAP_NORESERVE)));
    getrlimit(RLIMIT_AS, &limit);
    printf(" says %lu", limit.rlim_cur >> 30);
    limit.rlim_cur = RLIM_INFINITY;
    printf(" lifted %s\n", name(setrlimit(RLIMIT_AS, &limit)));
}

static void advice(void)
{
    char *p = anonymous(NULL, 16 * PAGE, 0);
    unsigned char vec[16];

    memset(p, 5, 16 * PAGE);
    printf("madvise %s", name(madvise(p, PAGE, MADV_DONTNEED)));
    printf(" %d %s", p[0], name(madvise(p, 16 * PAGE, MADV_FREE)));
    printf(" %s", name(madvise(p + 8 * PAGE, PAGE, 999)));
    printf(" mincore %s", name(mincore(p, 16 * PAGE, vec)));
    printf(" mlock %s", name(mlock(p, 4 * PAGE)));
    printf(" msync %s", name(msync(p, PAGE, MS_SYNC)));
    munmap(p, PAGE);
    printf(" hole %s\n", name(madvise(p, 2 * PAGE, MADV_DONTNEED)));
}

/* ---- the process ---- */

static void print_line(const char *path)
{
    char text[64] = "";
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, text, sizeof text - 1);

    printf(" %.*s", n > 0 ? (int)strcspn(text, "\n") : 0, text);
    close(fd);
}

static void *named_thread(void *arg)
{
    char text[32] = "", path[64];

    (void)arg;
    pthread_setname_np(pthread_self(), "a long thread");
    prctl(PR_GET_NAME, text);
    printf(" %s", text);
    print_line("/proc/thread-self/comm");
    print_line("/proc/self/comm");
    snprintf(path, sizeof path, "/proc/self/task/%ld/comm", syscall(SYS_gettid));
    print_line(path);
    return NULL;
}

static void names(void)
{
    pthread_t t;

    printf("names");
    prctl(PR_SET_NAME, "guest");
    print_line("/proc/self/comm");
    pthread_create(&t, NULL, named_thread, NULL);
    pthread_join(t, NULL);
    print_line("/proc/self/comm");
    printf("\n");
}

static void process_controls(void)
{
    int value = 0;

    printf("dumpable %d", prctl(PR_GET_DUMPABLE));
    printf(" %s %d", name(prctl(PR_SET_DUMPABLE, 0)), prctl(PR_GET_DUMPABLE));
    prctl(PR_SET_DUMPABLE, 1);
    printf(" death %s", name(prctl(PR_SET_PDEATHSIG, SIGTERM)));
    prctl(PR_GET_PDEATHSIG, &value);
    printf(" %d subreaper %s", value, name(prctl(PR_SET_CHILD_SUBREAPER, 1)));
    printf(" slack %s", name(prctl(PR_SET_TIMERSLACK, 1000)));
    printf(" keepcaps %s %d", name(prctl(PR_SET_KEEPCAPS, 1)), prctl(PR_GET_KEEPCAPS));
    prctl(PR_SET_KEEPCAPS, 0);
    printf(" privileges %s %d", name(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)),
           prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    printf(" bad %s\n", name(prctl(9999)));
    printf("personality %x", (unsigned)personality(0xffffffff));
    personality(ADDR_NO_RANDOMIZE);
    printf(" %x\n", (unsigned)personality(0));
}

/* A filter that forbids one call: obeyed, or refused as by a kernel without filters. */
static void filter_calls(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EDOM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    int status;
    pid_t pid = fork();

    if (!pid) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
            prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
            _exit(errno);
        _exit(syscall(SYS_getppid) == -1 && errno == EDOM ? 0 : 1);
    }
    waitpid(pid, &status, 0);
    printf("filter %d\n", status == 0 || status == EINVAL << 8);
}

/* ---- tracing ---- */

static void trace_child(void)
{
    struct user_regs_struct regs;
    int status, stops = 0, calls = 0;
    pid_t pid = fork();

    if (!pid) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        execl("/bin/true", "true", (char *)NULL);
        _exit(1);
    }
    waitpid(pid, &status, 0);
    printf("traced: stop %d", WIFSTOPPED(status) ? WSTOPSIG(status) : -1);
    ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD);
    for (int i = 0; i < 100; i++) {
        ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL);
        waitpid(pid, &status, 0);
        stops += WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP;
    }
    ptrace(PTRACE_GETREGS, pid, NULL, &regs);
    errno = 0;
    ptrace(PTRACE_PEEKTEXT, pid, (void *)regs.rip, NULL);
    printf(" steps %d peek %d", stops, errno);
    for (;;) {
        ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
        waitpid(pid, &status, 0);
        if (!WIFSTOPPED(status))
            break;
        calls += WSTOPSIG(status) == (SIGTRAP | 0x80);
    }
    printf(" calls %d ends %x\n", calls > 10, status);
}

static void traced_myself(void)
{
    int status;
    pid_t pid = fork();

    if (!pid) {
        for (;;)
            pause();
    }
    printf("attach %s", name(ptrace(PTRACE_SEIZE, pid, NULL, NULL)));
    printf(" %s", name(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL)));
    waitpid(pid, &status, 0);
    printf(" stopped %d", WIFSTOPPED(status));
    printf(" detach %s", name(ptrace(PTRACE_DETACH, pid, NULL, NULL)));
    kill(pid, SIGTERM);
    waitpid(pid, &status, 0);
    printf(" ends %x\n", status);
}

/* ---- descriptors with memory behind them ---- */

static void *fault_pages(void *arg)
{
    long fd = (long)arg;
    char *page = anonymous(NULL, PAGE, 0);
    struct uffd_msg msg;

    for (int i = 0; i < 3; i++) {
        memset(page, 'a' + i, PAGE);
        if (read((int)fd, &msg, sizeof msg) != sizeof msg)
            return NULL;
        struct uffdio_copy copy = {
            .dst = msg.arg.pagefault.address & ~(PAGE - 1), .src = (uintptr_t)page, .len = PAGE};
        ioctl((int)fd, UFFDIO_COPY, &copy);
    }
    return NULL;
}

/* The second page is first touched by the kernel, the third is code. */
static void user_faults(void)
{
    long fd = syscall(SYS_userfaultfd, O_CLOEXEC);
    struct uffdio_api api = {.api = UFFD_API};
    int fds[2];
    char c = 0;
    pthread_t t;

    if (fd < 0 || ioctl((int)fd, UFFDIO_API, &api)) {
        printf("userfaultfd %s\n", name(-1));
        return;
    }
    char *p = anonymous(NULL, 3 * PAGE, 0);
    struct uffdio_register range = {.range = {(uintptr_t)p, 3 * PAGE},
                                    .mode = UFFDIO_REGISTER_MODE_MISSING};
    printf("userfaultfd %s", name(ioctl((int)fd, UFFDIO_REGISTER, &range)));
    pthread_create(&t, NULL, fault_pages, (void *)fd);
    printf(" %c", p[5]);
    if (pipe(fds) == 0 && write(fds[1], p + PAGE + 7, 1) == 1 && read(fds[0], &c, 1) == 1)
        printf(" %c", c);
    printf(" %c\n", p[2 * PAGE]);
    pthread_join(t, NULL);
    close((int)fd);
}

static void ring(void)
{
    struct io_uring_params params = {0};
    int fd = (int)syscall(SYS_io_uring_setup, 4, &params);

    if (fd < 0) {
        printf("io_uring %s\n", name(-1));
        return;
    }
    size_t size = params.sq_off.array + params.sq_entries * 4;
    char *sq = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING);
    char *cq = mmap(NULL, params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe),
                    PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_CQ_RING);
    struct io_uring_sqe *sqe = mmap(NULL, params.sq_entries * sizeof *sqe, PROT_READ | PROT_WRITE,
                                    MAP_SHARED, fd, IORING_OFF_SQES);
    char text[] = "through the ring\n";
    int fds[2];
    char back[32] = "";

    if (sq == MAP_FAILED || cq == MAP_FAILED || sqe == MAP_FAILED || pipe(fds))
        return;
    *sqe = (struct io_uring_sqe){.opcode = IORING_OP_WRITE,
                                 .fd = fds[1],
                                 .addr = (uintptr_t)text,
                                 .len = sizeof text - 1,
                                 .user_data = 77};
    ((unsigned *)(sq + params.sq_off.array))[0] = 0;
    __atomic_store_n((unsigned *)(sq + params.sq_off.tail), 1, __ATOMIC_RELEASE);
    long n = syscall(SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0);
    struct io_uring_cqe *cqe = (struct io_uring_cqe *)(cq + params.cq_off.cqes);
    printf("io_uring %ld %d %llu ", n, cqe->res, (unsigned long long)cqe->user_data);
    printf("%s", read(fds[0], back, sizeof back) > 0 ? back : "nothing\n");
    close(fd);
}

static void memory_file(void)
{
    int fd = memfd_create("some name", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    char link[64] = "", path[64];

    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    printf("memfd %zd %s", readlink(path, link, sizeof link - 1), link);
    printf(" %s", name(ftruncate(fd, 2 * PAGE)));
    char *code = mmap(NULL, 2 * PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    int (*f)(void);
    memcpy(&f, &code, sizeof f);
    for (int i = 0; i < 3; i++) {
        unsigned char bytes[] = {0xb8, (unsigned char)(i * 5), 0, 0, 0, 0xc3};
        if (pwrite(fd, bytes, sizeof bytes, 0) == sizeof bytes)
            printf(" %d", f());
    }
    printf(" seal %s", name(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_WRITE)));
    printf(" write %s\n", name(pwrite(fd, "x", 1, 0)));
}

int main(void)
{
    signal(SIGSEGV, leap);
    signal(SIGBUS, leap);
    setvbuf(stdout, NULL, _IONBF, 0);
    fixed();
    grow_by_mremap();
    grows_down();
    huge_break();
    advice();
    names();
    trace_child();
    traced_myself();
    user_faults();
    ring();
    memory_file();
    process_controls();
    filter_calls();
    address_limit();
    return 0;
}
