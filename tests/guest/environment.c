/* What a program is started with: argv, environment, auxiliary vector, stack alignment. */
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

extern char **environ;

static const struct {
    unsigned long type;
    const char *name;
} numbers[] = {
    {AT_PAGESZ, "PAGESZ"}, {AT_CLKTCK, "CLKTCK"}, {AT_UID, "UID"},       {AT_EUID, "EUID"},
    {AT_GID, "GID"},       {AT_EGID, "EGID"},     {AT_SECURE, "SECURE"}, {AT_PHENT, "PHENT"},
    {AT_PHNUM, "PHNUM"},   {AT_HWCAP, "HWCAP"},   {AT_FLAGS, "FLAGS"},
};

static int count_auxv(const Elf64_auxv_t *aux)
{
    int n = 0;

    while (aux[n].a_type != AT_NULL)
        n++;
    return n;
}

int main(int argc, char **argv)
{
    char **end = environ;
    int pad[4] __attribute__((aligned(16)));

    for (int i = 0; i < argc; i++)
        printf("argv[%d] = %s\n", i, i ? argv[i] : strrchr(argv[i], '/'));
    printf("argv ends: %d, environment follows: %d\n", !argv[argc], environ == argv + argc + 1);
    for (; *end; end++)
        printf("env %s\n", *end);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        printf("AT_%s = %lu\n", numbers[i].name, getauxval(numbers[i].type));
    printf("AT_PLATFORM = %s\n", (char *)getauxval(AT_PLATFORM));
    printf("AT_EXECFN = %s\n", strrchr((char *)getauxval(AT_EXECFN), '/'));
    printf("AT_RANDOM set: %d, AT_PHDR set: %d, AT_ENTRY set: %d\n", getauxval(AT_RANDOM) != 0,
           getauxval(AT_PHDR) != 0, getauxval(AT_ENTRY) != 0);
    printf("interpreter: %d\n", getauxval(AT_BASE) != 0);
    printf("some vector: %d\n", count_auxv((Elf64_auxv_t *)(end + 1)) > 10);
    printf("aligned: %d\n", ((uintptr_t)pad & 15) == 0);
    return 0;
}
