/* Code that is written while it is used: a code page that is also data, a function that patches
 * the loop it is in, writes by system calls, threads that run what another one wrote. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static unsigned char *page;

static void put_function(unsigned char *at, int32_t value)
{
    at[0] = 0xb8; /* mov $value, %eax; ret */
    memcpy(at + 1, &value, 4);
    at[5] = 0xc3;
}

static int run(const void *p)
{
    int (*f)(void);

    memcpy(&f, &p, sizeof f);
    return f();
}

/* Counters and code on one page: a page that is written again and again. */
static void share_page(void)
{
    volatile int *counter = (volatile int *)(page + 2048);
    long sum = 0;

    put_function(page, 3);
    for (int i = 0; i < 20000; i++) {
        *counter += run(page);
        if (i % 1000 == 0)
            put_function(page, i / 1000);
        sum += *counter;
    }
    printf("shared page %d %ld\n", *counter, sum);
}

/* inc %eax; movb $0xc8, 3f+1 (turns inc into dec); loop */
static void patch_own_loop(void)
{
    static const unsigned char code[] = {
        0x31, 0xc0,                               /*    xor  %eax, %eax */
        0xb9, 100,  0,    0,    0,                /*    mov  $100, %ecx */
        0xff, 0xc0,                               /* 1: inc  %eax */
        0x83, 0xf9, 50,                           /*    cmp  $50, %ecx */
        0x75, 0x07,                               /*    jne  2f */
        0xc6, 0x05, 0xf3, 0xff, 0xff, 0xff, 0xc8, /*    movb $0xc8, 1b+1(%rip): now a dec */
        0xff, 0xc9,                               /* 2: dec  %ecx */
        0x75, 0xee,                               /*    jnz  1b */
        0xc3,
    };

    memcpy(page + 100, code, sizeof code);
    printf("patched loop %d", run(page + 100));
    printf(" %d\n", run(page + 100));
}

/* A loop of one block, which from page to page comes to write to itself, in one round or another:
 * what that turned into a dec is run by the next one. */
