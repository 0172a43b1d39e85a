/* lock.c: locks for code that may run with the guest's %fs.
 *
 * The C library's mutexes look at thread-local storage; these use a futex word and nothing else.
 * May know the kernel's futex call. Must not know what the locks guard; their order is written
 * where they are declared. */

#include "emu.h"

#include <linux/futex.h>

enum lock_state { FREE, TAKEN, WAITED_FOR };

bool lock_try(struct lock *lock)
{
    int state = FREE;
    return __atomic_compare_exchange_n(&lock->state, &state, TAKEN, false, __ATOMIC_ACQUIRE,
                                       __ATOMIC_RELAXED);
}

void lock_take(struct lock *lock)
{
    if (lock_try(lock))
        return;
    while (__atomic_exchange_n(&lock->state, WAITED_FOR, __ATOMIC_ACQUIRE) != FREE)
        lock_wait(&lock->state, WAITED_FOR);
}

void lock_release(struct lock *lock)
{
    if (__atomic_exchange_n(&lock->state, FREE, __ATOMIC_RELEASE) == WAITED_FOR)
        raw_futex(&lock->state, FUTEX_WAKE_PRIVATE, 1);
}

void lock_wait(int *word, int value)
{
    raw_futex(word, FUTEX_WAIT_PRIVATE, value);
}

void lock_wake_all(int *word)
{
    raw_futex(word, FUTEX_WAKE_PRIVATE, INT32_MAX);
}
