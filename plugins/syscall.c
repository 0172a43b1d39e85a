/* syscall.c: counts system calls and their errors.
 *
 *   print=on        report every call and return instead
 *   log_writes=on   also dump what is written by write(2) */
#define EMU_PLUGIN_API_VERSION 4
#include "bytes.h"
#include "map.h"
#include "options.h"

#include <ctype.h>
#include <pthread.h>
#include <sys/syscall.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

#define DUMP_MAX 65536

struct count {
    uint64_t num; /* the key */
    int64_t calls, errors;
};

static bool do_print, do_log_writes;
static struct map counts = {.record_size = sizeof(struct count)};
static struct bytes buffer;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* One line: sixteen bytes in hexadecimal and as characters. */
static void dump_line(const uint8_t *data, unsigned n)
{
    char text[80];
    int at = 0;
    for (unsigned i = 0; i < 16; i++)
        at += i < n ? sprintf(text + at, "%02x ", data[i]) : sprintf(text + at, "   ");
    at += sprintf(text + at, " | ");
    for (unsigned i = 0; i < n; i++)
        at += sprintf(text + at, "%c", isgraph(data[i]) ? data[i] : '.');
    outf("%s\n", text);
}

static void log_write(uint64_t addr, uint64_t len)
{
    size_t shown = len < DUMP_MAX ? len : DUMP_MAX;
    pthread_mutex_lock(&lock);
    if (qemu_plugin_read_memory_vaddr(addr, &buffer.array, shown)) {
        for (size_t i = 0; i < shown; i += 16)
            dump_line(buffer.array.data + i, (unsigned)(shown - i < 16 ? shown - i : 16));
    } else if (len) {
        fprintf(stderr, "syscall: cannot read the memory at 0x%" PRIx64 "\n", addr);
    }
    pthread_mutex_unlock(&lock);
}

static void vcpu_syscall(qemu_plugin_id_t id, unsigned vcpu, int64_t num, uint64_t a1, uint64_t a2,
                         uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7,
                         uint64_t a8)
{
    (void)id, (void)vcpu, (void)a1, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (do_print) {
        outf("syscall #%" PRIi64 "\n", num);
    } else {
        pthread_mutex_lock(&lock);
        ((struct count *)map_get(&counts, (uint64_t)num))->calls++;
        pthread_mutex_unlock(&lock);
    }
    if (do_log_writes && num == SYS_write)
        log_write(a2, a3);
}

static void vcpu_syscall_ret(qemu_plugin_id_t id, unsigned vcpu, int64_t num, int64_t ret)
{
    (void)id, (void)vcpu;
    if (do_print) {
        outf("syscall #%" PRIi64 " returned -> %" PRIi64 "\n", num, ret);
        return;
    }
    pthread_mutex_lock(&lock);
    /* The kernel's errors are -1 to -4095; a large address is none. */
    ((struct count *)map_get(&counts, (uint64_t)num))->errors += ret < 0 && ret >= -4095;
    pthread_mutex_unlock(&lock);
}

static int compare_counts(const void *a, const void *b)
{
    const struct count *x = *(const struct count *const *)a, *y = *(const struct count *const *)b;
    return x->calls != y->calls ? (x->calls < y->calls) - (x->calls > y->calls)
                                : (x->num > y->num) - (x->num < y->num);
}

static void plugin_exit(qemu_plugin_id_t id, void *userdata)
{
    (void)id, (void)userdata;
    pthread_mutex_lock(&lock);
    if (!do_print) {
        void **sorted = map_sorted(&counts, compare_counts);
        outf("syscall no.  calls  errors\n");
        for (size_t i = 0; i < counts.n; i++) {
            const struct count *c = sorted[i];
            outf("%-13" PRIi64 "%-6" PRIi64 " %" PRIi64 "\n", (int64_t)c->num, c->calls, c->errors);
        }
        free(sorted);
    }
    pthread_mutex_unlock(&lock);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    const struct option options[] = {
        {"print", OPTION_BOOL, &do_print, NULL},
        {"log_writes", OPTION_BOOL, &do_log_writes, NULL},
        {0},
    };
    (void)info;
    if (!parse_options(options, argc, argv) || !bytes_init(&buffer, DUMP_MAX))
        return -1;
    qemu_plugin_register_vcpu_syscall_cb(id, vcpu_syscall);
    qemu_plugin_register_vcpu_syscall_ret_cb(id, vcpu_syscall_ret);
    qemu_plugin_register_atexit_cb(id, plugin_exit, NULL);
    return 0;
}
