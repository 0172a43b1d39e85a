/* alarms.S: signals in the middle of loops of one block. As many come as are waited for, so that
 * every run has the same number of instructions; status 1: they took longer than the loops. */
#include "guest.inc"

#define SYS_RT_SIGACTION 13
#define SYS_SETITIMER    38
#define SIGALRM          14
#define SA_RESTORER      0x04000000
#define ALARMS           30
#define ROUNDS           10000000

        .text
        .globl _start
_start:
        mov     $SYS_RT_SIGACTION, %eax
        mov     $SIGALRM, %edi
        lea     action(%rip), %rsi
        xor     %edx, %edx
        mov     $8, %r10d
        syscall
        call    handler
        xor     %ebx, %ebx
        mov     $ROUNDS, %ecx
1:      add     %rcx, %rbx
        lea     1(%rbx), %rbx
        dec     %ecx
        jnz     1b
        SHOW    %rbx
        mov     $ROUNDS, %ecx           /* a carry goes round */
        stc
1:      adc     $-1, %rbx
        loop    1b
        SHOW_FLAGS
        SHOW    %rbx
        mov     $ROUNDS / 4, %r8d       /* short ones */
2:      mov     $3, %ecx
1:      lea     1(%rbx), %rbx
        dec     %ecx
        jnz     1b
        add     %r8, %rbx
        dec     %r8d
        jnz     2b
        SHOW    %rbx
        cmpl    $0, left(%rip)
        jne     3f
        EXIT
3:      EXIT    1

/* Sets the next alarm, if one is left. */
handler:
        subl    $1, left(%rip)
        jz      1f
        mov     $SYS_SETITIMER, %eax
        xor     %edi, %edi
        lea     soon(%rip), %rsi
        xor     %edx, %edx
        syscall
1:      ret

        RESTORER

        .data
        .balign 8
action: .quad   handler, SA_RESTORER, restorer, 0
soon:   .quad   0, 0, 0, 50
left:   .long   ALARMS + 1
