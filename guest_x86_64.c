/* guest_x86_64.c: the guest's registers for the files that may not know the guest ISA.
 *
 * General registers, flags, vectors and MXCSR lie in struct cpu while C code runs, and while a
 * plugin's does the x87 state too; segment selectors stay in the processor. */
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
    to->gs_selector = from->gs_selector;
    to->vec_class = from->vec_class;
    to->mxcsr = from->mxcsr;
}

int64_t guest_result(const struct cpu *cpu)
{
    return (int64_t)cpu->reg[GPR_RAX];
}

/* What the instruction itself changes. The trap flag would be ours. */
void guest_enter_syscall(struct cpu *cpu)
{
    cpu->reg[GPR_RCX] = cpu->pc;
    cpu->reg[11] = cpu->flags & ~(uint64_t)FLAG_TF;
}

#define SYSCALL_LEN 2

int64_t guest_restart_syscall(struct cpu *cpu)
{
    cpu->pc -= SYSCALL_LEN;
    return guest_syscall_number(cpu);
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
    cpu->gs_selector = 0;
    cpu->mxcsr = MXCSR_START;
}

/* ---- vector, mask and x87 registers -------------------------------------------------- */

enum { /* bits of vec_class (XINUSE) */
       CLASS_X87 = 1 << 0,
       CLASS_AVX = 1 << 2,
       CLASS_MASKS = 1 << 5,
       CLASS_ZMM = 1 << 6,
       CLASS_HIGH = 1 << 7, /* zmm16 up */
};

/* Bytes of vector register reg that were stored; what follows is zero. */
static size_t stored_bytes(const struct cpu *cpu, int reg)
{
    if (reg >= 16)
        return cpu->vec_class & CLASS_HIGH ? 64 : 0;
    return cpu->vec_class & CLASS_ZMM ? 64 : cpu->vec_class & CLASS_AVX ? 32 : 16;
}

void guest_read_vector(const struct cpu *cpu, int reg, uint8_t *bytes)
{
    size_t stored = stored_bytes(cpu, reg);
    memcpy(bytes, cpu->vec + 64 * reg, stored);
    memset(bytes + stored, 0, 64 - stored);
}

uint64_t guest_read_mask(const struct cpu *cpu, int reg)
{
    uint64_t value = 0;
    if (cpu->vec_class & CLASS_MASKS)
        memcpy(&value, cpu->vec + 32 * 64 + 8 * reg, sizeof value);
    return value;
}

/* Makes all registers of a class stored ones. */
static void store_class(struct cpu *cpu, uint64_t class)
{
    if (!(cpu->vec_class & class))
        for (int reg = class == CLASS_HIGH ? 16 : 0; reg < (class == CLASS_HIGH ? 32 : 16); reg++)
            guest_read_vector(cpu, reg, cpu->vec + 64 * reg);
    cpu->vec_class |= class;
}

static void write_vector(struct cpu *cpu, int reg, const uint8_t *bytes, size_t size)
{
    if (reg >= 16)
        store_class(cpu, CLASS_HIGH);
    else if (size > 16)
        store_class(cpu, size > 32 ? CLASS_ZMM : CLASS_AVX);
    memcpy(cpu->vec + 64 * reg, bytes, size);
}

static void write_mask(struct cpu *cpu, int reg, const uint8_t *bytes)
{
    if (!(cpu->vec_class & CLASS_MASKS))
        memset(cpu->vec + 32 * 64, 0, 8 * 8);
    cpu->vec_class |= CLASS_MASKS;
    memcpy(cpu->vec + 32 * 64 + 8 * reg, bytes, 8);
}

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
};
_Static_assert(sizeof(struct fxsave) == sizeof(((struct cpu *)0)->x87), "processor's layout");

static struct fxsave *x87_image(const struct cpu *cpu)
{
    return (struct fxsave *)(uintptr_t)cpu->x87;
}

#define ALL_XMM                                                                                    \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",       \
        "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

static bool is_x87_initial(const struct cpu *cpu)
{
    uint32_t low, high;
    if (!(cpu->features & FEATURE_XINUSE))
        return false;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
    return !(low & CLASS_X87);
}

/* The image is complete whether or not the processor's state had to be saved. */
void guest_enter_plugin(struct cpu *cpu)
{
    static const struct fxsave initial = {.fcw = 0x37f, .mxcsr = MXCSR_START};
    cpu->x87_saved = !is_x87_initial(cpu);
    if (cpu->x87_saved)
        __asm__ volatile("fxsave64 %0; fninit" : "=m"(*x87_image(cpu)));
    else
        memcpy(cpu->x87, &initial, offsetof(struct fxsave, xmm));
}

void guest_leave_plugin(struct cpu *cpu)
{
    if (cpu->x87_saved)
        __asm__ volatile("fxrstor64 %0" : : "m"(*x87_image(cpu)) : ALL_XMM);
    else if (!is_x87_initial(cpu))
        __asm__ volatile("fninit");
}

/* Registers of MMX are those of the x87 stack, counted from the bottom and not from the top. */
const uint8_t *guest_mmx(const struct cpu *cpu, int reg)
{
    const struct fxsave *image = x87_image(cpu);
    return image->st[(reg - (image->fsw >> 11)) & 7];
}

/* ---- gdb's registers ----------------------------------------------------------------- */

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
       GDB_YMM, /* QEMU has none from here on */
       GDB_ZMM = GDB_YMM + 16,
       GDB_K = GDB_ZMM + 32,
       GDB_END = GDB_K + 8,
};

#define CORE   "org.gnu.gdb.i386.core"
#define LINUX  "org.gnu.gdb.i386.linux"
#define AVX    "org.gnu.gdb.i386.avx"
#define AVX512 "org.gnu.gdb.i386.avx512"

