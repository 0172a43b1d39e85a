/* emu.c: options, messages and main.
 *
 * May know the order in which the other parts start. Must not know how any of them works, nor
 * anything about the guest's instruction set. */
#include "emu.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define DEFAULT_TB_SIZE (64ull << 20)
#define MIN_TB_SIZE     (64ull << 10)
#define MAX_TB_SIZE     (LOW_CACHE_END - LOW_CACHE)

struct options opt = {.tb_size = DEFAULT_TB_SIZE, .program_fd = -1};

static const char *log_file; /* -D; NULL: stderr */
static int log_fd = STDERR_FILENO;

static const char *disas_path; /* -disas; NULL: run a program */
static enum disas_syntax disas_form = DISAS_ATT;

/* Variables of the guest that emu itself must not have. */
static const char **guest_variables;
static size_t n_guest_variables;

/* ---- messages ---- */

/* One write for the whole line, so that lines of several processes do not mix. */
static void print_message(const char *fmt, va_list ap)
{
    char line[PIPE_BUF];
    size_t len = (size_t)snprintf(line, sizeof line, "emu: ");

    vsnprintf(line + len, sizeof line - len - 1, fmt, ap);
    len = strlen(line);
    line[len++] = '\n';
    if (write(STDERR_FILENO, line, len) < 0)
        return; /* nobody is left to tell */
}

void die(const char *fmt, ...)
{
    jit_need_libc();
    va_list ap;

    va_start(ap, fmt);
    print_message(fmt, ap);
    va_end(ap);
    exit(EXIT_FAILURE);
}

void warn(const char *fmt, ...)
{
    jit_need_libc();
    va_list ap;

    va_start(ap, fmt);
    print_message(fmt, ap);
    va_end(ap);
}

