/* Blocks mark themselves, inline or by a call, as the argument by= says. At every system call the
 * marks are printed and something is done to them that way= names. What is printed must not depend
 * on by=. With way=count blocks count themselves too, and at the end both must agree. */
#include <qemu-plugin.h>
#include <stdio.h>
#include <string.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

#define BLOCKS 4096 /* the rest goes unmarked */

struct words {
    uint64_t mark[BLOCKS + 1], count[BLOCKS];
};
struct store {
    qemu_plugin_u64 word;
    uint64_t value;
};

static struct qemu_plugin_scoreboard *score;
static uint64_t pcs[BLOCKS];
static struct store stores[2 * BLOCKS]; /* of calls */
static size_t n_blocks, n_stores;
static const char *way = "";
static bool by_call;

static qemu_plugin_u64 word_at(size_t offset)
{
    return (qemu_plugin_u64){score, offset};
}

static size_t find_block(uint64_t pc)
{
    size_t i = 0;
    while (i < n_blocks && pcs[i] != pc)
        i++;
    if (i == n_blocks && i < BLOCKS)
        pcs[n_blocks++] = pc;
    return i;
}

/* Calls the C library, so that it stays a call. */
static void carry_out(unsigned vcpu, void *userdata)
{
    const struct store *store = userdata;
    fflush(stdout);
    qemu_plugin_u64_set(store->word, vcpu, store->value);
}

static void ask(struct qemu_plugin_tb *tb, size_t offset, uint64_t value)
{
    struct store *store = &stores[n_stores];
    if (!by_call) {
        qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_STORE_U64,
                                                          word_at(offset), value);
    } else if (n_stores < sizeof stores / sizeof stores[0]) {
        *store = (struct store){word_at(offset), value};
        qemu_plugin_register_vcpu_tb_exec_cb(tb, carry_out, QEMU_PLUGIN_CB_NO_REGS, store);
        n_stores++;
    }
}

static void vcpu_tb_trans(struct qemu_plugin_tb *tb, void *userdata)
{
    (void)userdata;
    size_t i = find_block(qemu_plugin_tb_vaddr(tb));
    if (i == BLOCKS)
        return;
    ask(tb, 8 * i, 1);
    if (!strcmp(way, "other"))
        ask(tb, 8 * (i ? i - 1 : 0), 2);
    if (!strcmp(way, "odd"))
        ask(tb, 8 * i + 4, 3);
    if (!strcmp(way, "count"))
        qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
            tb, QEMU_PLUGIN_INLINE_ADD_U64, word_at(offsetof(struct words, count) + 8 * i), 1);
}

static void change_marks(unsigned vcpu)
{
    if (!strcmp(way, "find"))
        memset(qemu_plugin_scoreboard_find(score, vcpu), 0, sizeof(struct words));
    for (size_t i = 0; i < n_blocks; i++)
        if (!strcmp(way, "set"))
            qemu_plugin_u64_set(word_at(8 * i), vcpu, 0);
        else if (!strcmp(way, "add"))
            qemu_plugin_u64_add(word_at(8 * i), vcpu, 1);
}

static void vcpu_syscall(unsigned vcpu, int64_t num, uint64_t a1, uint64_t a2, uint64_t a3,
                         uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8,
                         void *userdata)
{
    (void)a1, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8, (void)userdata;
    uint64_t n = 0, sum = 0;
    if (!strcmp(way, "count"))
        return;
    for (size_t i = 0; i < n_blocks; i++) {
        uint64_t mark = qemu_plugin_u64_get(word_at(8 * i), vcpu);
        n += mark != 0;
        sum = sum * 31 + mark;
    }
    fprintf(stderr, "%d: %zu blocks, %" PRIu64 " marked: %" PRIx64 "\n", (int)num, n_blocks, n,
            sum);
    change_marks(vcpu);
}

static void plugin_exit(void *userdata)
{
    (void)userdata;
    unsigned marked = 0, wrong = 0;
    for (unsigned vcpu = 0; vcpu < (unsigned)qemu_plugin_num_vcpus(); vcpu++)
        for (size_t i = 0; i < n_blocks; i++) {
            bool mark = qemu_plugin_u64_get(word_at(8 * i), vcpu);
            size_t count = offsetof(struct words, count) + 8 * i;
            wrong += mark != (qemu_plugin_u64_get(word_at(count), vcpu) != 0);
            marked += mark;
        }
    if (!strcmp(way, "count"))
        fprintf(stderr, "%s marked, %u wrong\n", marked ? "some" : "none", wrong);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++)
        if (!strncmp(argv[i], "way=", 4))
            way = argv[i] + 4;
        else
            by_call = !strcmp(argv[i], "by=call");
    score = qemu_plugin_scoreboard_new(sizeof(struct words));
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans, NULL);
    qemu_plugin_register_vcpu_syscall_cb(id, vcpu_syscall, NULL);
    qemu_plugin_register_atexit_cb(id, plugin_exit, NULL);
    return 0;
}
