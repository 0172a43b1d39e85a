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
    struct map_entry {
        uint64_t key;
        uint32_t slot; /* index of the record + 1; 0: free */
    } * table;
    size_t table_size; /* a power of two of at least 2 * n */
    char *chunk;       /* memory for the next records */
    size_t left;       /* bytes of it */
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

static inline struct map_entry *map_entry(const struct map *m, uint64_t key)
{
    size_t i = (size_t)((key ^ key >> 32) * 0x9e3779b97f4a7c15u >> 24) & (m->table_size - 1);
    while (m->table[i].slot && m->table[i].key != key)
        i = (i + 1) & (m->table_size - 1);
    return &m->table[i];
}

/* Enters record i, which is not in the table. */
static inline void map_fill(struct map *m, size_t i)
{
    uint64_t key = *(uint64_t *)m->records[i];
    *map_entry(m, key) = (struct map_entry){key, (uint32_t)i + 1};
}

static inline void map_grow(struct map *m)
{
    m->room = m->room ? 2 * m->room : 16;
    m->records = (void **)map_alloc(m->records, m->room * sizeof *m->records);
    m->table_size = 2 * m->room;
    m->table = (struct map_entry *)map_alloc(m->table, m->table_size * sizeof *m->table);
    memset(m->table, 0, m->table_size * sizeof *m->table);
    for (size_t i = 0; i < m->n; i++)
        map_fill(m, i);
}

/* Records lie together: one allocation for many. */
static inline uint64_t *map_new_record(struct map *m)
{
    if (m->left < m->record_size) {
        m->left = (m->n < 64 ? 4 : 64) * m->record_size;
        m->chunk = (char *)map_alloc(NULL, m->left);
        memset(m->chunk, 0, m->left);
    }
    m->left -= m->record_size;
    m->chunk += m->record_size;
    return (uint64_t *)(void *)(m->chunk - m->record_size);
}

/* The record of key; a new one is zeroed but for its key. */
static inline void *map_get(struct map *m, uint64_t key)
{
    if (m->n == m->room)
        map_grow(m);
    const struct map_entry *entry = map_entry(m, key);
    if (!entry->slot) {
        uint64_t *record = map_new_record(m);
        *record = key;
        m->records[m->n] = record;
        map_fill(m, m->n++);
    }
    return m->records[entry->slot - 1];
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
