/* modules.h: the files whose code a program maps, also those it has unmapped again.
 *
 * Found by reading /proc/self/maps: a guest address is an address of this process. Not locked. */
#ifndef MODULES_H
#define MODULES_H

#include "bytes.h"
#include "map.h"

struct module {
    char *path;
    uint64_t dev, ino, base, end, entry; /* base and end: as first mapped */
    int id;                              /* -1: no code of it was seen in the guest */
};

struct instance { /* mappings of a file that belong together */
    size_t module;
    uint64_t base, end, last_offset;
    bool exec;
};

struct span { /* a mapping */
    uint64_t start, end;
    int instance; /* -1: not of a file */
};

struct modules {
    struct module *module;
    size_t n, room;
    int listed; /* modules with an id; ids are dense */
    /* As of the last scan: */
    struct instance *instance;
    size_t n_instances, instance_room;
    struct span *span;
    size_t n_spans, span_room;
    struct bytes header;
};

static inline size_t modules_find_file(struct modules *ms, const char *path, uint64_t dev,
                                       uint64_t ino)
{
    for (size_t i = 0; i < ms->n; i++)
        if (ms->module[i].ino == ino && ms->module[i].dev == dev &&
            !strcmp(ms->module[i].path, path))
            return i;
    GROW_ARRAY(ms->module, ms->n, ms->room);
    ms->module[ms->n] = (struct module){.path = strdup(path), .dev = dev, .ino = ino, .id = -1};
    return ms->n++;
}

/* The instance a mapping belongs to: an image's file offsets rise with its addresses. */
static inline int modules_find_instance(struct modules *ms, size_t module, uint64_t start,
                                        uint64_t offset)
{
    size_t i = ms->n_instances;
    while (i > 0 && ms->instance[i - 1].module != module)
        i--;
    if (i > 0 && offset && offset >= ms->instance[i - 1].last_offset)
        return (int)i - 1;
    GROW_ARRAY(ms->instance, ms->n_instances, ms->instance_room);
    ms->instance[ms->n_instances] = (struct instance){.module = module, .base = start};
    return (int)ms->n_instances++;
}

/* The number at *p, which then is behind it and the character that ends it. */
static inline uint64_t modules_take(char **p, int base)
{
    uint64_t number = strtoull(*p, p, base);
    *p += **p != 0;
    return number;
}

/* Files one line of /proc/self/maps: "start-end perms offset major:minor inode path". */
static inline void modules_add_line(struct modules *ms, char *line)
{
    char *p = line;
    uint64_t start = modules_take(&p, 16), end = modules_take(&p, 16);
    const char *perms = p;
    p += strcspn(p, " ");
    uint64_t offset = modules_take(&p, 16), major = modules_take(&p, 16);
    uint64_t minor = modules_take(&p, 16), ino = modules_take(&p, 10);
    char *path = p + strspn(p, " "), *deleted = strstr(path, " (deleted)\n");
    path[deleted ? (size_t)(deleted - path) : strcspn(path, "\n")] = 0;
    int instance = -1;
    if (*path == '/' && ino && strncmp(path, "/memfd:", 7)) {
        size_t module = modules_find_file(ms, path, major << 32 | minor, ino);
        instance = modules_find_instance(ms, module, start, offset);
        struct instance *in = &ms->instance[instance];
        in->end = end;
        in->last_offset = offset;
        in->exec |= perms[2] == 'x';
    }
    GROW_ARRAY(ms->span, ms->n_spans, ms->span_room);
    ms->span[ms->n_spans++] = (struct span){start, end, instance};
}

/* Gives the instance's module an id if it is the guest's code. The emulator's own files are mapped
 * too, but only the guest's memory can be read. */
static inline void modules_list(struct modules *ms, const struct instance *in)
{
    struct module *m = &ms->module[in->module];
    if (!in->exec || !qemu_plugin_read_memory_vaddr(in->base, &ms->header.array, 64))
        return;
    if (m->id < 0) {
        const uint8_t *elf = ms->header.array.data;
        uint64_t entry;
        memcpy(&entry, elf + 24, sizeof entry);
        m->id = ms->listed++;
        m->base = m->end = in->base;
        m->entry = elf[16] == 3 /* ET_DYN */ ? in->base + entry : entry;
    }
    if (m->end - m->base < in->end - in->base)
        m->end = m->base + (in->end - in->base);
}

static inline void modules_scan(struct modules *ms)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char *line = NULL;
    size_t room = 0;
    ms->n_spans = ms->n_instances = 0;
    while (maps && getline(&line, &room, maps) > 0)
        modules_add_line(ms, line);
    free(line);
    if (maps)
        fclose(maps);
    for (size_t i = 0; i < ms->n_instances; i++)
        modules_list(ms, &ms->instance[i]);
}

static inline const struct span *modules_find_span(const struct modules *ms, uint64_t addr)
{
    size_t low = 0, high = ms->n_spans;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (addr < ms->span[mid].start)
            high = mid;
        else if (addr >= ms->span[mid].end)
            low = mid + 1;
        else
            return &ms->span[mid];
    }
    return NULL;
}

/* Id of the module that holds addr, and addr's offset in it; -1: addr lies in no listed file. */
static inline int modules_locate(const struct modules *ms, uint64_t addr, uint64_t *offset)
{
    const struct span *span = modules_find_span(ms, addr);
    if (!span || span->instance < 0)
        return -1;
    const struct instance *in = &ms->instance[span->instance];
    *offset = addr - in->base;
    return ms->module[in->module].id;
}

#endif
