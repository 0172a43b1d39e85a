/* guest_x86_64.c: the guest's registers for the files that may not know the guest ISA.
 *
 * General registers, flags and vectors lie in struct cpu while C code runs; segment selectors,
 * x87 state and MXCSR stay in the processor. */
#include "emu.h"

#include <string.h>

uint64_t guest_sp(const struct cpu *cpu)
{
    return cpu->reg[GPR_RSP];
}

void guest_set_sp(struct cpu *cpu, uint64_t sp)
{
    cpu->reg[GPR_RSP] = sp;
}

int guest_syscall_number(const struct cpu *cpu)
{
    return (int)cpu->reg[GPR_RAX];
}

static const uint8_t syscall_args[] = {GPR_RDI, GPR_RSI, GPR_RDX, 10, 8, 9};

uint64_t guest_syscall_arg(const struct cpu *cpu, int i)
{
    return cpu->reg[syscall_args[i]];
}

void guest_set_syscall_arg(struct cpu *cpu, int i, uint64_t value)
{
    cpu->reg[syscall_args[i]] = value;
}

void guest_copy_state(struct cpu *to, const struct cpu *from)
{
    memcpy(to->reg, from->reg, sizeof(to->reg));
    memcpy(to->vec, from->vec, sizeof(to->vec));
    to->flags = from->flags;
    to->pc = from->pc;
    to->fs_base = from->fs_base;
    to->gs_base = from->gs_base;
    to->vec_class = from->vec_class;
    to->mxcsr = from->mxcsr;
}

int64_t guest_result(const struct cpu *cpu)
{
    return (int64_t)cpu->reg[GPR_RAX];
}

void guest_set_result(struct cpu *cpu, int64_t value)
{
    cpu->reg[GPR_RAX] = (uint64_t)value;
}

#define FLAGS_START 0x202  /* bit 1 is always set; interrupts are on */
#define MXCSR_START 0x1f80 /* all exceptions masked */

void guest_set_start(struct cpu *cpu, uint64_t pc, uint64_t sp)
{
    memset(cpu->reg, 0, sizeof cpu->reg);
    memset(cpu->vec, 0, sizeof cpu->vec);
    cpu->reg[GPR_RSP] = sp;
    cpu->pc = pc;
    cpu->flags = FLAGS_START;
    cpu->fs_base = cpu->gs_base = 0;
    cpu->mxcsr = MXCSR_START;
}

/* ---- gdb's registers ----------------------------------------------------------------- */

/* FXSAVE area, Intel SDM vol. 1, table 10-2. */
struct fxsave {
    uint16_t fcw, fsw;
    uint8_t ftw, reserved;
    uint16_t fop;
    uint64_t fip, fdp;
    uint32_t mxcsr, mxcsr_mask;
    uint8_t st[8][16];
    uint8_t xmm[16][16];
    uint8_t rest[96];
} __attribute__((aligned(16)));

enum { /* blocks of gdb numbers */
       GDB_RIP = 16,
       GDB_EFLAGS,
       GDB_SEGMENTS,
       GDB_FS_BASE = 24,
       GDB_GS_BASE,
       GDB_K_GS_BASE,
       GDB_CR0,
       GDB_EFER = 32,
       GDB_ST,
       GDB_FCTRL = 41,
       GDB_FSTAT,
       GDB_FTAG,
       GDB_XMM = 49,
       GDB_MXCSR = 65,
       GDB_ORIG_RAX,
};

#define CORE  "org.gnu.gdb.i386.core"
#define LINUX "org.gnu.gdb.i386.linux"

/* clang-format off */
const struct guest_register guest_registers[] = {
    {"rax", CORE, 8, false}, {"rbx", CORE, 8, false}, {"rcx", CORE, 8, false},
    {"rdx", CORE, 8, false}, {"rsi", CORE, 8, false}, {"rdi", CORE, 8, false},
    {"rbp", CORE, 8, false}, {"rsp", CORE, 8, false}, {"r8",  CORE, 8, false},
    {"r9",  CORE, 8, false}, {"r10", CORE, 8, false}, {"r11", CORE, 8, false},
    {"r12", CORE, 8, false}, {"r13", CORE, 8, false}, {"r14", CORE, 8, false},
    {"r15", CORE, 8, false}, {"rip", CORE, 8, true},  {"eflags", CORE, 4, false},
    {"cs",  CORE, 4, false}, {"ss",  CORE, 4, false}, {"ds",  CORE, 4, false},
    {"es",  CORE, 4, false}, {"fs",  CORE, 4, false}, {"gs",  CORE, 4, false},
    {"fs_base", CORE, 8, false}, {"gs_base", CORE, 8, false}, {"k_gs_base", CORE, 8, false},
    {"cr0", CORE, 8, false}, {"cr2", CORE, 8, false}, {"cr3", CORE, 8, false},
    {"cr4", CORE, 8, false}, {"cr8", CORE, 8, false}, {"efer", CORE, 8, false},
    {"st0", CORE, 10, false}, {"st1", CORE, 10, false}, {"st2", CORE, 10, false},
    {"st3", CORE, 10, false}, {"st4", CORE, 10, false}, {"st5", CORE, 10, false},
    {"st6", CORE, 10, false}, {"st7", CORE, 10, false},
    {"fctrl", CORE, 4, false}, {"fstat", CORE, 4, false}, {"ftag", CORE, 4, false},
    {"fiseg", CORE, 4, false}, {"fioff", CORE, 4, false}, {"foseg", CORE, 4, false},
    {"fooff", CORE, 4, false}, {"fop", CORE, 4, false},
    {"xmm0",  CORE, 16, false}, {"xmm1",  CORE, 16, false}, {"xmm2",  CORE, 16, false},
    {"xmm3",  CORE, 16, false}, {"xmm4",  CORE, 16, false}, {"xmm5",  CORE, 16, false},
    {"xmm6",  CORE, 16, false}, {"xmm7",  CORE, 16, false}, {"xmm8",  CORE, 16, false},
    {"xmm9",  CORE, 16, false}, {"xmm10", CORE, 16, false}, {"xmm11", CORE, 16, false},
    {"xmm12", CORE, 16, false}, {"xmm13", CORE, 16, false}, {"xmm14", CORE, 16, false},
    {"xmm15", CORE, 16, false}, {"mxcsr", CORE, 4, false},
    {"orig_rax", LINUX, 8, false},
};
/* clang-format on */
const int guest_register_count = sizeof guest_registers / sizeof *guest_registers;
_Static_assert(sizeof guest_registers / sizeof *guest_registers == GDB_ORIG_RAX + 1, "gdb order");

