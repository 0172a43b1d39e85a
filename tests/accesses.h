/* accesses.h: instructions and the memory they access, for tests/guest/accesses.c, which executes
 * them, and test_access.c, which compares what a plugin sees.
 *
 *   X(name, feature, align, setup, instruction, accesses, QEMU's)
 *
 * The operand is at rbx, on a page that rsi points to as well; rdi = rbx + 64, rcx = 3. align: the
 * least the operand may be aligned to; 0: the setup needs it, too. accesses: R or W and bytes, in
 * the order in which they are reported. QEMU's: what QEMU 10.2 reports instead, where that is not
 * what the processor does; SAME otherwise. */
#ifndef ACCESSES_H
#define ACCESSES_H

#define SAME      ""
#define NONE      "none" /* QEMU reports nothing */
#define NOT_IN    "?"    /* QEMU does not know the instruction */

#define ALWAYS    "sse2"
#define STACK     "mov %rbx, %rsp\n"
#define TARGET    "lea 1f(%rip), %rax\n mov %rax, (%rbx)\n"
#define GOES_ON   "\n 1:"
#define CONSTANT  ".pushsection .data.rel.ro, \"aw\"\n .balign 8\n 2: .quad 1f\n .popsection\n"
#define MASK_YMM  "vmovdqu access_mask(%rip), %ymm1\n vmovdqu access_data(%rip), %ymm2\n"
#define INDEX_YMM "vmovdqu access_index(%rip), %ymm3\n"
#define INDEX_64  "vpmovsxdq access_index(%rip), %ymm3\n"
#define MASK_K                                                                                     \
    "mov $0xa5a5a5a5a5a5a5a6, %rax\n kmovq %rax, %k1\n vmovdqu64 access_data(%rip), %zmm2\n"
#define INDEX_ZMM    "vmovdqu64 access_index(%rip), %zmm3\n"
#define IMAGE        "mov $7, %eax\n xor %edx, %edx\n"

