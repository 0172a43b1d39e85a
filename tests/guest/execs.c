/* Every way to execute a program, and what the program then is: arguments, names, descriptors,
 * signals; and what cannot be executed. Works in a directory of its own. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static char self[PATH_MAX];

/* ---- what a program is ---- */

static void print_file(const char *path)
{
    char text[4096];
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, text, sizeof text);

    for (ssize_t i = 0; i < n; i++)
        putchar(text[i] ? text[i] : '|');
    printf("%s", n > 0 && text[n - 1] == '\n' ? "" : "\n");
    close(fd);
}

static const char *base(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static void print_names(int argc, char **argv, const char *what)
{
    char exe[PATH_MAX], path[64];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);

    exe[n > 0 ? n : 0] = 0;
    printf("  exe %s, opens: %d\n", base(exe), access("/proc/self/exe", F_OK));
    for (int i = 0; i < argc; i++)
        printf("  argv[%d] %s\n", i, base(argv[i]));
    if (strchr(what, 'f'))
        printf("  AT_EXECFN %s\n", base((char *)getauxval(AT_EXECFN)));
    if (strchr(what, 'c'))
        print_file("/proc/self/comm");
    if (strchr(what, 'l'))
        print_file("/proc/self/cmdline");
    snprintf(path, sizeof path, "/proc/%d/environ", getpid());
    if (strchr(what, 'e'))
        print_file(path);
}

static void print_state(void)
{
    struct sigaction act;
    sigset_t mask, pending;
    int open_fds = 0;

    sigprocmask(SIG_BLOCK, NULL, &mask);
    sigpending(&pending);
    printf("  blocked");
    for (int sig = 1; sig < 65; sig++)
        if (sigismember(&mask, sig))
            printf(" %d%s", sig, sigismember(&pending, sig) ? " pending" : "");
    printf("; ignored");
    for (int sig = 1; sig < 65; sig++)
        if (sigaction(sig, NULL, &act) == 0 && act.sa_handler == SIG_IGN)
            printf(" %d", sig);
    for (int fd = 0; fd < 200; fd++)
        open_fds += fcntl(fd, F_GETFD) >= 0;
    printf("; descriptors %d, next %d\n", open_fds, open("/dev/null", O_RDONLY));
}

/* ---- children ---- */

static void finish(const char *what, pid_t pid)
{
    int status = 0;

    waitpid(pid, &status, 0);
    printf("%s: status %x\n", what, status);
    fflush(stdout);
}

/* Runs CALL in a child; what comes back is the error. */
#define IN_CHILD(what, call)                                                                       \
    do {                                                                                           \
        fflush(stdout);                                                                            \
        pid_t pid = fork();                                                                        \
        if (!pid) {                                                                                \
            call;                                                                                  \
            printf("  %s\n", strerror(errno));                                                     \
            fflush(stdout);                                                                        \
            _exit(1);                                                                              \
        }                                                                                          \
        finish(what, pid);                                                                         \
    } while (0)

static int execveat_(int dir, const char *path, char **argv, int flags)
{
    return (int)syscall(SYS_execveat, dir, path, argv, environ, flags);
}

static void write_script(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    fputs(text, f);
    fchmod(fileno(f), 0755);
    fclose(f);
}

/* ---- ways ---- */

static void by_path(void)
{
    char *args[] = {"named otherwise", "show", "fcl", "", "last one", NULL};
    char *env[] = {"A=1", "LD_BIND_NOW=1", "B=", "B=2", NULL}, *few[] = {"x", "show", "e", NULL};
    char *none[] = {NULL};

    IN_CHILD("path", execv(self, args));
    IN_CHILD("relative", execv("./a-link", args));
    IN_CHILD("environment", execve(self, few, env));
    IN_CHILD("no environment", execve(self, few, none));
    IN_CHILD("null environment", execve(self, few, NULL));
    IN_CHILD("own", execv("/proc/self/exe", (char *[]){"again", "show", "l", NULL}));
    IN_CHILD("no arguments", execve("./no-arguments", none, environ));
    fflush(stdout);
    pid_t pid = vfork();
    if (!pid) {
        execv(self, args);
        _exit(1);
    }
    finish("vfork", pid);
}

