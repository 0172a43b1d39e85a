/* emu.h: the one internal header, in the order in which a program passes through the files.
 *
 * Guest and host are both x86_64 and share one address space: a guest address is a host address.
 * Every symbol that is not declared here is static. ISA-named files may know their ISA; no other
 * file may: they reach guest registers through the accessors of "cpu" below. */
#ifndef EMU_H
#define EMU_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "cpu_offsets.h"

#define EMU_VERSION "0.1"

struct cpu;
struct insn;
struct tb;
struct plugin_op;

/* ---- emu.c: options, messages, main ------------------------------------------------------- */

/* Log items of -d; the names are QEMU's. */
enum log_item {
    LOG_IN_ASM = 1 << 0,  /* guest code of every translated block */
    LOG_NOCHAIN = 1 << 1, /* not a log: blocks are not linked to each other */
    LOG_PLUGIN = 1 << 2,  /* text from qemu_plugin_outs */
    LOG_STRACE = 1 << 3,  /* system calls */
    LOG_PAGE = 1 << 4,    /* guest mappings at start */
    LOG_STATS = 1 << 5,   /* what was translated and looked up; not QEMU's */
};

struct options {
    unsigned log;          /* set of enum log_item */
    bool one_insn_per_tb;  /* translation blocks of one instruction */
    size_t tb_size;        /* code cache, bytes */
    size_t stack_size;     /* guest main stack, bytes; 0: RLIMIT_STACK */
    const char *ld_prefix; /* -L: tried first for the interpreter and absolute paths; NULL: none */
    const char *argv0;     /* -0: guest argv[0]; NULL: the program's name as given */
    bool follow_exec;      /* programs started by execve run under emu too */

    /* How emu was called, for the programs it follows. */
    const char **words;     /* the options that hold for them as well; NULL at the end */
    const char **variables; /* of the environment: those that concern emu itself; likewise */
    size_t n_words, n_variables;
    const char *start_dir; /* where the first emu of the tree started: relative names mean that */
    unsigned execs;        /* execve calls that led from the first emu to this one */
    int program_fd;        /* open on the program; -1: it is opened by its name */
};
extern struct options opt;

/* True for NAME=VALUE if it would change emu itself, and not only the guest, when emu is executed
 * with it in its environment. */
bool is_own_variable(const char *assignment);
/* Stands for such a variable in the environment of an emu that follows. */
#define HELD_VARIABLE "EMU_HELD="

/* Prints "emu: TEXT\n" on stderr and exits with status 1. */
_Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Prints "emu: TEXT\n" on stderr. Not to be found by plugins that want libc's. */
void warn(const char *fmt, ...) __attribute__((format(printf, 1, 2), visibility("hidden")));
/* Moves a descriptor to a number that guests do not meet: theirs start at 3 as they do natively.
 * They cannot close it. */
int move_fd_high(int fd);
/* The lowest of these, at least first; -1: there is none. */
int next_own_fd(unsigned first);
/* Append to the log (stderr or -D FILE) by one write; callers test opt.log themselves. */
void log_text(const char *text, size_t len);
void log_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- lock.c: locks without thread-local storage ---------------------------------------------- */

struct lock {
    int state;
};
bool lock_try(struct lock *lock); /* false: another thread has it */
void lock_take(struct lock *lock);
void lock_release(struct lock *lock);
/* Sleeps while *word has the value; may return early. */
void lock_wait(int *word, int value);
void lock_wake_all(int *word);
long raw_futex(int *word, int op, int value); /* futex_x86_64.S */

/* ---- elf.c: program and interpreter, initial stack, symbols --------------------------------- */

/* What the loader found out about the guest program. */
struct image {
    const char *path;    /* absolute, symlinks resolved: what /proc/self/exe says */
    const char *file;    /* by which the file can be opened even if it has no name any more */
    uint64_t start_code; /* lowest address of an executable segment */
    uint64_t end_code;   /* highest end (vaddr + filesz) of an executable segment */
    uint64_t start_data, end_data; /* of the last segment */
    uint64_t entry_code; /* where execution starts: the interpreter's entry if there is one */
    uint64_t brk;        /* page-aligned end of the program's data; 0: place it high */
    uint64_t stack_low;  /* main stack, mapped [stack_low, stack_high) */
    uint64_t stack_high;
    uint64_t arg_start, arg_end; /* argv strings, for /proc/self/cmdline and stat */
    uint64_t env_start, env_end;
    uint64_t auxv; /* guest address and size of the auxiliary vector */
    size_t auxv_size;
    uint64_t sp; /* initial stack pointer */
};
extern struct image image;

/* Loads FILE (ELF or #! script; looked up as given, no PATH search) with its interpreter and
 * builds the stack. argv and envp are the guest's. Dies with one line on anything wrong. */
void elf_load(const char *file, char **argv, char **envp);

enum elf_verdict {
    ELF_RUNS,       /* elf_load would take it */
    ELF_SCRIPT,     /* the same, for a #! script */
    ELF_PRIVILEGED, /* executing it changes credentials, which only the kernel can do */
    ELF_FOREIGN,    /* not a program for emu, or none at all: the kernel knows what to do */
};
/* What execve of the file open at fd would mean, for a #! script that of its interpreter. */
enum elf_verdict elf_examine(int fd);

/* Name of the function that holds addr, in any mapped module, or NULL. *offset (may be NULL) is
 * the distance from its start. The string lives until exit. Reads symbol tables on first use. */
const char *elf_symbol(uint64_t addr, uint64_t *offset);

/* ---- vma.c: the guest's address space -------------------------------------------------------- */

/* What lies where below 2 GiB (so that rip-relative operands reach from the code cache and return
 * addresses are imm32), clear of MAP_32BIT users (0x40000000 up) and ASan's shadow (0x7fff8000). */
#define LOW_IMAGES     0x20000000ull /* position-independent programs, interpreters, libraries */
#define LOW_IMAGES_END 0x34000000ull
#define LOW_TABLES     0x34000000ull /* jit tables that generated code reaches by disp32 */
#define LOW_CACHE      0x35000000ull /* code cache */
#define LOW_CACHE_END  0x40000000ull
#define HIGH_BRK       0x550000000000ull /* heap of position-independent programs */

#define GUEST_PAGE     4096ull
#define PAGE_DOWN(x)   ((uint64_t)(x) & ~(GUEST_PAGE - 1))
#define PAGE_UP(x)     PAGE_DOWN((uint64_t)(x) + GUEST_PAGE - 1)

/* A page-aligned range the guest has mapped, with the protection the guest believes in. */
struct vma {
    uint64_t start, end;
    int prot;  /* PROT_* as the guest asked */
    int flags; /* MAP_* of mmap: type, anonymous, growsdown; VMA_SHM */
};
#define VMA_SHM (1 << 30) /* attached by shmat: never merged, so that shmdt finds its length */

/* All addresses and lengths below are page multiples. vma_lock order: innermost, taken by vma.c
 * itself. */
void vma_add(uint64_t start, uint64_t len, int prot, int flags);
void vma_remove(uint64_t start, uint64_t len);
void vma_protect(uint64_t start, uint64_t len, int prot);
/* The mapping that holds addr, copied to *out; false if the guest has none there. */
bool vma_find(uint64_t addr, struct vma *out);
/* The same for the translator, who asks for the same mapping again and again: NULL if there is
 * none. Valid under tb_lock and until the next call. */
const struct vma *vma_find_code(uint64_t addr);
/* The first mapping that ends above addr (for walks in address order); false at the end. */
bool vma_next(uint64_t addr, struct vma *out);
/* True if the range touches memory that belongs to emu (anything mapped on the host and not
 * listed as the guest's): munmap, mprotect and MAP_FIXED there are refused. */
bool vma_is_emu(uint64_t start, uint64_t len);
/* Reserves a place for an image of len bytes below 2 GiB; 0 if there is none left (the caller
 * then lets the kernel choose: code there runs by the slower path). Nothing is mapped. */
uint64_t vma_place_image(size_t len);
/* Bytes that can be fetched as code from addr without a gap, at most max; 0: a fetch faults. */
size_t vma_code_avail(uint64_t addr, size_t max);
/* What a mapping needs on the host: code is read by emu, which protection keys would forbid for
 * PROT_EXEC alone. */
int vma_host_prot(int prot);
/* Changes whenever code from a file is mapped or unmapped. */
unsigned vma_generation(void);
/* Remembers that emu needs [start, end) clear of mappings of the guest. */
void vma_keep_clear(uint64_t start, uint64_t end);
/* True once the guest has had a mapping in such a range, above 128 TiB, or one with code between
 * 4 GiB and 64 TiB. */
bool vma_is_crowded(void);
/* fork() must not copy the lock in another thread's hands. */
void vma_lock(void);
void vma_unlock(void);