/* gdb's features hold the upper halves of ymm and zmm only; whole registers are what a plugin can
 * use. */
/* clang-format off */
#define YMM(n) {"ymm" #n, AVX, 32, false}
#define ZMM(n) {"zmm" #n, AVX512, 64, false}
#define K(n)   {"k" #n, AVX512, 8, false}
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
    YMM(0),  YMM(1),  YMM(2),  YMM(3),  YMM(4),  YMM(5),  YMM(6),  YMM(7),
    YMM(8),  YMM(9),  YMM(10), YMM(11), YMM(12), YMM(13), YMM(14), YMM(15),
    ZMM(0),  ZMM(1),  ZMM(2),  ZMM(3),  ZMM(4),  ZMM(5),  ZMM(6),  ZMM(7),
    ZMM(8),  ZMM(9),  ZMM(10), ZMM(11), ZMM(12), ZMM(13), ZMM(14), ZMM(15),
    ZMM(16), ZMM(17), ZMM(18), ZMM(19), ZMM(20), ZMM(21), ZMM(22), ZMM(23),
    ZMM(24), ZMM(25), ZMM(26), ZMM(27), ZMM(28), ZMM(29), ZMM(30), ZMM(31),
    K(0), K(1), K(2), K(3), K(4), K(5), K(6), K(7),
};
/* clang-format on */
_Static_assert(sizeof guest_registers / sizeof *guest_registers == GDB_END, "gdb order");

int guest_register_count(const struct cpu *cpu)
{
    return cpu->features & FEATURE_AVX512 ? GDB_END
           : cpu->features & FEATURE_AVX  ? GDB_ZMM
                                          : GDB_YMM;
}

/* gdb's order of the first eight; the rest is the processor's. */
static const uint8_t gdb_gprs[] = {GPR_RAX, GPR_RBX, GPR_RCX, GPR_RDX,
                                   GPR_RSI, GPR_RDI, GPR_RBP, GPR_RSP};

/* Where register n lies in struct cpu, or NULL. */
static void *find_in_cpu(struct cpu *cpu, int n)
{
    if (n < GDB_RIP)
        return &cpu->reg[n < 8 ? gdb_gprs[n] : n];
    if (n >= GDB_ST && n < GDB_FCTRL)
        return x87_image(cpu)->st[n - GDB_ST];
    switch (n) {
    case GDB_RIP:
        return &cpu->pc;
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

/* The vector register behind gdb number n, or -1. */
static int find_vector(int n)
{
    if (n >= GDB_XMM && n < GDB_MXCSR)
        return n - GDB_XMM;
    if (n >= GDB_YMM && n < GDB_ZMM)
        return n - GDB_YMM;
    return n >= GDB_ZMM && n < GDB_K ? n - GDB_ZMM : -1;
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

/* Registers that do not lie in struct cpu as they are shown. What QEMU shows as 0 is 0. */
static uint64_t read_special(const struct cpu *cpu, int n)
{
    if (n >= GDB_SEGMENTS && n < GDB_FS_BASE)
        return read_selector(n - GDB_SEGMENTS);
    if (n >= GDB_CR0 && n <= GDB_EFER)
        return control_registers[n - GDB_CR0];
    if (n >= GDB_K)
        return guest_read_mask(cpu, n - GDB_K);
    switch (n) {
    case GDB_EFLAGS: /* emu's own steps to a signal are not the guest's */
        return cpu->pending ? cpu->flags & ~(uint64_t)FLAG_TF : cpu->flags;
    case GDB_FCTRL:
        return x87_image(cpu)->fcw;
    case GDB_FSTAT:
        return x87_image(cpu)->fsw;
    default:
        return 0;
    }
}

size_t guest_read_register(struct cpu *cpu, int gdb_number, uint8_t *buf)
{
    if (gdb_number < 0 || gdb_number >= guest_register_count(cpu))
        return 0;
    size_t size = guest_registers[gdb_number].size;
    const void *place = find_in_cpu(cpu, gdb_number);
    int vector = find_vector(gdb_number);
    if (place) {
        memcpy(buf, place, size);
    } else if (vector >= 0) {
        guest_read_vector(cpu, vector, buf);
    } else {
        uint64_t value = read_special(cpu, gdb_number);
        memcpy(buf, &value, size);
    }
    return size;
}

/* The flags that a program may set by itself, but for TF. */
#define FLAGS_WRITABLE (FLAGS_ARITH | FLAG_DF)

static void write_special(struct cpu *cpu, int n, const uint8_t *buf)
{
    uint64_t value = 0;
    memcpy(&value, buf, guest_registers[n].size);
    if (n >= GDB_K)
        write_mask(cpu, n - GDB_K, buf);
    else if (n == GDB_EFLAGS)
        cpu->flags = (cpu->flags & ~(uint64_t)FLAGS_WRITABLE) | (value & FLAGS_WRITABLE);
    else if (n == GDB_FCTRL)
        x87_image(cpu)->fcw = (uint16_t)value;
}

bool guest_write_register(struct cpu *cpu, int gdb_number, const uint8_t *buf)
{
    if (gdb_number < 0 || gdb_number >= guest_register_count(cpu) ||
        guest_registers[gdb_number].read_only)
        return false;
    size_t size = guest_registers[gdb_number].size;
    void *place = find_in_cpu(cpu, gdb_number);
    int vector = find_vector(gdb_number);
    if (gdb_number >= GDB_ST && gdb_number <= GDB_FCTRL)
        cpu->x87_saved = true;
    if (place)
        memcpy(place, buf, size);
    else if (vector >= 0)
        write_vector(cpu, vector, buf, size);
    else
        write_special(cpu, gdb_number, buf);
    return true;
}
