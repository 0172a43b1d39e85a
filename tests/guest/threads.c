/* Threads: creation, joining, mutexes, condition variables, atomics, thread-local storage,
 * cancellation, signals to one thread, exit of the first thread before the others. */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define THREADS 8

static __thread long local;
static atomic_long atomic_sum;
static long locked_sum;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static void *add_up(void *arg)
{
    long id = (long)arg;

    for (int i = 0; i < 20000; i++) {
        local += id;
        atomic_fetch_add(&atomic_sum, 1);
        if (i % 10 == 0) {
            pthread_mutex_lock(&lock);
            locked_sum++;
            pthread_mutex_unlock(&lock);
        }
    }
    return (void *)local;
}

static void parallel_sums(void)
{
    pthread_t t[THREADS];
    long total = 0;

    for (long i = 0; i < THREADS; i++)
        pthread_create(&t[i], NULL, add_up, (void *)i);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(t[i], &result);
        total += (long)result;
    }
    printf("sums %ld %ld %ld, local %ld\n", total, (long)atomic_sum, locked_sum, local);
}

static int turn;

static void *take_turns(void *arg)
{
    int id = (int)(long)arg;

    for (int i = 0; i < 200; i++) {
        pthread_mutex_lock(&lock);
        while (turn % 3 != id)
            pthread_cond_wait(&changed, &lock);
        turn++;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static void round_robin(void)
{
    pthread_t t[3];

    for (long i = 0; i < 3; i++)
        pthread_create(&t[i], NULL, take_turns, (void *)i);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    printf("turns %d\n", turn);
}

static void cleanup(void *arg)
{
    (*(int *)arg)++;
}

static void *wait_for_ever(void *arg)
{
    pthread_cleanup_push(cleanup, arg);
    for (;;)
        pause();
    pthread_cleanup_pop(0);
    return NULL;
}

static void cancel(void)
{
    pthread_t t;
    int cleaned = 0;
    void *result;

    pthread_create(&t, NULL, wait_for_ever, &cleaned);
    pthread_cancel(t);
    pthread_join(t, &result);
    printf("cancelled %d, cleaned %d\n", result == PTHREAD_CANCELED, cleaned);
}

static sem_t seen;
static pthread_t expected;
static volatile sig_atomic_t right_thread;

static void on_signal(int sig)
{
    (void)sig;
    right_thread += pthread_equal(pthread_self(), expected) != 0;
    sem_post(&seen);
}

static void *spin(void *arg)
{
    volatile int *stop = arg;

    while (!*stop)
        ;
    return NULL;
}

static void signal_one(void)
{
    volatile int stop = 0;
    struct sigaction act = {.sa_handler = on_signal};

    sem_init(&seen, 0, 0);
    sigaction(SIGUSR1, &act, NULL);
    pthread_create(&expected, NULL, spin, (void *)&stop);
    for (int i = 0; i < 50; i++) {
        pthread_kill(expected, SIGUSR1);
        while (sem_wait(&seen) && errno == EINTR)
            ;
    }
    stop = 1;
    pthread_join(expected, NULL);
    printf("signals in their thread %d\n", (int)right_thread);
}

static void many_short_ones(void)
{
    long sum = 0;

    for (long i = 0; i < 200; i++) {
        pthread_t t;
        void *result;
        pthread_create(&t, NULL, (void *(*)(void *))(void *)labs, (void *)-i);
        pthread_join(t, &result);
        sum += (long)result;
    }
    printf("short threads %ld\n", sum);
}

static void *outlive(void *arg)
{
    (void)arg;
    usleep(20000);
    printf("last thread\n");
    exit(21);
}

int main(void)
{
    pthread_t t;

    parallel_sums();
    round_robin();
    cancel();
    signal_one();
    many_short_ones();
    pthread_create(&t, NULL, outlive, NULL);
    pthread_exit(NULL);
}
