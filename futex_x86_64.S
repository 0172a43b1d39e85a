/* futex_x86_64.S: the kernel's futex call without a time-out and without errno, which lives in
 * thread-local storage. */
    .text
    .globl raw_futex
    .type raw_futex, @function
raw_futex:                      /* long raw_futex(int *word, int op, int value) */
    xor %r10d, %r10d
    mov $202, %eax
    syscall
    ret
    .section .note.GNU-stack, "", @progbits
