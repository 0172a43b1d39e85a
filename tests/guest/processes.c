/* Processes: fork, wait, pipes, vfork with exec, posix_spawn, exec that fails, exit statuses,
 * signals between processes, close-on-exec. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void report(const char *what, pid_t pid)
{
    int status;

    if (waitpid(pid, &status, 0) != pid)
        printf("%s: waitpid: %m\n", what);
    else if (WIFEXITED(status))
        printf("%s: exited %d\n", what, WEXITSTATUS(status));
    else
        printf("%s: signal %d\n", what, WTERMSIG(status));
    fflush(stdout);
}

static void fork_tree(void)
{
    for (int i = 0; i < 4; i++) {
        pid_t pid = fork();
        if (!pid) {
            pid_t inner = fork();
            if (!inner)
                _exit(i + 1);
            report("grandchild", inner);
            exit(10 + i);
        }
        report("child", pid);
    }
}

static void pipeline(void)
{
    int to[2], from[2];
    char line[64];

    if (pipe(to) || pipe(from))
        return;
    pid_t pid = fork();
    if (!pid) {
        close(to[1]);
        dup2(to[0], 0);
        dup2(from[1], 1);
        execlp("tr", "tr", "a-z", "A-Z", (char *)NULL);
        _exit(127);
    }
    close(to[0]), close(from[1]);
    dprintf(to[1], "through a pipe");
    close(to[1]);
    ssize_t n = read(from[0], line, sizeof line);
    printf("%.*s\n", (int)n, line);
    report("tr", pid);
}

static void vfork_and_exec(void)
{
    volatile int shared = 1;
    pid_t pid = vfork();

    if (!pid) {
        shared = 2;
        execl("/bin/sh", "sh", "-c", "exit 5", (char *)NULL);
        _exit(127);
    }
    report("vfork", pid);
    pid = vfork();
    if (!pid) {
        shared += 40;
        execl("/nonexistent/program", "x", (char *)NULL);
        _exit(errno == ENOENT ? 66 : 67);
    }
    report("vfork without exec", pid);
    printf("shared %d\n", shared);
}

static void spawn(void)
{
    char *argv[] = {"sh", "-c", "echo spawned; kill -9 $$", NULL};
    char *bad[] = {"/etc/passwd", NULL};
    pid_t pid;

    fflush(stdout);
    int error = posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ);
    if (!error)
        report("spawn", pid);
    error = posix_spawn(&pid, bad[0], NULL, NULL, bad, environ);
    printf("spawn of a text file: %s\n", strerror(error));
}

static void exec_failures(void)
{
    char *argv[] = {"x", NULL};

    execve("/nonexistent", argv, environ);
    printf("execve: %m\n");
    execve("/etc", argv, environ);
    printf("execve: %m\n");
    execve("/etc/passwd", argv, environ);
    printf("execve: %m\n");
    char *volatile unmapped = (char *)8;
    execve(unmapped, argv, environ);
    printf("execve: %m\n");
    fflush(stdout);
}

static void got_it(int sig)
{
    printf("signal %d from the parent\n", sig);
    exit(3);
}

static void signal_child(void)
{
    int fds[2];
    char c;

    if (pipe(fds))
        return;
    pid_t pid = fork();
    if (!pid) {
        signal(SIGUSR1, got_it);
        if (write(fds[1], "x", 1) == 1)
            for (;;)
                pause();
    }
    if (read(fds[0], &c, 1) == 1)
        kill(pid, SIGUSR1);
    report("signalled", pid);
    pid = fork();
    if (!pid)
        for (;;)
            pause();
    kill(pid, SIGTERM);
    report("terminated", pid);
}

static void exec_self(char **argv)
{
    int fd = open("/dev/null", O_RDONLY), closed = open("/dev/null", O_RDONLY | O_CLOEXEC);
    char text[32];
    pid_t pid;

    printf("first descriptors %d %d\n", fd, closed);
    fflush(stdout);
    snprintf(text, sizeof text, "%d", closed);
    pid = fork();
    if (!pid) {
        execl("/proc/self/exe", argv[0], text, (char *)NULL);
        _exit(127);
    }
    report("self", pid);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        printf("run again, descriptor open: %d\n", fcntl(atoi(argv[1]), F_GETFD) >= 0);
        return 12;
    }
    exec_self(argv);
    fork_tree();
    pipeline();
    vfork_and_exec();
    spawn();
    exec_failures();
    signal_child();
    return 0;
}