/* gdb's order of the first eight; the rest is the processor's. */
static const uint8_t gdb_gprs[] = {GPR_RAX, GPR_RBX, GPR_RCX, GPR_RDX,
                                   GPR_RSI, GPR_RDI, GPR_RBP, GPR_RSP};

/* Where register n lies in struct cpu, or NULL. */
static void *find_in_cpu(struct cpu *cpu, int n)
{
    if (n < GDB_RIP)
        return &cpu->reg[n < 8 ? gdb_gprs[n] : n];
    if (n >= GDB_XMM && n < GDB_MXCSR)
        return &cpu->vec[64 * (n - GDB_XMM)];
    switch (n) {
    case GDB_RIP:
        return &cpu->pc;
    case GDB_EFLAGS:
        return &cpu->flags;
    case GDB_FS_BASE:
        return &cpu->fs_base;
    case GDB_GS_BASE:
        return &cpu->gs_base;
    case GDB_MXCSR:
        return &cpu->mxcsr;
    default:
        return NULL;
    }
}

/* The guest's fs and gs are null selectors; the other ones are the process's. */
static uint32_t read_selector(int i)
{
    uint16_t sel[6] = {0};
    __asm__("mov %%cs, %0" : "=m"(sel[0]));
    __asm__("mov %%ss, %0" : "=m"(sel[1]));
    __asm__("mov %%ds, %0" : "=m"(sel[2]));
    __asm__("mov %%es, %0" : "=m"(sel[3]));
    return sel[i];
}

/* Control registers read as the constants QEMU's user mode shows: cr0 cr2 cr3 cr4 cr8 efer. */
static const uint32_t control_registers[] = {0x80010001, 0, 0, 0x50220, 0, 0x500};

static struct fxsave read_fxsave(void)
{
    struct fxsave area;
    __asm__ volatile("fxsave64 %0" : "=m"(area));
    return area;
}

/* What is neither in struct cpu nor a plain number of the x87 unit reads 0, as in QEMU. */
static uint64_t read_special(int n)
{
    if (n >= GDB_SEGMENTS && n < GDB_FS_BASE)
        return read_selector(n - GDB_SEGMENTS);
    if (n >= GDB_CR0 && n <= GDB_EFER)
        return control_registers[n - GDB_CR0];
    if (n == GDB_FCTRL)
        return read_fxsave().fcw;
    if (n == GDB_FSTAT)
        return read_fxsave().fsw;
    return 0;
}

size_t guest_read_register(struct cpu *cpu, int gdb_number, uint8_t *buf)
{
    if (gdb_number < 0 || gdb_number >= guest_register_count)
        return 0;
    size_t size = guest_registers[gdb_number].size;
    const void *place = find_in_cpu(cpu, gdb_number);
    if (place) {
        memcpy(buf, place, size);
    } else if (gdb_number >= GDB_ST && gdb_number < GDB_FCTRL) {
        memcpy(buf, read_fxsave().st[gdb_number - GDB_ST], size);
    } else {
        uint64_t value = read_special(gdb_number);
        memcpy(buf, &value, size);
    }
    return size;
}

bool guest_write_register(struct cpu *cpu, int gdb_number, const uint8_t *buf)
{
    if (gdb_number < 0 || gdb_number >= guest_register_count ||
        guest_registers[gdb_number].read_only)
        return false;
    size_t size = guest_registers[gdb_number].size;
    void *place = find_in_cpu(cpu, gdb_number);
    if (place) {
        memcpy(place, buf, size);
    } else if (gdb_number >= GDB_ST && gdb_number < GDB_FCTRL) {
        struct fxsave area = read_fxsave();
        memcpy(area.st[gdb_number - GDB_ST], buf, size);
        __asm__ volatile("fxrstor64 %0" : : "m"(area));
    } else if (gdb_number == GDB_FCTRL) {
        __asm__ volatile("fldcw %0" : : "m"(*(const uint16_t *)buf));
    }
    return true;
}
