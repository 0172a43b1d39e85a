/* Checks the API from inside, in the version it is built for: the shape of every callback, what
 * changed its meaning between versions, and that several ways to count agree. Each check reports
 * its name once, "name ok" or "name FAILED", at exit. */
#include <qemu-plugin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define V EMU_PLUGIN_API_VERSION

QEMU_PLUGIN_EXPORT int qemu_plugin_version = V;

/* First and last parameter of event callbacks, and whether they are what was registered. */
#if V >= 7
#define ID
#define ID_
#define UD       void *userdata
#define _UD      , void *userdata
#define REG(f)   f, &marker
#define SHAPE_OK (userdata == &marker)
#else
#define ID  qemu_plugin_id_t id
#define ID_ qemu_plugin_id_t id,
#define UD  qemu_plugin_id_t id
#define _UD
#define REG(f)   f
#define SHAPE_OK (id == my_id)
#endif

enum { MAX_CHECKS = 64 };
static struct {
    const char *name;
    int good, bad;
} checks[MAX_CHECKS];

static qemu_plugin_id_t my_id;
static int marker;

static void check(const char *name, int good)
{
    int i = 0;
    while (i < MAX_CHECKS - 1 && checks[i].name && strcmp(checks[i].name, name))
        i++;
    checks[i].name = name;
    good ? checks[i].good++ : checks[i].bad++;
}

/* ---- counting in several ways ---- */

static uint64_t called[3]; /* tb, insn, mem */
#if V <= 1
static uint64_t inlined[3];
#else
static struct qemu_plugin_scoreboard *score;
static qemu_plugin_u64 entry[3];
#endif
#if V >= 3
static qemu_plugin_u64 phase; /* 0 1 0 1 ... per block */
static uint64_t odd_blocks, never, always;

static void vcpu_tb_odd(unsigned vcpu, void *userdata)
{
    (void)userdata;
    odd_blocks++;
    check("cond value", qemu_plugin_u64_get(phase, vcpu) >= 2);
    qemu_plugin_u64_set(phase, vcpu, 0);
}

static void vcpu_tb_count(unsigned vcpu, void *userdata)
{
    (void)vcpu;
    ++*(uint64_t *)userdata;
}
#endif

#if V >= 3
/* Comparisons are unsigned: with the largest number, and with equal ones. Blocks set the number
 * that conditions of their instructions look at. */
static const uint64_t operands[][2] = {{UINT64_MAX, 1}, {1, UINT64_MAX}, {7, 7}};
enum { CONDS = 6, CASES = 3 }; /* EQ NE LT LE GT GE */
static qemu_plugin_u64 compared;
static uint64_t tried[CASES], held[CASES][CONDS];

static void instrument_conditions(struct qemu_plugin_insn *insn)
{
    const enum qemu_plugin_cb_flags flags = QEMU_PLUGIN_CB_NO_REGS;
    for (int i = 0; i < CASES; i++) {
        qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, QEMU_PLUGIN_INLINE_STORE_U64,
                                                            compared, operands[i][0]);
        qemu_plugin_register_vcpu_insn_exec_cb(insn, vcpu_tb_count, flags, &tried[i]);
        for (int c = 0; c < CONDS; c++)
            qemu_plugin_register_vcpu_insn_exec_cond_cb(
                insn, vcpu_tb_count, flags, (enum qemu_plugin_cond)(QEMU_PLUGIN_COND_EQ + c),
                compared, operands[i][1], &held[i][c]);
    }
}

static void check_conditions(void)
{
    for (int i = 0; i < CASES; i++) {
        uint64_t a = operands[i][0], b = operands[i][1];
        const bool wanted[CONDS] = {a == b, a != b, a<b, a <= b, a> b, a >= b};
        for (int c = 0; c < CONDS; c++)
            check("unsigned conditions", tried[i] && held[i][c] == (wanted[c] ? tried[i] : 0));
    }
}
#endif

static void vcpu_tb_exec(unsigned vcpu, void *userdata)
{
    check("tb exec", vcpu == 0 && userdata == &marker);
    called[0]++;
}

/* ---- registers ---- */

#if V >= 2
struct bytes { /* as GLib lays it out */
    GByteArray array;
    unsigned alloc, size, bits;
    int refs;
    void (*clear)(void *);
};
static struct bytes buffer;
static struct qemu_plugin_register *rip, *rsp;

