/* test_plugin.c: plugins as a user meets them: option grammar, lookup, load errors, every version
 * of the API, and the files the bundled ones write.
 *
 * Plugins of tests/plugins are compiled here, once per variant; what they find wrong they report
 * as "... FAILED". */
#include "run.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdbool.h>

#include <cmocka.h>

#define FAILS    (1 << 8) /* wait status of exit(1) */
#define HELLO    (7 << 8) /* of tests/guest/hello.c */
#define ABORT    SIGABRT
#define ANY      (-2)
#define COUNT(a) (sizeof(a) / sizeof *(a))

static char plugin_dir[PATH_MAX]; /* the compiled test plugins */

/* ---- the plugins ------------------------------------------------------------------------ */

/* clang-format off */
static const struct {
    const char *name, *source, *flags;
} builds[] = {
    {"args",        "args",    ""},
    {"libargs2",    "args",    "-DNAME='\"args2\"'"},
    {"libinlib",    "args",    "-DNAME='\"inlib\"'"},
    {"old",         "args",    "-DEMU_PLUGIN_API_VERSION=0"},
    {"v1",          "args",    "-DEMU_PLUGIN_API_VERSION=1"},
    {"a=b,c",       "args",    "-DNAME='\"strange\"'"},
    {"noinstall",   "broken",  "-DNO_INSTALL"},
    {"nullinstall", "broken",  "-DNULL_INSTALL"},
    {"noversion",   "broken",  "-DNO_VERSION"},
    {"tooold",      "broken",  "-DVERSION=-1"},
    {"toonew",      "broken",  "-DVERSION=8"},
    {"refuses",     "broken",  "-DFAILS=5"},
    {"undefined",   "broken",  "-DUNDEFINED"},
    {"uninstalls",  "broken",  "-DUNINSTALL"},
    {"badid",       "broken",  "-DBAD_ID"},
    {"crash",       "broken",  "-DCRASH"},
    {"glib",        "glib",    ""},
    {"looks",       "looks",   ""},
    {"marks",       "marks",   ""},
    {"protected",   "../../plugins/mem", "-fstack-protector-all"},
    {"order1",      "order",   "-DNAME='\"first\"'"},
    {"order2",      "order",   "-DNAME='\"second\"' -DANSWER=1234"},
    {"control",     "control", ""},
    {"misuse",      "misuse",  ""},
    {"discon",      "discon",  ""},
    {"stress1",     "stress",  "-O1 -DNAME='\"resets\"'"},
    {"stress2",     "stress",  "-O1 -DNAME='\"uninstalls\"'"},
    {"locks",       "locks",   "-O1"},
    {"alone1",      "alone",   "-DNAME='\"first\"' -DLIFETIME=2000"},
    {"alone2",      "alone",   "-DNAME='\"second\"' -DLIFETIME=3001"},
    {"clobber",     "clobber", "-O1"},
    {"clobberfull", "clobber", "-O1 -DFULL"},
    {"versions0",   "versions", "-DEMU_PLUGIN_API_VERSION=0"},
    {"versions1",   "versions", "-DEMU_PLUGIN_API_VERSION=1"},
    {"versions2",   "versions", "-DEMU_PLUGIN_API_VERSION=2"},
    {"versions3",   "versions", "-DEMU_PLUGIN_API_VERSION=3"},
    {"versions4",   "versions", "-DEMU_PLUGIN_API_VERSION=4"},
    {"versions5",   "versions", "-DEMU_PLUGIN_API_VERSION=5"},
    {"versions6",   "versions", "-DEMU_PLUGIN_API_VERSION=6"},
    {"versions7",   "versions", "-DEMU_PLUGIN_API_VERSION=7"},
};
/* clang-format on */

static int compile_plugins(void **state)
{
    char path[PATH_MAX + 32];

    (void)state;
    for (size_t i = 0; i < COUNT(builds); i++)
        if (!build_plugin(path, builds[i].name, builds[i].source, builds[i].flags))
            return -1;
    snprintf(plugin_dir, sizeof plugin_dir, "%s", dirname(path));
    return 0;
}

/* ---- running emu ------------------------------------------------------------------------ */

/* Runs emu in plugin_dir; % in an argument stands for the guest directory. */
static void run_emu_at_most(struct result *r, const char *const args[], const char *variable,
                            int seconds)
{
    char *argv[25] = {emu_path}, text[24][MAX_PATH];
    char *env[] = {"PATH=/usr/bin:/bin", "LANG=C", (char *)(uintptr_t)variable, NULL};

    for (int i = 0; i < 23 && args[i]; i++) {
        const char *rest = args[i][0] == '%' ? args[i] + 1 : args[i];
        snprintf(text[i], sizeof text[i], "%s%s", rest > args[i] ? guest_dir : "", rest);
        argv[i + 1] = text[i];
    }
    run_command(r, argv, env, plugin_dir, NULL, seconds);
}

static void run_emu(struct result *r, const char *const args[], const char *variable)
{
    run_emu_at_most(r, args, variable, 60);
}

static void expect_text(const char *what, const char *text, const char *wanted)
{
    bool ok = !wanted || (*wanted ? strstr(text, wanted) != NULL : !*text);
    if (!ok)
        fail_msg("%s is\n%s\nand lacks\n%s", what, text, wanted);
}

/* How often the text occurs. */
static size_t count_text(const char *text, const char *wanted)
{
    size_t n = 0;
    for (; (text = strstr(text, wanted)); text += strlen(wanted))
        n++;
    return n;
}

static char *read_command(const char *format, const char *arg)
{
    char command[MAX_PATH], *text = calloc(1, 1 << 16);

    snprintf(command, sizeof command, format, arg);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    assert_non_null(text);
    text[fread(text, 1, (1 << 16) - 1, p)] = 0;
    assert_int_equal(pclose(p), 0);
    return text;
}

/* ---- options and load errors -------------------------------------------------------------- */

struct row {
    const char *name;
    const char *args[8];
    const char *variable;
    int status;
    const char *err; /* in stderr */
};

#define TARGET  ": target x86_64, versions 0 to 7, system 0:"
#define PROGRAM "%/hello"

