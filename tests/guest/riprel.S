/* rip-relative operands of every kind: read, written, with immediates of every size behind the
 * displacement, in VEX encodings, as branch operands, on the stack. */
#include "guest.inc"

_start:
        mov     data(%rip), %rax
        SHOW    %rax
        mov     data(%rip), %eax
        SHOW    %rax
        mov     data(%rip), %ax
        SHOW    %rax
        mov     data(%rip), %ah
        SHOW    %rax
        movzbl  data+1(%rip), %ecx
        SHOW    %rcx
        movslq  data+4(%rip), %r15
        SHOW    %r15
        lea     data(%rip), %r14
        SHOW    %r14
        lea     _start(%rip), %r14
        SHOW    %r14
        movb    $0x12, out(%rip)
        movw    $0x1234, out+2(%rip)
        movl    $0x12345678, out+4(%rip)
        movq    $-2, out+8(%rip)
        SHOW    out(%rip)
        SHOW    out+8(%rip)
        addb    $1, out(%rip)
        addw    $0x1111, out+2(%rip)
        addl    $0x11111111, out+4(%rip)
        SHOW_FLAGS
        adcq    $3, out+8(%rip)
        SHOW_FLAGS
        SHOW    out(%rip)
        SHOW    out+8(%rip)
        cmpb    $0x13, out(%rip)
        SHOW_FLAGS
        testl   $0x80000000, data+4(%rip)
        SHOW_FLAGS 0x8c5
        shlq    $5, out(%rip)
        shrl    out(%rip)
        mov     $3, %cl
        rolq    %cl, out(%rip)
        SHOW    out(%rip)
        imul    $1000, data(%rip), %rdx
        SHOW    %rdx
        imul    $-3, data(%rip), %edx
        SHOW    %rdx
        btsq    $63, out(%rip)
        shldq   $7, %rdx, out(%rip)
        SHOW    out(%rip)
        xchg    %rax, out(%rip)
        SHOW    %rax
        lock    xadd %rax, out(%rip)
        SHOW    %rax
        lock    incq out(%rip)
        lock    cmpxchg %rcx, out(%rip)
        SHOW    %rax
        setc    out+3(%rip)
        cmovnz  data(%rip), %rbx
        SHOW    %rbx
        SHOW    out(%rip)
        mov     $7, %eax
        mulq    data(%rip)
        SHOW    %rdx
        divq    big(%rip)
        SHOW    %rax
        SHOW    %rdx

        /* Stack operands and branches through memory. */
        pushq   data(%rip)
        popq    out(%rip)
        SHOW    out(%rip)
        call    *function(%rip)
        SHOW    %rax
        jmp     *label(%rip)
        hlt
target:

        /* Vector operands, with and without immediates. */
        movdqu  vector(%rip), %xmm1
        paddd   vector+16(%rip), %xmm1
        pshufd  $0x1b, vector(%rip), %xmm2
        shufps  $0x4e, vector+16(%rip), %xmm2
        pinsrw  $3, data(%rip), %xmm2
        movhlps %xmm1, %xmm3
        movq    %xmm1, %rax
        SHOW    %rax
        movq    %xmm3, %rax
        SHOW    %rax
        movq    %xmm2, %rax
        SHOW    %rax
        cvtsi2sdq data(%rip), %xmm9
        movsd   %xmm9, out(%rip)
        SHOW    out(%rip)
        fildll  data(%rip)
        fmull   real(%rip)
        fistpll out(%rip)
        SHOW    out(%rip)
        fnstcw  out(%rip)
        fldcw   out(%rip)
        prefetcht0 data(%rip)
        nopw    data(%rip)
        EXIT

add_up: lea     2(%rax,%rdx), %rax
        ret

        .data
        .balign 16
vector: .long   1, 2, 3, 0x80000004, 5, 6, 7, 8
data:   .quad   0x8877665544332211
big:    .quad   0x7777777777777777
real:   .double 0.5
out:    .quad   0, 0
function: .quad add_up
label:  .quad   target
