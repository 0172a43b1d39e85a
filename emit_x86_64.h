/* emit_x86_64.h: the host encoder. Writes x86_64 code; the only place that does. Functions are
 * named by operand shape and each shows the assembly it makes. Knows nothing of the guest.
 *
 *   emit_copy          bytes of an instruction as they are
 *   emit_load/store_gs mov r64 <-> gs:[disp32]
 *   emit_*_gs_imm      op qword gs:[disp32], imm32
 *   emit_op_*          op with a ModRM operand, chosen by emit_modrm
 *   emit_jmp/jcc/call  rel32 to a host address
 *   emit_hole_*        the same with the displacement where one aligned store can change it
 *
 * No function checks for space: the caller does, once per guest instruction. */
#ifndef EMIT_X86_64_H
#define EMIT_X86_64_H

#include "emu.h"

#include <string.h>

/* p + shift is where the code will run; shift is 0 but when a block is lowered again to find
 * out what its instruction at watch stands for: found then has the answer. */
struct emit {
    uint8_t *p;
    ptrdiff_t shift;
    const uint8_t *watch, *next_clean; /* next_clean: the next address with roll.clean behind it */
    struct roll now, found;
    bool has_found;
};

enum { CC_O, CC_NO, CC_B, CC_AE, CC_E, CC_NE, CC_BE, CC_A, CC_S, CC_NS, CC_P, CC_NP, CC_L, CC_GE };

static inline uint8_t *emit_here(const struct emit *e)
{
    return e->p + e->shift;
}

/* The first instruction to begin at an address counts: guest instructions that take no code share
 * it with the next. */
static void emit_compare(struct emit *e)
{
    if (emit_here(e) == e->watch && !e->has_found) {
        e->found = e->now;
        e->has_found = true;
    } else if (e->has_found && e->now.clean && !e->next_clean) {
        e->next_clean = emit_here(e);
    }
}

/* Begins a host instruction. */
static inline void emit_mark(struct emit *e)
{
    if (e->watch)
        emit_compare(e);
}

static inline void emit_u8(struct emit *e, unsigned byte)
{
    *e->p++ = (uint8_t)byte;
}

static inline void emit_u32(struct emit *e, uint64_t value)
{
    uint32_t word = (uint32_t)value;
    memcpy(e->p, &word, 4);
    e->p += 4;
}

static inline void emit_u64(struct emit *e, uint64_t value)
{
    memcpy(e->p, &value, 8);
    e->p += 8;
}

static inline bool fits_i32(int64_t value)
{
    return value == (int32_t)value;
}

static inline void emit_copy(struct emit *e, const uint8_t *code, size_t len)
{
    emit_mark(e);
    memcpy(e->p, code, len);
    e->p += len;
}

/* Prefix and opcode of a 64-bit operation on gs:[disp]; ModRM reg field is reg. */
static inline void emit_gs(struct emit *e, unsigned opcode, int reg, int32_t disp)
{
    emit_mark(e);
    emit_u8(e, 0x65);
    emit_u8(e, 0x48 | (reg >> 3 << 2));
    emit_u8(e, opcode);
    emit_u8(e, 0x04 | (reg & 7) << 3);
    emit_u8(e, 0x25);
    emit_u32(e, (uint32_t)disp);
}

/* mov reg, gs:[disp] */
static inline void emit_load_gs(struct emit *e, int reg, int32_t disp)
{
    emit_gs(e, 0x8b, reg, disp);
}

/* mov reg, gs:[base + disp], always with four bytes of disp; neither register is above rdi */
static inline void emit_load_gs_base(struct emit *e, int reg, int base, int32_t disp)
{
    emit_mark(e);
    emit_u8(e, 0x65);
    emit_u8(e, 0x48);
    emit_u8(e, 0x8b);
    emit_u8(e, 0x80 | (unsigned)reg << 3 | (unsigned)base);
    emit_u32(e, (uint32_t)disp);
}

/* mov gs:[disp], reg */
static inline void emit_store_gs(struct emit *e, int32_t disp, int reg)
{
    emit_gs(e, 0x89, reg, disp);
}

