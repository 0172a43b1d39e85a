/* Code on a page that it writes to itself: instructions ahead and behind, words beside the code,
 * by moves, pushes and string instructions. Each instruction is to be counted once. */
#include "guest.inc"

#define SYS_MPROTECT 10

        .macro  STORES                  /* all kinds of stores to a word of the code's page */
        incl    word(%rip)
        mov     %ecx, word(%rip)
        xchg    %rdx, word(%rip)
        lock addl $3, word(%rip)
        movaps  %xmm0, word(%rip)
        .endm

_start:
        mov     $SYS_MPROTECT, %eax
        lea     page(%rip), %rdi
        mov     $4096, %esi
        mov     $7, %edx
        syscall
        SHOW    %rax
        mov     $12, %ebx
again:  call    beside
        SHOW    %rax
        call    ahead
        SHOW    %rax
        call    behind
        SHOW    %rax
        call    pushed
        SHOW    %rax
        call    filled
        SHOW    %rax
        dec     %ebx
        jnz     again
        EXIT

        .section .own, "aw", @progbits
        .balign 4096
page:
beside: mov     $20, %ecx
        xor     %eax, %eax
1:      STORES
        add     word(%rip), %eax
        dec     %ecx
        jnz     1b
        ret

ahead:  mov     %bl, 1f+1(%rip)         /* the immediate of the next instruction */
1:      mov     $0, %eax
        incb    1b+2(%rip)
        ret

behind: mov     $6, %ecx
        xor     %eax, %eax
1:      inc     %eax
        cmp     $3, %ecx
        jne     2f
        xorb    $8, 1b+1(%rip)          /* inc becomes dec, and the other way round */
2:      dec     %ecx
        jnz     1b
        ret

pushed: mov     %rsp, %rcx
        lea     1f+8(%rip), %rsp
        mov     $0x90909000000000b8, %rax /* mov $0, %eax; nop; nop; nop */
        mov     %bl, %ah
        push    %rax
1:      .fill   8, 1, 0x90
        mov     %rcx, %rsp
        ret

filled: mov     $0x90, %eax
        mov     $2, %ecx
        lea     1f(%rip), %rdi
        mov     %rdi, %rsi
        rep stosb
1:      mov     $1, %al
        movw    $0x01b0, (%rsi)         /* as it was */
        movzbl  %al, %eax
        ret

        .balign 16
word:   .quad   0, 0