/* clang-format off */
static const struct row rows[] = {
    {"plain",          {"-plugin", "./args.so", PROGRAM}, NULL, HELLO, "args" TARGET "\nand on stderr\nargs ends\n"},
    {"--plugin",       {"--plugin", "./args.so", PROGRAM}, NULL, HELLO, "args" TARGET "\n"},
    {"file=",          {"-plugin", "file=./args.so,a=1", PROGRAM}, NULL, HELLO, "system 0: [a=1]\n"},
    {"values",         {"-plugin", "./args.so,a=1,b=,c=x=y", PROGRAM}, NULL, HELLO, "0: [a=1] [b=] [c=x=y]\n"},
    {"comma",          {"-plugin", "./args.so,a=b,,c,d=,,", PROGRAM}, NULL, HELLO, "0: [a=b,c] [d=,]\n"},
    {"comma in path",  {"-plugin", "file=./a=b,,c.so,x=1", PROGRAM}, NULL, HELLO, "strange" TARGET " [x=1]\n"},
    {"= in path",      {"-plugin", "./a=b,,c.so", PROGRAM}, NULL, FAILS, "missing earlier '-plugin file=' option\n"},
    {"short",          {"-plugin", "./args.so,foo", PROGRAM}, NULL, HELLO,
                       "emu: warning: short-form boolean option 'foo' deprecated\nPlease use foo=on instead\nargs"},
    {"short no",       {"-plugin", "./args.so,notify", PROGRAM}, NULL, HELLO,
                       "option 'notify' deprecated\nPlease use tify=off instead\nargs" TARGET " [tify=off]\n"},
    {"arg= word",      {"-plugin", "./args.so,arg=foo", PROGRAM}, NULL, HELLO, "0: [foo=on]\n"},
    {"arg= pair",      {"-plugin", "./args.so,arg=a=1,arg=b=x=y", PROGRAM}, NULL, HELLO, "0: [a=1] [b=x=y]\n"},
    {"arg= boolean",   {"-plugin", "./args.so,arg=on,arg=n", PROGRAM}, NULL, HELLO, "0: [arg=on] [arg=n]\n"},
    {"arg= quiet",     {"-plugin", "./args.so,arg=foo", PROGRAM}, NULL, HELLO, "!deprecated"},
    {"version 0",      {"-plugin", "./old.so,arg=foo,arg=a=1,inline,b=2", PROGRAM}, NULL, HELLO,
                       "0: [foo] [a=1] [inline] [b=2]\n"},
    {"version 1",      {"-plugin", "./v1.so,arg=foo,arg=a=1,b=2", PROGRAM}, NULL, HELLO, "0: [foo=on] [a=1] [b=2]\n"},
    {"twice",          {"-plugin", "./args.so,a=1", "-plugin", "./args.so,b=2", PROGRAM}, NULL, HELLO,
                       "0: [a=1] [b=2]\nand on stderr\nargs ends\n"},
    {"two",            {"-plugin", "./args.so", "-plugin", "./libargs2.so,b=2", PROGRAM}, NULL, HELLO,
                       "args" TARGET "\nargs2" TARGET " [b=2]\nand on stderr\nargs2 ends\nargs ends\n"},
    {"environment",    {PROGRAM}, "QEMU_PLUGIN=./args.so,a=1", HELLO, "0: [a=1]\n"},
    {"environment 1st", {"-plugin", "./args.so,b=2", PROGRAM}, "QEMU_PLUGIN=./args.so,a=1", HELLO, "0: [a=1] [b=2]\n"},
    {"help",           {"-plugin", "help"}, NULL, 0, ""},
    {"x=help",         {"-plugin", "./args.so,x=help", PROGRAM}, NULL, 0, ""},
    {"key help",       {"-plugin", "./args.so,help", PROGRAM}, NULL, HELLO, "0: [help=on]\n"},
    {"empty path",     {"-plugin", "file=", PROGRAM}, NULL, FAILS, "requires a non-empty argument\n"},
    {"no path",        {"-plugin", ",a=1", PROGRAM}, NULL, FAILS, "requires a non-empty argument\n"},
    {"empty",          {"-plugin", "", PROGRAM}, NULL, HELLO, "and on stderr\n"},
    {"arg first",      {"-plugin", "a=1", PROGRAM}, NULL, FAILS, "missing earlier '-plugin file=' option\n"},
    {"key first",      {"-plugin", "a=1,file=./args.so", PROGRAM}, NULL, FAILS, "missing earlier '-plugin file='"},

    {"in the path",    {"-plugin", "libargs2.so", PROGRAM}, "EMU_PLUGIN_PATH=/nonexistent:.", HELLO, "args2" TARGET},
    {"by short name",  {"-plugin", "args2", PROGRAM}, "EMU_PLUGIN_PATH=.", HELLO, "args2" TARGET},
    {"linker's path",  {"-plugin", "libargs2.so", PROGRAM}, "LD_LIBRARY_PATH=.", HELLO, "args2" TARGET},
    {"beside emu",     {"-plugin", "libempty.so", PROGRAM}, NULL, HELLO, "and on stderr\n"},
    {"no such name",   {"-plugin", "libargs2.so", PROGRAM}, NULL, FAILS, "emu: Could not load plugin libargs2.so: libargs2.so: "},
    {"slash: no path", {"-plugin", "./x/libargs2.so", PROGRAM}, "EMU_PLUGIN_PATH=.", FAILS, "Could not load plugin ./x/libargs2.so: "},

    {"missing",        {"-plugin", "./missing.so", PROGRAM}, NULL, FAILS,
                       "emu: Could not load plugin ./missing.so: ./missing.so: cannot open shared object file"},
    {"undefined",      {"-plugin", "./undefined.so", PROGRAM}, NULL, FAILS,
                       "Could not load plugin ./undefined.so: ./undefined.so: undefined symbol: qemu_plugin_no_such_function"},
    {"no install",     {"-plugin", "./noinstall.so", PROGRAM}, NULL, FAILS,
                       "Could not load plugin ./noinstall.so: 'qemu_plugin_install': ./noinstall.so: undefined symbol: "
                       "qemu_plugin_install\n"},
    {"null install",   {"-plugin", "./nullinstall.so", PROGRAM}, NULL, FAILS,
                       "Could not load plugin ./nullinstall.so: qemu_plugin_install is NULL\n"},
    {"no version",     {"-plugin", "./noversion.so", PROGRAM}, NULL, FAILS,
                       "Could not load plugin ./noversion.so: plugin does not declare API version 'qemu_plugin_version': "
                       "./noversion.so: undefined symbol: qemu_plugin_version\n"},
    {"too old",        {"-plugin", "./tooold.so", PROGRAM}, NULL, FAILS,
                       "Could not load plugin ./tooold.so: plugin requires API version -1, but this QEMU supports only a "
                       "minimum version of 0\n"},
    {"too new",        {"-plugin", "./toonew.so", PROGRAM}, NULL, FAILS,
                       "Could not load plugin ./toonew.so: plugin requires API version 8, but this QEMU supports only up to "
                       "version 7\n"},
    {"refuses",        {"-plugin", "./refuses.so", PROGRAM}, NULL, FAILS,
                       "Could not load plugin ./refuses.so: qemu_plugin_install returned error code 5\n"},
    {"second fails",   {"-plugin", "./args.so", "-plugin", "./refuses.so", PROGRAM}, NULL, FAILS, "error code 5\n"},
    {"uninstalls",     {"-plugin", "./uninstalls.so", PROGRAM}, NULL, ABORT,
                       "Calling qemu_plugin_uninstall from the install function is a bug"},
    {"bad id",         {"-plugin", "./badid.so", PROGRAM}, NULL, ABORT, "badid.so: qemu_plugin_register_flush_cb: invalid plugin id"},
    {"crash",          {"-plugin", "./crash.so", PROGRAM}, NULL, SIGSEGV, "this is a fault of ./crash.so, not of the program\n"},
    {"missing guest",  {"-plugin", "./args.so", "/nonexistent"}, NULL, FAILS, "args" TARGET "\nemu: /nonexistent"},

    {"order",          {"-plugin", "./order1.so", "-plugin", "./order2.so", PROGRAM}, NULL, HELLO,
                       "second: init 0 of 1, live 0\nfirst: init 0 of 1, live 0\nsecond: tb 1\nsecond: tb 2\nfirst: tb 1\nfirst: tb 2\n"
                       "second: insn 1\nsecond: insn 2\nfirst: insn 1\nfirst: insn 2\nsecond: insn 2nd\nfirst: insn 2nd\n"},
    {"filter",         {"-plugin", "./control.so,filter=on", PROGRAM}, NULL, HELLO, "and on stderr\ncontrol ends\n"},
    {"set_pc",         {"-plugin", "./control.so,skip=on", PROGRAM}, NULL, 42 << 8, "control ends\n"},
    {"write register", {"-plugin", "./control.so,change=on", PROGRAM, "a"}, NULL, ANY, "control ends\n"},
    {"wrong set_pc",   {"-plugin", "./control.so,wrong=on", PROGRAM}, NULL, ABORT, "qemu_plugin_set_pc"},
    {"plugin exits",   {"-plugin", "./control.so,exit=on", PROGRAM}, NULL, 9 << 8, "control ends\n"},
    {"patch",          {"-plugin", "./control.so,patch=on", PROGRAM}, NULL, HELLO, "patched 1\n"},
    {"repaired fault", {"-plugin", "./discon.so,skip=on", "%/traps", "skip"}, NULL, 5 << 8, "exception"},
};
/* clang-format on */

static void test_row(void **state)
{
    const struct row *row = *state;
    struct result r;

    run_emu(&r, row->args, row->variable);
    if (row->err[0] == '!')
        assert_null(strstr(r.out[1], row->err + 1));
    else
        expect_text("stderr", r.out[1], row->err);
    assert_null(strstr(r.out[1], "FAILED"));
    if (row->status != ANY)
        assert_int_equal(r.status, row->status);
    free_result(&r);
}

/* What a plugin did to the program shows in its output. */
static void test_effects(void **state)
{
    static const struct {
        const char *mode, *out;
    } effects[] = {
        {"./control.so,filter=on", ""},
        {"./control.so,skip=on", ""},
        {"./control.so,change=on", "hello, world: 2 arguments\n[a]\n[(null)]\n"},
        {"./control.so,patch=on", "HELLO, world"},
        {"help", "Plugin options\n  file=<path/to/plugin.so>\n  plugin specific arguments\n"},
    };
    struct result r;

    (void)state;
    for (size_t i = 0; i < COUNT(effects); i++) {
        run_emu(&r, (const char *const[]){"-plugin", effects[i].mode, PROGRAM, "a", NULL}, NULL);
        expect_text(effects[i].mode, r.out[0], effects[i].out);
        free_result(&r);
    }
}

