/* test_elf.c: the loader against the kernel's execve.
 *
 * The program runs itself as a child that loads (and, where the kernel's run is the oracle, enters)
 * a program by elf_load alone, without any translation. */
#include "../emu.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>

#include <cmocka.h>

#include "run.h"

#include "bad_elf.h"

#define SECONDS      10
#define RANDOM_FILES 500

extern char **environ;

struct options opt = {.program_fd = -1};

static char *no_env[] = {"A=first", "LONGER=second one", NULL};
static char self[4096];

/* ---- what elf.c needs of emu.c ---- */

void die(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fputs("emu: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputs("\n", stderr);
    va_end(ap);
    exit(EXIT_FAILURE);
}

void warn(const char *fmt, ...)
{
    (void)fmt;
    abort();
}

void log_printf(const char *fmt, ...)
{
    (void)fmt;
    abort();
}

int move_fd_high(int fd)
{
    return fd;
}

/* ---- children ---- */

_Noreturn static void enter_program(void)
{
    __asm__ volatile("mov %0, %%rsp\n\txor %%edx, %%edx\n\tjmp *%1"
                     :
                     : "S"(image.sp), "D"(image.entry_code));
    __builtin_unreachable();
}

/* Prints what a program finds on its stack, but for addresses and values that differ by nature. */
static void describe_stack(const uint64_t *sp)
{
    uint64_t argc = *sp;
    char **argv = (char **)(sp + 1), **envp = argv + argc + 1;
    const char *end = argv[0];
    const uint64_t *aux;

    printf("sp %% 16 = %d\n", (int)((uintptr_t)sp % 16));
    for (char **s = argv; s < envp - 1; end = *s + strlen(*s) + 1, s++)
        printf("argv %s%s\n", *s, *s == end ? "" : " (not behind the one before)");
    printf("argv ends with %p\n", (void *)envp[-1]);
    for (; *envp; end = *envp + strlen(*envp) + 1, envp++)
        printf("env %s%s\n", *envp, *envp == end ? "" : " (not behind the one before)");
    for (aux = (uint64_t *)(envp + 1); aux[0]; aux += 2) {
        if (aux[0] == 27 || aux[0] == 28 || aux[0] == AT_IGNORE) {
            printf("aux AT_RSEQ_* or, as there is no rseq, AT_IGNORE in its place\n");
            continue;
        }
        printf("aux %d", (int)aux[0]);
        if (aux[0] == AT_EXECFN)
            printf(" %s %s, %d below a page", (char *)aux[1],
                   (char *)aux[1] == end ? "behind env" : "elsewhere",
                   (int)(-(aux[1] + strlen((char *)aux[1]) + 1) % GUEST_PAGE));
        else if (aux[0] == AT_PLATFORM)
            printf(" %s", (char *)aux[1]);
        else if (aux[0] == AT_PHDR)
            printf(" %d", ((Elf64_Phdr *)aux[1])->p_type);
        else if (aux[0] == AT_ENTRY || aux[0] == AT_BASE)
            printf(" page offset 0x%x", (int)(aux[1] % GUEST_PAGE));
        else if (aux[0] != AT_RANDOM && aux[0] != AT_SYSINFO_EHDR)
            printf(" 0x%" PRIx64, aux[1]);
        printf("\n");
    }
}

static void describe_image(void)
{
    printf("path %s\ncode %" PRIx64 "-%" PRIx64 "\nentry %" PRIx64 "\nbrk %" PRIx64 "\n",
           image.path, image.start_code, image.end_code, image.entry_code, image.brk);
}

/* What this program does when it is its own child: MODE FILE ARGS. What elf_load allocates is for
 * the life of the program: no leak. */
_Noreturn static void be_child(char **argv)
{
    const char *mode = argv[1];

    if (!strcmp(mode, "kernel-stack")) {
        describe_stack((uint64_t *)(argv - 1));
    } else {
        elf_load(argv[2], argv + 2, environ);
        if (!strcmp(mode, "enter"))
            enter_program();
        if (!strcmp(mode, "stack"))
            describe_stack((uint64_t *)image.sp);
        if (!strcmp(mode, "image"))
            describe_image();
    }
    fflush(stdout);
    _exit(0);
}

static struct result run_child(const char *mode, const char *file, const char *arg)
{
    char *argv[] = {self, (char *)mode, (char *)file, (char *)arg, NULL};
    struct result r;

    run_command(&r, argv, no_env, dir, NULL, SECONDS);
    return r;
}

/* The loader refuses the file with one line that holds text. */
static void assert_refused(const char *file, const char *text)
{
    struct result r = run_child("load", file, NULL);

    if (r.status != 1 << 8 || r.size[0] || !strstr(r.out[1], text) ||
        strchr(r.out[1], '\n') != r.out[1] + r.size[1] - 1 || strncmp(r.out[1], "emu: ", 5) ||
        !strstr(r.out[1], file))
        fail_msg("%s: status 0x%x, wanted \"%s\", got \"%s\"", file, r.status, text, r.out[1]);
    free_result(&r);
}

/* ---- a small program ---- */

static void test_tiny(void **state)
{
    struct tiny t = make_tiny();
    struct result r;

    (void)state;
    write_program("tiny", &t, sizeof t, 0755);
    r = run_child("enter", "./tiny", NULL);
    assert_int_equal(r.status, 42 << 8);
    free_result(&r);
    r = run_child("image", "./tiny", NULL);
    assert_non_null(strstr(r.out[0], "/tiny\ncode 10000000-"));
    assert_non_null(strstr(r.out[0], "\nbrk 10005000\n"));
    free_result(&r);
}

/* ---- refusals ---- */

/* A field of the small program with a value that is wrong, and what the message must say. */
struct damage {
    const char *what;
    size_t offset, size;
    uint64_t value;
    const char *message;
};

#define HEAD(field)  offsetof(struct tiny, head.field), sizeof(((struct tiny *)0)->head.field)
#define PH(n, field) offsetof(struct tiny, ph[n].field), sizeof(((struct tiny *)0)->ph[n].field)

/* clang-format off */
static const struct damage damages[] = {
    {"magic",            0, 1, 'X',                        "not an ELF file"},
    {"class 32",         4, 1, ELFCLASS32,                 "32-bit"},
    {"class 7",          4, 1, 7,                          "class 7"},
    {"big endian",       5, 1, ELFDATA2MSB,                "little-endian"},
    {"machine",          HEAD(e_machine), EM_AARCH64,      "machine 183"},
    {"object",           HEAD(e_type), ET_REL,             "object file"},
    {"core",             HEAD(e_type), ET_CORE,            "not a program"},
    {"phentsize",        HEAD(e_phentsize), 32,            "32 bytes"},
    {"no phdrs",         HEAD(e_phnum), 0,                 "no program headers"},
    {"many phdrs",       HEAD(e_phnum), 0xffff,            "65535 program headers"},
    {"phoff",            HEAD(e_phoff), 1 << 20,           "end of the file"},
    {"phoff negative",   HEAD(e_phoff), UINT64_MAX - 8,    "end of the file"},
    {"entry",            HEAD(e_entry), 1ull << 63,        "entry point"},
    {"filesz > memsz",   PH(0, p_memsz), 8,                "larger in the file"},
    {"filesz",           PH(0, p_filesz), UINT64_MAX,      "larger in the file"},
    {"memsz",            PH(1, p_memsz), UINT64_MAX,       "outside the address space"},
    {"memsz all",        PH(1, p_memsz), 0x7fffe0000000,   "in use already"},
    {"vaddr",            PH(1, p_vaddr), 1ull << 47,       "outside the address space"},
    {"vaddr wraps",      PH(1, p_vaddr), -4096ull,         "outside the address space"},
    {"offset",           PH(0, p_offset), 1 << 20,         "behind the end of the file"},
    {"offset wraps",     PH(0, p_offset), -4096ull,        "behind the end of the file"},
    {"offset unaligned", PH(1, p_vaddr), TINY_BASE + 0x2008, "do not agree"},
    {"overlap",          PH(1, p_vaddr), TINY_BASE + offsetof(struct tiny, data), "overlaps"},
    {"order",            PH(1, p_vaddr), TINY_BASE - 0x10000 + offsetof(struct tiny, data), "order"},
    {"interp empty",     PH(3, p_type), PT_INTERP,         "interpreter name"},
};
/* clang-format on */

static void test_damaged(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        const struct damage *d = &damages[i];
        struct tiny t = make_tiny();

        memcpy((char *)&t + d->offset, &d->value, d->size);
        write_program("damaged", &t, sizeof t, 0755);
        assert_refused("./damaged", d->message);
    }
}

