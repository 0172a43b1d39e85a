/* entry_x86_64.S: the way into generated code and out of it.
 *
 * Generated code runs with all guest registers live, %gs:0 the struct cpu, and %fs the guest's if
 * there is FSGSBASE. C runs on the thread's own stack with the host's %fs, but for what follows an
 * exit that asks for nothing but code: the guest's stays there until jit_use_libc(). Every exit
 * stores the guest's state to the cpu and returns from jit_enter() with an exit reason; plugin
 * callbacks (jit_call_*) save, call and resume without leaving jit_enter().
 *
 * Nothing here may touch the guest's stack. signal.c knows the ranges between the exported
 * labels: a signal inside them finds the guest's registers partly moved and waits. */

#include "cpu_offsets.h"

#define GS(offset) %gs:offset
#define REG(n)     CPU_REG + 8 * (n)

    .text
    /* absent without CONFIG_PLUGIN */
    .weak plugin_run_op, plugin_run_mem_op, plugin_run_mem_before, plugin_run_mem_after

/* The guest's registers but for rsp, its flags and vectors go to the cpu; the host's direction flag
 * comes back. On the host's stack, 16-byte aligned. Clobbers everything, leaves rbx = cpu. */
.macro save_guest
    mov %rax, GS(REG(0))
    mov %rcx, GS(REG(1))
    mov %rdx, GS(REG(2))
    mov %rbx, GS(REG(3))
    mov %rbp, GS(REG(5))
    mov %rsi, GS(REG(6))
    mov %rdi, GS(REG(7))
    mov %r8, GS(REG(8))
    mov %r9, GS(REG(9))
    mov %r10, GS(REG(10))
    mov %r11, GS(REG(11))
    mov %r12, GS(REG(12))
    mov %r13, GS(REG(13))
    mov %r14, GS(REG(14))
    mov %r15, GS(REG(15))
    mov GS(CPU_SELF), %rbx
    pushfq
    pop %rax
    mov %rax, CPU_FLAGS(%rbx)
    cld
    bt $18, %eax                /* AC: the C side would fault on unaligned words */
    jnc 1f
    push $0x202
    popfq
1:  call jit_save_vec
.endm

    .type jit_save_vec, @function
jit_save_vec:
    stmxcsr CPU_MXCSR(%rbx)
    ldmxcsr default_mxcsr(%rip)
    testb $FEATURE_AVX, CPU_FEATURES(%rbx)
    jz save_xmm
    mov $4, %eax
    testb $FEATURE_XINUSE, CPU_FEATURES(%rbx)
    jz 1f
    mov $1, %ecx
    xgetbv                      /* XINUSE: which components differ from their initial state */
1:  mov %rax, CPU_VEC_CLASS(%rbx)
    test $0x40, %al
    jnz save_zmm
    test $0x04, %al
    jz save_xmm_only
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    vmovdqu %ymm\n, CPU_VEC+64*\n(%rbx)
    .endr
    vzeroupper
    jmp save_upper
save_zmm:
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    vmovdqu64 %zmm\n, CPU_VEC+64*\n(%rbx)
    .endr
    vzeroupper
    jmp save_upper
save_xmm_only:
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    vmovdqu %xmm\n, CPU_VEC+64*\n(%rbx)
    .endr
save_upper:
    test $0x80, %al
    jz 1f
    .irp n, 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    vmovdqu64 %zmm\n, CPU_VEC+64*\n(%rbx)
    .endr
1:  test $0x20, %al
    jz 2f
    .irp n, 0,1,2,3,4,5,6,7
    kmovq %k\n, CPU_VEC_K+8*\n(%rbx)
    .endr
2:  ret
save_xmm:
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    movups %xmm\n, CPU_VEC+64*\n(%rbx)
    .endr
    ret

/* Without FSGSBASE the host's base stays (jit_x86_64.c), and the guest's is what its arch_prctl
 * calls set. */
    .type jit_load_host_fs, @function
jit_load_host_fs:
    testb $FEATURE_FSGSBASE, CPU_FEATURES(%rbx)
    jz 1f
    rdfsbase %rax
    mov %rax, CPU_FS_BASE(%rbx)
    mov CPU_HOST_FS(%rbx), %rax
    wrfsbase %rax
1:  ret

    .type jit_load_guest_fs, @function