void log_text(const char *text, size_t len)
{
    while (len) {
        ssize_t n = write(log_fd, text, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* nobody is left to tell */
        text += n;
        len -= (size_t)n;
    }
}

void log_printf(const char *fmt, ...)
{
    char *text;
    va_list ap;

    va_start(ap, fmt);
    int len = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (len < 0)
        return;
    log_text(text, (size_t)len);
    free(text);
}

/* ---- the log ---- */

struct log_name {
    const char *name;
    unsigned bit; /* enum log_item; 0: a QEMU item that has no meaning here, accepted silently */
    const char *help;
};

/* clang-format off */
static const struct log_name log_names[] = {
    {"in_asm",  LOG_IN_ASM,  "show guest code of each translated block"},
    {"nochain", LOG_NOCHAIN, "do not link translated blocks to each other"},
    {"page",    LOG_PAGE,    "show guest mappings at start"},
    {"plugin",  LOG_PLUGIN,  "show what plugins print"},
    {"stats",   LOG_STATS,   "show at the end how much was translated and looked up"},
    {"strace",  LOG_STRACE,  "show every system call with its result"},
    {"out_asm", 0, NULL}, {"op", 0, NULL}, {"op_opt", 0, NULL}, {"op_ind", 0, NULL},
    {"op_plugin", 0, NULL}, {"int", 0, NULL}, {"exec", 0, NULL}, {"cpu", 0, NULL},
    {"fpu", 0, NULL}, {"mmu", 0, NULL}, {"pcall", 0, NULL}, {"cpu_reset", 0, NULL},
    {"unimp", 0, NULL}, {"guest_errors", 0, NULL}, {"tid", 0, NULL}, {"vpu", 0, NULL},
    {"invalid_mem", 0, NULL},
};
/* clang-format on */
#define LOG_NAMES (sizeof log_names / sizeof log_names[0])

static void print_log_items(FILE *out)
{
    fprintf(out, "Log items (comma separated):\n");
    for (size_t i = 0; i < LOG_NAMES; i++)
        if (log_names[i].help)
            fprintf(out, "%-15s %s\n", log_names[i].name, log_names[i].help);
    fprintf(out, "%-15s all of them\n", "all");
}

static bool add_log_item(const char *item)
{
    bool all = !strcmp(item, "all");
    bool known = all || !strncmp(item, "trace:", 6);

    for (size_t i = 0; i < LOG_NAMES; i++)
        if (all || !strcmp(item, log_names[i].name)) {
            opt.log |= log_names[i].bit;
            known = true;
        }
    return known;
}

/* Descriptors of emu's own that stay open while the guest runs, in order: log and program. */
static int own_fds[2];
static int n_own_fds;

int move_fd_high(int fd)
{
    struct rlimit limit;
    int lowest = 1000;

    if (!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur < 1024)
        lowest = limit.rlim_cur > 16 ? (int)limit.rlim_cur - 8 : 3;
    int high = fcntl(fd, F_DUPFD_CLOEXEC, lowest);
    if (high >= 0)
        own_fds[n_own_fds++] = high;
    return high;
}

int next_own_fd(unsigned first)
{
    for (int i = 0; i < n_own_fds; i++)
        if ((unsigned)own_fds[i] >= first)
            return own_fds[i];
    return -1;
}

/* Puts the process id in the place of the one %d that a log file name may hold. */
static void expand_log_name(char *path, size_t size)
{
    const char *mark = strchr(log_file, '%');

    if (!mark)
        snprintf(path, size, "%s", log_file);
    else if (mark[1] != 'd' || strchr(mark + 1, '%'))
        die("bad log file name '%s': the only %% allowed is one %%d", log_file);
    else
        snprintf(path, size, "%.*s%d%s", (int)(mark - log_file), log_file, (int)getpid(), mark + 2);
}

static void open_log(void)
{
    char path[PATH_MAX];
    int fd = STDERR_FILENO;

    if (!opt.log)
        return;
    if (log_file) {
        expand_log_name(path, sizeof path);
        /* What programs before this one have logged there stays. */
        int fresh = opt.execs ? 0 : O_TRUNC;

        fd = open(path, O_WRONLY | O_CREAT | fresh | O_APPEND | O_CLOEXEC, 0666);
        if (fd < 0)
            die("cannot open log file '%s': %s", path, strerror(errno));
    }
    log_fd = move_fd_high(fd);
    if (log_fd < 0)
        log_fd = fd;
    else if (fd != STDERR_FILENO)
        close(fd);
}

/* ---- lists of words, NULL at the end ---- */

static void add_word(const char ***list, size_t *n, const char *word)
{
    *list = realloc(*list, (*n + 2) * sizeof **list);
    if (!*list)
        die("out of memory");
    (*list)[(*n)++] = word;
    (*list)[*n] = NULL;
}

/* ---- one handler per option ---- */

/* unit: what a number without a suffix counts. */
static size_t parse_size(const char *option, const char *arg, size_t unit)
{
    char *end;
    unsigned long long number = strtoull(arg, &end, 0);

    if (*end == 'k' || *end == 'K')
        unit = 1 << 10;
    else if (*end == 'm' || *end == 'M')
        unit = 1 << 20;
    if (end == arg || (*end && end[1]) || (*end && !strchr("kKmM", *end)) || strchr(arg, '-') ||
        number > SIZE_MAX / unit)
        die("bad size '%s' for option '%s'", arg, option);
    return (size_t)number * unit;
}

/* Calls apply for each element of a list separated by commas. */
static void for_each_element(const char *list, void (*apply)(char *))
{
    char *copy = strdup(list), *rest = copy, *element;

    if (!copy)
        die("out of memory");
    while ((element = strsep(&rest, ",")))
        apply(element);
    free(copy);
}

static void set_guest_variable(char *assignment)
{
    char *equals = strchr(assignment, '=');

    if (!equals || equals == assignment)
        die("option 'E' needs var=value, not '%s'", assignment);
    *equals = '\0';
    if (setenv(assignment, equals + 1, 1))
        die("cannot set '%s': %s", assignment, strerror(errno));
}

static void unset_guest_variable(char *name)
{
    if (unsetenv(name))
        die("option 'U' needs the name of a variable, not '%s'", name);
}

static void handle_log_item(char *item)
{
    if (!strcmp(item, "help")) {
        print_log_items(stdout);
        exit(EXIT_SUCCESS);
    }
    if (!add_log_item(item)) {
        warn("unknown log item '%s'", item);
        print_log_items(stderr);
        exit(EXIT_FAILURE);
    }
}

static void handle_arg_log(const char *arg)
{
    for_each_element(arg, handle_log_item);
}

static void handle_arg_log_filename(const char *arg)
{
    log_file = arg;
}

static void handle_arg_set_env(const char *arg)
{
    for_each_element(arg, set_guest_variable);
}

static void handle_arg_unset_env(const char *arg)
{
    for_each_element(arg, unset_guest_variable);
}

static void handle_arg_argv0(const char *arg)
{
    opt.argv0 = arg;
}

static void handle_arg_ld_prefix(const char *arg)
{
    opt.ld_prefix = arg;
}

static void handle_arg_stack_size(const char *arg)
{
    opt.stack_size = parse_size("s", arg, 1);
    if (!opt.stack_size)
        die("bad size '%s' for option 's'", arg);
}

static void handle_arg_one_insn_per_tb(const char *arg)
{
    (void)arg;
    opt.one_insn_per_tb = true;
}

static void handle_arg_tb_size(const char *arg)
{
    size_t size = parse_size("tb-size", arg, 1 << 20);

    if (size == 0)
        size = DEFAULT_TB_SIZE;
    if (size < MIN_TB_SIZE)
        die("bad size '%s' for option 'tb-size': at least 64K", arg);
    opt.tb_size = size < MAX_TB_SIZE ? size : MAX_TB_SIZE;
}

static void handle_arg_follow_exec(const char *arg)
{
    (void)arg;
    opt.follow_exec = true;
}

/* EXECS:FD:DIRECTORY, from the emu that this one follows (linux_exec.c). */
static void handle_arg_execed(const char *arg)
{
    int dir;

    if (sscanf(arg, "%u:%d:%n", &opt.execs, &opt.program_fd, &dir) != 2)
        die("option 'execed' is for emu itself");
    opt.start_dir = arg + dir;
    fcntl(opt.program_fd, F_SETFD, FD_CLOEXEC);
}

static void handle_arg_execed_variable(const char *arg)
{
    add_word(&guest_variables, &n_guest_variables, arg);
}

static void handle_arg_strace(const char *arg)
{
    (void)arg;
    opt.log |= LOG_STRACE;
}

static void handle_arg_cpu(const char *arg)
{
    if (strcmp(arg, "max") && strcmp(arg, "host"))
        die("CPU model '%s' is not supported: the guest sees the host's CPU", arg);
}

/* Guest addresses are host addresses: there is no base to choose and nothing to reserve. */
static void handle_arg_no_op(const char *arg)
{
    (void)arg;
}

static void handle_arg_gdb(const char *arg)
{
    (void)arg;
    die("option 'g' is not supported: there is no gdb stub");
}

static void handle_arg_disas(const char *arg)
{
    disas_path = arg;
}

static void handle_arg_syntax(const char *arg)
{
    if (!strcmp(arg, "att"))
        disas_form = DISAS_ATT;
    else if (!strcmp(arg, "intel"))
        disas_form = DISAS_INTEL;
    else
        die("unknown syntax '%s': att or intel", arg);
}

static void handle_arg_version(const char *arg)
{
    (void)arg;
    printf("emu version " EMU_VERSION "\n");
    exit(EXIT_SUCCESS);
}

static void handle_arg_help(const char *arg);

/* ---- the option table ---- */

struct option {
    const char *name;
    const char *env; /* behind EMU_ or QEMU_; NULL: none */
    void (*handle)(const char *arg);
    const char *arg;  /* what its argument is called; NULL: takes none */
    const char *help; /* NULL: not listed */
};

/* clang-format off */
static const struct option options[] = {
    {"h",        NULL,         handle_arg_help,       NULL,          "print this help"},
    {"help",     NULL,         handle_arg_help,       NULL,          NULL},
    {"L",        "LD_PREFIX",  handle_arg_ld_prefix,  "path",
     "look up the ELF interpreter and absolute paths below 'path' first"},
    {"s",        "STACK_SIZE", handle_arg_stack_size, "size[K|M]",
     "set the size of the main stack in bytes"},
    {"E",        "SET_ENV",    handle_arg_set_env,    "var=value[,...]",
     "set variables in the guest's environment"},
    {"U",        "UNSET_ENV",  handle_arg_unset_env,  "var[,...]",
     "remove variables from the guest's environment"},
    {"0",        "ARGV0",      handle_arg_argv0,      "argv0",       "set the guest's argv[0]"},
    {"d",        "LOG",        handle_arg_log,        "item[,...]",
     "log the given items ('-d help' lists them)"},
    {"D",        "LOG_FILENAME", handle_arg_log_filename, "logfile",
     "write the log to 'logfile' (%d in it: process id; default stderr)"},
    {"one-insn-per-tb", "ONE_INSN_PER_TB", handle_arg_one_insn_per_tb, NULL,
     "translate one instruction per block"},
    {"singlestep", "SINGLESTEP", handle_arg_one_insn_per_tb, NULL,  NULL},
    {"tb-size",  "TB_SIZE",    handle_arg_tb_size,    "size[K|M]",
     "set the size of the code cache in MiB"},
    {"strace",   "STRACE",     handle_arg_strace,     NULL,          "log system calls"},
    {"follow-exec", "FOLLOW_EXEC", handle_arg_follow_exec, NULL,
     "run programs started by execve under emu too"},
    {"execed",   NULL,         handle_arg_execed,     "state",       NULL},
    {"execed-variable", NULL,  handle_arg_execed_variable, "var=value", NULL},
    {"plugin",   "PLUGIN",     handle_arg_plugin,     "file[,name=value...]",
     "load a plugin (may be repeated)"},
    {"disas",    NULL,         handle_arg_disas,      "file",
     "list the code of 'file' [from START [to END]] and exit"},
    {"syntax",   NULL,         handle_arg_syntax,     "att|intel",   "syntax for -disas"},
    {"version",  "VERSION",    handle_arg_version,    NULL,          "print the version"},
    {"B",        "GUEST_BASE", handle_arg_no_op,      "address",
     "accepted without effect"},
    {"R",        "RESERVED_VA", handle_arg_no_op,     "size",
     "accepted without effect"},
    {"cpu",      NULL,         handle_arg_cpu,        "max|host",
     "accepted without effect"},
    {"g",        NULL,         handle_arg_gdb,        "port",        NULL},
};
/* clang-format on */
#define OPTIONS (sizeof options / sizeof options[0])

static void handle_arg_help(const char *arg)
{
    (void)arg;
    printf("usage: emu [options] program [arguments...]\n"
           "Runs x86_64 Linux programs under QEMU TCG plugins.\n\n"
           "%-31s %-20s %s\n",
           "Argument", "Env-variable", "Description");
    for (const struct option *o = options; o < options + OPTIONS; o++) {
        char usage[48], variable[24] = "";

        if (!o->help)
            continue;
        snprintf(usage, sizeof usage, "-%s %s", o->name, o->arg ? o->arg : "");
        if (o->env)
            snprintf(variable, sizeof variable, "EMU_%s", o->env);
        printf("%-31s %-20s %s\n", usage, variable, o->help);
    }
    printf("\nOptions may start with - or --; -- ends them. Every variable may also be spelt\n"
           "QEMU_...; if both are set, EMU_... holds. Arguments win over variables.\n");
    exit(EXIT_SUCCESS);
}

static const struct option *find_option(const char *name)
{
    for (const struct option *o = options; o < options + OPTIONS; o++)
        if (!strcmp(name, o->name))
            return o;
    die("unknown option '%s'", name);
}

/* Options that programs which are followed must not get again: they inherit what these did. */
static bool is_for_one_program(const struct option *o)
{
    static void (*const handlers[])(const char *) = {handle_arg_set_env, handle_arg_unset_env,
                                                     handle_arg_argv0, handle_arg_execed,
                                                     handle_arg_execed_variable};

    for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++)
        if (o->handle == handlers[i])
            return true;
    return false;
}

