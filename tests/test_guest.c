/* test_guest.c: runs programs natively and under emu and compares stdout, stderr and wait status.
 * The native run is the oracle; there are no expected outputs here.
 *
 * Arguments choose modes and programs by name; none: what `make check` runs. "all": every program
 * in every mode; "stress": the programs in which timing matters, again and again. */
#include "run.h"

#include <glob.h>
#include <setjmp.h>
#include <stdbool.h>

#include <cmocka.h>

#define SECONDS     60  /* after which a run counts as hung */
#define ALL_SECONDS 600 /* the same for "all" */
#define MAX_ARGS    12
#define STRESS_RUNS 30

enum program_flag {
    REAL = 1,  /* a program of the system: `make check` runs it in the modes marked so */
    RACY = 2,  /* part of "stress" */
    INPUT = 4, /* reads the data file on stdin */
    HEAVY = 8, /* `make check` leaves it out of modes that go in small steps */
    DENSE = 16 /* signals every 200 us: faster than a mode can be that steps out of callbacks */
};

struct program {
    const char *name;
    unsigned flags;
    const char *argv[MAX_ARGS]; /* argv[0]: an absolute path or pattern, or a guest's name */
};

struct mode {
    const char *name;
    enum { GUESTS, REALS, HEAVIES } most; /* what `make check` runs in it */
    bool steps;                           /* 45 single steps of 5 us to where a signal may come */
    const char *options[6];               /* %s: the directory of emu and its plugins */
};

