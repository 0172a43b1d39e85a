/* Every addressing form of ModRM and SIB, with base and index in low and high registers. */
#include "guest.inc"

_start:
        lea     table(%rip), %rbx
        mov     %rbx, %rbp
        mov     %rbx, %r12
        mov     %rbx, %r13
        mov     %rbx, %rsi
        mov     $3, %ecx
        mov     $5, %r9d
        mov     (%rbx), %rax
        SHOW    %rax
        mov     (%r12), %rax            /* needs a SIB byte */
        SHOW    %rax
        mov     0(%rbp), %rax           /* needs a displacement */
        SHOW    %rax
        mov     (%r13), %rax
        SHOW    %rax
        mov     8(%rbx), %eax
        SHOW    %rax
        mov     8(%r12), %ax
        SHOW    %rax
        mov     0x80(%rbx), %rax
        SHOW    %rax
        mov     -8(%rsi), %rax
        SHOW    %rax
        mov     (%rbx,%rcx), %rax
        SHOW    %rax
        mov     (%rbx,%rcx,2), %rax
        SHOW    %rax
        mov     (%rbx,%rcx,4), %rax
        SHOW    %rax
        mov     (%rbx,%rcx,8), %rax
        SHOW    %rax
        mov     (%r13,%r9,8), %rax
        SHOW    %rax
        mov     0x10(%rbp,%r9,8), %rax
        SHOW    %rax
        mov     0x88(%r12,%r9,1), %al
        SHOW    %rax
        mov     table(,%rcx,8), %rax    /* no base */
        SHOW    %rax
        mov     table, %eax             /* absolute, by SIB */
        SHOW    %rax
        movabs  table+16, %rax          /* absolute, 64 bits */
        SHOW    %rax
        movabs  %eax, scratch
        mov     scratch(%rip), %rax
        SHOW    %rax
        mov     $scratch, %edi
        movl    $0x11223344, (%edi)     /* 32-bit addresses */
        mov     (%edi), %eax
        SHOW    %rax
        mov     $-1, %r10
        mov     $table, %r8d
        movabs  $0xffffffff00000000, %rax
        or      %rax, %r8               /* high half must be ignored */
        mov     8(%r8d), %rax
        SHOW    %rax
        mov     8(%r8d,%r10d,8), %rax
        SHOW    %rax
        lea     -8(%r10,%r10,8), %rax
        SHOW    %rax
        lea     -8(%r10d,%r10d,8), %rax
        SHOW    %rax
        lea     -8(%r10,%r10,8), %ax
        SHOW    %rax

        /* The stack pointer as base, also of what moves it. */
        push    $1
        push    $2
        push    $3
        mov     (%rsp), %rax
        SHOW    %rax
        mov     8(%rsp), %rax
        SHOW    %rax
        mov     (%rsp,%rcx,4), %eax
        SHOW    %rax
        pushq   8(%rsp)
        mov     (%rsp), %rax
        SHOW    %rax
        popq    8(%rsp)                 /* the address is taken after the pop */
        pop     %rax
        SHOW    %rax
        pop     %rax
        SHOW    %rax
        pop     %rax
        SHOW    %rax
        EXIT

        .data
        .quad   0x0706050403020100
table:  .set    i, 0
        .rept   64
        .quad   0x1000100010001 * i + 0x8040201008040200
        .set    i, i + 1
        .endr
scratch: .quad  0
