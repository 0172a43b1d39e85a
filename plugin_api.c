/* plugin_api.c: the questions plugins ask: blocks, accesses, registers, memory, scoreboards.
 *
 * May know: the API of each version, and emu's services through emu.h. Must not know: the guest
 * ISA, how plugins are loaded and when their callbacks run (plugin.c). */
#include "emu.h"
#define EMU_PLUGIN_HOST
#include "plugin.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- blocks and instructions --------------------------------------------------------- */

static const struct qemu_plugin_tb *check_tb(const char *function, const struct qemu_plugin_tb *tb)
{
    if (!plugin_has_tb(tb))
        plugin_abuse(function, "not the block of a running tb_trans callback");
    return tb;
}

static const struct insn *check_insn(const char *function, const struct qemu_plugin_insn *insn)
{
    if (!plugin_has_insn(insn))
        plugin_abuse(function, "not an instruction of the block of a running tb_trans callback");
    return insn->in;
}

static const void *code_of(const struct insn *in)
{
    return (const void *)(uintptr_t)in->pc;
}

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb)
{
    return check_tb(__func__, tb)->n;
}

uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb)
{
    return check_tb(__func__, tb)->pc;
}

struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t idx)
{
    return idx < check_tb(__func__, tb)->n ? (struct qemu_plugin_insn *)&tb->insns[idx] : NULL;
}

/* Up to version 2 this takes only insn, and returns a pointer to the bytes. */
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *dest, size_t len)
{
    const struct insn *in = check_insn(__func__, insn);
    if (plugin_api_version(__builtin_return_address(0)) <= 2)
        return (size_t)(uintptr_t)code_of(in);
    size_t n = len < in->len ? len : in->len;
    memcpy(dest, code_of(in), n);
    return n;
}

size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn)
{
    return check_insn(__func__, insn)->len;
}

uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn)
{
    return check_insn(__func__, insn)->pc;
}

void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *insn)
{
    return (void *)(uintptr_t)code_of(check_insn(__func__, insn));
}

char *qemu_plugin_insn_disas(const struct qemu_plugin_insn *insn)
{
    struct insn in = *check_insn(__func__, insn);
    char text[128];
    decode_effects(&in, code_of(&in));
    disas(text, sizeof text, &in, code_of(&in), DISAS_ATT);
    return strdup(text);
}

const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *insn)
{
    return elf_symbol(check_insn(__func__, insn)->pc, NULL);
}

/* ---- memory accesses ----------------------------------------------------------------- */

enum {
    INFO_SHIFT = 0xf, /* log2 of the size */
    INFO_SIGNED = 1 << 4,
    INFO_BIGEND = 1 << 5,
    INFO_STORE = 1 << 6,
};

uint32_t plugin_meminfo(unsigned size, unsigned mem_flags)
{
    uint32_t info = 0;
    while (info < INFO_SHIFT && 1u << info < size)
        info++;
    if (mem_flags & MEM_SIGNED)
        info |= INFO_SIGNED;
    if (mem_flags & MEM_BIGEND)
        info |= INFO_BIGEND;
    return mem_flags & MEM_WRITE ? info | INFO_STORE : info;
}

unsigned int qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t info)
{
    return info & INFO_SHIFT;
}

bool qemu_plugin_mem_is_sign_extended(qemu_plugin_meminfo_t info)
{
    return info & INFO_SIGNED;
}

bool qemu_plugin_mem_is_big_endian(qemu_plugin_meminfo_t info)
{
    return info & INFO_BIGEND;
}

bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t info)
{
    return info & INFO_STORE;
}

qemu_plugin_mem_value qemu_plugin_mem_get_value(qemu_plugin_meminfo_t info)
{
    uint8_t bytes[16] = {0};
    unsigned shift = qemu_plugin_mem_size_shift(info);
    size_t size = (size_t)1 << shift;
    qemu_plugin_mem_value value = {.type = (enum qemu_plugin_mem_value_type)shift};
    uint64_t vaddr;
    if (!plugin_mem_vaddr(&vaddr))
        plugin_abuse(__func__, "called outside a memory callback");
    if (size > sizeof bytes || !guest_copy(bytes, (const void *)(uintptr_t)vaddr, size))
        return value;
    if (qemu_plugin_mem_is_big_endian(info))
        for (size_t i = 0; i < size / 2; i++) {
            uint8_t low = bytes[i];
            bytes[i] = bytes[size - 1 - i];
            bytes[size - 1 - i] = low;
        }
    memcpy(&value.data, bytes, sizeof bytes);
    return value;
}

