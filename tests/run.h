/* run.h: for the test programs that run emu as a user does: finds it, runs a command with a fixed
 * environment and keeps what the command did. */
#ifndef TESTS_RUN_H
#define TESTS_RUN_H

#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define RUN_TIMED_OUT (-1)
#define MAX_PATH      (2 * PATH_MAX)

static char emu_path[PATH_MAX], emu_dir[PATH_MAX]; /* emu; its plugins are beside it */
static char guest_dir[PATH_MAX];                   /* guest programs */

/* By the environment variables that the Makefile sets. */
static inline void locate_emu(void)
{
    const char *emu = getenv("EMU"), *build = getenv("EMU_TEST_BUILD");
    char copy[PATH_MAX];

    snprintf(copy, sizeof copy, "%s/guest", build ? build : "build");
    if (!realpath(emu ? emu : "emu", emu_path) || !realpath(copy, guest_dir)) {
        fprintf(stderr, "no emu or no guest programs: set EMU and EMU_TEST_BUILD\n");
        exit(EXIT_FAILURE);
    }
    strcpy(copy, emu_path);
    strcpy(emu_dir, dirname(copy));
}

struct result {
    int status;   /* of wait(2), or RUN_TIMED_OUT */
    char *out[2]; /* stdout, stderr; terminated */
    size_t size[2];
};

static void free_result(struct result *r)
{
    free(r->out[0]);
    free(r->out[1]);
    memset(r, 0, sizeof *r);
}

static void read_whole(int fd, char **text, size_t *size)
{
    struct stat st;

    fstat(fd, &st);
    *size = (size_t)st.st_size;
    *text = malloc(*size + 1);
    if (!*text || pread(fd, *text, *size, 0) != (ssize_t)*size)
        abort();
    (*text)[*size] = '\0';
    close(fd);
}

/* Becomes the command. A group of its own, so that a time-out ends its children too. */
static _Noreturn void become(char *const argv[], char *const env[], const char *dir,
                             const char *input, const int fds[2])
{
    struct rlimit no_core = {0, 0};
    int in = open(input ? input : "/dev/null", O_RDONLY);

    setpgid(0, 0);
    signal(SIGINT, SIG_DFL); /* shells let their background jobs ignore these */
    signal(SIGQUIT, SIG_DFL);
    setrlimit(RLIMIT_CORE, &no_core);
    if ((dir && chdir(dir)) || in < 0)
        _exit(126);
    dup2(in, 0);
    dup2(fds[0], 1);
    dup2(fds[1], 2);
    syscall(SYS_close_range, 3, ~0u, 0);
    execve(argv[0], argv, env);
    _exit(127);
}

static int wait_at_most(pid_t pid, int seconds)
{
    int status = RUN_TIMED_OUT;
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p = {.fd = pidfd, .events = POLLIN};

    poll(&p, 1, seconds * 1000);
    close(pidfd);
    if (waitpid(pid, &status, WNOHANG) == pid)
        return status;
    kill(-pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return RUN_TIMED_OUT;
}

/* argv[0] is a path; dir NULL: here; input NULL: /dev/null. Relative input is looked up in the
 * caller's directory. */
static void run_command(struct result *r, char *const argv[], char *const env[], const char *dir,
                        const char *input, int seconds)
{
    int fds[2] = {memfd_create("stdout", MFD_CLOEXEC), memfd_create("stderr", MFD_CLOEXEC)};
    pid_t pid = fork();

    if (!pid)
        become(argv, env, dir, input, fds);
    r->status = wait_at_most(pid, seconds);
    for (int i = 0; i < 2; i++)
        read_whole(fds[i], &r->out[i], &r->size[i]);
}

/* Compiles tests/plugins/SOURCE.c to NAME.so, by $CC; its path goes to path. False: it failed. */
static inline bool build_plugin(char path[PATH_MAX + 32], const char *name, const char *source,
                                const char *flags)
{
    const char *build = getenv("EMU_TEST_BUILD"), *cc = getenv("CC");
    char command[4 * PATH_MAX], dir[PATH_MAX];

    snprintf(command, sizeof command, "%s/tests/plugins", build ? build : "build");
    if ((mkdir(command, 0777) && access(command, W_OK)) || !realpath(command, dir))
        return false;
    snprintf(path, PATH_MAX + 32, "%s/%s.so", dir, name);
    snprintf(command, sizeof command,
             "%s -std=gnu11 -Wall -Wextra -Werror -fvisibility=hidden -shared -fPIC -I. "
             "-Iplugins %s -o '%s' tests/plugins/%s.c",
             cc ? cc : "cc", flags, path, source);
    return !system(command);
}

#endif
