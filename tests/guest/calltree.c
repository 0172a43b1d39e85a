/* Calls of every kind. Each function writes its depth, counted by hand, and its name: the tree that
 * calltrace must show. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static __thread int depth;
static jmp_buf back;

#define NOINLINE __attribute__((noinline, noipa))

static void enter(const char *name)
{
    printf("%d %s\n", depth++, name);
}

NOINLINE void leaf(void)
{
    enter(__func__);
    depth--;
}

NOINLINE void middle(void)
{
    enter(__func__);
    leaf();
    leaf();
    depth--;
}

NOINLINE void recursive(int n)
{
    enter(__func__);
    if (n)
        recursive(n - 1);
    leaf();
    depth--;
}

/* Through a pointer, to be found in a table. */
NOINLINE void indirect(void)
{
    static void (*const table[])(void) = {leaf, middle};
    enter(__func__);
    for (int i = 0; i < 2; i++)
        table[i]();
    depth--;
}

void jumps_away(void); /* calls nothing and jumps to middle, which takes its place */
__asm__(".globl jumps_away\n.type jumps_away, @function\njumps_away: jmp middle\n"
        ".size jumps_away, . - jumps_away");

NOINLINE void throws(int n)
{
    enter(__func__);
    if (!n)
        longjmp(back, 1);
    void (*volatile self)(int) = throws;
    self(n - 1);
}

NOINLINE void catches(void)
{
    enter(__func__);
    int here = depth;
    if (!setjmp(back))
        throws(3);
    depth = here;
    leaf();
    depth--;
}

NOINLINE void handler(int sig)
{
    (void)sig;
    enter(__func__);
    middle();
    depth--;
}

NOINLINE void signalled(void)
{
    enter(__func__);
    leaf();
    raise(SIGUSR1);
    leaf();
    depth--;
}

NOINLINE int compare(const void *a, const void *b)
{
    enter(__func__);
    depth--;
    return *(const char *)a - *(const char *)b;
}

NOINLINE void called_back(void)
{
    char two[] = "ba";
    enter(__func__);
    qsort(two, 2, 1, compare);
    depth--;
}

/* Returns to a function instead of calling it, as retpolines do. */
void returns_into(void);
__asm__(".globl returns_into\n.type returns_into, @function\n"
        "returns_into: lea middle(%rip), %rax\ncall 1f\n0: pause\njmp 0b\n"
        "1: mov %rax, (%rsp)\nret\n.size returns_into, . - returns_into");

NOINLINE void run(void)
{
    enter(__func__);
    middle();
    recursive(3);
    indirect();
    jumps_away();
    returns_into();
    catches();
    signalled();
    called_back();
    leaf();
    depth--;
}

int main(void)
{
    struct sigaction action = {.sa_handler = handler};
    sigaction(SIGUSR1, &action, NULL);
    run();
    return 0;
}