jit_load_guest_fs:
    testb $1, CPU_BARE(%rbx)
    movb $0, CPU_BARE(%rbx)
    jnz 1f
    testb $FEATURE_FSGSBASE, CPU_FEATURES(%rbx)
    jz 1f
    mov CPU_FS_BASE(%rbx), %rax
    wrfsbase %rax
1:  ret

/* void jit_use_libc(struct cpu *cpu) */
    .globl jit_use_libc
    .type jit_use_libc, @function
jit_use_libc:
    testb $1, CPU_BARE(%rdi)
    jz 1f
    push %rbx
    mov %rdi, %rbx
    call jit_load_host_fs
    movb $0, CPU_BARE(%rbx)
    pop %rbx
1:  ret

/* void jit_need_libc(void): asks the kernel where the thread's cpu is. */
    .globl jit_need_libc
    .type jit_need_libc, @function
jit_need_libc:
    sub $8, %rsp
    mov $0x1004, %edi           /* ARCH_GET_GS */
    mov %rsp, %rsi
    mov $158, %eax
    syscall
    pop %rdi
    test %rdi, %rdi
    jnz jit_use_libc
    ret

    .type jit_load_vec, @function
jit_load_vec:
    ldmxcsr CPU_MXCSR(%rbx)
    testb $FEATURE_AVX, CPU_FEATURES(%rbx)
    jz load_xmm
    testb $FEATURE_AVX512, CPU_FEATURES(%rbx)
    jz load_lower
    mov $1, %ecx
    xgetbv
    or CPU_VEC_CLASS(%rbx), %eax /* what C has dirtied is set back to zero as well */
    test $0x80, %al
    jz 1f
    .irp n, 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    vmovdqu64 CPU_VEC+64*\n(%rbx), %zmm\n
    .endr
1:  test $0x20, %al
    jz load_lower
    .irp n, 0,1,2,3,4,5,6,7
    kmovq CPU_VEC_K+8*\n(%rbx), %k\n
    .endr
load_lower:
    mov CPU_VEC_CLASS(%rbx), %rax
    vzeroupper
    test $0x40, %al
    jnz load_zmm
    test $0x04, %al
    jz load_xmm_only
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    vmovdqu CPU_VEC+64*\n(%rbx), %ymm\n
    .endr
    ret
load_zmm:
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    vmovdqu64 CPU_VEC+64*\n(%rbx), %zmm\n
    .endr
    ret
load_xmm_only:
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    vmovdqu CPU_VEC+64*\n(%rbx), %xmm\n
    .endr
    ret
load_xmm:
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    movups CPU_VEC+64*\n(%rbx), %xmm\n
    .endr
    ret

/* uint64_t jit_enter(struct cpu *cpu): loads the guest's state and goes on at cpu->jump. */
    .globl jit_enter
    .type jit_enter, @function
jit_enter:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    sub $8, %rsp
    mov %rdi, %rbx
    mov %rsp, CPU_HOST_SP(%rbx)
    mov CPU_JUMP(%rbx), %rax
    mov %rax, CPU_BACK(%rbx)
resume_guest:
    call jit_load_vec
    call jit_load_guest_fs
    pushq CPU_FLAGS(%rbx)
    .globl jit_enter_check
jit_enter_check:                /* a signal waits: step (TF) to the first guest instruction */
    cmpl $0, CPU_PENDING(%rbx)
    je 1f
    orq $0x100, (%rsp)
1:  popfq
    mov GS(REG(0)), %rax
    mov GS(REG(1)), %rcx
    mov GS(REG(2)), %rdx
    mov GS(REG(3)), %rbx
    mov GS(REG(4)), %rsp
    mov GS(REG(5)), %rbp
    mov GS(REG(6)), %rsi
    mov GS(REG(7)), %rdi
    mov GS(REG(8)), %r8
    mov GS(REG(9)), %r9
    mov GS(REG(10)), %r10
    mov GS(REG(11)), %r11
    mov GS(REG(12)), %r12
    mov GS(REG(13)), %r13
    mov GS(REG(14)), %r14
    mov GS(REG(15)), %r15
    .globl jit_enter_jump
jit_enter_jump:
    jmp *GS(CPU_BACK)
return_to_site:                 /* the processor has predicted this return, other than a jump */
    mov GS(CPU_HOST_SP), %rsp
    lea -8(%rsp), %rsp
    ret

/* The guest's state is live; the exit's reason becomes jit_enter()'s result. */
/* An indirect branch or return that the small table sent elsewhere: the large table, in two-word
 * entries (guest pc, host address), knows all targets seen so far. rcx = target; on a hit the
 * macro leaves by slot 4, else it falls through with all registers but rcx as they were. */
