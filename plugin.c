/* plugin.c: loads plugins, keeps their callbacks, and calls them.
 *
 * May know: how QEMU finds, checks and calls plugins of each API version. Must not know: the guest
 * ISA, what plugins ask for in a block (plugin_gen.c), nor what the queries of plugin_api.c answer.
 */
#include "emu.h"
#define EMU_PLUGIN_HOST
#include "plugin.h"

#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum qemu_plugin_event {
    QEMU_PLUGIN_EV_VCPU_INIT,
    QEMU_PLUGIN_EV_VCPU_EXIT,
    QEMU_PLUGIN_EV_VCPU_TB_TRANS,
    QEMU_PLUGIN_EV_VCPU_IDLE,
    QEMU_PLUGIN_EV_VCPU_RESUME,
    QEMU_PLUGIN_EV_VCPU_SYSCALL,
    QEMU_PLUGIN_EV_VCPU_SYSCALL_RET,
    QEMU_PLUGIN_EV_FLUSH,
    QEMU_PLUGIN_EV_ATEXIT,
    QEMU_PLUGIN_EV_VCPU_SYSCALL_FILTER,
    QEMU_PLUGIN_EV_VCPU_INTERRUPT,
    QEMU_PLUGIN_EV_VCPU_EXCEPTION,
    QEMU_PLUGIN_EV_VCPU_HOSTCALL,
    QEMU_PLUGIN_EV_MAX,
};

typedef void (*plugin_func)(void); /* a callback; its real type depends on the API version */

/* The callback of one plugin for one event. Never freed once it has been in a list: another
 * thread may stand on it. */
struct qemu_plugin_cb {
    struct qemu_plugin_ctx *ctx;
    plugin_func func;
    void *udata;
    struct qemu_plugin_cb *next; /* in cb_lists[ev] */
};

enum plugin_request { REQUEST_NONE, REQUEST_RESET, REQUEST_UNINSTALL };

/* A loaded plugin; lives as long as emu, for translations refer to it. */
struct qemu_plugin_ctx {
    const char *path; /* as given */
    void *handle;
    const void *base; /* where the library is mapped */
    qemu_plugin_id_t id;
    int version;
    bool installing;
    bool gone;                   /* uninstalled: nothing of it may be called */
    enum plugin_request request; /* asked for; its callbacks run until that is carried out */
    bool request_waits;          /* no thread carries it out yet */
    plugin_func request_cb;
    void *request_udata;
    struct qemu_plugin_cb *callbacks[QEMU_PLUGIN_EV_MAX];
    struct qemu_plugin_ctx *next;    /* in plugin.ctxs */
    struct qemu_plugin_ctx *id_next; /* in its bucket of plugin.id_ht */
};

/* One plugin the command line asks for. Plugins of version 0 get their arguments as QEMU 5.2
 * handed them out, bare. */
struct qemu_plugin_desc {
    char *path;
    char **argv;     /* "name=value" */
    char **old_argv; /* for API version 0 */
    int argc;
    struct qemu_plugin_desc *next;
};

typedef struct QemuPluginList {
    struct qemu_plugin_desc *first;
} QemuPluginList;

#define ID_BUCKETS 32

struct qemu_plugin_state {
    struct qemu_plugin_ctx *ctxs; /* in order of loading */
    struct qemu_plugin_ctx *id_ht[ID_BUCKETS];
    struct qemu_plugin_cb *cb_lists[QEMU_PLUGIN_EV_MAX];
    unsigned event_mask;  /* events whose list is not empty */
    unsigned requests;    /* plugins that wait to be reset or uninstalled */
    bool exited;          /* the atexit callbacks ran */
    struct cpu *exit_cpu; /* the only one that may run callbacks while they do */
    bool exiting;
    pthread_mutex_t lock;
    pthread_mutex_t exit_lock;
};

static struct qemu_plugin_state plugin = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .exit_lock = PTHREAD_MUTEX_INITIALIZER,
};
static QemuPluginList plugins;

static __thread unsigned lock_depth, exit_depth;
static __thread struct qemu_plugin_ctx *current; /* whose callback runs on this thread */
static __thread uint64_t mem_vaddr;
static __thread bool in_mem_cb;   /* mem_vaddr is an access's */
static __thread bool translating; /* in a tb_trans callback, so with tb_lock */

/* ---- locking ------------------------------------------------------------------------- */

void plugin_lock(void)
{
    if (lock_depth++ == 0)
        pthread_mutex_lock(&plugin.lock);
}

void plugin_unlock(void)
{
    if (--lock_depth == 0)
        pthread_mutex_unlock(&plugin.lock);
}

static const char *current_path(void)
{
    return current ? current->path : "(outside its callbacks)";
}

_Noreturn void plugin_abuse(const char *function, const char *what)
{
    warn("plugin %s: %s: %s", current_path(), function, what);
    abort();
}

bool plugin_explain_fault(const void *pc)
{
    Dl_info where;
    if (!dladdr(pc, &where) || !where.dli_sname || strncmp(where.dli_sname, "qemu_plugin_", 12))
        return false;
    warn("plugin %s: %s: called with a NULL or foreign handle, or for a vCPU that does not exist",
         current_path(), where.dli_sname);
    return true;
}

/* ---- options ------------------------------------------------------------------------- */