/* clang-format off */
static const struct program programs[] = {
    {"hello",               0, {"hello", "one", "two words", ""}},
    {"hello-static",        0, {"hello-static", "x"}},
    {"hello-static-pie",    0, {"hello-static-pie"}},
    {"hello-no-pie",        0, {"hello-no-pie"}},
    {"hello-musl",          0, {"hello-musl"}},
    {"hello-musl-static",   0, {"hello-musl-static"}},
    {"environment",         0, {"environment", "a", "", "b c"}},
    {"environment-static",  0, {"environment-static"}},
    {"environment-static-pie", 0, {"environment-static-pie"}},
    {"environment-no-pie",  0, {"environment-no-pie"}},
    {"environment-musl",    0, {"environment-musl"}},
    {"environment-musl-static", 0, {"environment-musl-static"}},
    {"addressing",          0, {"addressing"}},
    {"riprel",              0, {"riprel"}},
    {"calls",               0, {"calls"}},
    {"branches",            0, {"branches"}},
    {"collide",             0, {"collide"}},
    {"far",                 0, {"far"}},
    {"strings",             0, {"strings"}},
    {"repeats",             0, {"repeats"}},
    {"returns",             0, {"returns"}},
    {"loops",               0, {"loops"}},
    {"alarms",              RACY | HEAVY, {"alarms"}},
    {"integer",             0, {"integer"}},
    {"sse",                 0, {"sse"}},
    {"avx",                 0, {"avx"}},
    {"x87",                 0, {"x87"}},
    {"calltree",            0, {"calltree"}},
    {"control",             0, {"control"}},
    {"segments",            0, {"segments"}},
    {"signals",             RACY, {"signals"}},
    {"processes",           RACY, {"processes"}},
    {"execs",               RACY, {"execs"}},
    {"memory",              RACY, {"memory"}},
    {"threads",             RACY, {"threads"}},
    {"end-robust",          RACY, {"ends", "robust"}},
    {"end-tid",             RACY, {"ends", "tid"}},
    {"end-group",           RACY, {"ends", "group"}},
    {"end-first",           RACY, {"ends", "first"}},
    {"end-last",            RACY, {"ends", "last"}},
    {"storm",               RACY | HEAVY | DENSE, {"storm"}},
    {"queue",               RACY, {"queue"}},
    {"ticks",               RACY, {"ticks"}},
    {"frames",              0, {"frames"}},
    {"endure",              RACY, {"endure"}},
    {"own",                 0, {"own"}},
    {"modify",              RACY, {"modify"}},
    {"rewrite",             RACY, {"rewrite"}},
    {"fresh",               RACY, {"fresh"}},
    {"pointers",            RACY, {"pointers"}},
    {"proc",                HEAVY, {"proc", "one", "two"}},
    {"kernel",              0, {"kernel"}},
    {"load",                0, {"load"}},
    {"system",              0, {"system"}},
    {"die-segv",            0, {"die", "segv"}},
    {"die-fpe",             0, {"die", "fpe"}},
    {"die-ill",             0, {"die", "ill"}},
    {"die-trap",            0, {"die", "trap"}},
    {"die-abort",           0, {"die", "abort"}},
    {"die-term",            0, {"die", "term"}},
    {"die-overflow",        0, {"die", "overflow"}},
    {"die-quick",           0, {"die", "quick"}},
    {"die-return",          0, {"die", "return"}},

    {"true",     REAL, {"/usr/bin/true"}},
    {"ls",       REAL, {"/usr/bin/ls", "-la", "/etc"}},
    {"ls-error", REAL, {"/usr/bin/ls", "/nonexistent"}},
    {"sort",     REAL, {"/usr/bin/sort", "-k2", "-r", "data"}},
    {"sha256",   REAL, {"/usr/bin/sha256sum", "data"}},
    {"wc",       REAL | INPUT, {"/usr/bin/wc"}},
    {"od",       REAL, {"/usr/bin/od", "-Ax", "-tx8", "-N4000", "/usr/bin/true"}},
    {"factor",   REAL, {"/usr/bin/factor", "18446744073709551557", "1234567890123456789"}},
    {"date",     REAL, {"/usr/bin/date", "-u", "-d", "@1700000000", "+%c"}},
    {"env",      REAL, {"/usr/bin/env"}},
    {"nice",     REAL, {"/usr/bin/nice", "/usr/bin/echo", "executed"}},
    {"timeout",  REAL, {"/usr/bin/timeout", "0.2", "/usr/bin/sleep", "10"}},
    {"busybox",  REAL, {"/usr/bin/busybox", "sh", "-c",
                        "for i in 1 2 3; do busybox expr $i + 1; done | busybox md5sum"}},
    {"bash",     REAL | RACY, {"/usr/bin/bash", "-c",
        "f() { echo \"f $1\"; (exit $1); echo $?; }; for i in 1 2 3; do f $i; done | "
        "while read l; do echo \"<$l>\"; done; x=$(echo sub; (echo shell)); echo \"$x\"; "
        "trap 'echo trapped' USR1; kill -USR1 $$; trap 'echo bye' EXIT; "
        "a=({1..500}); echo ${#a[@]} $((a[17] * 3)); [[ abc =~ b(.) ]] && echo ${BASH_REMATCH[1]}; "
        "cat <<< here; echo {a,b}{1,2}; false | true; echo ${PIPESTATUS[@]}; "
        "sleep 0.05 & wait $!; echo $?; exit 9"}},
    {"bash-kill", REAL | RACY, {"/usr/bin/bash", "-c",
        "exec 3< <(trap 'echo got it; exit 4' TERM; echo ready; while :; do :; done); "
        "read line <&3; kill $!; wait $!; echo $? $line $(cat <&3)"}},
    {"dash",     REAL, {"/usr/bin/dash", "-c",
        "awk '{ n[length($2)]++ } END { for (i in n) print i, n[i] }' data | sort -n; "
        "sed -n 's/a\\(.\\)/<\\1>/gp' data | head -5; find . -maxdepth 1 -name 'd*' | sort; "
        "echo $(( 7 * 6 )); exit 3"}},
    {"awk",      REAL, {"/usr/bin/awk", "{ s += $1; w[$2]++ } END { print s, length(w), sin(s) }",
                        "data"}},
    {"sed",      REAL, {"/usr/bin/sed", "-E", "s/([a-z]+) ([a-z]+)/\\2 \\1/;10q", "data"}},
    {"grep",     REAL, {"/usr/bin/grep", "-c", "-E", "(ab|ba)+.*[0-9]$", "data"}},
    {"find",     REAL, {"/usr/bin/find", "/usr/share/doc/bash", "-type", "f"}},
    {"script",   REAL, {"%s/script"}}, /* a #! script */
    {"gzip",     REAL | INPUT, {"/usr/bin/gzip", "-9nc"}},
    {"bzip2",    REAL | INPUT, {"/usr/bin/bzip2", "-c"}},
    {"xz",       REAL | INPUT, {"/usr/bin/xz", "-T1", "-2", "-c"}},
    {"xz-threads", REAL | RACY | INPUT, {"/usr/bin/xz", "-T2", "--block-size=64KiB", "-1", "-c"}},
    {"perl",     REAL, {"/usr/bin/perl", "-e",
        "my %h; open F, 'data'; while (<F>) { $h{$1}++ while /([a-z]{3})/g } "
        "print join(' ', map { \"$_=$h{$_}\" } (sort { $h{$b} <=> $h{$a} || $a cmp $b } keys %h)"
        "[0..20]), \"\\n\"; print `echo child`; local $SIG{ALRM} = sub { die \"alarm\\n\" }; "
        "alarm 1; eval { 1 while 1 }; print $@; exit 5"}},
    {"lua",      REAL, {"/usr/bin/lua5.4", "-e",
        "local t = {} for i = 1, 20000 do t[i] = (i * 7919) % 10007 end table.sort(t) "
        "print(t[1], t[10000], t[20000], string.rep('x', 10), math.pi, 7 // 2, 2^53) "
        "print(pcall(error, 'oops')) local c = coroutine.wrap(function() for i = 1, 3 do "
        "coroutine.yield(i) end end) print(c(), c(), c()) os.exit(6)"}},
    {"sqlite3",  REAL, {"/usr/bin/sqlite3", ":memory:",
        "create table t(a integer primary key, b text); with recursive c(x) as (select 1 union all "
        "select x + 1 from c where x < 5000) insert into t select x, hex(x * x) from c; "
        "create index i on t(b); select count(*), sum(a), max(b), avg(length(b)) from t; "
        "select * from t where b like '3%' order by b limit 5;"}},
    {"python3",  REAL | HEAVY, {"/usr/bin/python3", "-c",
        "import json, re, hashlib, subprocess, threading, os, struct\n"
        "d = {str(i): i * i for i in range(2000)}\n"
        "print(hashlib.md5(json.dumps(d, sort_keys=True).encode()).hexdigest())\n"
        "print(len(re.findall(r'[ab]+', open('data').read())))\n"
        "r = []\n"
        "ts = [threading.Thread(target=lambda i=i: r.append(sum(range(i * 1000)))) "
        "for i in range(8)]\n"
        "[t.start() for t in ts]; [t.join() for t in ts]; print(sorted(r))\n"
        "print(subprocess.run(['echo', 'child'], capture_output=True).stdout)\n"
        "p = os.fork()\n"
        "if not p: os._exit(7)\n"
        "print(os.waitpid(p, 0)[1], 2 ** 200, 0.1 + 0.2)\n"
        "raise SystemExit(8)"}},
    {"cc1",      REAL | HEAVY, {"/usr/lib/gcc/x86_64-linux-gnu/*/cc1", "-quiet", "-O2", "program.c", "-o",
                        "-"}},
    {"gcc",      REAL | HEAVY, {"/usr/bin/gcc", "-O1", "-S", "-o", "-", "program.c"}},
    {"make",     REAL | HEAVY, {"/usr/bin/bash", "-c",
        "mkdir -p tree/sub; for i in 1 2 3; do echo \"int f$i(int x) { return x * $i; }\" "
        "> tree/f$i.c; done; echo '#include <stdio.h>\nint f1(int), f2(int), f3(int); int main() "
        "{ return printf(\"%d\\n\", f1(1) + f2(2) + f3(3)) + 30; }' > tree/sub/main.c; "
        "printf 'all: program; ./$<\\nprogram: f1.o f2.o f3.o main.o; $(CC) -o $@ $^\\n"
        "main.o: ; $(MAKE) -C sub ../$@\\n' > tree/Makefile; "
        "printf '../main.o: main.c; $(CC) -c -o $@ $<\\n' > tree/sub/Makefile; "
        "LANG=C make -B -j2 -C tree | sort; tree/program; echo $?"}},
    {"git",      REAL, {"/usr/bin/bash", "-c",
        "export GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000' "
        "GIT_CONFIG_NOSYSTEM=1 GIT_PAGER=cat; rm -rf repository; git init -q -b main repository; "
        "cd repository; git config user.name N; git config user.email e@x; cp ../data .; git add .; "
        "git commit -q -m one; sed -i 5,9d data; git diff --stat; git commit -qam two; git gc -q; "
        "git log --stat; git fsck --strict; git clone -q . ../cloned; git -C ../cloned show HEAD^ | "
        "md5sum; rm -rf ../cloned ../repository"}},
    {"gcc-error", REAL, {"/usr/bin/gcc", "-fsyntax-only", "data"}},
    {"objdump",  REAL, {"/usr/bin/objdump", "-d", "/usr/bin/true"}},
    {"openssl",  REAL | INPUT, {"/usr/bin/openssl", "dgst", "-sha512"}},
    {"openssl-aes", REAL | INPUT, {"/usr/bin/openssl", "enc", "-aes-256-ctr", "-K", "0123456789",
                                   "-iv", "abcdef"}},
    {"openssl-rsa", REAL, {"/usr/bin/openssl", "prime", "-hex", "D1A5F3B1C4E6F7890123456789ABCDEF"}},
};