/* No address is physical in user mode: nothing ever gets a struct qemu_plugin_hwaddr. */

struct qemu_plugin_hwaddr *qemu_plugin_get_hwaddr(qemu_plugin_meminfo_t info, uint64_t vaddr)
{
    (void)info, (void)vaddr;
    return NULL;
}

bool qemu_plugin_hwaddr_is_io(const struct qemu_plugin_hwaddr *haddr)
{
    (void)haddr;
    return false;
}

uint64_t qemu_plugin_hwaddr_device_offset(const struct qemu_plugin_hwaddr *haddr)
{
    (void)haddr;
    return 0;
}

uint64_t qemu_plugin_hwaddr_phys_addr(const struct qemu_plugin_hwaddr *haddr)
{
    (void)haddr;
    return 0;
}

const char *qemu_plugin_hwaddr_device_name(const struct qemu_plugin_hwaddr *haddr)
{
    (void)haddr;
    return "Invalid";
}

/* ---- registers ----------------------------------------------------------------------- */

/* The descriptor as plugins of each version lay it out. */
struct descriptor {
    uintptr_t handle;
    const char *name, *feature;
    bool is_readonly;
};
enum { DESCRIPTOR_SIZE_5 = offsetof(struct descriptor, is_readonly) };

GArray *qemu_plugin_get_registers(void)
{
    if (!this_cpu)
        plugin_abuse(__func__, "there is no vCPU on this thread (yet)");
    bool old = plugin_api_version(__builtin_return_address(0)) < 6;
    size_t size = old ? DESCRIPTOR_SIZE_5 : sizeof(struct descriptor);
    int count = guest_register_count(this_cpu);
    uint8_t *elements = calloc((size_t)count, size);
    if (!elements)
        die("out of memory");
    for (int i = 0; i < count; i++) {
        const struct guest_register *reg = &guest_registers[i];
        struct descriptor d = {(uintptr_t)i + 1, reg->name, reg->feature, reg->read_only};
        memcpy(elements + (size_t)i * size, &d, size);
    }
    GArray *array = glib_array_new(elements, (unsigned)size, (unsigned)count);
    free(elements);
    return array;
}

/* The answer of read_register and write_register in the caller's version: a size, or a bool. */
static int answer_size(const void *caller, int size)
{
    return plugin_api_version(caller) < 6 ? size : size > 0;
}

static bool may_use_registers(const char *function, const GByteArray *buf, int flags)
{
    if (!buf)
        plugin_abuse(function, "no array");
    return this_cpu && this_cpu->in_plugin && this_cpu->plugin_flags >= flags;
}

int qemu_plugin_read_register(struct qemu_plugin_register *handle, GByteArray *buf)
{
    const void *caller = __builtin_return_address(0);
    uint8_t value[GUEST_REGISTER_MAX];
    if (!may_use_registers(__func__, buf, QEMU_PLUGIN_CB_R_REGS))
        return answer_size(caller, -1);
    size_t size = guest_read_register(this_cpu, (int)(uintptr_t)handle - 1, value);
    glib_bytes_append(buf, value, (unsigned)size);
    return answer_size(caller, (int)size);
}

int qemu_plugin_write_register(struct qemu_plugin_register *handle, GByteArray *buf)
{
    const void *caller = __builtin_return_address(0);
    int n = (int)(uintptr_t)handle - 1;
    uint8_t value[GUEST_REGISTER_MAX] = {0};
    if (!may_use_registers(__func__, buf, QEMU_PLUGIN_CB_RW_REGS) || !buf->len)
        return answer_size(caller, -1);
    memcpy(value, buf->data, buf->len < sizeof value ? buf->len : sizeof value);
    if (!guest_write_register(this_cpu, n, value))
        return answer_size(caller, 0);
    return answer_size(caller, guest_registers[n].size);
}

_Noreturn void qemu_plugin_set_pc(uint64_t pc)
{
    plugin_resume_at(pc);
}

/* ---- memory -------------------------------------------------------------------------- */

