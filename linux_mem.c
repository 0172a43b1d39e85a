/* linux_mem.c: the system calls that change the guest's address space.
 *
 * The kernel does the work; here the list of vma.c and the translations are kept in step, images
 * get their low places, emu's own memory is defended, and pages of code that the kernel is to write
 * to are opened. Must not know the guest's registers. */
#include "emu.h"

#include <elf.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define ADDRESS_END     0x7ffffffff000ull /* TASK_SIZE_MAX */
#define HUGE_SHIFT      26                /* MAP_HUGE_SHIFT */
#define GROWSDOWN       0x01000000        /* PROT_GROWSDOWN */
#define REMAP_MAYMOVE   1                 /* MREMAP_*: not in every libc */
#define REMAP_FIXED     2
#define REMAP_DONTUNMAP 4

static uint64_t brk_start, brk_now; /* 0: brk was not used yet */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void mem_lock(void)
{
    pthread_mutex_lock(&lock);
}

void mem_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

/* False for ranges that the kernel refuses anyway. */
static bool is_range(uint64_t start, uint64_t len)
{
    return start % GUEST_PAGE == 0 && len != 0 && len <= ADDRESS_END && start <= ADDRESS_END - len;
}

/* True if the guest must not touch the range. */
static bool is_refused(uint64_t start, uint64_t len)
{
    return is_range(start, len) && vma_is_emu(start, PAGE_UP(len));
}

static bool failed(int64_t ret)
{
    return ret < 0 && ret > -4096;
}

/* ---- mmap ---- */

static uint64_t mapping_size(uint64_t len, uint64_t flags)
{
    uint64_t page = GUEST_PAGE;

    if (flags & MAP_HUGETLB)
        page = 1ull << ((flags >> HUGE_SHIFT & 63) ? (flags >> HUGE_SHIFT & 63) : 21);
    return (len + page - 1) & ~(page - 1);
}

/* True for the first mapping of a shared library by a dynamic linker. */
static bool is_image(const uint64_t *arg)
{
    const uint64_t placed = MAP_FIXED | MAP_ANONYMOUS | MAP_32BIT | MAP_HUGETLB;
    Elf64_Ehdr head;

    return arg[0] == 0 && (arg[3] & MAP_TYPE) == MAP_PRIVATE && !(arg[3] & placed) && arg[5] == 0 &&
           pread((int)arg[4], &head, sizeof head, 0) == sizeof head &&
           !memcmp(head.e_ident, ELFMAG, SELFMAG) && head.e_type == ET_DYN;
}

/* The call with everything in its place; mem_lock is held. */
static int64_t map_memory(const uint64_t *arg, uint64_t size)
{
    uint64_t call[6];

    memcpy(call, arg, sizeof call);
    call[2] = (uint64_t)vma_host_prot((int)arg[2]);
    if (is_image(arg)) {
        call[0] = vma_place_image(size);
        if (call[0])
            call[3] |= MAP_FIXED_NOREPLACE;
    }
    int64_t ret = host_syscall(SYS_mmap, call);
    if (failed(ret))
        return ret;
    vma_add((uint64_t)ret, size, (int)arg[2], (int)arg[3]);
    if (arg[3] & MAP_FIXED)
        tb_unmap((uint64_t)ret, size);
    return ret;
}

/* Where there is nothing the kernel knows that: emu would have to read the host's mappings, for
 * which libc may need memory, and find it right there. */
static int64_t map_fixed(const uint64_t *arg, uint64_t size)
{
    uint64_t call[6];

    memcpy(call, arg, sizeof call);
    call[3] = (arg[3] & ~(uint64_t)MAP_FIXED) | MAP_FIXED_NOREPLACE;
    int64_t ret = map_memory(call, size);
    if (ret != -EEXIST || arg[3] & MAP_FIXED_NOREPLACE)
        return ret;
    return is_refused(arg[0], arg[1]) ? -ENOMEM : map_memory(arg, size);
}

bool mem_mmap(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    (void)cpu;
    mem_lock();
    uint64_t size = mapping_size(arg[1], arg[3]);
    *ret = arg[3] & MAP_FIXED ? map_fixed(arg, size) : map_memory(arg, size);
    mem_unlock();
    return true;
}

/* ---- munmap, mprotect, mremap ---- */

