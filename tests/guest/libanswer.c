/* A shared object for load.c. */
#include <stdio.h>

static __thread int calls = 40;

__attribute__((constructor)) static void loaded(void)
{
    printf("loaded\n");
}

__attribute__((destructor)) static void unloaded(void)
{
    printf("unloaded\n");
}

int answer(void)
{
    return ++calls;
}
