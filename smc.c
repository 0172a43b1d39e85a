/* smc.c: guest code that changes: keeps translations equal to the bytes they were made from.
 *
 * A writable page that holds translated code loses its write permission on the host. The first
 * write faults: the page's translations go, the write is let through. A page where that happens
 * again and again, or whose own code does it, is hot: it is left writable, and its blocks compare
 * their bytes whenever they are entered. A block that has been found unchanged often enough makes
 * the page an ordinary one again; the next time that takes longer. Shared mappings may be written
 * elsewhere: they are hot for ever. That a private mapping of a file changes with the file, as it
 * may, is not noticed, nor what is written to read-only memory by a debugger or /proc/self/mem.
 *
 * The kernel cannot write to a protected page for the guest: while there are any, syscalls go
 * through C, which opens those that the arguments name. If the call fails with EFAULT nevertheless,
 * all are opened and it is made again.
 *
 * Pointers in memory that cannot be written are taken for part of the code that branches through
 * them, as long as mapping and protection stay.
 *
 * Neutral; everything here runs under tb_lock. */

#include "emu.h"

#include <stdlib.h>
#include <sys/mman.h>

#define PAGE         4096ull
#define HOT_WRITES   4 /* write faults after which a page is no longer protected */
#define PATIENCE     1000
#define PATIENCE_MAX (1u << 30)

enum page_state { PAGE_OPEN, PAGE_PROTECTED, PAGE_HOT };

struct page {
    uint64_t start;
    uint32_t patience; /* entries of a block until a hot page is tried as an ordinary one */
    uint8_t state, writes;
};

/* Open addressing; pages are never taken out, there are few. */
static struct page *pages;
static size_t room, count;
static size_t n_protected;
static bool has_keys; /* protection keys */

static struct page *find_slot(uint64_t start)
{
    size_t i = (start / PAGE * 0x9e3779b97f4a7c15ull >> 20) & (room - 1);
    while (pages[i].start && pages[i].start != start)
        i = (i + 1) & (room - 1);
    return &pages[i];
}

static void grow(void)
{
    struct page *old = pages;
    size_t old_room = room;
    room = room ? 2 * room : 1024;
    pages = calloc(room, sizeof(*pages));
    if (!pages)
        die("out of memory for the list of pages with code");
    for (size_t i = 0; i < old_room; i++)
        if (old[i].start)
            *find_slot(old[i].start) = old[i];
    free(old);
}

static struct page *get_page(uint64_t start)
{
    if (2 * count >= room)
        grow();
    struct page *page = find_slot(start);
    if (!page->start) {
        page->start = start;
        page->patience = PATIENCE;
        count++;
    }
    return page;
}

static void open_page(struct page *page)
{
    struct vma vma;
    if (page->state == PAGE_PROTECTED) {
        n_protected--;
        if (vma_find(page->start, &vma))
            mprotect((void *)page->start, PAGE, vma_host_prot(vma.prot));
    }
    page->state = PAGE_OPEN;
}

/* Lets a write through, and remembers it. */
static void admit_write(struct page *page, bool own_code)
{
    tb_invalidate(page->start, PAGE);
    open_page(page);
    if (own_code || ++page->writes >= HOT_WRITES)
        page->state = PAGE_HOT;
}

bool smc_watch(uint64_t addr)
{
    struct vma vma;
    uint64_t start = addr & ~(PAGE - 1);
    if (!vma_find(start, &vma) || !(vma.prot & PROT_WRITE || vma.flags & MAP_SHARED))
        return false;
    struct page *page = get_page(start);
    if (page->state == PAGE_OPEN && vma.flags & MAP_SHARED)
        page->state = PAGE_HOT;
    if (page->state == PAGE_OPEN) {
        if (n_protected++ == 0)
            tb_share();
        page->state = PAGE_PROTECTED;
        mprotect((void *)start, PAGE, vma_host_prot(vma.prot) & ~PROT_WRITE);
    }
    return page->state == PAGE_HOT;
}

bool smc_is_writable(uint64_t addr)
{
    const struct vma *vma = vma_find_code(addr);
    return vma && (vma->prot & PROT_WRITE || vma->flags & MAP_SHARED);
}

void smc_note_keys(void)
{
    has_keys = true;
}

bool smc_read_constant(uint64_t addr, uint64_t *value)
{
    struct vma vma;
    return !has_keys && addr % sizeof(*value) == 0 && vma_find(addr, &vma) &&
           !(vma.prot & PROT_WRITE || vma.flags & MAP_SHARED) &&
           guest_copy(value, (const void *)addr, sizeof(*value));
}

uint32_t smc_patience(uint64_t addr)
{
    return get_page(addr & ~(PAGE - 1))->patience;
}

void smc_cool(uint64_t addr)
{
    struct page *page = get_page(addr & ~(PAGE - 1));
    struct vma vma;
    if (page->state != PAGE_HOT || !vma_find(addr, &vma) || vma.flags & MAP_SHARED)
        return;
    page->state = PAGE_OPEN;
    page->writes = 0;
    if (page->patience < PATIENCE_MAX)
        page->patience *= 4;
}

bool smc_write_fault(uint64_t addr, bool own_code)
{
    struct page *page = n_protected ? find_slot(addr & ~(PAGE - 1)) : NULL;
    struct vma vma;
    if (!page || page->state != PAGE_PROTECTED) /* another thread may have been faster */
        return vma_find(addr, &vma) && vma.prot & PROT_WRITE;
    admit_write(page, own_code);
    return true;
}

bool smc_is_watching(void)
{
    return __atomic_load_n(&n_protected, __ATOMIC_RELAXED) > 0;
}

/* Calls act for the protected pages in [start, start+len). */
static void for_protected(uint64_t start, uint64_t len, void (*act)(struct page *page))
{
    uint64_t first = start / PAGE, last = (start + (len - 1)) / PAGE;
    if (!n_protected || !len)
        return;
    if (last < first) /* beyond the end of addresses */
        last = UINT64_MAX / PAGE;
    if (last - first < room) {
        for (uint64_t i = first; i <= last; i++) {
            struct page *page = find_slot(i * PAGE);
            if (page->start && page->state == PAGE_PROTECTED)
                act(page);
        }
        return;
    }
    for (size_t i = 0; i < room; i++)
        if (pages[i].start / PAGE - first <= last - first && pages[i].state == PAGE_PROTECTED)
            act(&pages[i]);
}

static void admit_kernel(struct page *page)
{
    admit_write(page, false);
}

bool smc_open(uint64_t start, uint64_t len)
{
    size_t before = n_protected;
    for_protected(start, len, admit_kernel);
    return n_protected != before;
}

static void forget(struct page *page)
{
    page->state = PAGE_OPEN;
    n_protected--;
}

void smc_forget(uint64_t start, uint64_t len)
{
    for_protected(start, len, forget);
}
