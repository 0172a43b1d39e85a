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

/* Further names, of which nobody wants to see one. */
int __answer(void) __attribute__((alias("answer")));
int _answer(void) __attribute__((weak, alias("answer")));
static int aanswer(void) __attribute__((used, alias("answer")));
static int zanswer(void) __attribute__((used, alias("answer")));