/* add qword gs:[disp], imm; changes the flags */
static inline void emit_add_gs_imm(struct emit *e, int32_t disp, int32_t imm)
{
    bool byte = imm == (int8_t)imm;
    emit_gs(e, byte ? 0x83 : 0x81, 0, disp);
    if (byte)
        emit_u8(e, (uint8_t)imm);
    else
        emit_u32(e, (uint32_t)imm);
}

/* mov dword gs:[disp], imm */
static inline void emit_store_gs_imm32(struct emit *e, int32_t disp, uint32_t imm)
{
    emit_mark(e);
    emit_u8(e, 0x65);
    emit_u8(e, 0xc7);
    emit_u8(e, 0x04);
    emit_u8(e, 0x25);
    emit_u32(e, (uint32_t)disp);
    emit_u32(e, imm);
}

/* mov word gs:[disp], imm */
static inline void emit_store_gs_imm16(struct emit *e, int32_t disp, unsigned imm)
{
    emit_mark(e);
    emit_u8(e, 0x65);
    emit_u8(e, 0x66);
    emit_u8(e, 0xc7);
    emit_u8(e, 0x04);
    emit_u8(e, 0x25);
    emit_u32(e, (uint32_t)disp);
    emit_u8(e, imm & 0xff);
    emit_u8(e, imm >> 8);
}

/* mov qword gs:[disp], imm */
static inline void emit_store_gs_imm(struct emit *e, int32_t disp, uint64_t imm)
{
    if (fits_i32((int64_t)imm)) {
        emit_gs(e, 0xc7, 0, disp);
        emit_u32(e, imm);
    } else {
        emit_store_gs_imm32(e, disp, (uint32_t)imm);
        emit_store_gs_imm32(e, disp + 4, (uint32_t)(imm >> 32));
    }
}

/* mov dword [address], imm */
static inline void emit_store_abs_imm32(struct emit *e, uint32_t address, uint32_t imm)
{
    emit_mark(e);
    emit_u8(e, 0xc7);
    emit_u8(e, 0x04);
    emit_u8(e, 0x25);
    emit_u32(e, address);
    emit_u32(e, imm);
}

/* mov reg, imm, by the shortest form; flags stay */
static inline void emit_mov_imm(struct emit *e, int reg, uint64_t imm)
{
    emit_mark(e);
    if (imm == (uint32_t)imm) {
        if (reg > 7)
            emit_u8(e, 0x41);
        emit_u8(e, 0xb8 | (reg & 7));
        emit_u32(e, imm);
    } else if (fits_i32((int64_t)imm)) {
        emit_u8(e, 0x48 | reg >> 3);
        emit_u8(e, 0xc7);
        emit_u8(e, 0xc0 | (reg & 7));
        emit_u32(e, imm);
    } else {
        emit_u8(e, 0x48 | reg >> 3);
        emit_u8(e, 0xb8 | (reg & 7));
        emit_u64(e, imm);
    }
}

/* mov reg, imm64, always by the long form */
static inline void emit_mov_imm64(struct emit *e, int reg, uint64_t imm)
{
    emit_mark(e);
    emit_u8(e, 0x48 | reg >> 3);
    emit_u8(e, 0xb8 | (reg & 7));
    emit_u64(e, imm);
}

/* A two-byte VEX instruction of map 0F without memory, with a low register in ModRM.reg. */
static inline void emit_vex(struct emit *e, unsigned w_l_pp, unsigned opcode, int reg, int rm)
{
    emit_mark(e);
    emit_u8(e, 0xc4);
    emit_u8(e, rm > 7 ? 0xc1 : 0xe1);
    emit_u8(e, 0x78 | w_l_pp);
    emit_u8(e, opcode);
    emit_u8(e, 0xc0 | reg << 3 | (rm & 7));
}

/* kmovq reg, k */
static inline void emit_kmovq(struct emit *e, int reg, int k)
{
    emit_vex(e, 0x83, 0x93, reg, k);
}

