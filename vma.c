/* vma.c: the guest's address space: what it has mapped, and where images go.
 *
 * May know the kernel's view of our process (/proc/self/maps). Must not know who maps or why, nor
 * anything about the guest's instruction set. */
#include "emu.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define IMAGE_GAP  0x10000 /* between images: an overrun of one must not reach the next */

/* What of MAP_* is kept: the rest says how a mapping is made, not what it is. */
#define KEPT_FLAGS (MAP_TYPE | MAP_ANONYMOUS | MAP_GROWSDOWN | VMA_SHM)

/* Sorted by address, without overlaps; neighbours that could be one are one. */
static struct vma *vmas;
static size_t vma_count, vma_room;
static unsigned generation;
static unsigned changes; /* of the array; written under the lock */
static struct lock lock;

/* ---- the sorted array ---- */

/* Index of the first mapping that ends above addr. */
static size_t index_above(uint64_t addr)
{
    size_t low = 0, high = vma_count;

    while (low < high) {
        size_t mid = (low + high) / 2;

        if (vmas[mid].end > addr)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

static void insert_at(size_t i, struct vma vma)
{
    if (vma_count == vma_room) {
        vma_room = vma_room ? vma_room * 2 : 256;
        vmas = realloc(vmas, vma_room * sizeof *vmas);
        if (!vmas)
            die("out of memory for the list of guest mappings");
    }
    memmove(&vmas[i + 1], &vmas[i], (vma_count - i) * sizeof *vmas);
    vmas[i] = vma;
    vma_count++;
}

static void delete_range(size_t from, size_t to)
{
    if (from == to)
        return;
    memmove(&vmas[from], &vmas[to], (vma_count - to) * sizeof *vmas);
    vma_count -= to - from;
}

/* Makes addr a boundary. Returns the index of the first mapping that starts at or above it. */
static size_t split_at(uint64_t addr)
{
    size_t i = index_above(addr);

    if (i == vma_count || vmas[i].start >= addr)
        return i;
    insert_at(i, vmas[i]);
    vmas[i].end = vmas[i + 1].start = addr;
    return i + 1;
}

static bool can_merge(const struct vma *a, const struct vma *b)
{
    return a->end == b->start && a->prot == b->prot && a->flags == b->flags &&
           !(a->flags & VMA_SHM);
}

/* Merges what became equal among the mappings [from, to) and their neighbours. */
static void merge_range(size_t from, size_t to)
{
    size_t i = from ? from - 1 : 0;

    while (i + 1 < vma_count && i < to) {
        if (can_merge(&vmas[i], &vmas[i + 1])) {
            vmas[i].end = vmas[i + 1].end;
            delete_range(i + 1, i + 2);
            to--;
        } else {
            i++;
        }
    }
}

/* Code from files comes or goes in [from, to): what is known about modules is out of date. */
static void note_change(size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        if ((vmas[i].prot & PROT_EXEC) && !(vmas[i].flags & MAP_ANONYMOUS))
            generation++;
}

static void remove_range(uint64_t start, uint64_t end)
{
    size_t from = split_at(start), to = split_at(end);

    note_change(from, to);
    delete_range(from, to);
}

/* ---- what is in emu's way ---- */

#define LOW_END  (1ull << 32)
#define HALF_END (1ull << 46)
#define HIGH_END (1ull << 47) /* addresses that only a hint gets, with five levels of pages */

static struct {
    uint64_t start, end;
} clear; /* all that is to be kept clear, and what lies between */
static bool crowded;

static bool overlap(uint64_t start, uint64_t end, uint64_t from, uint64_t to)
{
    return start < to && from < end;
}

static void note_place(const struct vma *vma)
{
    if (overlap(vma->start, vma->end, clear.start, clear.end) || vma->end > HIGH_END ||
        (vma->prot & PROT_EXEC && overlap(vma->start, vma->end, LOW_END, HALF_END)))
        __atomic_store_n(&crowded, true, __ATOMIC_RELAXED);
}

/* ---- the interface ---- */

static void begin_change(void)
{
    lock_take(&lock);
    __atomic_store_n(&changes, changes + 1, __ATOMIC_RELAXED);
}

void vma_add(uint64_t start, uint64_t len, int prot, int flags)
{
    begin_change();
    remove_range(start, start + len);
    size_t i = index_above(start);
    insert_at(i, (struct vma){start, start + len, prot, flags & KEPT_FLAGS});
    note_place(&vmas[i]);
    note_change(i, i + 1);
    merge_range(i, i + 1);
    lock_release(&lock);
}

void vma_remove(uint64_t start, uint64_t len)
{
    begin_change();
    remove_range(start, start + len);
    lock_release(&lock);
}

void vma_protect(uint64_t start, uint64_t len, int prot)
{
    begin_change();
    size_t from = split_at(start), to = split_at(start + len);
    note_change(from, to);
    for (size_t i = from; i < to; i++) {
        vmas[i].prot = prot;
        note_place(&vmas[i]);
    }
    note_change(from, to);
    merge_range(from, to);
    lock_release(&lock);
}

bool vma_next(uint64_t addr, struct vma *out)
{
    lock_take(&lock);
    size_t i = index_above(addr);
    bool found = i < vma_count;
    if (found)
        *out = vmas[i];
    lock_release(&lock);
    return found;
}

bool vma_find(uint64_t addr, struct vma *out)
{
    return vma_next(addr, out) && out->start <= addr;
}

const struct vma *vma_find_code(uint64_t addr)
{
    static struct vma latest;
    static unsigned seen;

    if (seen == __atomic_load_n(&changes, __ATOMIC_RELAXED) && latest.start <= addr &&
        addr < latest.end)
        return &latest;
    lock_take(&lock);
    size_t i = index_above(addr);
    bool found = i < vma_count && vmas[i].start <= addr;
    seen = changes;
    latest = found ? vmas[i] : (struct vma){0};
    lock_release(&lock);
    return found ? &latest : NULL;
}

size_t vma_code_avail(uint64_t addr, size_t max)
{
    size_t avail = 0;
    struct vma vma;

    while (avail < max && vma_find(addr + avail, &vma) && (vma.prot & PROT_EXEC))
        avail = vma.end - addr;
    return avail < max ? avail : max;
}

int vma_host_prot(int prot)
{
    return prot & PROT_EXEC ? prot | PROT_READ : prot;
}

unsigned vma_generation(void)
{
    lock_take(&lock);
    unsigned now = generation;
    lock_release(&lock);
    return now;
}

/* emu's own mappings are not in the list: they go where the kernel puts one now. */
static uint64_t find_own_place(void)
{
    void *page =
        mmap(NULL, GUEST_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (page == MAP_FAILED)
        return 0;
    munmap(page, GUEST_PAGE);
    return (uintptr_t)page;
}

void vma_keep_clear(uint64_t start, uint64_t end)
{
    uint64_t own = find_own_place();

    lock_take(&lock);
    clear.start = clear.end && clear.start < start ? clear.start : start;
    clear.end = clear.end > end ? clear.end : end;
    note_place(&(struct vma){.start = own, .end = own + GUEST_PAGE});
    for (size_t i = 0; i < vma_count; i++)
        note_place(&vmas[i]);
    lock_release(&lock);
}

bool vma_is_crowded(void)
{
    return __atomic_load_n(&crowded, __ATOMIC_RELAXED);
}

void vma_lock(void)
{
    lock_take(&lock);
}

void vma_unlock(void)
{
    lock_release(&lock);
}

/* ---- the host's mappings ---- */

FILE *host_maps_open(void)
{
    FILE *maps = fopen("/proc/self/maps", "re");

    if (!maps)
        die("cannot read /proc/self/maps");
    return maps;
}

bool host_map_parse(char *line, struct host_map *map)
{
    char perm[5];
    int text, name = 0;

    if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %n%" SCNx64 " %*s %*s %n", &map->start, &map->end,
               perm, &text, &map->offset, &name) < 4)
        return false;
    line[strcspn(line, "\n")] = '\0';
    snprintf(map->text, sizeof map->text, "%s", line + text);
    map->name = strlen(line) > (size_t)name ? map->text + (name - text) : "";
    map->prot = (perm[0] == 'r' ? PROT_READ : 0) | (perm[1] == 'w' ? PROT_WRITE : 0) |
                (perm[2] == 'x' ? PROT_EXEC : 0);
    map->shared = perm[3] == 's';
    return true;
}

bool host_maps_read(FILE *maps, struct host_map *map)
{
    char line[sizeof map->text + 64];

    return fgets(line, sizeof line, maps) && host_map_parse(line, map);
}

/* True if the guest has mapped all of [start, end). */
static bool is_guest(uint64_t start, uint64_t end)
{
    struct vma vma;

    while (start < end && vma_find(start, &vma))
        start = vma.end;
    return start >= end;
}

bool vma_is_emu(uint64_t start, uint64_t len)
{
    uint64_t end = start + len;
    struct host_map map;
    bool found = false;

    if (is_guest(start, end))
        return false;
    FILE *maps = host_maps_open();
    while (!found && host_maps_read(maps, &map) && map.start < end) {
        uint64_t low = map.start > start ? map.start : start;
        uint64_t high = map.end < end ? map.end : end;

        found = low < high && !is_guest(low, high);
    }
    fclose(maps);
    return found;
}

/* ---- places for images ---- */

/* True if nothing at all is mapped there: asks the kernel, as it also knows what is not ours. */
static bool is_free(uint64_t start, size_t len)
{
    void *want = (void *)start;
    void *got = mmap(want, len, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

    if (got != MAP_FAILED)
        munmap(got, len);
    return got == want;
}

uint64_t vma_place_image(size_t len)
{
    uint64_t place = LOW_IMAGES;
    struct vma vma;

    if (len > LOW_IMAGES_END - LOW_IMAGES)
        return 0;
    len = PAGE_UP(len);
    while (place + len <= LOW_IMAGES_END) {
        if (vma_next(place, &vma) && vma.start < place + len + IMAGE_GAP)
            place = vma.end + IMAGE_GAP;
        else if (is_free(place, len))
            return place;
        else
            place += GUEST_PAGE;
    }
    return 0;
}