/* One line of /proc/self/maps. */
struct host_map {
    uint64_t start, end, offset;
    int prot;
    bool shared;
    char text[4300];  /* offset, device, inode and name, as printed */
    const char *name; /* in text; "" if there is none */
};
FILE *host_maps_open(void);
bool host_maps_read(FILE *maps, struct host_map *map);
/* Takes a line apart (and its end of line off); false: it does not describe a mapping. */
bool host_map_parse(char *line, struct host_map *map);

/* ---- decode.c: bytes to struct insn; knows the guest ISA, no globals ------------------------- */

enum insn_kind {
    INSN_NEXT,     /* falls through; copied unless a field below says otherwise */
    INSN_JUMP,     /* direct jmp: target */
    INSN_COND,     /* jcc, loop*, jrcxz: target, or falls through */
    INSN_CALL,     /* direct call: target */
    INSN_RET,      /* ret, ret imm16 (near) */
    INSN_JUMP_IND, /* near jmp r/m64 */
    INSN_CALL_IND, /* near call r/m64 */
    INSN_FAR,      /* lret, iret, far jmp and call */
    INSN_SYSCALL,  /* syscall */
    INSN_TRAP,     /* int3, int n, int1, ud0/1/2, into */
    INSN_PRIV,     /* raises #GP in user mode: hlt, cli, in, out, mov cr, rdmsr ... */
    INSN_ILLEGAL,  /* no such instruction: #UD */
};

enum { GPR_RAX, GPR_RCX, GPR_RDX, GPR_RBX, GPR_RSP, GPR_RBP, GPR_RSI, GPR_RDI }; /* r8.. = 8.. */
#define REG_NONE (-1)
#define REG_PC   16 /* rip-relative; target address = next pc + disp */

enum seg { SEG_NONE, SEG_FS, SEG_GS }; /* es cs ss ds have base 0: SEG_NONE */

enum mem_flag {
    MEM_READ = 1,
    MEM_WRITE = 2,
    MEM_VSIB = 4,     /* index is a vector register: gather or scatter */
    MEM_MASKED = 8,   /* elements are chosen by a mask register or vector */
    MEM_STACK = 16,   /* implicit stack access */
    MEM_SIGNED = 32,  /* the value is sign-extended (movsx, fild m16 ...) */
    MEM_BIGEND = 64,  /* movbe */
    MEM_INDEX8 = 128, /* only the low 8 bits of the index count: xlat */
    MEM_BITS = 256,   /* bt, bts ...: the address moves by bit_reg / (size * 8) units of size */
    MEM_ABS64 = 512,  /* the address is the instruction's imm: movabs */
};

/* One memory operand, explicit or implicit. The address is as evaluated before the instruction. */
struct mem_op {
    int8_t base, index; /* GPR number, REG_NONE, REG_PC (base only) */
    uint8_t scale;      /* 1 2 4 8 */
    uint8_t seg;        /* enum seg */
    uint16_t flags;     /* set of enum mem_flag */
    uint16_t size;      /* bytes of one element */
    int32_t disp;
    uint8_t count;   /* elements (gather, scatter, broadcast source counts 1); mostly 1 */
    uint8_t bit_reg; /* MEM_BITS: general register with the signed bit offset */
};

enum flag_bits { /* EFLAGS, the arithmetic ones, TF and DF */
                 FLAG_CF = 1 << 0,
                 FLAG_PF = 1 << 2,
                 FLAG_AF = 1 << 4,
                 FLAG_ZF = 1 << 6,
                 FLAG_SF = 1 << 7,
                 FLAG_TF = 1 << 8,
                 FLAG_DF = 1 << 10,
                 FLAG_OF = 1 << 11,
};
#define FLAGS_ARITH (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)

enum insn_flag {
    INSN_LOCK = 1 << 0,
    INSN_REP = 1 << 1,       /* F3 on a string instruction (rep, repe) */
    INSN_REPNE = 1 << 2,     /* F2 on a string instruction */
    INSN_STRING = 1 << 3,    /* movs cmps stos lods scas ins outs */
    INSN_ENDS_TB = 1 << 4,   /* QEMU ends its translation block behind it (plugin-visible shape) */
    INSN_ADDR32 = 1 << 5,    /* 67 prefix: effective addresses are 32 bits */
    INSN_USES_GS = 1 << 6,   /* reads or writes memory through %gs */
    INSN_SETS_GS = 1 << 7,   /* moves to and from %gs, lgs, rdgsbase, wrgsbase: not copied */
    INSN_USES_VEC = 1 << 8,  /* touches xmm/ymm/zmm */
    INSN_USES_MASK = 1 << 9, /* touches k0-k7 */
    INSN_USES_X87 = 1 << 10, /* touches the x87 or MMX stack */
    INSN_BRANCH_REL = 1 << 11, /* a relative target that is not a plain branch (xbegin) */
    INSN_USES_FS = 1 << 12,    /* reads or writes memory through %fs */
    INSN_SETS_FS = 1 << 13,    /* mov, pop or lfs to %fs */
};

enum insn_encoding { ENC_LEGACY, ENC_VEX, ENC_EVEX, ENC_XOP };

enum { EVEX_AAA = 7, EVEX_B = 16, EVEX_Z = 128 }; /* bits of the third EVEX byte */

/* A decoded instruction. *_off are byte offsets into the instruction, 0: absent. */
struct insn {
    uint64_t pc;
    uint64_t target;          /* of direct branches */
    uint64_t imm;             /* first immediate, sign-extended */
    const struct opcode *row; /* its row in opcodes_x86_64.h; NULL if illegal */
    uint16_t flags;           /* set of enum insn_flag */
    uint8_t len;              /* 1..15; for INSN_ILLEGAL the bytes looked at, at least 1 */
    uint8_t kind;             /* enum insn_kind */
    uint8_t map;        /* 0 one-byte, 1 0F, 2 0F38, 3 0F3A, 15 3DNow!; VEX, EVEX, XOP: theirs */
    uint8_t opcode;     /* opcode byte in its map */
    uint8_t opsize;     /* operand size in bytes: 1 2 4 8 */
    uint8_t prefix_len; /* legacy prefixes and REX before opcode, escape or VEX */
    uint8_t rex;        /* REX byte, 0 if none */
    uint8_t wrxb;       /* its W R X B: 8 4 2 1; also of VEX and the like */
    uint8_t modrm_off, modrm;
    uint8_t imm_off, imm_size;   /* first immediate (of branches: the relative offset) */
    uint8_t reg, rm;             /* register numbers in ModRM.reg and ModRM.rm, extended */
    uint8_t prefixes;            /* legacy prefixes: set of PREFIX_* of opcodes_x86_64.h */
    uint8_t enc;                 /* enum insn_encoding */
    uint8_t vvvv;                /* register number in VEX.vvvv, extended */
    uint8_t vec_len;             /* 0 128, 1 256, 2 512 bits */
    uint8_t evex;                /* set of EVEX_* */
    uint8_t disp_off, disp_size; /* displacement of the ModRM operand */
    bool rip_relative;           /* the ModRM operand is [rip + disp32] */

    /* Effects: known after decode() or decode_effects(). */
    uint8_t nmem;
    uint8_t mem_index;        /* which of mem[] is the ModRM operand (also of lea and nop) */
    uint16_t regs_read;       /* bit n: general register n, address registers included */
    uint16_t regs_written;    /* the same; what is written in part counts as read too */
    uint16_t flags_read;      /* set of enum flag_bits */
    uint16_t flags_written;   /* overwritten whatever the operands are, on every processor */
    uint16_t flags_undefined; /* left undefined by the manual; written ones may be among them */
    struct mem_op mem[3];     /* in the order of access */
};

enum decode_result {
    DECODE_OK = 0,
    DECODE_PARTIAL = -1 /* code ends at limit: more bytes needed */
};

/* Decodes the instruction at code, which lies at guest address pc; reads at most limit bytes. An
 * undefined encoding is DECODE_OK with kind INSN_ILLEGAL, one longer than 15 bytes with INSN_PRIV
 * (#GP); both have no row. */
int decode(struct insn *in, const uint8_t *code, size_t limit, uint64_t pc);
/* The same in two steps, as few instructions need the second one where no plugin looks at them. */
int decode_form(struct insn *in, const uint8_t *code, size_t limit, uint64_t pc);
void decode_effects(struct insn *in, const uint8_t *code);

/* Address of the pointer that an indirect branch goes through; 0: registers decide, or have it. */
uint64_t decode_branch_slot(const struct insn *in);

/* The mnemonic of a row as opcodes_x86_64.h has it, with its marks. */
const char *opcode_name(const struct opcode *row);

/* ---- disas.c: text of a decoded instruction -------------------------------------------------- */

