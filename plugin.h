/* plugin.h: what a plugin may use of emu, and what it must offer.
 *
 * The interface is that of QEMU's TCG plugins, API versions 0 to 7. A plugin chooses its version
 * before it includes this file:
 *
 *     #define EMU_PLUGIN_API_VERSION 4
 *     #include <qemu-plugin.h>
 *
 * and gets the newest one if it does not. What a plugin is shown always follows the number in its
 * qemu_plugin_version, so plugins built with QEMU's own header work as they are. Compiles as C and
 * as C++. Changes between versions are noted as [n]: since version n; [n-m]: in versions n to m.
 *
 * With EMU_PLUGIN_HOST, emu's own view: the functions of all versions, with the return types that
 * serve all of them. */
#ifndef QEMU_QEMU_PLUGIN_H
#define QEMU_QEMU_PLUGIN_H

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>

#ifndef EMU_PLUGIN_API_VERSION
#define EMU_PLUGIN_API_VERSION 7
#endif
#if EMU_PLUGIN_API_VERSION < 0 || EMU_PLUGIN_API_VERSION > 7
#error "EMU_PLUGIN_API_VERSION must be 0 to 7"
#endif

/* What a plugin assigns to its qemu_plugin_version. */
#define QEMU_PLUGIN_VERSION EMU_PLUGIN_API_VERSION

#define QEMU_PLUGIN_EXPORT  __attribute__((visibility("default")))
#define QEMU_PLUGIN_API     __attribute__((visibility("default")))
#define QEMU_PLUGIN_LOCAL   __attribute__((visibility("hidden")))

#ifdef __has_include
#if __has_include(<glib.h>)
#include <glib.h>
#define EMU_PLUGIN_HAS_GLIB 1
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

#ifndef EMU_PLUGIN_HAS_GLIB
/* The public part of GLib's arrays, for plugins built without GLib. Only arrays that GLib made, or
 * that have its whole private layout, may be handed to emu. */
typedef struct _GArray {
    char *data;
    unsigned len;
} GArray;
typedef struct _GByteArray {
    uint8_t *data;
    unsigned len;
} GByteArray;
#endif

/* ---- what a plugin defines ----------------------------------------------------------- */

/* Names a loaded plugin in calls that register something. */
typedef uint64_t qemu_plugin_id_t;

/* About the emulator; valid only during qemu_plugin_install. */
typedef struct qemu_info_t {
    const char *target_name; /* "x86_64" */
    struct {
        int min, cur; /* API versions accepted */
    } version;
    bool system_emulation; /* false */
    union {
        struct {
            int smp_vcpus, max_vcpus;
        } system;
    };
} qemu_info_t;

/* The API version the plugin was written for. */
QEMU_PLUGIN_EXPORT extern int qemu_plugin_version;

/* Called once, before the guest program is loaded; argv are the plugin's arguments, mostly
 * "name=value", and live as long as the plugin. Anything but 0 ends emu. */
QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv);

/* ---- rules for all that follows ------------------------------------------------------ */

/* A vCPU is a guest thread. Its index is one above the largest index of those alive when it starts,
 * so an index may serve several threads one after the other.
 *
 * Callbacks run on the guest thread that they are about, several at once if there are several
 * threads: what they share, the plugin locks. Only tb_trans callbacks exclude each other. All of
 * them may use the plugin's libc and its libraries.
 *
 * Unless something else is said, functions may be called at any time from qemu_plugin_install on,
 * on any thread of the guest. Called where it must not be, with a handle that is none, or with an
 * unknown number, a function ends emu with a line that names it and the plugin; from atexit
 * callbacks nothing can be registered, which is ignored with such a line.
 *
 * Addresses are the guest's, sizes are in bytes, registers and values in memory are in the guest's
 * order of bytes, the lowest first. */

/* ---- types --------------------------------------------------------------------------- */

struct qemu_plugin_tb;         /* a translation block, valid during the tb_trans callback */
struct qemu_plugin_insn;       /* an instruction of it, likewise */
struct qemu_plugin_scoreboard; /* an array with one element per vCPU */
struct qemu_plugin_hwaddr;     /* a physical address; there is none in user mode */
struct qemu_plugin_register;   /* handle of a register, never NULL */

