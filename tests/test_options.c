/* test_options.c: the command line: what is accepted, what is refused and in which words. */
#include "emu.h"
#include "run.h"

#include <setjmp.h>
#include <stdbool.h>

#include <cmocka.h>

#define FAILS   (1 << 8) /* wait status of exit(1) */
#define MAX_ARG 10

struct row {
    const char *name;
    const char *args[MAX_ARG]; /* @NAME: a guest program */
    const char *env[3];
    int status;
    const char *out; /* in stdout; "": stdout is empty; NULL: not looked at */
    const char *err; /* likewise */
};

#define HELLO       "@hello"
#define ENVIRONMENT "@environment"

/* clang-format off */
static const struct row rows[] = {
    {"no program",        {NULL}, {0}, FAILS, "", "emu: no user program specified\n"},
    {"only options",      {"-strace"}, {0}, FAILS, "", "emu: no user program specified\n"},
    {"unknown option",    {"-nonsense", HELLO}, {0}, FAILS, "", "emu: unknown option 'nonsense'\n"},
    {"unknown --option",  {"--nonsense", HELLO}, {0}, FAILS, "", "emu: unknown option 'nonsense'\n"},
    {"lone dash",         {"-", HELLO}, {0}, FAILS, "", "emu: unknown option ''\n"},
    {"missing argument",  {"-L"}, {0}, FAILS, "", "emu: missing argument for option 'L'\n"},
    {"missing plugin",    {"-plugin"}, {0}, FAILS, "", "emu: missing argument for option 'plugin'\n"},
    {"option=value",      {"-plugin=x", HELLO}, {0}, FAILS, "", "emu: unknown option 'plugin=x'\n"},
    {"gdb",               {"-g", "1234", HELLO}, {0}, FAILS, "", "option 'g' is not supported"},
    {"-h",                {"-h"}, {0}, 0, "usage: emu [options] program", ""},
    {"-help",             {"-help"}, {0}, 0, "-one-insn-per-tb", ""},
    {"--help",            {"--help"}, {0}, 0, "EMU_STACK_SIZE", ""},
    {"-version",          {"-version"}, {0}, 0, "emu version ", ""},
    {"version variable",  {HELLO}, {"QEMU_VERSION=1"}, 0, "emu version ", ""},
    {"-d help",           {"-d", "help"}, {0}, 0, "in_asm ", ""},
    {"-d unknown",        {"-d", "plugin,foo", HELLO}, {0}, FAILS, "", "unknown log item 'foo'\nLog"},
    {"-d of QEMU",        {"-d", "cpu,exec,unimp", HELLO}, {0}, 7 << 8, "hello", "and on stderr\n"},
    {"-d trace",          {"-d", "trace:x*", HELLO}, {0}, 7 << 8, "hello", "and on stderr\n"},
    {"program",           {HELLO, "-h", "--", "-x"}, {0}, 7 << 8, "3 arguments\n[-h]\n[--]\n[-x]\n",
                          "and on stderr\n"},
    {"--",                {"--", HELLO, "a"}, {0}, 7 << 8, "1 argument\n[a]", "and on stderr\n"},
    {"no-ops",            {"-B", "0", "-R", "4G", "-cpu", "max", "--", HELLO}, {0}, 7 << 8, "hello",
                          "and on stderr\n"},
    {"CPU model",         {"-cpu", "Nehalem", HELLO}, {0}, FAILS, "", "CPU model 'Nehalem'"},
    {"missing program",   {"/nonexistent/x"}, {0}, FAILS, "", "/nonexistent/x"},
    {"no ELF file",       {"/etc/passwd"}, {0}, FAILS, "", "/etc/passwd"},
    {"a directory",       {"/etc"}, {0}, FAILS, "", "/etc"},
    {"by PATH",           {"true"}, {"PATH=/nonexistent:/usr/bin"}, 0, "", ""},
    {"-0",                {"-0", "/x/renamed", ENVIRONMENT}, {0}, 0, "argv[0] = /renamed\n", ""},
    {"argv0 variable",    {ENVIRONMENT}, {"QEMU_ARGV0=/x/renamed"}, 0, "argv[0] = /renamed\n", ""},
    {"-E",                {"-E", "A=1,B=2", "-E", "C=x=y", ENVIRONMENT}, {"A=0"}, 0, "env C=x=y\n", ""},
    {"-E replaces",       {"-E", "A=1", "-E", "A=2", ENVIRONMENT}, {"A=0"}, 0, "env A=2\n", ""},
    {"-E bad",            {"-E", "A", ENVIRONMENT}, {0}, FAILS, "", "'E' needs var=value, not 'A'"},
    {"-U",                {"-U", "A,B", ENVIRONMENT}, {"A=0"}, 0, "environment follows: 1\nAT_", ""},
    {"-U then -E",        {"-U", "A", "-E", "A=3", ENVIRONMENT}, {"A=0"}, 0, "env A=3\n", ""},
    {"set variable",      {"-E", "A=2", ENVIRONMENT}, {"QEMU_SET_ENV=A=1"}, 0, "env A=2\n", ""},
    {"EMU_ over QEMU_",   {ENVIRONMENT}, {"QEMU_ARGV0=/q", "EMU_ARGV0=/e"}, 0, "argv[0] = /e\n", ""},
    {"argv over both",    {"-0", "/a", ENVIRONMENT}, {"QEMU_ARGV0=/q", "EMU_ARGV0=/e"}, 0,
                          "argv[0] = /a\n", ""},
    {"guest's fault",     {"@die", "segv"}, {0}, SIGSEGV, "by segv\n",
                          "emu: uncaught target signal 11 (Segmentation fault), address 0x8, at 0x"},
    {"its instruction",   {"@die", "segv"}, {0}, SIGSEGV, "by segv\n", ": movb $1, 8 (bytes c6 04 25 08 00 00 00 01)\n"},
    {"emu's own fault",   {"@wild"}, {0}, SIGSEGV, "",
                          "emu: internal error: version " EMU_VERSION ", signal 11 (Segmentation fault) at host pc 0x"},
    {"on the way to",     {"@wild"}, {0}, SIGSEGV, "", "last guest pc in C 0x402000 (bytes 0f 0b 90 90 90 "
                          "90 90 90 90 90 90 90 90 90 90): this is a fault of emu, not of the program\n"},
    {"-s",                {"-s", "1M", HELLO}, {0}, 7 << 8, "hello", "and on stderr\n"},
    {"-s bad",            {"-s", "many", HELLO}, {0}, FAILS, "", "bad size 'many' for option 's'"},
    {"-s 0",              {"-s", "0", HELLO}, {0}, FAILS, "", "bad size '0' for option 's'"},
    {"-tb-size MiB",      {"-tb-size", "16", HELLO}, {0}, 7 << 8, "hello", "and on stderr\n"},
    {"-tb-size huge",     {"-tb-size", "4096", HELLO}, {0}, 7 << 8, "hello", "and on stderr\n"},
    {"-tb-size small",    {"-tb-size", "1K", HELLO}, {0}, FAILS, "", "bad size '1K'"},
    {"-tb-size bad",      {"-tb-size", "1Q", HELLO}, {0}, FAILS, "", "bad size '1Q'"},
    {"-tb-size negative", {"-tb-size", "-1", HELLO}, {0}, FAILS, "", "bad size '-1'"},
    {"-singlestep",       {"-singlestep", HELLO}, {0}, 7 << 8, "hello", "and on stderr\n"},
    {"-D bad name",       {"-d", "page", "-D", "x%s", HELLO}, {0}, FAILS, "", "bad log file name 'x%s'"},
    {"-D two marks",      {"-d", "page", "-D", "%d%d", HELLO}, {0}, FAILS, "", "bad log file name"},
    {"-D bad directory",  {"-d", "page", "-D", "/nonexistent/x", HELLO}, {0}, FAILS, "",
                          "cannot open log file '/nonexistent/x': No such file"},
    {"-strace",           {"-strace", HELLO}, {0}, 7 << 8, "hello", "write(1,"},
    {"strace variable",   {HELLO}, {"QEMU_STRACE=1"}, 7 << 8, "hello", "write(1,"},
    {"-d page",           {"-d", "page", HELLO}, {0}, 7 << 8, "hello", "r-x\n"},
    {"-d stats",          {"-d", "stats", "/bin/sh", "-c", HELLO}, {0}, 7 << 8, "hello", "superblocks "},
    {"room for blocks",   {"-d", "stats", "@blocks"}, {0}, 0, "20000\n", "\nflushes              0\n"},
    {"-d in_asm",         {"-d", "in_asm", "@hello-static"}, {0}, 7 << 8, "hello",
                          ":  0f 05                    syscall  \n"},
    {"-follow-exec",      {"-follow-exec", "-strace", "/usr/bin/env", "-i", HELLO}, {0}, 7 << 8,
                          "hello", "write(1,"},
    {"not followed",      {"-strace", "/usr/bin/env", "-i", HELLO}, {0}, 7 << 8, "hello",
                          " = ?\nand on stderr\n"},
    {"follow variables",  {"/usr/bin/env", "-i", HELLO}, {"QEMU_FOLLOW_EXEC=1", "EMU_STRACE=1"}, 7 << 8,
                          "hello", "write(1,"},
    {"-execed bad",       {"-execed", "1", HELLO}, {0}, FAILS, "", "'execed' is for emu itself"},
    {"-plugin no file",   {"-plugin", "/nonexistent/p.so", HELLO}, {0}, FAILS, "",
                          "emu: Could not load plugin /nonexistent/p.so: "},
    {"plugin variable",   {HELLO}, {"QEMU_PLUGIN=/nonexistent/p.so"}, FAILS, "",
                          "emu: Could not load plugin /nonexistent/p.so: "},
    {"-disas",            {"-disas", "@addressing"}, {0}, 0, "movq (%rbx), %rax", ""},
    {"-disas from",       {"-disas", "@addressing", "_start"}, {0}, 0, " <_start>:\n", ""},
    {"-disas intel",      {"-disas", "@addressing", "-syntax", "intel"}, {0}, 0, "syscall", ""},
    {"-disas bad syntax", {"-syntax", "masm", "-disas", "x"}, {0}, FAILS, "", "unknown syntax 'masm'"},
    {"-disas no file",    {"-disas", "/nonexistent/x"}, {0}, FAILS, "", "/nonexistent/x"},
    {"-disas too much",   {"-disas", "x", "1", "2", "3"}, {0}, FAILS, "", "at most START and END"},
};
/* clang-format on */
#define ROWS        (sizeof rows / sizeof rows[0])

