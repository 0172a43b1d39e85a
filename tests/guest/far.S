/* Far returns, calls and jumps and interrupt returns in user mode, which stay in its code segment;
 * and those that cannot: what the handler is told of them. */
#include "guest.inc"

#define SYS_RT_SIGACTION 13
#define SIGBUS           7
#define SIGSEGV          11
#define SYS_SIGALTSTACK  131
#define SA_FLAGS         0x0c000004     /* SA_RESTORER | SA_ONSTACK | SA_SIGINFO */
#define UC_RSP           0xa0           /* struct ucontext: registers */
#define UC_RIP           0xa8
#define UC_ERR           0xc0
#define UC_TRAPNO        0xc8
#define CS               0x33
#define SS               0x2b

_start:
        lea     action(%rip), %rsi
        mov     $SIGSEGV, %edi
        call    set_action
        mov     $SIGBUS, %edi
        call    set_action
        mov     $SYS_SIGALTSTACK, %eax
        lea     alternate(%rip), %rdi
        xor     %esi, %esi
        syscall
        mov     %rsp, %r15

        pushq   $CS                     /* lret in all sizes */
        lea     1f(%rip), %rax
        push    %rax
        lretq
1:      mov     $3, %ebx
2:      sub     $8, %rsp
        movl    $1f, (%rsp)
        movl    $CS, 4(%rsp)
        lretl
1:      dec     %ebx
        jnz     2b
        pushq   $7                      /* and what lies above */
        pushq   $CS
        lea     1f(%rip), %rax
        push    %rax
        lretq   $8
1:      mov     %rsp, %rax
        sub     %r15, %rax
        SHOW    %rax

        stc
        lcall   *pointer(%rip)          /* pushes 32 bits each */
        SHOW_FLAGS
        lea     pointer(%rip), %rcx
        lcall   *(%rcx)
        ljmp    *jump_pointer(%rip)
        hlt
jump_target:
        mov     %rsp, %rax
        sub     %r15, %rax
        SHOW    %rax

        mov     $5, %ebx                /* iretq: flags and another stack */
2:      pushq   $SS
        lea     -256(%rsp), %rax
        push    %rax
        pushq   $0x8d5
        pushq   $CS
        lea     1f(%rip), %rax
        push    %rax
        iretq
        hlt
1:      SHOW_FLAGS
        lea     256+8(%rsp), %rsp
        mov     %rsp, %rax
        sub     %r15, %rax
        SHOW    %rax
        mov     %r15, %rsp
        dec     %ebx
        jnz     2b
        pushq   $SS                     /* DF, AC and ID */
        push    %r15
        pushq   $0x240602
        pushq   $CS
        lea     1f(%rip), %rax
        push    %rax
        iretq
1:      pushfq
        pop     %rax
        push    $0x202
        popfq
        SHOW    %rax

        .macro  REFUSED selector, ip=1f
        mov     %r15, %rsp
        lea     1f(%rip), %r14
        pushq   $\selector
        mov     $\ip, %rax
        push    %rax
        lretq
1:      SHOW    %rax
        .endm
        REFUSED 0
        REFUSED 0x30                    /* less privileged than the caller's: no */
        REFUSED 0x2b
        REFUSED 0x43f3
        REFUSED CS, 0x8000000000000000
        mov     %r15, %rsp
        lea     1f(%rip), %r14
        pushq   $0
        push    %r15
        pushq   $0x202
        pushq   $CS
        push    %r14
        iretq
1:      SHOW    %rax
        lea     1f(%rip), %r14
        mov     $64, %esp               /* no stack */
        lcall   *pointer(%rip)
1:      SHOW    %rax
        lea     1f(%rip), %r14
        mov     $64, %ecx
        ljmp    *(%rcx)
1:      SHOW    %rax
        EXIT

far_function:
        mov     (%rsp), %eax
        SHOW    %rax
        mov     4(%rsp), %eax
        SHOW    %rax
        stc
        lretl

set_action:
        mov     $SYS_RT_SIGACTION, %eax
        xor     %edx, %edx
        mov     $8, %r10d
        syscall
        ret

/* Prints what it is told; goes on at r14 with the error code and the first stack. */
handler:
        mov     UC_TRAPNO(%rdx), %rax
        SHOW    %rax
        mov     UC_ERR(%rdx), %rax
        SHOW    %rax
        mov     %rdi, %rax
        SHOW    %rax
        mov     16(%rsi), %rax
        SHOW    %rax
        movslq  8(%rsi), %rax
        SHOW    %rax
        mov     %r14, UC_RIP(%rdx)
        mov     %r15, UC_RSP(%rdx)
        ret

        RESTORER

        .data
        .balign 8
action: .quad   handler, SA_FLAGS, restorer, 0
alternate:
        .quad   other_stack, 0, 16384
pointer:
        .long   far_function
        .word   CS
        .balign 8
jump_pointer:
        .long   jump_target
        .word   0x30                    /* of a jump the privilege is not compared */

        .lcomm  other_stack, 16384
