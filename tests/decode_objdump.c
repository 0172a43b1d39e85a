/* decode_objdump.c: holds the decoder against objdump over whole files.
 *
 *   decode_objdump [-l] [-v] [-j JOBS] FILE...
 *   decode_objdump [-l] [-v] [-j JOBS] -0 <LIST
 *
 * Every instruction that `objdump -d` lists is decoded; lengths are compared and, unless -l is
 * given, texts after both were brought to one spelling. Files that are not x86-64 ELF are left out,
 * and those met before under another name; LIST is separated by NUL, as find -print0 does. Prints
 * the number of files, instructions and differences by reason; -v also prints each difference.
 *
 * Not all that is in executable sections is code: Haskell and Pascal programs have tables there,
 * libcrypto constants, and what follows a jump through a table may be one. objdump lists what it
 * can read; the processor would refuse much of it (#UD), and so do we. Those differences are
 * counted by reason, as are objdump's own errors (objdump_text.h). Exit status 1 if a length
 * differs, or more than one in 1000 texts, or if the decoder refuses an instruction for no known
 * reason. */
#include "../opcodes_x86_64.h"
#include "objdump_text.h"

#include <elf.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum verdict {
    SAME,
    LENGTH,        /* differ */
    TEXT,          /* differ */
    REFUSED,       /* by us alone */
    REFUSED_LOCK,  /* ... because of a lock prefix where it is #UD */
    REFUSED_FRONT, /* ... because of a REX, 66, F2 or F3 in front of VEX or EVEX */
    REFUSED_REG,   /* ... because there is no such segment, control or debug register */
    BOTH_REFUSE,   /* data */
    OBJDUMP_BAD,   /* refused by objdump alone: forms that the manual does not list */
    OBJDUMP_ERROR, /* see objdump_text.h */
    FWAIT_JOINED,  /* objdump joins fwait with the x87 instruction that follows */
    PREFIX_ALONE,  /* in front of what objdump cannot read, or of another instruction */
    VERDICTS
};

static const char *const verdict_names[VERDICTS] = {
    "same",
    "length differs",
    "text differs",
    "refused here, for no known reason",
    "refused here: lock prefix",
    "refused here: prefix in front of VEX",
    "refused here: no such register",
    "refused by both",
    "refused by objdump",
    "error of objdump",
    "fwait joined by objdump",
    "prefix alone in objdump",
};

/* Shared by the jobs. */
static struct {
    unsigned long next, files, count[VERDICTS];
} * shared;

static char **paths;
static size_t path_count, path_room;
static bool lengths_only, verbose;

/* ---- files ---- */

static bool is_x86_64(const char *path)
{
    Elf64_Ehdr header;
    int fd = open(path, O_RDONLY);
    bool good = fd >= 0 && read(fd, &header, sizeof header) == (ssize_t)sizeof header &&
                memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 &&
                header.e_ident[EI_CLASS] == ELFCLASS64 && header.e_machine == EM_X86_64;
    if (fd >= 0)
        close(fd);
    return good;
}

/* True if another path in the list is the same file. */
static bool is_known(const struct stat *st)
{
    static struct stat *known;
    static size_t count, room;
    for (size_t i = 0; i < count; i++)
        if (known[i].st_ino == st->st_ino && known[i].st_dev == st->st_dev)
            return true;
    if (count == room)
        known = realloc(known, (room = 2 * room + 64) * sizeof *known);
    known[count++] = *st;
    return false;
}

static void add_path(const char *path)
{
    struct stat st;
    if (stat(path, &st) || !S_ISREG(st.st_mode) || !is_x86_64(path) || is_known(&st))
        return;
    if (path_count == path_room)
        paths = realloc(paths, (path_room = 2 * path_room + 64) * sizeof *paths);
    paths[path_count++] = strdup(path);
}

static void read_list(void)
{
    char *path = NULL;
    size_t room = 0;
    while (getdelim(&path, &room, '\0', stdin) > 0)
        add_path(path);
    free(path);
}

/* ---- comparison ---- */

static bool names_no_register(const struct line *line, const struct insn *in)
{
    bool segment = in->map == 0 && (in->opcode == 0x8C || in->opcode == 0x8E);
    bool control = in->map == 1 && in->opcode >= 0x20 && in->opcode <= 0x23;
    return strstr(line->text, "%?") || segment || control;
}