static void look_at_registers(void)
{
    GArray *all = qemu_plugin_get_registers();
    const qemu_plugin_reg_descriptor *d = (const qemu_plugin_reg_descriptor *)all->data;
    check("67 registers and more", all->len >= 67);
    check("register names", !strcmp(d[0].name, "rax") && !strcmp(d[7].name, "rsp") &&
                                !strcmp(d[16].name, "rip") && !strcmp(d[66].name, "orig_rax"));
    check("register features", !strcmp(d[0].feature, "org.gnu.gdb.i386.core") &&
                                   !strcmp(d[66].feature, "org.gnu.gdb.i386.linux"));
#if V >= 6
    check("read-only", d[16].is_readonly && !d[0].is_readonly && !d[66].is_readonly);
#endif
    rsp = d[7].handle;
    rip = d[16].handle;
    buffer.array.len = 0;
    unsigned failures = 0;
    for (unsigned i = 0; i < all->len; i++) {
        unsigned before = buffer.array.len;
        failures += qemu_plugin_read_register(d[i].handle, &buffer.array) <= 0 ||
                    buffer.array.len <= before;
        failures += !d[i].handle;
    }
    check("all registers read", !failures);
    check("no such register",
          !qemu_plugin_read_register((struct qemu_plugin_register *)9999, &buffer.array));
}

static uint64_t read_u64(struct qemu_plugin_register *reg)
{
    uint64_t value = 0;
    buffer.array.len = 0;
#if V >= 6
    check("read register", qemu_plugin_read_register(reg, &buffer.array));
#else
    check("read register", qemu_plugin_read_register(reg, &buffer.array) == 8);
#endif
    memcpy(&value, buffer.array.data, 8);
    return value;
}
#endif

static void vcpu_insn_exec(unsigned vcpu, void *userdata)
{
    check("insn exec", vcpu == 0);
    called[1]++;
    if (called[1] % 64)
        return;
#if V >= 2
    check("exact rip", read_u64(rip) == (uintptr_t)userdata);
    check("rsp is a stack", read_u64(rsp) > (uintptr_t)userdata);
#else
    (void)userdata;
#endif
#if V >= 5
    read_u64(rsp);
    check("write without leave", qemu_plugin_write_register(rsp, &buffer.array) <= 0);
#endif
#if V >= 4
    uint64_t code;
    memcpy(&code, userdata, sizeof code);
    check("read memory", qemu_plugin_read_memory_vaddr((uintptr_t)userdata, &buffer.array, 8) &&
                             buffer.array.len == 8 && !memcmp(buffer.array.data, &code, 8));
    check("read no memory", !qemu_plugin_read_memory_vaddr(16, &buffer.array, 8));
    check("read nothing", !qemu_plugin_read_memory_vaddr((uintptr_t)userdata, &buffer.array, 0));
    check("emu is no guest memory",
          !qemu_plugin_read_memory_vaddr((uintptr_t)&marker, &buffer.array, 8));
#endif
}

#if V >= 5
/* Also without the right to read. */
static void vcpu_insn_no_regs(unsigned vcpu, void *userdata)
{
    (void)vcpu, (void)userdata;
    if (called[1] % 64)
        return;
#if V >= 6
    check("no leave to read", !qemu_plugin_read_register(rsp, &buffer.array));
#else
    check("no leave to read", qemu_plugin_read_register(rsp, &buffer.array) == -1);
#endif
}
#endif

#if V >= 5
static void vcpu_insn_write(unsigned vcpu, void *userdata)
{
    (void)vcpu, (void)userdata;
    if (called[1] % 64)
        return;
    read_u64(rsp);
#if V >= 6
    check("write register", qemu_plugin_write_register(rsp, &buffer.array));
    check("write rip", !qemu_plugin_write_register(rip, &buffer.array));
#else
    check("write register", qemu_plugin_write_register(rsp, &buffer.array) == 8);
#endif
    buffer.array.len = 0;
    check("write nothing", qemu_plugin_write_register(rsp, &buffer.array) <= 0);
}
#endif

/* ---- memory ---- */

