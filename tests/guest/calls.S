/* push, pop, call and ret in every form, and tricks that return addresses are used for. */
#include "guest.inc"

_start:
        mov     $7, %eax
        call    plain
        SHOW    %rax
        lea     plain(%rip), %rbx
        call    *%rbx
        SHOW    %rax
        push    %rbx
        call    *(%rsp)                 /* the operand is read before the push */
        SHOW    %rax
        mov     %rbx, -8(%rsp)
        lea     -8(%rsp), %rsp
        mov     %rsp, %rbp
        call    *0(%rbp)
        SHOW    %rax
        lea     table(%rip), %r12
        mov     $1, %r13d
        call    *(%r12,%r13,8)
        SHOW    %rax
        add     $16, %rsp
        mov     %rsp, %r14

        push    $11
        push    $22
        call    two_arguments           /* ret 16 */
        SHOW    %rax
        cmp     %rsp, %r14
        SHOW_FLAGS 0x40

        call    1f                      /* call to the next instruction: reads the pc */
1:      pop     %rcx
        lea     1b(%rip), %rdx
        sub     %rdx, %rcx
        SHOW    %rcx

        call    skip_a_byte             /* returns behind where it was called from */
        .byte   0x0f
        SHOW    %rax

        lea     2f(%rip), %rax          /* ret as a jump */
        push    %rax
        ret
        hlt
2:      call    drop_a_frame            /* returns to its caller's caller */
        SHOW    %rax

        mov     $3, %ebp                /* calls in two blocks: a loop's and the one before it */
        lea     plain(%rip), %rbx
        xor     %eax, %eax
3:      lea     1(%rax), %eax
        call    plain
        SHOW    %rax
        sub     $1, %ebp
        jnz     3b
        mov     $3, %ebp
4:      lea     1(%rax), %eax
        call    *%rbx
        SHOW    %rax
        sub     $1, %ebp
        jnz     4b

        push    $-1                     /* push sizes and operands */
        push    $0x7fffffff
        push    $-0x80
        pushw   $0x1234
        pushw   $-2
        push    %sp
        mov     (%rsp), %ax
        sub     %sp, %ax
        movzwl  %ax, %eax
        SHOW    %rax
        mov     2(%rsp), %eax
        SHOW    %rax
        add     $6, %rsp
        pop     %rax
        SHOW    %rax
        pop     %rax
        pop     %rbx
        SHOW    %rbx
        push    %rsp                    /* the value before the push */
        pop     %rax
        sub     %rsp, %rax
        SHOW    %rax
        mov     %rsp, %r15
        push    $0x1000
        pop     %rsp                    /* the value popped, not incremented */
        xchg    %rsp, %r15
        SHOW    %r15
        pushw   %ax
        popw    %bx
        mov     $0x5555, %ecx
        push    %rcx
        popq    spot(%rip)
        SHOW    spot(%rip)
        pushq   spot(%rip)
        pop     %r8
        SHOW    %r8

        push    %rbp                    /* enter and leave */
        mov     $99, %ebp
        enter   $32, $0
        lea     32(%rsp), %rax
        sub     %rbp, %rax
        SHOW    %rax
        SHOW    (%rbp)
        leave
        SHOW    %rbp
        mov     %rsp, %rbp              /* a nested frame copies its outer's display */
        enter   $8, $2
        leave
        pop     %rbp
        cmp     %rsp, %r14
        SHOW_FLAGS 0x40

        stc                             /* flags pass through calls and returns */
        call    plain_no_flags
        SHOW_FLAGS 1
        std
        call    plain_no_flags
        SHOW_FLAGS 0x401
        cld
        pushfq
        popq    %rax
        and     $0xcd5, %eax
        SHOW    %rax
        push    $0x8d5
        popfq
        SHOW_FLAGS
        xor     %eax, %eax
        lahf
        SHOW    %rax
        mov     $0x41, %ah
        sahf
        SHOW_FLAGS
        EXIT

plain:  add     $1, %rax
        ret
other:  imul    $3, %rax, %rax
        rep     ret
plain_no_flags:
        mov     $5, %edx
        ret
two_arguments:
        mov     8(%rsp), %rax
        imul    16(%rsp), %rax
        ret     $16
skip_a_byte:
        incq    (%rsp)
        ret
drop_a_frame:
        call    3f
        mov     $0, %eax
        ret
3:      mov     $0x77, %eax
        add     $8, %rsp
        ret

        .data
table:  .quad   plain, other
spot:   .quad   0