static char *format(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static char *format(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int len = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *s = malloc((size_t)len + 1);
    if (!s)
        die("out of memory");
    va_start(ap, fmt);
    vsnprintf(s, (size_t)len + 1, fmt, ap);
    va_end(ap);
    return s;
}

static void append_string(char ***list, int n, char *s)
{
    *list = realloc(*list, ((size_t)n + 2) * sizeof **list);
    if (!*list)
        die("out of memory");
    (*list)[n] = s;
    (*list)[n + 1] = NULL;
}

static bool is_bool_word(const char *s)
{
    bool ignored;
    return qemu_plugin_bool_parse("arg", s, &ignored);
}

/* The descriptor for path, new if it was not named before: the same path adds to the first. */
static struct qemu_plugin_desc *find_desc(QemuPluginList *head, const char *path)
{
    struct qemu_plugin_desc **slot = &head->first;
    while (*slot && strcmp((*slot)->path, path))
        slot = &(*slot)->next;
    if (!*slot) {
        struct qemu_plugin_desc *desc = calloc(1, sizeof *desc);
        if (!desc)
            die("out of memory");
        desc->path = format("%s", path);
        append_string(&desc->argv, 0, NULL);
        append_string(&desc->old_argv, 0, NULL);
        *slot = desc;
    }
    return *slot;
}

/* Files one NAME=VALUE of a -plugin option; is_short: it was written as a bare word. */
static void plugin_add(QemuPluginList *head, struct qemu_plugin_desc **desc, const char *name,
                       const char *value, bool is_short)
{
    if (!strcmp(value, "help") || !strcmp(value, "?")) {
        printf("Plugin options\n  file=<path/to/plugin.so>\n  plugin specific arguments\n");
        exit(0);
    }
    if (!strcmp(name, "file")) {
        if (!*value)
            die("-plugin: requires a non-empty argument");
        *desc = find_desc(head, value);
        return;
    }
    if (!*desc)
        die("-plugin: missing earlier '-plugin file=' option");
    char *arg, *old;
    if (!strcmp(name, "arg") && !is_bool_word(value)) {
        arg = strchr(value, '=') ? format("%s", value) : format("%s=on", value);
        old = format("%s", value);
    } else {
        arg = format("%s=%s", name, value);
        old = is_short ? format("%s", name) : format("%s", arg);
    }
    append_string(&(*desc)->argv, (*desc)->argc, arg);
    append_string(&(*desc)->old_argv, (*desc)->argc++, old);
}

/* Copies s up to an unescaped comma into out; ",," stands for one comma. Returns its end. */
static const char *copy_value(char *out, const char *s)
{
    for (; *s; s++) {
        if (*s == ',' && *++s != ',')
            break;
        *out++ = *s;
    }
    *out = 0;
    return s;
}

/* Splits one element off s into name and value, both with room for all of s. Returns the rest. */
static const char *split_option(const char *s, bool first, char *name, char *value, bool *is_short)
{
    size_t len = strcspn(s, "=,");
    *is_short = false;
    if (s[len] == '=') {
        memcpy(name, s, len);
        name[len] = 0;
        return copy_value(value, s + len + 1);
    }
    if (first) {
        strcpy(name, "file");
        return copy_value(value, s);
    }
    bool no = !strncmp(s, "no", 2) && len > 2;
    size_t skip = no ? 2 : 0;
    memcpy(name, s + skip, len - skip);
    name[len - skip] = 0;
    strcpy(value, no ? "off" : "on");
    *is_short = true;
    return s[len] ? s + len + 1 : s + len;
}

static void qemu_plugin_opt_parse(const char *optarg, QemuPluginList *head)
{
    struct qemu_plugin_desc *desc = NULL;
    size_t room = strlen(optarg) + sizeof "file";
    char *name = malloc(room), *value = malloc(room);
    if (!name || !value)
        die("out of memory");
    bool is_short;
    for (const char *s = optarg; *s;) {
        s = split_option(s, s == optarg, name, value, &is_short);
        if (is_short && strcmp(name, "help"))
            warn("warning: short-form boolean option '%s%s' deprecated\n"
                 "Please use %s=%s instead",
                 !strcmp(value, "off") ? "no" : "", name, name, value);
        plugin_add(head, &desc, name, value, is_short && !strcmp(value, "on"));
    }
    free(name);
    free(value);
}

void handle_arg_plugin(const char *arg)
{
    qemu_plugin_opt_parse(arg, &plugins);
}

/* ---- loading ------------------------------------------------------------------------- */

static void *open_library(const char *path, char **error)
{
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle)
        return handle;
    free(*error);
    *error = format("%s", dlerror());
    /* Plugins often use GLib without linking it: QEMU's process has it. Both libcs put the name
     * of the missing symbol behind a colon. */
    if (!strstr(*error, ": g_") || !glib_load())
        return NULL;
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

/* Where a name without a slash is looked up when the dynamic linker does not know it. */
static char *list_plugin_dirs(void)
{
    char exe[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[len > 0 ? len : 0] = 0;
    char *slash = strrchr(exe, '/');
    if (slash)
        *slash = 0;
    const char *env = getenv("EMU_PLUGIN_PATH");
    return format("%s:%s/plugins:%s:%s", exe, exe, env ? env : "", EMU_PLUGINDIR);
}

/* An existing file for name in one of the plugin directories, as it is or as lib<name>.so. */
static char *search_plugin(const char *name)
{
    static const char *const forms[] = {"%s/%s", "%s/lib%s.so"};
    char *dirs = list_plugin_dirs(), *rest = dirs, *dir;
    char *found = NULL;
    while (!found && (dir = strsep(&rest, ":")))
        for (size_t i = 0; !found && *dir && i < 2; i++) {
            found = i ? format(forms[1], dir, name) : format(forms[0], dir, name);
            if (access(found, R_OK)) {
                free(found);
                found = NULL;
            }
        }
    free(dirs);
    return found;
}

static void *open_plugin(const char *name)
{
    char *error = NULL;
    void *handle = open_library(name, &error);
    if (!handle && !strchr(name, '/')) {
        char *path = search_plugin(name);
        if (path)
            handle = open_library(path, &error);
        free(path);
    }
    if (!handle)
        die("Could not load plugin %s: %s", name, error);
    free(error);
    return handle;
}

/* dlsym for a symbol that must exist; what says how QEMU introduces the complaint. */
static void *require_symbol(void *handle, const char *path, const char *what, const char *symbol)
{
    dlerror();
    void *sym = dlsym(handle, symbol);
    const char *error = dlerror();
    if (error)
        die("Could not load plugin %s: %s'%s': %s", path, what, symbol, error);
    return sym;
}

static int check_version(const char *path, const int *version)
{
    if (*version < PLUGIN_API_MIN)
        die("Could not load plugin %s: plugin requires API version %d, but this QEMU supports "
            "only a minimum version of %d",
            path, *version, PLUGIN_API_MIN);
    if (*version > PLUGIN_API_CUR)
        die("Could not load plugin %s: plugin requires API version %d, but this QEMU supports "
            "only up to version %d",
            path, *version, PLUGIN_API_CUR);
    return *version;
}

static struct qemu_plugin_ctx *find_ctx(qemu_plugin_id_t id)
{
    struct qemu_plugin_ctx *ctx = plugin.id_ht[id % ID_BUCKETS];
    while (ctx && ctx->id != id)
        ctx = ctx->id_next;
    return ctx;
}

/* Ids are no small numbers, so that a plugin cannot take them for indexes. */
static qemu_plugin_id_t new_id(void)
{
    qemu_plugin_id_t id;
    do {
        if (getrandom(&id, sizeof id, 0) != sizeof id)
            die("getrandom failed");
    } while (find_ctx(id));
    return id;
}

static void insert_ctx(struct qemu_plugin_ctx *ctx)
{
    struct qemu_plugin_ctx **last = &plugin.ctxs;
    while (*last)
        last = &(*last)->next;
    *last = ctx;
    struct qemu_plugin_ctx **bucket = &plugin.id_ht[ctx->id % ID_BUCKETS];
    ctx->id_next = *bucket;
    *bucket = ctx;
}

static void plugin_load(const struct qemu_plugin_desc *desc, const qemu_info_t *info)
{
    struct qemu_plugin_ctx *ctx = calloc(1, sizeof *ctx);
    if (!ctx)
        die("out of memory");
    ctx->path = desc->path;
    ctx->handle = open_plugin(desc->path);
    void *sym = require_symbol(ctx->handle, desc->path, "", "qemu_plugin_install");
    int (*install)(qemu_plugin_id_t, const qemu_info_t *, int, char **);
    *(void **)&install = sym;
    if (!install)
        die("Could not load plugin %s: qemu_plugin_install is NULL", desc->path);
    const int *version = require_symbol(
        ctx->handle, desc->path, "plugin does not declare API version ", "qemu_plugin_version");
    ctx->version = check_version(desc->path, version);
    Dl_info where;
    if (dladdr(sym, &where))
        ctx->base = where.dli_fbase;
    ctx->id = new_id();
    insert_ctx(ctx);

    ctx->installing = true;
    current = ctx;
    int rc = install(ctx->id, info, desc->argc, ctx->version ? desc->argv : desc->old_argv);
    current = NULL;
    ctx->installing = false;
    if (rc) {
        ctx->gone = true;
        die("Could not load plugin %s: qemu_plugin_install returned error code %d", desc->path, rc);
    }
}

static void plugin_init(void)
{
    /* A plugin may call exit(). */
    if (atexit(qemu_plugin_atexit_cb))
        die("atexit failed");
}

void qemu_plugin_load_list(void)
{
    qemu_info_t info = {
        .target_name = "x86_64",
        .version = {PLUGIN_API_MIN, PLUGIN_API_CUR},
    };
    if (plugins.first) {
        plugin_init();
        plugin_ops_init();
    }
    for (const struct qemu_plugin_desc *desc = plugins.first; desc; desc = desc->next)
        plugin_load(desc, &info);
}

/* ---- whose callback runs ------------------------------------------------------------- */

struct scope {
    struct qemu_plugin_ctx *ctx;
    bool in_plugin;
    int flags;
};

/* While the atexit callbacks run, and after, other threads leave the plugins alone. */
static bool is_callable(const struct qemu_plugin_ctx *ctx)
{
    return !ctx->gone && (!plugin.exiting || plugin.exit_cpu == this_cpu);
}

/* The outermost callback of a thread does not start while another one has stopped it. */
static void begin_callback(struct cpu *cpu)
{
    for (;;) {
        cpu->in_plugin = true;
        __atomic_thread_fence(__ATOMIC_SEQ_CST); /* or the one that stops it could not see that */
        if (!tb_is_stopped())
            return;
        cpu->in_plugin = false;
        tb_wait_stopped();
    }
}

/* Around a callback, and around a walk of the list of an event, with ctx NULL: a reset by another
 * thread comes before or after all of it. */
static struct scope scope_enter(struct qemu_plugin_ctx *ctx, int flags)
{
    struct scope outer = {.ctx = current};
    current = ctx;
    if (this_cpu) {
        outer.in_plugin = this_cpu->in_plugin;
        outer.flags = this_cpu->plugin_flags;
        if (!outer.in_plugin) {
            begin_callback(this_cpu);
            guest_enter_plugin(this_cpu);
        }
        this_cpu->plugin_flags = flags;
    }
    return outer;
}

static void scope_leave(const struct scope *outer)
{
    current = outer->ctx;
    if (this_cpu) {
        this_cpu->in_plugin = outer->in_plugin;
        this_cpu->plugin_flags = outer->flags;
        if (!outer->in_plugin)
            guest_leave_plugin(this_cpu);
    }
}

const char *plugin_at(const void *code)
{
    Dl_info where;
    if (dladdr(code, &where))
        for (const struct qemu_plugin_ctx *ctx = plugin.ctxs; ctx; ctx = ctx->next)
            if (ctx->base == where.dli_fbase)
                return where.dli_fname;
    return NULL;
}

int plugin_api_version(const void *caller)
{
    if (current)
        return current->version;
    Dl_info where;
    if (dladdr(caller, &where))
        for (const struct qemu_plugin_ctx *ctx = plugin.ctxs; ctx; ctx = ctx->next)
            if (ctx->base == where.dli_fbase)
                return ctx->version;
    return PLUGIN_API_CUR;
}

struct qemu_plugin_ctx *plugin_current(void)
{
    return current;
}

void *plugin_current_handle(void)
{
    return current ? current->handle : NULL;
}

bool plugin_mem_vaddr(uint64_t *vaddr)
{
    *vaddr = mem_vaddr;
    return in_mem_cb;
}

_Noreturn void plugin_resume_at(uint64_t pc)
{
    if (!this_cpu || this_cpu->plugin_flags < QEMU_PLUGIN_CB_RW_REGS_PC)
        plugin_abuse("qemu_plugin_set_pc", "this callback may not set the pc");
    this_cpu->in_plugin = false;
    current = NULL;
    guest_leave_plugin(this_cpu);
    signal_cancel_fault(this_cpu);
    cpu_resume_at(this_cpu, pc);
}

/* ---- callback lists ------------------------------------------------------------------ */

static struct qemu_plugin_ctx *plugin_id_to_ctx_locked(const char *function, qemu_plugin_id_t id)
{
    struct qemu_plugin_ctx *ctx = find_ctx(id);
    if (!ctx || ctx->gone)
        plugin_abuse(function, "invalid plugin id: there is no such plugin, or no longer");
    return ctx;
}

static void plugin_unregister_cb(struct qemu_plugin_ctx *ctx, enum qemu_plugin_event ev)
{
    struct qemu_plugin_cb *cb = ctx->callbacks[ev];
    if (!cb)
        return;
    struct qemu_plugin_cb **slot = &plugin.cb_lists[ev];
    while (*slot != cb)
        slot = &(*slot)->next;
    __atomic_store_n(slot, cb->next, __ATOMIC_RELEASE);
    ctx->callbacks[ev] = NULL;
    if (!plugin.cb_lists[ev])
        plugin.event_mask &= ~(1u << ev);
}

/* Inserts at the head: the plugin loaded last is called first. */
static void insert_cb(struct qemu_plugin_ctx *ctx, enum qemu_plugin_event ev, plugin_func func,
                      void *udata)
{
    struct qemu_plugin_cb *cb = malloc(sizeof *cb);
    if (!cb)
        die("out of memory");
    *cb = (struct qemu_plugin_cb){ctx, func, udata, plugin.cb_lists[ev]};
    ctx->callbacks[ev] = cb;
    __atomic_store_n(&plugin.cb_lists[ev], cb, __ATOMIC_RELEASE);
    plugin.event_mask |= 1u << ev;
}

static void do_plugin_register_cb(const char *function, qemu_plugin_id_t id,
                                  enum qemu_plugin_event ev, plugin_func func, void *udata)
{
    plugin_lock();
    struct qemu_plugin_ctx *ctx = plugin_id_to_ctx_locked(function, id);
    struct qemu_plugin_cb *cb = ctx->callbacks[ev];
    if (plugin.exiting) {
        warn("plugin %s: %s: too late, the program has ended", ctx->path, function);
    } else if (ctx->request == REQUEST_UNINSTALL) {
        /* on its way out */
    } else if (!func) {
        plugin_unregister_cb(ctx, ev);
    } else if (cb) {
        cb->func = func;
        cb->udata = udata;
    } else {
        insert_cb(ctx, ev, func, udata);
    }
    plugin_unlock();
}

/* Events whose callbacks have userdata since version 7 only: before, udata is a garbage register.
 */
static void plugin_register_cb(const char *function, qemu_plugin_id_t id, enum qemu_plugin_event ev,
                               plugin_func func, void *udata)
{
    const struct qemu_plugin_ctx *ctx = find_ctx(id);
    do_plugin_register_cb(function, id, ev, func, ctx && ctx->version >= 7 ? udata : NULL);
}

static void plugin_register_cb_udata(const char *function, qemu_plugin_id_t id,
                                     enum qemu_plugin_event ev, plugin_func func, void *udata)
{
    do_plugin_register_cb(function, id, ev, func, udata);
}

static void unregister_all(struct qemu_plugin_ctx *ctx)
{
    for (int ev = 0; ev < QEMU_PLUGIN_EV_MAX; ev++)
        plugin_unregister_cb(ctx, ev);
}

/* ---- reset and uninstall ------------------------------------------------------------- */

/* The callback of a reset or uninstall request. */
static void call_request_cb(struct qemu_plugin_ctx *ctx, plugin_func func, void *udata)
{
    if (!func)
        return;
    struct scope outer = scope_enter(ctx, QEMU_PLUGIN_CB_NO_REGS);
    if (ctx->version >= 7)
        ((void (*)(void *))func)(udata);
    else
        ((void (*)(qemu_plugin_id_t))func)(ctx->id);
    scope_leave(&outer);
}

static bool is_library_shared(const struct qemu_plugin_ctx *ctx)
{
    for (const struct qemu_plugin_ctx *other = plugin.ctxs; other; other = other->next)
        if (other != ctx && other->handle == ctx->handle && !other->gone)
            return true;
    return false;
}

/* What dlclose runs, with which QEMU ends an uninstall. The library itself stays mapped: a callback
 * that blocks may be in it. */
static void run_destructors(struct qemu_plugin_ctx *ctx)
{
    struct link_map *map;
    ElfW(Addr) *funcs = NULL;
    size_t n = 0;
    if (is_library_shared(ctx) || dlinfo(ctx->handle, RTLD_DI_LINKMAP, &map))
        return;
    for (const ElfW(Dyn) *d = map->l_ld; d->d_tag != DT_NULL; d++) {
        if (d->d_tag == DT_FINI_ARRAY)
            funcs = (ElfW(Addr) *)(map->l_addr + d->d_un.d_ptr);
        if (d->d_tag == DT_FINI_ARRAYSZ)
            n = d->d_un.d_val / sizeof(*funcs);
    }
    struct scope outer = scope_enter(ctx, QEMU_PLUGIN_CB_NO_REGS);
    while (funcs && n > 0)
        ((void (*)(void))funcs[--n])();
    scope_leave(&outer);
}

/* All other threads are stopped until the callback is done: it may free what the plugin's other
 * callbacks use. */
static void run_request(struct qemu_plugin_ctx *ctx)
{
    if (this_cpu) {
        tb_stop();
        tb_flush();
    }
    plugin_lock();
    unregister_all(ctx);
    enum plugin_request request = ctx->request;
    ctx->request = REQUEST_NONE;
    plugin_unlock();
    call_request_cb(ctx, ctx->request_cb, ctx->request_udata);
    ctx->gone = request == REQUEST_UNINSTALL;
    if (ctx->gone)
        run_destructors(ctx);
    if (this_cpu)
        tb_go_on();
}

/* Takes the next waiting request off the queue, as only one thread may carry it out. */
static struct qemu_plugin_ctx *take_request(void)
{
    plugin_lock();
    struct qemu_plugin_ctx *ctx = plugin.ctxs;
    while (ctx && !ctx->request_waits)
        ctx = ctx->next;
    if (ctx) {
        ctx->request_waits = false;
        plugin.requests--;
    }
    plugin_unlock();
    return ctx;
}

bool plugin_is_pending(void)
{
    return __atomic_load_n(&plugin.requests, __ATOMIC_RELAXED) || plugin_ops_must_flush();
}

void plugin_run_pending(void)
{
    if (plugin_ops_must_flush() && !current && !translating)
        tb_flush();
    while (plugin_is_pending() && !current && !translating) {
        struct qemu_plugin_ctx *ctx = take_request();
        if (ctx)
            run_request(ctx);
    }
}

static void plugin_request(const char *function, qemu_plugin_id_t id, enum plugin_request request,
                           plugin_func func, void *udata)
{
    plugin_lock();
    struct qemu_plugin_ctx *ctx = plugin_id_to_ctx_locked(function, id);
    if (ctx->installing && request == REQUEST_UNINSTALL)
        plugin_abuse(function,
                     "Calling qemu_plugin_uninstall from the install function is a bug: return a "
                     "value other than 0 from it");
    bool is_new = ctx->request == REQUEST_NONE;
    if (is_new) {
        ctx->request = request;
        ctx->request_cb = func;
        ctx->request_udata = udata;
    }
    bool at_once = is_new && !cpu_count();
    if (is_new && !at_once) {
        ctx->request_waits = true;
        plugin.requests++;
    }
    plugin_unlock();
    if (at_once)
        run_request(ctx);
    else if (is_new)
        tb_cut();
}

void qemu_plugin_uninstall(qemu_plugin_id_t id, qemu_plugin_udata_cb_t cb, void *userdata)
{
    plugin_request(__func__, id, REQUEST_UNINSTALL, (plugin_func)cb, userdata);
}

void qemu_plugin_reset(qemu_plugin_id_t id, qemu_plugin_udata_cb_t cb, void *userdata)
{
    plugin_request(__func__, id, REQUEST_RESET, (plugin_func)cb, userdata);
}

/* ---- registering for events ---------------------------------------------------------- */

void qemu_plugin_register_vcpu_init_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_udata_cb_t cb,
                                       void *userdata)
{
    plugin_register_cb(__func__, id, QEMU_PLUGIN_EV_VCPU_INIT, (plugin_func)cb, userdata);
}

void qemu_plugin_register_vcpu_exit_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_udata_cb_t cb,
                                       void *userdata)
{
    plugin_register_cb(__func__, id, QEMU_PLUGIN_EV_VCPU_EXIT, (plugin_func)cb, userdata);
}