static void check_stream(const char *stream, const char *want, const char *got)
{
    if (want && (*want ? !strstr(got, want) : *got))
        fail_msg("%s should %s%s; it is:\n%s", stream, *want ? "hold " : "be empty", want, got);
}

static void run_row(struct result *r, const struct row *row)
{
    char *argv[MAX_ARG + 2] = {emu_path}, paths[MAX_ARG][MAX_PATH], *env[4] = {NULL};

    for (int i = 0; i < MAX_ARG && row->args[i]; i++) {
        bool guest = row->args[i][0] == '@';

        snprintf(paths[i], MAX_PATH, "%s%s%s", guest ? guest_dir : "", guest ? "/" : "",
                 row->args[i] + guest);
        argv[i + 1] = paths[i];
    }
    for (int i = 0; i < 3 && row->env[i]; i++)
        env[i] = (char *)(uintptr_t)row->env[i];
    run_command(r, argv, env, "/", NULL, 60);
}

static void test_row(void **state)
{
    const struct row *row = *state;
    struct result r;

    run_row(&r, row);
    check_stream("stderr", row->err, r.out[1]);
    check_stream("stdout", row->out, r.out[0]);
    assert_int_equal(r.status, row->status);
    free_result(&r);
}

/* The log file's name may hold the process id; the program sees no descriptor of the log. */
static void test_log_file(void **state)
{
    char dir[] = "/tmp/emu-options-XXXXXX", path[MAX_PATH], program[MAX_PATH];
    char *const argv[] = {emu_path,
                          (char[]){"-d"},
                          (char[]){"strace"},
                          (char[]){"-D"},
                          (char[]){"log.%d.txt"},
                          program,
                          NULL};
    char *const env[] = {NULL};
    struct result r, log;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(program, sizeof program, "%s/system", guest_dir);
    run_command(&r, argv, env, dir, NULL, 60);
    assert_int_equal(r.status, 0);
    check_stream("stdout", "next 4\n", r.out[0]);
    check_stream("stderr", "", r.out[1]);
    snprintf(path, sizeof path, "cat %s/log.*.txt && rm -r %s", dir, dir);
    char *const shell[] = {(char[]){"/bin/sh"}, (char[]){"-c"}, path, NULL};
    run_command(&log, shell, env, "/", NULL, 60);
    check_stream("log", "clock_gettime(", log.out[0]);
    check_stream("cat's stderr", "", log.out[1]);
    free_result(&r);
    free_result(&log);
}

