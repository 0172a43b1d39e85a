/* test_bad_elf.c: damaged programs under emu: never a crash or hang of its own. The kernel's run of
 * the same file is the oracle: emu does the same, or refuses with one line. Damaged headers that
 * only ld.so looks at make it read or protect whatever lies beside the program, which is not the
 * same. */
#include <setjmp.h>
#include <stdbool.h>

#include "run.h"

#include <cmocka.h>

#include "bad_elf.h"

#define SECONDS 5
#define FILES   2000

static char *no_env[] = {NULL};

static bool is_refusal(const struct result *r)
{
    return r->status == 1 << 8 && !r->size[0] && !strncmp(r->out[1], "emu: ", 5) &&
           strchr(r->out[1], '\n') == r->out[1] + r->size[1] - 1;
}

/* Never a crash of emu itself, nor a hang. */
static bool is_sound(const struct result *native, const struct result *ours)
{
    return !strstr(ours->out[1], "internal error") &&
           (ours->status != RUN_TIMED_OUT || native->status == RUN_TIMED_OUT);
}

/* The same end. Not where the program crashes natively: execute-only code can be read here. */
static bool is_same(const struct result *native, const struct result *ours)
{
    return ours->status == native->status || WIFSIGNALED(native->status);
}

/* exact: what the program does cannot depend on where things are in memory. */
static void compare_run(const char *label, uint64_t seed, bool exact)
{
    char *native_argv[] = {"./bad", NULL}, *argv[] = {emu_path, "./bad", NULL};
    struct result native, ours;

    run_command(&native, native_argv, no_env, dir, NULL, SECONDS);
    run_command(&ours, argv, no_env, dir, NULL, SECONDS);
    if (!is_refusal(&ours) && (!is_sound(&native, &ours) || (exact && !is_same(&native, &ours))))
        fail_msg("%s, seed 0x%" PRIx64 ": status 0x%x, natively 0x%x: %s", label, seed, ours.status,
                 native.status, ours.out[1]);
    free_result(&native);
    free_result(&ours);
}

static void test_tiny(void **state)
{
    (void)state;
    seed_random();
    for (int i = 0; i < FILES / 2; i++) {
        struct tiny t = make_tiny();
        uint64_t seed = random_state;

        damage_randomly((uint8_t *)&t, offsetof(struct tiny, code));
        write_program("bad", &t, sizeof t, 0755);
        compare_run("tiny", seed, true);
    }
}

/* The headers of a program that needs its interpreter. */
static void test_true(void **state)
{
    char *program, *bytes;
    size_t size;

    (void)state;
    seed_random();
    read_whole(open("/bin/true", O_RDONLY), &program, &size);
    bytes = malloc(size);
    assert_non_null(bytes);
    for (int i = 0; i < FILES / 2; i++) {
        const Elf64_Ehdr *head = (const Elf64_Ehdr *)program;
        uint64_t seed = random_state;

        memcpy(bytes, program, size);
        damage_randomly((uint8_t *)bytes, head->e_phoff + head->e_phnum * sizeof(Elf64_Phdr));
        write_program("bad", bytes, size, 0755);
        compare_run("true", seed, false);
    }
    free(bytes);
    free(program);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny),
        cmocka_unit_test(test_true),
    };

    locate_emu();
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