enum disas_syntax { DISAS_ATT, DISAS_INTEL };
/* Writes text in the form QEMU's plugins show ("movq (%rbx), %rax", "retq "); always terminated. in
 * has its effects, code are its bytes. Returns the length. 128 bytes are enough for any
 * instruction. */
size_t disas(char *buf, size_t size, const struct insn *in, const uint8_t *code,
             enum disas_syntax syntax);
/* emu -disas FILE [START [END]]: lists the executable sections on stdout; returns exit status. */
int disas_file(const char *path, const char *start, const char *end, enum disas_syntax syntax);

/* ---- cpu.c: a virtual CPU (one per guest thread) and its run loop -----------------------------
 */

#define CPU_SLOTS      8
#define VEC_AREA       (32 * 64 + 8 * 8) /* zmm0-31 then k0-7 */
#define SCOREBOARD_MAX (256ull << 20)    /* scoreboard bytes of one vCPU */

/* Why generated code came back to C: EXIT_* of cpu_offsets.h.
 *   EXIT_LOOKUP   continue at pc
 *   EXIT_MISS     the same after an indirect branch that the jump table did not know
 *   EXIT_RETURN   the same for a return and the return table
 *   EXIT_LINK     a direct exit ran for the first time; exit_arg = its struct link
 *   EXIT_SYSCALL  a syscall whose number is routed to C; pc = behind the instruction
 *   EXIT_SYSRET   a syscall that linux_syscall() forwarded has returned
 *   EXIT_STALE    the code at pc is no longer what its block was made from
 *   EXIT_TRAP     pc = an instruction that traps, is privileged, illegal or not lowered */

/* Thread state; %gs:0 while guest code runs. Scoreboards lie at SCOREBOARD_OFFSET. */
struct cpu {
    struct cpu *self;
    uint64_t reg[16];          /* guest general registers, valid while in C */
    uint64_t flags;            /* guest EFLAGS, valid while in C */
    uint64_t pc;               /* guest pc, valid while in C */
    uint64_t fs_base, gs_base; /* guest's; fs_base valid while in C, always without FSGSBASE */
    uint64_t host_fs, host_sp; /* of the C side, valid while guest code runs */
    uint64_t slot[CPU_SLOTS];  /* spill slots of generated code; their use: jit_x86_64.c */
    uint64_t jump;             /* host address where entering the cache continues */
    uint64_t back;             /* the same after a plugin callback */
    uint64_t exit_reason, exit_arg;
    uint64_t vec_class;     /* which vector registers were saved: XINUSE bits */
    uint64_t features;      /* FEATURE_* */
    uint64_t mxcsr;         /* guest's, valid while in C */
    uint64_t vaddr[4];      /* addresses of an instruction's operands, for mem callbacks */
    uint32_t pending;       /* a signal waits for the guest to be at an instruction */
    volatile bool in_cache; /* runs code that a flush would drop, or is about to */
    uint8_t bare;           /* C runs with the guest's %fs: jit_use_libc */
    uint16_t gs_selector;   /* guest's */
    uint8_t *vector_frame;  /* vector and x87 state in the kernel's form, for jit_raise */
    uint32_t holds_lock;    /* generated code has a plugin's lock, or is about to */
    _Alignas(64) uint8_t vec[VEC_AREA];
    _Alignas(16) uint8_t x87[512]; /* while a plugin runs: the x87 state, as fxsave stores it */
    bool x87_saved;                /* to be loaded again; else the processor's is initial */
    bool vfork_child;              /* runs in its parent's memory until it execs or exits */
    uint64_t step_from,
        step_to;         /* host code between: no guest instruction starts (jit_interrupt) */
    unsigned steps;      /* instructions stepped over for the signal that waits */
    unsigned generation; /* tb_generation() when it entered the cache */
    uint64_t clear_tid;  /* word to clear when the thread ends (CLONE_CHILD_CLEARTID); or 0 */
    int64_t syscall;     /* number of the call that is being forwarded */
    int index;           /* vcpu index */
    int tid;
    bool initialised;             /* vcpu_init callbacks ran and vcpu_exit ones did not */
    volatile bool in_plugin;      /* a plugin callback runs on this cpu */
    int plugin_flags;             /* its enum qemu_plugin_cb_flags */
    struct signal_state *signals; /* signal.c */
};
/* Each cpu is alone in a window of address space, so that generated code can check a guest address
 * by a load from the cpu: with another address it leads elsewhere in the window, and faults
 * (jit_x86_64.c, fast pads). Windows follow each other downwards from CPU_WINDOWS_END: below the
 * first TiB that the kernel gives away, where it does not place that more at random than by default
 * (vm.mmap_rnd_bits; vma.c notices), and above all that sanitizers reserve. They are no multiple of
 * 4 GiB apart: a bug may have overwritten half of the address. tests/guest/collide.c knows where
 * the first one is. */
#define CPU_SIZE          0x10000ull
#define CPU_WINDOW_BELOW  0x40000000ull  /* from the cpu down: the largest address to check for */
#define CPU_WINDOW_ABOVE  0x100000000ull /* from the cpu up: how far above it another may be */
#define CPU_WINDOW        (0x200000000ull + 0x12000) /* from cpu to cpu */
#define CPU_WINDOWS_END   0x7ef000000000ull
/* More cpus than that would be too many mappings; and 64 TiB further no program has an address. */
#define CPU_WINDOWS_START (CPU_WINDOWS_END - 1000 * CPU_WINDOW)
_Static_assert(CPU_WINDOWS_START >= 1ull << 46, "64 TiB");

/* Scoreboards begin there, from the cpu, so from the gs base. */
#define SCOREBOARD_OFFSET           (-0x70000000ll)
/* Behind them: cells of counters (plugin_ops.c), and what of each is in the scoreboards already. */
#define CELLS_OFFSET                (SCOREBOARD_OFFSET + (int64_t)SCOREBOARD_MAX)
#define MAX_CELLS                   (1 << 18)
#define CELLS_SIZE                  (2ull * MAX_CELLS * sizeof(uint64_t))

#define CPU_OFFSET_IS(field, value) _Static_assert(offsetof(struct cpu, field) == value, #field)
CPU_OFFSET_IS(self, CPU_SELF);
CPU_OFFSET_IS(reg, CPU_REG);
CPU_OFFSET_IS(flags, CPU_FLAGS);
CPU_OFFSET_IS(pc, CPU_PC);
CPU_OFFSET_IS(fs_base, CPU_FS_BASE);
CPU_OFFSET_IS(gs_base, CPU_GS_BASE);
CPU_OFFSET_IS(host_fs, CPU_HOST_FS);
CPU_OFFSET_IS(host_sp, CPU_HOST_SP);
CPU_OFFSET_IS(slot, CPU_SLOT);
CPU_OFFSET_IS(jump, CPU_JUMP);
CPU_OFFSET_IS(back, CPU_BACK);
CPU_OFFSET_IS(exit_reason, CPU_EXIT_REASON);
CPU_OFFSET_IS(exit_arg, CPU_EXIT_ARG);
CPU_OFFSET_IS(vec_class, CPU_VEC_CLASS);
CPU_OFFSET_IS(features, CPU_FEATURES);
CPU_OFFSET_IS(mxcsr, CPU_MXCSR);
CPU_OFFSET_IS(vaddr, CPU_VADDR);
CPU_OFFSET_IS(pending, CPU_PENDING);
CPU_OFFSET_IS(bare, CPU_BARE);
CPU_OFFSET_IS(vector_frame, CPU_VECTOR_FRAME);
CPU_OFFSET_IS(holds_lock, CPU_HOLDS_LOCK);
CPU_OFFSET_IS(vec, CPU_VEC);
_Static_assert(sizeof(struct cpu) <= CPU_SIZE, "the low 16 bits of its addresses differ");
_Static_assert(CELLS_OFFSET + (int64_t)CELLS_SIZE <= -(int64_t)CPU_WINDOW_BELOW,
               "not in the window");
_Static_assert(CPU_WINDOW >= CPU_WINDOW_ABOVE - SCOREBOARD_OFFSET, "nor in the next one");

extern __thread struct cpu *this_cpu; /* NULL on threads that run no guest code */

/* Creates the vCPU of the calling thread: index = largest live index + 1. Dies if memory is out. */
struct cpu *cpu_create(void);
/* vCPU by index, also exited ones (their scoreboard stays); NULL if that index never existed. */
struct cpu *cpu_by_index(unsigned index);
int cpu_count(void); /* highest index ever + 1 */
bool cpu_is_live(const struct cpu *cpu);
/* Runs guest code from cpu->pc until the process or thread ends. */
_Noreturn void cpu_loop(struct cpu *cpu);
/* Abandons the C frames above the run loop and continues at guest pc. */
_Noreturn void cpu_resume_at(struct cpu *cpu, uint64_t pc);

