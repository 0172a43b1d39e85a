/* returns.S: so many calls, at addresses that are alike in their low 16, 18 or 20 bits, that a
 * translator may find other places for where they return; then code far up, which may make it
 * begin anew. */
#include "guest.inc"

#define SYS_MMAP  9
#define MANY      12000 /* functions */
#define FAR       0x300000000000
#define RWX       7
#define ANONYMOUS 0x32 /* MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED */

/* name(): calls the first n functions. */
.macro LIST name, n
\name:
        .set    i, 0
        .rept   \n
        call    functions + 3 * i
        .set    i, i + 1
        .endr
        ret
.endm

        .text
        .globl _start
_start:
        xor     %ebx, %ebx
        .rept   2
        call    few
        call    few_alike
        .endr
        call    many
        SHOW    %rbx
        mov     $SYS_MMAP, %eax
        mov     $FAR, %rdi
        mov     $4096, %esi
        mov     $RWX, %edx
        mov     $ANONYMOUS, %r10d
        mov     $-1, %r8
        xor     %r9d, %r9d
        syscall
        call    many_others
        call    many_alike
        call    many
        SHOW    %rbx
        EXIT

        .balign 0x100000
        LIST    many_alike, MANY        /* in the low 18 bits: as many */
        .balign 0x40000
        LIST    many, MANY
        .balign 0x40000
        LIST    few, 2000
        .balign 0x10000
        LIST    few_alike, 2000         /* in the low 16 bits */
        .balign 0x40000
        LIST    many_others, MANY

functions:
        .rept   MANY
        inc     %ebx
        ret
        .endr