static void take_option(const struct option *o, const char *value)
{
    o->handle(value);
    if (is_for_one_program(o))
        return;
    char *word = malloc(strlen(o->name) + 2);
    if (!word)
        die("out of memory");
    sprintf(word, "-%s", o->name);
    add_word(&opt.words, &opt.n_words, word);
    if (o->arg)
        add_word(&opt.words, &opt.n_words, value);
}

static void read_option_variables(void)
{
    static const char *const prefixes[] = {"EMU_", "QEMU_"};

    for (const struct option *o = options; o < options + OPTIONS; o++) {
        const char *value = NULL;

        for (size_t i = 0; i < 2 && o->env && !value; i++) {
            char name[64];

            snprintf(name, sizeof name, "%s%s", prefixes[i], o->env);
            value = getenv(name);
        }
        if (value)
            take_option(o, value);
    }
}

/* Returns the index of the first word that is not an option. */
static int parse_options(int argc, char **argv)
{
    int i = 1;

    while (i < argc && argv[i][0] == '-') {
        const char *name = argv[i++] + 1;

        if (!strcmp(name, "-"))
            break;
        const struct option *o = find_option(name[0] == '-' ? name + 1 : name);
        if (o->arg && i == argc)
            die("missing argument for option '%s'", o->name);
        take_option(o, o->arg ? argv[i++] : NULL);
    }
    return i;
}

