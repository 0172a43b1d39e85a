/* process.h: names of files that each process of the program writes for itself. */
#ifndef PROCESS_H
#define PROCESS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Puts "PID" into a file's name, or, in a program that emu -follow-exec has followed, "PID.N": N
 * execve calls led to it, and before the last of them the process was another program, which has
 * written its own file. It takes the place of %p; without %p it goes behind the name, but for the
 * program that was started first, whose process is first. */
static inline void name_file(char *name, size_t size, const char *pattern, pid_t first)
{
    const char *p = strstr(pattern, "%p"), *execs = getenv("EMU_EXECS");
    bool followed = execs && strcmp(execs, "0");
    char tag[64];

    snprintf(tag, sizeof tag, "%d%s%s", (int)getpid(), followed ? "." : "", followed ? execs : "");
    if (p)
        snprintf(name, size, "%.*s%s%s", (int)(p - pattern), pattern, tag, p + 2);
    else if (followed || getpid() != first)
        snprintf(name, size, "%s.%s", pattern, tag);
    else
        snprintf(name, size, "%s", pattern);
}

/* The file as seen from here: the program may change its directory before it is written. */
static inline char *absolute_name(const char *name)
{
    char *cwd = *name == '/' ? NULL : getcwd(NULL, 0), *path;

    if (asprintf(&path, "%s%s%s", cwd ? cwd : "", cwd ? "/" : "", name) < 0)
        exit(1);
    free(cwd);
    return path;
}

#endif