void qemu_plugin_register_vcpu_idle_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_udata_cb_t cb,
                                       void *userdata)
{
    plugin_register_cb(__func__, id, QEMU_PLUGIN_EV_VCPU_IDLE, (plugin_func)cb, userdata);
}

void qemu_plugin_register_vcpu_resume_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_udata_cb_t cb,
                                         void *userdata)
{
    plugin_register_cb(__func__, id, QEMU_PLUGIN_EV_VCPU_RESUME, (plugin_func)cb, userdata);
}

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_tb_trans_cb_t cb,
                                           void *userdata)
{
    plugin_register_cb(__func__, id, QEMU_PLUGIN_EV_VCPU_TB_TRANS, (plugin_func)cb, userdata);
}

void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_syscall_cb_t cb,
                                          void *userdata)
{
    plugin_register_cb(__func__, id, QEMU_PLUGIN_EV_VCPU_SYSCALL, (plugin_func)cb, userdata);
}

void qemu_plugin_register_vcpu_syscall_ret_cb(qemu_plugin_id_t id,
                                              qemu_plugin_vcpu_syscall_ret_cb_t cb, void *userdata)
{
    plugin_register_cb(__func__, id, QEMU_PLUGIN_EV_VCPU_SYSCALL_RET, (plugin_func)cb, userdata);
}

