/* What /proc says of the program, under each name that leads there, and of its children. */
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char data = 'd';

/* ---- reading ---- */

static char *read_fd(int fd, size_t *size)
{
    static char text[1 << 20];
    ssize_t n;

    for (*size = 0; (n = read(fd, text + *size, sizeof text - 1 - *size)) > 0;)
        *size += (size_t)n;
    text[*size] = '\0';
    close(fd);
    return text;
}

static char *read_all(const char *path, size_t *size)
{
    return read_fd(open(path, O_RDONLY), size);
}

static void print_strings(const char *what, const char *path)
{
    size_t size;
    char *text = read_all(path, &size);

    printf("%s", what);
    for (size_t at = 0; at < size && at < 200; at += strlen(text + at) + 1)
        printf(" [%s]", strrchr(text + at, '/') ? strrchr(text + at, '/') : text + at);
    printf("\n");
}

/* ---- exe ---- */

static void print_exe(const char *what, int dir, const char *path)
{
    char exe[PATH_MAX];
    ssize_t n = readlinkat(dir, path, exe, sizeof exe - 1);
    int fd = openat(dir, path, O_RDONLY);
    char magic[4] = "";

    exe[n > 0 ? n : 0] = 0;
    printf("%s %s, opened %d", what, strrchr(exe, '/'), (int)read(fd, magic, 4));
    printf(", cut to %d\n", (int)readlinkat(dir, path, exe, 5));
    close(fd);
}

static void exe(void)
{
    char path[64];
    int proc = open("/proc", O_PATH), self = open("/proc/self", O_RDONLY);

    print_exe("self", AT_FDCWD, "/proc/self/exe");
    print_exe("thread", AT_FDCWD, "/proc/thread-self/exe");
    print_exe("slashes", AT_FDCWD, "//proc/./self/../self//exe");
    print_exe("below proc", proc, "self/exe");
    print_exe("below self", self, "exe");
    snprintf(path, sizeof path, "%d/task/%d/exe", getpid(), getpid());
    print_exe("by number", proc, path);
    if (chdir("/proc/self") == 0)
        print_exe("from there", AT_FDCWD, "exe");
    if (chdir("/") == 0)
        print_exe("relative", AT_FDCWD, "proc/self/exe");
    print_exe("none", AT_FDCWD, "/proc/self/task/1/exe");
    close(proc), close(self);
}

/* ---- maps ---- */

/* The line of text whose range holds addr. */
static const char *find_line(const char *text, uintptr_t addr)
{
    static char line[PATH_MAX];

    for (const char *p = text; *p; p += strlen(line) + 1) {
        unsigned long start, end;

        snprintf(line, sizeof line, "%.*s", (int)strcspn(p, "\n"), p);
        if (sscanf(line, "%lx-%lx", &start, &end) == 2 && start <= addr && addr < end)
            return line;
    }
    return "none";
}

static void print_mapping(const char *text, const char *what, uintptr_t addr)
{
    const char *line = find_line(text, addr), *name = strpbrk(line, "/[");
    char prot[8] = "";

    sscanf(line, "%*s %7s", prot);
    if (name && *name == '/')
        name = strrchr(name, '/');
    printf("  %s %s %s\n", what, prot, name ? name : "");
}

static void maps(const char *path)
{
    size_t size;
    char *text = read_all(path, &size), local;

    printf("%s\n", path + (strncmp(path, "/proc/self", 10) ? strlen(path) : 0));
    print_mapping(text, "code", (uintptr_t)maps);
    print_mapping(text, "data", (uintptr_t)&data);
    print_mapping(text, "stack", (uintptr_t)&local);
    print_mapping(text, "heap", (uintptr_t)sbrk(0) - 1);
    print_mapping(text, "libc", (uintptr_t)getauxval(AT_BASE));
    print_mapping(text, "vdso", (uintptr_t)getauxval(AT_SYSINFO_EHDR));
    printf("  vsyscall %d\n", strstr(text, "[vsyscall]") != NULL);
}

static void all_maps(void)
{
    char path[64];
    int self = open("/proc/self", O_PATH);
    size_t size;

    maps("/proc/self/maps");
    maps("/proc/self/smaps");
    maps("/proc/thread-self/maps");
    snprintf(path, sizeof path, "/proc/%d/task/%d/maps", getpid(), getpid());
    maps(path);
    char *text = read_fd(openat(self, "maps", O_RDONLY), &size);
    print_mapping(text, "by descriptor", (uintptr_t)maps);
    close(self);
}