/* The calling thread's vCPU will run no more guest code: frees its index. */
void cpu_retire(struct cpu *cpu);
bool cpu_is_last(const struct cpu *cpu); /* no other thread is alive */
bool cpu_others_in_cache(const struct cpu *cpu);
bool cpu_others_busy(const struct cpu *cpu);  /* there, or in a plugin's callback */
void cpu_evict_others(const struct cpu *cpu); /* from the cache, even if a page fault holds them */
void cpu_fork_child(struct cpu *cpu);         /* in the child: the other threads are gone */
/* State of a vCPU and its run loop while a vfork child uses them. restore frees it. */
struct cpu_snapshot *cpu_save(struct cpu *cpu);
void cpu_restore(struct cpu *cpu, struct cpu_snapshot *snapshot);

/* Accessors: what neutral files may know of guest registers (guest_x86_64.c). */
uint64_t guest_sp(const struct cpu *cpu);
void guest_set_sp(struct cpu *cpu, uint64_t sp);
void guest_enter_syscall(struct cpu *cpu); /* cpu->pc is behind the instruction */
/* The call is to be made again, when signals have been handled; returns what the result must be. */
int64_t guest_restart_syscall(struct cpu *cpu);
int guest_syscall_number(const struct cpu *cpu);
uint64_t guest_syscall_arg(const struct cpu *cpu, int i); /* i = 0..5 */
void guest_set_syscall_arg(struct cpu *cpu, int i, uint64_t value);
int64_t guest_result(const struct cpu *cpu);
void guest_set_result(struct cpu *cpu, int64_t value);           /* of a syscall, or fork's 0 */
void guest_set_start(struct cpu *cpu, uint64_t pc, uint64_t sp); /* state at process entry */
void guest_copy_state(struct cpu *to, const struct cpu *from);   /* all registers */

/* All of a vector register (64 bytes); a mask register; an MMX register (8 bytes). */
void guest_read_vector(const struct cpu *cpu, int reg, uint8_t *bytes);
uint64_t guest_read_mask(const struct cpu *cpu, int reg);
const uint8_t *guest_mmx(const struct cpu *cpu, int reg);
/* Around a plugin's code, in C: it may use the x87 unit. */
void guest_enter_plugin(struct cpu *cpu);
void guest_leave_plugin(struct cpu *cpu);

/* The registers a plugin may see, in gdb's numbering. */
struct guest_register {
    const char *name, *feature;
    uint8_t size; /* bytes, at most GUEST_REGISTER_MAX */
    bool read_only;
};
#define GUEST_REGISTER_MAX 64
extern const struct guest_register guest_registers[];
int guest_register_count(const struct cpu *cpu); /* those the processor has */
/* Both between guest_enter_plugin and guest_leave_plugin. Value, little endian, into buf
 * (GUEST_REGISTER_MAX bytes suffice); returns its size, 0: no such register. */
size_t guest_read_register(struct cpu *cpu, int gdb_number, uint8_t *buf);
bool guest_write_register(struct cpu *cpu, int gdb_number, const uint8_t *buf);

/* Copies guest memory; false if it faults (nothing is promised about dst then). */
bool guest_copy(void *dst, const void *src, size_t len);
/* Puts new into a word of the guest if *old is there; *old: what was. False if it faults. */
bool guest_replace(uint32_t *word, uint32_t *old, uint32_t new);

/* ---- translate.c: guest code to blocks ----------------------------------------------------------
 */

#define TB_MAX_INSNS 512 /* QEMU's limit, visible to plugins */
#define INSN_MAX     15  /* bytes of an instruction */

/* A translation block as QEMU cuts them. Blocks that follow each other in the guest are laid out
 * together in a superblock; each has its own entry with all guest state in place. */
struct tb {
    uint64_t pc;
    uint8_t *host;      /* entry */
    uint8_t *call_host; /* entry of a paired call: drops the host return address; or NULL */
    uint8_t *pad[2];    /* entries of indirect branches, enum indirect: they check the target */
    struct tb *next;    /* same hash bucket */
    struct link *in;    /* direct exits bound to this block */
    struct superblock *sb;
    struct plugin_op *ops; /* instrumentation, of plugin_ops.c */
    uint32_t n_ops;
    uint32_t n_parts; /* behind those: what they do at once for others (plugin_ops.c) */
    uint16_t n_insns;
    uint16_t size;       /* guest bytes */
    const uint8_t *code; /* copy of the guest bytes, if they can change; or NULL */
    uint32_t patience;   /* checked blocks: entries until the page may have come to rest */
    bool flags_dead;     /* the arithmetic flags are written before they are read */
    bool fast_return;    /* pad[BY_RETURN], where it stands before the block, is a fast one */
    uint8_t call_len;    /* pad[BY_RETURN] is behind a host call, of a call so long; 0: it is not */
};

#define SUPERBLOCK_TBS   32
#define SUPERBLOCK_PAGES 4

/* Block i of a superblock ends in a branch through the pointer at at, which cannot change. */
struct constant {
    uint64_t at, value;
    int i;
};

struct superblock {
    uint8_t *host, *host_end;
    struct superblock *page_next[SUPERBLOCK_PAGES]; /* per page: next superblock of that page */
    uint64_t page[SUPERBLOCK_PAGES];                /* of code and constants */
    uint8_t n_pages, n_tbs, n_constants;
    bool checked;         /* blocks compare their bytes at entry */
    uint8_t entry;        /* enum tb_entry it was laid out for */
    uint32_t exits_dead;  /* bit i: the flags are dead where block i leaves by a direct branch */
    bool dead;            /* invalidated; its host code stays until the flush */
    uint8_t *shared_call; /* as in struct unit */
    struct constant *constants;
    struct tb tb[]; /* n_tbs of them */
};

/* A direct exit: the 4-byte displacement at site leads to stub or, once bound, to a block. */
struct link {
    uint8_t *site, *stub;
    uint64_t target;
    struct link *next; /* bound: of the block's in; else of the exits that wait for a block */
    bool call;         /* a host call: binds to call_host */
};

/* How a translation is entered for the first time: which prefixes are laid before its entry. */
enum tb_entry { ENTRY_DIRECT, ENTRY_CALL, ENTRY_INDIRECT, ENTRY_RETURN };
enum indirect { BY_JUMP /* and indirect call */, BY_RETURN };

/* The instructions of one superblock, decoded; scratch of the translator, under tb_lock. */
struct unit {
    struct insn insn[TB_MAX_INSNS + 128];
    const uint8_t *code[TB_MAX_INSNS + 128];       /* bytes of each instruction */
    uint8_t copy[INSN_MAX * (TB_MAX_INSNS + 129)]; /* those that may change */
    size_t copied;
    uint16_t first[SUPERBLOCK_TBS + 1]; /* block i is insn[first[i] .. first[i + 1]) */
    uint16_t live[TB_MAX_INSNS + 128];  /* flags live before each instruction, enum flag_bits */
    struct plugin_op *ops[SUPERBLOCK_TBS];
    size_t n_ops[SUPERBLOCK_TBS];
    size_t n_parts[SUPERBLOCK_TBS];
    uint64_t target[SUPERBLOCK_TBS]; /* where block i always leads by its branch; or 0 */
    struct constant constant[SUPERBLOCK_TBS];
    uint8_t n_constants;
    uint64_t starts;      /* by hash: a block may begin there */
    uint32_t exits_dead;  /* as in struct superblock */
    bool checked;         /* likewise */
    bool can_change;      /* some of the bytes may not be there when they are looked for again */
    uint8_t *shared_call; /* the last block ends in a call, which this host call makes; or NULL */
    unsigned max_insns;   /* of a block; below TB_MAX_INSNS there is only one block */
    int n_tbs;
};
_Static_assert(SUPERBLOCK_TBS <= 32, "exits_dead has a bit for each");

/* Translates from pc; NULL: the fetch at pc faults. Flushes the cache and starts again if full. */
struct tb *translator_loop(struct cpu *cpu, uint64_t pc, enum tb_entry entry);
/* Fills unit with the instructions of an existing superblock again. */
void translate_again(const struct superblock *sb, struct unit *unit);

/* ---- jit_x86_64.c: lowering, host code
 * ----------------------------------------------------------- */

/* What guest state is at a host instruction: for faults and signals. */
struct roll {
    uint64_t pc; /* guest instruction */
    const struct tb *tb;
    uint16_t done;     /* operations of lower rank (plugin_ops.c) are done, in program order */
    uint8_t rule;      /* enum roll_rule, jit_x86_64.c */
    bool clean;        /* between two guest instructions, before any instrumentation */
    bool write;        /* reads what the guest instruction, if it faults, fails to write */
    bool flags_lost;   /* dead flags are not the guest's any more */
    bool part;         /* a repetition in parts: the elements of the others are in slot 0 */
    uint8_t n_spilled; /* spilled registers are restored first */
    struct {
        uint8_t reg, slot;
    } spilled[3];
};