/* Counters that are kept elsewhere are exact whenever, and however, a plugin looks. */
static void test_looks(void **state)
{
    static const char *const ways[] = {"sum", "get", "find", "set", "call", "never"};
    struct result wanted, r;
    char plugin[64];

    (void)state;
    run_emu(&wanted, (const char *const[]){"-plugin", "./looks.so,way=pointer", PROGRAM, NULL},
            NULL);
    const char *end = strstr(wanted.out[1], "end: ");
    assert_non_null(end);
    for (size_t i = 0; i < COUNT(ways); i++) {
        snprintf(plugin, sizeof plugin, "./looks.so,way=%s", ways[i]);
        run_emu(&r, (const char *const[]){"-plugin", plugin, PROGRAM, NULL}, NULL);
        if (strcmp(ways[i], "never"))
            assert_string_equal(r.out[1], wanted.out[1]);
        expect_text(ways[i], r.out[1], end);
        free_result(&r);
    }
    free_result(&wanted);
}

/* Marks are what they would be if they were made each time, whoever else changes them. */
static void test_marks(void **state)
{
    static const char *const ways[] = {"none", "set", "add", "find", "other", "odd"};
    static const char *const programs[] = {"%/hello-static", "%/calltree", "%/threads"};
    struct result wanted, r;
    char plugin[64];

    (void)state;
    for (size_t i = 0; i < COUNT(ways); i++) {
        snprintf(plugin, sizeof plugin, "./marks.so,way=%s,by=call", ways[i]);
        run_emu(&wanted, (const char *const[]){"-plugin", plugin, PROGRAM, NULL}, NULL);
        assert_non_null(strstr(wanted.out[1], " marked: "));
        snprintf(plugin, sizeof plugin, "./marks.so,way=%s,by=store", ways[i]);
        run_emu(&r, (const char *const[]){"-plugin", plugin, PROGRAM, NULL}, NULL);
        assert_string_equal(r.out[1], wanted.out[1]);
        free_result(&r);
        free_result(&wanted);
    }
    for (size_t i = 0; i < COUNT(programs); i++) {
        run_emu(&r, (const char *const[]){"-plugin", "./marks.so,way=count", programs[i], NULL},
                NULL);
        expect_text(programs[i], r.out[1], "some marked, 0 wrong\n");
        free_result(&r);
    }
}

/* A plugin that breaks the rules hears which function it called, and how. */
static void test_misuse(void **state)
{
    static const struct {
        const char *way, *function;
        int status;
    } ways[] = {
        {"registers", "get_registers", ABORT},
        {"block", "tb_n_insns", ABORT},
        {"instruction", "insn_disas", ABORT},
        {"stale", "insn_vaddr", ABORT},
        {"outside", "register_vcpu_insn_exec_cb", ABORT},
        {"flags", "register_vcpu_tb_exec_cb", ABORT},
        {"operation", "register_vcpu_tb_exec_inline_per_vcpu", ABORT},
        {"inline", "register_vcpu_tb_exec_inline_per_vcpu", ABORT},
        {"condition", "register_vcpu_tb_exec_cond_cb", ABORT},
        {"value", "mem_get_value", ABORT},
        {"buffer", "read_register", ABORT},
        {"score", "u64_add", ANY},
        {"vcpu", "scoreboard_find", ANY},
        {"late", "register_flush_cb", HELLO},
    };
    char plugin[64], wanted[128];
    struct result r;

    (void)state;
    for (size_t i = 0; i < COUNT(ways); i++) {
        snprintf(plugin, sizeof plugin, "./misuse.so,way=%s", ways[i].way);
        snprintf(wanted, sizeof wanted,
                 "emu: plugin ./misuse.so: qemu_plugin_%s: ", ways[i].function);
        run_emu(&r, (const char *const[]){"-plugin", plugin, PROGRAM, NULL}, NULL);
        expect_text(ways[i].way, r.out[1], wanted);
        if (ways[i].status != ANY)
            assert_int_equal(r.status, ways[i].status);
        free_result(&r);
    }
}

static void test_glib(void **state)
{
    struct result r;

    (void)state;
    run_emu(&r, (const char *const[]){"-plugin", "./glib.so", PROGRAM, NULL}, NULL);
    if (r.status == FAILS && strstr(r.out[1], ": g_")) {
        free_result(&r);
        skip(); /* there is no GLib */
    }
    assert_int_equal(r.status, HELLO);
    expect_text("stderr", r.out[1], " registers, ");
    free_result(&r);
}

/* ---- API versions --------------------------------------------------------------------------- */

static void check_version(const char *plugin, int version)
{
    static const int checks[] = {22, 26, 35, 39, 45, 49, 52, 52}; /* at least so many */
    char done[32];
    struct result r;
    int n = 0;

    snprintf(done, sizeof done, "version %d done\n", version);
    run_emu(&r, (const char *const[]){"-plugin", plugin, PROGRAM, NULL}, NULL);
    expect_text("stderr", r.out[1], done);
    if (strstr(r.out[1], "FAILED"))
        fail_msg("%s", r.out[1]);
    assert_int_equal(r.status, HELLO);
    for (const char *at = r.out[1]; (at = strstr(at, " ok\n")); at++)
        n++;
    assert_in_range(n, checks[version], 99);
    free_result(&r);
}

static void test_version(void **state)
{
    int version = (int)(intptr_t)*state;
    char plugin[32];

    snprintf(plugin, sizeof plugin, "./versions%d.so", version);
    check_version(plugin, version);
}

/* The same in C++, with every version's header; a compiler for musl has none. */
static void test_cxx(void **state)
{
    const char *cc = getenv("CC");
    char plugin[32], command[2 * PATH_MAX];

    (void)state;
    if (system("command -v c++ >/dev/null") || (cc && strstr(cc, "musl")))
        skip();
    for (int version = 0; version <= 7; version++) {
        snprintf(plugin, sizeof plugin, "./versions%d-c++.so", version);
        snprintf(command, sizeof command,
                 "c++ -Wall -Wextra -Werror -fvisibility=hidden -shared -fPIC -I. -Iplugins "
                 "-DEMU_PLUGIN_API_VERSION=%d -o '%s/%s' -x c++ tests/plugins/versions.c",
                 version, plugin_dir, plugin);
        assert_int_equal(system(command), 0);
        check_version(plugin, version);
    }
}

/* ---- end of the process -----------------------------------------------------------------------
 */

static void test_atexit(void **state)
{
    static const char *const ways[] = {"return", "quick", "segv", "fpe",     "ill",
                                       "trap",   "abort", "term", "overflow"};
    struct result r;

    (void)state;
    for (size_t i = 0; i < COUNT(ways); i++) {
        run_emu(&r, (const char *const[]){"-plugin", "./args.so", "%/die", ways[i], NULL}, NULL);
        const char *first = strstr(r.out[1], "args ends\n");
        if (!first || strstr(first + 1, "args ends\n"))
            fail_msg("die %s: atexit did not run once:\n%s", ways[i], r.out[1]);
        free_result(&r);
    }
}

/* Every signal that ends the process. */
static void test_fatal_signals(void **state)
{
    static const int harmless[] = {
        SIGCHLD, SIGCONT, SIGURG,  SIGWINCH, SIGSTOP, SIGTSTP,
        SIGTTIN, SIGTTOU, SIGKILL, 32,       33}; /* those two are libc's */
    struct result r;
    char number[8];

    (void)state;
    for (int sig = 1; sig <= 64; sig++) {
        bool ends = true;
        for (size_t i = 0; i < COUNT(harmless); i++)
            ends &= sig != harmless[i];
        if (!ends)
            continue;
        snprintf(number, sizeof number, "%d", sig);
        run_emu(&r,
                (const char *const[]){"-plugin", "./args.so", "%/lives", "signal", number, NULL},
                NULL);
        assert_int_equal(r.status & 0x7f, sig);
        if (count_text(r.out[1], "args ends\n") != 1)
            fail_msg("signal %d: atexit did not run once:\n%s", sig, r.out[1]);
        free_result(&r);
    }
}

/* Who is called, and after whom, while threads come and go by QEMU's numbers: the plugin loaded
 * last first, and no filter behind one that has answered. */
