/* linux_strace.c: text of system calls, for -strace.
 *
 * Knows how arguments look, by the letters of the table in linux_syscalls.c:
 *   d int        u unsigned   l signed 64-bit  x hexadecimal  p pointer   m mode, octal
 *   s string     L string, a path that -L may redirect        f directory descriptor
 *   b buffer whose length is the next argument    B the same, filled by the call
 *   V pointer to buffers that the call fills, their number is the next argument
 *   H pointer to a message header with such buffers
 *   o open flags P PROT_*     M MAP_*          C CLONE_*      S signal    A argument list
 * A leading '=' says that the result is an address. Must not know what calls do. */
#include "emu.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TEXT_MAX   4000 /* one write to the log */
#define STRING_MAX 256  /* bytes shown of a string */
#define BUFFER_MAX 32   /* bytes shown of a buffer */
#define LIST_MAX   16   /* strings shown of a list */

/* A line being put together; what does not fit is cut off. */
struct text {
    char buf[TEXT_MAX];
    size_t len;
};

__attribute__((format(printf, 2, 3))) static void add(struct text *text, const char *fmt, ...)
{
    size_t left = sizeof text->buf - text->len;
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(text->buf + text->len, left, fmt, ap);
    va_end(ap);
    if (n > 0)
        text->len += (size_t)n < left ? (size_t)n : left - 1;
}

/* ---- sets of flags ---- */

struct flag_name {
    uint64_t bit;
    const char *name;
};

/* clang-format off */
#define FLAG(name) {name, #name}
static const struct flag_name open_flags[] = {
    FLAG(O_WRONLY), FLAG(O_RDWR), FLAG(O_CREAT), FLAG(O_EXCL), FLAG(O_NOCTTY), FLAG(O_TRUNC),
    FLAG(O_APPEND), FLAG(O_NONBLOCK), FLAG(O_SYNC), FLAG(O_DSYNC), FLAG(O_DIRECT),
    {0100000, "O_LARGEFILE"}, FLAG(O_TMPFILE), FLAG(O_DIRECTORY), FLAG(O_NOFOLLOW),
    FLAG(O_NOATIME), FLAG(O_CLOEXEC), FLAG(O_PATH), {0, NULL}
};
static const struct flag_name prot_flags[] = {
    FLAG(PROT_READ), FLAG(PROT_WRITE), FLAG(PROT_EXEC), {0x01000000, "PROT_GROWSDOWN"}, {0, NULL}
};
static const struct flag_name map_flags[] = {
    FLAG(MAP_SHARED_VALIDATE), FLAG(MAP_SHARED), FLAG(MAP_PRIVATE), FLAG(MAP_FIXED),
    FLAG(MAP_ANONYMOUS), FLAG(MAP_32BIT), FLAG(MAP_GROWSDOWN), FLAG(MAP_DENYWRITE),
    FLAG(MAP_LOCKED), FLAG(MAP_NORESERVE), FLAG(MAP_POPULATE), FLAG(MAP_NONBLOCK),
    FLAG(MAP_STACK), FLAG(MAP_HUGETLB), FLAG(MAP_FIXED_NOREPLACE), {0, NULL}
};
static const struct flag_name clone_flags[] = {
    FLAG(CLONE_VM), FLAG(CLONE_FS), FLAG(CLONE_FILES), FLAG(CLONE_SIGHAND), FLAG(CLONE_PTRACE),
    FLAG(CLONE_VFORK), FLAG(CLONE_PARENT), FLAG(CLONE_THREAD), FLAG(CLONE_NEWNS),
    FLAG(CLONE_SYSVSEM), FLAG(CLONE_SETTLS), FLAG(CLONE_PARENT_SETTID),
    FLAG(CLONE_CHILD_CLEARTID), FLAG(CLONE_UNTRACED), FLAG(CLONE_CHILD_SETTID),
    FLAG(CLONE_NEWCGROUP), FLAG(CLONE_NEWUTS), FLAG(CLONE_NEWIPC), FLAG(CLONE_NEWUSER),
    FLAG(CLONE_NEWPID), FLAG(CLONE_NEWNET), FLAG(CLONE_IO), {0, NULL}
};