static void by_script(void)
{
    char text[PATH_MAX + 64];
    char *args[] = {"dropped", "one", "two", NULL};

    snprintf(text, sizeof text, "#! %s \t show \n", self);
    write_script("script", text);
    IN_CHILD("script", execv("./script", args));
    write_script("script2", "#!./script  more\n");
    IN_CHILD("script of a script", execv("./script2", args));
    snprintf(text, sizeof text, "#!%s", self);
    write_script("bare", text);
    IN_CHILD("bare script", execv("./bare", (char *[]){"x", "second", NULL}));
}

static void by_descriptor(void)
{
    char *args[] = {"by descriptor", "show", "fl", NULL};
    int dir = open(".", O_RDONLY | O_DIRECTORY);
    int fd = open(self, O_RDONLY), closing = open(self, O_RDONLY | O_CLOEXEC);
    int path_only = open(self, O_PATH | O_CLOEXEC), script = open("script", O_RDONLY);
    int closing_script = open("script", O_RDONLY | O_CLOEXEC);

    IN_CHILD("directory", execveat_(dir, "a-link", args, 0));
    IN_CHILD("no link", execveat_(dir, "a-link", args, AT_SYMLINK_NOFOLLOW));
    IN_CHILD("absolute", execveat_(dir, self, args, 0));
    IN_CHILD("descriptor", execveat_(fd, "", args, AT_EMPTY_PATH));
    IN_CHILD("closing", execveat_(closing, "", args, AT_EMPTY_PATH));
    IN_CHILD("path only", execveat_(path_only, "", args, AT_EMPTY_PATH));
    IN_CHILD("no flag", execveat_(fd, "", args, 0));
    IN_CHILD("bad descriptor", execveat_(99, "", args, AT_EMPTY_PATH));
    IN_CHILD("bad flag", execveat_(fd, "", args, 1));
    IN_CHILD("script", execveat_(script, "", (char *[]){"x", NULL}, AT_EMPTY_PATH));
    IN_CHILD("closing script", execveat_(closing_script, "", args, AT_EMPTY_PATH));
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", closing);
    IN_CHILD("magic link", execv(path, (char *[]){"m", "show", "l", NULL}));
    close(dir), close(fd), close(closing), close(path_only), close(script), close(closing_script);
}

static int copy_self(int to)
{
    static char buffer[1 << 20];
    int from = open(self, O_RDONLY);
    ssize_t n = read(from, buffer, sizeof buffer);

    close(from);
    return write(to, buffer, (size_t)n) == n;
}

/* Files without a name: in memory, and removed. Both execute themselves once more. */
static void by_no_name(void)
{
    char *args[] = {"nameless", "again", "show", "l", NULL};
    int fd = memfd_create("memory", MFD_CLOEXEC);

    copy_self(fd);
    IN_CHILD("memory", fexecve(fd, args, environ));
    close(fd);
    fd = open("removed", O_RDWR | O_CREAT, 0755);
    copy_self(fd);
    close(fd);
    IN_CHILD("removed", (unlink("removed"), execv("./removed", args)));
    fd = open("removed", O_RDWR | O_CREAT, 0755);
    copy_self(fd);
    close(fd);
    fd = open("removed", O_RDONLY);
    unlink("removed");
    IN_CHILD("removed", fexecve(fd, args, environ));
    close(fd);
}

/* ---- what goes over ---- */

static void handler(int sig)
{
    (void)sig;
}

static void keep_state(void)
{
    sigset_t some;

    signal(SIGUSR1, SIG_IGN);
    signal(SIGSEGV, SIG_IGN);
    signal(SIGUSR2, handler);
    signal(SIGFPE, handler);
    sigemptyset(&some);
    sigaddset(&some, SIGTERM);
    sigaddset(&some, SIGRTMIN + 3);
    sigaddset(&some, SIGBUS);
    sigprocmask(SIG_BLOCK, &some, NULL);
    raise(SIGTERM);
    raise(SIGRTMIN + 3);
    open("/dev/null", O_RDONLY);
    open("/dev/null", O_RDONLY | O_CLOEXEC);
    open("/dev/null", O_RDONLY);
}

static void state(void)
{
    IN_CHILD("state", (keep_state(), execv(self, (char *[]){"x", "state", NULL})));
}

/* ---- errors ---- */

static void try(const char *path, char **argv)
{
    IN_CHILD(path > (char *)8 ? path : "bad address", execv(path, argv));
}

static void write_damaged(const char *path, size_t size, size_t at, int byte)
{
    char bytes[4096];
    int from = open(self, O_RDONLY), to = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0755);
    ssize_t n = read(from, bytes, size);

    bytes[at] = (char)byte;
    if (write(to, bytes, (size_t)n) != n)
        perror(path);
    close(from), close(to);
}

