/* blocks.h: the blocks of files, numbered as they come. Not locked.
 *
 * They are found by where they begin, so that those that lie together are found together: a hash
 * would miss the processor's caches for each. */
#ifndef BLOCKS_H
#define BLOCKS_H

#include "map.h"

#define BLOCKS_PAGE 4096
#define BLOCKS_UNIT 8

struct entry { /* of a drcov file */
    uint32_t start;
    uint16_t size, module;
};

struct block {
    struct entry entry;
    uint32_t next; /* number + 1 of the one before it that begins in the same unit; 0: none */
};

struct block_index {
    uint32_t **pages; /* number + 1 of the latest block in each unit of a page */
    size_t n_pages;
};

struct blocks {
    struct block *block;
    size_t n, room;
    struct block_index *index; /* by module */
    size_t n_indexes, index_room;
};

static inline uint32_t *blocks_page(struct block_index *index, size_t page)
{
    size_t n = index->n_pages, units = BLOCKS_PAGE / BLOCKS_UNIT;
    if (page >= n) {
        index->n_pages = 2 * page + 1;
        index->pages = map_alloc(index->pages, index->n_pages * sizeof *index->pages);
        memset(index->pages + n, 0, (index->n_pages - n) * sizeof *index->pages);
    }
    if (!index->pages[page]) {
        index->pages[page] = map_alloc(NULL, units * sizeof(uint32_t));
        memset(index->pages[page], 0, units * sizeof(uint32_t));
    }
    return index->pages[page];
}

static inline uint32_t *blocks_unit(struct blocks *bs, const struct entry *entry)
{
    while (bs->n_indexes <= entry->module) {
        GROW_ARRAY(bs->index, bs->n_indexes, bs->index_room);
        bs->index[bs->n_indexes++] = (struct block_index){NULL, 0};
    }
    return blocks_page(&bs->index[entry->module], entry->start / BLOCKS_PAGE) +
           entry->start % BLOCKS_PAGE / BLOCKS_UNIT;
}

/* The number of a block; a new one gets the next. */
static inline size_t blocks_find(struct blocks *bs, const struct entry *entry)
{
    uint32_t *unit = blocks_unit(bs, entry);
    for (uint32_t i = *unit; i; i = bs->block[i - 1].next)
        if (!memcmp(&bs->block[i - 1].entry, entry, sizeof *entry))
            return i - 1;
    GROW_ARRAY(bs->block, bs->n, bs->room);
    bs->block[bs->n++] = (struct block){*entry, *unit};
    *unit = (uint32_t)bs->n;
    return bs->n - 1;
}

#endif