static void test_no_segment(void **state)
{
    struct tiny t = make_tiny();

    (void)state;
    t.ph[0].p_type = t.ph[1].p_type = PT_NOTE;
    write_program("empty", &t, sizeof t, 0755);
    assert_refused("./empty", "nothing to load");
}

static void test_interpreter(void **state)
{
    struct tiny t = make_tiny();

    (void)state;
    t.ph[3] = (Elf64_Phdr){.p_type = PT_INTERP,
                           .p_offset = offsetof(struct tiny, interp),
                           .p_filesz = 15,
                           .p_memsz = 15};
    write_program("interp", &t, sizeof t, 0755);
    assert_refused("./interp", "interpreter /no/such/ld.so: No such file");
    t.interp[14] = 'x';
    write_program("interp", &t, sizeof t, 0755);
    assert_refused("./interp", "damaged interpreter name");
}

static void test_no_program(void **state)
{
    struct tiny t = make_tiny();

    (void)state;
    write_program("file", &t, sizeof t, 0644);
    assert_refused("./file", "Permission denied");
    write_program("short", &t, 3, 0755);
    assert_refused("./short", "not an ELF file");
    write_program("short", &t, 40, 0755);
    assert_refused("./short", "truncated ELF header");
    write_program("short", &t, 100, 0755);
    assert_refused("./short", "program headers lie behind");
    write_program("short", &t, sizeof t - 8, 0755);
    assert_refused("./short", "behind the end of the file");
    assert_refused("/", "is a directory");
    assert_refused("/dev/null", "not a regular file");
    assert_refused("./missing", "No such file or directory");
    assert_refused("./file/below", "Not a directory");
}

