/* trap_x86_64.c: guest instructions that do not run in the cache: traps, privileged and undefined
 * ones, those that name %gs, and the kernel's vsyscall page.
 *
 * Knows the guest ISA and which signal the kernel makes of each exception (arch/x86/kernel/
 * traps.c). */

#include "emu.h"

#include <cpuid.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define TRAP_DB     1 /* exception vectors, the frame's trapno */
#define TRAP_BP     3
#define TRAP_OF     4
#define TRAP_UD     6
#define TRAP_GP     13
#define TRAP_PF     14

#define PROT_ERROR  0x01 /* page fault error code: the page is there */
#define WRITE_ERROR 0x02
#define USER_ERROR  0x04
#define FETCH_ERROR 0x14 /* in user mode */

#define RPL         3 /* of a selector: the privilege asked for */

static void raise_undefined(struct cpu *cpu)
{
    signal_raise(cpu, SIGILL, ILL_ILLOPN, cpu->pc, TRAP_UD, 0);
}

static void raise_protection(struct cpu *cpu, int error)
{
    signal_raise(cpu, SIGSEGV, SI_KERNEL, 0, TRAP_GP, error);
}

static void run_trap(struct cpu *cpu, const struct insn *in)
{
    if (in->map == 1) { /* ud0, ud1, ud2 */
        raise_undefined(cpu);
        return;
    }
    switch (in->opcode) {
    case 0xcc: /* int3: the pc is behind it */
        cpu->pc += in->len;
        signal_raise(cpu, SIGTRAP, SI_KERNEL, 0, TRAP_BP, 0);
        return;
    case 0xf1: /* int1 */
        cpu->pc += in->len;
        signal_raise(cpu, SIGTRAP, TRAP_BRKPT, cpu->pc, TRAP_DB, 0);
        return;
    }
    switch (in->imm & 0xff) { /* int n */
    case 3:
        cpu->pc += in->len;
        signal_raise(cpu, SIGTRAP, SI_KERNEL, 0, TRAP_BP, 0);
        return;
    case 4:
        cpu->pc += in->len;
        signal_raise(cpu, SIGSEGV, SI_KERNEL, 0, TRAP_OF, 0);
        return;
    case 0x80: /* 32-bit system calls: as on a kernel without them */
        cpu->pc += in->len;
        guest_set_result(cpu, -38);
        return;
    default:
        raise_protection(cpu, (int)(in->imm & 0xff) * 8 + 2);
    }
}

static uint64_t address_of(const struct cpu *cpu, const struct insn *in)
{
    const struct mem_op *m = &in->mem[in->mem_index];
    uint64_t address = (uint64_t)(int64_t)m->disp;
    if (m->base == REG_PC)
        address += in->pc + in->len;
    else if (m->base != REG_NONE)
        address += cpu->reg[m->base];
    if (m->index != REG_NONE)
        address += cpu->reg[m->index] * m->scale;
    if (m->seg != SEG_NONE)
        address += m->seg == SEG_FS ? cpu->fs_base : cpu->gs_base;
    return in->flags & INSN_ADDR32 ? (uint32_t)address : address;
}

static int operand_register(const struct insn *in)
{
    return (in->modrm & 7) | (in->rex & 1) << 3;
}

static void raise_page_fault(struct cpu *cpu, uint64_t address, int error)
{
    struct vma vma;
    bool mapped = vma_find(address, &vma);
    signal_raise(cpu, SIGSEGV, mapped ? SEGV_ACCERR : SEGV_MAPERR, address, TRAP_PF,
                 error | USER_ERROR | (mapped && vma.prot != PROT_NONE ? PROT_ERROR : 0));
}

/* Reads n words of size bytes; false: the fault is raised. */
static bool read_words(struct cpu *cpu, uint64_t address, unsigned size, uint64_t *words, int n)
{
    memset(words, 0, (size_t)n * sizeof *words);
    for (int i = 0; i < n; i++, address += size)
        if (!guest_copy(&words[i], (const void *)address, size)) {
            raise_page_fault(cpu, address, 0);
            return false;
        }
    return true;
}

/* Writes a word of size bytes; false: the fault is raised. */
static bool write_word(struct cpu *cpu, uint64_t address, unsigned size, uint64_t word)
{
    if (guest_copy((void *)address, &word, size))
        return true;
    raise_page_fault(cpu, address, WRITE_ERROR);
    return false;
}

/* rdgsbase and wrgsbase: the real base is the cpu's. */
static bool run_gs_base(struct cpu *cpu, const struct insn *in)
{
    uint64_t *reg = &cpu->reg[operand_register(in)];
    uint64_t mask = in->rex & 8 ? UINT64_MAX : UINT32_MAX;
    if (in->map != 1 || in->opcode != 0xae || in->modrm < 0xc0)
        return false;
    if ((in->modrm >> 3 & 7) == 1)
        *reg = cpu->gs_base & mask;
    else
        cpu->gs_base = *reg & mask;
    cpu->pc += in->len;
    return true;
}