#define JIT_CALL_LEN 5 /* bytes of a host call */

void jit_init(void);
/* Code in the cache relies on what has ceased to hold: on clear windows, on faults, or on returns
 * that seldom share an entry of their table. */
bool jit_must_flush(void);
/* Generated code is no more to rely on faults; true if code in the cache does. */
bool jit_stop_faults(void);
/* Lowers unit into sb (tb[] filled but for host addresses); false: the cache is full. The effects
 * of unit's instructions need not be known where there are no operations. */
bool jit_lower(struct superblock *sb, struct unit *unit, enum tb_entry entry);
/* Points the exit at its block or back at its stub. */
void jit_bind(struct link *link, const struct tb *tb);
void jit_unbind(struct link *link);
/* Gives tb the entry it lacks; false: the cache is full. */
bool jit_add_pad(struct tb *tb, enum indirect by);
bool jit_add_call_entry(struct tb *tb);
/* Makes indirect branches to tb->pc find it, or no longer. */
void jit_table_set(struct tb *tb, enum indirect by);
void jit_table_offer(struct tb *tb, enum indirect by); /* takes no other block's place */
void jit_table_clear(struct tb *tb);
bool jit_table_has(const struct tb *tb, enum indirect by);
void jit_reset(void);       /* forgets all generated code */
void jit_clear_table(void); /* makes every indirect branch leave the cache */
/* Gives returns a larger table, where all entries are to be offered again; false: there is none. */
bool jit_widen_returns(void);
void jit_route_to_c(void); /* makes every syscall instruction leave the cache */
bool jit_in_cache(uint64_t host_pc);
bool jit_in_pads(uint64_t host_pc); /* on the way out of it, or to the large table and back */

/* General registers of an interrupted host context, in REG_* order, with pc and flags. */
struct host_state {
    uint64_t reg[16], pc, flags;
    bool write; /* out: the guest's fault is one of a write, whatever the host's was */
};
enum stop {
    STOP_GUEST,  /* state is now the guest's, at an instruction of which nothing is done */
    STOP_RESUME, /* not the guest's fault: go on with the changed state */
    STOP_STEP,   /* in the middle of something: not yet */
    STOP_PLUGIN, /* the fault is one of plugin code that was made part of the block */
};
/* state: registers at a synchronous fault at state->pc in the cache; address: of the fault. */
enum stop jit_fault(struct cpu *cpu, struct host_state *state, uint64_t address);
/* The same for an asynchronous signal anywhere in the cache. */
enum stop jit_interrupt(struct cpu *cpu, struct host_state *state);
/* True if the block at host_pc holds code of the page of address. */
bool jit_runs_page(uint64_t host_pc, uint64_t address);
/* Size of the state that signal frames carry besides the general registers, in xsave's standard
 * form, tiles aside; *components: its bits of XCR0, 0: a processor without xsave. */
uint32_t jit_vector_state(uint64_t *components);
/* True if in may be left to C code though others of its block follow. */
bool jit_may_leave(const struct insn *in);
/* Makes the calling thread able to run generated code for cpu: %gs, features. */
void jit_attach(struct cpu *cpu);
/* Host address at which generated code goes on at cpu->pc with all registers live. */
uint64_t jit_lookup_pad(void);
/* ---- entry_x86_64.S: into generated code and out of it
 * -------------------------------------------- */

uint64_t jit_enter(struct cpu *cpu); /* runs from cpu->jump; returns the exit reason */
/* After EXIT_LOOKUP, EXIT_MISS, EXIT_LINK and EXIT_RETURN C is bare: %fs is the guest's, so there
 * is no thread-local storage, and most of libc (errno, stdio, malloc, pthread) must not be used
 * until this was called; does nothing otherwise. */
void jit_use_libc(struct cpu *cpu);
void jit_need_libc(void); /* the same where the cpu is not known; a system call */
/* What cpu->jump may be besides code in the cache. */
extern const char jit_forward_syscall[]; /* makes the guest's syscall, then EXIT_SYSRET */
extern const char jit_raise[];           /* lets signal.c change the guest's state */
/* Ranges of host code, for signal.c: see there. */
extern const char jit_enter_check[], jit_enter_jump[], jit_leave[];
extern const char jit_forward_syscall_made[];
extern const char guest_copy_end[], guest_copy_fault[];
extern const char jit_exec_open[], jit_exec_made[], jit_exec_cancelled[];
int64_t jit_exec(long nr, const uint64_t *arg, const uint64_t *mask); /* for signal_exec */

/* ---- mem_x86_64.c: the memory that an instruction accesses, as plugins see it
 * ------------------------------- */

#define MAX_ACCESSES 1024 /* of one instruction: xsave with everything there is */

struct access {
    uint64_t vaddr;
    uint16_t size;  /* 1 2 4 8 16 */
    uint16_t flags; /* MEM_READ or MEM_WRITE, MEM_SIGNED, MEM_BIGEND */
};

/* Size of the access at offset of an operand of size bytes: at most 16, a power of 2. */
unsigned guest_access_size(const struct insn *in, unsigned offset, unsigned size);
/* True if the operand that it reads must be aligned to its size. */
bool guest_read_is_aligned(const struct insn *in);
/* True if register values decide what the instruction accesses, or how many places. */
bool guest_accesses_vary(const struct insn *in);
/* How many accesses of another one are reported to a plugin that wants rw; -1: registers decide. */
int guest_count_accesses(const struct insn *in, unsigned rw);
/* What decides how many elements an instruction accesses. */
enum elements_by {
    ELEMENTS_REPEATED, /* by how much the count register falls */
    ELEMENTS_MASK,     /* the low n bits of a mask register that are set */
    ELEMENTS_SIGNS,    /* the n elements of size bytes of a vector that are negative */
};
struct elements {
    uint8_t by; /* enum elements_by */
    uint8_t reg, n, size;
};
/* False: it is not a number of elements. */
bool guest_find_elements(const struct insn *in, struct elements *elements);
/* Accesses to one element, or of an instruction that has none, that are reported for rw. */
unsigned guest_count_each(const struct insn *in, unsigned rw);
/* Lists the accesses of such an instruction, in order, from the state before it. */
size_t guest_list_accesses(const struct cpu *cpu, struct access *list);

/* ---- callee_x86_64.c: what plugin code does to the processor's state
 * --------------------------------- */

/* What a function and all that it calls may change besides memory and the arithmetic flags, of
 * what the ABI lets it change. */
struct callee {
    uint16_t regs; /* general registers */
    uint16_t xmm;  /* xmm registers; their upper halves are kept */
};

/* False: nothing is proven; the function needs the host's %fs and everything saved. */
bool callee_examine(const void *func, struct callee *callee);
/* Wherever a proof is used, calls of func are jumped over: it is not read. */
void callee_set_idle(const void *func);
/* Bytes of code from pc on that stay as they are; 0: none. */
size_t callee_code_size(uint64_t pc);
/* Where a branch through the slot of an imported function leads; 0: it is none. */
uint64_t callee_find_import(const struct insn *in);

/* ---- trap_x86_64.c: guest instructions that do not run in the cache
 * --------------------------------- */

/* At EXIT_TRAP: raises what the kernel raises for the instruction at cpu->pc, or does its work. */
void guest_trap(struct cpu *cpu);
/* Raises what the kernel raises when the instruction at cpu->pc cannot be fetched. */
void guest_fetch_fault(struct cpu *cpu);
/* If cpu->pc is an entry of the kernel's vsyscall page, makes it look as if that call's syscall
 * instruction had just run and the caller were next. */
bool guest_enter_vsyscall(struct cpu *cpu);

/* ---- tb.c: block cache ------------------------------------------------------------------------
 */

/* Everything in translate.c, tb.c and jit_x86_64.c runs under tb_lock unless it says otherwise.
 * Order of locks: tb_lock, plugin lock or one of a plugin's own, vma lock. A signal that finds its
 * thread with a plugin's own waits. */
void tb_init(void);
/* Block at guest address pc, translated if need be; NULL: the fetch faults. */
struct tb *tb_find(struct cpu *cpu, uint64_t pc, enum tb_entry entry);
struct tb *tb_lookup(uint64_t pc);
/* A block at pc, which checks nothing, behind the call of len bytes that ends there; or NULL. */
struct tb *tb_find_landing(uint64_t pc, unsigned len);
/* Superblock whose code holds host_pc; NULL: a stub or trampoline. */
struct superblock *tb_by_host(uint64_t host_pc);
void tb_insert(struct superblock *sb);
/* Binds an exit to its block, now or as soon as there is one. */
void tb_bind(struct link *link);
/* Memory that lives until the next flush, 8-byte aligned; NULL: full. */
void *tb_alloc(size_t size);
void tb_lock(void);
void tb_lock_bare(struct cpu *cpu); /* the same where cpu may be bare */
void tb_unlock(void);
/* From now on there may be several threads: blocking syscalls are not made from the cache. */
void tb_share(void);
/* The latest block at pc has found itself changed, or unchanged for so long that its page is an
 * ordinary one again: drops its superblock. */