/* ---- main ---- */

/* A bare name that is no file here is looked up in PATH; otherwise the name as given. */
static const char *find_program(const char *name)
{
    static char path[PATH_MAX];
    const char *dir = getenv("PATH");

    if (strchr(name, '/') || !dir || !access(name, F_OK))
        return name;
    while (*dir) {
        size_t len = strcspn(dir, ":");

        snprintf(path, sizeof path, "%.*s/%s", (int)len, dir, name);
        if (len && !access(path, X_OK))
            return path;
        dir += len + (dir[len] == ':');
    }
    return name;
}

static int list_code(int argc, char **argv)
{
    if (argc > 2)
        die("option 'disas' takes at most START and END");
    return disas_file(disas_path, argc > 0 ? argv[0] : NULL, argc > 1 ? argv[1] : NULL, disas_form);
}

bool is_own_variable(const char *assignment)
{
    static const char *const prefixes[] = {"LD_", "GLIBC_TUNABLES=", "MALLOC_", "EMU_PLUGIN_PATH="};

    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (!strncmp(assignment, prefixes[i], strlen(prefixes[i])))
            return true;
    return false;
}

/* The guest's environment. Behind an execve emu has its own variables again, and the guest those
 * it gave, each in its place. */
static char **make_environment(void)
{
    const char **guest = NULL;
    size_t n = 0, n_held = 0;

    for (char **variable = environ; *variable; variable++) {
        bool own = is_own_variable(*variable);

        if (own)
            add_word(&opt.variables, &opt.n_variables, *variable);
        if (!strcmp(*variable, HELD_VARIABLE) && n_held < n_guest_variables)
            add_word(&guest, &n, guest_variables[n_held++]);
        else if (!own || !opt.execs)
            add_word(&guest, &n, *variable);
    }
    add_word(&guest, &n, NULL);
    return (char **)guest;
}