static const struct mode modes[] = {
    {"default",       HEAVIES, false, {NULL}},
    {"one-insn",      GUESTS,  false, {"-one-insn-per-tb"}},
    {"nochain",       GUESTS,  false, {"-d", "nochain", "-D", "/dev/null"}},
    {"follow-exec",   HEAVIES, false, {"-follow-exec"}},
    {"tb-64K",        REALS,   false, {"-tb-size", "64K"}},
    {"insn-inline",   GUESTS,  false, {"-plugin", "%s/libinsn.so,inline=on"}},
    {"insn-callback", GUESTS,  false, {"-plugin", "%s/libinsn.so"}},
    {"insn-syscall",  GUESTS,  false, {"-plugin", "%s/libsyscall.so",
                                       "-plugin", "%s/libinsn.so,inline=on"}},
    {"bb-inline",     GUESTS,  false, {"-plugin", "%s/libbb.so,inline=on"}},
    {"mem-inline",    GUESTS,  false, {"-plugin", "%s/libmem.so,inline=on"}},
    {"mem-callback",  GUESTS,  true,  {"-plugin", "%s/libmem.so,callback=on"}},
    {"drcov",         HEAVIES, false, {"-plugin", "%s/libdrcov.so,filename=trace.drcov"}},
};
/* clang-format on */
#define PROGRAMS (sizeof programs / sizeof programs[0])
#define MODES    (sizeof modes / sizeof modes[0])

