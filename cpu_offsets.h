/* cpu_offsets.h: where generated code and entry_x86_64.S find the fields of struct cpu.
 * emu.h asserts every one of them beside the struct. */
#ifndef CPU_OFFSETS_H
#define CPU_OFFSETS_H

#define CPU_SELF         0
#define CPU_REG          8 /* 16 x 8 */
#define CPU_FLAGS        136
#define CPU_PC           144
#define CPU_FS_BASE      152
#define CPU_GS_BASE      160
#define CPU_HOST_FS      168
#define CPU_HOST_SP      176
#define CPU_SLOT         184 /* 8 x 8 */
#define CPU_JUMP         248
#define CPU_BACK         256
#define CPU_EXIT_REASON  264
#define CPU_EXIT_ARG     272
#define CPU_VEC_CLASS    280
#define CPU_FEATURES     288
#define CPU_MXCSR        296
#define CPU_VADDR        304 /* 4 x 8 */
#define CPU_PENDING      336
#define CPU_BARE         341
#define CPU_VECTOR_FRAME 344
#define CPU_HOLDS_LOCK   352
#define CPU_VEC          384 /* zmm0-31, then k0-7 */
#define CPU_VEC_K        (CPU_VEC + 2048)

/* Where jit_exit_miss looks a target up: entries of 16 bytes at LARGE_TABLE, by the low bits and
 * those above, as targets that share an entry of a smaller table have the low ones in common. */
#define LARGE_TABLE      0x34600000
#define LARGE_MASK       0xffff
#define LARGE_SHIFT      15

/* cpu->features */
#define FEATURE_FSGSBASE 1
#define FEATURE_AVX      2
#define FEATURE_AVX512   4
#define FEATURE_XINUSE   8 /* xgetbv with ecx = 1 */

/* enum exit_reason, for the assembler */
#define EXIT_LOOKUP      0
#define EXIT_MISS        1
#define EXIT_LINK        2
#define EXIT_SYSCALL     3
#define EXIT_SYSRET      4
#define EXIT_TRAP        5
#define EXIT_STALE       6
#define EXIT_RETURN      7

#define EXEC_CANCELLED   -516 /* result of jit_exec: none that the kernel gives to programs */

#endif
