/* elf.c: loads a program with its interpreter, builds the initial stack, finds symbols.
 *
 * May know the ELF format and what the kernel's execve does. Must not know how code is run. Of the
 * guest's instruction set it knows the name and the number in the ELF header. */
#include "emu.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#define GUEST_MACHINE  EM_X86_64
#define GUEST_PLATFORM "x86_64"

#define ADDRESS_END    0x7ffffffff000ull /* TASK_SIZE_MAX */
#define SCRIPT_LINE    256               /* BINPRM_BUF_SIZE: what the kernel reads of a script */
#define SCRIPT_DEPTH   5                 /* scripts that may interpret each other */
#define HEADERS_MAX    65536             /* bytes of program headers the kernel accepts */
#define DEFAULT_STACK  (8ull << 20)
#define STACK_GUARD    (64ull << 10)

/* Younger than some libc's <elf.h>. AUX_ABSENT is no type of the kernel's. */
enum {
    AUX_RSEQ_FEATURE_SIZE = 27,
    AUX_RSEQ_ALIGN = 28,
    AUX_MINSIGSTKSZ = 51,
    AUX_ABSENT = 1 << 30
};

struct image image;

/* ---- opening and checking -------------------------------------------------------------------- */

/* An ELF file that is being loaded. */
struct elf {
    const char *path;
    int fd;
    uint64_t size;
    Elf64_Ehdr head;
    Elf64_Phdr *ph;
    uint64_t low, high; /* pages of its segments, as linked */
    uint64_t align;     /* strictest alignment of a segment, at least a page */
    uint64_t bias;      /* place minus linked address */
};

/* The name under -L if there is such a file, else the name itself. */
static const char *find_in_prefix(const char *path)
{
    char *full;

    if (!opt.ld_prefix || path[0] != '/')
        return path;
    if (asprintf(&full, "%s%s", opt.ld_prefix, path) < 0)
        die("out of memory");
    if (access(full, F_OK) == 0)
        return full;
    free(full);
    return path;
}

/* Opens what execve would accept. wanted_by: the file that names it, or NULL. */
static int open_executable(const char *path, const char *wanted_by, uint64_t *size)
{
    const char *what = wanted_by ? ": interpreter " : "", *whose = wanted_by ? wanted_by : "";
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        die("%s%s%s: %s", whose, what, path, strerror(errno));
    if (fstat(fd, &st) < 0)
        die("%s%s%s: %s", whose, what, path, strerror(errno));
    if (S_ISDIR(st.st_mode))
        die("%s%s%s: is a directory", whose, what, path);
    if (!S_ISREG(st.st_mode))
        die("%s%s%s: not a regular file", whose, what, path);
    if (access(path, X_OK) < 0)
        die("%s%s%s: not executable: %s", whose, what, path, strerror(errno));
    *size = (uint64_t)st.st_size;
    return fd;
}

static bool read_at(int fd, void *buf, size_t len, uint64_t offset)
{
    return len <= SSIZE_MAX && offset <= INT64_MAX &&
           pread(fd, buf, len, (off_t)offset) == (ssize_t)len;
}

/* A part of a file in new memory; NULL if it is not there. */
static void *read_part(const struct elf *elf, uint64_t offset, uint64_t len)
{
    if (!len || offset > elf->size || len > elf->size - offset)
        return NULL;
    void *part = malloc(len);
    if (part && !read_at(elf->fd, part, len, offset)) {
        free(part);
        return NULL;
    }
    return part;
}

static void check_header(const struct elf *elf)
{
    const Elf64_Ehdr *head = &elf->head;

    if (head->e_ident[EI_CLASS] == ELFCLASS32)
        die("%s: 32-bit program; only 64-bit ones can be run", elf->path);
    if (head->e_ident[EI_CLASS] != ELFCLASS64)
        die("%s: damaged ELF header: unknown class %d", elf->path, head->e_ident[EI_CLASS]);
    if (head->e_ident[EI_DATA] != ELFDATA2LSB)
        die("%s: not a little-endian program", elf->path);
    if (head->e_machine != GUEST_MACHINE)
        die("%s: built for another machine (ELF machine %d), not for " GUEST_PLATFORM, elf->path,
            head->e_machine);
    if (head->e_type == ET_REL)
        die("%s: object file, not linked to a program", elf->path);
    if (head->e_type != ET_EXEC && head->e_type != ET_DYN)
        die("%s: not a program (ELF type %d)", elf->path, head->e_type);
    if (head->e_phentsize != sizeof(Elf64_Phdr))
        die("%s: damaged ELF header: program headers of %d bytes", elf->path, head->e_phentsize);
    if (head->e_phnum == 0)
        die("%s: no program headers", elf->path);
    if (head->e_phnum * sizeof(Elf64_Phdr) > HEADERS_MAX)
        die("%s: damaged ELF header: %d program headers", elf->path, head->e_phnum);
}