#define NAME(number) [number] = #number
static const char *const signal_names[] = {
    NAME(SIGHUP), NAME(SIGINT), NAME(SIGQUIT), NAME(SIGILL), NAME(SIGTRAP), NAME(SIGABRT),
    NAME(SIGBUS), NAME(SIGFPE), NAME(SIGKILL), NAME(SIGUSR1), NAME(SIGSEGV), NAME(SIGUSR2),
    NAME(SIGPIPE), NAME(SIGALRM), NAME(SIGTERM), NAME(SIGSTKFLT), NAME(SIGCHLD), NAME(SIGCONT),
    NAME(SIGSTOP), NAME(SIGTSTP), NAME(SIGTTIN), NAME(SIGTTOU), NAME(SIGURG), NAME(SIGXCPU),
    NAME(SIGXFSZ), NAME(SIGVTALRM), NAME(SIGPROF), NAME(SIGWINCH), NAME(SIGIO), NAME(SIGPWR),
    NAME(SIGSYS)
};
static const char *const errno_names[] = {
    NAME(EPERM), NAME(ENOENT), NAME(ESRCH), NAME(EINTR), NAME(EIO), NAME(ENXIO), NAME(E2BIG),
    NAME(ENOEXEC), NAME(EBADF), NAME(ECHILD), NAME(EAGAIN), NAME(ENOMEM), NAME(EACCES),
    NAME(EFAULT), NAME(ENOTBLK), NAME(EBUSY), NAME(EEXIST), NAME(EXDEV), NAME(ENODEV),
    NAME(ENOTDIR), NAME(EISDIR), NAME(EINVAL), NAME(ENFILE), NAME(EMFILE), NAME(ENOTTY),
    NAME(ETXTBSY), NAME(EFBIG), NAME(ENOSPC), NAME(ESPIPE), NAME(EROFS), NAME(EMLINK),
    NAME(EPIPE), NAME(EDOM), NAME(ERANGE), NAME(EDEADLK), NAME(ENAMETOOLONG), NAME(ENOLCK),
    NAME(ENOSYS), NAME(ENOTEMPTY), NAME(ELOOP), NAME(ENOMSG), NAME(EIDRM), NAME(ENODATA),
    NAME(ETIME), NAME(EPROTO), NAME(EBADMSG), NAME(EOVERFLOW), NAME(EILSEQ), NAME(EUSERS),
    NAME(ENOTSOCK), NAME(EDESTADDRREQ), NAME(EMSGSIZE), NAME(EPROTOTYPE), NAME(ENOPROTOOPT),
    NAME(EPROTONOSUPPORT), NAME(ESOCKTNOSUPPORT), NAME(EOPNOTSUPP), NAME(EPFNOSUPPORT),
    NAME(EAFNOSUPPORT), NAME(EADDRINUSE), NAME(EADDRNOTAVAIL), NAME(ENETDOWN),
    NAME(ENETUNREACH), NAME(ENETRESET), NAME(ECONNABORTED), NAME(ECONNRESET), NAME(ENOBUFS),
    NAME(EISCONN), NAME(ENOTCONN), NAME(ESHUTDOWN), NAME(ETIMEDOUT), NAME(ECONNREFUSED),
    NAME(EHOSTDOWN), NAME(EHOSTUNREACH), NAME(EALREADY), NAME(EINPROGRESS), NAME(ESTALE),
    NAME(EDQUOT), NAME(ECANCELED), NAME(EOWNERDEAD), NAME(ENOTRECOVERABLE)
};
/* clang-format on */

/* Joined by bars: first if not NULL, the names of the bits in value, the rest in hexadecimal. */
static void add_flags(struct text *text, const char *first, uint64_t value,
                      const struct flag_name *names)
{
    const char *bar = first ? "|" : "";

    if (first)
        add(text, "%s", first);
    for (; names->name; names++) {
        if ((value & names->bit) != names->bit)
            continue;
        add(text, "%s%s", bar, names->name);
        value &= ~names->bit;
        bar = "|";
    }
    if (value || !*bar)
        add(text, "%s0x%" PRIx64, bar, value);
}

static const char *name_of(const char *const *names, size_t count, uint64_t value)
{
    return value < count ? names[value] : NULL;
}

static const char *signal_name(uint64_t sig)
{
    return name_of(signal_names, sizeof signal_names / sizeof *signal_names, sig);
}

/* ---- what pointers point to ---- */

static void add_quoted(struct text *text, const char *bytes, size_t len)
{
    static const char plain[] = "\n\t\r\"\\", escaped[] = "ntr\"\\";

    add(text, "\"");
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)bytes[i];
        const char *found = c ? strchr(plain, c) : NULL;

        if (found)
            add(text, "\\%c", escaped[found - plain]);
        else if (c < ' ' || c > '~')
            add(text, "\\%03o", c);
        else
            add(text, "%c", c);
    }
    add(text, "\"");
}

static void add_string(struct text *text, uint64_t addr)
{
    char string[STRING_MAX + 1];

    if (guest_copy_string(string, sizeof string, addr)) {
        add_quoted(text, string, strlen(string));
    } else if (guest_copy(string, (const void *)addr, STRING_MAX)) {
        add_quoted(text, string, STRING_MAX);
        add(text, "...");
    } else {
        add(text, addr ? "0x%" PRIx64 : "NULL", addr);
    }
}

static void add_buffer(struct text *text, uint64_t addr, uint64_t len)
{
    char bytes[BUFFER_MAX];
    size_t shown = len < BUFFER_MAX ? len : BUFFER_MAX;

    if (!guest_copy(bytes, (const void *)addr, shown)) {
        add(text, "0x%" PRIx64, addr);
        return;
    }
    add_quoted(text, bytes, shown);
    if (shown < len)
        add(text, "...");
}

