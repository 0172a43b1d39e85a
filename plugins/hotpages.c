/* hotpages.c: the pages that were accessed most often.
 *
 *   sortby=reads|writes|address   order of the report (default: reads and writes together)
 *   pagesize=N                    a power of two (default 4096)
 *   io=on                         device accesses instead (none in user mode) */
#define EMU_PLUGIN_API_VERSION 4
#include "map.h"
#include "options.h"

#include <pthread.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

#define ROWS 50

struct page {
    uint64_t addr;
    uint64_t reads, writes;
    unsigned readers, writers; /* sets of vCPUs, modulo 32 */
};

enum sort { BY_ACCESSES, BY_READS, BY_WRITES, BY_ADDRESS };
static const char *const sorts[] = {"accesses", "reads", "writes", "address"};
static enum sort sort;
static uint64_t page_size = 4096;
static bool io_only;
static struct map pages = {.record_size = sizeof(struct page)};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void vcpu_mem(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *userdata)
{
    (void)userdata;
    if (io_only && !qemu_plugin_hwaddr_is_io(qemu_plugin_get_hwaddr(info, vaddr)))
        return;
    bool store = qemu_plugin_mem_is_store(info);
    pthread_mutex_lock(&lock);
    struct page *page = map_get(&pages, vaddr & ~(page_size - 1));
    ++*(store ? &page->writes : &page->reads);
    *(store ? &page->writers : &page->readers) |= 1u << vcpu % 32;
    pthread_mutex_unlock(&lock);
}

static void vcpu_tb_trans(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++)
        qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(tb, i), vcpu_mem,
                                         QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_RW, NULL);
}

/* What the report is sorted by, largest first. */
static uint64_t weigh_page(const struct page *page)
{
    const uint64_t weights[] = {page->reads + page->writes, page->reads, page->writes, page->addr};
    return weights[sort];
}

static int compare_pages(const void *a, const void *b)
{
    uint64_t x = weigh_page(*(const struct page *const *)a);
    uint64_t y = weigh_page(*(const struct page *const *)b);
    return (x < y) - (x > y);
}

static void plugin_exit(qemu_plugin_id_t id, void *userdata)
{
    (void)id, (void)userdata;
    pthread_mutex_lock(&lock);
    void **sorted = map_sorted(&pages, compare_pages);
    outf("Addr, RCPUs, Reads, WCPUs, Writes\n");
    for (size_t i = 0; i < pages.n && i < ROWS; i++) {
        const struct page *page = sorted[i];
        outf("0x%016" PRIx64 ", 0x%04x, %" PRIu64 ", 0x%04x, %" PRIu64 "\n", page->addr,
             page->readers, page->reads, page->writers, page->writes);
    }
    free(sorted);
    pthread_mutex_unlock(&lock);
}

static bool parse_sort(const char *value)
{
    for (int i = BY_ACCESSES; i <= BY_ADDRESS; i++)
        if (!strcmp(value, sorts[i])) {
            sort = (enum sort)i;
            return true;
        }
    return false;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    const struct option options[] = {
        {"sortby", OPTION_CALL, NULL, parse_sort},
        {"pagesize", OPTION_U64, &page_size, NULL},
        {"io", OPTION_BOOL, &io_only, NULL},
        {0},
    };
    (void)info;
    if (!parse_options(options, argc, argv))
        return -1;
    if (!page_size || page_size & (page_size - 1)) {
        fprintf(stderr, "hotpages: pagesize must be a power of two\n");
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans);
    qemu_plugin_register_atexit_cb(id, plugin_exit, NULL);
    return 0;
}
