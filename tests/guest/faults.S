/* faults.S: blocks that are left in the middle by a fault, in which the instructions and accesses
 * around the fault must still be counted once each. Every fault is repaired by the handler. */
#include "guest.inc"

#define SYS_RT_SIGACTION 13
#define SIGSEGV          11
#define SIGFPE           8
#define SA_FLAGS         0x04000004 /* SA_RESTORER | SA_SIGINFO */
#define UC_RCX           0x98       /* struct ucontext: registers */

        .text
        .globl _start
_start:
        lea     action(%rip), %rsi
        mov     $SIGSEGV, %edi
        call    set_action
        mov     $SIGFPE, %edi
        call    set_action
        mov     $20, %r15d
        xor     %ebx, %ebx

again:                                  /* flags dead, then live, around a read and a write */
        xor     %ecx, %ecx
        add     $3, %rbx
        lea     1(%rbx), %rbx
        mov     (%rcx), %rax
        add     %rax, %rbx
        mov     %rbx, %rdx
        xor     %ecx, %ecx
        stc
        mov     %rbx, (%rcx)
        adc     $0, %rbx
        push    %rbx
        pop     %rdx
        xor     %ecx, %ecx              /* a division */
        mov     $100, %eax
        xor     %edx, %edx
        nop
        div     %rcx
        lea     (%rbx,%rax), %rbx
        dec     %r15d
        jnz     again
        SHOW    %rbx
        EXIT

set_action:
        mov     $SYS_RT_SIGACTION, %eax
        xor     %edx, %edx
        mov     $8, %r10d
        syscall
        ret

/* The register that is at fault gets the address of a word: a good pointer, and a divisor. */
handler:
        lea     word(%rip), %rax
        mov     %rax, UC_RCX(%rdx)
        ret

        RESTORER

        .data
        .balign 8
action: .quad   handler, SA_FLAGS, restorer, 0
word:   .quad   5