/* ---- numbers ---- */

static unsigned long stat_field(const char *path, int field)
{
    size_t size;
    char *p = strrchr(read_all(path, &size), ')') + 2;

    for (int i = 3; i < field; i++)
        p = strchr(p, ' ') + 1;
    return strtoul(p, NULL, 10);
}

static void numbers(char **argv)
{
    const char *stat = "/proc/self/stat";
    uintptr_t code = (uintptr_t)numbers, word = (uintptr_t)&data;
    size_t size;

    printf("stat: parent %d", (int)stat_field(stat, 4) == getppid());
    printf(" code %d", stat_field(stat, 26) <= code && code < stat_field(stat, 27));
    printf(" stack %d", stat_field(stat, 28) < (uintptr_t)argv);
    printf(" data %d", stat_field(stat, 45) <= word && word < stat_field(stat, 46));
    printf(" heap %d", stat_field(stat, 47) <= (uintptr_t)sbrk(0));
    printf(" arguments %d", stat_field(stat, 48) == (uintptr_t)argv[0]);
    printf(" threads %lu\n", stat_field("/proc/thread-self/stat", 20));
    uint64_t *aux = (uint64_t *)read_all("/proc/self/auxv", &size);
    printf("auxv %d\n",
           size > 200 && aux[0] == AT_SYSINFO_EHDR && aux[1] == getauxval(AT_SYSINFO_EHDR));
}

/* ---- titles ---- */

static void titles(char **argv)
{
    static char elsewhere[] = "new\0title";

    print_strings("cmdline", "/proc/self/cmdline");
    print_strings("environ", "/proc/self/environ");
    argv[1][0] = 'X';
    print_strings("cmdline", "/proc/self/cmdline");
    printf("moved %d", prctl(PR_SET_MM, PR_SET_MM_ARG_START, elsewhere, 0, 0));
    printf(" %d", prctl(PR_SET_MM, PR_SET_MM_ARG_END, elsewhere + sizeof elsewhere, 0, 0));
    print_strings("", "/proc/self/cmdline");
}

/* ---- others ---- */

static void *wait_forever(void *arg)
{
    prctl(PR_SET_NAME, "waiting");
    pthread_barrier_wait(arg);
    pause();
    return NULL;
}

static void threads(void)
{
    pthread_barrier_t barrier;
    pthread_t t;
    char command[128];

    pthread_barrier_init(&barrier, NULL, 4);
    for (int i = 0; i < 3; i++)
        pthread_create(&t, NULL, wait_forever, &barrier);
    pthread_barrier_wait(&barrier);
    snprintf(command, sizeof command, "cat /proc/%d/task/*/comm | sort", getpid());
    fflush(stdout);
    printf("threads, from outside: %d\n", system(command));
}

static int leads_to(const char *path, const char *end)
{
    char exe[PATH_MAX];
    ssize_t n = readlink(path, exe, sizeof exe);
    size_t len = strlen(end);

    return n > (ssize_t)len && !memcmp(exe + n - len, end, len);
}

static void children(char **argv)
{
    char path[64];
    int fds[2], status;

    fflush(stdout);
    if (pipe(fds))
        return;
    pid_t pid = fork();
    if (!pid) {
        close(fds[1]);
        _exit((int)read(fds[0], path, 1));
    }
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    print_exe("child", AT_FDCWD, path);
    snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
    print_strings("child", path);
    close(fds[1]);
    waitpid(pid, &status, 0);
    if (pipe(fds))
        return;
    pid = fork();
    if (!pid) {
        close(fds[1]);
        dup2(fds[0], 0);
        execlp("cat", argv[0], "-", (char *)NULL);
    }
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    for (int i = 0; i < 5000 && !leads_to(path, "/cat"); i++)
        usleep(1000);
    print_exe("cat", AT_FDCWD, path);
    close(fds[1]);
    waitpid(pid, &status, 0);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 1;
    exe();
    all_maps();
    numbers(argv);
    titles(argv);
    children(argv);
    threads();
    return 0;
}