static void read_headers(struct elf *elf)
{
    size_t len;

    if (!read_at(elf->fd, &elf->head, sizeof elf->head, 0))
        die("%s: truncated ELF header", elf->path);
    check_header(elf);
    len = elf->head.e_phnum * sizeof(Elf64_Phdr);
    elf->ph = malloc(len);
    if (!elf->ph)
        die("out of memory");
    if (!read_at(elf->fd, elf->ph, len, elf->head.e_phoff))
        die("%s: program headers lie behind the end of the file", elf->path);
}

/* One PT_LOAD; end: where the segment before it ended. */
static void check_segment(const struct elf *elf, const Elf64_Phdr *ph, uint64_t end)
{
    int n = (int)(ph - elf->ph);

    if (ph->p_filesz > ph->p_memsz)
        die("%s: segment %d is larger in the file than in memory", elf->path, n);
    if (ph->p_vaddr >= ADDRESS_END || ph->p_memsz > ADDRESS_END - ph->p_vaddr)
        die("%s: segment %d lies outside the address space", elf->path, n);
    if (ph->p_offset > elf->size || ph->p_filesz > elf->size - ph->p_offset)
        die("%s: segment %d ends behind the end of the file (truncated?)", elf->path, n);
    if ((ph->p_vaddr - ph->p_offset) % GUEST_PAGE)
        die("%s: segment %d: address and file offset do not agree", elf->path, n);
    if (ph->p_vaddr < end)
        die("%s: segment %d overlaps another one or is out of order", elf->path, n);
}

static void check_segments(struct elf *elf)
{
    uint64_t end = 0;

    elf->low = UINT64_MAX;
    elf->align = GUEST_PAGE;
    for (int i = 0; i < elf->head.e_phnum; i++) {
        const Elf64_Phdr *ph = &elf->ph[i];

        if (ph->p_type != PT_LOAD)
            continue;
        check_segment(elf, ph, end);
        end = ph->p_vaddr + ph->p_memsz;
        if (elf->low == UINT64_MAX)
            elf->low = PAGE_DOWN(ph->p_vaddr);
        /* As the kernel: an alignment that is no power of two is ignored. */
        if (ph->p_align > elf->align && (ph->p_align & (ph->p_align - 1)) == 0)
            elf->align = ph->p_align;
    }
    elf->high = PAGE_UP(end);
    if (elf->low >= elf->high)
        die("%s: nothing to load in it", elf->path);
    if (elf->head.e_entry >= ADDRESS_END)
        die("%s: entry point lies outside the address space", elf->path);
}

static struct elf open_elf(const char *path, const char *wanted_by)
{
    struct elf elf = {.path = path};
    char magic[SELFMAG];

    elf.fd = open_executable(path, wanted_by, &elf.size);
    if (!read_at(elf.fd, magic, sizeof magic, 0) || memcmp(magic, ELFMAG, SELFMAG))
        die("%s: not an ELF file", path);
    read_headers(&elf);
    check_segments(&elf);
    return elf;
}

static void close_elf(struct elf *elf)
{
    close(elf->fd);
    free(elf->ph);
}

/* ---- mapping --------------------------------------------------------------------------------- */

static int segment_prot(const Elf64_Phdr *ph)
{
    return (ph->p_flags & PF_R ? PROT_READ : 0) | (ph->p_flags & PF_W ? PROT_WRITE : 0) |
           (ph->p_flags & PF_X ? PROT_EXEC : 0);
}

static void map_pages(const struct elf *elf, uint64_t start, uint64_t end, int prot, int flags,
                      uint64_t offset)
{
    int fd = flags & MAP_ANONYMOUS ? -1 : elf->fd;

    if (start == end)
        return;
    flags |= MAP_PRIVATE | MAP_FIXED;
    if (mmap((void *)start, end - start, vma_host_prot(prot), flags, fd, (off_t)offset) ==
        MAP_FAILED)
        die("%s: cannot map 0x%" PRIx64 "-0x%" PRIx64 ": %s", elf->path, start, end,
            strerror(errno));
    vma_add(start, end - start, prot, flags);
}

/* The kernel's elf_load: file pages, zeroes to the end of the last one if it can be written, and
 * zero pages, which can be written always. */
static void map_segment(const struct elf *elf, const Elf64_Phdr *ph)
{
    uint64_t start = ph->p_vaddr + elf->bias;
    uint64_t file_end = start + ph->p_filesz, end = start + ph->p_memsz;
    uint64_t zero_pages = ph->p_filesz ? PAGE_UP(file_end) : PAGE_DOWN(start);
    int prot = segment_prot(ph);

    if (!ph->p_memsz)
        return;
    map_pages(elf, PAGE_DOWN(start), zero_pages, prot, 0, PAGE_DOWN(ph->p_offset));
    if (end > file_end && (prot & PROT_WRITE) && zero_pages > file_end)
        memset((void *)file_end, 0, zero_pages - file_end);
    if (PAGE_UP(end) > zero_pages)
        map_pages(elf, zero_pages, PAGE_UP(end), prot | PROT_READ | PROT_WRITE, MAP_ANONYMOUS, 0);
}