static void test_order(void **state)
{
    static const char *const events[] = {
        "init 1 of 2, live 0 1",
        "init 2 of 3, live 0 1 2",
        "exit 1 of 3, live 0 1 2",
        "init 3 of 4, live 0 2 3",
        "exit 2 of 4, live 0 2 3",
        "exit 3 of 4, live 0 3",
        "init 1 of 4, live 0 1",
        "exit 1 of 4, live 0 1",
        "syscall by 0: 11 12 13 14 15 16 0 0",
        "returned 1234",
        "end",
    };
    char wanted[2048];
    size_t n = 0;
    struct result r;

    (void)state;
    for (size_t i = 0; i < COUNT(events); i++) {
        if (!strcmp(events[i], "returned 1234"))
            n += (size_t)snprintf(wanted + n, sizeof wanted - n, "second: filter\n");
        n += (size_t)snprintf(wanted + n, sizeof wanted - n, "second: %s\nfirst: %s\n", events[i],
                              events[i]);
    }
    run_emu(&r,
            (const char *const[]){"-plugin", "./order1.so", "-plugin", "./order2.so", "%/lives",
                                  "exec", NULL},
            NULL);
    assert_int_equal(r.status, 0);
    const char *at = strstr(r.out[1], "second: init 1");
    assert_non_null(at);
    assert_string_equal(at, wanted); /* the end comes before exec, and once */
    assert_string_equal(r.out[0], "result 1234, 0\n");
    free_result(&r);
}

static void test_reset(void **state)
{
    struct result r;

    (void)state;
    run_emu(&r, (const char *const[]){"-d", "plugin", "-plugin", "libreset.so", PROGRAM, NULL},
            NULL);
    expect_text("stderr", r.out[1], "reset done\nuninstall done\nplugin exit\nand on stderr\n");
    assert_int_equal(r.status, HELLO);
    free_result(&r);
}

/* Two plugins count in several ways, in one life after the other, until the program ends: while
 * eight threads run, and others come and go. EMU_STRESS says how often. */
static void test_stress(void **state)
{
    static const char *const modes[][2] = {{"-d", "plugin"}, {"-d", "nochain"}, {"-tb-size", "1M"}};
    const char *times = getenv("EMU_STRESS");
    char path[MAX_PATH];
    struct result native, r;

    (void)state;
    snprintf(path, sizeof path, "%s/crowd", guest_dir);
    run_command(&native, (char *[]){path, "3", NULL}, (char *[]){NULL}, plugin_dir, NULL, 60);
    for (int n = times ? atoi(times) : 1; n > 0; n--)
        for (size_t i = 0; i < COUNT(modes); i++) {
            run_emu_at_most(&r,
                            (const char *const[]){modes[i][0], modes[i][1], "-plugin",
                                                  "./stress1.so", "-plugin",
                                                  "./stress2.so,lives=10", "%/crowd", "3", NULL},
                            NULL, 300);
            assert_int_equal(r.status, native.status);
            assert_string_equal(r.out[0], native.out[0]);
            expect_text("stderr", r.out[1], "uninstalls: uninstalled after 10 lives\n");
            expect_text("stderr", r.out[1], "resets: ends in life ");
            if (strstr(r.out[1], "FAILED"))
                fail_msg("%s", r.out[1]);
            free_result(&r);
        }
    free_result(&native);
}

/* Two plugins stop all threads at the same time, over and over, and the end does too. */
static void test_alone(void **state)
{
    struct result r;

    (void)state;
    for (int i = 0; i < 4; i++) {
        run_emu(&r,
                (const char *const[]){"-plugin", "./alone1.so", "-plugin", "./alone2.so", "%/crowd",
                                      "3", NULL},
                NULL);
        assert_int_equal(r.status, 0);
        expect_text("stderr", r.out[1], "first: ends in life ");
        expect_text("stderr", r.out[1], "second: ends in life ");
        if (strstr(r.out[1], "FAILED"))
            fail_msg("%s", r.out[1]);
        free_result(&r);
    }
}

/* Locks of callbacks, whether they are free or not, in one thread and in many, with signals. */
static void test_locks(void **state)
{
    static const char *const guests[] = {"hello", "signals", "crowd", "fresh"};
    static const char *const plugins[] = {"./locks.so", "./locks.so,stores=on",
                                          "./locks.so,holds=1", "./locks.so,holds=10"};
    struct result r;

    (void)state;
    for (size_t i = 0; i < COUNT(guests) * COUNT(plugins); i++) {
        char guest[32];
        snprintf(guest, sizeof guest, "%%/%s", guests[i / COUNT(plugins)]);
        run_emu(&r, (const char *const[]){"-plugin", plugins[i % COUNT(plugins)], guest, "3", NULL},
                NULL);
        expect_text("stderr", r.out[1], "blocks counted");
        if (strstr(r.out[1], "FAILED"))
            fail_msg("%s under %s:\n%s", guest, plugins[i % COUNT(plugins)], r.out[1]);
        free_result(&r);
    }
}

/* Callbacks that change all they may change nothing for the guest. */
static void test_clobber(void **state)
{
    static const char *const plugins[] = {"./clobber.so", "./clobberfull.so"};
    static const char *const guests[] = {"addressing", "avx", "branches", "calls", "integer",
                                         "riprel",     "sse", "strings",  "x87"};
    struct result native, r;

    (void)state;
    for (size_t i = 0; i < COUNT(guests) * 2; i++) {
        char path[MAX_PATH], guest[64];
        const char *name = guests[i / 2];
        snprintf(path, sizeof path, "%s/%s", guest_dir, name);
        snprintf(guest, sizeof guest, "%%/%s", name);
        run_command(&native, (char *[]){path, NULL}, (char *[]){NULL}, plugin_dir, NULL, 60);
        run_emu_at_most(&r, (const char *const[]){"-plugin", plugins[i % 2], guest, NULL}, NULL,
                        300);
        if (r.status != native.status || strcmp(r.out[0], native.out[0]))
            fail_msg("%s under %s: status %d, native %d\n%s", name, plugins[i % 2], r.status,
                     native.status, r.out[1]);
        free_result(&native);
        free_result(&r);
    }
}

/* ---- bundled plugins ---------------------------------------------------------------------- */

/* The number that follows the text; fails if there is none. */
static uint64_t number_after(const char *text, const char *label)
{
    uint64_t n;
    const char *at = strstr(text, label);
    if (!at || sscanf(at + strlen(label), " %" SCNu64, &n) != 1)
        fail_msg("no number after '%s' in\n%s", label, text);
    return n;
}

/* The sum of the numbers in brackets, behind a tab, on all lines that start with the label, which
 * has the line's end before it. */
static uint64_t sum_after(const char *text, const char *label)
{
    uint64_t sum = 0, n;

    for (const char *at = text; (at = strstr(at, label)); at++)
        if (sscanf(at + strlen(label), "%*[^\t]\t(%" SCNu64, &n) == 1)
            sum += n;
    return sum;
}

/* A stack protector does not keep a callback from being folded: either way the counts agree. */
static void test_protected(void **state)
{
    static const char *const plugins[] = {"libmem.so", "./protected.so"};
    uint64_t accesses[COUNT(plugins)];
    struct result r;

    (void)state;
    for (size_t i = 0; i < COUNT(plugins); i++) {
        run_emu(&r, (const char *const[]){"-d", "plugin", "-plugin", plugins[i], PROGRAM, NULL},
                NULL);
        accesses[i] = number_after(r.out[1], "mem accesses:");
        free_result(&r);
    }
    assert_int_equal(accesses[0], accesses[1]);
}

/* A plugin's counts of a program, inline or by callbacks. */
struct counts {
    uint64_t blocks, insns;
};

static struct counts count_all(const char *program, bool inlined)
{
    static const char *const plugins[2][2] = {{"libbb.so", "libinsn.so"},
                                              {"libbb.so,inline=on", "libinsn.so,inline=on"}};
    struct result r;

    run_emu(&r,
            (const char *const[]){"-d", "plugin", "-plugin", plugins[inlined][0], "-plugin",
                                  plugins[inlined][1], program, NULL},
            NULL);
    assert_int_equal(r.status, 0);
    struct counts counts = {number_after(r.out[1], "Total: bb's:"),
                            number_after(r.out[1], "total insns:")};
    free_result(&r);
    return counts;
}

/* Loops are laid out for several rounds if they count inline, and count the same. Where alarms come
 * blocks are cut in two, but each instruction runs once. */
static void test_loops(void **state)
{
    struct counts called = count_all("%/loops", false), inlined = count_all("%/loops", true);

    (void)state;
    assert_int_equal(inlined.blocks, called.blocks);
    assert_int_equal(inlined.insns, called.insns);
    assert_int_equal(count_all("%/alarms", true).insns, count_all("%/alarms", false).insns);
}

