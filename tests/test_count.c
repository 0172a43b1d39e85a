/* test_count.c: what plugins count equals what single-stepping the native process counts.
 *
 * Programs are static and start at fixed addresses. The .S ones run nothing but their own code.
 * The musl one walks argv, environment and auxiliary vector at its start, so it holds only if emu
 * builds the initial stack as the kernel does; it asks for no clock and no random bytes, and
 * musl's string functions do not choose by CPU. */
#include "run.h"

#include <setjmp.h>
#include <stdbool.h>
#include <sys/ptrace.h>
#include <sys/user.h>

#include <cmocka.h>

#define LOW      0x400000ull /* where ld places static programs */
#define SPAN     0x100000ull

/* clang-format off */
static const char *const programs[] = {
    "addressing", "riprel", "calls", "branches", "strings", "repeats", "loops", "faults", "own",
    "far", "hello-musl-static",
};
/* Each must report the number of instructions. */
static const struct {
    const char *name, *options[5];
} counters[] = {
    {"inline",          {"-plugin", "%s/libinsn.so,inline=on"}},
    {"callback",        {"-plugin", "%s/libinsn.so"}},
    {"inline one-insn", {"-one-insn-per-tb", "-plugin", "%s/libinsn.so,inline=on"}},
    {"inline 64K",      {"-tb-size", "64K", "-plugin", "%s/libinsn.so,inline=on"}},
    {"two plugins",     {"-plugin", "%s/libmem.so,inline=on", "-plugin", "%s/libinsn.so"}},
};
/* clang-format on */
#define PROGRAMS (sizeof programs / sizeof programs[0])
#define COUNTERS (sizeof counters / sizeof counters[0])

/* The native instruction stream of one program. */
struct stream {
    uint64_t count;
    int status;
    bool executed[SPAN]; /* by address - LOW: an instruction that ran starts here */
};

struct test_case {
    size_t program, counter;
};

static struct stream streams[PROGRAMS];
static char *const environment[] = {"PATH=/usr/bin:/bin", "LANG=C", NULL};

/* ---- the oracle ---- */

static uint64_t read_pc(pid_t pid)
{
    return (uint64_t)ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user_regs_struct, rip), 0);
}

static bool is_repeating(pid_t pid, uint64_t pc)
{
    uint64_t word = (uint64_t)ptrace(PTRACE_PEEKTEXT, pid, pc, 0);

    for (int i = 0; i < 4; i++, word >>= 8)
        if ((word & 0xff) == 0xf2 || (word & 0xff) == 0xf3)
            return true;
    return false;
}

/* A repeated string instruction is one, however often it steps, but for QEMU's way of running it:
 * in parts, each of which counts (tests/guest/repeats.S; do_gen_rep of its translator: the loop
 * ends where the count less one has no low 16 bits, and goes on in it unless it is the last). */
static bool is_going_on(pid_t pid, uint64_t pc)
{
    uint64_t left =
        (uint64_t)ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user_regs_struct, rcx), 0);

    return is_repeating(pid, pc) && ((left & 0xffff) != 1 || left == 1);
}

static void single_step(struct stream *s, pid_t pid)
{
    uint64_t last = 0;

    waitpid(pid, &s->status, 0); /* at its first instruction */
    while (WIFSTOPPED(s->status)) {
        uint64_t pc = read_pc(pid);
        int sig = WSTOPSIG(s->status) == SIGTRAP ? 0 : WSTOPSIG(s->status);

        /* A signal stops it at the instruction that has been counted and faults. */
        if (!sig && (pc != last || !is_going_on(pid, pc)))
            s->count++;
        last = pc;
        assert_in_range(pc, LOW, LOW + SPAN - 1);
        s->executed[pc - LOW] = true;
        ptrace(PTRACE_SINGLESTEP, pid, 0, sig);
        waitpid(pid, &s->status, 0);
    }
}

static const struct stream *native_stream(size_t program)
{
    struct stream *s = &streams[program];
    char path[MAX_PATH];
    char *const argv[] = {path, NULL};

    if (s->count)
        return s;
    snprintf(path, sizeof path, "%s/%s", guest_dir, programs[program]);
    pid_t pid = fork();
    if (!pid) {
        int null = open("/dev/null", O_RDWR);

        for (int fd = 0; fd < 3; fd++)
            dup2(null, fd);
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        execve(path, argv, environment);
        _exit(127);
    }
    single_step(s, pid);
    return s;
}

/* ---- runs under emu ---- */