/* Describes one memory access to the qemu_plugin_mem_* functions. */
typedef uint32_t qemu_plugin_meminfo_t;

/* What a callback may do with guest registers; the less, the faster it is called. Event callbacks
 * have no flags: tb_trans, vcpu_init and vcpu_exit are like RW_REGS, flush and atexit like NO_REGS,
 * all others like RW_REGS_PC. */
enum qemu_plugin_cb_flags {
    QEMU_PLUGIN_CB_NO_REGS,
    QEMU_PLUGIN_CB_R_REGS,     /* may call qemu_plugin_read_register */
    QEMU_PLUGIN_CB_RW_REGS,    /* and qemu_plugin_write_register */
    QEMU_PLUGIN_CB_RW_REGS_PC, /* [6] and qemu_plugin_set_pc */
};

/* Which accesses are wanted. */
enum qemu_plugin_mem_rw {
    QEMU_PLUGIN_MEM_R = 1,
    QEMU_PLUGIN_MEM_W,
    QEMU_PLUGIN_MEM_RW,
};

/* What an inline operation does to its uint64_t. */
enum qemu_plugin_op {
    QEMU_PLUGIN_INLINE_ADD_U64,
    QEMU_PLUGIN_INLINE_STORE_U64, /* [3] */
};

/* [3] When a conditional callback runs: if the entry compares so, unsigned, with the immediate. */
enum qemu_plugin_cond {
    QEMU_PLUGIN_COND_NEVER,
    QEMU_PLUGIN_COND_ALWAYS,
    QEMU_PLUGIN_COND_EQ,
    QEMU_PLUGIN_COND_NE,
    QEMU_PLUGIN_COND_LT,
    QEMU_PLUGIN_COND_LE,
    QEMU_PLUGIN_COND_GT,
    QEMU_PLUGIN_COND_GE,
};

/* [2] A uint64_t in each element of a scoreboard: one per vCPU. */
typedef struct qemu_plugin_u64 {
    struct qemu_plugin_scoreboard *score;
    size_t offset; /* in the element, in bytes */
} qemu_plugin_u64;

/* The element itself, or a member of it. */
#define qemu_plugin_scoreboard_u64(score)                                                          \
    (qemu_plugin_u64)                                                                              \
    {                                                                                              \
        score, 0                                                                                   \
    }
#define qemu_plugin_scoreboard_u64_in_struct(score, type, member)                                  \
    (qemu_plugin_u64)                                                                              \
    {                                                                                              \
        score, offsetof(type, member)                                                              \
    }

/* [4] A value read or written by an access. */
enum qemu_plugin_mem_value_type {
    QEMU_PLUGIN_MEM_VALUE_U8,
    QEMU_PLUGIN_MEM_VALUE_U16,
    QEMU_PLUGIN_MEM_VALUE_U32,
    QEMU_PLUGIN_MEM_VALUE_U64,
    QEMU_PLUGIN_MEM_VALUE_U128,
};
typedef struct qemu_plugin_mem_value {
    enum qemu_plugin_mem_value_type type;
    union {
        uint8_t u8;
        uint16_t u16;
        uint32_t u32;
        uint64_t u64;
        struct {
            uint64_t low, high;
        } u128;
    } data;
} qemu_plugin_mem_value;

/* [2] One entry of qemu_plugin_get_registers. An element of the array has 24 bytes up to version 5
 * and 32 from 6 on; snapshots of QEMU 11.0 from before is_readonly call themselves 6 too, and
 * nothing tells their plugins from later ones: those that list registers must be built anew. */
typedef struct qemu_plugin_reg_descriptor {
    struct qemu_plugin_register *handle; /* the same for all vCPUs, and for good */
    const char *name;                    /* as gdb has it, say "rax"; never freed */
    const char *feature;                 /* gdb's name of the group; never freed */
#if EMU_PLUGIN_API_VERSION >= 6
    bool is_readonly; /* qemu_plugin_write_register refuses it: rip */
#endif
} qemu_plugin_reg_descriptor;

/* [5] Why control flow was interrupted; a set. In user mode there are no host calls. */
enum qemu_plugin_discon_type {
    QEMU_PLUGIN_DISCON_INTERRUPT = 1 << 0,
    QEMU_PLUGIN_DISCON_EXCEPTION = 1 << 1,
    QEMU_PLUGIN_DISCON_HOSTCALL = 1 << 2,
    QEMU_PLUGIN_DISCON_ALL = -1,
};