/* Holds [start, start+len) for an image, or finds out that something is there. */
static void *reserve(uint64_t start, uint64_t len, int flags)
{
    return mmap((void *)start, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags,
                -1, 0);
}

/* Chooses where a position-independent file goes; returns the address of its lowest page. */
static uint64_t place_anywhere(const struct elf *elf)
{
    uint64_t span = elf->high - elf->low, room = span + elf->align - GUEST_PAGE;
    uint64_t place = room >= span ? vma_place_image(room) : 0;

    if (!place && room >= span) {
        void *high = reserve(0, room, 0);

        if (high == MAP_FAILED)
            die("%s: no room for its 0x%" PRIx64 " bytes", elf->path, span);
        munmap(high, room);
        place = (uint64_t)high;
    }
    /* What is asked for is that the linked address and the place agree below the alignment. */
    return place + ((elf->low - place) & (elf->align - 1));
}

static void place_elf(struct elf *elf)
{
    uint64_t span = elf->high - elf->low, place = elf->low;

    if (elf->head.e_type == ET_DYN)
        place = place_anywhere(elf);
    void *got = reserve(place, span, MAP_FIXED_NOREPLACE);
    if (got == MAP_FAILED && errno != EEXIST)
        die("%s: cannot map 0x%" PRIx64 "-0x%" PRIx64 ": %s", elf->path, place, place + span,
            strerror(errno));
    if (got != (void *)place)
        die("%s: its addresses 0x%" PRIx64 "-0x%" PRIx64 " are in use already", elf->path, place,
            place + span);
    munmap(got, span);
    elf->bias = place - elf->low;
}

static void map_elf(struct elf *elf)
{
    place_elf(elf);
    for (int i = 0; i < elf->head.e_phnum; i++)
        if (elf->ph[i].p_type == PT_LOAD)
            map_segment(elf, &elf->ph[i]);
}

/* ---- the interpreter ------------------------------------------------------------------------- */

/* PT_INTERP's text, or NULL. */
static char *interpreter_name(const struct elf *elf)
{
    for (int i = 0; i < elf->head.e_phnum; i++) {
        const Elf64_Phdr *ph = &elf->ph[i];

        if (ph->p_type != PT_INTERP)
            continue;
        if (ph->p_filesz < 2 || ph->p_filesz > PATH_MAX)
            die("%s: damaged interpreter name", elf->path);
        char *name = malloc(ph->p_filesz);
        if (!name)
            die("out of memory");
        if (!read_at(elf->fd, name, ph->p_filesz, ph->p_offset) || name[ph->p_filesz - 1])
            die("%s: damaged interpreter name", elf->path);
        return name;
    }
    return NULL;
}

/* Maps what PT_INTERP names; false: the program does without. */
static bool map_interpreter(const struct elf *program, struct elf *interp)
{
    char *name = interpreter_name(program);

    if (!name)
        return false;
    *interp = open_elf(find_in_prefix(name), program->path);
    map_elf(interp);
    close_elf(interp);
    return true;
}

/* ---- scripts --------------------------------------------------------------------------------- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* Cuts the "#!" line at line (SCRIPT_LINE bytes, padded with zeroes) into interpreter and optional
 * argument (NULL: none), by the rules of the kernel's load_script. Returns false if it is none. */
static bool parse_script(char *line, char **interp, char **arg)
{
    char *end = memchr(line, '\n', SCRIPT_LINE), *p = line + 2;

    if (line[0] != '#' || line[1] != '!')
        return false;
    if (!end) {
        /* Without an end of line the argument may be cut off, but not the interpreter's name. */
        end = line + SCRIPT_LINE - 1;
        p += strspn(p, " \t");
        if (p >= end || p + strcspn(p, " \t") >= end)
            return false;
    }
    while (end > line + 2 && is_blank(end[-1]))
        end--;
    *end = '\0';
    *interp = line + 2 + strspn(line + 2, " \t");
    if (!**interp)
        return false;
    p = *interp + strcspn(*interp, " \t");
    *arg = *p ? p + 1 + strspn(p + 1, " \t") : NULL;
    *p = '\0';
    return true;
}

static size_t count_strings(char **list)
{
    size_t n = 0;

    while (list[n])
        n++;
    return n;
}

static char *copy_string(const char *string)
{
    char *copy = strdup(string);

    if (!copy)
        die("out of memory");
    return copy;
}