void qemu_plugin_register_vcpu_syscall_filter_cb(qemu_plugin_id_t id,
                                                 qemu_plugin_vcpu_syscall_filter_cb_t cb,
                                                 void *userdata)
{
    plugin_register_cb(__func__, id, QEMU_PLUGIN_EV_VCPU_SYSCALL_FILTER, (plugin_func)cb, userdata);
}

void qemu_plugin_register_vcpu_discon_cb(qemu_plugin_id_t id, enum qemu_plugin_discon_type type,
                                         qemu_plugin_vcpu_discon_cb_t cb, void *userdata)
{
    if (type & QEMU_PLUGIN_DISCON_INTERRUPT)
        plugin_register_cb(__func__, id, QEMU_PLUGIN_EV_VCPU_INTERRUPT, (plugin_func)cb, userdata);
    if (type & QEMU_PLUGIN_DISCON_EXCEPTION)
        plugin_register_cb(__func__, id, QEMU_PLUGIN_EV_VCPU_EXCEPTION, (plugin_func)cb, userdata);
    if (type & QEMU_PLUGIN_DISCON_HOSTCALL)
        plugin_register_cb(__func__, id, QEMU_PLUGIN_EV_VCPU_HOSTCALL, (plugin_func)cb, userdata);
}

void qemu_plugin_register_flush_cb(qemu_plugin_id_t id, qemu_plugin_udata_cb_t cb, void *userdata)
{
    plugin_register_cb(__func__, id, QEMU_PLUGIN_EV_FLUSH, (plugin_func)cb, userdata);
}