/* [5] How an access by physical address went; in user mode always ERROR. */
enum qemu_plugin_hwaddr_operation_result {
    QEMU_PLUGIN_HWADDR_OPERATION_OK,
    QEMU_PLUGIN_HWADDR_OPERATION_ERROR,
    QEMU_PLUGIN_HWADDR_OPERATION_DEVICE_ERROR,
    QEMU_PLUGIN_HWADDR_OPERATION_ACCESS_DENIED,
    QEMU_PLUGIN_HWADDR_OPERATION_INVALID_ADDRESS,
    QEMU_PLUGIN_HWADDR_OPERATION_INVALID_ADDRESS_SPACE,
};

/* ---- events -------------------------------------------------------------------------- */

/* Up to version 6 event callbacks get the plugin's id first and, but for atexit, no userdata; from
 * 7 on they get userdata last and no id. A second registration of an event replaces the first,
 * NULL cancels it. The plugin loaded last is called first. Events can be registered at any time but
 * from atexit callbacks. */

/* A tb or insn was reached, or [7] something happened to a vCPU. */
typedef void (*qemu_plugin_vcpu_udata_cb_t)(unsigned int vcpu_index, void *userdata);

/* An access happened; only after it succeeded. */
typedef void (*qemu_plugin_vcpu_mem_cb_t)(unsigned int vcpu_index, qemu_plugin_meminfo_t info,
                                          uint64_t vaddr, void *userdata);

#if EMU_PLUGIN_API_VERSION >= 7

typedef void (*qemu_plugin_udata_cb_t)(void *userdata);
typedef void (*qemu_plugin_vcpu_tb_trans_cb_t)(struct qemu_plugin_tb *tb, void *userdata);
typedef void (*qemu_plugin_vcpu_syscall_cb_t)(unsigned int vcpu_index, int64_t num, uint64_t a1,
                                              uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5,
                                              uint64_t a6, uint64_t a7, uint64_t a8,
                                              void *userdata);
typedef void (*qemu_plugin_vcpu_syscall_ret_cb_t)(unsigned int vcpu_index, int64_t num, int64_t ret,
                                                  void *userdata);
typedef bool (*qemu_plugin_vcpu_syscall_filter_cb_t)(unsigned int vcpu_index, int64_t num,
                                                     uint64_t a1, uint64_t a2, uint64_t a3,
                                                     uint64_t a4, uint64_t a5, uint64_t a6,
                                                     uint64_t a7, uint64_t a8, int64_t *sysret,
                                                     void *userdata);
typedef void (*qemu_plugin_vcpu_discon_cb_t)(unsigned int vcpu_index,
                                             enum qemu_plugin_discon_type type, uint64_t from_pc,
                                             uint64_t to_pc, void *userdata);

/* Removes the plugin, or only its callbacks: all events and all instrumentation, so that every
 * block is translated anew. Both return at once; the rest is done before the next block or system
 * call, while no other thread runs guest code or callbacks, and then cb is called, if it is not
 * NULL. After reset the plugin may register anew, in cb too; after uninstall its id is invalid and
 * its destructors run, but its library stays mapped. Of several requests that wait the first holds.
 * Before there is a vCPU reset is done at once; uninstall must not be called from
 * qemu_plugin_install. */
QEMU_PLUGIN_API
void qemu_plugin_uninstall(qemu_plugin_id_t id, qemu_plugin_udata_cb_t cb, void *userdata);
QEMU_PLUGIN_API
void qemu_plugin_reset(qemu_plugin_id_t id, qemu_plugin_udata_cb_t cb, void *userdata);

/* A vCPU starts, ends, sleeps, wakes. The first comes before any other callback of that vCPU, with
 * its registers set; the end of the process is no vcpu_exit, and a child of fork() goes on as the
 * vCPU that forked. The last two never happen in user mode. */
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_init_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_udata_cb_t cb,
                                       void *userdata);
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_exit_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_udata_cb_t cb,
                                       void *userdata);
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_idle_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_udata_cb_t cb,
                                       void *userdata);
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_resume_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_udata_cb_t cb,
                                         void *userdata);

