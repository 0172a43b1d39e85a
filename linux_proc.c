/* linux_proc.c: the guest's view of its own /proc/self.
 *
 * The kernel describes emu there. Files that tell of the program (exe, maps, stat ...) are answered
 * from what the loader and vma.c know; all others are the kernel's. Must not know any registers. */
#include "emu.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- names ---- */

/* What follows prefix in path, or NULL. */
static const char *skip(const char *path, const char *prefix)
{
    size_t len = strlen(prefix);

    return strncmp(path, prefix, len) ? NULL : path + len;
}

/* What follows "N/" in path if N is this process (or, with any, whatever N), or NULL. */
static const char *skip_number(const char *path, bool any)
{
    char *end;
    long n = strtol(path, &end, 10);

    return end != path && *end == '/' && (any || n == getpid()) ? end + 1 : NULL;
}

/* The name below this process's directory in /proc, or NULL. */
static const char *own_proc_name(const char *path)
{
    const char *name, *thread;

    if ((name = skip(path, "/proc/")) == NULL)
        return NULL;
    path = name;
    if ((name = skip(path, "self/")) == NULL && (name = skip(path, "thread-self/")) == NULL)
        name = skip_number(path, false);
    if (name && (thread = skip(name, "task/")) != NULL)
        name = skip_number(thread, true);
    return name;
}

bool proc_is_exe(const char *path)
{
    const char *name = own_proc_name(path);

    return name && !strcmp(name, "exe");
}

/* ---- contents ---- */

/* A file of /proc/self; path: its name as the guest gave it. */
typedef void print_file(FILE *out, const char *path);

#define NAME_COLUMN 73 /* of the names in maps */

/* The name of the guest's mapping at addr if it is one that the kernel names but did not make. */
static const char *special_name(uint64_t addr)
{
    uint64_t heap_start, heap_end;

    mem_heap(&heap_start, &heap_end);
    if (addr >= heap_start && addr < heap_end)
        return "[heap]";
    if (addr >= image.stack_low && addr < image.stack_high)
        return "[stack]";
    return NULL;
}

/* One line for what the guest has of a host mapping. */
static void print_piece(FILE *out, const struct host_map *map, uint64_t start, uint64_t end,
                        int prot)
{
    const char *name = special_name(start);
    uint64_t offset = map->offset + (map->name[0] == '/' ? start - map->start : 0);
    char device[16] = "", inode[24] = "";

    if (!name)
        name = map->name;
    sscanf(map->text, "%*s %15s %23s", device, inode);
    int width =
        fprintf(out, "%08" PRIx64 "-%08" PRIx64 " %c%c%c%c %08" PRIx64 " %s %s ", start, end,
                prot & PROT_READ ? 'r' : '-', prot & PROT_WRITE ? 'w' : '-',
                prot & PROT_EXEC ? 'x' : '-', map->shared ? 's' : 'p', offset, device, inode);
    if (*name)
        fprintf(out, "%*s%s", width < NAME_COLUMN ? NAME_COLUMN - width : 0, "", name);
    fputc('\n', out);
}

/* Prints the parts of a host mapping that are the guest's; false: there are none. */
static bool print_map(FILE *out, const struct host_map *map)
{
    uint64_t at = map->start;
    bool printed = false;
    struct vma vma;

    if (!strcmp(map->name, "[vsyscall]")) {
        print_piece(out, map, map->start, map->end, map->prot);
        return true;
    }
    while (at < map->end && vma_next(at, &vma) && vma.start < map->end) {
        uint64_t start = vma.start > at ? vma.start : at;
        uint64_t end = vma.end < map->end ? vma.end : map->end;

        print_piece(out, map, start, end, vma.prot);
        printed = true;
        at = end;
    }
    return printed;
}

static void print_maps(FILE *out, const char *path)
{
    FILE *maps = host_maps_open();
    struct host_map map;

    (void)path;
    while (host_maps_read(maps, &map))
        print_map(out, &map);
    fclose(maps);
}