void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, qemu_plugin_udata_cb_t cb, void *userdata)
{
    plugin_register_cb_udata(__func__, id, QEMU_PLUGIN_EV_ATEXIT, (plugin_func)cb, userdata);
}

/* ---- events happen ------------------------------------------------------------------- */

static struct qemu_plugin_cb *first_cb(enum qemu_plugin_event ev)
{
    return __atomic_load_n(&plugin.cb_lists[ev], __ATOMIC_ACQUIRE);
}

bool plugin_is_loaded(void)
{
    return plugin.ctxs != NULL;
}

bool plugin_wants_tb_trans(void)
{
    return plugin.event_mask & 1u << QEMU_PLUGIN_EV_VCPU_TB_TRANS;
}

bool plugin_wants_discon(void)
{
    return plugin.event_mask &
           (1u << QEMU_PLUGIN_EV_VCPU_INTERRUPT | 1u << QEMU_PLUGIN_EV_VCPU_EXCEPTION);
}

bool plugin_wants_syscall(void)
{
    return plugin.event_mask &
           (1u << QEMU_PLUGIN_EV_VCPU_SYSCALL | 1u << QEMU_PLUGIN_EV_VCPU_SYSCALL_RET |
            1u << QEMU_PLUGIN_EV_VCPU_SYSCALL_FILTER);
}