static void errors(void)
{
    static char long_argument[200000];
    char *args[] = {"x", NULL}, *huge[] = {"x", long_argument, NULL};

    memset(long_argument, 'a', sizeof long_argument - 1);
    try("./missing", args);
    try("", args);
    try(".", args);
    try("/dev/null", args);
    try("./script/x", args);
    write_script("text", "echo text\n");
    try("./text", args);
    write_script("empty", "");
    try("./empty", args);
    write_script("no-interpreter", "#!./missing\n");
    try("./no-interpreter", args);
    write_script("no-name", "#!\n");
    try("./no-name", args);
    write_script("loop", "#!./loop\n");
    try("./loop", args);
    chmod("text", 0644);
    try("./text", args);
    write_damaged("short", 40, 0, 0x7f);
    try("./short", args);
    write_damaged("machine", 4096, 18, 3);
    try("./machine", args);
    write_damaged("class", 4096, 4, 9);
    try("./class", args);
    write_damaged("linker", 4096, 0x318, '!'); /* where the interpreter's name usually is */
    try("./linker", args);
    try("./a-link", huge);
    try((char *)8, args);
    try("./a-link", (char **)8);
    int busy = open("busy", O_WRONLY | O_CREAT, 0755);
    copy_self(busy);
    try("./busy", args);
    close(busy);
}

/* ---- signals on the way ---- */

#define ROUNDS 150

static int told;

static void tell(int sig)
{
    (void)sig;
    if (write(told, "h", 1) < 0)
        _exit(9);
}

/* Executes itself; the program then waits for the end of its input, and ends with the number of
 * signals that it blocks. */
static void exec_waiting(int in, int out)
{
    struct sigaction act = {.sa_handler = tell};

    told = out;
    dup2(in, 0);
    fcntl(out, F_SETFD, FD_CLOEXEC);
    sigaction(SIGUSR1, &act, NULL);
    if (write(out, "r", 1) == 1)
        execl(self, self, "wait", (char *)NULL);
    _exit(8);
}

static int wait_for_end(void)
{
    sigset_t blocked;
    int n = 0;
    char c;

    sigprocmask(SIG_BLOCK, NULL, &blocked);
    for (int sig = 1; sig < 64; sig++)
        n += sigismember(&blocked, sig) == 1;
    while (read(0, &c, 1) > 0)
        ;
    return n;
}

/* A signal is sent to a process that executes: the handler of the old program gets it, or the new
 * one dies of it. True if it was lost. */
static int signal_executing(int delay)
{
    int in[2], out[2], status, handled = 0;
    char c;

    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
        return 1;
    pid_t pid = fork();
    if (!pid)
        exec_waiting(in[0], out[1]);
    close(in[0]);
    close(out[1]);
    while (read(out[0], &c, 1) == 1 && c != 'r')
        ;
    for (volatile int i = 0; i < delay; i++)
        ;
    kill(pid, SIGUSR1);
    while (read(out[0], &c, 1) == 1)
        handled += c == 'h';
    close(in[1]);
    close(out[0]);
    waitpid(pid, &status, 0);
    int died = WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1;
    return handled + died != 1 || (!died && status);
}

static void signal_all(void)
{
    int lost = 0;

    for (int i = 0; i < ROUNDS; i++)
        lost += signal_executing(i * 2000);
    printf("lost on the way: %d\n", lost);
}

static void work(void)
{
    char dir[] = "/tmp/execs-XXXXXX", command[64];

    if (!realpath("/proc/self/exe", self) || !mkdtemp(dir) || chdir(dir) ||
        symlink(self, "a-link") || symlink(self, "no-arguments"))
        return;
    by_path();
    by_script();
    by_descriptor();
    by_no_name();
    state();
    errors();
    signal_all();
    snprintf(command, sizeof command, "rm -r %s", dir);
    printf("removed %d\n", system(command));
}

int main(int argc, char **argv)
{
    if (argc == 0 || !strcmp(base(argv[0]), "no-arguments") || !*argv[0])
        print_names(argc, argv, "c");
    else if (argc == 1)
        work();
    else if (!strcmp(argv[1], "state"))
        print_state();
    else if (!strcmp(argv[1], "wait"))
        return wait_for_end();
    else if (!strcmp(argv[1], "again"))
        return execv("/proc/self/exe", argv + 1);
    else
        print_names(argc, argv, argc > 2 ? argv[2] : "");
    return 3;
}