static enum verdict why_refused(const struct line *line, const struct insn *in)
{
    if (in->prefixes & PREFIX_LOCK)
        return REFUSED_LOCK;
    if (in->enc != ENC_LEGACY && (in->rex || in->prefixes & (PREFIX_66 | PREFIX_F2 | PREFIX_F3)))
        return REFUSED_FRONT;
    return names_no_register(line, in) ? REFUSED_REG : REFUSED;
}

static enum verdict compare(const struct line *line, char *text, size_t size, int *len)
{
    struct insn in;
    int result = decode(&in, line->bytes, (size_t)line->len, line->addr);
    bool legal = result == DECODE_OK && in.row;
    *len = in.len;
    if (legal)
        disas(text, size, &in, line->bytes, DISAS_ATT);
    if (only_prefixes(line))
        return PREFIX_ALONE;
    if (is_bad(line))
        return legal ? OBJDUMP_BAD : BOTH_REFUSE;
    if (line->bytes[0] == 0x9B && in.len == 1 && line->len > 1)
        return FWAIT_JOINED;
    if (result == DECODE_OK && !legal)
        return why_refused(line, &in);
    if (!legal || in.len != line->len)
        return LENGTH;
    if (lengths_only || same_text(line, &in, text))
        return SAME;
    return is_objdump_error(line) ? OBJDUMP_ERROR : TEXT;
}

static void report(enum verdict verdict, const struct line *line, const char *ours, int len)
{
    char bytes[3 * 16] = "";
    for (int i = 0; i < line->len; i++)
        snprintf(bytes + 3 * i, 4, " %02x", line->bytes[i]);
    printf("%s %" PRIx64 ":%s | objdump %d \"%s\" | ours %d \"%s\"\n", verdict_names[verdict],
           line->addr, bytes, line->len, line->text, len, ours);
}

static void compare_file(const char *path)
{
    char command[4200];
    struct line line;
    snprintf(command, sizeof command,
             "objdump -dw -M suffix,intel64 --insn-width=15 '%s' 2>/dev/null", path);
    FILE *pipe = popen(command, "r");
    if (!pipe) {
        perror("objdump");
        exit(2);
    }
    unsigned long count[VERDICTS] = {0};
    while (read_line(pipe, &line)) {
        char text[160] = "";
        int len;
        enum verdict verdict = compare(&line, text, sizeof text, &len);
        count[verdict]++;
        if (verbose && verdict != SAME)
            report(verdict, &line, text, len);
    }
    pclose(pipe);
    __atomic_fetch_add(&shared->files, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < VERDICTS; i++)
        __atomic_fetch_add(&shared->count[i], count[i], __ATOMIC_RELAXED);
}

/* A job takes the next file until there is none. */
static void run_job(void)
{
    for (;;) {
        size_t i = __atomic_fetch_add(&shared->next, 1, __ATOMIC_RELAXED);
        if (i >= path_count)
            return;
        compare_file(paths[i]);
    }
}

static bool run_jobs(int jobs)
{
    bool good = true;
    int status;
    fflush(stdout);
    for (int i = 0; i < jobs; i++)
        if (fork() == 0) {
            run_job();
            exit(0);
        }
    while (wait(&status) > 0)
        good = good && status == 0;
    return good;
}

static unsigned long print_counts(void)
{
    unsigned long insns = 0;
    for (int i = 0; i < VERDICTS; i++)
        insns += shared->count[i];
    printf("%lu files, %lu instructions\n", shared->files, insns);
    for (int i = 0; i < VERDICTS; i++)
        printf("%12lu %s\n", shared->count[i], verdict_names[i]);
    return insns;
}

int main(int argc, char **argv)
{
    int option, jobs = 1;
    bool list = false;
    while ((option = getopt(argc, argv, "0j:lv")) != -1) {
        switch (option) {
        case '0':
            list = true;
            break;
        case 'j':
            jobs = atoi(optarg);
            break;
        case 'l':
            lengths_only = true;
            break;
        case 'v':
            verbose = true;
            break;
        default:
            return 2;
        }
    }
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (; optind < argc; optind++)
        add_path(argv[optind]);
    if (list)
        read_list();
    bool good = run_jobs(jobs);
    unsigned long insns = print_counts();
    return !good || insns == 0 || shared->count[LENGTH] || shared->count[REFUSED] ||
           shared->count[TEXT] * 1000 > insns;
}