static void call_vcpu_cb(struct qemu_plugin_ctx *ctx, plugin_func func, void *udata, int index)
{
    struct scope outer = scope_enter(ctx, QEMU_PLUGIN_CB_RW_REGS);
    if (ctx->version >= 7)
        ((void (*)(unsigned, void *))func)((unsigned)index, udata);
    else
        ((void (*)(qemu_plugin_id_t, unsigned))func)(ctx->id, (unsigned)index);
    scope_leave(&outer);
}

static void plugin_vcpu_cb__simple(struct cpu *cpu, enum qemu_plugin_event ev)
{
    struct scope none = scope_enter(NULL, QEMU_PLUGIN_CB_NO_REGS);
    for (struct qemu_plugin_cb *cb = first_cb(ev); cb; cb = cb->next)
        if (is_callable(cb->ctx))
            call_vcpu_cb(cb->ctx, cb->func, cb->udata, cpu->index);
    scope_leave(&none);
    plugin_run_pending();
}

void qemu_plugin_vcpu_init_hook(struct cpu *cpu)
{
    cpu->initialised = true;
    plugin_vcpu_cb__simple(cpu, QEMU_PLUGIN_EV_VCPU_INIT);
}

void qemu_plugin_vcpu_exit_hook(struct cpu *cpu)
{
    plugin_vcpu_cb__simple(cpu, QEMU_PLUGIN_EV_VCPU_EXIT);
    cpu->initialised = false;
}

void qemu_plugin_vcpu_for_each(qemu_plugin_id_t id, qemu_plugin_vcpu_udata_cb_t cb, void *userdata)
{
    plugin_lock();
    struct qemu_plugin_ctx *ctx = plugin_id_to_ctx_locked(__func__, id);
    plugin_unlock();
    for (int i = 0; i < cpu_count(); i++) {
        const struct cpu *cpu = cpu_by_index((unsigned)i);
        if (cpu && cpu->initialised && cpu_is_live(cpu))
            call_vcpu_cb(ctx, (plugin_func)cb, userdata, i);
    }
}

void qemu_plugin_vcpu_syscall(struct cpu *cpu, int64_t num, const uint64_t a[8])
{
    typedef void (*old_func)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t,
                             uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
    unsigned index = (unsigned)cpu->index;
    struct scope none = scope_enter(NULL, QEMU_PLUGIN_CB_NO_REGS);
    for (struct qemu_plugin_cb *cb = first_cb(QEMU_PLUGIN_EV_VCPU_SYSCALL); cb; cb = cb->next) {
        if (!is_callable(cb->ctx))
            continue;
        struct scope outer = scope_enter(cb->ctx, QEMU_PLUGIN_CB_RW_REGS_PC);
        if (cb->ctx->version >= 7)
            ((qemu_plugin_vcpu_syscall_cb_t)cb->func)(index, num, a[0], a[1], a[2], a[3], a[4],
                                                      a[5], a[6], a[7], cb->udata);
        else
            ((old_func)cb->func)(cb->ctx->id, index, num, a[0], a[1], a[2], a[3], a[4], a[5], a[6],
                                 a[7]);
        scope_leave(&outer);
    }
    scope_leave(&none);
    plugin_run_pending();
}

