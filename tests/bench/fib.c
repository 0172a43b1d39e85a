/* Recursion: calls and returns, next to nothing else. */
#include <stdio.h>

__attribute__((noinline, optimize("no-optimize-sibling-calls"))) static unsigned fib(unsigned n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

int main(void)
{
    volatile unsigned n = 41;

    printf("%u\n", fib(n));
    return 0;
}