/* A program where emu's own code lies cannot be loaded; where that is changes with each run, but
 * a program that wants everything wants that too. */
static void test_taken_addresses(void **state)
{
    struct tiny t = make_tiny();

    (void)state;
    t.ph[0].p_vaddr = 0x555555000000;
    t.ph[1].p_vaddr = t.ph[0].p_vaddr + 0x1000 + offsetof(struct tiny, data);
    t.ph[1].p_memsz = 0x7ffff0000000 - t.ph[1].p_vaddr;
    write_program("taken", &t, sizeof t, 0755);
    assert_refused("./taken", "in use already");
}

/* ---- scripts ---- */

/* What the kernel makes of a first line, the loader must make of it. The interpreter prints its
 * arguments. */
/* clang-format off */
#define LINE(text) {text, sizeof text - 1} /* a NUL may be among its bytes */
static const struct {
    const char *text;
    size_t len;
} script_lines[] = {
    LINE("#!/bin/echo\n"), LINE("#!/bin/echo"), LINE("#! /bin/echo\n"),
    LINE("#! \t/bin/echo  one two \t \n"), LINE("#!/bin/echo one"), LINE("#!/bin/echo \n"),
    LINE("#!/bin/echo\t\tx\n"), LINE("#!/bin/echo \\n -e\n"), LINE("#!\n"), LINE("#!   \n"),
    LINE("#!"), LINE("#! "), LINE("#!/no/such/thing\n"), LINE("#!/bin/echo\r\n"),
    LINE("#!relative\n"), LINE("#!/\n"), LINE("#!/dev/null\n"), LINE("echo\n"), LINE(""),
    LINE("#"), LINE("#!/bin/echo a\0b\n"), LINE("#!/bin/echo \0b\n"),
};
/* clang-format on */

/* Runs the file by the kernel and by the loader; both must print the same, or both refuse. */
static void compare_script(const char *file, const char *label)
{
    char *argv[] = {(char *)file, "arg", NULL};
    struct result native, loaded = run_child("enter", file, "arg");

    run_command(&native, argv, no_env, dir, NULL, SECONDS);
    if (native.status == 127 << 8) {
        if (loaded.status != 1 << 8 || strncmp(loaded.out[1], "emu: ", 5))
            fail_msg("\"%s\" is refused by the kernel, loaded here: %s", label, loaded.out[0]);
    } else if (native.status != loaded.status || strcmp(native.out[0], loaded.out[0])) {
        fail_msg("\"%s\": kernel \"%s\", loader \"%s\" \"%s\"", label, native.out[0], loaded.out[0],
                 loaded.out[1]);
    }
    free_result(&native);
    free_result(&loaded);
}