/* Relative names in options mean the directory in which the first emu started. */
static void use_files(void)
{
    int here = opt.execs ? open(".", O_PATH | O_CLOEXEC) : -1;

    if (here >= 0 && chdir(opt.start_dir) < 0)
        warn("cannot go to '%s' for the files that options name: %s", opt.start_dir,
             strerror(errno));
    open_log();
    qemu_plugin_load_list();
    if (here >= 0 && fchdir(here) < 0)
        die("cannot go back to the program's directory: %s", strerror(errno));
    if (here >= 0)
        close(here);
}

/* What plugins can know of it. */
static void set_plugin_variable(void)
{
    char execs[16];

    snprintf(execs, sizeof execs, "%u", opt.execs);
    setenv("EMU_EXECS", execs, 1);
}

static _Noreturn void run_program(char **argv)
{
    const char *file = find_program(argv[0]);
    char **envp = make_environment();

    if (!opt.start_dir)
        opt.start_dir = getcwd(NULL, 0);
    set_plugin_variable();
    use_files();
    if (signal_has_tracer())
        jit_stop_faults();
    tb_init();

    struct cpu *cpu = cpu_create();
    signal_init(); /* handlers find the cpu by %gs */
    elf_load(file, argv, envp);
    guest_set_start(cpu, image.entry_code, image.sp);
    cpu_loop(cpu);
}

/* Behind an execve the words say everything; variables are the guest's. */
static bool is_execed(char **argv)
{
    return argv[0] && argv[1] && !strcmp(argv[1], "-execed");
}

int main(int argc, char **argv)
{
    if (!is_execed(argv))
        read_option_variables();
    int first = parse_options(argc, argv);

    if (disas_path)
        return list_code(argc - first, argv + first);
    if (first >= argc)
        die("no user program specified");
    run_program(argv + first);
}
