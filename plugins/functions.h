/* functions.h: the functions that blocks belong to. */
#ifndef FUNCTIONS_H
#define FUNCTIONS_H

#include "map.h"

#include <inttypes.h>
#include <qemu-plugin.h>
#include <stdio.h>
#include <string.h>

struct function { /* as a block's first instruction shows it */
    uint64_t pc;
    const char *name; /* NULL: it has none */
    char *text;       /* of both, ready to be printed */
};

/* The record of a block's; it stays where it is, and is named anew: other code may be there now. */
static inline struct function *find_function(const struct qemu_plugin_tb *tb)
{
    static struct map functions = {.record_size = sizeof(struct function)};
    struct function *f = map_get(&functions, qemu_plugin_tb_vaddr(tb));
    free(f->text);
    f->name = qemu_plugin_insn_symbol(qemu_plugin_tb_get_insn(tb, 0));
    if (asprintf(&f->text, "0x%" PRIx64 " %.800s", f->pc, f->name ? f->name : "?") < 0)
        abort();
    return f;
}

static inline const char *function_name(const struct function *f)
{
    return strchr(f->text, ' ') + 1;
}

/* False for one function in several pieces: f, f.cold. */
static inline bool is_other(const struct function *x, const struct function *y)
{
    const char *a = x->name, *b = y->name;
    size_t n = a ? strcspn(a, ".") : 0;
    return !a || !b ? a != b : n != strcspn(b, ".") || strncmp(a, b, n);
}

#endif