void tb_drop_stale(uint64_t pc);
/* The mapping of [start, start+len) has changed: drops all translations there; takes tb_lock. */
void tb_unmap(uint64_t start, uint64_t len);
/* Drops all translations made of what is in [start, start+len), and waits, but for a callback's
 * thread, until no other runs those that rely on constants there; takes tb_lock. */
void tb_invalidate(uint64_t start, uint64_t len);
/* Drops everything and runs the plugins' flush callbacks; takes tb_lock. */
void tb_flush(void);
/* Makes threads that run in the cache come out soon; takes tb_lock. */
void tb_cut(void);
/* The same from a signal handler in the cache, where this thread may hold a plugin's lock, which
 * whoever has tb_lock waits for: not then. */
void tb_try_cut(void);
/* Keeps all other threads out of the cache and of new callbacks, until tb_go_on(): returns when
 * none is in either. Not from a callback, which another thread's may wait for; takes tb_lock. */
void tb_stop(void);
void tb_go_on(void);
bool tb_is_stopped(void); /* another thread has stopped this one */
void tb_wait_stopped(void);
bool tb_is_empty(void); /* no block since the last flush */
/* With tb_lock: translates what earlier children of fork() had to; in a child: from now on what it
 * lacks is told to its parent. */
void tb_before_fork(struct cpu *cpu);
void tb_fork_child(void);
/* There was no code, or no entry of this kind, for pc. */
void tb_note_entry(uint64_t pc, enum tb_entry entry);
/* Changes with every flush: a struct link or tb from before it is gone. */
unsigned tb_generation(void);

/* ---- stats.c: what -d stats shows
 * -------------------------------------------------------------------- */

/* Counted under tb_lock, since the start or the fork. */
extern struct stats {
    uint64_t superblocks, blocks, insns, guest_bytes; /* translated, again after a flush */
    uint64_t host_bytes;                              /* made of them, with stubs and entries */
    uint64_t flushes;
    uint64_t looked_up[8];   /* by EXIT_*: how often code asked where to go on */
    uint64_t translation_ns; /* of CPU time; with LOG_STATS only */
} stats;
uint64_t stats_clock(void); /* the thread's CPU time, ns */
/* At the end of a program. */
void stats_print(void);

/* ---- smc.c: guest code that changes
 * ---------------------------------------------------------------- */

/* Before the code at addr is read for translation: from now on changes of its page are noticed.
 * True: its blocks have to check themselves. */
bool smc_watch(uint64_t addr);
bool smc_is_writable(uint64_t addr); /* the bytes there can change without a change of mapping */
/* Reads the pointer at addr; false: it cannot be read, or can change while its mapping and that
 * one's protection stay. */
bool smc_read_constant(uint64_t addr, uint64_t *value);
void smc_note_keys(void); /* from now on a register may decide what can be read */
/* How often such a block is entered until it asks whether the page has come to rest. */
uint32_t smc_patience(uint64_t addr);
/* It has: no block that is made from now on has to check itself. */
void smc_cool(uint64_t addr);
/* A write to addr faulted. True: the page was protected by smc_watch and is writable now. It may
 * have become so for another thread: what the guest may write, it can write again.
 * own_code: the writing instruction lies in that page. */
bool smc_write_fault(uint64_t addr, bool own_code);
bool smc_is_watching(void); /* some page is protected; without tb_lock */
/* The kernel is to write to [start, start+len): makes what is protected there writable; false:
 * nothing was. */
bool smc_open(uint64_t start, uint64_t len);
/* The guest changed the protection of [start, start+len) or its mapping. */
void smc_forget(uint64_t start, uint64_t len);

/* ---- signal.c ----------------------------------------------------------------------------------
 */

void signal_init(void); /* once, before the first vCPU runs */
void signal_thread_init(struct cpu *cpu);
void signal_inherit(struct cpu *cpu, const struct cpu *parent); /* what a new thread does */
/* Makes cpu go to the handler of what is pending when it enters the cache. */
void signal_deliver(struct cpu *cpu);
/* True if what is pending came from outside, not from what the cpu did. */
bool signal_can_wait(const struct cpu *cpu);
/* A plugin sets the pc: the fault that waits is none any more. */
void signal_cancel_fault(struct cpu *cpu);
/* A synchronous signal at cpu->pc: siginfo's si_code and si_addr; trap number and error code as the
 * processor would give them. Takes effect when the cpu enters the cache next. */
void signal_raise(struct cpu *cpu, int sig, int code, uint64_t addr, int trap, int error);
/* Ends the process by sig with the default action, after plugins' atexit. */
_Noreturn void signal_die(struct cpu *cpu, int sig);
/* Syscall bodies: return -errno or the result. */
int64_t signal_sigaction(struct cpu *cpu, int sig, uint64_t act, uint64_t old, size_t size);
int64_t signal_sigprocmask(struct cpu *cpu, int how, uint64_t set, uint64_t old, size_t size);
int64_t signal_sigaltstack(struct cpu *cpu, uint64_t ss, uint64_t old);
int64_t signal_sigreturn(struct cpu *cpu);
/* Blocks everything on the host and returns the guest's mask; sets the guest's mask. */
uint64_t signal_block(struct cpu *cpu);
void signal_set_mask(struct cpu *cpu, uint64_t mask);
void signal_thread_exit(struct cpu *cpu);
/* In the child of a fork, between signal_block and signal_set_mask: nothing is pending. */
void signal_forget_held(struct cpu *cpu);
bool signal_has_tracer(void); /* when emu starts: it may keep any signal from the process */
void signal_be_traced(void);  /* from now on the guest's faults are to be seen by a tracer */
/* Makes another thread leave the cache although it waits there for a page (userfaultfd). */
void signal_evict(const struct cpu *cpu);
/* From now on plugin_ops_tick() is called each time that this thread has run for ms in user mode;
 * when it says true, the thread comes to C soon. */
void signal_start_ticks(unsigned ms);
/* For vfork: the process's dispositions and the thread's signal state. */
struct signal_snapshot *signal_save(struct cpu *cpu);
void signal_restore(struct cpu *cpu, struct signal_snapshot *snapshot);
/* Makes the host's dispositions and mask what the next program is to inherit, and makes the call.
 * EXEC_CANCELLED: a signal was faster, the guest's handler comes first. */
int64_t signal_exec(struct cpu *cpu, long nr, const uint64_t *arg);

/* ---- linux_clone.c: bodies of fork, vfork, clone and exit
 * ------------------------------------------ */

bool clone_fork(struct cpu *cpu, const uint64_t *arg, int64_t *ret);
bool clone_vfork(struct cpu *cpu, const uint64_t *arg, int64_t *ret);
bool clone_clone(struct cpu *cpu, const uint64_t *arg, int64_t *ret);
bool clone_set_tid_address(struct cpu *cpu, const uint64_t *arg, int64_t *ret);
bool clone_get_tid_address(struct cpu *cpu, const uint64_t *arg, int64_t *ret);
bool clone_exit(struct cpu *cpu, const uint64_t *arg, int64_t *ret);

/* ---- linux_exec.c: bodies of execve and execveat
 * ---------------------------------------------------- */

bool exec_execve(struct cpu *cpu, const uint64_t *arg, int64_t *ret);
bool exec_execveat(struct cpu *cpu, const uint64_t *arg, int64_t *ret);

/* ---- linux_syscalls.c --------------------------------------------------------------------------
 */

/* What generated code does at a syscall instruction with this number. */
enum syscall_route {
    ROUTE_PASS = 0 /* straight to the kernel */,
    ROUTE_C = 1 /* linux_syscall() */
};
enum syscall_route linux_syscall_route(int nr);

enum syscall_next {
    SYSCALL_DONE,    /* result stored, or cpu moved: go on at cpu->pc */
    SYSCALL_FORWARD, /* let the kernel do it with the guest's registers, then linux_syscall_ret */
};
/* Handles the syscall cpu stands at (cpu->pc already behind the instruction). Runs plugins'
 * syscall callbacks, -strace, and the body. */
enum syscall_next linux_syscall(struct cpu *cpu);
/* After SYSCALL_FORWARD: return callbacks and -strace; stores the result. */
void linux_syscall_ret(struct cpu *cpu, int64_t ret);
/* Ends the process as exit_group(status) does, after plugins' atexit callbacks. */
_Noreturn void preexit_cleanup(struct cpu *cpu, int status);

