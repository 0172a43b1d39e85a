/* Takes over the program, as a mode says that is its only argument:
 *   filter=on    write(1, ...) is not made but succeeds
 *   skip=on      main returns 42 at once, by qemu_plugin_set_pc
 *   change=on    main gets argc 3, by qemu_plugin_write_register
 *   wrong=on     qemu_plugin_set_pc where it is forbidden
 *   exit=on      the plugin calls exit(9) in the first block
 *   patch=on     the text "hello" of the program becomes "HELLO", read-only as it is */
#include "bytes.h"

#include <stdio.h>
#include <string.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static struct bytes buffer;
static struct qemu_plugin_register *rax, *rsp, *rdi;
static char mode[32];

static uint64_t read_reg(struct qemu_plugin_register *reg)
{
    uint64_t value;
    buffer.array.len = 0;
    qemu_plugin_read_register(reg, &buffer.array);
    memcpy(&value, buffer.array.data, sizeof value);
    return value;
}

static void write_reg(struct qemu_plugin_register *reg, uint64_t value)
{
    memcpy(buffer.array.data, &value, sizeof value);
    buffer.array.len = sizeof value;
    if (!qemu_plugin_write_register(reg, &buffer.array))
        fprintf(stderr, "write_register FAILED\n");
}

static void vcpu_init(unsigned vcpu, void *userdata)
{
    (void)vcpu, (void)userdata;
    GArray *all = qemu_plugin_get_registers();
    const qemu_plugin_reg_descriptor *d = (const qemu_plugin_reg_descriptor *)all->data;
    rax = d[0].handle;
    rdi = d[5].handle;
    rsp = d[7].handle;
}

static void skip_main(unsigned vcpu, void *userdata)
{
    (void)vcpu, (void)userdata;
    uint64_t sp = read_reg(rsp);
    write_reg(rax, 42);
    write_reg(rsp, sp + 8);
    qemu_plugin_set_pc(*(const uint64_t *)(uintptr_t)sp);
}

static void change_argc(unsigned vcpu, void *userdata)
{
    (void)vcpu, (void)userdata;
    write_reg(rdi, 3);
}

static void set_pc_wrongly(unsigned vcpu, void *userdata)
{
    (void)vcpu;
    qemu_plugin_set_pc((uintptr_t)userdata);
}

static void call_exit(unsigned vcpu, void *userdata)
{
    (void)vcpu, (void)userdata;
    exit(9);
}

static void patch_text(unsigned vcpu, void *userdata)
{
    (void)vcpu, (void)userdata;
    uint64_t code = qemu_plugin_start_code();
    for (uint64_t at = code & ~4095ull; at < code + 0x10000; at++) {
        if (!qemu_plugin_read_memory_vaddr(at, &buffer.array, 6))
            return;
        if (memcmp(buffer.array.data, "hello,", 6))
            continue;
        memcpy(buffer.array.data, "HELLO,", 6);
        fprintf(stderr, "patched %d\n", qemu_plugin_write_memory_vaddr(at, &buffer.array));
        return;
    }
}

static bool is_main(const struct qemu_plugin_insn *insn, const struct qemu_plugin_tb *tb)
{
    const char *symbol = qemu_plugin_insn_symbol(insn);
    static uint64_t start;
    if (symbol && !strcmp(symbol, "main") && !start)
        start = qemu_plugin_tb_vaddr(tb);
    return qemu_plugin_insn_vaddr(insn) == start;
}

static void vcpu_tb_trans(struct qemu_plugin_tb *tb, void *userdata)
{
    (void)userdata;
    static const struct {
        const char *mode;
        qemu_plugin_vcpu_udata_cb_t call;
        enum qemu_plugin_cb_flags flags;
    } modes[] = {
        {"skip=on", skip_main, QEMU_PLUGIN_CB_RW_REGS_PC},
        {"change=on", change_argc, QEMU_PLUGIN_CB_RW_REGS},
        {"wrong=on", set_pc_wrongly, QEMU_PLUGIN_CB_RW_REGS},
        {"exit=on", call_exit, QEMU_PLUGIN_CB_NO_REGS},
        {"patch=on", patch_text, QEMU_PLUGIN_CB_NO_REGS},
    };
    struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, 0);
    for (size_t i = 0; is_main(insn, tb) && i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(mode, modes[i].mode))
            qemu_plugin_register_vcpu_insn_exec_cb(insn, modes[i].call, modes[i].flags, NULL);
}

static bool vcpu_filter(unsigned vcpu, int64_t num, uint64_t a1, uint64_t a2, uint64_t a3,
                        uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8,
                        int64_t *sysret, void *userdata)
{
    (void)vcpu, (void)a2, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8, (void)userdata;
    *sysret = (int64_t)a3;
    return !strcmp(mode, "filter=on") && num == 1 && a1 == 1;
}

static void plugin_exit(void *userdata)
{
    (void)userdata;
    fprintf(stderr, "control ends\n");
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    (void)info;
    if (argc != 1 || !bytes_init(&buffer, 64))
        return -1;
    snprintf(mode, sizeof mode, "%s", argv[0]);
    qemu_plugin_register_vcpu_init_cb(id, vcpu_init, NULL);
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans, NULL);
    qemu_plugin_register_vcpu_syscall_filter_cb(id, vcpu_filter, NULL);
    qemu_plugin_register_atexit_cb(id, plugin_exit, NULL);
    return 0;
}
