/* test_lockstep.c: guest programs, and the beginning of a real one, beside the processor itself:
 * every register after every instruction (tests/plugins/lockstep.c). */
#include "run.h"

#include <setjmp.h>

#include <cmocka.h>

#define SECONDS    120
#define DIFFERENCE 99 /* status of a run with one */

/* clang-format off */
static const struct {
    const char *name, *program, *argument, *options;
} programs[] = {
    {"addressing", "%s/addressing",       NULL,  ""},
    {"branches",   "%s/branches",         NULL,  ""},
    {"calls",      "%s/calls",            NULL,  ""},
    {"riprel",     "%s/riprel",           NULL,  ""},
    {"strings",    "%s/strings",          NULL,  ""},
    {"repeats",    "%s/repeats",          NULL,  ""},
    {"musl",       "%s/hello-musl-static", NULL, ""},
    {"perl",       "/usr/bin/perl",       "-e1", ",steps=20000"},
};
/* clang-format on */
#define PROGRAMS   (sizeof programs / sizeof *programs)

static void test_lockstep(void **state)
{
    size_t i = (size_t)(uintptr_t)*state;
    const char *build = getenv("EMU_TEST_BUILD");
    char *const environment[] = {"LANG=C", NULL};
    char path[MAX_PATH], plugin[MAX_PATH];
    struct result r;

    snprintf(path, sizeof path, programs[i].program, guest_dir);
    snprintf(plugin, sizeof plugin, "%s/tests/liblockstep.so%s", build ? build : "build",
             programs[i].options);
    char *argv[] = {emu_path, "-plugin", plugin, path, (char *)(uintptr_t)programs[i].argument,
                    NULL};
    run_command(&r, argv, environment, NULL, NULL, SECONDS);
    if (!WIFEXITED(r.status) || WEXITSTATUS(r.status) == DIFFERENCE ||
        !strstr(r.out[1], " steps agree\n"))
        fail_msg("status %x; its stderr:\n%s", r.status, r.out[1]);
    free_result(&r);
}

int main(void)
{
    struct CMUnitTest tests[PROGRAMS];

    locate_emu();
    for (size_t i = 0; i < PROGRAMS; i++)
        tests[i] = (struct CMUnitTest){.name = programs[i].name,
                                       .test_func = test_lockstep,
                                       .initial_state = (void *)(uintptr_t)i};
    return _cmocka_run_group_tests("lockstep", tests, PROGRAMS, NULL, NULL);
}