/* Answers a syscall: its result, -errno included, goes to *ret. False: the kernel shall do it. */
typedef bool syscall_body(struct cpu *cpu, const uint64_t *arg, int64_t *ret);
/* The call as it is, made from C; -errno on failure. */
int64_t host_syscall(long nr, const uint64_t *arg);
/* Copies a string of the guest, at most size bytes with its NUL; false if it faults or is longer.
 */
bool guest_copy_string(char *buf, size_t size, uint64_t addr);

/* ---- linux_mem.c: syscalls that change the address space
 * ------------------------------------------ */

syscall_body mem_mmap, mem_munmap, mem_mprotect, mem_mremap, mem_madvise, mem_brk, mem_shmat,
    mem_shmdt;
/* The guest's heap, [*start, *end): what brk has mapped. */
void mem_heap(uint64_t *start, uint64_t *end);
/* Before a call is made: lets the kernel write to pages with code that its arguments name, which
 * have the letters of linux_strace.c in format. */
void mem_open_results(const char *format, const uint64_t *arg);
/* Held while mappings change; the outermost of all locks. fork() must own it. */
void mem_lock(void);
void mem_unlock(void);

/* ---- linux_proc.c: the guest's view of /proc
 * ------------------------------------------ */

syscall_body proc_open, proc_openat, proc_openat2, proc_readlink, proc_readlinkat;
/* True if path is /proc/PID/exe of this process or of another emu; program (PATH_MAX bytes) then
 * opens what that runs. */
bool proc_find_exe(int dirfd, const char *path, char *program);

/* ---- linux_strace.c: text of system calls
 * ----------------------------------------------------------- */

/* Logs one call. format has a letter per argument (legend in linux_strace.c); ret NULL: the call
 * does not return. */
void strace_log(const char *name, const char *format, const uint64_t *arg, const int64_t *ret);

/* ---- plugin.c -----------------------------------------------------------------------------------
 */

enum plugin_place { PLACE_TB, PLACE_INSN, PLACE_MEM };
enum plugin_op_kind {
    OP_CALL,      /* func(vcpu, udata); PLACE_MEM: func(vcpu, info, vaddr, udata) */
    OP_CALL_COND, /* the same if u64 at offset <cond> imm, unsigned */
    OP_ADD,       /* u64 at offset += imm */
    OP_STORE,     /* u64 at offset = imm */
    OP_ADD_PTR,   /* size bytes at the absolute address ptr += imm */
    OP_STORE_PTR, /* size bytes there = imm */
    OP_GUARD,     /* first in a block, which is stale unless size bytes at ptr are imm */
    OP_LOCK,   /* 32 bits at ptr: from 0 to 1, or else func(vcpu, udata) and on behind OP_UNLOCK */
    OP_UNLOCK, /* from 1 to 0, or else func(vcpu, udata) */
};

#define LOOP_COPIES 4 /* of a block's code, at most */

/* One piece of instrumentation that a plugin asked for, in the order in which it must run. */
struct plugin_op {
    uint8_t kind, place; /* enum plugin_op_kind, enum plugin_place */
    uint8_t rw;          /* PLACE_MEM: MEM_READ | MEM_WRITE wanted */
    uint8_t cond;        /* enum qemu_plugin_cond, EQ..GE only */
    uint8_t cb_flags;    /* enum qemu_plugin_cb_flags */
    uint8_t size;        /* of the word at ptr */
    bool locked;         /* OP_ADD_PTR: atomic */
    uint8_t copies;      /* of its block's code, or 0; copy n adds at offset + 8 n */
    bool once;           /* OP_STORE: no more than the first time changes anything */
    uint16_t insn;       /* index of the instruction in its block */
    uint64_t pc;         /* its address (PLACE_TB: the block's) */
    union {
        int64_t offset; /* of the u64, from the cpu (gs base) */
        void *ptr;
    };
    uint64_t imm;
    void *func;
    void *udata;
    struct qemu_plugin_ctx *ctx;
};

#ifdef CONFIG_PLUGIN

/* -plugin ARG; may be repeated. Dies on bad grammar. */
void handle_arg_plugin(const char *arg);
/* Loads all plugins of the list, in order; dies with QEMU's messages. */
void qemu_plugin_load_list(void);
bool plugin_is_loaded(void); /* at least one */
/* True if any plugin wants the event; cheap. */
bool plugin_wants_tb_trans(void);
bool plugin_wants_syscall(void);
bool plugin_wants_discon(void); /* exceptions or interrupts */

/* Around blocks that are translated together: the way to plugins and back is long. */
void plugin_gen_unit_start(void);
void plugin_gen_unit_end(void);
/* translator_loop's side of a block, by QEMU's names; under tb_lock. */
void plugin_gen_tb_start(struct cpu *cpu, uint64_t pc);
void plugin_gen_insn_start(const struct insn *in);
void plugin_gen_insn_end(void);
/* Runs the tb_trans callbacks and returns what they asked for, sorted by place of execution
 * (block, then per instruction: PLACE_INSN, PLACE_MEM); *count may be 0. Valid until the next
 * block's. */
const struct plugin_op *plugin_gen_tb_end(struct cpu *cpu, size_t *count);

/* plugin_ops.c: a block's operations made cheaper, so that no plugin can tell. Under tb_lock.
 * The rank of an operation says when it runs: 0 with the block, 1 + 2n with its instruction n,
 * 2 + 2n with that one's accesses. */
/* Gives the block the n operations that were asked for: calls become what they do. */
void plugin_ops_fold(struct unit *u, int block, const struct plugin_op *asked, size_t n);
/* Additions to one counter become one; needs live. */
void plugin_ops_merge(struct unit *u, int block);
/* The list of the block is complete. It stays until all blocks go. */
void plugin_ops_keep(struct unit *u, int block);
/* Carries out an addition or a store. */
void plugin_ops_run(struct cpu *cpu, const struct plugin_op *op);
/* The block is left with only its operations of a rank below done to count: corrects what merged
 * ones have counted ahead or not yet. */
void plugin_ops_settle(struct cpu *cpu, const struct tb *tb, unsigned done);
void plugin_ops_init(void);
/* Counting is quickest in cells that no plugin can see. True while some of it may be there. */
bool plugin_ops_hides(void);
void plugin_ops_observe(void); /* brings the scoreboards up to date */
void plugin_ops_expose(void);  /* the same for good: a plugin has pointers into them */
void plugin_ops_share(void);   /* there will be another thread */
/* A plugin is about to read the word at that offset from the cpu, or to change it. */
void plugin_ops_read(int64_t offset);
void plugin_ops_write(int64_t offset);
/* True if everything is to be translated anew: there are cells, or marks made once, though there
 * are to be none, or a tick of the clock has found marks that may not be needed any more. */
bool plugin_ops_must_flush(void);
bool plugin_ops_tick(void); /* the same; in a signal handler */
void plugin_ops_fork_child(void);
void plugin_ops_flush(void); /* all blocks go, and no thread is in the cache */
void plugin_ops_lock(void);  /* fork() must not copy it in another thread's hands */
void plugin_ops_unlock(void);
/* Of instruction insn of tb, at in, n elements have been accessed: counts them. */
void plugin_ops_count(struct cpu *cpu, const struct tb *tb, unsigned insn, const struct insn *in,
                      uint64_t n);
/* A block was stale: if by a guard, the callback behind it is not folded for ever. */
void plugin_ops_stale(const struct tb *tb);

/* plugin_fold_x86_64.c: what a call does, as at most max operations, guards first; their number,
 * or -1: that cannot be told. */
int plugin_fold(const struct plugin_op *op, struct plugin_op *out, int max);
void plugin_fold_failed(const void *func); /* a guard of this callback did not hold */

/* Called by generated code for OP_CALL and OP_CALL_COND; guest state is in cpu. */
void plugin_run_op(struct cpu *cpu, const struct plugin_op *op);
/* PLACE_MEM: info is the meminfo word made by plugin_meminfo. The value is what is at vaddr: reads
 * are reported before the instruction, writes behind it. Accesses of more than 16 bytes are
 * reported in pieces, in address order. */
void plugin_run_mem_op(struct cpu *cpu, const struct plugin_op *op, uint32_t info, uint64_t vaddr);
/* Around an instruction whose accesses vary: reports them to n operations of any kind. */
void plugin_run_mem_before(struct cpu *cpu, const struct plugin_op *ops, size_t n);
void plugin_run_mem_after(struct cpu *cpu, const struct plugin_op *ops, size_t n);
/* mem_flags: set of enum mem_flag; a store if MEM_WRITE is among them. */
uint32_t plugin_meminfo(unsigned size, unsigned mem_flags);
/* Carries out uninstall and reset requests made where the code cache could not be flushed (in the
 * cache, in a tb_trans callback); for the run loop, without tb_lock. */