struct test_case {
    const struct program *program;
    const struct mode *mode;
};

static struct result native[PROGRAMS]; /* out[0] is NULL until it has run */
static char scratch[] = "/tmp/emu-guest-XXXXXX";
static char data_path[64];
static int seconds = SECONDS;

static char *const environment[] = {
    "PATH=/usr/bin:/bin", "LANG=C", "HOME=/nonexistent", "TZ=UTC", "SHELL=/bin/sh", "EMPTY=", NULL};

/* ---- the scratch directory ---- */

static FILE *create(const char *name)
{
    char path[PATH_MAX];

    snprintf(path, sizeof path, "%s/%s", scratch, name);
    return fopen(path, "w");
}

static void write_data(FILE *f)
{
    uint32_t x = 1;

    for (int line = 0; line < 8000; line++) {
        fprintf(f, "%d ", line);
        for (int i = 0; i < 20; i++) {
            x = x * 1664525 + 1013904223;
            fputc("abcdefg hij"[(x >> 24) % 11], f);
        }
        fprintf(f, " %u\n", x >> 20);
    }
    fclose(f);
}

static void write_program(FILE *f)
{
    fprintf(f, "struct s { int a, b; double d; };\n");
    for (int i = 0; i < 15; i++)
        fprintf(f,
                "int f%d(struct s *p, int n) { int t = %d; for (int i = 0; i < n; i++) {"
                " t += p[i].a * %d; if (p[i].d > t) t ^= p[i].b; } return t; }\n",
                i, i, i + 3);
    fclose(f);
}