static bool is_guest_range(uint64_t addr, size_t len)
{
    struct vma vma;
    uint64_t end = addr + len;
    if (!len || end < addr)
        return false;
    for (; addr < end; addr = vma.end)
        if (!vma_find(addr, &vma))
            return false;
    return true;
}

/* Reads or writes guest memory whatever its protection, as a debugger does. */
static bool access_memory(uint64_t addr, void *data, size_t len, bool write)
{
    int fd = open("/proc/self/mem", (write ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
    if (fd < 0)
        return false;
    uint8_t *at = data;
    while (len) {
        ssize_t n = write ? pwrite(fd, at, len, (off_t)addr) : pread(fd, at, len, (off_t)addr);
        if (n <= 0)
            break;
        at += n;
        addr += (uint64_t)n;
        len -= (size_t)n;
    }
    close(fd);
    return !len;
}

bool qemu_plugin_read_memory_vaddr(uint64_t addr, GByteArray *buf, size_t len)
{
    if (!buf)
        plugin_abuse(__func__, "no array");
    if (!len)
        return false;
    glib_bytes_set_size(buf, (unsigned)len);
    if (!is_guest_range(addr, len))
        return false;
    return guest_copy(buf->data, (const void *)(uintptr_t)addr, len) ||
           access_memory(addr, buf->data, len, false);
}

bool qemu_plugin_write_memory_vaddr(uint64_t addr, GByteArray *buf)
{
    if (!buf)
        plugin_abuse(__func__, "no array");
    if (!is_guest_range(addr, buf->len) || !access_memory(addr, buf->data, buf->len, true))
        return false;
    /* During translation the lock is ours: the block at hand is decoded from the old bytes. */
    if (!plugin_is_translating())
        tb_invalidate(addr, buf->len);
    return true;
}

enum qemu_plugin_hwaddr_operation_result qemu_plugin_read_memory_hwaddr(uint64_t addr,
                                                                        GByteArray *buf, size_t len)
{
    (void)addr, (void)buf, (void)len;
    return QEMU_PLUGIN_HWADDR_OPERATION_ERROR;
}

enum qemu_plugin_hwaddr_operation_result qemu_plugin_write_memory_hwaddr(uint64_t addr,
                                                                         GByteArray *buf)
{
    (void)addr, (void)buf;
    return QEMU_PLUGIN_HWADDR_OPERATION_ERROR;
}

bool qemu_plugin_translate_vaddr(uint64_t vaddr, uint64_t *hwaddr)
{
    (void)vaddr, (void)hwaddr;
    return false;
}

/* ---- scoreboards --------------------------------------------------------------------- */

/* Elements lie at the same offset in the arena of every vCPU. Arenas start out zeroed, so only
 * reused space has to be cleared. */
static uint64_t arena_used;
static struct qemu_plugin_scoreboard *free_scores;

static inline __attribute__((always_inline)) void *
find_element(const struct qemu_plugin_scoreboard *score, unsigned index)
{
    const struct cpu *cpu = score ? cpu_by_index(index) : NULL;
    return cpu ? (uint8_t *)cpu + score->offset : NULL;
}

static struct qemu_plugin_scoreboard *reuse_score(size_t size)
{
    struct qemu_plugin_scoreboard **slot = &free_scores;
    while (*slot && (*slot)->size != size)
        slot = &(*slot)->next;
    struct qemu_plugin_scoreboard *score = *slot;
    if (!score)
        return NULL;
    *slot = score->next;
    for (int i = 0; i < cpu_count(); i++) {
        void *element = find_element(score, (unsigned)i);
        if (element)
            memset(element, 0, size);
    }
    return score;
}

static struct qemu_plugin_scoreboard *make_score(size_t size)
{
    struct qemu_plugin_scoreboard *score = malloc(sizeof *score);
    if (!score)
        die("out of memory");
    if (size > SCOREBOARD_MAX - arena_used)
        die("plugins use more than %llu MiB of scoreboards", SCOREBOARD_MAX >> 20);
    *score = (struct qemu_plugin_scoreboard){(int64_t)(SCOREBOARD_OFFSET + arena_used), size, NULL};
    arena_used += size;
    return score;
}

struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t element_size)
{
    size_t size = (element_size + 15) & ~(size_t)15;
    plugin_lock();
    struct qemu_plugin_scoreboard *score = reuse_score(size);
    if (!score)
        score = make_score(size);
    plugin_unlock();
    return score;
}

void qemu_plugin_scoreboard_free(struct qemu_plugin_scoreboard *score)
{
    if (!score)
        return;
    if (plugin_ops_hides())
        plugin_ops_observe();
    plugin_lock();
    score->next = free_scores;
    free_scores = score;
    plugin_unlock();
}

/* What plugin_explain_fault finds the function by: it must not move out of that, as the compiler's
 * own trap would. */
static inline __attribute__((always_inline, noreturn)) void trap(void)
{
    __asm__ volatile("ud2");
    __builtin_unreachable();
}

/* Callbacks that call this and what follows run with the guest's %fs if callee_x86_64.c can prove
 * that this is safe: no messages here, no locks, no thread-local variables. */
void *qemu_plugin_scoreboard_find(struct qemu_plugin_scoreboard *score, unsigned int vcpu_index)
{
    void *element = find_element(score, vcpu_index);
    if (!element)
        trap();
    if (plugin_ops_hides())
        plugin_ops_expose();
    return element;
}

/* Inline: a fault in here is the calling function's. */
static inline __attribute__((always_inline)) uint64_t *find_entry(qemu_plugin_u64 entry,
                                                                  unsigned index)
{
    uint8_t *element = find_element(entry.score, index);
    if (!element)
        trap();
    return (uint64_t *)(element + entry.offset);
}

static inline __attribute__((always_inline)) void note_read(qemu_plugin_u64 entry)
{
    if (plugin_ops_hides())
        plugin_ops_read(entry.score->offset + (int64_t)entry.offset);
}

static inline __attribute__((always_inline)) void note_write(qemu_plugin_u64 entry)
{
    if (plugin_ops_hides())
        plugin_ops_write(entry.score->offset + (int64_t)entry.offset);
}

void qemu_plugin_u64_add(qemu_plugin_u64 entry, unsigned int vcpu_index, uint64_t added)
{
    uint64_t *word = find_entry(entry, vcpu_index);
    note_write(entry);
    *word += added;
}

uint64_t qemu_plugin_u64_get(qemu_plugin_u64 entry, unsigned int vcpu_index)
{
    const uint64_t *word = find_entry(entry, vcpu_index);
    note_read(entry);
    return *word;
}

void qemu_plugin_u64_set(qemu_plugin_u64 entry, unsigned int vcpu_index, uint64_t val)
{
    uint64_t *word = find_entry(entry, vcpu_index);
    note_read(entry);
    note_write(entry);
    *word = val;
}

uint64_t qemu_plugin_u64_sum(qemu_plugin_u64 entry)
{
    uint64_t sum = 0;
    for (int i = 0; i < cpu_count(); i++)
        if (cpu_by_index((unsigned)i))
            sum += qemu_plugin_u64_get(entry, (unsigned)i);
    return sum;
}

int qemu_plugin_num_vcpus(void)
{
    return cpu_count();
}

int qemu_plugin_n_vcpus(void)
{
    return -1;
}

int qemu_plugin_n_max_vcpus(void)
{
    return -1;
}

/* ---- the rest ------------------------------------------------------------------------ */

void qemu_plugin_outs(const char *string)
{
    if (!string)
        plugin_abuse(__func__, "no string");
    if (opt.log & LOG_PLUGIN)
        log_text(string, strlen(string));
}

bool qemu_plugin_bool_parse(const char *name, const char *val, bool *ret)
{
    static const char *const words[][2] = {
        {"off", "on"}, {"no", "yes"}, {"false", "true"}, {"n", "y"}};
    if (!name || !val)
        return false;
    for (size_t i = 0; i < 8; i++)
        if (!strcmp(val, words[i / 2][i % 2])) {
            *ret = i % 2;
            return true;
        }
    return false;
}

const char *qemu_plugin_path_to_binary(void)
{
    return image.path ? strdup(image.path) : NULL;
}

uint64_t qemu_plugin_start_code(void)
{
    return image.start_code;
}

uint64_t qemu_plugin_end_code(void)
{
    return image.end_code;
}

uint64_t qemu_plugin_entry_code(void)
{
    return image.entry_code;
}

const void *qemu_plugin_request_time_control(void)
{
    return NULL;
}

void qemu_plugin_update_ns(const void *handle, int64_t time)
{
    (void)handle, (void)time;
}
