/* Threads that live and end in a known order, a system call that does not exist, and the end of the
 * process as the argument says: exec, signal NUMBER. */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static sem_t started, may_end[5];
static pthread_t threads[5];

static void *live(void *arg)
{
    sem_post(&started);
    sem_wait(&may_end[(intptr_t)arg]);
    return NULL;
}

static void start(int n)
{
    if (pthread_create(&threads[n], NULL, live, (void *)(intptr_t)n))
        exit(1);
    while (sem_wait(&started))
        ;
}

static void end(int n)
{
    sem_post(&may_end[n]);
    pthread_join(threads[n], NULL);
}

int main(int argc, char **argv)
{
    struct rlimit no_core = {0, 0};

    setrlimit(RLIMIT_CORE, &no_core);
    if (argc > 2 && !strcmp(argv[1], "signal"))
        raise(atoi(argv[2]));
    start(1);
    start(2);
    end(1);
    start(3);
    end(2);
    end(3);
    start(4);
    end(4);
    long result = syscall(4096, 11L, 12L, 13L, 14L, 15L, 16L);
    printf("result %ld, %d\n", result, result < 0 ? errno : 0);
    fflush(stdout);
    if (argc > 1 && !strcmp(argv[1], "exec"))
        execl("/bin/true", "true", NULL);
    return 0;
}