/* clang-format off */
#define ACCESS_ROWS(X) \
    X(mov_load,      ALWAYS, 1, "", "mov (%rbx), %eax", "R4", SAME) \
    X(mov_own_base,  ALWAYS, 1, "", "mov (%rbx), %rbx", "R8", SAME) \
    X(mov_store,     ALWAYS, 1, "", "mov %rax, 3(%rbx)", "W8", SAME) \
    X(mov_imm,       ALWAYS, 1, "", "movw $0x1234, (%rbx)", "W2", SAME) \
    X(mov_cross,     ALWAYS, 1, "", "mov -3(%rbx), %rax", "R8", SAME) \
    X(moffs_load,    ALWAYS, 0, "", "movabs 0x10001000, %eax", "R4", SAME) \
    X(moffs_store,   ALWAYS, 0, "", "movabs %al, 0x10001001", "W1", SAME) \
    X(moffs_a32,     ALWAYS, 0, "", ".byte 0x67, 0x48, 0xa1, 2, 0x10, 0, 0x10", "R8", SAME) \
    X(movzx,         ALWAYS, 1, "", "movzbl (%rbx), %eax", "R1", SAME) \
    X(movsx,         ALWAYS, 1, "", "movswq (%rbx), %rax", "R2s", SAME) \
    X(movslq,        ALWAYS, 1, "", "movslq (%rbx), %rax", "R4s", SAME) \
    X(movnti,        ALWAYS, 1, "", "movnti %rax, (%rbx)", "W8", SAME) \
    X(movbe_load,    "movbe", 1, "", "movbe (%rbx), %eax", "R4b", SAME) \
    X(movbe_store,   "movbe", 1, "", "movbe %rax, (%rbx)", "W8b", SAME) \
    X(setcc,         ALWAYS, 1, "", "sete (%rbx)", "W1", SAME) \
    X(cmovcc_no,     ALWAYS, 1, "cmp %eax, %eax\n", "cmovne (%rbx), %eax", "R4", SAME) \
    X(mov_from_seg,  ALWAYS, 1, "", "mov %ss, (%rbx)", "W2", SAME) \
    X(index_addr32,  ALWAYS, 1, "mov $2, %eax\n", "mov 4(%ebx, %eax, 8), %cx", "R2", SAME) \
    X(push_reg,      ALWAYS, 8, STACK, "push %rcx", "W8", SAME) \
    X(push_imm,      ALWAYS, 8, STACK, "push $-2", "W8", SAME) \
    X(pushw,         ALWAYS, 2, STACK, "pushw %cx", "W2", SAME) \
    X(push_rsp,      ALWAYS, 8, STACK, "push %rsp", "W8", SAME) \
    X(push_mem,      ALWAYS, 8, STACK, "push 8(%rbx)", "R8 W8", SAME) \
    X(push_fs,       ALWAYS, 8, STACK, "push %fs", "W8", SAME) \
    X(pop_reg,       ALWAYS, 8, STACK, "pop %rcx", "R8", SAME) \
    X(pop_rsp,       ALWAYS, 8, STACK, "pop %rsp", "R8", SAME) \
    X(pop_mem,       ALWAYS, 8, STACK, "pop 32(%rbx)", "R8 W8", SAME) \
    X(pop_mem_rsp,   ALWAYS, 8, STACK, "pop 8(%rsp)", "R8 W8", SAME) \
    X(popf,          ALWAYS, 0, STACK "pushf\n", "popf", "R8", SAME) \
    X(call_rel,      ALWAYS, 8, STACK, "call 1f" GOES_ON, "W8", SAME) \
    X(call_reg,      ALWAYS, 8, STACK "lea 1f(%rip), %rax\n", "call *%rax" GOES_ON, "W8", SAME) \
    X(call_mem,      ALWAYS, 8, STACK TARGET, "call *(%rbx)" GOES_ON, "R8 W8", SAME) \
    X(jmp_mem,       ALWAYS, 8, TARGET, "jmp *(%rbx)" GOES_ON, "R8", SAME) \
    X(call_constant, ALWAYS, 0, STACK CONSTANT, "call *2b(%rip)" GOES_ON, "R8 W8", SAME) \
    X(jmp_constant,  ALWAYS, 0, CONSTANT, "jmp *2b(%rip)" GOES_ON, "R8", SAME) \
    X(ret,           ALWAYS, 8, STACK TARGET, "ret" GOES_ON, "R8", SAME) \
    X(ret_imm,       ALWAYS, 8, STACK TARGET, "ret $16" GOES_ON, "R8", SAME) \
    X(leave,         ALWAYS, 8, "mov %rbx, %rbp\n", "leave", "R8", SAME) \
    X(enter_0,       ALWAYS, 8, STACK, "enter $0, $0", "W8", SAME) \
    X(enter_1,       ALWAYS, 8, STACK, "enter $0, $1", "W8 W8", SAME) \
    X(enter_3,       ALWAYS, 8, STACK "lea 64(%rbx), %rbp\n", "enter $0, $3", "W8 R8 W8 R8 W8 W8", SAME) \
    X(add_store,     ALWAYS, 1, "", "add %ecx, (%rbx)", "R4 W4", SAME) \
    X(add_load,      ALWAYS, 1, "", "add (%rbx), %ecx", "R4", SAME) \
    X(adc_imm,       ALWAYS, 1, "stc\n", "adcb $1, (%rbx)", "R1 W1", SAME) \
    X(cmp,           ALWAYS, 1, "", "cmp %rcx, (%rbx)", "R8", SAME) \
    X(test,          ALWAYS, 1, "", "testw $1, (%rbx)", "R2", SAME) \
    X(imul_imm,      ALWAYS, 1, "", "imul $3, (%rbx), %eax", "R4s", SAME) \
    X(imul_imm64,    ALWAYS, 1, "", "imul $3, (%rbx), %rax", "R8", SAME) \
    X(imul,          ALWAYS, 1, "", "imul (%rbx), %eax", "R4s", SAME) \
    X(imul_one,      ALWAYS, 1, "", "imull (%rbx)", "R4s", SAME) \
    X(mul,           ALWAYS, 1, "", "mulq (%rbx)", "R8", SAME) \
    X(inc,           ALWAYS, 1, "", "incl (%rbx)", "R4 W4", SAME) \
    X(neg,           ALWAYS, 1, "", "negq (%rbx)", "R8 W8", SAME) \
    X(not,           ALWAYS, 1, "", "notb (%rbx)", "R1 W1", SAME) \
    X(shl_0,         ALWAYS, 1, "mov $0, %cl\n", "shll %cl, (%rbx)", "R4 W4", SAME) \
    X(shld,          ALWAYS, 1, "", "shld $4, %rax, (%rbx)", "R8 W8", SAME) \
    X(lock_add,      ALWAYS, 1, "", "lock addl $5, (%rbx)", "R4 W4", SAME) \
    X(lock_neg,      ALWAYS, 1, "", "lock negl (%rbx)", "R4 W4", "R4 R4 W4") \
    X(xchg,          ALWAYS, 1, "", "xchg %rcx, (%rbx)", "R8 W8", SAME) \
    X(xadd,          ALWAYS, 1, "", "lock xadd %ecx, (%rbx)", "R4 W4", SAME) \
    X(cmpxchg_no,    ALWAYS, 1, "xor %eax, %eax\n", "cmpxchg %ecx, (%rbx)", "R4 W4", SAME) \
    X(cmpxchg_yes,   ALWAYS, 1, "mov (%rbx), %eax\n", "lock cmpxchg %ecx, (%rbx)", "R4 W4", SAME) \
    X(cmpxchg8b,     ALWAYS, 1, "", "cmpxchg8b (%rbx)", "R8 W8", SAME) \
    X(cmpxchg16b,    "cmpxchg16b", 16, "", "lock cmpxchg16b (%rbx)", "R16 W16", SAME) \
    X(bt_imm,        ALWAYS, 1, "", "btl $3, (%rbx)", "R4", SAME) \
    X(bts_imm,       ALWAYS, 1, "", "btsl $3, (%rbx)", "R4 W4", SAME) \
    X(bt_far,        ALWAYS, 1, "mov $100, %eax\n", "bt %eax, (%rbx)", "R4", SAME) \
    X(bt_before,     ALWAYS, 1, "mov $-1, %eax\n", "bt %eax, (%rbx)", "R4", SAME) \
    X(btsw_far,      ALWAYS, 1, "mov $20, %eax\n", "btsw %ax, (%rbx)", "R2 W2", SAME) \
    X(btcq_far,      ALWAYS, 1, "mov $200, %eax\n", "lock btcq %rax, (%rbx)", "R8 W8", SAME) \
    X(xlat,          ALWAYS, 1, "mov $0x1205, %eax\n", "xlat", "R1", SAME) \
    X(movs,          ALWAYS, 1, "", "movsl", "R4 W4", SAME) \
    X(movs_overlap,  ALWAYS, 1, "lea 1(%rbx), %rdi\n", "movsq", "R8 W8", SAME) \
    X(stos,          ALWAYS, 1, "", "stosw", "W2", SAME) \
    X(lods,          ALWAYS, 1, "", "lodsb", "R1", SAME) \
    X(scas,          ALWAYS, 1, "", "scasq", "R8", SAME) \
    X(cmps,          ALWAYS, 1, "", "cmpsb", "R1 R1", SAME) \
    X(rep_movs,      ALWAYS, 1, "", "rep movsb", "R1 W1 R1 W1 R1 W1", SAME) \
    X(rep_movs_down, ALWAYS, 1, "std\n", "rep movsw", "R2 W2 R2 W2 R2 W2", SAME) \
    X(rep_stos,      ALWAYS, 1, "", "rep stosl", "W4 W4 W4", SAME) \
    X(rep_lods,      ALWAYS, 1, "", "rep lodsb", "R1 R1 R1", SAME) \
    X(rep_none,      ALWAYS, 1, "xor %ecx, %ecx\n", "rep movsb", "", SAME) \
    X(repne_scas,    ALWAYS, 1, "mov 1(%rdi), %al\n mov $9, %ecx\n", "repne scasb", "R1 R1", SAME) \
    X(repe_cmps,     ALWAYS, 1, "", "repe cmpsb", "R1 R1", SAME) \
    X(movaps_load,   ALWAYS, 16, "", "movaps (%rbx), %xmm0", "R16", SAME) \
    X(movups_store,  ALWAYS, 1, "", "movups %xmm0, (%rbx)", "W16", SAME) \
    X(movntdq,       ALWAYS, 16, "", "movntdq %xmm0, (%rbx)", "W16", SAME) \
    X(paddd,         ALWAYS, 16, "", "paddd (%rbx), %xmm0", "R16", SAME) \
    X(psllw,         ALWAYS, 16, "", "psllw (%rbx), %xmm0", "R16", SAME) \
    X(movss,         ALWAYS, 1, "", "movss (%rbx), %xmm0", "R4", SAME) \
    X(movq,          ALWAYS, 1, "", "movq %xmm0, (%rbx)", "W8", SAME) \
    X(movhps,        ALWAYS, 1, "", "movhps (%rbx), %xmm0", "R8", SAME) \
    X(addsd,         ALWAYS, 1, "pxor %xmm0, %xmm0\n", "addsd (%rbx), %xmm0", "R8", SAME) \
    X(cvtsi2sd,      ALWAYS, 1, "", "cvtsi2sdl (%rbx), %xmm0", "R4", SAME) \
    X(cvtps2pd,      ALWAYS, 1, "", "cvtps2pd (%rbx), %xmm0", "R8", SAME) \
    X(cvtdq2pd,      ALWAYS, 1, "", "cvtdq2pd (%rbx), %xmm0", "R8", "R16") \
    X(pmovzxbw,      "sse4.1", 1, "", "pmovzxbw (%rbx), %xmm0", "R8", SAME) \
    X(pmovsxbq,      "sse4.1", 1, "", "pmovsxbq (%rbx), %xmm0", "R2", SAME) \
    X(pinsrw,        ALWAYS, 1, "", "pinsrw $2, (%rbx), %xmm0", "R2", SAME) \
    X(pextrd,        "sse4.1", 1, "", "pextrd $2, %xmm0, (%rbx)", "W4", SAME) \
    X(mmx_movq,      ALWAYS, 1, "", "movq (%rbx), %mm0", "R8", SAME) \
    X(mmx_punpckl,   ALWAYS, 1, "", "punpcklbw (%rbx), %mm0", "R4", "R8") \
    X(maskmovq,      ALWAYS, 0, "movq access_mask(%rip), %mm1\n movq access_data(%rip), %mm2\n", \
                     "maskmovq %mm1, %mm2", "W1", SAME) \
    X(maskmovdqu,    ALWAYS, 0, "movdqu access_mask(%rip), %xmm1\n movdqu access_data(%rip), %xmm2\n", \
                     "maskmovdqu %xmm1, %xmm2", "W1 W1", SAME) \
    X(avx_load,      "avx", 1, "", "vmovdqu (%rbx), %ymm0", "R16 R16", SAME) \
    X(avx_aligned,   "avx", 32, "", "vmovdqa (%rbx), %ymm0", "R16 R16", SAME) \
    X(avx_store,     "avx", 1, "", "vmovups %ymm0, (%rbx)", "W16 W16", SAME) \
    X(avx_op,        "avx2", 1, "", "vpaddd (%rbx), %ymm0, %ymm0", "R16 R16", SAME) \
    X(vcvtdq2pd,     "avx", 1, "", "vcvtdq2pd (%rbx), %ymm0", "R16", "R16 R16") \
    X(vbroadcastss,  "avx", 1, "", "vbroadcastss (%rbx), %ymm0", "R4", SAME) \
    X(vbroadcast128, "avx", 1, "", "vbroadcastf128 (%rbx), %ymm0", "R16", SAME) \
    X(vextractf128,  "avx", 1, "", "vextractf128 $1, %ymm0, (%rbx)", "W16", SAME) \
    X(vfmadd_ss,     "fma", 1, "", "vfmadd231ss (%rbx), %xmm0, %xmm1", "R4", "R16") \
    X(vcvtph2ps,     "f16c", 1, "", "vcvtph2ps (%rbx), %xmm0", "R8", SAME) \
    X(vcvtps2ph,     "f16c", 1, "", "vcvtps2ph $0, %xmm0, (%rbx)", "W8", SAME) \
    X(vmaskmov_load, "avx2", 1, MASK_YMM, "vpmaskmovd (%rbx), %ymm1, %ymm0", "R4 R4 R4", "R16 R16") \
    X(vmaskmov_none, "avx2", 1, "vpxor %ymm1, %ymm1, %ymm1\n", "vpmaskmovd (%rbx), %ymm1, %ymm0", "", "R16 R16") \
    X(vmaskmov_store, "avx2", 1, MASK_YMM, "vpmaskmovd %ymm2, %ymm1, (%rbx)", "W4 W4 W4", SAME) \
    X(vmaskmovpd,    "avx", 1, MASK_YMM, "vmaskmovpd %ymm2, %ymm1, (%rbx)", "W8 W8", SAME) \
    X(vpgatherdd,    "avx2", 1, MASK_YMM INDEX_YMM, "vpgatherdd %ymm1, (%rbx, %ymm3, 4), %ymm0", "R4 R4 R4", SAME) \
    X(vgatherqps,    "avx2", 1, MASK_YMM INDEX_64, "vgatherqps %xmm1, 4(%rbx, %ymm3, 1), %xmm0", "R4", SAME) \
    X(vpgatherqq,    "avx2", 1, MASK_YMM INDEX_64, "vpgatherqq %ymm1, (%rbx, %ymm3, 2), %ymm0", "R8 R8", SAME) \
    X(evex_load,     "avx512f", 1, "", "vmovdqu64 (%rbx), %zmm0", "R16 R16 R16 R16", NOT_IN) \
    X(evex_store,    "avx512f", 1, MASK_K, "vmovdqu64 %zmm2, (%rbx)", "W16 W16 W16 W16", NOT_IN) \
    X(evex_masked,   "avx512f", 1, MASK_K, "vmovdqu32 (%rbx), %ymm0{%k1}{z}", "R4 R4 R4 R4", NOT_IN) \
    X(evex_masked_b, "avx512bw", 1, MASK_K, "vmovdqu8 %xmm2, (%rbx){%k1}", "W1 W1 W1 W1 W1 W1 W1 W1", NOT_IN) \
    X(evex_op,       "avx512f", 1, MASK_K, "vaddpd (%rbx), %ymm0, %ymm0{%k1}", "R8 R8", NOT_IN) \
    X(evex_bcast,    "avx512f", 1, MASK_K, "vpaddd (%rbx){1to8}, %ymm0, %ymm0{%k1}", "R4", NOT_IN) \
    X(evex_compress, "avx512f", 1, MASK_K, "vpcompressd %ymm2, (%rbx){%k1}", "W4 W4 W4 W4", NOT_IN) \
    X(evex_expand,   "avx512f", 1, MASK_K, "vpexpandq (%rbx), %ymm2{%k1}", "R8 R8", NOT_IN) \
    X(evex_pmovdb,   "avx512f", 1, MASK_K, "vpmovdb %ymm2, (%rbx){%k1}", "W1 W1 W1 W1", NOT_IN) \
    X(evex_pmovsxbw, "avx512bw", 1, MASK_K, "vpmovsxbw (%rbx), %xmm2{%k1}", "R1 R1 R1 R1", NOT_IN) \
    X(evex_gather,   "avx512f", 1, MASK_K INDEX_ZMM, "vpgatherdd (%rbx, %ymm3, 4), %ymm0{%k1}", "R4 R4 R4 R4", NOT_IN) \
    X(evex_scatter,  "avx512f", 1, MASK_K INDEX_ZMM, "vscatterdpd %ymm2, (%rbx, %xmm3, 8){%k1}", "W8 W8", NOT_IN) \
    X(kmovw,         "avx512f", 1, MASK_K, "kmovw %k1, (%rbx)", "W2", NOT_IN) \
    X(fld_s,         ALWAYS, 1, "", "flds (%rbx)", "R4", SAME) \
    X(fstp_l,        ALWAYS, 1, "fld1\n", "fstpl (%rbx)", "W8", SAME) \
    X(fild_16,       ALWAYS, 1, "", "filds (%rbx)", "R2s", SAME) \
    X(fild_32,       ALWAYS, 1, "", "fildl (%rbx)", "R4", SAME) \
    X(fistp_64,      ALWAYS, 1, "fld1\n", "fistpll (%rbx)", "W8", SAME) \
    X(fld_t,         ALWAYS, 1, "", "fldt (%rbx)", "R8 R2", NONE) \
    X(fstp_t,        ALWAYS, 1, "fld1\n", "fstpt (%rbx)", "W8 W2", NONE) \
    X(fbstp,         ALWAYS, 1, "fld1\n", "fbstp (%rbx)", "W8 W2", NONE) \
    X(fnstcw,        ALWAYS, 1, "", "fnstcw (%rbx)", "W2", SAME) \
    X(fldcw,         ALWAYS, 0, "fnstcw (%rbx)\n", "fldcw (%rbx)", "R2", SAME) \
    X(fnstsw,        ALWAYS, 1, "", "fnstsw (%rbx)", "W2", SAME) \
    X(fnstenv,       ALWAYS, 1, "", "fnstenv (%rbx)", "W16 W8 W4", NONE) \
    X(fldenv,        ALWAYS, 0, "fnstenv (%rbx)\n", "fldenv (%rbx)", "R16 R8 R4", NONE) \
    X(fnsave,        ALWAYS, 1, "", "fnsave (%rbx)", "W16 W16 W16 W16 W16 W16 W8 W4", NONE) \
    X(ldmxcsr,       ALWAYS, 0, "stmxcsr (%rbx)\n", "ldmxcsr (%rbx)", "R4", SAME) \
    X(stmxcsr,       ALWAYS, 1, "", "stmxcsr (%rbx)", "W4", SAME) \
    X(fxsave,        ALWAYS, 0, "", "fxsave64 (%rbx)", "26*W16", NONE) \
    X(fxrstor,       ALWAYS, 0, "fxsave64 (%rbx)\n", "fxrstor64 (%rbx)", "26*R16", NONE) \
    X(xsave,         "xsave", 0, IMAGE, "xsave64 (%rbx)", "R8 W16 W8 W8 24*W16 W8 16*W16", NONE) \
    X(xrstor,        "xsave", 0, "lea 512(%rbx), %rdi\n xor %eax, %eax\n mov $64, %ecx\n rep stosb\n" IMAGE \
                     "xsave64 (%rbx)\n", "xrstor64 (%rbx)", "4*R16 R16 R8 R8 8*R16 16*R16 16*R16", NONE) \
    X(xsavec,        "xsavec", 0, "vzeroall\n fninit\n movw $0x27f, (%rbx)\n fldcw (%rbx)\n pcmpeqd %xmm0, %xmm0\n" \
                     IMAGE, "xsavec64 (%rbx)", "W16 W8 W8 24*W16 W16", NONE) \
    X(sgdt,          ALWAYS, 0, "", "sldt (%rbx)", "W2", SAME) \
    X(fs_load,       ALWAYS, 0, "", "mov %fs:0, %rax", "R8", SAME) \
    X(prefetch,      ALWAYS, 0, "", "prefetcht0 (%rbx)", "", SAME) \
    X(nop_mem,       ALWAYS, 0, "", "nopw 8(%rbx)", "", SAME) \
    X(lea,           ALWAYS, 0, "", "lea 8(%rbx), %rax", "", SAME) \
    X(clflush,       ALWAYS, 0, "", "clflush (%rbx)", "", SAME)
/* clang-format on */

#define ACCESS_PAGE  0x10000000ul /* four pages; the operand is at the start of the second */
#define ACCESS_AT    0x10001000ul
#define ACCESS_FROM  (ACCESS_AT - 256) /* what is shown of them */
#define ACCESS_BYTES 1280
#define ACCESS_REACH 160 /* no row with an align goes farther from its operand */

#endif