/* The program ends while threads run: what was counted then is counted in all ways. */
static void test_end_of_threads(void **state)
{
    struct result r;
    char line[64];

    (void)state;
    run_emu(&r,
            (const char *const[]){"-d", "plugin", "-plugin", "libinline.so", "-plugin",
                                  "libinsn.so,inline=on", "-plugin", "libbb.so", "%/crowd", "1",
                                  NULL},
            NULL);
    assert_int_equal(r.status, 0);
    uint64_t insns = number_after(r.out[1], "total insns:");
    snprintf(line, sizeof line, "\ninsn: %" PRIu64 " (per vcpu inline)\n", insns);
    expect_text("stderr", r.out[1], line);
    assert_int_equal(number_after(strstr(r.out[1], "Total: bb's"), "insns:"), insns);
    uint64_t blocks = number_after(r.out[1], "\ntb:");
    snprintf(line, sizeof line, "\ntb: %" PRIu64 " (per vcpu inline)\n", blocks);
    expect_text("stderr", r.out[1], line);
    free_result(&r);
}

/* Functions of every module have names: the program's, those of what it loads, and of libc. */
static void test_modules(void **state)
{
    static const char *const names[] = {",main,0x", ",answer,0x", ",dlopen,0x"};
    struct result r;

    (void)state;
    run_emu(&r,
            (const char *const[]){"-d", "plugin", "-plugin",
                                  "libmem.so,callback=on,print-accesses=on", "%/load", NULL},
            NULL);
    assert_int_equal(r.status, 0);
    for (size_t i = 0; i < COUNT(names); i++)
        assert_non_null(strstr(r.out[1], names[i]));
    free_result(&r);
}

/* Plugins that count the same thing in one run in different ways. */
static void test_agreement(void **state)
{
    struct result r;

    (void)state;
    run_emu(&r,
            (const char *const[]){"-d", "plugin", "-plugin", "libinsn.so", "-plugin",
                                  "libbb.so,inline=on", "-plugin", "libhowvec.so", "-plugin",
                                  "libcache.so", "-plugin", "libmem.so,inline=on", "-plugin",
                                  "libinline.so", PROGRAM, NULL},
            NULL);
    assert_int_equal(r.status, HELLO);
    uint64_t insns = number_after(r.out[1], "total insns:");
    assert_in_range(insns, 1000, 10000000);
    assert_int_equal(number_after(strstr(r.out[1], "Total: bb's"), "insns:"), insns);
    assert_int_equal(sum_after(r.out[1], "\nClass: "), insns);
    assert_int_equal(number_after(r.out[1], "\ninsn:"), insns);
    uint64_t accesses = number_after(r.out[1], "mem accesses:");
    assert_int_equal(number_after(r.out[1], "imiss rate\n0       "), accesses);
    assert_int_equal(number_after(r.out[1], "\nmem:"), accesses);
    free_result(&r);
}

/* Every block that ran, and none that was only translated. */
static void test_hotblocks(void **state)
{
    struct result r;
    uint64_t size, times, rows = 0, blocks = 0, insns = 0;

    (void)state;
    run_emu(&r,
            (const char *const[]){"-d", "plugin", "-plugin", "libhotblocks.so,limit=0", "-plugin",
                                  "libbb.so", PROGRAM, NULL},
            NULL);
    assert_int_equal(r.status, HELLO);
    for (const char *line = r.out[1]; line; line = strchr(line, '\n'), line += line != NULL)
        if (sscanf(line, "0x%*x, %*u, %" SCNu64 ", %" SCNu64, &size, &times) == 2) {
            assert_int_not_equal(times, 0);
            rows++;
            blocks += times;
            insns += size * times;
        }
    assert_int_equal(number_after(r.out[1], "collected"), rows);
    assert_int_equal(number_after(r.out[1], "Total: bb's:"), blocks);
    assert_int_equal(number_after(strstr(r.out[1], "Total: bb's"), "insns:"), insns);
    free_result(&r);
}

/* One line per instruction, with a register's value where it changed. */
static void test_execlog(void **state)
{
    struct result r;
    uint64_t lines = 0;

    (void)state;
    run_emu(&r,
            (const char *const[]){"-d", "plugin", "-plugin", "libexeclog.so,reg=rs[px]", "-plugin",
                                  "libinsn.so", "%/hello-static", NULL},
            NULL);
    assert_int_equal(r.status, HELLO);
    uint64_t insns = number_after(r.out[1], "total insns:");
    expect_text("stderr", r.out[1], "\"pushq ");
    expect_text("stderr", r.out[1], ", store, 0x");
    expect_text("stderr", r.out[1], ", rsp -> 0x00007");
    assert_null(strstr(r.out[1], "rip ->"));
    for (const char *at = r.out[1]; (at = strstr(at, "0, 0x")); at++)
        lines += at == r.out[1] || at[-1] == '\n';
    assert_int_equal(lines, insns);
    free_result(&r);
}

/* Reports that list what another line counts. */
static void test_sums(void **state)
{
    struct result r;
    uint64_t reads, writes, regions = 0, pages = 0;
    unsigned readers, writers;
    char seen[6];

    (void)state;
    run_emu(&r,
            (const char *const[]){"-d", "plugin", "-plugin",
                                  "libmem.so,callback=on,region-summary=on", "-plugin",
                                  "libhotpages.so", "-plugin",
                                  "libinsn.so,match=call,match=ret,trace=on", "%/branches", NULL},
            NULL);
    assert_int_equal(r.status, 0);
    expect_text("stderr", r.out[1], "\nRegion Base, Reads, Writes, Seen all\n0x");
    for (const char *line = r.out[1]; line; line = strchr(line, '\n'), line += line != NULL)
        if (sscanf(line, "0x%*x, %" SCNu64 ", %" SCNu64 ", %5[a-z]", &reads, &writes, seen) == 3)
            regions += reads + writes;
        else if (sscanf(line, "0x%*x, 0x%x, %" SCNu64 ", 0x%x, %" SCNu64, &readers, &reads,
                        &writers, &writes) == 4)
            pages += reads + writes;
    uint64_t accesses = number_after(r.out[1], "mem accesses:");
    assert_in_range(accesses, 100, 1000000);
    assert_int_equal(regions, accesses);
    assert_int_equal(pages, accesses);
    assert_int_equal(count_text(r.out[1], ", 'call") + count_text(r.out[1], ", 'ret"),
                     number_after(r.out[1], "Match: call, hits") +
                         number_after(r.out[1], "Match: ret, hits"));
    free_result(&r);
}

/* The classes of instructions, of which each counts only its own. */
static void test_howvec(void **state)
{
    static const char *const guests[] = {"%/branches", "%/x87", "%/calls"};
    struct result all, one;

    (void)state;
    for (size_t i = 0; i < COUNT(guests); i++) {
        run_emu(&all,
                (const char *const[]){"-d", "plugin", "-plugin", "libhowvec.so,verbose=on",
                                      guests[i], NULL},
                NULL);
        run_emu(&one,
                (const char *const[]){"-d", "plugin", "-plugin",
                                      "libhowvec.so,inline=on,count=call,count=!mov", "-plugin",
                                      "libinsn.so,match=call,match=f,match=wait,"
                                      "match=fxsave,match=fxrstor,match=ret",
                                      guests[i], NULL},
                NULL);
        uint64_t calls = number_after(all.out[1], "\nClass:   Call                  \t(");
        if (count_text(one.out[1], "\nInstr: ") < 50) /* all of them are shown */
            assert_int_equal(sum_after(one.out[1], "\nInstr: call"), calls);
        assert_int_equal(number_after(one.out[1], "Match: call, hits"), calls);
        assert_int_equal(number_after(all.out[1], "\nClass:   Return                \t("),
                         number_after(one.out[1], "Match: ret, hits"));
        uint64_t x87 = number_after(one.out[1], "Match: f, hits") +
                       number_after(one.out[1], "Match: wait, hits") -
                       number_after(one.out[1], "Match: fxsave, hits") -
                       number_after(one.out[1], "Match: fxrstor, hits");
        assert_int_equal(number_after(all.out[1], "\nClass:   x87                   \t("), x87);
        expect_text(guests[i], one.out[1], "\nClass:   Move                  \tnot counted\n");
        expect_text(guests[i], one.out[1], "\nClass:   Call                  \tcounted indiv");
        free_result(&all);
        free_result(&one);
    }
}

/* ---- the tree of calls ------------------------------------------------------------------- */

/* What the guest says of itself in the place of each line of the tree that is about one of its
 * functions: its name, and how many of them it is called by. */