static void vcpu_mem(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *userdata)
{
    unsigned shift = qemu_plugin_mem_size_shift(info);
    check("mem", vcpu == 0 && userdata == &marker && vaddr);
    check("size", shift <= 4);
    const struct qemu_plugin_hwaddr *hw = qemu_plugin_get_hwaddr(info, vaddr);
    check("no hwaddr", !hw && !qemu_plugin_hwaddr_is_io(hw));
#if V == 0
    check("no device offset", !qemu_plugin_hwaddr_device_offset(hw));
#else
    check("no physical address", !qemu_plugin_hwaddr_phys_addr(hw) &&
                                     !strcmp(qemu_plugin_hwaddr_device_name(hw), "Invalid"));
#endif
    check("not sign-extended", shift < 3 || !qemu_plugin_mem_is_sign_extended(info));
    check("little endian", !qemu_plugin_mem_is_big_endian(info));
    called[2]++;
#if V >= 4
    qemu_plugin_mem_value value = qemu_plugin_mem_get_value(info);
    check("value type", value.type == (enum qemu_plugin_mem_value_type)shift);
    if (qemu_plugin_mem_is_store(info) && shift <= 4)
        check("stored value", !memcmp(&value.data, (void *)(uintptr_t)vaddr, 1u << shift));
#endif
}

/* ---- blocks ---- */

static void check_insn(const struct qemu_plugin_insn *insn)
{
    size_t size = qemu_plugin_insn_size(insn);
    const void *code = qemu_plugin_insn_haddr(insn);
    char *text = qemu_plugin_insn_disas(insn);
    check("size of insn", size >= 1 && size <= 15);
    check("address", (uintptr_t)code == qemu_plugin_insn_vaddr(insn));
    check("disas", text && *text);
    free(text);
#if V <= 2
    check("data", !memcmp(qemu_plugin_insn_data(insn), code, size));
#else
    uint8_t bytes[16];
    check("data", qemu_plugin_insn_data(insn, bytes, 16) == size && !memcmp(bytes, code, size));
    check("first byte", qemu_plugin_insn_data(insn, bytes, 1) == 1);
#endif
#if V >= 1
    const char *symbol = qemu_plugin_insn_symbol(insn);
    if (symbol && !strcmp(symbol, "main"))
        check("symbol", 1);
#endif
}

static void instrument_block(struct qemu_plugin_tb *tb)
{
    const enum qemu_plugin_op add = QEMU_PLUGIN_INLINE_ADD_U64;
    qemu_plugin_register_vcpu_tb_exec_cb(tb, vcpu_tb_exec, QEMU_PLUGIN_CB_NO_REGS, &marker);
#if V <= 1
    qemu_plugin_register_vcpu_tb_exec_inline(tb, add, &inlined[0], 1);
#else
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, add, entry[0], 1);
#endif
#if V >= 3
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, add, phase, 1);
    qemu_plugin_register_vcpu_tb_exec_cond_cb(tb, vcpu_tb_odd, QEMU_PLUGIN_CB_NO_REGS,
                                              QEMU_PLUGIN_COND_GE, phase, 2, NULL);
    qemu_plugin_register_vcpu_tb_exec_cond_cb(tb, vcpu_tb_count, QEMU_PLUGIN_CB_NO_REGS,
                                              QEMU_PLUGIN_COND_NEVER, phase, 0, &never);
    qemu_plugin_register_vcpu_tb_exec_cond_cb(tb, vcpu_tb_count, QEMU_PLUGIN_CB_NO_REGS,
                                              QEMU_PLUGIN_COND_ALWAYS, phase, 0, &always);
#endif
}

static void instrument_insn(struct qemu_plugin_insn *insn)
{
    const enum qemu_plugin_op add = QEMU_PLUGIN_INLINE_ADD_U64;
    const enum qemu_plugin_mem_rw rw = QEMU_PLUGIN_MEM_RW;
    void *pc = (void *)(uintptr_t)qemu_plugin_insn_vaddr(insn);
    qemu_plugin_register_vcpu_insn_exec_cb(insn, vcpu_insn_exec, QEMU_PLUGIN_CB_R_REGS, pc);
    qemu_plugin_register_vcpu_mem_cb(insn, vcpu_mem, QEMU_PLUGIN_CB_NO_REGS, rw, &marker);
#if V <= 1
    qemu_plugin_register_vcpu_insn_exec_inline(insn, add, &inlined[1], 1);
    qemu_plugin_register_vcpu_mem_inline(insn, rw, add, &inlined[2], 1);
#else
    qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, add, entry[1], 1);
    qemu_plugin_register_vcpu_mem_inline_per_vcpu(insn, rw, add, entry[2], 1);