void qemu_plugin_vcpu_syscall_ret(struct cpu *cpu, int64_t num, int64_t ret)
{
    typedef void (*old_func)(qemu_plugin_id_t, unsigned, int64_t, int64_t);
    unsigned index = (unsigned)cpu->index;
    struct scope none = scope_enter(NULL, QEMU_PLUGIN_CB_NO_REGS);
    for (struct qemu_plugin_cb *cb = first_cb(QEMU_PLUGIN_EV_VCPU_SYSCALL_RET); cb; cb = cb->next) {
        if (!is_callable(cb->ctx))
            continue;
        struct scope outer = scope_enter(cb->ctx, QEMU_PLUGIN_CB_RW_REGS_PC);
        if (cb->ctx->version >= 7)
            ((qemu_plugin_vcpu_syscall_ret_cb_t)cb->func)(index, num, ret, cb->udata);
        else
            ((old_func)cb->func)(cb->ctx->id, index, num, ret);
        scope_leave(&outer);
    }
    scope_leave(&none);
    plugin_run_pending();
}

bool qemu_plugin_vcpu_syscall_filter(struct cpu *cpu, int64_t num, const uint64_t a[8],
                                     int64_t *ret)
{
    typedef bool (*old_func)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t,
                             uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t *);
    unsigned index = (unsigned)cpu->index;
    bool filtered = false;
    struct scope none = scope_enter(NULL, QEMU_PLUGIN_CB_NO_REGS);
    struct qemu_plugin_cb *cb = first_cb(QEMU_PLUGIN_EV_VCPU_SYSCALL_FILTER);
    for (; cb && !filtered; cb = cb->next) {
        if (!is_callable(cb->ctx))
            continue;
        struct scope outer = scope_enter(cb->ctx, QEMU_PLUGIN_CB_RW_REGS_PC);
        if (cb->ctx->version >= 7)
            filtered = ((qemu_plugin_vcpu_syscall_filter_cb_t)cb->func)(
                index, num, a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], ret, cb->udata);
        else
            filtered = ((old_func)cb->func)(cb->ctx->id, index, num, a[0], a[1], a[2], a[3], a[4],
                                            a[5], a[6], a[7], (uint64_t *)ret);
        scope_leave(&outer);
    }
    scope_leave(&none);
    plugin_run_pending();
    return filtered;
}

static void plugin_vcpu_cb__discon(struct cpu *cpu, enum qemu_plugin_event ev,
                                   enum qemu_plugin_discon_type type, uint64_t from, uint64_t to)
{
    typedef void (*old_func)(qemu_plugin_id_t, unsigned, enum qemu_plugin_discon_type, uint64_t,
                             uint64_t);
    unsigned index = (unsigned)cpu->index;
    struct scope none = scope_enter(NULL, QEMU_PLUGIN_CB_NO_REGS);
    for (struct qemu_plugin_cb *cb = first_cb(ev); cb; cb = cb->next) {
        if (!is_callable(cb->ctx))
            continue;
        struct scope outer = scope_enter(cb->ctx, QEMU_PLUGIN_CB_RW_REGS_PC);
        if (cb->ctx->version >= 7)
            ((qemu_plugin_vcpu_discon_cb_t)cb->func)(index, type, from, to, cb->udata);
        else
            ((old_func)cb->func)(cb->ctx->id, index, type, from, to);
        scope_leave(&outer);
    }
    scope_leave(&none);
    plugin_run_pending();
}

/* QEMU's user mode gives one pc, where others give that of a handler, and leaves page faults out;
 * of interrupts it knows none. */
void qemu_plugin_vcpu_exception(struct cpu *cpu, uint64_t pc)
{
    plugin_vcpu_cb__discon(cpu, QEMU_PLUGIN_EV_VCPU_EXCEPTION, QEMU_PLUGIN_DISCON_EXCEPTION, pc,
                           pc);
}

void qemu_plugin_vcpu_interrupt(struct cpu *cpu, uint64_t from, uint64_t to)
{
    plugin_vcpu_cb__discon(cpu, QEMU_PLUGIN_EV_VCPU_INTERRUPT, QEMU_PLUGIN_DISCON_INTERRUPT, from,
                           to);
}

void qemu_plugin_flush_cb(void)
{
    struct qemu_plugin_cb *cb = first_cb(QEMU_PLUGIN_EV_FLUSH);
    for (; cb; cb = cb->next)
        if (is_callable(cb->ctx))
            call_request_cb(cb->ctx, cb->func, cb->udata);
}

static void call_atexit_cb(struct qemu_plugin_cb *cb)
{
    struct scope outer = scope_enter(cb->ctx, QEMU_PLUGIN_CB_NO_REGS);
    if (cb->ctx->version >= 7)
        ((void (*)(void *))cb->func)(cb->udata);
    else
        ((void (*)(qemu_plugin_id_t, void *))cb->func)(cb->ctx->id, cb->udata);
    scope_leave(&outer);
}

/* A second thread that ends the process waits here until the plugins are done; a callback that
 * calls exit() comes here again and goes on. It may hold locks of its plugin that other threads'
 * callbacks wait for: then, as under QEMU, nobody is stopped. A child of vfork() has only borrowed
 * the plugins. */
void qemu_plugin_atexit_cb(void)
{
    if (!this_cpu || this_cpu->vfork_child)
        return;
    if (!exit_depth && !current)
        tb_stop();
    if (exit_depth++ == 0)
        pthread_mutex_lock(&plugin.exit_lock);
    if (!plugin.exited) {
        plugin.exited = true;
        plugin.exit_cpu = this_cpu;
        plugin_ops_observe();
        plugin.exiting = true;
        for (struct qemu_plugin_cb *cb = first_cb(QEMU_PLUGIN_EV_ATEXIT); cb; cb = cb->next)
            if (is_callable(cb->ctx))
                call_atexit_cb(cb);
    }
    if (--exit_depth == 0)
        pthread_mutex_unlock(&plugin.exit_lock);
}

bool plugin_is_exiting(void)
{
    return plugin.exiting;
}

void plugin_exec_failed(void)
{
    if (this_cpu->vfork_child)
        return;
    plugin.exited = false;
    plugin.exiting = false;
    tb_go_on();
}

void plugin_before_fork(void)
{
    pthread_mutex_lock(&plugin.exit_lock);
    plugin_lock();
    plugin_ops_lock();
}