.macro try_large_table
    mov %rax, GS(CPU_SLOT+8*2)
    mov %rdx, GS(CPU_SLOT+8*3)
    lahf
    seto %al
    mov %ecx, %edx
    shr $LARGE_SHIFT, %edx
    xor %ecx, %edx
    and $LARGE_MASK, %edx
    shl $4, %edx
    cmp %rcx, LARGE_TABLE(%rdx)
    jne 1f
    mov LARGE_TABLE+8(%rdx), %rdx
    mov %rdx, GS(CPU_SLOT+8*4)
    add $0x7f, %al
    sahf
    mov GS(CPU_SLOT+8*3), %rdx
    mov GS(CPU_SLOT+8*2), %rax
    mov GS(CPU_SLOT), %rcx
    jmp *GS(CPU_SLOT+8*4)
1:  add $0x7f, %al
    sahf
    mov GS(CPU_SLOT+8*3), %rdx
    mov GS(CPU_SLOT+8*2), %rax
.endm

    .globl jit_exit_miss, jit_exit_return, jit_exit_returned
jit_exit_miss:                  /* slots: jit_x86_64.c, "indirect branches" */
    mov GS(CPU_SLOT+8), %rcx
    try_large_table
    mov %rcx, GS(CPU_PC)
    mov GS(CPU_SLOT), %rcx
    movq $EXIT_MISS, GS(CPU_EXIT_REASON)
    jmp leave_bare
jit_exit_return:                /* the guest's return address is on top of the stack */
    pop %rcx
jit_exit_returned:              /* ... in rcx */
    try_large_table
    mov %rcx, GS(CPU_PC)
    mov GS(CPU_SLOT), %rcx
    movq $EXIT_RETURN, GS(CPU_EXIT_REASON)
    jmp leave_bare

    .globl jit_leave
jit_leave:
    .globl jit_exit_lookup, jit_exit_link, jit_exit_syscall, jit_exit_trap
    .globl jit_exit_stale
jit_exit_lookup:
    movq $EXIT_LOOKUP, GS(CPU_EXIT_REASON)
    jmp leave_bare
jit_exit_link:
    movq $EXIT_LINK, GS(CPU_EXIT_REASON)
leave_bare:
    mov %rsp, GS(REG(4))
    mov GS(CPU_HOST_SP), %rsp
    save_guest
    movb $1, CPU_BARE(%rbx)
    jmp return_from_enter
jit_exit_syscall:
    movq $EXIT_SYSCALL, GS(CPU_EXIT_REASON)
    jmp leave_guest
jit_exit_stale:
    movq $EXIT_STALE, GS(CPU_EXIT_REASON)
    jmp leave_guest
jit_exit_trap:
    movq $EXIT_TRAP, GS(CPU_EXIT_REASON)
leave_guest:
    mov %rsp, GS(REG(4))
    mov GS(CPU_HOST_SP), %rsp
    save_guest
    call jit_load_host_fs
return_from_enter:
    mov CPU_EXIT_REASON(%rbx), %rax
    add $8, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret

/* cpu->jump leads here for a syscall that C has looked at and leaves to the kernel: made with
 * all guest registers live, so that a signal finds them. */
    .globl jit_forward_syscall, jit_forward_syscall_made
jit_forward_syscall:
    syscall
jit_forward_syscall_made:
    mov GS(CPU_PC), %rcx
    movq $EXIT_SYSRET, GS(CPU_EXIT_REASON)
    jmp leave_guest

/* cpu->jump leads here for signal.c to change the guest's state as a handler would: the general
 * registers are in the cpu already, the vector and x87 state goes to cpu->vector_frame. The
 * kernel takes all of it from the frame that signal_change_state() makes. */
    .globl jit_raise
jit_raise:
    mov GS(CPU_HOST_SP), %rsp
    push $0x202
    popfq
    mov GS(CPU_SELF), %rbx
    mov CPU_VECTOR_FRAME(%rbx), %rdi
    testb $FEATURE_AVX, CPU_FEATURES(%rbx)
    jz 1f
    mov 472(%rdi), %eax         /* sw_reserved: which components the kernel restores */
    mov 476(%rdi), %edx
    xsave64 (%rdi)
    vzeroupper
    jmp 2f