/* ---- %fs and %gs as selectors; of %fs only the loads come here ---- */

/* What a load checks, and verr with it: null, or a segment that the program may read. */
static bool is_loadable(uint64_t selector)
{
    bool readable;
    __asm__("verr %w1" : "=@ccz"(readable) : "r"(selector));
    return readable || (selector & ~(uint64_t)RPL) == 0;
}

/* False: the fault is raised. The segments that there are begin at 0. */
static bool load_selector(struct cpu *cpu, const struct insn *in, uint64_t selector)
{
    selector &= 0xffff;
    if (!is_loadable(selector)) {
        raise_protection(cpu, (int)(selector & ~(uint64_t)RPL));
        return false;
    }
    if (in->flags & INSN_SETS_FS) {
        cpu->fs_base = 0;
    } else {
        cpu->gs_base = 0;
        cpu->gs_selector = (uint16_t)selector;
    }
    return true;
}

static bool run_load(struct cpu *cpu, const struct insn *in)
{
    uint64_t selector = cpu->reg[operand_register(in)];
    return (in->modrm >= 0xc0 || read_words(cpu, address_of(cpu, in), 2, &selector, 1)) &&
           load_selector(cpu, in, selector);
}

static bool run_store(struct cpu *cpu, const struct insn *in)
{
    uint64_t *reg = &cpu->reg[operand_register(in)];
    if (in->modrm < 0xc0)
        return write_word(cpu, address_of(cpu, in), 2, cpu->gs_selector);
    *reg = (in->opsize == 2 ? *reg & ~0xffffull : 0) | cpu->gs_selector;
    return true;
}

static bool run_push(struct cpu *cpu, const struct insn *in)
{
    if (!write_word(cpu, guest_sp(cpu) - in->opsize, in->opsize, cpu->gs_selector))
        return false;
    guest_set_sp(cpu, guest_sp(cpu) - in->opsize);
    return true;
}

static bool run_pop(struct cpu *cpu, const struct insn *in)
{
    uint64_t selector;
    if (!read_words(cpu, guest_sp(cpu), in->opsize, &selector, 1) ||
        !load_selector(cpu, in, selector))
        return false;
    guest_set_sp(cpu, guest_sp(cpu) + in->opsize);
    return true;
}

