/* linux_exec.c: execve and execveat: the next program, run by the kernel or, with -follow-exec, by
 * another emu with the same options.
 *
 * What emu cannot run goes to the kernel as it is, which runs it or says what is wrong with it. */
#include "emu.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EMPTY_PATH   0x1000  /* AT_EMPTY_PATH */
#define EXECVE_CHECK 0x10000 /* AT_EXECVE_CHECK: do not execute, say whether it could be */
#define HIGH_FD      1000    /* where guests do not look */
#define OWN_WORDS    8       /* besides options and variables */

/* An execveat; execve is one with AT_FDCWD and no flags, but tracers tell them apart. */
struct exec_call {
    int nr, dirfd, flags;
    const char *path; /* as the guest gave it */
    const char *file; /* the same, or what opens /proc/self/exe */
    uint64_t argv, envp;
};

/* ---- by the kernel ---- */

static void list_arguments(const struct exec_call *call, uint64_t arg[6])
{
    const uint64_t file = (uint64_t)call->file;
    const uint64_t execve[6] = {file, call->argv, call->envp};
    const uint64_t execveat[6] = {(uint64_t)call->dirfd, file, call->argv, call->envp,
                                  (uint64_t)call->flags};

    memcpy(arg, call->nr == SYS_execve ? execve : execveat, sizeof execve);
}

static int64_t call_kernel(struct cpu *cpu, const struct exec_call *call)
{
    uint64_t arg[6];

    list_arguments(call, arg);
    return signal_exec(cpu, call->nr, arg);
}

static int64_t check_call(const struct exec_call *call)
{
    struct exec_call check = *call;
    uint64_t arg[6];

    check.nr = SYS_execveat;
    check.flags |= EXECVE_CHECK;
    list_arguments(&check, arg);
    return host_syscall(check.nr, arg);
}

/* True if the call is likely to succeed: after that there is no way back to report anything.
 * Kernels before 6.14 know no EXECVE_CHECK. */
static bool looks_executable(const struct exec_call *call)
{
    int64_t ret = check_call(call);
    struct stat st;

    if (ret != -EINVAL)
        return ret == 0;
    if (call->flags & EMPTY_PATH && !*call->file)
        return fstat(call->dirfd, &st) == 0 && S_ISREG(st.st_mode);
    return fstatat(call->dirfd, call->file, &st, 0) == 0 && S_ISREG(st.st_mode) &&
           faccessat(call->dirfd, call->file, X_OK, AT_EACCESS) == 0;
}

/* ---- by emu ---- */

/* The name the kernel would give it: of the program, or for a script's interpreter to open. */
static void name_program(const struct exec_call *call, char *name, size_t size)
{
    if (call->dirfd == AT_FDCWD || *call->path == '/')
        snprintf(name, size, "%s", call->path);
    else if (*call->path)
        snprintf(name, size, "/dev/fd/%d/%s", call->dirfd, call->path);
    else
        snprintf(name, size, "/dev/fd/%d", call->dirfd);
}

static int open_program(const struct exec_call *call)
{
    const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;
    char path[32];

    if (*call->file)
        return openat(call->dirfd, call->file, flags);
    snprintf(path, sizeof path, "/proc/self/fd/%d", call->dirfd); /* it may be an O_PATH one */
    return open(path, flags);
}

/* True if the interpreter could not open the script: the name leads through a descriptor that is
 * closed when it starts. */
static bool closes_script(const struct exec_call *call)
{
    return call->dirfd != AT_FDCWD && *call->path != '/' && fcntl(call->dirfd, F_GETFD) > 0;
}

/* A descriptor of the program that outlives the call, if emu can run it; or -1. */
static int open_followed(const struct exec_call *call, const char *name)
{
    int fd = open_program(call), kept = -1;
    enum elf_verdict verdict = fd < 0 ? ELF_FOREIGN : elf_examine(fd);

    if (fd < 0)
        warn("%s: runs natively: %s", name, strerror(errno));
    else if (verdict == ELF_PRIVILEGED)
        warn("%s: runs natively: it changes user, group or capabilities", name);
    else if (verdict == ELF_RUNS || (verdict == ELF_SCRIPT && !closes_script(call)))
        kept = fcntl(fd, F_DUPFD, HIGH_FD);
    if (fd >= 0)
        close(fd);
    return kept;
}

/* The guest's list of strings at addr, NULL-terminated, counted; -EFAULT: it cannot be read. */
static int64_t count_strings(uint64_t addr)
{
    int64_t n = 0;

    for (uint64_t string = 1; addr; n++, addr += sizeof string) {
        if (!guest_copy(&string, (const void *)addr, sizeof string))
            return -EFAULT;
        if (!string)
            return n;
    }
    return 0;
}

/* True if the guest's variable must not be in emu's environment. */
static bool is_kept_away(const char *assignment)
{
    char start[32] = "";

    guest_copy_string(start, sizeof start - 1, (uint64_t)assignment);
    return is_own_variable(start);
}

struct list {
    const char **end;
};