1:  fxsave64 (%rdi)
2:  ldmxcsr default_mxcsr(%rip)
    call jit_load_host_fs
    mov %rbx, %rdi
    call signal_change_state
    mov %rax, %rsp
    call jit_load_guest_fs
    mov $15, %eax               /* rt_sigreturn */
    syscall

/* Plugin callbacks: called by generated code on the host's stack, with rsp in the cpu already and
 * exit_arg = struct plugin_op. The site loads rsp again. */
    .globl jit_call_op, jit_call_mem_op, jit_call_mem_before, jit_call_mem_after
.macro call_plugin function
    lea -8(%rsp), %rsp
    save_guest
    call jit_load_host_fs
    mov %rbx, %rdi
    mov CPU_EXIT_ARG(%rbx), %rsi
    mov CPU_SLOT+8*5(%rbx), %rdx
    mov CPU_SLOT+8*6(%rbx), %rcx
    movzbl %cl, %eax
    shr $8, %rcx
    add CPU_VADDR(%rbx,%rax,8), %rcx
    call \function
.endm
jit_call_op:
    call_plugin plugin_run_op
    jmp callback_done
jit_call_mem_op:
    call_plugin plugin_run_mem_op
    jmp callback_done
jit_call_mem_before:
    call_plugin plugin_run_mem_before
    jmp callback_done
jit_call_mem_after:
    call_plugin plugin_run_mem_after
callback_done:
    lea return_to_site(%rip), %rax
    mov %rax, CPU_BACK(%rbx)
    jmp resume_guest

/* int64_t jit_exec(long nr, const uint64_t arg[5], const uint64_t *mask): sets the thread's mask of
 * blocked signals and makes the call, which is an execve. A signal between the two makes signal.c
 * go on at jit_exec_cancelled. */
    .globl jit_exec, jit_exec_open, jit_exec_made, jit_exec_cancelled
    .type jit_exec, @function
jit_exec:
    push %rbx
    push %r12
    mov %rdi, %rbx
    mov %rsi, %r12
    mov $2, %edi                /* SIG_SETMASK */
    mov %rdx, %rsi
    xor %edx, %edx
    mov $8, %r10d
    mov $14, %eax               /* rt_sigprocmask */
    syscall
jit_exec_open:
    mov (%r12), %rdi
    mov 8(%r12), %rsi
    mov 16(%r12), %rdx
    mov 24(%r12), %r10
    mov 32(%r12), %r8
    mov %rbx, %rax
    syscall
jit_exec_made:
    pop %r12
    pop %rbx
    ret
jit_exec_cancelled:
    mov $EXEC_CANCELLED, %rax
    jmp jit_exec_made

/* A fault between guest_copy and guest_copy_end makes signal.c go on at guest_copy_fault. */
    .globl guest_copy, guest_replace, guest_copy_end, guest_copy_fault
/* bool guest_copy(void *dst, const void *src, size_t len) */
    .type guest_copy, @function
guest_copy:
    mov %rdx, %rcx
    rep movsb
    mov $1, %eax
    ret
/* bool guest_replace(uint32_t *word, uint32_t *old, uint32_t new) */
    .type guest_replace, @function
guest_replace:
    mov (%rsi), %eax
    lock cmpxchg %edx, (%rdi)
    mov %eax, (%rsi)
    mov $1, %eax
    ret
guest_copy_end:
guest_copy_fault:
    xor %eax, %eax
    ret

/* Host handler of every signal: the interrupted code may have been the guest's with its %fs, so
 * C is reached only with the host's. The base found is put back before the kernel resumes. */
    .globl signal_entry
    .type signal_entry, @function
signal_entry:
    pushq $0x202                /* the guest's AC flag is not for C */
    popfq
    push %rbx
    push %r12
    sub $8, %rsp
    mov GS(CPU_SELF), %rbx
    testb $FEATURE_FSGSBASE, CPU_FEATURES(%rbx)
    jz 1f
    rdfsbase %r12
    mov CPU_HOST_FS(%rbx), %rax
    wrfsbase %rax
    call signal_handle
    wrfsbase %r12
    add $8, %rsp
    pop %r12
    pop %rbx
    ret
1:  call signal_handle
    add $8, %rsp
    pop %r12
    pop %rbx
    ret

/* Kernel's sa_restorer for it. */
    .globl signal_restorer
signal_restorer:
    mov $15, %eax
    syscall

    .section .rodata
    .balign 4
default_mxcsr:
    .long 0x1f80
    .section .note.GNU-stack, "", @progbits
