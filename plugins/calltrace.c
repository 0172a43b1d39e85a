/* calltrace.c: the functions a program calls, as a tree per vCPU:
 *
 *     0 | 0x401136 main {
 *     0 |   0x401106 leaf
 *     0 |   => 0x401110 other (a tail call: leaf jumped to it)
 *     0 |   signal: 0x401180 handler
 *     0 | } main
 *
 *   from=NAME   only the function of that name and what it calls
 *   depth=N     only N levels
 *
 * Calls push a frame onto a shadow stack, named when the callee's first block runs. A frame is
 * known by the stack address of its return address: what lies below the stack pointer is gone, so
 * longjmp and exceptions end the frames they skip ("unwound"). A function that starts without a
 * call is a tail call if the stack pointer is where the frame began, and a signal handler if it
 * will return to code that does rt_sigreturn. Functions without a symbol are named "?". */
#define EMU_PLUGIN_API_VERSION 4
#include "functions.h"
#include "guest.h"
#include "opcode.h"
#include "options.h"

#include <pthread.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

struct frame {
    uint64_t sp; /* where its return address is */
    const struct function *function;
    const char *mark; /* how it was entered; NULL: not yet */
    bool open;        /* its line is written, and ends with a brace */
};

struct vcpu {
    uint64_t running;  /* the running function's name; 0: the next block tells */
    uint64_t returned; /* what a return that leads to the next block has popped; 0: none does */
    char label[16];    /* what its lines start with */
    bool inside;       /* of the function asked for */
    struct frame *frames;
    size_t n, room, base; /* base: depth of the function asked for */
};

static struct qemu_plugin_scoreboard *vcpus;
static qemu_plugin_u64 running, returned;
static struct qemu_plugin_register *rsp;
static struct bytes buffer;
static const char *from;
static uint64_t max_depth;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static bool is_shown(const struct vcpu *v, size_t depth)
{
    return (!from || (v->inside && depth >= v->base)) &&
           (!max_depth || depth - v->base < max_depth);
}

/* Without printf, which would take a quarter of the time. */
static void print_frame(const struct vcpu *v, size_t depth, const char *text, const char *end)
{
    char line[1024], *at = stpcpy(line, v->label);
    const struct frame *f = &v->frames[depth];
    size_t level = depth - v->base, indent = 2 * (level < 64 ? level : 64);
    memset(at, ' ', indent);
    at = stpcpy(at + indent, text);
    at = stpcpy(at, f->open ? function_name(f->function) : f->function->text);
    stpcpy(stpcpy(at, end), "\n");
    qemu_plugin_outs(line);
}

/* The innermost frame ends, or its line is due as the program does. */
static void close_frame(struct vcpu *v, const char *how)
{
    size_t depth = v->n - 1;
    const struct frame *f = &v->frames[depth];
    if (f->mark && is_shown(v, depth))
        print_frame(v, depth, f->open ? "} " : f->mark, how);
    v->n--;
    v->inside = v->inside && depth > v->base;
}

static void push_frame(struct vcpu *v, uint64_t sp)
{
    GROW_ARRAY(v->frames, v->n, v->room);
    v->frames[v->n++] = (struct frame){.sp = sp};
}

/* Ends the frames that the stack pointer has left behind, the last of them by a return if that
 * popped its return address; if that is all of them, this is another stack, and they will go on. */
static void unwind(struct vcpu *v, uint64_t sp, uint64_t popped)
{
    size_t keep = v->n;
    while (keep && v->frames[keep - 1].sp < sp)
        keep--;
    bool by_return = popped && keep < v->n && v->frames[keep].sp == sp - popped;
    while ((keep || by_return) && v->n > keep + by_return)
        close_frame(v, " (unwound)");
    if (by_return)
        close_frame(v, "");
}

/* The innermost frame's function has started. */
static void enter_function(struct vcpu *v, const struct function *function, const char *mark)
{
    struct frame *f = &v->frames[v->n - 1];
    f->function = function;
    f->mark = mark;
    if (from && !v->inside && function->name && !strcmp(function->name, from)) {
        v->inside = true;
        v->base = v->n - 1;
    }
    if (v->n < 2 || !is_shown(v, v->n - 1))
        return;
    struct frame *caller = f - 1; /* whose line has waited to know whether it calls anything */
    if (caller->mark && !caller->open && is_shown(v, v->n - 2)) {
        print_frame(v, v->n - 2, caller->mark, " {");
        caller->open = true;
    }
}

/* True for code without a name that has called nothing, as in a procedure linkage table. */
static bool is_stub(const struct frame *f)
{
    return f->mark && !f->function->name && !f->open;
}

/* The function jumped to replaces the innermost one. */
static void replace_function(struct vcpu *v, const struct function *function)
{
    struct frame f = v->frames[v->n - 1];
    bool stub = is_stub(&f); /* takes the name of what it stands for */
    if (!stub) {
        close_frame(v, "");
        push_frame(v, f.sp);
    }
    enter_function(v, function, stub ? f.mark : "=> ");
}