/* Runs the program with %s in options replaced by the plugins' directory. */
static void run_emu(struct result *r, size_t program, const char *const *options, size_t n)
{
    char *argv[16], texts[8][MAX_PATH], path[MAX_PATH];
    int argc = 0;

    argv[argc++] = emu_path;
    for (size_t i = 0; i < n && options[i]; i++) {
        snprintf(texts[i], sizeof texts[i], options[i], emu_dir);
        argv[argc++] = texts[i];
    }
    snprintf(path, sizeof path, "%s/%s", guest_dir, programs[program]);
    argv[argc++] = path;
    argv[argc] = NULL;
    run_command(r, argv, environment, NULL, NULL, 20);
    if (r->status != native_stream(program)->status)
        fail_msg("wait status %#x, native %#x; stderr:\n%s", r->status,
                 native_stream(program)->status, r->out[1]);
}

static void test_count(void **state)
{
    const struct test_case *c = *state;
    const char *options[8] = {"-d", "plugin"};
    struct result r;

    memcpy(options + 2, counters[c->counter].options, sizeof counters[0].options);
    run_emu(&r, c->program, options, 8);
    const char *total = strstr(r.out[1], "total insns: ");
    if (!total)
        fail_msg("no total in:\n%s", r.out[1]);
    assert_int_equal(strtoull(total + 13, NULL, 10), native_stream(c->program)->count);
    free_result(&r);
}

/* ---- coverage ---- */

/* The part of a coverage file that says what ran, with starts made absolute. */
struct coverage {
    uint64_t base;
    unsigned blocks;
    const uint8_t *table;
};

static struct coverage parse_drcov(const char *text, size_t size)
{
    struct coverage c = {0};
    const char *path_line = strstr(text, "Columns: id, base, end, entry, path\n");
    const char *table = memmem(text, size, "BB Table: ", 10);

    assert_non_null(path_line);
    assert_non_null(table);
    assert_int_equal(sscanf(strchr(path_line, '\n') + 1, "0, 0x%lx", &c.base), 1);
    assert_int_equal(sscanf(table, "BB Table: %u bbs\n", &c.blocks), 1);
    c.table = (const uint8_t *)strchr(table, '\n') + 1;
    assert_int_equal((const uint8_t *)text + size - c.table, c.blocks * 8ul);
    return c;
}

/* Every block starts at an instruction that ran, and every instruction that ran is in a block. */
static void compare_coverage(const struct stream *s, const struct coverage *c)
{
    static bool covered[SPAN];

    memset(covered, 0, sizeof covered);
    for (unsigned i = 0; i < c->blocks; i++) {
        uint32_t start;
        uint16_t size;

        memcpy(&start, c->table + 8 * i, 4);
        memcpy(&size, c->table + 8 * i + 4, 2);
        uint64_t at = c->base + start - LOW;
        assert_in_range(at, 0, SPAN - size);
        if (!s->executed[at])
            fail_msg("block at %#llx did not run", (unsigned long long)(at + LOW));
        memset(covered + at, 1, size);
    }
    for (uint64_t at = 0; at < SPAN; at++)
        if (s->executed[at] && !covered[at])
            fail_msg("%#llx ran and is in no block", (unsigned long long)(at + LOW));
}

static void test_coverage(void **state)
{
    const struct test_case *c = *state;
    char file[] = "/tmp/emu-drcov-XXXXXX", option[64];
    struct result r, text;
    int fd = mkstemp(file);

    snprintf(option, sizeof option, "%%s/libdrcov.so,filename=%s", file);
    run_emu(&r, c->program, (const char *const[]){"-plugin", option}, 2);
    close(fd);
    read_whole(open(file, O_RDONLY), &text.out[0], &text.size[0]);
    unlink(file);
    struct coverage coverage = parse_drcov(text.out[0], text.size[0]);
    compare_coverage(native_stream(c->program), &coverage);
    free(text.out[0]);
    free_result(&r);
}

int main(void)
{
    static struct CMUnitTest tests[PROGRAMS * (COUNTERS + 1)];
    static struct test_case cases[PROGRAMS * (COUNTERS + 1)];
    size_t n = 0;

    locate_emu();
    for (size_t p = 0; p < PROGRAMS; p++)
        for (size_t c = 0; c <= COUNTERS; c++, n++) {
            const char *what = c < COUNTERS ? counters[c].name : "coverage";
            char *name;

            if (asprintf(&name, "%s [%s]", programs[p], what) < 0)
                return EXIT_FAILURE;
            cases[n] = (struct test_case){p, c};
            tests[n] = (struct CMUnitTest){.name = name,
                                           .test_func = c < COUNTERS ? test_count : test_coverage,
                                           .initial_state = &cases[n]};
        }
    return _cmocka_run_group_tests("counts", tests, n, NULL, NULL);
}
