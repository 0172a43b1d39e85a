/* loops.S: loops of one block, of one round to nine: with every kind of branch back, with flags
 * that live from one round to the next, and left in the middle by a fault. */
#include "guest.inc"

#define SYS_RT_SIGACTION 13
#define SIGSEGV          11
#define SA_FLAGS         0x04000004 /* SA_RESTORER | SA_SIGINFO */
#define ROUNDS           9

/* Runs what follows up to END with r15 from ROUNDS down to 1. */
.macro EACH
        mov     $ROUNDS, %r15d
        xor     %ebx, %ebx
100:    mov     %r15d, %ecx
.endm
.macro END
        SHOW    %rbx
        dec     %r15d
        jnz     100b
.endm

        .text
        .globl _start
_start:
        .irp cc, nz, g, a, ae, ns, p
        EACH
1:      lea     3(%rbx,%rcx), %rbx
        sub     $1, %ecx
        j\cc    1b
        END
        .endr
        .irp cc, z, le, be, b, s, np
        EACH
        neg     %ecx
1:      lea     3(%rbx,%rcx), %rbx
        add     $1, %ecx
        j\cc    1b
        END
        .endr

        EACH                            /* a carry goes round */
        stc
1:      adc     $-1, %rbx
        loop    1b
        SHOW_FLAGS
        END
        EACH
        stc
1:      adc     $-1, %rbx
        addr32  loop 1b
        SHOW_FLAGS
        END
        EACH
1:      inc     %rbx
        cmp     $5, %ecx
        loopne  1b
        END
        EACH
1:      inc     %rbx
        cmp     $5, %ecx
        loope   1b
        END
        EACH                            /* over zeros */
        neg     %rcx
        lea     zeros_end(,%rcx,8), %rsi
1:      mov     (%rsi), %rcx
        lea     8(%rsi), %rsi
        jrcxz   1b
        add     %rsi, %rbx
        END
        EACH
        neg     %rcx
        lea     zeros_end(,%rcx,8), %rsi
1:      mov     (%rsi), %ecx
        add     $8, %rsi
        jecxz   1b
        add     %rsi, %rbx
        END
        EACH                            /* in which another one is */
        mov     %ecx, %edx
        mov     $room, %edi
1:      mov     $3, %ecx
        rep     stosb
        inc     %rbx
        dec     %edx
        jnz     1b
        END

        mov     $SYS_RT_SIGACTION, %eax /* a fault in each round */
        mov     $SIGSEGV, %edi
        lea     action(%rip), %rsi
        xor     %edx, %edx
        mov     $8, %r10d
        syscall
        EACH
        PROTECT 0
        mov     %r15d, %eax
        neg     %rax
        lea     closed(,%rax,8), %rsi
        mov     $ROUNDS + 2, %ecx
1:      lea     1(%rbx), %rbx
        add     (%rsi), %rbx
        mov     %rbx, 8(%rsi)
        lea     8(%rsi), %rsi
        dec     %ecx
        jnz     1b
        END
        EACH                            /* at the round's start */
        PROTECT 0
        mov     %r15d, %eax
        neg     %rax
        lea     closed(,%rax,8), %rsi
        mov     $ROUNDS + 2, %ecx
1:      incq    (%rsi)
        add     %rcx, %rbx
        add     $8, %rsi
        dec     %ecx
        jnz     1b
        END
        EACH                            /* with flags that live */
        PROTECT 0
        mov     %r15d, %eax
        neg     %rax
        lea     closed(,%rax,8), %rsi
        mov     $ROUNDS + 2, %ecx
        stc
1:      mov     %rbx, %rdx
        mov     %rdx, (%rsi)
        adc     $-1, %rbx
        lea     8(%rsi), %rsi
        loop    1b
        SHOW_FLAGS
        END
        EXIT

/* Opens the page. */
handler:
        PROTECT 3
        ret

        RESTORER

        .data
        .balign 8
action: .quad   handler, SA_FLAGS, restorer, 0
        .skip   8 * ROUNDS
zeros_end:
        .quad   7
        .bss
        .balign 4096
room:   .skip   4096
closed: .skip   4096