/* A block runs that belongs to another function than the last one, or is called. */
static void vcpu_function_exec(unsigned vcpu, void *userdata)
{
    const struct function *function = userdata;
    struct vcpu *v = qemu_plugin_scoreboard_find(vcpus, vcpu);
    pthread_mutex_lock(&lock);
    uint64_t sp = read_register(&buffer, rsp);
    unwind(v, sp, v->returned);
    const struct frame *top = v->n ? &v->frames[v->n - 1] : NULL;
    bool at_start = top && top->sp == sp;
    if (at_start && !top->mark) {
        enter_function(v, function, "");
    } else if (!top || (!at_start && !v->returned && starts_handler(&buffer, sp))) {
        push_frame(v, sp);
        enter_function(v, function, v->n > 1 ? "signal: " : "");
    } else if ((at_start || is_stub(top)) && is_other(top->function, function)) {
        replace_function(v, function);
    }
    v->returned = 0;
    pthread_mutex_unlock(&lock);
}

static void vcpu_call(unsigned vcpu, void *userdata)
{
    (void)userdata;
    struct vcpu *v = qemu_plugin_scoreboard_find(vcpus, vcpu);
    pthread_mutex_lock(&lock);
    uint64_t sp = read_register(&buffer, rsp);
    unwind(v, sp, 0);
    push_frame(v, sp - 8);
    v->running = 0;
    pthread_mutex_unlock(&lock);
}

/* Of a return: its own word, and what ret imm16 takes besides. */
static uint64_t popped_by(const uint8_t *code, size_t size)
{
    return size > 2 && code[size - 3] == 0xc2 ? 8 + code[size - 2] + 256u * code[size - 1] : 8;
}

static void vcpu_tb_trans(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    const enum qemu_plugin_op store = QEMU_PLUGIN_INLINE_STORE_U64;
    struct qemu_plugin_insn *last = qemu_plugin_tb_get_insn(tb, qemu_plugin_tb_n_insns(tb) - 1);
    uint8_t code[CODE_ROOM] = {0};
    enum insn_class ends = classify_insn(code, qemu_plugin_insn_data(last, code, MAX_CODE));
    pthread_mutex_lock(&lock);
    struct function *function = find_function(tb);
    pthread_mutex_unlock(&lock);
    uint64_t name = function->name ? (uintptr_t)function->name : 1;
    qemu_plugin_register_vcpu_tb_exec_cond_cb(tb, vcpu_function_exec, QEMU_PLUGIN_CB_R_REGS,
                                              QEMU_PLUGIN_COND_NE, running, name, function);
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, store, running, name);
    if (ends == CLASS_CALL)
        qemu_plugin_register_vcpu_insn_exec_cb(last, vcpu_call, QEMU_PLUGIN_CB_R_REGS, NULL);
    if (ends == CLASS_RETURN) { /* the block that it leads to does the rest */
        const uint64_t popped = popped_by(code, qemu_plugin_insn_size(last));
        qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(last, store, running, 0);
        qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(last, store, returned, popped);
    }
}

static void vcpu_init(qemu_plugin_id_t id, unsigned vcpu)
{
    (void)id;
    struct vcpu *v = qemu_plugin_scoreboard_find(vcpus, vcpu);
    pthread_mutex_lock(&lock);
    *v = (struct vcpu){.frames = v->frames, .room = v->room}; /* of one before */
    snprintf(v->label, sizeof v->label, "%u | ", vcpu);
    if (!rsp)
        rsp = find_register("rsp");
    pthread_mutex_unlock(&lock);
}

static void vcpu_exit(qemu_plugin_id_t id, unsigned vcpu)
{
    (void)id;
    struct vcpu *v = qemu_plugin_scoreboard_find(vcpus, vcpu);
    pthread_mutex_lock(&lock);
    if (v->n && !v->frames[v->n - 1].open)
        close_frame(v, "");
    pthread_mutex_unlock(&lock);
}

static void plugin_exit(qemu_plugin_id_t id, void *userdata)
{
    (void)userdata;
    for (int i = 0; i < qemu_plugin_num_vcpus(); i++)
        vcpu_exit(id, (unsigned)i);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    const struct option options[] = {
        {"from", OPTION_STRING, &from, NULL},
        {"depth", OPTION_U64, &max_depth, NULL},
        {0},
    };
    (void)info;
    if (!parse_options(options, argc, argv) || !bytes_init(&buffer, 64))
        return -1;
    vcpus = qemu_plugin_scoreboard_new(sizeof(struct vcpu));
    running = qemu_plugin_scoreboard_u64_in_struct(vcpus, struct vcpu, running);
    returned = qemu_plugin_scoreboard_u64_in_struct(vcpus, struct vcpu, returned);
    qemu_plugin_register_vcpu_init_cb(id, vcpu_init);
    qemu_plugin_register_vcpu_exit_cb(id, vcpu_exit);
    qemu_plugin_register_vcpu_tb_trans_cb(id, vcpu_tb_trans);
    qemu_plugin_register_atexit_cb(id, plugin_exit, NULL);
    return 0;
}