#endif
#if V >= 3
    if (qemu_plugin_insn_vaddr(insn) % 16 == 0)
        instrument_conditions(insn);
#endif
#if V >= 5
    qemu_plugin_register_vcpu_insn_exec_cb(insn, vcpu_insn_no_regs, QEMU_PLUGIN_CB_NO_REGS, NULL);
    qemu_plugin_register_vcpu_insn_exec_cb(insn, vcpu_insn_write, QEMU_PLUGIN_CB_RW_REGS, NULL);
#endif
}

#if V >= 7
static void vcpu_tb_trans(struct qemu_plugin_tb *tb, UD)
#else
static void vcpu_tb_trans(ID_ struct qemu_plugin_tb *tb)
#endif
{
    size_t n = qemu_plugin_tb_n_insns(tb);
    check("tb trans", SHAPE_OK);
    check("block", n >= 1 && n <= 512 && !qemu_plugin_tb_get_insn(tb, n));
    check("first insn",
          qemu_plugin_tb_vaddr(tb) == qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, 0)));
    instrument_block(tb);
    for (size_t i = 0; i < n; i++) {
        check_insn(qemu_plugin_tb_get_insn(tb, i));
        instrument_insn(qemu_plugin_tb_get_insn(tb, i));
    }
}

/* ---- other events ---- */

#if V >= 7
static void vcpu_each(unsigned vcpu, void *userdata)
#else
static void vcpu_each(ID_ unsigned vcpu)
#endif
{
    check("for each", SHAPE_OK && vcpu == 0);
}

static void vcpu_init(ID_ unsigned vcpu _UD)
{
    check("vcpu init", SHAPE_OK && vcpu == 0);
    qemu_plugin_vcpu_for_each(my_id, REG(vcpu_each));
#if V <= 1
    check("n_vcpus", qemu_plugin_n_vcpus() == -1 && qemu_plugin_n_max_vcpus() == -1);
#else
    check("num_vcpus", qemu_plugin_num_vcpus() == 1);
    look_at_registers();
#endif
#if V >= 1
    const char *path = qemu_plugin_path_to_binary();
    check("path", path && path[0] == '/' && strstr(path, "/hello"));
    check("code", qemu_plugin_start_code() < qemu_plugin_end_code() && qemu_plugin_entry_code());
#endif
}

static int64_t last_call;

static void vcpu_syscall(ID_ unsigned vcpu, int64_t num, uint64_t a1, uint64_t a2, uint64_t a3,
                         uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8 _UD)
{
    (void)a1, (void)a2, (void)a4, (void)a5, (void)a6;
    check("syscall", SHAPE_OK && vcpu == 0 && num >= 0 && num < 1000 && !a7 && !a8);
    if (num == 1) /* write */
        check("syscall arguments", (a1 == 1 || a1 == 2) && a2 && a3 && a3 < 100);
    last_call = num;
}

static void vcpu_syscall_ret(ID_ unsigned vcpu, int64_t num, int64_t ret _UD)
{
    check("syscall ret", SHAPE_OK && vcpu == 0 && num == last_call);
    if (num == 1)
        check("bytes written", ret > 0 && ret < 100);
}

#if V >= 5
#if V >= 7
static void vcpu_discon(unsigned vcpu, enum qemu_plugin_discon_type type, uint64_t from,
                        uint64_t to, void *userdata)
#else
static void vcpu_discon(qemu_plugin_id_t id, unsigned vcpu, enum qemu_plugin_discon_type type,
                        uint64_t from, uint64_t to)
#endif
{
    check("discon", SHAPE_OK && vcpu == 0 && type == QEMU_PLUGIN_DISCON_INTERRUPT && from && to);
}
#endif

#if V >= 6
#if V >= 7
static bool vcpu_filter(unsigned vcpu, int64_t num, uint64_t a1, uint64_t a2, uint64_t a3,
                        uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8,
                        int64_t *sysret, void *userdata)