bool mem_munmap(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    (void)cpu;
    mem_lock();
    *ret = is_refused(arg[0], arg[1]) ? -EINVAL : host_syscall(SYS_munmap, arg);
    if (!failed(*ret)) {
        vma_remove(arg[0], PAGE_UP(arg[1]));
        tb_unmap(arg[0], PAGE_UP(arg[1]));
    }
    mem_unlock();
    return true;
}

/* PROT_GROWSDOWN means "from the start of the stack"; ours is not one that grows. */
static void reach_stack_start(uint64_t *call)
{
    if (!(call[2] & GROWSDOWN) || call[0] < image.stack_low || call[0] >= image.stack_high)
        return;
    call[1] += call[0] - image.stack_low;
    call[0] = image.stack_low;
    call[2] &= ~(uint64_t)GROWSDOWN;
}

/* How much from start on is mapped without a gap, at most len. */
static uint64_t mapped_length(uint64_t start, uint64_t len)
{
    uint64_t end = start;
    struct vma vma;

    while (end - start < len && vma_find(end, &vma))
        end = vma.end;
    return end - start < len ? end - start : len;
}

/* mprotect, and pkey_mprotect with its fourth argument. The kernel changes what lies before a gap
 * even if it fails because of the gap. */
bool mem_mprotect(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    uint64_t call[6], done;

    memcpy(call, arg, sizeof call);
    reach_stack_start(call);
    call[2] = (uint64_t)vma_host_prot((int)call[2]);
    mem_lock();
    if (is_refused(call[0], call[1])) {
        *ret = -ENOMEM;
    } else {
        *ret = host_syscall(guest_syscall_number(cpu), call);
        done = !failed(*ret) || *ret == -ENOMEM ? mapped_length(call[0], PAGE_UP(call[1])) : 0;
        vma_protect(call[0], done, (int)arg[2] & ~GROWSDOWN);
        if (guest_syscall_number(cpu) == SYS_pkey_mprotect && (int)arg[3] > 0)
            smc_note_keys();
        tb_unmap(call[0], done);
    }
    mem_unlock();
    return true;
}

/* Puts what mremap did into the list. */
static void note_remap(const uint64_t *arg, uint64_t place, const struct vma *old)
{
    uint64_t old_len = PAGE_UP(arg[1]), len = PAGE_UP(arg[2]);

    if (!(arg[3] & REMAP_DONTUNMAP) && old_len)
        vma_remove(arg[0], old_len);
    if (old_len)
        tb_unmap(arg[0], old_len);
    vma_add(place, len, old->prot, old->flags);
    tb_unmap(place, len);
}

/* mremap takes ranges of one protection only, which pages with translations may not have; nor must
 * they take it with them to another place. */
static int64_t remap_memory(const uint64_t *arg, const struct vma *old)
{
    tb_lock();
    if (old->prot & PROT_EXEC)
        smc_open(arg[0], PAGE_UP(arg[1]));
    int64_t ret = host_syscall(SYS_mremap, arg);
    if (!failed(ret))
        note_remap(arg, (uint64_t)ret, old);
    tb_unlock();
    return ret;
}

bool mem_mremap(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    struct vma old;

    (void)cpu;
    mem_lock();
    if (is_refused(arg[0], arg[1]) || !vma_find(arg[0], &old))
        *ret = -EFAULT;
    else if ((arg[3] & REMAP_FIXED) && is_refused(arg[4], arg[2]))
        *ret = -EINVAL;
    else
        *ret = remap_memory(arg, &old);
    mem_unlock();
    return true;
}

#define DONTNEED_LOCKED 24  /* MADV_DONTNEED_LOCKED, since Linux 5.18 */
#define GUARD_INSTALL   102 /* MADV_GUARD_INSTALL, since 6.13 */

/* Pages whose contents are dropped hold other code when they come back. What the kernel did before
 * it failed is not known. */
bool mem_madvise(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    const int advice = (int)arg[2];

    (void)cpu;
    mem_lock();
    *ret = host_syscall(SYS_madvise, arg);
    if (advice == MADV_DONTNEED || advice == MADV_REMOVE || advice == DONTNEED_LOCKED ||
        advice == GUARD_INSTALL)
        tb_invalidate(arg[0], PAGE_UP(arg[1]));
    mem_unlock();
    return true;
}

/* ---- what the kernel writes ---- */