static void test_scripts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof script_lines / sizeof *script_lines; i++) {
        write_program("script", script_lines[i].text, script_lines[i].len, 0755);
        compare_script("./script", script_lines[i].text);
    }
}

/* Names and arguments that end just before, at and behind what the kernel reads of the line. */
static void test_long_scripts(void **state)
{
    (void)state;
    for (int len = 250; len < 262; len++) {
        for (int kind = 0; kind < 4; kind++) {
            char line[512];

            memset(line, 'x', sizeof line);
            memcpy(line, "#!/bin/echo ", 12);
            if (kind & 1)
                memset(line + 11, ' ', (size_t)len - 20);
            if (kind & 2)
                memset(line + 2, '/', (size_t)len - 20), memcpy(line + len - 18, "bin/echo ", 9);
            line[len] = '\n';
            write_program("script", line, (size_t)len + 1, 0755);
            compare_script("./script", "long line");
        }
    }
}

static void test_nested_scripts(void **state)
{
    char name[16] = "/bin/echo", line[4300];

    (void)state;
    for (int depth = 1; depth < 8; depth++) {
        snprintf(line, sizeof line, "#!%s%s%s %d\n", depth > 1 ? dir : "", depth > 1 ? "/" : "",
                 name, depth);
        snprintf(name, sizeof name, "s%d", depth);
        write_program(name, line, strlen(line), 0755);
        compare_script(name, name);
    }
}

/* ---- the stack ---- */

static void test_stack(void **state)
{
    char *argv[] = {self, "kernel-stack", "x", NULL};
    struct result kernel, ours;
    char *loaded[] = {self, "stack", self, "kernel-stack", "x", NULL};

    (void)state;
    for (int odd = 0; odd < 2; odd++) {
        argv[2] = loaded[4] = odd ? NULL : "x"; /* both parities of the number of words */
        run_command(&kernel, argv, no_env, dir, NULL, SECONDS);
        run_command(&ours, loaded, no_env, dir, NULL, SECONDS);
        assert_int_equal(kernel.status, 0);
        assert_int_equal(ours.status, 0);
        char *same = strstr(kernel.out[0], "argv kernel-stack");
        assert_non_null(same);
        assert_string_equal(kernel.out[0], ours.out[0]);
        free_result(&kernel);
        free_result(&ours);
    }
}

/* ---- damage at random ---- */

/* Whatever the headers say, the loader loads the file or says one line. */
static void test_random_damage(void **state)
{
    (void)state;
    seed_random();
    for (int i = 0; i < RANDOM_FILES; i++) {
        struct tiny t = make_tiny();
        uint64_t seed = random_state;

        damage_randomly((uint8_t *)&t, offsetof(struct tiny, code));
        write_program("random", &t, sizeof t, 0755);
        struct result r = run_child("load", "./random", NULL);
        if (r.status != 0 && (r.status != 1 << 8 || strncmp(r.out[1], "emu: ", 5)))
            fail_msg("seed 0x%" PRIx64 ": status 0x%x %s", seed, r.status, r.out[1]);
        free_result(&r);
    }
}

/* ---- symbols ---- */

static void test_symbols(void **state)
{
    uint64_t offset = 77;

    (void)state;
    const char *name = elf_symbol((uint64_t)(uintptr_t)test_symbols + 1, &offset);
    assert_non_null(name);
    assert_string_equal(name, "test_symbols");
    assert_int_equal(offset, 1);
    assert_string_equal(elf_symbol((uint64_t)(uintptr_t)elf_load, NULL), "elf_load");
    assert_null(elf_symbol(0x1000, NULL));
}

static int find_self(void **state)
{
    return realpath("/proc/self/exe", self) ? make_dir(state) : -1;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny),           cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_no_segment),     cmocka_unit_test(test_interpreter),
        cmocka_unit_test(test_no_program),     cmocka_unit_test(test_taken_addresses),
        cmocka_unit_test(test_scripts),        cmocka_unit_test(test_long_scripts),
        cmocka_unit_test(test_nested_scripts), cmocka_unit_test(test_stack),
        cmocka_unit_test(test_random_damage),  cmocka_unit_test(test_symbols),
    };

    if (argc > 1)
        be_child(argv);
    return cmocka_run_group_tests(tests, find_self, remove_dir);
}