static char *extract_tree(const char *tree, const char *native)
{
    size_t indents[64], depth = 0, size = strlen(native) + 4096, len = 0;
    char *text = calloc(1, size), name[64], end[4], wanted[72];

    assert_non_null(text);
    for (const char *line = tree; line; line = strchr(line, '\n'), line += line != NULL) {
        if (strncmp(line, "0 |", 3))
            continue;
        size_t indent = strspn(line + 3, " ");
        const char *at = line + 3 + indent;
        if (*at == '}' && depth && indents[depth - 1] == indent)
            depth--;
        at += !strncmp(at, "=> ", 3) ? 3 : !strncmp(at, "signal: ", 8) ? 8 : 0;
        end[0] = 0;
        if (sscanf(at, "0x%*x %63[a-z_]%3[^\n]", name, end) < 1)
            continue;
        snprintf(wanted, sizeof wanted, " %s\n", name);
        if (!strstr(native, wanted))
            continue;
        len += (size_t)snprintf(text + len, size - len, "%zu %s\n", depth, name);
        assert_true(len < size && depth < COUNT(indents));
        if (!strcmp(end, " {"))
            indents[depth++] = indent;
    }
    return text;
}

static void test_calltrace(void **state)
{
    char path[MAX_PATH];
    struct result native, r;

    (void)state;
    snprintf(path, sizeof path, "%s/calltree", guest_dir);
    run_command(&native, (char *[]){path, NULL}, (char *[]){NULL}, plugin_dir, NULL, 60);
    run_emu(&r,
            (const char *const[]){"-d", "plugin", "-plugin", "libcalltrace.so,from=run",
                                  "%/calltree", NULL},
            NULL);
    char *tree = extract_tree(r.out[1], native.out[0]);
    assert_string_equal(tree, native.out[0]);
    assert_int_equal(count_text(r.out[1], " {\n"), count_text(r.out[1], "} "));
    assert_int_equal(count_text(r.out[1], " throws (unwound)\n"), 4);
    assert_int_equal(count_text(r.out[1], " middle {\n"), 5);
    expect_text("tree", r.out[1], " signal: 0x");
    free(tree);
    free_result(&native);
    free_result(&r);
    run_emu(&r,
            (const char *const[]){"-d", "plugin", "-plugin", "libcalltrace.so,from=run,depth=1",
                                  "%/calltree", NULL},
            NULL);
    expect_text("depth=1", r.out[1], "0 | 0x");
    expect_text("depth=1", r.out[1], " run\n");
    assert_int_equal(count_text(r.out[1], "\n"), 1);
    free_result(&r);
}

static void test_syscall_plugin(void **state)
{
    struct result r;

    (void)state;
    run_emu(&r, (const char *const[]){"-d", "plugin", "-plugin", "libsyscall.so", PROGRAM, NULL},
            NULL);
    expect_text("stderr", r.out[1], "syscall no.  calls  errors\n");
    expect_text("stderr", r.out[1], "\n1            2      0\n"); /* write */
    expect_text("stderr", r.out[1], "\n231          1      0\n"); /* exit_group */
    free_result(&r);
    run_emu(&r,
            (const char *const[]){"-d", "plugin", "-plugin", "libsyscall.so,print=on,log_writes=on",
                                  PROGRAM, NULL},
            NULL);
    expect_text("stderr", r.out[1], "syscall #1\n");
    expect_text("stderr", r.out[1],
                "61 6e 64 20 6f 6e 20 73 74 64 65 72 72 0a        | and.on.stderr.\n");
    expect_text("stderr", r.out[1], "syscall #1 returned -> 14\n");
    free_result(&r);
}

/* A call of the vsyscall page is an exception, as its code is not for running, and a system call.
 */
static void test_vsyscall(void **state)
{
    struct result r;

    (void)state;
    run_emu(&r,
            (const char *const[]){"-d", "plugin", "-plugin", "libtraps.so", "-plugin",
                                  "libsyscall.so", "%/vsyscall", NULL},
            NULL);
    assert_int_equal(r.status, 3 << 8);
    expect_text("stderr", r.out[1], "\n201          1      0\n"); /* time */
    expect_text("stderr", r.out[1], "\n   0,          0,          1,          0\n");
    free_result(&r);
}

static void test_traps(void **state)
{
    static const struct {
        const char *how, *row;
    } ways[] = {{"ill", "\n   0,          0,          1,          0\n"},
                {"trap", "\n   0,          0,          1,          0\n"},
                {"fpe", "\n   0,          0,          1,          0\n"},
                {"segv", "\n   0,          0,          1,          0\n"},
                {"term", "\n   0,          1,          0,          0\n"}};
    struct result r;

    (void)state;
    for (size_t i = 0; i < COUNT(ways); i++) {
        run_emu(&r,
                (const char *const[]){"-d", "plugin", "-plugin", "libtraps.so", "%/die",
                                      ways[i].how, NULL},
                NULL);
        expect_text(ways[i].how, r.out[1], ways[i].row);
        free_result(&r);
    }
}

/* What a plugin hears of exceptions and interrupts is what the guest finds in its signal frames. */
static void test_discon(void **state)
{
    static const char *const ways[][8] = {
        {NULL},
        {"-one-insn-per-tb"},
        {"-tb-size", "64K"},
        {"-d", "nochain", "-plugin", "libinsn.so,inline=on"},
        {"-plugin", "libmem.so,callback=on", "-plugin", "libinsn.so"},
    };
    struct result r;

    (void)state;
    for (size_t i = 0; i < COUNT(ways); i++) {
        const char *args[12];
        int n = 0;
        while (ways[i][n])
            args[n] = ways[i][n], n++;
        args[n++] = "-plugin";
        args[n++] = "./discon.so";
        args[n++] = "%/traps";
        args[n] = NULL;
        run_emu(&r, args, NULL);
        assert_int_equal(r.status, 0);
        assert_string_equal(r.out[1], r.out[0]);
        free_result(&r);
    }
}

static void test_stoptrigger(void **state)
{
    struct result r;

    (void)state;
    run_emu(&r,
            (const char *const[]){"-d", "plugin", "-plugin", "libstoptrigger.so,icount=1000:5",
                                  "-plugin", "libinsn.so,inline=on", PROGRAM, NULL},
            NULL);
    assert_int_equal(r.status, 5 << 8);
    expect_text("stderr", r.out[1], "icount reached at 0x");
    assert_int_equal(number_after(r.out[1], "total insns:"), 1001);
    free_result(&r);
}

static void test_bbv(void **state)
{
    struct result r;
    uint64_t index, n, sum = 0;
    int used, lines = 0;

    (void)state;
    run_emu(&r,
            (const char *const[]){"-d", "plugin", "-plugin", "libbbv.so,outfile=v,interval=10000",
                                  "-plugin", "libinsn.so", PROGRAM, NULL},
            NULL);
    char *vectors = read_command("cat '%s'/v.0.bb", plugin_dir);
    for (const char *at = vectors; *at; at += used)
        if (used = 0, sscanf(at, ":%" SCNu64 ":%" SCNu64 "%n", &index, &n, &used) == 2) {
            sum += n;
        } else {
            lines += *at == 'T';
            used = 1;
        }
    uint64_t insns = number_after(r.out[1], "total insns:");
    assert_int_equal(lines, insns / 10000);
    assert_in_range(sum, 10000 * (uint64_t)lines, insns);
    free(vectors);
    free_result(&r);
}

/* ---- symbols ------------------------------------------------------------------------------------
 */

/* symbols.map, the header and what emu exports name the same functions. */
static void test_symbols(void **state)
{
    char *map = read_command("grep -o 'qemu_plugin_[a-z0-9_]*' %s | LC_ALL=C sort", "symbols.map");
    char *header = read_command("grep -o 'qemu_plugin_[a-z0-9_]*(' %s | tr -d '(' | "
                                "grep -v -e _install$ -e _scoreboard_u64 | LC_ALL=C sort -u",
                                "plugin.h");
    char *exported = read_command("nm -D --defined-only '%s' | sed -n 's/.* T qemu_/qemu_/p' | "
                                  "LC_ALL=C sort",
                                  emu_path);

    (void)state;
    assert_string_equal(map, header);
    assert_string_equal(map, exported);
    free(map);
    free(header);
    free(exported);
}