static void add_list(struct text *text, uint64_t addr)
{
    uint64_t string;

    add(text, "[");
    for (int i = 0; guest_copy(&string, (const void *)(addr + 8 * (uint64_t)i), 8) && string; i++) {
        if (i)
            add(text, ", ");
        if (i == LIST_MAX) {
            add(text, "...");
            break;
        }
        add_string(text, string);
    }
    add(text, "]");
}

/* ---- arguments by letter ---- */

/* A call that is being logged. */
struct call {
    const char *format; /* rest, at the current argument */
    const uint64_t *arg;
    const int64_t *ret;
};

static void add_int(struct text *text, const struct call *call)
{
    add(text, "%d", (int)*call->arg);
}

static void add_unsigned(struct text *text, const struct call *call)
{
    add(text, "%" PRIu64, *call->arg);
}

static void add_long(struct text *text, const struct call *call)
{
    add(text, "%" PRId64, (int64_t)*call->arg);
}

static void add_hex(struct text *text, const struct call *call)
{
    add(text, "%#" PRIx64, *call->arg);
}

static void add_pointer(struct text *text, const struct call *call)
{
    add(text, *call->arg ? "0x%" PRIx64 : "NULL", *call->arg);
}

static void add_mode(struct text *text, const struct call *call)
{
    add(text, "0%o", (unsigned)*call->arg);
}

static void add_path(struct text *text, const struct call *call)
{
    add_string(text, *call->arg);
}

static void add_dirfd(struct text *text, const struct call *call)
{
    if ((int)*call->arg == AT_FDCWD)
        add(text, "AT_FDCWD");
    else
        add_int(text, call);
}

static void add_input(struct text *text, const struct call *call)
{
    add_buffer(text, call->arg[0], call->arg[1]);
}

static void add_output(struct text *text, const struct call *call)
{
    if (call->ret && *call->ret >= 0)
        add_buffer(text, *call->arg, (uint64_t)*call->ret);
    else
        add_pointer(text, call);
}

static void add_open_flags(struct text *text, const struct call *call)
{
    add_flags(text, *call->arg & O_ACCMODE ? NULL : "O_RDONLY", (unsigned)*call->arg, open_flags);
}

static void add_prot(struct text *text, const struct call *call)
{
    add_flags(text, *call->arg ? NULL : "PROT_NONE", *call->arg, prot_flags);
}

static void add_map_flags(struct text *text, const struct call *call)
{
    add_flags(text, NULL, *call->arg, map_flags);
}

static void add_clone_flags(struct text *text, const struct call *call)
{
    add_flags(text, signal_name(*call->arg & 0xff), *call->arg & ~0xffull, clone_flags);
}

static void add_signal(struct text *text, const struct call *call)
{
    const char *name = signal_name(*call->arg);

    if (name)
        add(text, "%s", name);
    else
        add_int(text, call);
}

static void add_argv(struct text *text, const struct call *call)
{
    add_list(text, *call->arg);
}

static void (*const printers['z' + 1])(struct text *, const struct call *) = {
    ['d'] = add_int,     ['u'] = add_unsigned,   ['l'] = add_long,        ['x'] = add_hex,
    ['p'] = add_pointer, ['V'] = add_pointer,    ['H'] = add_pointer,     ['m'] = add_mode,
    ['s'] = add_path,    ['L'] = add_path,       ['f'] = add_dirfd,       ['b'] = add_input,
    ['B'] = add_output,  ['o'] = add_open_flags, ['P'] = add_prot,        ['M'] = add_map_flags,
    ['S'] = add_signal,  ['A'] = add_argv,       ['C'] = add_clone_flags,
};

/* open's mode counts only if a file may be made. */
static bool is_unused_mode(const struct call *call, const char *start)
{
    return *call->format == 'm' && call->format > start && call->format[-1] == 'o' &&
           !(call->arg[-1] & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY)));
}

static void add_result(struct text *text, const int64_t *ret, bool is_address)
{
    const char *name;

    if (!ret) {
        add(text, " = ?\n");
    } else if (*ret < 0 && *ret > -4096) {
        name = name_of(errno_names, sizeof errno_names / sizeof *errno_names, (uint64_t) - *ret);
        if (name)
            add(text, " = -1 %s (%s)\n", name, strerror((int)-*ret));
        else
            add(text, " = %" PRId64 "\n", *ret);
    } else {
        add(text, is_address ? " = 0x%" PRIx64 "\n" : " = %" PRId64 "\n", *ret);
    }
}

void strace_log(const char *name, const char *format, const uint64_t *arg, const int64_t *ret)
{
    bool is_address = *format == '=';
    struct call call = {format + is_address, arg, ret};
    const char *start = call.format;
    struct text text = {.len = 0};

    add(&text, "%d %s(", (int)syscall(SYS_gettid), name);
    for (; *call.format && !is_unused_mode(&call, start); call.format++, call.arg++) {
        if (call.format > start)
            add(&text, ", ");
        printers[(unsigned char)*call.format](&text, &call);
    }
    if (text.len > TEXT_MAX - 200)
        text.len = TEXT_MAX - 200; /* whatever the arguments are, the result is shown */
    add(&text, ")");
    add_result(&text, ret, is_address);
    log_text(text.buf, text.len);
}