#else
static bool vcpu_filter(qemu_plugin_id_t id, unsigned vcpu, int64_t num, uint64_t a1, uint64_t a2,
                        uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7,
                        uint64_t a8, uint64_t *sysret)
#endif
{
    (void)a1, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    check("filter", SHAPE_OK && vcpu == 0 && num == last_call && sysret);
    return false;
}
#endif

static void flushed(UD)
{
    check("flush", SHAPE_OK);
}

#if V >= 5
static void check_physical(void)
{
    uint64_t physical;
    check("no physical memory", qemu_plugin_read_memory_hwaddr(0, &buffer.array, 8) ==
                                        QEMU_PLUGIN_HWADDR_OPERATION_ERROR &&
                                    qemu_plugin_write_memory_hwaddr(0, &buffer.array) ==
                                        QEMU_PLUGIN_HWADDR_OPERATION_ERROR &&
                                    !qemu_plugin_translate_vaddr(4096, &physical));
}
#endif

static void check_counts(void)
{
#if V <= 1
    for (int i = 0; i < 3; i++)
        check("inline counts", called[i] && called[i] == inlined[i]);
#else
    for (int i = 0; i < 3; i++)
        check("inline counts", called[i] && called[i] == qemu_plugin_u64_sum(entry[i]));
    check("find", *(uint64_t *)qemu_plugin_scoreboard_find(score, 0) == called[0]);
    qemu_plugin_u64_add(entry[0], 0, 5);
    check("u64", qemu_plugin_u64_get(entry[0], 0) == called[0] + 5);
    qemu_plugin_u64_set(entry[0], 0, 1);
    check("u64 set", qemu_plugin_u64_sum(entry[0]) == 1);
#endif
#if V >= 3
    check("cond counts", odd_blocks == called[0] / 2 && !never && always == called[0]);
    check("no time control", !qemu_plugin_request_time_control());
    qemu_plugin_update_ns(NULL, 1);
    check_conditions();
#endif
}

#if V >= 7
static void plugin_exit(void *userdata)
#else
static void plugin_exit(qemu_plugin_id_t id, void *userdata)
#endif
{
    check("atexit", SHAPE_OK && userdata == &marker);
#if V >= 5
    check_physical();
#endif
    check_counts();
    for (int i = 0; i < MAX_CHECKS && checks[i].name; i++)
        fprintf(stderr, "%s %s\n", checks[i].name, checks[i].bad ? "FAILED" : "ok");
    fprintf(stderr, "version %d done\n", V);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    (void)argc, (void)argv;
    check("info", info->version.min == 0 && info->version.cur == 7);
    my_id = id;
#if V >= 2
    buffer.size = buffer.refs = 1;
    score = qemu_plugin_scoreboard_new(3 * sizeof(uint64_t));
    for (size_t i = 0; i < 3; i++)
        entry[i] = (qemu_plugin_u64){score, i * sizeof(uint64_t)};
#endif
#if V >= 3
    phase = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    compared = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
#endif
#if V >= 1
    bool on = false, off = true;
    check("bool_parse", qemu_plugin_bool_parse("a", "yes", &on) && on &&
                            qemu_plugin_bool_parse("a", "n", &off) && !off &&
                            !qemu_plugin_bool_parse("a", "Yes", &on) &&
                            !qemu_plugin_bool_parse(NULL, "yes", &on));
#endif
    qemu_plugin_register_vcpu_init_cb(id, REG(vcpu_init));
    qemu_plugin_register_vcpu_tb_trans_cb(id, REG(vcpu_tb_trans));
    qemu_plugin_register_vcpu_syscall_cb(id, REG(vcpu_syscall));
    qemu_plugin_register_vcpu_syscall_ret_cb(id, REG(vcpu_syscall_ret));
#if V >= 5
    qemu_plugin_register_vcpu_discon_cb(id, QEMU_PLUGIN_DISCON_ALL, REG(vcpu_discon));
#endif
#if V >= 6
    qemu_plugin_register_vcpu_syscall_filter_cb(id, REG(vcpu_filter));
#endif
    qemu_plugin_register_flush_cb(id, REG(flushed));
    qemu_plugin_register_atexit_cb(id, plugin_exit, &marker);
    return 0;
}