/* A block was translated: the place to look at it and to instrument it. It may be translated and
 * never run, and the same block may be translated again, in other lengths too. */
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_tb_trans_cb_t cb,
                                           void *userdata);

/* Before and after a system call. num is the kernel's number, a1 to a6 its arguments, a7 and a8 are
 * 0; ret is the result, from -4095 to -1 an error, or -512 for a call that will be restarted and
 * -513 for the end of a signal handler. exit, exit_group and a successful execve do not return.
 * In the first rip is behind the instruction already, in the second rax is still the number.
 * [6] A filter that returns true replaces the call by *sysret; then the others are not asked. */
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_syscall_cb_t cb,
                                          void *userdata);
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_syscall_ret_cb(qemu_plugin_id_t id,
                                              qemu_plugin_vcpu_syscall_ret_cb_t cb, void *userdata);
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_syscall_filter_cb(qemu_plugin_id_t id,
                                                 qemu_plugin_vcpu_syscall_filter_cb_t cb,
                                                 void *userdata);

/* Before a signal that has a handler, or ends the process. EXCEPTION: raised by the instruction at
 * from_pc, which is to_pc too. INTERRUPT: from outside, or sent by the program; to_pc is the
 * handler's, behind which the program goes on at from_pc. There are no HOSTCALLs. Registers can be
 * read and written; set_pc makes an exception none, and an interrupt wait for that pc. */
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_discon_cb(qemu_plugin_id_t id, enum qemu_plugin_discon_type type,
                                         qemu_plugin_vcpu_discon_cb_t cb, void *userdata);

/* All translations were dropped, and blocks will be translated anew: what the plugin keeps for them
 * it may free. No thread runs translated code meanwhile. */
QEMU_PLUGIN_API
void qemu_plugin_register_flush_cb(qemu_plugin_id_t id, qemu_plugin_udata_cb_t cb, void *userdata);

/* The process ends, or becomes another program: the place to report. Called on exit, on a signal
 * that kills (SIGKILL apart), and before execve, so again if that fails; also in processes that
 * fork() made. No other thread runs guest code or callbacks meanwhile, unless the plugin itself
 * called exit() or a callback blocks. The entries of all vCPUs can be read. */
QEMU_PLUGIN_API
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, qemu_plugin_udata_cb_t cb, void *userdata);

/* Calls cb for every live vCPU, on the calling thread; registers read there are those of the
 * calling vCPU. */
QEMU_PLUGIN_API
void qemu_plugin_vcpu_for_each(qemu_plugin_id_t id, qemu_plugin_vcpu_udata_cb_t cb, void *userdata);

#else /* versions 0 to 6 */

typedef void (*qemu_plugin_simple_cb_t)(qemu_plugin_id_t id);
typedef void (*qemu_plugin_udata_cb_t)(qemu_plugin_id_t id, void *userdata);
typedef void (*qemu_plugin_vcpu_simple_cb_t)(qemu_plugin_id_t id, unsigned int vcpu_index);
typedef void (*qemu_plugin_vcpu_tb_trans_cb_t)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb);
typedef void (*qemu_plugin_vcpu_syscall_cb_t)(qemu_plugin_id_t id, unsigned int vcpu_index,
                                              int64_t num, uint64_t a1, uint64_t a2, uint64_t a3,
                                              uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7,
                                              uint64_t a8);
typedef void (*qemu_plugin_vcpu_syscall_ret_cb_t)(qemu_plugin_id_t id, unsigned int vcpu_index,
                                                  int64_t num, int64_t ret);

/* As above, with this version's callbacks. */
QEMU_PLUGIN_API
void qemu_plugin_uninstall(qemu_plugin_id_t id, qemu_plugin_simple_cb_t cb);
QEMU_PLUGIN_API
void qemu_plugin_reset(qemu_plugin_id_t id, qemu_plugin_simple_cb_t cb);
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_init_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_simple_cb_t cb);
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_exit_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_simple_cb_t cb);
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_idle_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_simple_cb_t cb);
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_resume_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_simple_cb_t cb);
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_tb_trans_cb_t cb);
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_syscall_cb_t cb);
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_syscall_ret_cb(qemu_plugin_id_t id,
                                              qemu_plugin_vcpu_syscall_ret_cb_t cb);