/* The argument list of the script's interpreter: its name, its argument, the script, the rest. */
static char **script_argv(char **argv, const char *script, char *interp, char *arg)
{
    size_t n = count_strings(argv), i = 0;
    char **list = calloc(n + 4, sizeof *list);

    if (!list)
        die("out of memory");
    list[i++] = copy_string(interp);
    if (arg)
        list[i++] = copy_string(arg);
    list[i++] = (char *)script;
    for (size_t from = 1; from < n; from++)
        list[i++] = argv[from];
    return list;
}

/* Follows "#!" lines from file to an ELF file; returns its name and replaces *argv. name: what the
 * first interpreter is told to open. */
static const char *resolve_script(const char *file, const char *name, char ***argv)
{
    const char *path = file, *wanted_by = NULL;

    for (int depth = 0;; depth++) {
        char line[SCRIPT_LINE + 1] = {0}, *interp, *arg;
        uint64_t size;
        int fd = open_executable(path, wanted_by, &size);
        ssize_t got = pread(fd, line, SCRIPT_LINE, 0);

        close(fd);
        if (got < 0)
            die("%s: %s", path, strerror(errno));
        if (line[0] != '#' || line[1] != '!')
            return path;
        if (!parse_script(line, &interp, &arg))
            die("%s: #! line without a usable interpreter", path);
        if (depth == SCRIPT_DEPTH)
            die("%s: too many scripts that interpret each other", file);
        *argv = script_argv(*argv, name, interp, arg);
        wanted_by = path;
        name = (*argv)[0];
        path = find_in_prefix(name);
    }
}

/* ---- before execve --------------------------------------------------------------------------- */

/* The kernel's own conditions: a file that fails them is none that execve would load as ELF. */
static bool is_guest_header(const Elf64_Ehdr *head)
{
    return !memcmp(head->e_ident, ELFMAG, SELFMAG) && head->e_ident[EI_CLASS] == ELFCLASS64 &&
           head->e_machine == GUEST_MACHINE &&
           (head->e_type == ET_EXEC || head->e_type == ET_DYN) &&
           head->e_phentsize == sizeof(Elf64_Phdr) && head->e_phnum &&
           head->e_phnum * sizeof(Elf64_Phdr) <= HEADERS_MAX;
}

/* True if the interpreter that a segment names can be executed. */
static bool has_interpreter(const struct elf *elf, const Elf64_Phdr *ph)
{
    char *name = ph->p_filesz <= PATH_MAX ? read_part(elf, ph->p_offset, ph->p_filesz) : NULL;
    bool found = name && !name[ph->p_filesz - 1] && access(find_in_prefix(name), X_OK) == 0;

    free(name);
    return found;
}

/* True for an ELF file that execve would not refuse. */
static bool is_guest_program(struct elf *elf)
{
    size_t size = sizeof(Elf64_Phdr);
    bool fine = false;

    if (!read_at(elf->fd, &elf->head, sizeof elf->head, 0) || !is_guest_header(&elf->head))
        return false;
    elf->ph = read_part(elf, elf->head.e_phoff, elf->head.e_phnum * size);
    fine = elf->ph != NULL;
    for (int i = 0; fine && i < elf->head.e_phnum; i++)
        fine = elf->ph[i].p_type != PT_INTERP || has_interpreter(elf, &elf->ph[i]);
    free(elf->ph);
    return fine;
}

/* File capabilities count only where the bits do not say everything. */
static bool is_privileged(int fd, const struct stat *st)
{
    return st->st_mode & S_ISUID || (st->st_mode & S_ISGID && st->st_mode & S_IXGRP) ||
           fgetxattr(fd, "security.capability", NULL, 0) > 0;
}

static enum elf_verdict examine_file(int fd, int depth)
{
    char line[SCRIPT_LINE + 1] = {0}, *interp, *arg;
    struct elf elf = {.fd = fd};
    struct stat st;

    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || pread(fd, line, SCRIPT_LINE, 0) < 0)
        return ELF_FOREIGN;
    elf.size = (uint64_t)st.st_size;
    if (line[0] != '#' || line[1] != '!') {
        if (is_privileged(fd, &st))
            return ELF_PRIVILEGED;
        return is_guest_program(&elf) ? ELF_RUNS : ELF_FOREIGN;
    }
    if (depth == SCRIPT_DEPTH || !parse_script(line, &interp, &arg))
        return ELF_FOREIGN;
    int next = open(find_in_prefix(interp), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool allowed = next >= 0 && access(find_in_prefix(interp), X_OK) == 0;
    enum elf_verdict verdict = allowed ? examine_file(next, depth + 1) : ELF_FOREIGN;
    if (next >= 0)
        close(next);
    return verdict == ELF_RUNS ? ELF_SCRIPT : verdict;
}

enum elf_verdict elf_examine(int fd)
{
    return examine_file(fd, 0);
}

/* ---- the stack ------------------------------------------------------------------------------- */