/* A program that closes every descriptor, at once and one by one, does not close the log. */
static void test_kept_log(void **state)
{
    char log[] = "/tmp/emu-log-XXXXXX", command[MAX_PATH];
    char *const argv[] = {emu_path,
                          (char[]){"-strace"},
                          (char[]){"-D"},
                          log,
                          (char[]){"/usr/bin/perl"},
                          (char[]){"-e"},
                          (char[]){"syscall 436, 3, 0xffffffff, 0; syscall 3, $_ for 3 .. 2000; "
                                   "syscall 33, 0, $_ for 990 .. 1010; print \"end\\n\""},
                          NULL};
    char *const env[] = {NULL};
    struct result r;

    (void)state;
    close(mkstemp(log));
    run_command(&r, argv, env, "/", NULL, 60);
    check_stream("stdout", "end\n", r.out[0]);
    free_result(&r);
    snprintf(command, sizeof command, "grep -q ' exit_group(0) = ?' %s && rm %s", log, log);
    assert_int_equal(system(command), 0);
}

/* What changes credentials is the kernel's; a line says so. The log is one for all programs. */
static void test_followed(void **state)
{
    char dir[] = "/tmp/emu-options-XXXXXX", command[3 * MAX_PATH];
    char *const argv[] = {emu_path,
                          (char[]){"-follow-exec"},
                          (char[]){"-d"},
                          (char[]){"strace"},
                          (char[]){"-D"},
                          (char[]){"log"},
                          (char[]){"/bin/sh"},
                          (char[]){"-c"},
                          command,
                          NULL};
    char *const env[] = {(char[]){"PATH=/usr/bin:/bin"}, NULL};
    struct result r;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(command, sizeof command,
             "cp %s/hello set-id; chmod 4755 set-id; ./set-id; cd /; rm %s/set-id", guest_dir, dir);
    run_command(&r, argv, env, dir, NULL, 60);
    check_stream("stdout", "hello", r.out[0]);
    check_stream("stderr", "emu: ./set-id: runs natively: it changes user", r.out[1]);
    free_result(&r);
    snprintf(command, sizeof command, "grep -q 'unlink.*set-id' %s/log && rm %s/log && rmdir %s",
             dir, dir, dir);
    assert_int_equal(system(command), 0);
}