/* Header lines as in maps, each with the kernel's figures for the host mapping below it. */
static void print_smaps(FILE *out, const char *path)
{
    FILE *smaps = fopen("/proc/self/smaps", "re");
    char line[sizeof(struct host_map) + 64];
    struct host_map map;
    bool shown = false;

    (void)path;
    while (smaps && fgets(line, sizeof line, smaps)) {
        if (host_map_parse(line, &map))
            shown = print_map(out, &map);
        else if (shown)
            fputs(line, out);
    }
    if (smaps)
        fclose(smaps);
}

/* The heap is the one thing that the kernel was not told (elf.c): its own is emu's. Fields of stat
 * are counted as in proc(5), from 1; the third follows the name's bracket. */
static void print_stat(FILE *out, const char *path)
{
    uint64_t heap_start, heap_end;
    char line[4096];
    FILE *stat = fopen(path, "re");
    size_t len = stat ? fread(line, 1, sizeof line - 1, stat) : 0;
    char *p, *field;

    if (stat)
        fclose(stat);
    line[len] = '\0';
    p = strrchr(line, ')');
    if (!p)
        return;
    mem_heap(&heap_start, &heap_end);
    fwrite(line, 1, (size_t)(p + 1 - line), out);
    p = strtok_r(p + 1, " \n", &field);
    for (int i = 3; p; i++, p = strtok_r(NULL, " \n", &field)) {
        if (i == 47)
            fprintf(out, " %" PRIu64, heap_start);
        else
            fprintf(out, " %s", p);
    }
    fputc('\n', out);
}

static const struct {
    const char *name;
    print_file *print;
} files[] = {
    {"maps", print_maps},
    {"smaps", print_smaps},
    {"stat", print_stat},
};

static print_file *find_printer(const char *name)
{
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (!strcmp(files[i].name, name))
            return files[i].print;
    return NULL;
}

/* ---- opening ---- */

/* A file in memory with the content; its descriptor or -errno. */
static int64_t open_content(const char *path, print_file *print, uint64_t flags)
{
    char *content = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&content, &len);
    int fd = memfd_create(path, flags & O_CLOEXEC ? MFD_CLOEXEC : 0);

    if (!out || fd < 0)
        return -ENOMEM;
    print(out, path);
    fclose(out);
    if (write(fd, content, len) < 0 || lseek(fd, 0, SEEK_SET) < 0) {
        close(fd);
        fd = -ENOMEM;
    }
    free(content);
    return fd;
}

/* Opens the file if it is one of ours. */
static bool open_own(uint64_t path_at, uint64_t flags, int64_t *ret)
{
    char path[PATH_MAX];
    const char *name;
    print_file *print;

    if (!guest_copy_string(path, sizeof path, path_at) || !(name = own_proc_name(path)))
        return false;
    if (!strcmp(name, "exe") && !(flags & O_NOFOLLOW)) {
        *ret = open(image.file, (int)flags);
        if (*ret < 0)
            *ret = -errno;
        return true;
    }
    print = find_printer(name);
    if (!print || (flags & (O_PATH | O_ACCMODE)))
        return false;
    *ret = open_content(path, print, flags);
    return true;
}

bool proc_open(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    (void)cpu;
    return open_own(arg[0], arg[1], ret);
}

bool proc_openat(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    (void)cpu;
    return open_own(arg[1], arg[2], ret);
}

bool proc_openat2(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    uint64_t flags; /* first member of struct open_how */

    (void)cpu;
    return guest_copy(&flags, (const void *)arg[2], sizeof flags) && open_own(arg[1], flags, ret);
}

/* ---- reading the link ---- */

static bool read_exe_link(uint64_t path_at, uint64_t buf, uint64_t size, int64_t *ret)
{
    char path[PATH_MAX];
    size_t len = strlen(image.path);

    if (!guest_copy_string(path, sizeof path, path_at) || !proc_is_exe(path) || (int)size <= 0)
        return false;
    if (len > size)
        len = size;
    *ret = guest_copy((void *)buf, image.path, len) ? (int64_t)len : -EFAULT;
    return true;
}

bool proc_readlink(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    (void)cpu;
    return read_exe_link(arg[0], arg[1], arg[2], ret);
}

bool proc_readlinkat(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    (void)cpu;
    return read_exe_link(arg[1], arg[2], arg[3], ret);
}
