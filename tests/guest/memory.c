/* Address space calls: mmap in its variants, munmap of parts, mprotect, mremap, brk, msync, and
 * code that is loaded, run, changed and unmapped. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static sigjmp_buf env;

static void on_fault(int sig)
{
    siglongjmp(env, sig);
}

static int can_read(const volatile char *p)
{
    if (sigsetjmp(env, 1))
        return 0;
    (void)*p;
    return 1;
}

static int can_write(volatile char *p)
{
    if (sigsetjmp(env, 1))
        return 0;
    *p = *p;
    return 1;
}

static char *map(size_t len, int prot)
{
    return mmap(NULL, len, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void protections(void)
{
    char *p = map(5 * 4096, PROT_READ | PROT_WRITE);

    munmap(p + 4096, 4096);
    mprotect(p + 2 * 4096, 4096, PROT_READ);
    mprotect(p + 3 * 4096, 4096, PROT_NONE);
    for (int i = 0; i < 5; i++)
        printf("page %d: %d%d\n", i, can_read(p + i * 4096), can_write(p + i * 4096));
    printf("mprotect over a hole: %d ", mprotect(p, 3 * 4096, PROT_READ));
    printf("%m, page 0: %d%d\n", can_read(p), can_write(p));
    printf("munmap %d\n", munmap(p, 5 * 4096));
}

static void moves(void)
{
    char *p = map(4096, PROT_READ | PROT_WRITE), *q;

    strcpy(p, "moved along");
    q = mremap(p, 4096, 64 * 4096, MREMAP_MAYMOVE);
    printf("mremap: %s, %d\n", q, can_write(q + 63 * 4096));
    char *r = mremap(q, 64 * 4096, 2 * 4096, 0);
    printf("shrunk: %d %d\n", r == q, can_read(q + 3 * 4096));
    char *to = map(2 * 4096, PROT_NONE);
    r = mremap(q, 2 * 4096, 2 * 4096, MREMAP_MAYMOVE | MREMAP_FIXED, to);
    printf("fixed: %d %s\n", r == to, to);
    char *fixed = mmap(to, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    printf("replaced: %d %d%d\n", fixed == to, fixed[0], can_write(fixed));
    fixed = mmap(to, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    printf("no replacing: %m\n");
    char *low = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    printf("32 bits: %d\n", (uintptr_t)low < 0x80000000);
    errno = 0;
    void *bad = mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    printf("empty: %d %m\n", bad == MAP_FAILED);
    printf("odd munmap: %d %m\n", munmap(to + 1, 4096));
}

static void files(void)
{
    char name[] = "/tmp/emu-test-XXXXXX";
    int fd = mkstemp(name);

    unlink(name);
    if (ftruncate(fd, 8192))
        return;
    char *shared = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *private = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    strcpy(shared, "shared");
    printf("private sees %s\n", private);
    strcpy(private, "own");
    printf("shared keeps %s, msync %d\n", shared, msync(shared, 8192, MS_SYNC));
    char line[8] = "";
    printf("pread %zd %s\n", pread(fd, line, 7, 0), line);
    if (!ftruncate(fd, 4096))
        printf("beyond the end: %d\n", can_read(shared + 4096));
}

static void heap(void)
{
    char *start = sbrk(0);

    printf("grown %d\n", sbrk(100000) == start);
    memset(start, 1, 100000);
    printf("zero after: %d\n", brk(start));
    char *again = sbrk(4096 * 3);
    printf("fresh: %d %d\n", again == start, again[5000]);
    void *blocks[100];
    for (int i = 0; i < 100; i++)
        memset(blocks[i] = malloc((size_t)i * 3000 + 1), i, (size_t)i * 3000 + 1);
    int sum = 0;
    for (int i = 0; i < 100; i++) {
        sum += ((unsigned char *)blocks[i])[i * 3000];
        free(blocks[i]);
    }
    printf("blocks %d\n", sum);
}

/* mov $N, %eax; ret */
static void write_code(unsigned char *p, int n)
{
    p[0] = 0xb8;
    memcpy(p + 1, &n, 4);
    p[5] = 0xc3;
}

static int run(void *p)
{
    int (*f)(void);

    memcpy(&f, &p, sizeof f);
    return f();
}

static void code(void)
{
    unsigned char *p =
        mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int sum = 0;

    for (int i = 0; i < 300; i++) {
        write_code(p + 16 * (i % 5), i);
        sum += run(p + 16 * (i % 5));
    }
    printf("rewritten code: %d\n", sum);
    write_code(p + 4093, 77);
    printf("across pages: %d", run(p + 4093));
    p[4094] = 78;
    printf(" %d\n", run(p + 4093));
    mprotect(p, 4096, PROT_READ | PROT_WRITE);
    write_code(p, 5);
    printf("not executable: %d\n", sigsetjmp(env, 1) ? -1 : run(p));
    mprotect(p, 4096, PROT_READ | PROT_EXEC);
    printf("executable: %d\n", run(p));
    munmap(p, 8192);
    printf("unmapped: %d\n", sigsetjmp(env, 1) ? -1 : run(p));
    unsigned char *q = mmap(p, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    write_code(q, 6);
    printf("mapped again: %d\n", run(q));
    int fd = memfd_create("code", 0);
    if (ftruncate(fd, 4096))
        return;
    unsigned char *w = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    unsigned char *x = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    write_code(w, 8);
    printf("two views: %d\n", run(x));
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGSEGV, on_fault);
    signal(SIGBUS, on_fault);
    protections();
    moves();
    files();
    heap();
    code();
    return 0;
}