/* vmovmskps, vmovmskpd reg, ymm */
static inline void emit_movmsk(struct emit *e, bool wide, int reg, int ymm)
{
    emit_vex(e, wide ? 5 : 4, 0x50, reg, ymm);
}

/* rdx = number of the lowest n bits (1 to 64) that are set in it; changes the flags */
static inline void emit_count_bits_rdx(struct emit *e, unsigned n)
{
    if (n < 64) { /* shl rdx, 64 - n */
        emit_mark(e);
        emit_u32(e, 0xe2c148 | (uint32_t)(64 - n) << 24);
    }
    emit_mark(e);
    emit_u32(e, 0xb80f48f3); /* popcnt rdx, rdx */
    emit_u8(e, 0xd2);
}

/* sub rdx, rcx */
static inline void emit_sub_rdx_rcx(struct emit *e)
{
    emit_mark(e);
    emit_u8(e, 0x48);
    emit_u8(e, 0x29);
    emit_u8(e, 0xca);
}

/* imul rdx, rdx, imm; changes the flags */
static inline void emit_multiply_rdx(struct emit *e, int32_t imm)
{
    emit_mark(e);
    emit_u8(e, 0x48);
    emit_u8(e, 0x69);
    emit_u8(e, 0xd2);
    emit_u32(e, (uint32_t)imm);
}

/* add gs:[disp], reg; changes the flags */
static inline void emit_add_gs(struct emit *e, int32_t disp, int reg)
{
    emit_gs(e, 0x01, reg, disp);
}

/* lahf ; seto al */
static inline void emit_save_flags(struct emit *e)
{
    emit_mark(e);
    emit_u8(e, 0x9f);
    emit_mark(e);
    emit_u8(e, 0x0f);
    emit_u8(e, 0x90);
    emit_u8(e, 0xc0);
}

/* add al, 0x7f (sets OF if al is 1) ; sahf */
static inline void emit_restore_flags(struct emit *e)
{
    emit_mark(e);
    emit_u8(e, 0x04);
    emit_u8(e, 0x7f);
    emit_mark(e);
    emit_u8(e, 0x9e);
}

/* The one place that chooses ModRM, SIB and displacement: operand [base + disp], any base. */
static inline void emit_modrm(struct emit *e, int reg, int base, int32_t disp)
{
    unsigned mod = disp == 0 && (base & 7) != GPR_RBP ? 0x00 : disp == (int8_t)disp ? 0x40 : 0x80;
    emit_u8(e, mod | (reg & 7) << 3 | (base & 7));
    if ((base & 7) == GPR_RSP)
        emit_u8(e, 0x24);
    if (mod == 0x40)
        emit_u8(e, (uint8_t)disp);
    else if (mod == 0x80)
        emit_u32(e, (uint32_t)disp);
}

/* op reg64, [base + disp]: opcode 0x8b loads, 0x89 stores, 0x8d is lea */
static inline void emit_op_rm(struct emit *e, unsigned opcode, int reg, int base, int32_t disp)
{
    emit_mark(e);
    emit_u8(e, 0x48 | reg >> 3 << 2 | base >> 3);
    emit_u8(e, opcode);
    emit_modrm(e, reg, base, disp);
}

/* add qword [base], imm32: opcode 0x81; mov qword [base], imm32: opcode 0xc7 (both /0) */
static inline void emit_op_m_imm(struct emit *e, unsigned opcode, int base, int32_t imm)
{
    emit_op_rm(e, opcode, 0, base, 0);
    emit_u32(e, (uint32_t)imm);
}

/* cmp reg, [base + disp] with the low size bytes of reg (8 4 2 1); reg and base low */
static inline void emit_cmp_sized(struct emit *e, unsigned size, int reg, int base, int32_t disp)
{
    emit_mark(e);
    if (size == 8)
        emit_u8(e, 0x48);
    else if (size == 2)
        emit_u8(e, 0x66);
    emit_u8(e, size == 1 ? 0x3a : 0x3b);
    emit_modrm(e, reg, base, disp);
}