/* The header serves C and C++, every version, by either of its names. */
static void test_header(void **state)
{
    char command[512];

    (void)state;
    for (int version = 0; version <= 7; version++) {
        snprintf(command, sizeof command,
                 "for l in c c++; do for h in qemu-plugin.h plugins/qemu-plugin.h; do "
                 "command -v c++ >/dev/null || [ $l = c ] || continue; echo \"#include <$h>\" | "
                 "${CC:-cc} -x $l -Wall -Wextra -Werror -I. -Iplugins -fsyntax-only "
                 "-DEMU_PLUGIN_API_VERSION=%d - || exit 1; done; done",
                 version);
        assert_int_equal(system(command), 0);
    }
    /* The example in README.md. */
    assert_int_equal(system("sed -n '/^```c$/,/^```$/{//!p}' README.md | ${CC:-cc} -x c -Wall "
                            "-Wextra -Wno-unused-parameter -Werror -Iplugins -fsyntax-only -"),
                     0);
    assert_int_not_equal(system("echo '#include <qemu-plugin.h>' | ${CC:-cc} -x c -Iplugins "
                                "-fsyntax-only -DEMU_PLUGIN_API_VERSION=8 - 2>/dev/null"),
                         0);
}

/* ---- drcov
 * ------------------------------------------------------------------------------------------ */

struct trace {
    char *text;
    size_t size;
    unsigned n_modules, n_blocks;
    struct {
        uint64_t base, end, entry;
        char path[MAX_PATH];
    } module[16];
    const uint8_t *blocks, *hits; /* hits: NULL, they were not asked for */
};

static unsigned block_start(const struct trace *t, unsigned i)
{
    uint32_t start;
    memcpy(&start, t->blocks + 8 * i, 4);
    return start;
}

static unsigned block_hits(const struct trace *t, unsigned i)
{
    uint32_t n;
    memcpy(&n, t->hits + 4 * i, 4);
    return n;
}

static unsigned block_field(const struct trace *t, unsigned i, unsigned at)
{
    uint16_t value;
    memcpy(&value, t->blocks + 8 * i + at, 2);
    return value;
}
#define block_size(t, i)   block_field(t, i, 4)
#define block_module(t, i) block_field(t, i, 6)

/* Reads a drcov file as strictly as its strictest consumers do. */
static void read_trace(struct trace *t, const char *name)
{
    static const char start[] = "DRCOV VERSION: 2\nDRCOV FLAVOR: drcov-64",
                      head[] = "\nModule Table: version 2, count ";
    char path[MAX_PATH];
    unsigned id;
    int n;

    snprintf(path, sizeof path, "%s/%s", plugin_dir, name);
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    read_whole(fd, &t->text, &t->size);
    unlink(path);
    assert_memory_equal(t->text, start, sizeof start - 1);
    char *at = t->text + sizeof start - 1;
    bool hits = !strncmp(at, "-hits", 5);
    at += hits ? 5 : 0;
    assert_memory_equal(at, head, sizeof head - 1);
    at += sizeof head - 1;
    assert_int_equal(sscanf(at, "%u\nColumns: id, base, end, entry, path\n%n", &t->n_modules, &n),
                     1);
    assert_in_range(t->n_modules, 1, COUNT(t->module));
    at += n;
    for (unsigned i = 0; i < t->n_modules; i++, at = strchr(at, '\n') + 1) {
        assert_int_equal(sscanf(at, "%u, 0x%" SCNx64 ", 0x%" SCNx64 ", 0x%" SCNx64 ", %[^\n]", &id,
                                &t->module[i].base, &t->module[i].end, &t->module[i].entry,
                                t->module[i].path),
                         5);
        assert_int_equal(id, i);
        assert_true(t->module[i].base < t->module[i].end);
    }
    assert_int_equal(sscanf(at, "BB Table: %u bbs%n", &t->n_blocks, &n), 1);
    t->blocks = (const uint8_t *)at + n + 1;
    const char *end = (const char *)t->blocks + 8 * t->n_blocks;
    if (hits) {
        n = 0;
        assert_int_equal(sscanf(end, "Hit Count Table: version 1, count %u%n", &id, &n), 1);
        assert_int_equal(id, t->n_blocks);
        t->hits = (const uint8_t *)end + n + 1;
        end = (const char *)t->hits + 4 * t->n_blocks;
    }
    assert_ptr_equal(end, t->text + t->size);
}

static int compare_entries(const void *a, const void *b)
{
    return memcmp(a, b, 8);
}

/* Blocks lie in their module, and no entry comes twice. */
static void check_blocks(struct trace *t)
{
    for (unsigned i = 0; i < t->n_blocks; i++) {
        unsigned module = block_module(t, i);
        assert_true(module < t->n_modules && block_size(t, i));
        assert_true(block_start(t, i) + block_size(t, i) <=
                    t->module[module].end - t->module[module].base);
    }
    uint8_t *sorted = malloc(8 * t->n_blocks);
    assert_non_null(sorted);
    memcpy(sorted, t->blocks, 8 * t->n_blocks);
    qsort(sorted, t->n_blocks, 8, compare_entries);
    for (unsigned i = 1; i < t->n_blocks; i++)
        assert_memory_not_equal(sorted + 8 * i - 8, sorted + 8 * i, 8);
    free(sorted);
}

/* Number of the module whose path ends so. */
static unsigned find_module(const struct trace *t, const char *tail)
{
    for (unsigned i = 0; i < t->n_modules; i++) {
        size_t len = strlen(t->module[i].path), n = strlen(tail);
        if (len >= n && !strcmp(t->module[i].path + len - n, tail))
            return i;
    }
    fail_msg("no module %s", tail);
    return 0;
}

static bool covers(const struct trace *t, unsigned module, uint64_t offset)
{
    for (unsigned i = 0; i < t->n_blocks; i++)
        if (block_module(t, i) == module && offset >= block_start(t, i) &&
            offset < block_start(t, i) + block_size(t, i))
            return true;
    return false;
}

/* Offset of a function in a file whose first segment starts at address 0. */
static uint64_t find_function(const char *file, const char *function)
{
    char format[256];
    snprintf(format, sizeof format, "nm '%%s' | sed -n 's/ T %s$//p'", function);
    char *text = read_command(format, file);
    uint64_t offset = strtoull(text, NULL, 16);
    assert_true(offset);
    free(text);
    return offset;
}

static void test_drcov(void **state)
{
    struct trace t = {0};
    struct result r;

    (void)state;
    run_emu(&r, (const char *const[]){"-plugin", "libdrcov.so,filename=t.%p.drcov", "%/load", NULL},
            NULL);
    assert_int_equal(r.status, 0);
    free_result(&r);
    char *name = read_command("cd '%s' && ls t.*.drcov", plugin_dir);
    name[strcspn(name, "\n")] = 0;
    read_trace(&t, name);
    check_blocks(&t);
    unsigned program = find_module(&t, "/load"), library = find_module(&t, "/libanswer.so");
    find_module(&t, "libc.so.6");
    assert_true(covers(&t, program, find_function(t.module[program].path, "main")));
    assert_true(covers(&t, library, find_function(t.module[library].path, "answer")));
    free(name);
    free(t.text);
}

/* Every instruction that execlog saw is covered, and every block starts at one of them. */
static void test_drcov_complete(void **state)
{
    struct trace t = {0};
    struct result r;

    (void)state;
    run_emu(&r,
            (const char *const[]){"-d", "plugin", "-plugin", "libexeclog.so", "-plugin",
                                  "libdrcov.so,filename=c.drcov", "%/hello-static", NULL},
            NULL);
    assert_int_equal(r.status, HELLO);
    read_trace(&t, "c.drcov");
    check_blocks(&t);
    assert_int_equal(t.n_modules, 1);
    bool *seen = calloc(t.module[0].end - t.module[0].base, 1);
    assert_non_null(seen);
    for (char *line = strtok(r.out[1], "\n"); line; line = strtok(NULL, "\n")) {
        uint64_t pc;
        if (sscanf(line, "0, 0x%" SCNx64 ",", &pc) == 1 && pc - t.module[0].base < t.module[0].end)
            seen[pc - t.module[0].base] = true;
    }
    for (unsigned i = 0; i < t.n_blocks; i++)
        assert_true(seen[block_start(&t, i)]);
    for (unsigned i = 0; i < t.n_blocks; i++)
        memset(seen + block_start(&t, i), 0, block_size(&t, i));
    assert_null(memchr(seen, true, t.module[0].end - t.module[0].base));
    free(seen);
    free(t.text);
    free_result(&r);
}

/* What is written to and is no plain file is still there afterwards: /dev/null, too. */
static void test_drcov_link(void **state)
{
    struct trace t = {0};
    struct result r;

    (void)state;
    free(read_command("cd '%s' && ln -sf l.drcov link.drcov", plugin_dir));
    run_emu(
        &r,
        (const char *const[]){"-plugin", "libdrcov.so,filename=link.drcov", "%/hello-static", NULL},
        NULL);
    assert_int_equal(r.status, HELLO);
    read_trace(&t, "l.drcov");
    check_blocks(&t);
    free(t.text);
    free_result(&r);
}