static int make_scratch(void **state)
{
    (void)state;
    if (!mkdtemp(scratch))
        return -1;
    snprintf(data_path, sizeof data_path, "%s/data", scratch);
    write_data(create("data"));
    write_program(create("program.c"));
    FILE *f = create("script");
    fprintf(f, "#!/bin/sh -e\necho \"script $# $1\"\nexit 11\n");
    fchmod(fileno(f), 0755);
    return fclose(f);
}

static int remove_scratch(void **state)
{
    char command[64];

    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", scratch);
    return system(command);
}

/* ---- runs ---- */

/* The program's path: a pattern of the system's, in the scratch directory, or a guest. */
static bool find_executable(const char *name, char *path)
{
    glob_t found;

    if (*name == '/' && !glob(name, 0, NULL, &found)) {
        snprintf(path, MAX_PATH, "%s", found.gl_pathv[0]);
        globfree(&found);
    } else if (*name == '%') {
        snprintf(path, MAX_PATH, name, scratch);
    } else {
        snprintf(path, MAX_PATH, "%s/%s", guest_dir, name);
    }
    return !access(path, X_OK);
}

/* mode NULL: natively. */
static void run_program(struct result *r, const struct program *p, const struct mode *mode)
{
    char *argv[MAX_ARGS + 8], path[MAX_PATH], texts[6][MAX_PATH];
    int argc = 0;

    if (!find_executable(p->argv[0], path))
        fail_msg("%s is missing: README.md lists what the tests need", p->argv[0]);
    if (mode) {
        argv[argc++] = emu_path;
        for (int i = 0; i < 6 && mode->options[i]; i++) {
            snprintf(texts[i], sizeof texts[i], mode->options[i], emu_dir);
            argv[argc++] = texts[i];
        }
    }
    argv[argc++] = path;
    for (int i = 1; i < MAX_ARGS && p->argv[i]; i++)
        argv[argc++] = (char *)(uintptr_t)p->argv[i];
    argv[argc] = NULL;
    run_command(r, argv, environment, scratch, p->flags & INPUT ? data_path : NULL, seconds);
}

/* The one line emu adds of its own accord: when it ends by a signal that the guest did not
 * handle. Everything else on stderr must be the program's. */
static void drop_signal_report(struct result *r)
{
    char *line = strstr(r->out[1], "emu: uncaught target signal");
    char *end = line ? strchr(line, '\n') : NULL;

    if (!end || !WIFSIGNALED(r->status) || (line > r->out[1] && line[-1] != '\n'))
        return;
    memmove(line, end + 1, strlen(end));
    r->size[1] = strlen(r->out[1]);
}

static void describe_status(char *text, size_t size, int status)
{
    if (status == RUN_TIMED_OUT)
        snprintf(text, size, "still running after %d s", seconds);
    else if (WIFEXITED(status))
        snprintf(text, size, "exited %d", WEXITSTATUS(status));
    else
        snprintf(text, size, "killed by signal %d", WTERMSIG(status));
}