/* mov reg8, [base + disp]; both low */
static inline void emit_load_byte(struct emit *e, int reg, int base, int32_t disp)
{
    emit_mark(e);
    emit_u8(e, 0x8a);
    emit_modrm(e, reg, base, disp);
}

/* Prefixes of an operation on size bytes (8 4 2 1) of memory; low registers. */
static inline void emit_sized(struct emit *e, unsigned size, bool lock)
{
    emit_mark(e);
    if (lock)
        emit_u8(e, 0xf0);
    if (size == 8)
        emit_u8(e, 0x48);
    else if (size == 2)
        emit_u8(e, 0x66);
}

/* op [base + disp], imm32: opcode 0x81 with ext 0 add, 7 cmp; 0xc7 with 0 mov */
static inline void emit_sized_imm(struct emit *e, unsigned size, bool lock, unsigned opcode,
                                  int ext, int base, int32_t disp, int32_t imm)
{
    emit_sized(e, size, lock);
    emit_u8(e, size == 1 ? opcode - 1 : opcode);
    emit_modrm(e, ext, base, disp);
    unsigned len = size < 4 ? size : 4;
    memcpy(e->p, &imm, len);
    e->p += len;
}

/* op [base + disp], reg: opcode 0x01 add, 0x39 cmp, 0x89 mov */
static inline void emit_sized_reg(struct emit *e, unsigned size, bool lock, unsigned opcode,
                                  int reg, int base, int32_t disp)
{
    emit_sized(e, size, lock);
    emit_u8(e, size == 1 ? opcode - 1 : opcode);
    emit_modrm(e, reg, base, disp);
}

/* lock cmpxchg dword [base + disp], reg */
static inline void emit_lock_cmpxchg(struct emit *e, int reg, int base, int32_t disp)
{
    emit_sized(e, 4, true);
    emit_u8(e, 0x0f);
    emit_u8(e, 0xb1);
    emit_modrm(e, reg, base, disp);
}

/* lea reg, [base + index] */
static inline void emit_lea_index(struct emit *e, int reg, int base, int index)
{
    emit_mark(e);
    emit_u8(e, 0x48 | reg >> 3 << 2 | index >> 3 << 1 | base >> 3);
    emit_u8(e, 0x8d);
    emit_u8(e, 0x44 | (reg & 7) << 3);
    emit_u8(e, (index & 7) << 3 | (base & 7));
    emit_u8(e, 0);
}

/* not reg; flags stay */
static inline void emit_not(struct emit *e, int reg)
{
    emit_mark(e);
    emit_u8(e, 0x48 | reg >> 3);
    emit_u8(e, 0xf7);
    emit_u8(e, 0xd0 | (reg & 7));
}

/* movzx ecx, cx */
static inline void emit_movzx_ecx_cx(struct emit *e)
{
    emit_mark(e);
    emit_u8(e, 0x0f);
    emit_u8(e, 0xb7);
    emit_u8(e, 0xc9);
}

/* movzx ecx, word gs:[disp] */
static inline void emit_movzx_ecx_gs16(struct emit *e, int32_t disp)
{
    emit_mark(e);
    emit_u8(e, 0x65);
    emit_u8(e, 0x0f);
    emit_u8(e, 0xb7);
    emit_u8(e, 0x0c);
    emit_u8(e, 0x25);
    emit_u32(e, (uint32_t)disp);
}

/* movzx ecx, ax */
static inline void emit_movzx_ecx_ax(struct emit *e)
{
    emit_mark(e);
    emit_u8(e, 0x0f);
    emit_u8(e, 0xb7);
    emit_u8(e, 0xc8);
}

/* movzx ecx, byte [rcx + table] */
static inline void emit_movzx_ecx_table(struct emit *e, uint64_t table)
{
    emit_mark(e);
    emit_u8(e, 0x0f);
    emit_u8(e, 0xb6);
    emit_u8(e, 0x89);
    emit_u32(e, table);
}

/* mov ecx, [rsp] */
static inline void emit_mov_ecx_stack(struct emit *e)
{
    emit_mark(e);
    emit_u8(e, 0x8b);
    emit_u8(e, 0x0c);
    emit_u8(e, 0x24);
}

