/* smc.c: guest code that changes: keeps translations equal to the bytes they were made from.
 *
 * A writable page that holds translated code loses its write permission on the host. The first
 * write faults: the page's translations go, the write is let through. A page where that happens
 * again and again, or whose own code does it, is left writable instead, and its blocks compare
 * their bytes whenever they are entered. So are shared mappings, which may be written elsewhere.
 *
 * What the kernel writes for the guest fails with EFAULT on a protected page: while there are any,
 * syscalls go through C, which opens them all and makes the call again.
 *
 * Neutral; everything here runs under tb_lock. */

#include "emu.h"

#include <stdlib.h>
#include <sys/mman.h>

#define PAGE       4096ull
#define HOT_WRITES 4 /* write faults after which a page is no longer protected */

enum page_state { PAGE_OPEN, PAGE_PROTECTED, PAGE_HOT };

struct page {
    uint64_t start;
    uint8_t state, writes;
};

/* Open addressing; pages are never taken out, there are few. */
static struct page *pages;
static size_t room, count;
static size_t n_protected;

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
    struct vma vma;
    return vma_find(addr, &vma) && (vma.prot & PROT_WRITE || vma.flags & MAP_SHARED);
}

bool smc_write_fault(uint64_t addr, bool own_code)
{
    struct page *page = n_protected ? find_slot(addr & ~(PAGE - 1)) : NULL;
    struct vma vma;
    if (!page || page->state != PAGE_PROTECTED) /* another thread may have been faster */
        return vma_find(addr, &vma) && vma.prot & PROT_WRITE;
    tb_invalidate(page->start, PAGE);
    open_page(page);
    if (own_code || ++page->writes >= HOT_WRITES)
        page->state = PAGE_HOT;
    return true;
}

bool smc_open_all(void)
{
    bool any = n_protected > 0;
    for (size_t i = 0; any && i < room; i++)
        if (pages[i].state == PAGE_PROTECTED) {
            tb_invalidate(pages[i].start, PAGE);
            open_page(&pages[i]);
        }
    return any;
}

void smc_forget(uint64_t start, uint64_t len)
{
    for (size_t i = 0; n_protected && i < room; i++)
        if (pages[i].start >= start && pages[i].start - start < len &&
            pages[i].state == PAGE_PROTECTED) {
            pages[i].state = PAGE_OPEN;
            n_protected--;
        }
}
