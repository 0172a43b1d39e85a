/* vsyscall.S: asks the kernel's page at the end of the address space for the time. */
#include "guest.inc"

_start: xor     %edi, %edi
        mov     $0xffffffffff600400, %rax
        call    *%rax
        test    %rax, %rax
        jle     1f
        EXIT    3
1:      EXIT    4