/* pext ecx, ecx, [mask], address below 2 GiB; flags stay */
static inline void emit_pext_ecx(struct emit *e, uint64_t mask)
{
    emit_mark(e);
    emit_u8(e, 0xc4);
    emit_u8(e, 0xe2);
    emit_u8(e, 0x72);
    emit_u8(e, 0xf5);
    emit_u8(e, 0x0c);
    emit_u8(e, 0x25);
    emit_u32(e, mask);
}

/* movzx ecx, word [rsp] */
static inline void emit_movzx_ecx_stack(struct emit *e)
{
    emit_mark(e);
    emit_u8(e, 0x0f);
    emit_u8(e, 0xb7);
    emit_u8(e, 0x0c);
    emit_u8(e, 0x24);
}

/* mov ecx, [table + rcx * 4] */
static inline void emit_mov_ecx_table(struct emit *e, uint64_t table)
{
    emit_mark(e);
    emit_u8(e, 0x8b);
    emit_u8(e, 0x0c);
    emit_u8(e, 0x8d);
    emit_u32(e, table);
}

/* jmp [table + rcx * 8] */
static inline void emit_jmp_rcx_table(struct emit *e, uint64_t table)
{
    emit_mark(e);
    emit_u8(e, 0xff);
    emit_u8(e, 0x24);
    emit_u8(e, 0xcd);
    emit_u32(e, table);
}

/* push imm32, sign-extended */
static inline void emit_push_imm(struct emit *e, int32_t imm)
{
    emit_mark(e);
    emit_u8(e, 0x68);
    emit_u32(e, (uint32_t)imm);
}

/* push qword [address], address below 2 GiB */
static inline void emit_push_abs(struct emit *e, uint64_t address)
{
    emit_mark(e);
    emit_u8(e, 0xff);
    emit_u8(e, 0x34);
    emit_u8(e, 0x25);
    emit_u32(e, address);
}

/* rdfsbase reg */
static inline void emit_rdfsbase(struct emit *e, int reg)
{
    emit_mark(e);
    emit_u8(e, 0xf3);
    emit_u8(e, 0x48 | reg >> 3);
    emit_u8(e, 0x0f);
    emit_u8(e, 0xae);
    emit_u8(e, 0xc0 | (reg & 7));
}

/* push reg */
static inline void emit_push(struct emit *e, int reg)
{
    emit_mark(e);
    if (reg > 7)
        emit_u8(e, 0x41);
    emit_u8(e, 0x50 | (reg & 7));
}

/* pop reg */
static inline void emit_pop(struct emit *e, int reg)
{
    emit_mark(e);
    if (reg > 7)
        emit_u8(e, 0x41);
    emit_u8(e, 0x58 | (reg & 7));
}

/* mov reg32, gs:[disp]; low register */
static inline void emit_load_gs32(struct emit *e, int reg, int32_t disp)
{
    emit_mark(e);
    emit_u8(e, 0x65);
    emit_u8(e, 0x8b);
    emit_u8(e, 0x04 | reg << 3);
    emit_u8(e, 0x25);
    emit_u32(e, (uint32_t)disp);
}

/* cmp dword gs:[disp], 0 */
static inline void emit_test_gs32(struct emit *e, int32_t disp)
{
    emit_mark(e);
    emit_u8(e, 0x65);
    emit_u8(e, 0x83);
    emit_u8(e, 0x3c);
    emit_u8(e, 0x25);
    emit_u32(e, (uint32_t)disp);
    emit_u8(e, 0);
}

/* cmp qword gs:[disp], imm32; changes the flags */
static inline void emit_cmp_gs_imm(struct emit *e, int32_t disp, int32_t imm)
{
    emit_gs(e, 0x81, 7, disp);
    emit_u32(e, (uint32_t)imm);
}

/* movups [rsp + disp], xmm: opcode 0x11; movups xmm, [rsp + disp]: 0x10 */
static inline void emit_movups(struct emit *e, unsigned opcode, int xmm, int32_t disp)
{
    emit_mark(e);
    if (xmm > 7)
        emit_u8(e, 0x44);
    emit_u8(e, 0x0f);
    emit_u8(e, opcode);
    emit_modrm(e, xmm, GPR_RSP, disp);
}