#define RESULT_MAX 512 /* no structure that a call fills is larger */

static void open_vector(uint64_t list, uint64_t n)
{
    struct iovec part;

    for (uint64_t i = 0; i < n && i < IOV_MAX; i++) {
        if (!guest_copy(&part, (const void *)(list + i * sizeof part), sizeof part))
            return;
        smc_open((uint64_t)part.iov_base, part.iov_len);
    }
}

static void open_message(uint64_t message)
{
    struct msghdr head;

    if (!guest_copy(&head, (const void *)message, sizeof head))
        return;
    smc_open((uint64_t)head.msg_name, head.msg_namelen);
    smc_open((uint64_t)head.msg_control, head.msg_controllen);
    open_vector((uint64_t)head.msg_iov, head.msg_iovlen);
}

/* A call that fails halfway could not be made once more: what it has taken is gone. */
void mem_open_results(const char *format, const uint64_t *arg)
{
    if (!smc_is_watching())
        return;
    format += *format == '=';
    tb_lock();
    for (int i = 0; i < 6 && format[i]; i++) {
        smc_open(arg[i], format[i] == 'B' && arg[i + 1] > RESULT_MAX ? arg[i + 1] : RESULT_MAX);
        if (format[i] == 'V')
            open_vector(arg[i], arg[i + 1]);
        if (format[i] == 'H')
            open_message(arg[i]);
    }
    tb_unlock();
}

/* ---- brk: the kernel's is emu's own heap, so that the guest's is made of mappings ---- */

static bool grow_brk(uint64_t from, uint64_t to)
{
    void *want = (void *)from;
    void *got = mmap(want, to - from, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    if (got == want) {
        vma_add(from, to - from, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
        return true;
    }
    if (got != MAP_FAILED)
        munmap(got, to - from);
    return false;
}

static void shrink_brk(uint64_t from, uint64_t to)
{
    munmap((void *)to, from - to);
    vma_remove(to, from - to);
    tb_unmap(to, from - to);
}

/* Moves the break if that is possible. */
static void set_brk(uint64_t want)
{
    uint64_t from = PAGE_UP(brk_now), to = PAGE_UP(want);

    if (want < brk_start || want >= ADDRESS_END)
        return;
    if (to > from && !grow_brk(from, to))
        return;
    if (to < from)
        shrink_brk(from, to);
    brk_now = want;
}

bool mem_brk(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    (void)cpu;
    mem_lock();
    if (!brk_now)
        brk_start = brk_now = image.brk ? image.brk : HIGH_BRK;
    set_brk(arg[0]);
    *ret = (int64_t)brk_now;
    mem_unlock();
    return true;
}

void mem_heap(uint64_t *start, uint64_t *end)
{
    *start = brk_start;
    *end = PAGE_UP(brk_now);
}

/* ---- System V shared memory ---- */

bool mem_shmat(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    struct shmid_ds info;
    uint64_t size = shmctl((int)arg[0], IPC_STAT, &info) == 0 ? PAGE_UP(info.shm_segsz) : 0;
    uint64_t place = arg[2] & SHM_RND ? arg[1] - arg[1] % SHMLBA : arg[1];

    (void)cpu;
    mem_lock();
    if ((arg[2] & SHM_REMAP) && is_refused(place, size))
        *ret = -EINVAL;
    else
        *ret = host_syscall(SYS_shmat, arg);
    if (!failed(*ret)) {
        int prot = PROT_READ | (arg[2] & SHM_RDONLY ? 0 : PROT_WRITE) |
                   (arg[2] & SHM_EXEC ? PROT_EXEC : 0);

        vma_add((uint64_t)*ret, size, prot, MAP_SHARED | VMA_SHM);
        tb_unmap((uint64_t)*ret, size);
    }
    mem_unlock();
    return true;
}

bool mem_shmdt(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    struct vma vma;

    (void)cpu;
    mem_lock();
    bool ours = vma_find(arg[0], &vma) && vma.start == arg[0] && (vma.flags & VMA_SHM);
    *ret = ours ? host_syscall(SYS_shmdt, arg) : -EINVAL;
    if (!failed(*ret)) {
        vma_remove(vma.start, vma.end - vma.start);
        tb_unmap(vma.start, vma.end - vma.start);
    }
    mem_unlock();
    return true;
}
