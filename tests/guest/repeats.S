/* repeats.S: repeated string instructions of more than 65536 elements. QEMU enters them anew
 * whenever one more than a multiple of 65536 is left, but for a single one: each case is on another
 * side of that. */
#include "guest.inc"

#define SYS_RT_SIGACTION 13
#define SYS_ARCH_PRCTL   158
#define ARCH_SET_GS      0x1001
#define ARCH_SET_FS      0x1002
#define SIGSEGV          11
#define SA_FLAGS         0x04000004 /* SA_RESTORER | SA_SIGINFO */
#define UC_RDI           0x68       /* struct ucontext: registers */
#define UC_RCX           0x98

.macro POINT from=source, to=target, count=0
        mov     $\from, %esi
        mov     $\to, %edi
        mov     $\count, %ecx
.endm
.macro WHERE
        SHOW_FLAGS
        SHOW    %rsi
        SHOW    %rdi
        SHOW    %rcx
.endm

        .text
        .globl _start
_start:
        mov     $0x5a, %eax
        stc
        POINT   count=65537             /* entered once */
        rep     stosb
        WHERE
        POINT   count=65538             /* again when 65537 are left */
        rep     stosb
        WHERE
        POINT   to=source, count=131073 /* again when 65537 are left, not at first */
        rep     stosb
        WHERE
        POINT   count=65540             /* no difference, then one before, at and behind the end */
        repe    cmpsb                   /* of the first part */
        WHERE
        movb    $1, source+2
        POINT   count=65540
        repe    cmpsb
        WHERE
        movb    $0x5a, source+2
        movb    $1, source+3
        POINT   count=65541
        repe    cmpsb
        WHERE
        movb    $0x5a, source+3
        POINT   to=target, count=65539
        mov     $0x77, %eax
        repne   scasb
        WHERE
        mov     $65539, %ecx            /* 32-bit addresses and count */
        movabs  $0x700000000, %rax
        or      %rax, %rcx
        mov     $source, %esi
        addr32  rep lodsb
        SHOW    %rax
        WHERE

        mov     $SYS_ARCH_PRCTL, %eax   /* bases that the processor may not have */
        mov     $ARCH_SET_GS, %edi
        mov     $source, %esi
        syscall
        mov     $SYS_ARCH_PRCTL, %eax
        mov     $ARCH_SET_FS, %edi
        mov     $source, %esi
        syscall
        POINT   from=1, count=65540
        rep     movsb %gs:(%rsi), (%rdi)
        WHERE
        POINT   from=2, count=65541
        rep     movsb %fs:(%rsi), (%rdi)
        WHERE

        mov     $SYS_RT_SIGACTION, %eax /* a fault in each part */
        mov     $SIGSEGV, %edi
        lea     action(%rip), %rsi
        xor     %edx, %edx
        mov     $8, %r10d
        syscall
        PROTECT 0
        POINT   to=closed-2, count=65550
        rep     stosb
        WHERE
        PROTECT 0
        POINT   to=closed-30, count=65550
        rep     stosb
        WHERE
        PROTECT 0
        POINT   from=closed-3-source, count=65550
        rep     movsb %gs:(%rsi), (%rdi)
        WHERE
        EXIT

/* Shows the registers at the fault, and opens the page. */
handler:
        mov     %rdx, %r12
        mov     UC_RCX(%r12), %rax
        SHOW    %rax
        mov     UC_RDI(%r12), %rax
        SHOW    %rax
        PROTECT 3
        ret

        RESTORER

        .data
        .balign 8
action: .quad   handler, SA_FLAGS, restorer, 0
        .bss
        .balign 4096
source: .skip   135168
target: .skip   135168
closed: .skip   69632