QEMU_PLUGIN_API
void qemu_plugin_register_flush_cb(qemu_plugin_id_t id, qemu_plugin_simple_cb_t cb);
QEMU_PLUGIN_API
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, qemu_plugin_udata_cb_t cb, void *userdata);
QEMU_PLUGIN_API
void qemu_plugin_vcpu_for_each(qemu_plugin_id_t id, qemu_plugin_vcpu_simple_cb_t cb);

#if EMU_PLUGIN_API_VERSION >= 5
typedef void (*qemu_plugin_vcpu_discon_cb_t)(qemu_plugin_id_t id, unsigned int vcpu_index,
                                             enum qemu_plugin_discon_type type, uint64_t from_pc,
                                             uint64_t to_pc);
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_discon_cb(qemu_plugin_id_t id, enum qemu_plugin_discon_type type,
                                         qemu_plugin_vcpu_discon_cb_t cb);
#endif

#if EMU_PLUGIN_API_VERSION >= 6
typedef bool (*qemu_plugin_vcpu_syscall_filter_cb_t)(qemu_plugin_id_t id, unsigned int vcpu_index,
                                                     int64_t num, uint64_t a1, uint64_t a2,
                                                     uint64_t a3, uint64_t a4, uint64_t a5,
                                                     uint64_t a6, uint64_t a7, uint64_t a8,
                                                     uint64_t *sysret);
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_syscall_filter_cb(qemu_plugin_id_t id,
                                                 qemu_plugin_vcpu_syscall_filter_cb_t cb);
#endif

#endif /* versions 0 to 6 */

/* ---- instrumenting a block, in its tb_trans callback --------------------------------- */

/* All of this only in a tb_trans callback and for the block it got. All that is registered for one
 * place runs in the order of registration: the block's first, then per instruction, before it, then
 * its accesses, after each. The same may be registered several times. */

/* Calls cb whenever the block is entered, before an instruction, or after each of its accesses of
 * the kind wanted. userdata is handed to cb; it must live as long as the block may run. An
 * instruction with a rep prefix is one instruction, with accesses for each element. */
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, qemu_plugin_vcpu_udata_cb_t cb,
                                          enum qemu_plugin_cb_flags flags, void *userdata);
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
                                            qemu_plugin_vcpu_udata_cb_t cb,
                                            enum qemu_plugin_cb_flags flags, void *userdata);
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn, qemu_plugin_vcpu_mem_cb_t cb,
                                      enum qemu_plugin_cb_flags flags, enum qemu_plugin_mem_rw rw,
                                      void *userdata);

#if EMU_PLUGIN_API_VERSION <= 1 || defined(EMU_PLUGIN_HOST)

/* [0-1] Inline operations on a uint64_t that all vCPUs share; not atomic. */
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *tb, enum qemu_plugin_op op,
                                              void *ptr, uint64_t imm);
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *insn,
                                                enum qemu_plugin_op op, void *ptr, uint64_t imm);
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_mem_inline(struct qemu_plugin_insn *insn, enum qemu_plugin_mem_rw rw,
                                          enum qemu_plugin_op op, void *ptr, uint64_t imm);

/* [0-1] -1 in user mode. */
QEMU_PLUGIN_API
int qemu_plugin_n_vcpus(void);
QEMU_PLUGIN_API
int qemu_plugin_n_max_vcpus(void);

#endif
#if EMU_PLUGIN_API_VERSION >= 2

/* [2] Adds imm to the running vCPU's entry or stores it there, where a callback would be called,
 * but without a call. When blocks store and the program has settled, all are translated anew, for
 * the plugin to leave out stores that need not be made again; QEMU does so only when its cache is
 * full. */
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(struct qemu_plugin_tb *tb,
                                                       enum qemu_plugin_op op,
                                                       qemu_plugin_u64 entry, uint64_t imm);
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(struct qemu_plugin_insn *insn,
                                                         enum qemu_plugin_op op,
                                                         qemu_plugin_u64 entry, uint64_t imm);
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_mem_inline_per_vcpu(struct qemu_plugin_insn *insn,
                                                   enum qemu_plugin_mem_rw rw,
                                                   enum qemu_plugin_op op, qemu_plugin_u64 entry,
                                                   uint64_t imm);

