/* map.h: a hash map from uint64_t to records, for plugins. Not locked. */
#ifndef MAP_H
#define MAP_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Records start with their uint64_t key, stay where they are, and are listed as they came. */
struct map {
    size_t record_size;
    void **records;
    size_t n, room;
    uint32_t *table; /* index of the record + 1; a power of two of at least 2 * n */
    size_t table_size;
};

static inline void *map_alloc(void *old, size_t size)
{
    void *p = realloc(old, size);
    if (!p) {
        fprintf(stderr, "plugin: out of memory\n");
        exit(1);
    }
    return p;
}

/* Makes room for one more element of an array. */
#define GROW_ARRAY(array, n, room)                                                                 \
    do {                                                                                           \
        if ((n) == (room)) {                                                                       \
            (room) = (room) ? 2 * (room) : 64;                                                     \
            (array) = map_alloc(array, (room) * sizeof *(array));                                  \
        }                                                                                          \
    } while (0)

static inline uint32_t *map_slot(const struct map *m, uint64_t key)
{
    size_t i = (size_t)((key ^ key >> 32) * 0x9e3779b97f4a7c15u >> 24) & (m->table_size - 1);
    while (m->table[i] && *(uint64_t *)m->records[m->table[i] - 1] != key)
        i = (i + 1) & (m->table_size - 1);
    return &m->table[i];
}

static inline void map_grow(struct map *m)
{
    m->room = m->room ? 2 * m->room : 16;
    m->records = (void **)map_alloc(m->records, m->room * sizeof *m->records);
    m->table_size = 2 * m->room;
    m->table = (uint32_t *)map_alloc(m->table, m->table_size * sizeof *m->table);
    for (size_t i = 0; i < m->table_size; i++)
        m->table[i] = 0;
    for (size_t i = 0; i < m->n; i++)
        *map_slot(m, *(uint64_t *)m->records[i]) = (uint32_t)i + 1;
}

/* The record of key; a new one is zeroed but for its key. */
static inline void *map_get(struct map *m, uint64_t key)
{
    if (m->n == m->room)
        map_grow(m);
    uint32_t *slot = map_slot(m, key);
    if (!*slot) {
        uint64_t *record = (uint64_t *)map_alloc(NULL, m->record_size);
        memset(record, 0, m->record_size);
        *record = key;
        m->records[m->n] = record;
        *slot = (uint32_t)++m->n;
    }
    return m->records[*slot - 1];
}

/* The records in order, in an array to be freed; compare gets pointers to record pointers. */
static inline void **map_sorted(const struct map *m, int (*compare)(const void *, const void *))
{
    void **sorted = (void **)map_alloc(NULL, (m->n + 1) * sizeof *sorted);
    for (size_t i = 0; i < m->n; i++)
        sorted[i] = m->records[i];
    qsort(sorted, m->n, sizeof *sorted, compare);
    return sorted;
}

#endif
