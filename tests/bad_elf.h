/* bad_elf.h: a small ELF program, ways to damage it, and a directory to put it in. For the tests of
 * the loader. */
#ifndef TESTS_BAD_ELF_H
#define TESTS_BAD_ELF_H

#include <elf.h>
#include <inttypes.h>

static char dir[] = "/tmp/bad_elf.XXXXXX";

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    char command[64];

    (void)state;
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

#define TINY_BASE 0x10000000ull

struct tiny {
    Elf64_Ehdr head;
    Elf64_Phdr ph[4];
    char interp[16];
    uint8_t code[32];
    uint8_t data[64];
};

static struct tiny make_tiny(void)
{
    static const uint8_t code[] = {0xb8, 60, 0, 0, 0, 0xbf, 42, 0, 0, 0, 0x0f, 0x05}; /* exit(42) */
    struct tiny t = {
        .head = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                 .e_type = ET_EXEC,
                 .e_machine = EM_X86_64,
                 .e_version = EV_CURRENT,
                 .e_entry = TINY_BASE + offsetof(struct tiny, code),
                 .e_phoff = offsetof(struct tiny, ph),
                 .e_ehsize = sizeof(Elf64_Ehdr),
                 .e_phentsize = sizeof(Elf64_Phdr),
                 .e_phnum = 4},
        .ph = {{.p_type = PT_LOAD,
                .p_flags = PF_R | PF_X,
                .p_vaddr = TINY_BASE,
                .p_filesz = sizeof(struct tiny),
                .p_memsz = sizeof(struct tiny),
                .p_align = 0x1000},
               {.p_type = PT_LOAD,
                .p_flags = PF_R | PF_W,
                .p_vaddr = TINY_BASE + 0x1000 + offsetof(struct tiny, data),
                .p_offset = offsetof(struct tiny, data),
                .p_filesz = 64,
                .p_memsz = 0x3000,
                .p_align = 0x1000},
               {.p_type = PT_GNU_STACK, .p_flags = PF_R | PF_W},
               {.p_type = PT_NULL}},
        .interp = "/no/such/ld.so",
    };

    memcpy(t.code, code, sizeof code);
    return t;
}

static void write_program(const char *name, const void *data, size_t size, mode_t mode)
{
    char path[4200];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0700);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), size);
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static uint64_t random_state;

static void seed_random(void)
{
    const char *seed = getenv("SEED");

    random_state = seed ? strtoull(seed, NULL, 0) : (uint64_t)getpid() * 0x9e3779b97f4a7c15;
    print_message("SEED=0x%" PRIx64 "\n", random_state);
}

static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* Changes a few fields' worth of bytes among the first size ones. */
static void damage_randomly(uint8_t *bytes, size_t size)
{
    for (uint64_t n = next_random() % 4 + 1; n; n--) {
        size_t at = next_random() % (size - 8);
        uint64_t value = next_random() & 1 ? next_random() : 1ull << next_random() % 64;

        memcpy(bytes + at, &value, next_random() % 8 + 1);
    }
}

#endif