/* The log of translated blocks says how many they are, of how many instructions and bytes. The one
 * that does not fit any more is logged again behind the flush. */
static void test_stats(void **state)
{
    static const char count[] =
        "%s -d in_asm,stats%s %s/hello-static 2>&1 >/dev/null | awk '"
        "/^IN:/ { blocks++ } /^0x.*:  / { for (i = 2; $i ~ /^[0-9a-f][0-9a-f]$/; i++) bytes++ }"
        "/^0x.*:  .*  / { insns++ } /^blocks/ { said_blocks = $2 } /^instructions/ { said = $2 }"
        "/^guest bytes/ { said_bytes = $3 } /^flushes/ { flushes = $2 } /^CPU us/ { cpu = $3 }"
        "/^translation us/ { us = $3 } END { print blocks, insns, bytes, flushes, us, cpu;"
        "exit !(blocks > 100 && blocks == said_blocks + flushes && us > 0 && cpu > us &&"
        "(%d ? flushes > 0 : !flushes && insns == said && bytes == said_bytes)) }'";
    char command[sizeof count + 2 * MAX_PATH + 32];

    (void)state;
    snprintf(command, sizeof command, count, emu_path, "", guest_dir, 0);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof command, count, emu_path, " -tb-size 64K", guest_dir, 1);
    assert_int_equal(system(command), 0);
}

/* The log of translated blocks has the text that -disas has (check-disas-all), in other columns. */
static void test_in_asm(void **state)
{
    static const char compare[] =
        "cd %s && %s -disas hello-static > disas.text && %s -d in_asm hello-static 2>&1 >/dev/null "
        "|"
        "awk '{ text = \"\"; address = $1; sub(/^0x0*/, \"\", address) }"
        "/^0x/ { text = substr($0, 39) }"
        "/^ .*:  / { match($0, /:  ([0-9a-f][0-9a-f] )+ */); text = substr($0, RSTART + RLENGTH) }"
        "{ gsub(/ +/, \" \", text); sub(/ $/, \"\", text) }"
        "text == \"\" { next } /^ / { wanted[address] = text; next }"
        "{ n++; if (wanted[address] != text) { print; wrong++ } }"
        "END { exit wrong || n < 1000 }' disas.text -; status=$?; rm disas.text; exit $status";
    char command[sizeof compare + 3 * MAX_PATH];

    (void)state;
    snprintf(command, sizeof command, compare, guest_dir, emu_path, emu_path);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    struct CMUnitTest tests[ROWS + 5];

    locate_emu();
    for (size_t i = 0; i < ROWS; i++)
        tests[i] = (struct CMUnitTest){.name = rows[i].name,
                                       .test_func = test_row,
                                       .initial_state = (void *)(uintptr_t)&rows[i]};
    tests[ROWS] = (struct CMUnitTest){.name = "log file", .test_func = test_log_file};
    tests[ROWS + 1] = (struct CMUnitTest){.name = "followed", .test_func = test_followed};
    tests[ROWS + 2] = (struct CMUnitTest){.name = "kept log", .test_func = test_kept_log};
    tests[ROWS + 3] = (struct CMUnitTest){.name = "stats", .test_func = test_stats};
    tests[ROWS + 4] = (struct CMUnitTest){.name = "in_asm", .test_func = test_in_asm};
    return _cmocka_run_group_tests("options", tests, ROWS + 5, NULL, NULL);
}
