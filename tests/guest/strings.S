/* String instructions: every size, both directions, with repeats of zero, one and many. */
#include "guest.inc"

.macro POINT from=source, to=target, count=0
        mov     $\from, %esi
        mov     $\to, %edi
        mov     $\count, %ecx
.endm
.macro WHERE
        SHOW    %rsi
        SHOW    %rdi
        SHOW    %rcx
.endm

_start:
        POINT   count=13
        rep     movsb
        WHERE
        SHOW    target+8
        POINT   count=5
        rep     movsw
        POINT   count=3
        rep     movsl
        POINT   count=4
        rep     movsq
        WHERE
        SHOW    target+24
        movsb
        movsq
        WHERE
        POINT   count=0                 /* nothing happens, flags stay */
        stc
        rep     movsb
        repne   scasb
        SHOW_FLAGS 1
        WHERE
        std
        POINT   from=source+24, to=target+24, count=3
        rep     movsq
        WHERE
        mov     $0xab, %eax
        POINT   to=target+9, count=5
        rep     stosb
        SHOW    %rdi
        lodsb
        SHOW    %rax
        cld
        SHOW    target+0
        POINT   to=target, count=3
        movabs  $0x1122334455667788, %rax
        rep     stosl
        stosq
        SHOW    target+8
        POINT   from=target+1, to=target, count=20  /* overlapping */
        rep     movsb
        SHOW    target+8
        POINT   count=16
        rep     movsb
        POINT   count=30                /* stops at the first difference */
        repe    cmpsb
        SHOW_FLAGS
        WHERE
        POINT   count=2
        repe    cmpsq
        SHOW_FLAGS
        WHERE
        POINT   from=source, to=source+1, count=10
        repne   cmpsw
        SHOW_FLAGS
        WHERE
        POINT   to=source, count=64
        mov     $0x1d, %eax
        repne   scasb
        SHOW_FLAGS
        WHERE
        POINT   to=zeros, count=9
        xor     %eax, %eax
        repe    scasl
        SHOW_FLAGS
        WHERE
        POINT   count=4
        rep     lodsl
        SHOW    %rax
        WHERE
        POINT   count=3                 /* 32-bit addresses and count */
        movabs  $0x700000000, %rax
        or      %rax, %rcx
        addr32  rep movsb
        WHERE
        mov     $100000, %ecx           /* long ones */
        mov     $buffer, %edi
        mov     $0x5a, %eax
        rep     stosb
        POINT   from=buffer, to=buffer+50000, count=50000
        rep     movsb
        WHERE
        mov     $table, %ebx
        mov     $3, %eax
        xlatb
        SHOW    %rax
        EXIT

        .data
        .balign 64
source: .set    i, 0
        .rept   32
        .quad   0x0101010101010101 * i + 0x1d1c1b1a19181716
        .set    i, i + 1
        .endr
target: .skip   256
zeros:  .long   0, 0, 0, 0, 0, 7, 0, 0, 0, 0
table:  .byte   9, 8, 7, 6, 5
        .bss
buffer: .skip   100000
