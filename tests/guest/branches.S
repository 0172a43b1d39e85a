/* Conditional jumps of every condition, both ways; loop and jrcxz; jumps to and fro. */
#include "guest.inc"

/* Adds a bit to %rbx for every condition that holds with the flags in %rax. */
.macro TRY cc
        add     %rbx, %rbx
        push    %rax
        popfq
        j\cc    1f
        jmp     2f
1:      inc     %rbx
2:
.endm

_start:
        xor     %r12d, %r12d
        xor     %ebx, %ebx
next:   mov     flags(,%r12,8), %rax
        .irp    cc, o, no, b, ae, e, ne, be, a, s, ns, p, np, l, ge, le, g
        TRY     \cc
        .endr
        SHOW    %rbx
        inc     %r12
        cmp     $(end - flags) / 8, %r12
        jne     next

        mov     $5, %ecx                /* loop keeps the flags */
        xor     %eax, %eax
        stc
3:      inc     %eax
        loop    3b
        SHOW_FLAGS 1
        SHOW    %rax
        mov     $10, %ecx
4:      inc     %eax
        cmp     $10, %eax
        loopne  4b
        SHOW    %rcx
        mov     $10, %ecx
5:      dec     %eax
        cmp     %eax, %eax
        loope   5b
        SHOW    %rax
        movabs  $0x500000001, %rcx
        addr32  loop 6f
        SHOW    %rcx
6:      jecxz   7f
        hlt
7:      movabs  $0x100000000, %rcx
        jecxz   8f
        hlt
8:      jrcxz   9f
        SHOW    %rcx
9:      xor     %ecx, %ecx
        jrcxz   1f
        hlt
1:      mov     $3, %ecx
2:      jrcxz   3f
        dec     %ecx
        jmp     2b
3:      xor     %ecx, %ecx
        loop    4f                      /* wraps */
        hlt
4:      SHOW    %rcx
        jmp     far                     /* forward over a page, backward again */
back:   jmp     5f
        .byte   0x0f, 0x04              /* never run */
5:      mov     $1, %eax
        jmp     inside + 1
inside: .byte   0xb9                    /* as mov $..., %ecx this would eat the next four bytes */
        add     $0x10, %eax
        nop
        SHOW    %rax
        EXIT
        .balign 4096
        .skip   4090, 0xcc
far:    mov     $0x1234, %r9d           /* lies across the page end */
        SHOW    %r9
        jmp     back

        .data
flags:  .quad   2, 3, 6, 0x42, 0x82, 0x802, 0x843, 0x883, 0x8c6, 0xc7, 0x882, 0x42 + 0x800
end:
