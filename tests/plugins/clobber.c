/* Changes all that the ABI lets a callback change: before each block, at and behind each
 * instruction, for each access, and where a condition holds. FULL: with more vectors, and with the
 * host's %fs, which has its own address at 0. */
#include <qemu-plugin.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

#ifdef FULL
#define MORE                                                                                       \
    "pcmpeqd %%xmm5, %%xmm5; pcmpeqd %%xmm15, %%xmm15; mov %%fs:0, %%rax; mov (%%rax), %%rax;"
#else
#define MORE
#endif

static qemu_plugin_u64 count;

static inline void clobber(void)
{
    __asm__ volatile(MORE "pcmpeqd %%xmm0, %%xmm0; pcmpeqd %%xmm1, %%xmm1; pcmpeqd %%xmm7, %%xmm7;"
                          "pcmpeqd %%xmm14, %%xmm14; mov $-1, %%rax; mov %%rax, %%rcx;"
                          "mov %%rax, %%rdx; mov %%rax, %%rsi; mov %%rax, %%rdi; mov %%rax, %%r8;"
                          "mov %%rax, %%r9; mov %%rax, %%r10; mov %%rax, %%r11; add %%rax, %%rax" ::
                              : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "xmm0",
                                "xmm1", "xmm5", "xmm7", "xmm14", "xmm15", "cc", "memory");
}

static void vcpu_exec(unsigned vcpu, void *userdata)
{
    (void)vcpu, (void)userdata;
    clobber();
}

static void vcpu_mem(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *userdata)
{
    (void)vcpu, (void)info, (void)vaddr, (void)userdata;
    clobber();
}

static void instrument_insn(struct qemu_plugin_insn *insn)
{
    static const uint64_t limits[] = {3, UINT64_MAX - 3};
    const enum qemu_plugin_cb_flags flags = QEMU_PLUGIN_CB_NO_REGS;
    qemu_plugin_register_vcpu_insn_exec_cb(insn, vcpu_exec, flags, NULL);
    for (int cond = QEMU_PLUGIN_COND_EQ; cond <= QEMU_PLUGIN_COND_GE; cond++)
        for (int i = 0; i < 2; i++)
            qemu_plugin_register_vcpu_insn_exec_cond_cb(
                insn, vcpu_exec, flags, (enum qemu_plugin_cond)cond, count, limits[i], &count);
    qemu_plugin_register_vcpu_mem_cb(insn, vcpu_mem, flags, QEMU_PLUGIN_MEM_RW, &count);
}

static void vcpu_tb_trans(struct qemu_plugin_tb *tb, void *userdata)
{
    (void)userdata;
    qemu_plugin_register_vcpu_tb_exec_cb(tb, vcpu_exec, QEMU_PLUGIN_CB_NO_REGS, NULL);
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64, count, 1);
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++)
        instrument_insn(qemu_plugin_tb_get_insn(tb, i));
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    (void)info, (void)argc, (void)argv;
    count = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans, NULL);
    return 0;
}