void plugin_run_pending(void);
bool plugin_is_pending(void); /* a bare cpu may ask */

/* File of the plugin that the code belongs to, or NULL. */
const char *plugin_at(const void *code);
void qemu_plugin_vcpu_init_hook(struct cpu *cpu);
void qemu_plugin_vcpu_exit_hook(struct cpu *cpu);
void qemu_plugin_vcpu_syscall(struct cpu *cpu, int64_t num, const uint64_t args[8]);
void qemu_plugin_vcpu_syscall_ret(struct cpu *cpu, int64_t num, int64_t ret);
/* First filter that answers true sets *ret and returns true: the call is not made. */
bool qemu_plugin_vcpu_syscall_filter(struct cpu *cpu, int64_t num, const uint64_t args[8],
                                     int64_t *ret);
/* In C, before the signal is delivered: the instruction at pc raises an exception; the handler at
 * to comes before the instruction at from. */
void qemu_plugin_vcpu_exception(struct cpu *cpu, uint64_t pc);
void qemu_plugin_vcpu_interrupt(struct cpu *cpu, uint64_t from, uint64_t to);
void qemu_plugin_flush_cb(void);
/* Runs the atexit callbacks, once per process image. */
void qemu_plugin_atexit_cb(void);
/* After a fault at a host pc: true if it is the doing of a plugin, which has been said. */
bool plugin_explain_fault(const void *pc);
/* execve failed after qemu_plugin_atexit_cb: the program goes on, its end is still to come. */
void plugin_exec_failed(void);
void plugin_before_fork(void);
void plugin_after_fork(bool child);

/* plugin.c for plugin_gen.c, plugin_api.c and plugin_glib.c. */
#define PLUGIN_API_MIN 0
#define PLUGIN_API_CUR 7

struct qemu_plugin_insn {
    const struct insn *in; /* the unit's */
    uint16_t index;        /* in its block */
};

/* The block being translated. */
struct qemu_plugin_tb {
    uint64_t pc;
    size_t n;
    struct qemu_plugin_insn insns[TB_MAX_INSNS];
};

/* One element per vCPU, at the same place of each arena. */
struct qemu_plugin_scoreboard {
    int64_t offset; /* from the cpu */
    size_t size;
    struct qemu_plugin_scoreboard *next; /* in the free list */
};

/* Runs the tb_trans callbacks. */
void qemu_plugin_tb_trans_cb(struct qemu_plugin_tb *tb);
/* The plugin whose callback runs on this thread, or NULL. */
struct qemu_plugin_ctx *plugin_current(void);
/* API version of the plugin that calls the API now; caller is a code address in it, for calls
 * made outside callbacks. */
int plugin_api_version(const void *caller);
/* dlopen handle of the plugin whose callback runs, or NULL. */
void *plugin_current_handle(void);
/* Address of the access that the running memory callback is about; false: none runs. */
bool plugin_mem_vaddr(uint64_t *vaddr);
/* True in a tb_trans callback: the calling thread has tb_lock. */
bool plugin_is_translating(void);
bool plugin_is_exiting(void); /* atexit callbacks run, or have run */
/* qemu_plugin_set_pc. */
_Noreturn void plugin_resume_at(uint64_t pc);
/* Recursive; guards callback lists and scoreboards; taken after tb_lock. */
void plugin_lock(void);
void plugin_unlock(void);
/* A plugin broke the API's rules in calling function: says how, and aborts as QEMU does. */
_Noreturn void plugin_abuse(const char *function, const char *what);
/* True for handles of the block being translated. */
bool plugin_has_tb(const struct qemu_plugin_tb *tb);
bool plugin_has_insn(const struct qemu_plugin_insn *insn);

/* plugin_glib.c: the two GLib types that cross the API. The process's GLib does the work if there
 * is one; emu itself does not link it. */
/* Makes GLib's functions available to plugins that use them without linking it. */
bool glib_load(void);
/* A GArray of n elements, or NULL. */
void *glib_array_new(const void *elements, unsigned size, unsigned n);
void glib_bytes_append(void *byte_array, const void *data, unsigned len);
void glib_bytes_set_size(void *byte_array, unsigned len);

#else /* CONFIG_PLUGIN */

static inline void handle_arg_plugin(const char *arg)
{
    die("-plugin %s: this emu was built without plugin support (CONFIG_PLUGIN=n)", arg);
}
static inline void qemu_plugin_load_list(void)
{
}
static inline bool plugin_is_loaded(void)
{
    return false;
}
static inline bool plugin_wants_tb_trans(void)
{
    return false;
}
static inline bool plugin_wants_syscall(void)
{
    return false;
}
static inline bool plugin_wants_discon(void)
{
    return false;
}
static inline void plugin_gen_unit_start(void)
{
}
static inline void plugin_gen_unit_end(void)
{
}
static inline void plugin_gen_tb_start(struct cpu *cpu, uint64_t pc)
{
    (void)cpu, (void)pc;
}
static inline void plugin_gen_insn_start(const struct insn *in)
{
    (void)in;
}
static inline void plugin_gen_insn_end(void)
{
}
static inline const struct plugin_op *plugin_gen_tb_end(struct cpu *cpu, size_t *count)
{
    (void)cpu;
    *count = 0;
    return NULL;
}
static inline void plugin_ops_fold(struct unit *u, int block, const struct plugin_op *asked,
                                   size_t n)
{
    (void)u, (void)block, (void)asked, (void)n;
}
static inline void plugin_ops_merge(struct unit *u, int block)
{
    (void)u, (void)block;
}
static inline void plugin_ops_keep(struct unit *u, int block)
{
    (void)u, (void)block;
}
static inline void plugin_ops_settle(struct cpu *cpu, const struct tb *tb, unsigned done)
{
    (void)cpu, (void)tb, (void)done;
}
static inline bool plugin_ops_must_flush(void)
{
    return false;
}
static inline bool plugin_ops_tick(void)
{
    return false;
}
static inline void plugin_ops_share(void)
{
}
static inline void plugin_ops_count(struct cpu *cpu, const struct tb *tb, unsigned insn,
                                    const struct insn *in, uint64_t n)
{
    (void)cpu, (void)tb, (void)insn, (void)in, (void)n;
}
static inline void plugin_ops_flush(void)
{
}
static inline void plugin_ops_stale(const struct tb *tb)
{
    (void)tb;
}
static inline void plugin_run_op(struct cpu *cpu, const struct plugin_op *op)
{
    (void)cpu, (void)op;
}
static inline void plugin_run_mem_op(struct cpu *cpu, const struct plugin_op *op, uint32_t info,
                                     uint64_t vaddr)
{
    (void)cpu, (void)op, (void)info, (void)vaddr;
}
static inline uint32_t plugin_meminfo(unsigned size, unsigned mem_flags)
{
    (void)size, (void)mem_flags;
    return 0;
}
static inline void plugin_run_pending(void)
{
}
static inline bool plugin_is_pending(void)
{
    return false;
}
static inline const char *plugin_at(const void *code)
{
    (void)code;
    return NULL;
}
static inline void qemu_plugin_vcpu_init_hook(struct cpu *cpu)
{
    cpu->initialised = true;
}
static inline void qemu_plugin_vcpu_exit_hook(struct cpu *cpu)
{
    cpu->initialised = false;
}
static inline void qemu_plugin_vcpu_syscall(struct cpu *cpu, int64_t num, const uint64_t args[8])
{
    (void)cpu, (void)num, (void)args;
}
static inline void qemu_plugin_vcpu_syscall_ret(struct cpu *cpu, int64_t num, int64_t ret)
{
    (void)cpu, (void)num, (void)ret;
}
static inline bool qemu_plugin_vcpu_syscall_filter(struct cpu *cpu, int64_t num,
                                                   const uint64_t args[8], int64_t *ret)
{
    (void)cpu, (void)num, (void)args, (void)ret;
    return false;
}
static inline void qemu_plugin_vcpu_exception(struct cpu *cpu, uint64_t pc)
{
    (void)cpu, (void)pc;
}
static inline void qemu_plugin_vcpu_interrupt(struct cpu *cpu, uint64_t from, uint64_t to)
{
    (void)cpu, (void)from, (void)to;
}
static inline void qemu_plugin_flush_cb(void)
{
}
static inline void qemu_plugin_atexit_cb(void)
{
}
static inline bool plugin_explain_fault(const void *pc)
{
    (void)pc;
    return false;
}
static inline void plugin_exec_failed(void)
{
}
static inline void plugin_before_fork(void)
{
}
static inline void plugin_after_fork(bool child)
{
    (void)child;
}

#endif /* CONFIG_PLUGIN */

#endif
