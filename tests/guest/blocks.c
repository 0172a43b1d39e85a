/* blocks.c: more than half a million blocks, in functions that are all of the shortest branches. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define FUNCTIONS 20000
#define BRANCHES  31

struct function {
    unsigned char branch[BRANCHES][2]; /* jz to the next one */
    unsigned char ret, fill;
};

int main(void)
{
    struct function f = {.ret = 0xc3}, *all;
    size_t size = FUNCTIONS * sizeof f;

    for (int i = 0; i < BRANCHES; i++)
        f.branch[i][0] = 0x74;
    all = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED)
        return 1;
    for (int i = 0; i < FUNCTIONS; i++)
        all[i] = f;
    mprotect(all, size, PROT_READ | PROT_EXEC);
    for (int i = 0; i < FUNCTIONS; i++)
        ((void (*)(void))(void *)&all[i])();
    printf("%d\n", FUNCTIONS);
    return 0;
}