/* [2] One more than the largest index so far; 0 before the first vCPU starts. */
QEMU_PLUGIN_API
int qemu_plugin_num_vcpus(void);

#endif

#if EMU_PLUGIN_API_VERSION >= 3
/* [3] Calls cb only if the running vCPU's entry compares with imm as cond says, at that point of
 * the order; costs little if it does not. */
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_tb_exec_cond_cb(struct qemu_plugin_tb *tb,
                                               qemu_plugin_vcpu_udata_cb_t cb,
                                               enum qemu_plugin_cb_flags flags,
                                               enum qemu_plugin_cond cond, qemu_plugin_u64 entry,
                                               uint64_t imm, void *userdata);
QEMU_PLUGIN_API
void qemu_plugin_register_vcpu_insn_exec_cond_cb(struct qemu_plugin_insn *insn,
                                                 qemu_plugin_vcpu_udata_cb_t cb,
                                                 enum qemu_plugin_cb_flags flags,
                                                 enum qemu_plugin_cond cond, qemu_plugin_u64 entry,
                                                 uint64_t imm, void *userdata);
#endif

/* ---- looking at a block -------------------------------------------------------------- */

/* All of this only in a tb_trans callback, for the block it got and its instructions. */

/* Number of its instructions, 1 to 512. */
QEMU_PLUGIN_API
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
/* Address of its first instruction. The others follow in memory; the last one ends the block
 * because it branches or the like, because 512 are enough, or because a page of 4096 bytes ends. */
QEMU_PLUGIN_API
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
/* Instruction number idx, from 0; NULL if there is no such one. */
QEMU_PLUGIN_API
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t idx);

#if EMU_PLUGIN_API_VERSION <= 2
/* [0-2] The instruction's bytes, as long as the callback runs. */
QEMU_PLUGIN_API
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
#else
/* [3] Copies its first bytes, at most len, to dest; returns how many. */
QEMU_PLUGIN_API
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *dest, size_t len);
#endif
/* Its length, 1 to 15. */
QEMU_PLUGIN_API
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
/* Its address. */
QEMU_PLUGIN_API
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
/* Where its bytes lie in the process that emulates: for emu, at the guest's address. */
QEMU_PLUGIN_API
void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *insn);
/* Its text in AT&T syntax, say "addq $1, %rax"; to be freed with g_free or free. A branch's target
 * is an absolute address; an instruction without operands ends in a space. */
QEMU_PLUGIN_API
char *qemu_plugin_insn_disas(const struct qemu_plugin_insn *insn);
/* [1] Name of the function it belongs to, in the program or any file that it mapped, or NULL; never
 * freed. */
QEMU_PLUGIN_API
const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *insn);

/* ---- looking at an access, in its callback ------------------------------------------- */

/* info is what the memory callback got, and means nothing afterwards. */

/* log2 of the bytes accessed: 0 to 4. What is wider is several accesses. */
QEMU_PLUGIN_API
unsigned int qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t info);
/* True for a load that extends by its sign, as movsx does. */
QEMU_PLUGIN_API
bool qemu_plugin_mem_is_sign_extended(qemu_plugin_meminfo_t info);
/* True for movbe: the value is the register's, and lies in memory the other way round. */
QEMU_PLUGIN_API
bool qemu_plugin_mem_is_big_endian(qemu_plugin_meminfo_t info);
/* True for a write. An instruction that reads and writes memory makes an access for each. */
QEMU_PLUGIN_API
bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t info);
#if EMU_PLUGIN_API_VERSION >= 4
/* [4] What was read, before it is extended, or written. Only while its callback runs. */
QEMU_PLUGIN_API
qemu_plugin_mem_value qemu_plugin_mem_get_value(qemu_plugin_meminfo_t info);
#endif

/* Physical addresses, of which there are none in user mode: NULL, and of NULL false, 0 and
 * "Invalid". */