static void compare_streams(const char *stream, const char *want, size_t want_size, const char *got,
                            size_t got_size)
{
    size_t at = 0, line = 0;

    if (want_size == got_size && !memcmp(want, got, want_size))
        return;
    while (at < want_size && at < got_size && want[at] == got[at])
        at++;
    for (line = at; line > 0 && want[line - 1] != '\n'; line--)
        ;
    fail_msg("%s differs at byte %zu of %zu (got %zu bytes)\n  native: %.*s\n  emu:    %.*s",
             stream, at, want_size, got_size, (int)strcspn(want + line, "\n"), want + line,
             (int)strcspn(got + line, "\n"), got + line);
}

static void compare(const struct result *want, const struct result *got)
{
    char a[64], b[64];

    describe_status(a, sizeof a, want->status);
    describe_status(b, sizeof b, got->status);
    if (want->status != got->status)
        fail_msg("native %s, emu %s; its stderr:\n%s", a, b, got->out[1]);
    compare_streams("stdout", want->out[0], want->size[0], got->out[0], got->size[0]);
    compare_streams("stderr", want->out[1], want->size[1], got->out[1], got->size[1]);
}

static void test_program(void **state)
{
    const struct test_case *c = *state;
    struct result *want = &native[c->program - programs], got;

    if (!want->out[0])
        run_program(want, c->program, NULL);
    run_program(&got, c->program, c->mode);
    drop_signal_report(&got);
    compare(want, &got);
    free_result(&got);
}

/* ---- choice ---- */

static bool is_named(int argc, char **argv, const char *name)
{
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], name))
            return true;
    return false;
}

struct choice {
    bool all, stress, by_mode, by_program;
};

static struct choice read_choice(int argc, char **argv)
{
    struct choice c = {is_named(argc, argv, "all"), is_named(argc, argv, "stress"), false, false};

    for (size_t i = 0; i < MODES; i++)
        c.by_mode |= is_named(argc, argv, modes[i].name);
    for (size_t i = 0; i < PROGRAMS; i++)
        c.by_program |= is_named(argc, argv, programs[i].name);
    return c;
}

static bool is_chosen(const struct choice *c, int argc, char **argv, const struct program *p,
                      const struct mode *m)
{
    if (c->by_mode && !is_named(argc, argv, m->name))
        return false;
    if (p->flags & DENSE && m->steps)
        return false;
    if (c->by_program)
        return is_named(argc, argv, p->name);
    if (p->flags & HEAVY && m->most < HEAVIES && !c->all)
        return false;
    if (c->stress)
        return p->flags & RACY;
    return c->all || c->by_mode || m->most >= REALS || !(p->flags & REAL);
}

int main(int argc, char **argv)
{
    struct choice c = read_choice(argc, argv);
    if (c.all)
        seconds = ALL_SECONDS;
    size_t most = PROGRAMS * MODES * (c.stress ? STRESS_RUNS : 1), n = 0;
    struct CMUnitTest *tests = calloc(most, sizeof *tests);
    struct test_case *cases = calloc(most, sizeof *cases);

    locate_emu();
    for (size_t i = 0; i < most; i++) {
        const struct program *p = &programs[i % PROGRAMS];
        const struct mode *m = &modes[i / PROGRAMS % MODES];
        char *name;

        if (!is_chosen(&c, argc, argv, p, m))
            continue;
        if (asprintf(&name, "%s [%s]", p->name, m->name) < 0)
            return EXIT_FAILURE;
        cases[n] = (struct test_case){p, m};
        tests[n] = (struct CMUnitTest){
            .name = name, .test_func = test_program, .initial_state = &cases[n]};
        n++;
    }
    return _cmocka_run_group_tests("guest programs", tests, n, make_scratch, remove_scratch);
}