static void append(struct list *list, const char *word)
{
    *list->end++ = word;
}

static void append_all(struct list *list, const char *const *words)
{
    while (words && *words)
        append(list, *words++);
}

/* argv and environment of the next emu. */
struct words {
    const char **argv, **envp;
};

/* Memory for n words, used again by the thread's next call: a vfork child, which runs on its
 * parent's thread, cannot give it back. */
static const char **get_memory(size_t n)
{
    static __thread const char **memory;
    const char **more = realloc(memory, n * sizeof *memory);

    if (more)
        memory = more;
    return more;
}

/* Variables that would change emu itself are handed on as options; a mark keeps their place. envp:
 * read from the guest. */
static void hold_variables(struct list *argv, const char **envp)
{
    for (; *envp; envp++) {
        if (!is_kept_away(*envp))
            continue;
        append(argv, "-execed-variable");
        append(argv, *envp);
        *envp = HELD_VARIABLE;
    }
}

/* Fills words; the strings stay where they are. 0 or -errno. */
static int64_t lay_out(const struct exec_call *call, const char *state, const char *name,
                       struct words *words)
{
    int64_t argc = count_strings(call->argv), envc = count_strings(call->envp);
    size_t n_guest = (size_t)argc + (size_t)envc;
    const char **memory;

    if (argc < 0 || envc < 0)
        return -EFAULT;
    memory = get_memory(OWN_WORDS + opt.n_words + opt.n_variables + n_guest + 2 * (size_t)envc);
    if (!memory)
        return -ENOMEM;
    words->envp = memory;
    words->argv = memory + envc + opt.n_variables + 1;
    memset(memory, 0, ((size_t)envc + 1) * sizeof *memory);
    if (!guest_copy(memory, (const void *)call->envp, (size_t)envc * sizeof *memory))
        return -EFAULT;

    struct list own = {words->envp + envc}, list = {words->argv};

    append(&list, "emu");
    append(&list, "-execed");
    append(&list, state);
    append_all(&list, opt.words);
    hold_variables(&list, words->envp);
    append(&list, "-0");
    append(&list, ""); /* of no arguments the kernel makes an empty one */
    append(&list, "--");
    append(&list, name);
    if (argc && !guest_copy(&list.end[-3], (const void *)call->argv, sizeof *memory))
        return -EFAULT;
    if (argc > 1 && !guest_copy(list.end, (const void *)(call->argv + sizeof *memory),
                                ((size_t)argc - 1) * sizeof *memory))
        return -EFAULT;
    list.end += argc > 1 ? argc - 1 : 0;
    append(&list, NULL);
    append_all(&own, opt.variables);
    append(&own, NULL);
    return 0;
}

static int64_t exec_under_emu(struct cpu *cpu, const struct exec_call *call, int fd,
                              const char *name)
{
    char state[PATH_MAX + 32];
    struct words words;

    snprintf(state, sizeof state, "%u:%d:%s", opt.execs + 1, fd, opt.start_dir);
    int64_t ret = lay_out(call, state, name, &words);
    if (ret == 0) {
        const uint64_t arg[6] = {(uint64_t) "/proc/self/exe", (uint64_t)words.argv,
                                 (uint64_t)words.envp};

        ret = signal_exec(cpu, SYS_execve, arg);
    }
    close(fd);
    return ret;
}

/* ---- the calls ---- */

static int64_t exec_program(struct cpu *cpu, const struct exec_call *call)
{
    char name[PATH_MAX + 32];
    int64_t ret;
    int fd;

    if (!looks_executable(call))
        return call_kernel(cpu, call);
    qemu_plugin_atexit_cb();
    stats_print();
    name_program(call, name, sizeof name);
    fd = opt.follow_exec ? open_followed(call, name) : -1;
    ret = fd < 0 ? call_kernel(cpu, call) : exec_under_emu(cpu, call, fd, name);
    plugin_exec_failed();
    return ret;
}

/* False: the path cannot be read, which the kernel tells. */
static bool exec_at(struct cpu *cpu, struct exec_call *call, uint64_t path, int64_t *ret)
{
    char copy[PATH_MAX], program[PATH_MAX];

    if (!guest_copy_string(copy, sizeof copy, path))
        return false;
    call->path = copy;
    call->file = proc_find_exe(call->dirfd, copy, program) ? program : copy;
    *ret = exec_program(cpu, call);
    if (*ret == EXEC_CANCELLED)
        *ret = guest_restart_syscall(cpu);
    return true;
}

bool exec_execve(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    struct exec_call call = {.nr = SYS_execve, .dirfd = AT_FDCWD, .argv = arg[1], .envp = arg[2]};

    return exec_at(cpu, &call, arg[0], ret);
}

bool exec_execveat(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    struct exec_call call = {.nr = SYS_execveat,
                             .dirfd = (int)arg[0],
                             .argv = arg[2],
                             .envp = arg[3],
                             .flags = (int)arg[4]};

    return exec_at(cpu, &call, arg[1], ret);
}