QEMU_PLUGIN_API
struct qemu_plugin_hwaddr *qemu_plugin_get_hwaddr(qemu_plugin_meminfo_t info, uint64_t vaddr);
QEMU_PLUGIN_API
bool qemu_plugin_hwaddr_is_io(const struct qemu_plugin_hwaddr *haddr);
#if EMU_PLUGIN_API_VERSION == 0 || defined(EMU_PLUGIN_HOST)
/* [0] */
QEMU_PLUGIN_API
uint64_t qemu_plugin_hwaddr_device_offset(const struct qemu_plugin_hwaddr *haddr);
#endif
#if EMU_PLUGIN_API_VERSION >= 1
/* [1] */
QEMU_PLUGIN_API
uint64_t qemu_plugin_hwaddr_phys_addr(const struct qemu_plugin_hwaddr *haddr);
QEMU_PLUGIN_API
const char *qemu_plugin_hwaddr_device_name(const struct qemu_plugin_hwaddr *haddr);
#endif

/* ---- registers and memory, in callbacks ---------------------------------------------- */

#if EMU_PLUGIN_API_VERSION >= 2
/* [2] All registers of the vCPU of this thread: a GArray of qemu_plugin_reg_descriptor, the
 * caller's to free; only in callbacks of a vCPU. In QEMU's order, with their sizes in bytes:
 *
 * rax rbx rcx rdx rsi rdi rbp rsp r8 to r15 rip (8), eflags cs ss ds es fs gs (4), fs_base gs_base
 * (8), k_gs_base cr0 cr2 cr3 cr4 cr8 efer (8, constants), st0 to st7 (10), fctrl fstat (4), ftag
 * fiseg fioff foseg fooff fop (4, always 0), xmm0 to xmm15 (16), mxcsr (4), orig_rax (8, always 0).
 *
 * Behind them, where the processor has them, those that QEMU lacks: ymm0 to ymm15 (32, feature
 * org.gnu.gdb.i386.avx), zmm0 to zmm31 (64) and k0 to k7 (8, feature org.gnu.gdb.i386.avx512).
 * Unlike gdb's halves these are whole registers, whose low part xmm is. */
QEMU_PLUGIN_API
GArray *qemu_plugin_get_registers(void);
#if EMU_PLUGIN_API_VERSION >= 6 && !defined(EMU_PLUGIN_HOST)
/* [6] Appends the register's bytes to buf, whose old content stays; only in callbacks whose flags
 * allow it, else false, as for an unknown handle. Values are those before the instruction, rip and
 * eflags too; in a memory callback the instruction may have written its results already, but rip is
 * still its address. */
QEMU_PLUGIN_API
bool qemu_plugin_read_register(struct qemu_plugin_register *handle, GByteArray *buf);
#else
/* [2-5] The same, returning the size, 0 (no such register) or -1 (not allowed). */
QEMU_PLUGIN_API
int qemu_plugin_read_register(struct qemu_plugin_register *handle, GByteArray *buf);
#endif
#endif

#if EMU_PLUGIN_API_VERSION >= 4
/* [4] Makes buf len bytes long and copies guest memory there, whatever its protection; false if len
 * is 0 or some of it is not mapped. In memory callbacks, what a store wrote is there. */
QEMU_PLUGIN_API
bool qemu_plugin_read_memory_vaddr(uint64_t addr, GByteArray *buf, size_t len);
#endif

#if EMU_PLUGIN_API_VERSION >= 5
#if EMU_PLUGIN_API_VERSION >= 6 && !defined(EMU_PLUGIN_HOST)
/* [6] Sets a register from buf, which is to hold all of it; what is missing is 0. Takes effect at
 * once. False if the callback's flags are below RW_REGS, buf is empty, the handle is unknown, or
 * the register is rip. Of eflags the arithmetic flags and the direction are set; writes to
 * selectors, control registers and orig_rax have no effect. */
QEMU_PLUGIN_API
bool qemu_plugin_write_register(struct qemu_plugin_register *handle, GByteArray *buf);
#else
/* [5] The same, returning the size, 0 (no such register, or rip) or -1 (not allowed, or empty). */
QEMU_PLUGIN_API
int qemu_plugin_write_register(struct qemu_plugin_register *handle, GByteArray *buf);
#endif
#if EMU_PLUGIN_API_VERSION >= 6
/* [6] Leaves the callback for good and goes on at pc: what is registered behind it does not run,
 * nor does the instruction or the system call. Needs RW_REGS_PC, or an event callback that is like
 * it. */
