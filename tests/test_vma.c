/* test_vma.c: the list of guest mappings against a plain array of pages, and the places of emu's
 * own memory against the kernel. */
#include "../emu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define BASE   0x100000000ull
#define PAGES  200
#define ROUNDS 20000

_Noreturn void die(const char *fmt, ...)
{
    (void)fmt;
    abort();
}

/* ---- the list ---- */

/* What each page should be: prot + 1, 0: not mapped. */
static int model[PAGES];

static uint64_t page_address(size_t page)
{
    return BASE + page * GUEST_PAGE;
}

static void change_randomly(void)
{
    size_t start = (size_t)rand() % PAGES, len = (size_t)rand() % (PAGES - start) % 20 + 1;
    int prot = rand() % 8, what = rand() % 3;

    for (size_t i = start; i < start + len; i++)
        model[i] = what == 0 || (what == 1 && model[i]) ? prot + 1 : what == 1 ? model[i] : 0;
    if (what == 0)
        vma_add(page_address(start), len * GUEST_PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS);
    else if (what == 1)
        vma_protect(page_address(start), len * GUEST_PAGE, prot);
    else
        vma_remove(page_address(start), len * GUEST_PAGE);
}

static void check_page(size_t page)
{
    struct vma vma;
    bool found = vma_find(page_address(page) + 5, &vma);

    assert_int_equal(found, model[page] != 0);
    if (found)
        assert_int_equal(vma.prot, model[page] - 1);
}

/* Mappings come in order, do not touch if they are alike, and are all there. */
static void check_walk(void)
{
    struct vma vma, before = {0};
    size_t pages = 0, mapped = 0;

    for (uint64_t at = 0; vma_next(at, &vma); at = vma.end, before = vma) {
        assert_true(vma.start < vma.end && vma.start >= before.end);
        assert_false(vma.start == before.end && vma.prot == before.prot);
        pages += (vma.end - vma.start) / GUEST_PAGE;
    }
    for (size_t i = 0; i < PAGES; i++)
        mapped += model[i] != 0;
    assert_int_equal(pages, mapped);
}

static void check_code(size_t page)
{
    size_t expected = 0, max = (size_t)rand() % (5 * GUEST_PAGE),
           offset = (size_t)rand() % GUEST_PAGE;

    for (size_t i = page; i < PAGES && model[i] && (model[i] - 1) & PROT_EXEC; i++)
        expected += GUEST_PAGE;
    expected = expected > offset ? expected - offset : 0;
    assert_int_equal(vma_code_avail(page_address(page) + offset, max),
                     expected < max ? expected : max);
}

static void test_list(void **state)
{
    (void)state;
    srand(1);
    for (int round = 0; round < ROUNDS; round++) {
        change_randomly();
        check_page((size_t)rand() % PAGES);
        check_code((size_t)rand() % PAGES);
        if (round % 100 == 0)
            check_walk();
    }
    vma_remove(BASE, PAGES * GUEST_PAGE);
    assert_false(vma_next(0, &(struct vma){0}));
}

static void test_shared_memory(void **state)
{
    struct vma vma;

    (void)state;
    vma_add(BASE, GUEST_PAGE, PROT_READ, MAP_SHARED | VMA_SHM);
    vma_add(BASE + GUEST_PAGE, GUEST_PAGE, PROT_READ, MAP_SHARED | VMA_SHM);
    assert_true(vma_find(BASE, &vma));
    assert_int_equal(vma.end, BASE + GUEST_PAGE);
    vma_remove(BASE, 2 * GUEST_PAGE);
}

static void test_generation(void **state)
{
    unsigned before = vma_generation();

    (void)state;
    vma_add(BASE, GUEST_PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS);
    vma_remove(BASE, GUEST_PAGE);
    vma_add(BASE, GUEST_PAGE, PROT_READ, MAP_PRIVATE);
    assert_int_equal(vma_generation(), before);
    vma_protect(BASE, GUEST_PAGE, PROT_READ | PROT_EXEC);
    assert_int_not_equal(vma_generation(), before);
    before = vma_generation();
    vma_remove(BASE, GUEST_PAGE);
    assert_int_not_equal(vma_generation(), before);
}

/* ---- whose memory ---- */

static void test_is_emu(void **state)
{
    char *p = mmap(NULL, 8 * GUEST_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t start = (uint64_t)p;

    (void)state;
    assert_ptr_not_equal(p, MAP_FAILED);
    munmap(p + 2 * GUEST_PAGE, GUEST_PAGE);
    assert_true(vma_is_emu(start, GUEST_PAGE));
    vma_add(start, 2 * GUEST_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS);
    assert_false(vma_is_emu(start, GUEST_PAGE));
    assert_false(vma_is_emu(start, 3 * GUEST_PAGE)); /* with the hole */
    assert_true(vma_is_emu(start, 4 * GUEST_PAGE));
    assert_true(vma_is_emu((uint64_t)(uintptr_t)test_is_emu & ~(GUEST_PAGE - 1), GUEST_PAGE));
    vma_remove(start, 2 * GUEST_PAGE);
    munmap(p, 8 * GUEST_PAGE);
}

static void test_place_image(void **state)
{
    const size_t len = 10 * GUEST_PAGE;
    uint64_t first = vma_place_image(len), second, third;

    (void)state;
    assert_int_equal(first, LOW_IMAGES);
    assert_int_equal(vma_place_image(len - 1), first); /* nothing was mapped there */
    vma_add(first, len, PROT_READ, MAP_PRIVATE);
    second = vma_place_image(len);
    assert_true(second > first + len);
    vma_add(second, len, PROT_READ, MAP_PRIVATE);
    void *taken = (void *)(second + 2 * len); /* by somebody whom the list does not know */
    assert_ptr_equal(
        mmap(taken, GUEST_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), taken);
    third = vma_place_image(100 * GUEST_PAGE);
    assert_true(third > second && third + 100 * GUEST_PAGE <= LOW_IMAGES_END);
    assert_false(third < (uint64_t)taken + GUEST_PAGE &&
                 third + 100 * GUEST_PAGE > (uint64_t)taken);
    munmap(taken, GUEST_PAGE);
    vma_remove(first, len);
    assert_int_equal(vma_place_image(len), first); /* free again */
    assert_int_equal(vma_place_image(LOW_IMAGES_END - LOW_IMAGES), 0);
    assert_int_equal(vma_place_image(SIZE_MAX), 0);
    vma_remove(second, len);
}

/* ---- the kernel's text ---- */

static void test_host_map(void **state)
{
    char plain[] = "7f00-8f00 r-xp 00001000 fe:00 123    /lib/a b.so (deleted)\n",
         bare[] = "00400000-00401000 rw-s 00000000 00:00 0 \n", other[] = "Rss:   4 kB\n";
    struct host_map map;

    (void)state;
    assert_true(host_map_parse(plain, &map));
    assert_int_equal(map.start, 0x7f00);
    assert_int_equal(map.end, 0x8f00);
    assert_int_equal(map.offset, 0x1000);
    assert_int_equal(map.prot, PROT_READ | PROT_EXEC);
    assert_false(map.shared);
    assert_string_equal(map.name, "/lib/a b.so (deleted)");
    assert_true(host_map_parse(bare, &map));
    assert_string_equal(map.name, "");
    assert_true(map.shared);
    assert_false(host_map_parse(other, &map));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),        cmocka_unit_test(test_shared_memory),
        cmocka_unit_test(test_generation),  cmocka_unit_test(test_is_emu),
        cmocka_unit_test(test_place_image), cmocka_unit_test(test_host_map),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