static void patch_short_loop(void)
{
    enum { ROUNDS = 8, PAGE = 4096 };
    static const unsigned char code[] = {
        0x31, 0xc0,                                 /*    xor  %eax, %eax */
        0xb9, ROUNDS, 0,    0,    0,                /*    mov  $ROUNDS, %ecx */
        0xff, 0xc0,                                 /* 1: inc  %eax */
        0x40, 0x88,   0x37,                         /*    mov  %sil, (%rdi) */
        0x48, 0x81,   0xc7, 0x00, 0x10, 0x00, 0x00, /*    add  $4096, %rdi */
        0xff, 0xc9,                                 /*    dec  %ecx */
        0x75, 0xf0,                                 /*    jnz  1b */
        0xc3,
    };
    unsigned char *pages =
        mmap(NULL, 2 * ROUNDS * ROUNDS * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int (*f)(unsigned char *, int);

    for (int round = 0; round < ROUNDS; round++) {
        unsigned char *at = pages + (2 * round + 1) * ROUNDS * PAGE;
        memcpy(at, code, sizeof code);
        memcpy(&f, &at, sizeof f);
        printf(" %d", f(at + 8 - round * PAGE, 0xc8));
    }
    printf("\n");
}

/* The very next instruction is overwritten. */
static void patch_next(void)
{
    static const unsigned char code[] = {
        0xb8, 1,    0, 0, 0,       /* mov  $1, %eax */
        0xc6, 0x05, 1, 0, 0, 0, 7, /* movb $7, (the immediate below)(%rip) */
        0xb8, 2,    0, 0, 0,       /* mov  $2, %eax */
        0xc3,
    };

    memcpy(page + 300, code, sizeof code);
    printf("patched next %d", run(page + 300));
    page[300 + 13] = 9;
    printf(" %d\n", run(page + 300));
}

static void write_by_kernel(void)
{
    unsigned char bytes[6];
    int fds[2], sum = 0;

    if (pipe(fds))
        return;
    for (int i = 0; i < 50; i++) {
        put_function(bytes, i * 3);
        if (write(fds[1], bytes, 6) != 6 || read(fds[0], page + 512, 6) != 6)
            return;
        sum += run(page + 512);
    }
    printf("read into code %d\n", sum);
}

static atomic_int published, answered;

static void *run_published(void *arg)
{
    long sum = 0;

    for (int i = 1; i <= 200; i++) {
        while (atomic_load(&published) != i)
            ;
        sum += run(arg);
        atomic_store(&answered, i);
    }
    return (void *)sum;
}

static void write_for_thread(void)
{
    pthread_t t;
    void *sum;

    pthread_create(&t, NULL, run_published, page + 1024);
    for (int i = 1; i <= 200; i++) {
        put_function(page + 1024, i);
        atomic_store(&published, i);
        while (atomic_load(&answered) != i)
            ;
    }
    pthread_join(t, &sum);
    printf("other thread ran %ld\n", (long)sum);
}

static void toggle_protection(void)
{
    int sum = 0;

    for (int i = 0; i < 200; i++) {
        mprotect(page, 4096, PROT_READ | PROT_WRITE);
        put_function(page + 1500, i);
        mprotect(page, 4096, PROT_READ | PROT_EXEC);
        sum += run(page + 1500);
    }
    printf("toggled %d\n", sum);
}

#define WRITERS 3
#define ROUNDS  400

static unsigned char *round_page; /* ROUNDS of them */

static void *write_rounds(void *arg)
{
    for (int i = 1; i <= ROUNDS; i++) {
        while (atomic_load(&published) < i)
            ;
        round_page[(i - 1) * 4096 + 2048 + (long)arg] = 1;
        atomic_fetch_add(&answered, 1);
    }
    return NULL;
}

/* Several threads write to a page of code at the same time. */
static void write_together(void)
{
    pthread_t threads[WRITERS];
    long sum = 0;

    round_page = mmap(NULL, ROUNDS * 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    atomic_store(&published, 0);
    atomic_store(&answered, 0);
    for (long i = 0; i < WRITERS; i++)
        pthread_create(&threads[i], NULL, write_rounds, (void *)i);
    for (int i = 1; i <= ROUNDS; i++) {
        put_function(round_page + (i - 1) * 4096, i);
        sum += run(round_page + (i - 1) * 4096);
        atomic_store(&published, i);
        while (atomic_load(&answered) < i * WRITERS)
            ;
    }
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    printf("written together %ld\n", sum);
    munmap(round_page, ROUNDS * 4096);
}

/* Code that runs from a page into the next, of which only one can be written, and is. */
static void cross_pages(void)
{
    unsigned char *two =
        mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned char *edge = two + 4096;
    long first = 0, second = 0;

    memset(two, 0x90, 8192);     /* nop */
    memcpy(edge, "\x90\xc3", 2); /* ret */
    mprotect(edge, 4096, PROT_READ | PROT_EXEC);
    for (int i = 0; i < 20; i++) {
        put_function(edge - 6, i);
        edge[-1] = 0x90;
        first += run(edge - 6);
    }
    mprotect(two, 8192, PROT_READ | PROT_WRITE | PROT_EXEC);
    put_function(edge - 3, 0);
    mprotect(two, 4096, PROT_READ | PROT_EXEC);
    for (int i = 0; i < 20; i++) {
        edge[1] = (unsigned char)i;
        second += run(edge - 3);
    }
    printf("crossing pages %ld %ld\n", first, second);
    munmap(two, 8192);
}

int main(void)
{
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    share_page();
    patch_own_loop();
    patch_short_loop();
    patch_next();
    write_by_kernel();
    write_for_thread();
    toggle_protection();
    write_together();
    cross_pages();
    return 0;
}