QEMU_PLUGIN_API __attribute__((noreturn)) void qemu_plugin_set_pc(uint64_t pc);
#endif
/* [5] Writes the bytes of buf to guest memory, read-only pages and code too, which is then
 * translated anew (not the block that runs); false if some of it is not mapped, or buf is empty. */
QEMU_PLUGIN_API
bool qemu_plugin_write_memory_vaddr(uint64_t addr, GByteArray *buf);
/* [5] By physical address: QEMU_PLUGIN_HWADDR_OPERATION_ERROR in user mode. */
QEMU_PLUGIN_API
enum qemu_plugin_hwaddr_operation_result
qemu_plugin_read_memory_hwaddr(uint64_t addr, GByteArray *buf, size_t len);
QEMU_PLUGIN_API
enum qemu_plugin_hwaddr_operation_result qemu_plugin_write_memory_hwaddr(uint64_t addr,
                                                                         GByteArray *buf);
/* [5] Physical address of vaddr: false, there is none. */
QEMU_PLUGIN_API
bool qemu_plugin_translate_vaddr(uint64_t vaddr, uint64_t *hwaddr);
#endif

/* ---- scoreboards --------------------------------------------------------------------- */

#if EMU_PLUGIN_API_VERSION >= 2
/* [2] An array of elements of that size, one for each vCPU there will be, all zero. */
QEMU_PLUGIN_API
struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t element_size);
/* [2] Frees it. No block may use it any more: so not before a flush, reset or atexit callback. */
QEMU_PLUGIN_API
void qemu_plugin_scoreboard_free(struct qemu_plugin_scoreboard *score);
/* [2] The element of a vCPU, whose index must be below qemu_plugin_num_vcpus(). In emu it stays
 * where it is until the scoreboard is freed; in QEMU it may move when a vCPU starts. What a vCPU
 * left there the next one of that index finds. */
QEMU_PLUGIN_API
void *qemu_plugin_scoreboard_find(struct qemu_plugin_scoreboard *score, unsigned int vcpu_index);

/* [2] Adds to, reads, sets the entry of a vCPU, as scoreboard_find has it; the sum is over all
 * vCPUs, also those that ended. Not atomic: another thread's entry may be on the move. */
QEMU_PLUGIN_API
void qemu_plugin_u64_add(qemu_plugin_u64 entry, unsigned int vcpu_index, uint64_t added);
QEMU_PLUGIN_API
uint64_t qemu_plugin_u64_get(qemu_plugin_u64 entry, unsigned int vcpu_index);
QEMU_PLUGIN_API
void qemu_plugin_u64_set(qemu_plugin_u64 entry, unsigned int vcpu_index, uint64_t val);
QEMU_PLUGIN_API
uint64_t qemu_plugin_u64_sum(qemu_plugin_u64 entry);
#endif

/* ---- the rest ------------------------------------------------------------------------ */

/* Writes text to the log, standard error or the file of -D, if -d plugin is given; adds no newline.
 * The text of one call stays together. */
QEMU_PLUGIN_API
void qemu_plugin_outs(const char *string);

#if EMU_PLUGIN_API_VERSION >= 1
/* [1] Parses on, off, yes, no, true, false, y, n, the value of an argument name=val, to *ret; false
 * if it is none of them, or name or val is NULL. */
QEMU_PLUGIN_API
bool qemu_plugin_bool_parse(const char *name, const char *val, bool *ret);

/* [1] The guest program: its file (to be freed with g_free or free), where its code begins and
 * ends, and where execution starts, which is the interpreter's entry if the program has one. Known
 * from vcpu_init on: before, NULL and 0. */
QEMU_PLUGIN_API
const char *qemu_plugin_path_to_binary(void);
QEMU_PLUGIN_API
uint64_t qemu_plugin_start_code(void);
QEMU_PLUGIN_API
uint64_t qemu_plugin_end_code(void);
QEMU_PLUGIN_API
uint64_t qemu_plugin_entry_code(void);
#endif

#if EMU_PLUGIN_API_VERSION >= 3
/* [3] Virtual time: NULL in user mode, and no effect. */
QEMU_PLUGIN_API
const void *qemu_plugin_request_time_control(void);
QEMU_PLUGIN_API
void qemu_plugin_update_ns(const void *handle, int64_t time);
#endif

#ifdef __cplusplus
}
#endif

#endif