/* An instruction ran as often as the blocks that contain it. */
static void test_drcov_hits(void **state)
{
    struct trace t = {0};
    struct result r;
    uint64_t pc;

    (void)state;
    run_emu(&r,
            (const char *const[]){"-d", "plugin", "-plugin", "libexeclog.so", "-plugin",
                                  "libdrcov.so,filename=n.drcov,hits=on", "%/hello-musl-static",
                                  NULL},
            NULL);
    assert_int_equal(r.status, HELLO);
    read_trace(&t, "n.drcov");
    check_blocks(&t);
    assert_non_null(t.hits);
    uint64_t base = t.module[0].base, size = t.module[0].end - base;
    uint64_t *ran = calloc(size, sizeof *ran), *counted = calloc(size, sizeof *counted), most = 0;
    assert_true(ran && counted);
    for (char *line = strtok(r.out[1], "\n"); line; line = strtok(NULL, "\n"))
        if (sscanf(line, "0, 0x%" SCNx64 ",", &pc) == 1 && pc - base < size)
            ran[pc - base]++;
    for (unsigned i = 0; i < t.n_blocks; i++)
        for (uint64_t at = block_start(&t, i); at < block_start(&t, i) + block_size(&t, i); at++)
            counted[at] += block_hits(&t, i);
    for (uint64_t i = 0; i < size; i++)
        if (ran[i]) {
            assert_int_equal(ran[i], counted[i]);
            most = ran[i] > most ? ran[i] : most;
        }
    assert_in_range(most, 20, 1000000);
    free(ran);
    free(counted);
    free(t.text);
    free_result(&r);
}

/* A block that has been seen need not mark itself again; a plain shell, as it runs the same blocks
 * each time. */
static void test_drcov_seen(void **state)
{
    static const char *const options[2] = {"libdrcov.so,filename=a.drcov",
                                           "libdrcov.so,filename=a.drcov,hits=on"};
    struct trace t[2] = {0};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct result r;
        run_emu(&r,
                (const char *const[]){"-plugin", options[i], "/usr/bin/dash", "-c",
                                      "while [ $((i += 1)) -lt 400000 ]; do :; done", NULL},
                NULL);
        assert_int_equal(r.status, 0);
        free_result(&r);
        read_trace(&t[i], "a.drcov");
        check_blocks(&t[i]);
    }
    assert_int_equal(t[0].n_blocks, t[1].n_blocks);
    for (unsigned i = 0; i < t[0].n_blocks; i++)
        assert_true(covers(&t[1], block_module(&t[0], i), block_start(&t[0], i)));
    free(t[0].text);
    free(t[1].text);
}

/* A program with threads that runs for longer is translated again, without what has been seen: once
 * more than for its first thread. */
static void test_drcov_again(void **state)
{
    static const char script[] = "import threading\n"
                                 "t = threading.Thread(target=print)\n"
                                 "t.start(); t.join()\n"
                                 "for i in range(3000000): pass\n";
    struct result r;
    struct trace t = {0};
    unsigned flushes = 0;

    (void)state;
    run_emu(&r,
            (const char *const[]){"-d", "stats", "-plugin", "libdrcov.so,filename=a.drcov",
                                  "/usr/bin/python3", "-c", script, NULL},
            NULL);
    assert_int_equal(r.status, 0);
    const char *line = strstr(r.out[1], "\nflushes ");
    assert_non_null(line);
    assert_int_equal(sscanf(line, "\nflushes %u", &flushes), 1);
    assert_in_range(flushes, 2, 20);
    free_result(&r);
    read_trace(&t, "a.drcov");
    check_blocks(&t);
    free(t.text);
}

/* Reads and checks every file that ls lists; how many of them cover the module. */
static unsigned count_traces(const char *pattern, const char *module)
{
    char format[64];
    unsigned n = 0;

    snprintf(format, sizeof format, "cd '%%s' && ls %s", pattern);
    char *names = read_command(format, plugin_dir);
    assert_null(strstr(names, "tmp"));
    for (char *name = strtok(names, "\n"); name; name = strtok(NULL, "\n")) {
        struct trace t = {0};
        bool found = false;

        read_trace(&t, name);
        check_blocks(&t);
        for (unsigned i = 0; i < t.n_modules; i++)
            found |= !strcmp(t.module[i].path, module);
        n += found;
        free(t.text);
    }
    free(names);
    return n;
}

/* With -follow-exec every program of the tree writes a file, wherever it runs, and none that of
 * another: a process that executes two programs writes two. */
static void test_drcov_exec(void **state)
{
    static const struct {
        const char *pattern, *module;
        unsigned files;
    } expected[] = {
        {"x.drcov", "/usr/bin/bash", 1}, /* before exec */
        {"x.drcov.*.1", "/usr/bin/true", 1},
        {"x.drcov.*.2", "/usr/bin/id", 1},
        {"x.drcov.*", "/usr/bin/bash", 1}, /* the child that became true */
    };
    struct result r;

    (void)state;
    for (size_t i = 0; i < COUNT(expected); i++) {
        run_emu(&r,
                (const char *const[]){
                    "-follow-exec", "-plugin", "libdrcov.so,filename=x.drcov", "/usr/bin/bash",
                    "-c", "cd /; /usr/bin/true; exec /usr/bin/env -i /usr/bin/id -u", NULL},
                NULL);
        assert_int_equal(r.status, 0);
        free_result(&r);
        assert_int_equal(count_traces(expected[i].pattern, expected[i].module), expected[i].files);
        free(read_command("cd '%s' && rm -f x.drcov*", plugin_dir));
    }
}

/* A fork child writes a file of its own. */
static void test_drcov_fork(void **state)
{
    struct result r;

    (void)state;
    run_emu(&r,
            (const char *const[]){"-plugin", "libdrcov.so,filename=f.drcov", "%/processes", NULL},
            NULL);
    assert_int_equal(r.status, 0);
    free_result(&r);
    char program[MAX_PATH];
    snprintf(program, sizeof program, "%s/processes", guest_dir);
    assert_int_equal(count_traces("f.drcov", program), 1);
    assert_true(count_traces("f.drcov.*", program) > 1);
}

/* An argument chooses tests by a pattern of their names. */
int main(int argc, char **argv)
{
    struct CMUnitTest tests[COUNT(rows) + 60] = {{0}};
    size_t n = 0;

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);

    locate_emu();
    for (size_t i = 0; i < COUNT(rows); i++)
        tests[n++] =
            (struct CMUnitTest){rows[i].name, test_row, NULL, NULL, (void *)(uintptr_t)&rows[i]};
    for (intptr_t version = 0; version <= 7; version++)
        tests[n++] = (struct CMUnitTest){"API version", test_version, NULL, NULL, (void *)version};
    static const struct {
        const char *name;
        CMUnitTestFunction function;
    } others[] = {
        {"C++", test_cxx},
        {"effects", test_effects},
        {"looks", test_looks},
        {"marks", test_marks},
        {"misuse", test_misuse},
        {"protected", test_protected},
        {"GLib", test_glib},
        {"atexit", test_atexit},
        {"fatal signals", test_fatal_signals},
        {"order of events", test_order},
        {"reset", test_reset},
        {"alone", test_alone},
        {"locks", test_locks},
        {"stress", test_stress},
        {"loops", test_loops},
        {"end of threads", test_end_of_threads},
        {"clobber", test_clobber},
        {"modules", test_modules},
        {"agreement", test_agreement},
        {"hotblocks", test_hotblocks},
        {"execlog", test_execlog},
        {"sums", test_sums},
        {"howvec", test_howvec},
        {"calltrace", test_calltrace},
        {"syscall", test_syscall_plugin},
        {"vsyscall", test_vsyscall},
        {"traps", test_traps},
        {"discon", test_discon},
        {"stoptrigger", test_stoptrigger},
        {"bbv", test_bbv},
        {"symbols", test_symbols},
        {"header", test_header},
        {"drcov", test_drcov},
        {"drcov complete", test_drcov_complete},
        {"drcov link", test_drcov_link},
        {"drcov hits", test_drcov_hits},
        {"drcov seen", test_drcov_seen},
        {"drcov again", test_drcov_again},
        {"drcov fork", test_drcov_fork},
        {"drcov exec", test_drcov_exec},
    };
    for (size_t i = 0; i < COUNT(others); i++)
        tests[n++] = (struct CMUnitTest){others[i].name, others[i].function, NULL, NULL, NULL};
    return _cmocka_run_group_tests("plugin", tests, n, compile_plugins, NULL);
}
