/* linux_proc.c: the guest's view of /proc.
 *
 * The kernel describes emu's process there, as far as elf.c has not told it of the guest. What is
 * left (maps, smaps, the heap in stat, exe) is answered from what the loader and vma.c know. Of
 * other processes that run under emu only exe is. Must not know any registers. */
#include "emu.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- contents ---- */

/* Prints what the file of this process at path, which is the kernel's, says of the guest. */
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

/* ---- names ---- */

/* A file of a process's or thread's directory in /proc. */
struct proc_file {
    pid_t pid;
    char path[64];    /* /proc/PID/NAME or /proc/PID/task/TID/NAME */
    const char *name; /* in path */
};

/* Where the directory part of path leads, by the kernel's word; len 0: dirfd itself. */
static bool resolve_directory(int dirfd, const char *path, size_t len, char *to, size_t size)
{
    char dir[PATH_MAX], link[32];

    snprintf(dir, sizeof dir, "%.*s", len ? (int)len : 1, len ? path : ".");
    int fd = openat(dirfd, dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t got = fd < 0 ? -1 : readlink(link, to, size - 1);
    if (fd >= 0)
        close(fd);
    to[got > 0 ? got : 0] = '\0';
    return got > 0;
}

/* True for a file of a kind that is answered here, however it is reached. */
static bool find_proc_file(int dirfd, const char *path, struct proc_file *file)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    char dir[48];
    int pid, tid, end = 0;

    if ((strcmp(name, "exe") && !find_printer(name)) ||
        !resolve_directory(dirfd, path, (size_t)(name - path), dir, sizeof dir))
        return false;
    if (sscanf(dir, "/proc/%d%n/task/%d%n", &pid, &end, &tid, &end) < 1 || dir[end])
        return false;
    snprintf(file->path, sizeof file->path, "%s/%s", dir, name);
    file->pid = pid;
    file->name = strrchr(file->path, '/') + 1;
    return true;
}

/* ---- programs ---- */

static bool read_link(const char *path, char *to)
{
    ssize_t len = readlink(path, to, PATH_MAX - 1);

    to[len > 0 ? len : 0] = '\0';
    return len > 0;
}

/* Where the kernel was told that a process has its program headers; 0: it does not say. */
static uint64_t find_headers(pid_t pid)
{
    char path[32];
    Elf64_auxv_t aux;
    uint64_t headers = 0;

    snprintf(path, sizeof path, "/proc/%d/auxv", (int)pid);
    FILE *auxv = fopen(path, "re");
    while (auxv && !headers && fread(&aux, sizeof aux, 1, auxv) == 1)
        if (aux.a_type == AT_PHDR)
            headers = aux.a_un.a_val;
    if (auxv)
        fclose(auxv);
    return headers;
}

/* The name of the file that a process has mapped at addr. */
static bool find_mapped_file(pid_t pid, uint64_t addr, char *name)
{
    char path[32];
    struct host_map map;
    bool found = false;

    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(path, "re");
    while (maps && !found && host_maps_read(maps, &map))
        found = addr >= map.start && addr < map.end;
    if (maps)
        fclose(maps);
    if (found)
        snprintf(name, PATH_MAX, "%s", map.name);
    return found;
}

/* The program of a process if that is this one or another emu: name has room for PATH_MAX bytes. */
static bool find_program(pid_t pid, char *name)
{
    char path[32], exe[PATH_MAX], own[PATH_MAX];

    if (pid == getpid()) {
        strcpy(name, image.path);
        return true;
    }
    snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
    return read_link(path, exe) && read_link("/proc/self/exe", own) && !strcmp(exe, own) &&
           find_mapped_file(pid, find_headers(pid), name);
}

bool proc_find_exe(int dirfd, const char *path, char *program)
{
    struct proc_file file;

    if (!find_proc_file(dirfd, path, &file) || strcmp(file.name, "exe") ||
        !find_program(file.pid, program))
        return false;
    if (file.pid == getpid())
        strcpy(program, image.file);
    return true;
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
static bool open_own(int dirfd, uint64_t path_at, uint64_t flags, int64_t *ret)
{
    char path[PATH_MAX], program[PATH_MAX];
    struct proc_file file;
    print_file *print;

    if (!guest_copy_string(path, sizeof path, path_at))
        return false;
    if (!(flags & O_NOFOLLOW) && proc_find_exe(dirfd, path, program)) {
        *ret = open(program, (int)flags);
        if (*ret < 0)
            *ret = -errno;
        return true;
    }
    if (!find_proc_file(dirfd, path, &file) || file.pid != getpid())
        return false;
    print = find_printer(file.name);
    if (!print || (flags & (O_PATH | O_ACCMODE)))
        return false;
    *ret = open_content(file.path, print, flags);
    return true;
}

bool proc_open(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    (void)cpu;
    return open_own(AT_FDCWD, arg[0], arg[1], ret);
}

bool proc_openat(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    (void)cpu;
    return open_own((int)arg[0], arg[1], arg[2], ret);
}

bool proc_openat2(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    uint64_t flags; /* first member of struct open_how */

    (void)cpu;
    return guest_copy(&flags, (const void *)arg[2], sizeof flags) &&
           open_own((int)arg[0], arg[1], flags, ret);
}

/* ---- reading the link ---- */

static bool read_exe_link(int dirfd, uint64_t path_at, uint64_t buf, uint64_t size, int64_t *ret)
{
    char path[PATH_MAX], program[PATH_MAX];
    struct proc_file file;

    if ((int)size <= 0 || !guest_copy_string(path, sizeof path, path_at) ||
        !find_proc_file(dirfd, path, &file) || strcmp(file.name, "exe") ||
        !find_program(file.pid, program))
        return false;
    size_t len = strlen(program);
    if (len > size)
        len = size;
    *ret = guest_copy((void *)buf, program, len) ? (int64_t)len : -EFAULT;
    return true;
}

bool proc_readlink(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    (void)cpu;
    return read_exe_link(AT_FDCWD, arg[0], arg[1], arg[2], ret);
}

bool proc_readlinkat(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    (void)cpu;
    return read_exe_link((int)arg[0], arg[1], arg[2], arg[3], ret);
}
