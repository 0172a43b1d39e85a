/* A program that writes where it has nothing: over the table in which emu finds blocks. Not to be
 * run natively. */
#include "guest.inc"

#define TABLE      0x39000000           /* tb.c: map_meta, behind 64 MiB of code */
#define TABLE_SIZE 0x200000

_start:
        mov     $TABLE, %edi
        mov     $TABLE_SIZE / 8, %ecx
        mov     $-1, %rax
        rep stosq
        lea     lost(%rip), %rdx
        jmp     *%rdx

        .balign 4096
lost:   ud2
        .fill   13, 1, 0x90