void plugin_after_fork(bool child)
{
    plugin_ops_unlock();
    if (child) {
        pthread_mutex_init(&plugin.lock, NULL);
        pthread_mutex_init(&plugin.exit_lock, NULL);
        lock_depth = 0;
        plugin_ops_fork_child();
        return;
    }
    plugin_unlock();
    pthread_mutex_unlock(&plugin.exit_lock);
}

bool plugin_is_translating(void)
{
    return translating;
}

static struct scope outside_unit;

void plugin_gen_unit_start(void)
{
    outside_unit = scope_enter(NULL, QEMU_PLUGIN_CB_NO_REGS);
}

void plugin_gen_unit_end(void)
{
    scope_leave(&outside_unit);
}

void qemu_plugin_tb_trans_cb(struct qemu_plugin_tb *tb)
{
    typedef void (*old_func)(qemu_plugin_id_t, struct qemu_plugin_tb *);
    translating = true;
    for (struct qemu_plugin_cb *cb = first_cb(QEMU_PLUGIN_EV_VCPU_TB_TRANS); cb; cb = cb->next) {
        if (!is_callable(cb->ctx))
            continue;
        struct scope outer = scope_enter(cb->ctx, QEMU_PLUGIN_CB_RW_REGS);
        if (cb->ctx->version >= 7)
            ((qemu_plugin_vcpu_tb_trans_cb_t)cb->func)(tb, cb->udata);
        else
            ((old_func)cb->func)(cb->ctx->id, tb);
        scope_leave(&outer);
    }
    translating = false;
}

/* ---- running instrumentation --------------------------------------------------------- */

static bool condition_holds(const struct cpu *cpu, const struct plugin_op *op)
{
    uint64_t value = *(const uint64_t *)((const uint8_t *)cpu + op->offset);
    switch ((enum qemu_plugin_cond)op->cond) {
    case QEMU_PLUGIN_COND_EQ:
        return value == op->imm;
    case QEMU_PLUGIN_COND_NE:
        return value != op->imm;
    case QEMU_PLUGIN_COND_LT:
        return value < op->imm;
    case QEMU_PLUGIN_COND_LE:
        return value <= op->imm;
    case QEMU_PLUGIN_COND_GT:
        return value > op->imm;
    case QEMU_PLUGIN_COND_GE:
        return value >= op->imm;
    default:
        return op->cond == QEMU_PLUGIN_COND_ALWAYS;
    }
}

static void enter_op(struct cpu *cpu, const struct plugin_op *op)
{
    current = op->ctx;
    cpu->in_plugin = true;
    cpu->plugin_flags = op->cb_flags;
}

/* What a request asks for has to wait until this thread is out of the cache. */
static void leave_op(struct cpu *cpu)
{
    cpu->in_plugin = false;
    current = NULL;
}

void plugin_run_op(struct cpu *cpu, const struct plugin_op *op)
{
    if (op->kind == OP_CALL_COND && !condition_holds(cpu, op))
        return;
    if (!is_callable(op->ctx))
        return;
    cpu->pc = op->pc;
    guest_enter_plugin(cpu);
    enter_op(cpu, op);
    (*(qemu_plugin_vcpu_udata_cb_t *)&op->func)((unsigned)cpu->index, op->udata);
    leave_op(cpu);
    guest_leave_plugin(cpu);
}

static void call_mem_op(struct cpu *cpu, const struct plugin_op *op, uint32_t info, uint64_t vaddr)
{
    if (!is_callable(op->ctx))
        return;
    enter_op(cpu, op);
    mem_vaddr = vaddr;
    in_mem_cb = true;
    (*(qemu_plugin_vcpu_mem_cb_t *)&op->func)((unsigned)cpu->index, info, vaddr, op->udata);
    in_mem_cb = false;
    leave_op(cpu);
}

void plugin_run_mem_op(struct cpu *cpu, const struct plugin_op *op, uint32_t info, uint64_t vaddr)
{
    cpu->pc = op->pc;
    guest_enter_plugin(cpu);
    call_mem_op(cpu, op, info, vaddr);
    guest_leave_plugin(cpu);
}

static void report_access(struct cpu *cpu, const struct plugin_op *ops, size_t n,
                          const struct access *access)
{
    uint32_t info = plugin_meminfo(access->size, access->flags);
    for (const struct plugin_op *op = ops; op < ops + n; op++) {
        if (!(op->rw & access->flags))
            continue;
        if (op->kind == OP_CALL)
            call_mem_op(cpu, op, info, access->vaddr);
        else
            plugin_ops_run(cpu, op);
    }
}

/* The accesses of the instruction at hand, and how many were reported before it. */
static __thread struct access accesses[MAX_ACCESSES];
static __thread size_t n_accesses, n_reported;

static bool can_read(const struct access *access)
{
    uint8_t bytes[16];
    return guest_copy(bytes, (const void *)(uintptr_t)access->vaddr, access->size);
}

void plugin_run_mem_before(struct cpu *cpu, const struct plugin_op *ops, size_t n)
{
    cpu->pc = ops->pc;
    guest_enter_plugin(cpu);
    n_accesses = guest_list_accesses(cpu, accesses);
    for (n_reported = 0; n_reported < n_accesses; n_reported++) {
        const struct access *access = &accesses[n_reported];
        if (access->flags & MEM_WRITE || !can_read(access))
            break;
        report_access(cpu, ops, n, access);
    }
    guest_leave_plugin(cpu);
}

void plugin_run_mem_after(struct cpu *cpu, const struct plugin_op *ops, size_t n)
{
    cpu->pc = ops->pc;
    guest_enter_plugin(cpu);
    for (; n_reported < n_accesses; n_reported++)
        report_access(cpu, ops, n, &accesses[n_reported]);
    guest_leave_plugin(cpu);
}
