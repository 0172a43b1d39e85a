/* options.h: arguments and output of the bundled plugins. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <qemu-plugin.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum option_kind { OPTION_BOOL, OPTION_U64, OPTION_STRING, OPTION_CALL };

struct option {
    const char *name;
    enum option_kind kind;
    void *to;                   /* bool, uint64_t or const char * */
    bool (*call)(const char *); /* OPTION_CALL: false if the value is bad */
};

static inline bool option_set(const struct option *o, const char *value)
{
    char *end;
    switch (o->kind) {
    case OPTION_BOOL:
        return qemu_plugin_bool_parse(o->name, value, (bool *)o->to);
    case OPTION_U64:
        *(uint64_t *)o->to = strtoull(value, &end, 0);
        return *value && !*end;
    case OPTION_STRING:
        *(const char **)o->to = value;
        return true;
    default:
        return o->call(value);
    }
}

/* Files name=value arguments by a table that ends with a NULL name; complains and returns false
 * about a bad one. */
static inline bool parse_options(const struct option *table, int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        size_t len = strcspn(argv[i], "=");
        const struct option *o = table;
        while (o->name && (strlen(o->name) != len || strncmp(o->name, argv[i], len)))
            o++;
        if (!o->name || !argv[i][len] || !option_set(o, argv[i] + len + 1)) {
            fprintf(stderr, "option parsing failed: %s\n", argv[i]);
            return false;
        }
    }
    return true;
}

/* qemu_plugin_outs with a format. */
__attribute__((format(printf, 1, 2))) static inline void outf(const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    qemu_plugin_outs(text);
}

#endif
