/* The smallest program: built in every way a program can be linked. */
#include <stdio.h>

int main(int argc, char **argv)
{
    printf("hello, world: %d argument%s\n", argc - 1, argc == 2 ? "" : "s");
    for (int i = 1; i < argc; i++)
        printf("[%s]\n", argv[i]);
    fprintf(stderr, "and on stderr\n");
    return 7;
}