/* pushfq ; or qword [rsp], 0x100 ; popfq: the processor traps from the next instruction on */
static inline void emit_set_trap_flag(struct emit *e)
{
    emit_u8(e, 0x9c);
    emit_u8(e, 0x48);
    emit_u8(e, 0x81);
    emit_modrm(e, 1, GPR_RSP, 0);
    emit_u32(e, 0x100);
    emit_u8(e, 0x9d);
}

static inline void emit_ret(struct emit *e)
{
    emit_mark(e);
    emit_u8(e, 0xc3);
}

static inline void emit_syscall(struct emit *e)
{
    emit_mark(e);
    emit_u8(e, 0x0f);
    emit_u8(e, 0x05);
}

/* Displacement field that leads to target. */
static inline void emit_rel32(struct emit *e, const uint8_t *target)
{
    emit_u32(e, (uint64_t)(target - (emit_here(e) + 4)));
}

static inline void emit_jmp(struct emit *e, const uint8_t *target)
{
    emit_mark(e);
    emit_u8(e, 0xe9);
    emit_rel32(e, target);
}

static inline void emit_jcc(struct emit *e, int cc, const uint8_t *target)
{
    emit_mark(e);
    emit_u8(e, 0x0f);
    emit_u8(e, 0x80 | cc);
    emit_rel32(e, target);
}

static inline void emit_call(struct emit *e, const uint8_t *target)
{
    emit_mark(e);
    emit_u8(e, 0xe8);
    emit_rel32(e, target);
}

/* call [rip + ...]: the word at pointer is the target's address */
static inline void emit_call_through(struct emit *e, const uint8_t *pointer)
{
    emit_mark(e);
    emit_u8(e, 0xff);
    emit_u8(e, 0x15);
    emit_rel32(e, pointer);
}

/* jmp [rip + 2] ; nop ; nop ; .quad target, which is aligned if the code is: the guest may have
 * alignment checks on */
static inline void emit_jmp_far(struct emit *e, uint64_t target)
{
    emit_mark(e);
    emit_u8(e, 0xff);
    emit_u8(e, 0x25);
    emit_u32(e, 2);
    emit_u8(e, 0x90);
    emit_u8(e, 0x90);
    emit_u64(e, target);
}

/* Pads with nops so that a 4-byte field behind the next lead bytes stays in one cache line: an
 * aligned line is what other processors fetch at once. */
static inline void emit_align_hole(struct emit *e, unsigned lead)
{
    static const uint8_t nops[3][3] = {{0x90}, {0x66, 0x90}, {0x0f, 0x1f, 0x00}};
    unsigned in_line = ((uintptr_t)emit_here(e) + lead) & 63;
    if (in_line > 60)
        emit_copy(e, nops[63 - in_line], 64 - in_line);
}

/* jmp rel32 / call rel32 / jcc rel32, each with a displacement that may change while it runs.
 * They return the address of the displacement. */
static inline uint8_t *emit_hole_jmp(struct emit *e, const uint8_t *target)
{
    emit_align_hole(e, 1);
    emit_jmp(e, target);
    return emit_here(e) - 4;
}

static inline uint8_t *emit_hole_call(struct emit *e, const uint8_t *target)
{
    emit_align_hole(e, 1);
    emit_call(e, target);
    return emit_here(e) - 4;
}

static inline uint8_t *emit_hole_jcc(struct emit *e, int cc, const uint8_t *target)
{
    emit_align_hole(e, 2);
    emit_jcc(e, cc, target);
    return emit_here(e) - 4;
}

/* jrcxz / loop and the like (opcode e0..e3, optional 67 prefix) over the next skip bytes */
static inline void emit_short(struct emit *e, unsigned prefix, unsigned opcode, unsigned skip)
{
    emit_mark(e);
    if (prefix)
        emit_u8(e, prefix);
    emit_u8(e, opcode);
    emit_u8(e, skip);
}

#endif