static bool run_selector(struct cpu *cpu, const struct insn *in)
{
    static const struct {
        uint8_t map, opcode;
        bool (*run)(struct cpu *, const struct insn *); /* false: the fault is raised */
    } rows[] = {{0, 0x8e, run_load},
                {0, 0x8c, run_store},
                {1, 0xa8, run_push},
                {1, 0xa9, run_pop},
                {1, 0xa1, run_pop}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (in->map == rows[i].map && in->opcode == rows[i].opcode) {
            if (rows[i].run(cpu, in))
                cpu->pc += in->len;
            return true;
        }
    return false;
}

/* ---- far transfers: there is one code segment to go to, and one for the stack ---- */

#define USER_CS    0x33
#define USER32_CS  0x23
#define USER_SS    0x2b
#define IRET_FLAGS 0x254dd5 /* what iret changes in user mode: also TF, NT, AC, ID */
#define IRET_WORDS 5

/* Where the transfer leads; false: the fault is raised. A jump or call may name the segment with
 * more privilege than it gets. */
static bool check_target(struct cpu *cpu, uint64_t pc, uint64_t selector, bool returns)
{
    selector &= 0xffff;
    bool good = (selector | RPL) == USER_CS && (!returns || selector == USER_CS);
    bool canonical = (uint64_t)((int64_t)(pc << 16) >> 16) == pc;
    if ((selector | RPL) == USER32_CS)
        warn("a far transfer to 32-bit code at 0x%llx is refused", (unsigned long long)pc);
    if (!good || !canonical)
        raise_protection(cpu, good ? 0 : (int)(selector & ~(uint64_t)RPL));
    return good && canonical;
}

static void run_far_return(struct cpu *cpu, const struct insn *in)
{
    uint64_t words[2];
    if (!read_words(cpu, guest_sp(cpu), in->opsize, words, 2) ||
        !check_target(cpu, words[0], words[1], true))
        return;
    cpu->pc = words[0];
    guest_set_sp(cpu, guest_sp(cpu) + 2 * in->opsize + (in->imm_size ? in->imm & 0xffff : 0));
}

static void run_interrupt_return(struct cpu *cpu, const struct insn *in)
{
    uint64_t words[IRET_WORDS]; /* pc, cs, flags, sp, ss */
    uint64_t flags = in->opsize == 2 ? IRET_FLAGS & 0xffff : IRET_FLAGS;
    if (!read_words(cpu, guest_sp(cpu), in->opsize, words, IRET_WORDS) ||
        !check_target(cpu, words[0], words[1], true))
        return;
    if ((words[4] & 0xffff) != USER_SS) {
        raise_protection(cpu, (int)(words[4] & 0xfffc));
        return;
    }
    cpu->pc = words[0];
    cpu->flags = (cpu->flags & ~flags) | (words[2] & flags);
    guest_set_sp(cpu, words[3]);
}

/* AMD's processors know no pointers with 64-bit offsets. */
static unsigned offset_size(const struct insn *in)
{
    unsigned a, b, c, d;
    __cpuid(0, a, b, c, d);
    return in->opsize == 8 && b == signature_AMD_ebx ? 4 : in->opsize;
}

/* jmp and call through a pointer in memory; a call pushes cs and pc in the operand's size. */
static void run_far_branch(struct cpu *cpu, const struct insn *in, bool calls)
{
    uint64_t place = address_of(cpu, in), sp = guest_sp(cpu), offset, selector;
    uint64_t pushed[2] = {cpu->pc + in->len, USER_CS};
    unsigned size = offset_size(in);
    if (!read_words(cpu, place, size, &offset, 1) ||
        !read_words(cpu, place + size, 2, &selector, 1) ||
        !check_target(cpu, offset, selector, false))
        return;
    for (int i = 1; calls && i >= 0; i--) {
        sp -= size;
        if (!write_word(cpu, sp, size, pushed[i]))
            return;
    }
    cpu->pc = offset;
    guest_set_sp(cpu, sp);
}

static bool run_far(struct cpu *cpu, const struct insn *in)
{
    if (in->kind != INSN_FAR || in->map != 0)
        return false;
    if (in->opcode == 0xff)
        run_far_branch(cpu, in, (in->modrm >> 3 & 7) == 3);
    else if (in->opcode == 0xcf)
        run_interrupt_return(cpu, in);
    else
        run_far_return(cpu, in);
    return true;
}

static bool runs_in_cache(const struct insn *in)
{
    return in->kind != INSN_FAR && in->kind != INSN_ILLEGAL &&
           !(in->flags & (INSN_SETS_GS | INSN_USES_GS));
}

void guest_trap(struct cpu *cpu)
{
    struct insn in;
    size_t avail = vma_code_avail(cpu->pc, 15);
    if (decode(&in, (const uint8_t *)cpu->pc, avail, cpu->pc) != DECODE_OK) {
        guest_fetch_fault(cpu);
        return;
    }
    switch (in.kind) {
    case INSN_TRAP:
        qemu_plugin_vcpu_exception(cpu, cpu->pc);
        run_trap(cpu, &in);
        return;
    case INSN_PRIV:
        qemu_plugin_vcpu_exception(cpu, cpu->pc);
        raise_protection(cpu, 0);
        return;
    }
    if ((in.flags & INSN_SETS_GS && run_gs_base(cpu, &in)) ||
        (in.flags & (INSN_SETS_GS | INSN_SETS_FS) && run_selector(cpu, &in)) || run_far(cpu, &in))
        return;
    if (runs_in_cache(&in)) { /* another thread has put it there meanwhile */
        tb_invalidate(cpu->pc, in.len);
        return;
    }
    qemu_plugin_vcpu_exception(cpu, cpu->pc);
    raise_undefined(cpu);
}

/* The processor reports a protection error if the page is there, not merely mapped. */
void guest_fetch_fault(struct cpu *cpu)
{
    struct vma vma;
    unsigned char resident = 0;
    uint64_t address = cpu->pc + vma_code_avail(cpu->pc, 15);
    bool mapped = vma_find(address, &vma);
    if (mapped && vma.prot != PROT_NONE)
        mincore((void *)(address & ~0xfffull), 1, &resident);
    qemu_plugin_vcpu_exception(cpu, cpu->pc);
    signal_raise(cpu, SIGSEGV, mapped ? SEGV_ACCERR : SEGV_MAPERR, address, TRAP_PF,
                 FETCH_ERROR | (resident & 1 ? PROT_ERROR : 0));
}

#define VSYSCALL_PAGE 0xffffffffff600000ull

bool guest_enter_vsyscall(struct cpu *cpu)
{
    static const int numbers[] = {SYS_gettimeofday, SYS_time, SYS_getcpu};
    uint64_t offset = cpu->pc - VSYSCALL_PAGE;
    uint64_t back;
    if (offset >= 0xc00 || offset % 0x400 != 0 ||
        !guest_copy(&back, (const void *)guest_sp(cpu), sizeof(back)))
        return false;
    jit_use_libc(cpu);
    qemu_plugin_vcpu_exception(cpu, cpu->pc);
    guest_set_result(cpu, numbers[offset / 0x400]);
    cpu->pc = back;
    guest_set_sp(cpu, guest_sp(cpu) + sizeof(back));
    return true;
}