static size_t stack_size(void)
{
    struct rlimit limit;

    if (opt.stack_size)
        return PAGE_UP(opt.stack_size);
    if (getrlimit(RLIMIT_STACK, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
        return DEFAULT_STACK;
    return PAGE_UP(limit.rlim_cur);
}

static int stack_prot(const struct elf *elf)
{
    for (int i = 0; i < elf->head.e_phnum; i++)
        if (elf->ph[i].p_type == PT_GNU_STACK && (elf->ph[i].p_flags & PF_X))
            return PROT_READ | PROT_WRITE | PROT_EXEC;
    return PROT_READ | PROT_WRITE;
}

/* Maps the stack where the kernel likes, over pages that nobody can touch. */
static void map_stack(int prot)
{
    size_t size = stack_size();
    void *low = reserve(0, size + STACK_GUARD, 0);

    if (low == MAP_FAILED || mprotect((char *)low + STACK_GUARD, size, prot) < 0)
        die("cannot map a stack of %zu bytes: %s", size, strerror(errno));
    image.stack_low = (uint64_t)low + STACK_GUARD;
    image.stack_high = image.stack_low + size;
    vma_add(image.stack_low, size, prot, MAP_PRIVATE | MAP_ANONYMOUS);
}

static uint64_t push_bytes(const void *data, size_t len)
{
    if (image.sp - image.stack_low < len + GUEST_PAGE)
        die("arguments and environment do not fit on a stack of %" PRIu64 " bytes",
            image.stack_high - image.stack_low);
    image.sp -= len;
    memcpy((void *)image.sp, data, len);
    return image.sp;
}

/* Copies the strings so that the first lies lowest; at[]: their addresses, ended by 0. */
static uint64_t *push_strings(char **list)
{
    size_t n = count_strings(list);
    uint64_t *at = calloc(n + 1, sizeof *at);

    if (!at)
        die("out of memory");
    for (size_t i = n; i-- > 0;)
        at[i] = push_bytes(list[i], strlen(list[i]) + 1);
    return at;
}

static void push_words(const uint64_t *words, size_t n)
{
    push_bytes(words, n * sizeof *words);
}

/* Where the program headers lie in memory, as the kernel works it out: of several segments that
 * hold them the last counts, and if there is none, linked address 0. */
static uint64_t phdr_address(const struct elf *elf)
{
    uint64_t offset = elf->head.e_phoff, found = 0;

    for (int i = 0; i < elf->head.e_phnum; i++) {
        const Elf64_Phdr *ph = &elf->ph[i];

        if (ph->p_type == PT_LOAD && ph->p_offset <= offset && offset - ph->p_offset < ph->p_filesz)
            found = offset - ph->p_offset + ph->p_vaddr;
    }
    return found + elf->bias;
}

/* What the kernel told emu. Not getauxval: glibc replaces AT_HWCAP by a number of its own. */
static uint64_t host_aux(uint64_t type)
{
    Elf64_auxv_t aux;
    uint64_t value = 0;
    FILE *file = fopen("/proc/self/auxv", "re");

    while (file && !value && fread(&aux, sizeof aux, 1, file) == 1)
        if (aux.a_type == type)
            value = aux.a_un.a_val;
    if (file)
        fclose(file);
    return value;
}

/* What the kernel's create_elf_tables gives, in its order. There is no rseq, so that what a newer
 * kernel says of it is kept in place but to be ignored: the stack is laid out as natively. */
static size_t fill_auxv(Elf64_auxv_t *aux, const struct elf *elf, uint64_t interp_bias,
                        uint64_t random, uint64_t file, uint64_t platform)
{
    const uint64_t rows[][2] = {
        {AT_SYSINFO_EHDR, host_aux(AT_SYSINFO_EHDR)},
        {AUX_MINSIGSTKSZ, host_aux(AUX_MINSIGSTKSZ)},
        {AT_HWCAP, host_aux(AT_HWCAP)},
        {AT_PAGESZ, GUEST_PAGE},
        {AT_CLKTCK, host_aux(AT_CLKTCK)},
        {AT_PHDR, phdr_address(elf)},
        {AT_PHENT, sizeof(Elf64_Phdr)},
        {AT_PHNUM, elf->head.e_phnum},
        {AT_BASE, interp_bias},
        {AT_FLAGS, 0},
        {AT_ENTRY, elf->head.e_entry + elf->bias},
        {AT_UID, getuid()},
        {AT_EUID, geteuid()},
        {AT_GID, getgid()},
        {AT_EGID, getegid()},
        {AT_SECURE, host_aux(AT_SECURE)},
        {AT_RANDOM, random},
        {AT_HWCAP2, host_aux(AT_HWCAP2)},
        {AT_EXECFN, file},
        {AT_PLATFORM, platform},
        {host_aux(AUX_RSEQ_FEATURE_SIZE) ? AT_IGNORE : AUX_ABSENT, 0},
        {host_aux(AUX_RSEQ_ALIGN) ? AT_IGNORE : AUX_ABSENT, 0},
        {AT_NULL, 0},
    };
    size_t n = 0;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        /* A kernel without a vDSO, or too old for the row, has no such entry either. */
        bool optional = rows[i][0] == AT_SYSINFO_EHDR || rows[i][0] == AUX_MINSIGSTKSZ;

        if (rows[i][0] == AUX_ABSENT || (optional && !rows[i][1]))
            continue;
        aux[n].a_type = rows[i][0];
        aux[n++].a_un.a_val = rows[i][1];
    }
    return n;
}

#define AUXV_MAX 32

/* From the top down: a null word, the file's name, environment, arguments, platform, random bytes,
 * auxiliary vector, pointers, argc. */
static void build_stack(const struct elf *elf, uint64_t interp_bias, const char *file, char **argv,
                        char **envp)
{
    Elf64_auxv_t aux[AUXV_MAX];
    uint8_t random[16] = {0};
    uint64_t argc = count_strings(argv), envc = count_strings(envp);

    image.sp = image.stack_high - sizeof(uint64_t);
    uint64_t file_at = push_bytes(file, strlen(file) + 1);
    image.env_end = image.sp;
    uint64_t *env_at = push_strings(envp);
    image.env_start = image.arg_end = image.sp;
    uint64_t *arg_at = push_strings(argv);
    image.arg_start = image.sp;
    image.sp &= ~15ull;
    uint64_t platform_at = push_bytes(GUEST_PLATFORM, sizeof GUEST_PLATFORM);
    if (getrandom(random, sizeof random, 0) < 0)
        warn("no random bytes for AT_RANDOM: %s", strerror(errno));
    uint64_t random_at = push_bytes(random, sizeof random);
    size_t naux = fill_auxv(aux, elf, interp_bias, random_at, file_at, platform_at);

    /* The pointer to argc must be a multiple of 16; auxv entries are 16 bytes each. */
    image.sp &= ~15ull;
    if ((argc + envc + 3) % 2)
        image.sp -= sizeof(uint64_t);
    image.auxv_size = naux * sizeof *aux;
    image.auxv = push_bytes(aux, image.auxv_size);
    push_words(env_at, envc + 1);
    push_words(arg_at, argc + 1);
    push_words(&argc, 1);
    free(env_at);
    free(arg_at);
}

/* ---- symbols --------------------------------------------------------------------------------- */

struct symbol {
    uint64_t start, end; /* as linked */
    const char *name;
    unsigned oddity; /* among the names of one address */
};

/* The functions of a file, sorted by address; a file is read once and kept. */
struct symbol_file {
    char *path;
    Elf64_Phdr *ph;
    size_t nph;
    struct symbol *symbols;
    size_t count;
    struct symbol_file *next;
};

/* A mapped piece of code of a file. */
struct module {
    uint64_t start, end, offset;
    struct symbol_file *file;
};

static struct symbol_file *symbol_files;
static struct module *modules;
static size_t module_count;
static unsigned modules_generation;
static pthread_mutex_t symbol_lock = PTHREAD_MUTEX_INITIALIZER;

static int compare_symbols(const void *a, const void *b)
{
    const struct symbol *x = a, *y = b;

    if (x->start != y->start)
        return x->start < y->start ? -1 : 1;
    return x->oddity != y->oddity ? (x->oddity < y->oddity ? 1 : -1) : strcmp(x->name, y->name);
}

/* Of several names for one address the least odd one is taken: one that other files see, without
 * the underscores of what is meant for the library itself. */
static unsigned find_oddity(const Elf64_Sym *sym, const char *name)
{
    return (unsigned)strspn(name, "_") + (ELF64_ST_BIND(sym->st_info) == STB_LOCAL ? 100 : 0);
}

/* Takes the sized functions of one symbol table; names stay in memory until exit. */
static void take_symbols(struct symbol_file *file, const Elf64_Sym *sym, size_t n,
                         const char *names, uint64_t names_len)
{
    file->symbols = calloc(n, sizeof *file->symbols);
    for (size_t i = 0; file->symbols && i < n; i++) {
        int type = ELF64_ST_TYPE(sym[i].st_info);

        if ((type != STT_FUNC && type != STT_GNU_IFUNC) || sym[i].st_shndx == SHN_UNDEF ||
            !sym[i].st_size || sym[i].st_name >= names_len)
            continue;
        const char *name = names + sym[i].st_name;
        file->symbols[file->count++] = (struct symbol){
            sym[i].st_value, sym[i].st_value + sym[i].st_size, name, find_oddity(&sym[i], name)};
    }
    if (file->count)
        qsort(file->symbols, file->count, sizeof *file->symbols, compare_symbols);
}

static void read_symbol_table(struct symbol_file *file, const struct elf *elf,
                              const Elf64_Shdr *sections, uint32_t type)
{
    for (size_t i = 0; i < elf->head.e_shnum; i++) {
        const Elf64_Shdr *table = &sections[i];

        if (table->sh_type != type || table->sh_link >= elf->head.e_shnum)
            continue;
        const Elf64_Shdr *strings = &sections[table->sh_link];
        Elf64_Sym *sym = read_part(elf, table->sh_offset, table->sh_size);
        char *names = read_part(elf, strings->sh_offset, strings->sh_size);

        if (sym && names && !names[strings->sh_size - 1])
            take_symbols(file, sym, table->sh_size / sizeof *sym, names, strings->sh_size);
        else
            free(names);
        free(sym);
        return;
    }
}

/* Reads what is there; a file without symbols, or not ELF at all, has none. */
static void read_symbol_file(struct symbol_file *file, struct elf *elf)
{
    const Elf64_Ehdr *head = &elf->head;

    if (!read_at(elf->fd, &elf->head, sizeof elf->head, 0) ||
        memcmp(head->e_ident, ELFMAG, SELFMAG) || head->e_shentsize != sizeof(Elf64_Shdr))
        return;
    file->ph = read_part(elf, head->e_phoff, head->e_phnum * sizeof(Elf64_Phdr));
    file->nph = file->ph ? head->e_phnum : 0;
    Elf64_Shdr *sections = read_part(elf, head->e_shoff, head->e_shnum * sizeof(Elf64_Shdr));
    if (!sections)
        return;
    read_symbol_table(file, elf, sections, SHT_SYMTAB);
    if (!file->count)
        read_symbol_table(file, elf, sections, SHT_DYNSYM);
    free(sections);
}

static struct symbol_file *find_symbol_file(const char *path)
{
    struct symbol_file *file = symbol_files;
    struct elf elf = {.path = path};
    struct stat st;

    while (file && strcmp(file->path, path))
        file = file->next;
    if (file)
        return file;
    file = calloc(1, sizeof *file);
    if (!file)
        die("out of memory");
    file->path = copy_string(path);
    elf.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (elf.fd >= 0 && fstat(elf.fd, &st) == 0 && S_ISREG(st.st_mode)) {
        elf.size = (uint64_t)st.st_size;
        read_symbol_file(file, &elf);
    }
    if (elf.fd >= 0)
        close(elf.fd);
    file->next = symbol_files;
    symbol_files = file;
    return file;
}

/* Lists the executable file mappings of the process anew. */
static void update_modules(void)
{
    unsigned now = vma_generation();
    struct host_map map;
    size_t room = 0;

    if (modules && now == modules_generation)
        return;
    FILE *maps = host_maps_open();
    module_count = 0;
    free(modules);
    modules = NULL;
    while (host_maps_read(maps, &map)) {
        if (!(map.prot & PROT_EXEC) || map.name[0] != '/')
            continue;
        if (module_count == room) {
            room = room ? room * 2 : 16;
            modules = realloc(modules, room * sizeof *modules);
            if (!modules)
                die("out of memory");
        }
        modules[module_count++] =
            (struct module){map.start, map.end, map.offset, find_symbol_file(map.name)};
    }
    fclose(maps);
    modules_generation = now;
}

/* addr in a mapped piece as the linker knew it; false: no segment of the file covers it. */
static bool linked_address(const struct module *module, uint64_t *addr)
{
    uint64_t offset = *addr - module->start + module->offset;

    for (size_t i = 0; i < module->file->nph; i++) {
        const Elf64_Phdr *ph = &module->file->ph[i];

        if (ph->p_type == PT_LOAD && (ph->p_flags & PF_X) && ph->p_offset <= offset &&
            offset - ph->p_offset < ph->p_filesz) {
            *addr = offset - ph->p_offset + ph->p_vaddr;
            return true;
        }
    }
    return false;
}

static const struct symbol *find_symbol(const struct symbol_file *file, uint64_t addr)
{
    size_t low = 0, high = file->count;

    while (low < high) {
        size_t mid = (low + high) / 2;

        if (file->symbols[mid].start <= addr)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == 0 || addr >= file->symbols[low - 1].end)
        return NULL;
    return &file->symbols[low - 1];
}

const char *elf_symbol(uint64_t addr, uint64_t *offset)
{
    const struct symbol *symbol = NULL;

    pthread_mutex_lock(&symbol_lock);
    update_modules();
    for (size_t i = 0; i < module_count; i++) {
        uint64_t linked = addr;

        if (addr >= modules[i].start && addr < modules[i].end &&
            linked_address(&modules[i], &linked)) {
            symbol = find_symbol(modules[i].file, linked);
            if (symbol && offset)
                *offset = linked - symbol->start;
            break;
        }
    }
    pthread_mutex_unlock(&symbol_lock);
    return symbol ? symbol->name : NULL;
}

/* ---- loading --------------------------------------------------------------------------------- */

static uint64_t greater(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* As the kernel: data is the last segment, wherever it begins and however it is protected. */
static void note_ranges(const struct elf *elf)
{
    image.start_code = UINT64_MAX;
    for (int i = 0; i < elf->head.e_phnum; i++) {
        const Elf64_Phdr *ph = &elf->ph[i];
        uint64_t start = ph->p_vaddr + elf->bias;

        if (ph->p_type != PT_LOAD)
            continue;
        image.start_data = greater(image.start_data, start);
        image.end_data = greater(image.end_data, start + ph->p_filesz);
        if (!(ph->p_flags & PF_X))
            continue;
        if (start < image.start_code)
            image.start_code = start;
        image.end_code = greater(image.end_code, start + ph->p_filesz);
    }
    if (image.start_code == UINT64_MAX)
        image.start_code = image.end_code = 0;
}

/* The guest calls the vDSO, so that its pages are the guest's too. */
static void add_vdso(void)
{
    FILE *maps = host_maps_open();
    struct host_map map;

    while (host_maps_read(maps, &map))
        if (!strncmp(map.name, "[vdso]", 6) || !strncmp(map.name, "[vvar", 5))
            vma_add(map.start, map.end - map.start, map.prot, MAP_PRIVATE);
    fclose(maps);
}

static void log_pages(void)
{
    struct vma vma;

    for (uint64_t at = 0; vma_next(at, &vma); at = vma.end)
        log_printf("%012" PRIx64 "-%012" PRIx64 " %c%c%c\n", vma.start, vma.end,
                   vma.prot & PROT_READ ? 'r' : '-', vma.prot & PROT_WRITE ? 'w' : '-',
                   vma.prot & PROT_EXEC ? 'x' : '-');
}

/* The caller's to free. */
static char *fd_path(int fd)
{
    char *path;

    if (asprintf(&path, "/proc/self/fd/%d", fd) < 0)
        die("out of memory");
    return path;
}

/* The name is the kernel's. A file that has lost it stays open. */
static void name_image(int fd)
{
    static char path[PATH_MAX + 1];
    struct stat named, opened;
    char *link = fd_path(fd);
    ssize_t len = readlink(link, path, sizeof path - 1);

    free(link);
    if (len < 0 || fstat(fd, &opened) < 0)
        die("cannot find out what the program is called: %s", strerror(errno));
    path[len] = '\0';
    image.path = image.file = path;
    if (stat(path, &named) < 0 || named.st_ino != opened.st_ino || named.st_dev != opened.st_dev)
        image.file = fd_path(move_fd_high(dup(fd)));
}

/* Tells the kernel where the program's code, stack, arguments, environment and auxiliary vector
 * are, so that /proc and core dumps describe the guest, to others too. A kernel built without
 * checkpoints does not listen: then they describe emu. */
static void show_image(void)
{
    uint64_t brk = (uint64_t)syscall(SYS_brk, 0);
    struct prctl_mm_map map = {
        .start_code = image.start_code,
        .end_code = image.end_code,
        .start_data = image.start_data,
        .end_data = image.end_data,
        .start_brk = brk, /* emu's own heap goes on growing from here */
        .brk = brk,
        .start_stack = image.sp,
        .arg_start = image.arg_start,
        .arg_end = image.arg_end,
        .env_start = image.env_start,
        .env_end = image.env_end,
        .auxv = (void *)image.auxv,
        .auxv_size = (uint32_t)image.auxv_size,
        .exe_fd = UINT32_MAX,
    };

    prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0);
}

void elf_load(const char *file, char **argv, char **envp)
{
    struct elf program, interp;
    const char *slash = strrchr(file, '/'), *path = file;

    if (opt.program_fd >= 0)
        path = fd_path(opt.program_fd);
    if (opt.argv0)
        argv[0] = (char *)opt.argv0;
    program = open_elf(resolve_script(path, file, &argv), NULL);
    name_image(program.fd);
    map_elf(&program);
    bool has_interp = map_interpreter(&program, &interp);
    note_ranges(&program);
    image.entry_code =
        has_interp ? interp.head.e_entry + interp.bias : program.head.e_entry + program.bias;
    image.brk = program.head.e_type == ET_EXEC ? program.high : 0;
    map_stack(stack_prot(&program));
    add_vdso();
    build_stack(&program, has_interp ? interp.bias : 0, file, argv, envp);
    close_elf(&program);
    if (opt.program_fd >= 0)
        close(opt.program_fd);
    show_image();
    prctl(PR_SET_NAME, slash ? slash + 1 : file); /* as execve: /proc/self/comm */
    if (opt.log & LOG_PAGE)
        log_pages();
}
