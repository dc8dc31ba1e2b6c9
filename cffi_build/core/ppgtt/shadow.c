/* Shadow tables: the index by guest frame, references, and what becomes of tables that nothing points to. */
#include "shadow.h"
#include "table.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

_Static_assert(sizeof(xd_table) == 64, "the record of a table is one cache line");

/* Returns `size` bytes of zeros that take no memory until they are touched, or NULL. */
static void *reserve(uint64_t size)
{
    void *address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return address == MAP_FAILED ? NULL : address;
}

static uint64_t records_size(const xd_shadow *shadow)
{
    return ((uint64_t)shadow->max_tables + 1) * sizeof(xd_table);
}

static uint64_t pages_size(const xd_shadow *shadow)
{
    return ((uint64_t)shadow->max_tables + 1) * XD_FRAME_SIZE;
}

static uint64_t buckets_size(const xd_shadow *shadow)
{
    return ((uint64_t)shadow->bucket_mask + 1) * sizeof(uint32_t);
}

xd_shadow *xd_shadow_new(xd_frames *frames, xd_counters *counters, uint32_t max_tables)
{
    xd_shadow *shadow = calloc(1, sizeof(*shadow));
    if (!shadow)
        return NULL;
    shadow->frames = frames;
    shadow->counters = counters;
    shadow->max_tables = max_tables;
    shadow->max_unsynced = XD_MOST_UNSYNCED;
    shadow->epoch = 1;
    shadow->bucket_mask = 255;
    if (getrandom(shadow->hash_keys, sizeof(shadow->hash_keys), GRND_NONBLOCK) != sizeof(shadow->hash_keys))
        shadow->hash_keys[0] = shadow->hash_keys[1] = xd_now(); /* the kernel has collected no entropy yet */
    shadow->hash_keys[1] |= 1;
    while (shadow->bucket_mask < max_tables && shadow->bucket_mask < (1u << 30))
        shadow->bucket_mask = shadow->bucket_mask * 2 + 1;
    shadow->tables = reserve(records_size(shadow));
    shadow->pages = reserve(pages_size(shadow));
    shadow->buckets = reserve(buckets_size(shadow));
    if (!shadow->tables || !shadow->pages || !shadow->buckets) {
        xd_shadow_free(shadow);
        return NULL;
    }
    return shadow;
}

void xd_shadow_free(xd_shadow *shadow)
{
    if (!shadow)
        return;
    if (shadow->tables)
        munmap(shadow->tables, records_size(shadow));
    if (shadow->pages)
        munmap(shadow->pages, pages_size(shadow));
    if (shadow->buckets)
        munmap(shadow->buckets, buckets_size(shadow));
    free(shadow);
}

static uint32_t *bucket_of(const xd_shadow *shadow, uint64_t gfn)
{
    return &shadow->buckets[xd_hash(shadow, gfn) & shadow->bucket_mask];
}

/* Returns the field that holds the number of the frame's first table, or would hold it. */
static uint32_t *link_to_frame(const xd_shadow *shadow, uint64_t gfn)
{
    uint32_t *link = bucket_of(shadow, gfn);
    while (*link && shadow->tables[*link].gfn != gfn)
        link = &shadow->tables[*link].next_in_bucket;
    return link;
}

uint32_t xd_first_of_frame(const xd_shadow *shadow, uint64_t gfn)
{
    return *link_to_frame(shadow, gfn);
}

uint32_t xd_find(const xd_shadow *shadow, uint64_t gfn, uint32_t kind)
{
    uint32_t number = xd_first_of_frame(shadow, gfn);
    while (number && shadow->tables[number].kind != kind)
        number = shadow->tables[number].next_of_frame;
    return number;
}

static uint32_t take_number(xd_shadow *shadow)
{
    uint32_t number = shadow->first_free;
    if (number)
        shadow->first_free = shadow->tables[number].next_free;
    else if (shadow->used < shadow->max_tables)
        number = ++shadow->used;
    return number;
}

/* A bucket's chain has only the first table of each frame; the others follow that one, the highest level first. */
static void add_to_index(xd_shadow *shadow, uint32_t number)
{
    xd_table *table = &shadow->tables[number];
    uint32_t *first = link_to_frame(shadow, table->gfn);
    xd_table *head = &shadow->tables[*first];
    if (!*first || xd_level(head) < xd_level(table)) {
        table->next_of_frame = *first;
        table->next_in_bucket = *first ? head->next_in_bucket : 0;
        *first = number;
        return;
    }
    while (head->next_of_frame && xd_level(&shadow->tables[head->next_of_frame]) >= xd_level(table))
        head = &shadow->tables[head->next_of_frame];
    table->next_of_frame = head->next_of_frame;
    head->next_of_frame = number;
}

static void take_from_index(xd_shadow *shadow, uint32_t number)
{
    xd_table *table = &shadow->tables[number];
    uint32_t *first = link_to_frame(shadow, table->gfn);
    if (*first == number) {
        if (table->next_of_frame)
            shadow->tables[table->next_of_frame].next_in_bucket = table->next_in_bucket;
        *first = table->next_of_frame ? table->next_of_frame : table->next_in_bucket;
        return;
    }
    uint32_t *link = &shadow->tables[*first].next_of_frame;
    while (*link != number)
        link = &shadow->tables[*link].next_of_frame;
    *link = table->next_of_frame;
}

uint32_t xd_add(xd_shadow *shadow, uint64_t gfn, uint32_t kind)
{
    uint32_t number = take_number(shadow);
    if (!number)
        return 0;
    xd_table *table = &shadow->tables[number];
    bool leaf = (kind & XD_LEVEL_MASK) == 1;
    if (!leaf)
        memset(xd_page(shadow, number), 0, XD_FRAME_SIZE);
    *table = (xd_table){.gfn = gfn,
                        .kind = (uint8_t)kind,
                        .flags = leaf ? XD_TABLE_UNREAD | XD_TABLE_BLANK : XD_TABLE_UNREAD};
    if (leaf)
        table->life = (xd_leaf_life){.calm = XD_CALM, .patience = XD_PATIENCE};
    if (!(kind & XD_KIND_SPLIT))
        add_to_index(shadow, number);
    shadow->stale_tables++;
    shadow->live++;
    shadow->counters->tables = shadow->live;
    return number;
}

/* One of the two lists of leaf tables: the unsynced ones, or the candidates. No table is in both. */
typedef struct leaf_list {
    uint32_t *first, *last, *count;
} leaf_list;

static leaf_list unsynced_of(xd_shadow *shadow)
{
    return (leaf_list){&shadow->first_unsynced, &shadow->last_unsynced, &shadow->unsynced_tables};
}

static leaf_list candidates_of(xd_shadow *shadow)
{
    return (leaf_list){&shadow->first_candidate, &shadow->last_candidate, &shadow->candidates};
}

static void append_to(xd_shadow *shadow, leaf_list list, uint32_t number)
{
    uint32_t previous = *list.last;
    shadow->tables[number].previous_unsynced = previous;
    shadow->tables[number].next_unsynced = 0;
    *(previous ? &shadow->tables[previous].next_unsynced : list.first) = number;
    *list.last = number;
    ++*list.count;
}

static void take_from(xd_shadow *shadow, leaf_list list, uint32_t number)
{
    uint32_t previous = shadow->tables[number].previous_unsynced;
    uint32_t next = shadow->tables[number].next_unsynced;
    *(previous ? &shadow->tables[previous].next_unsynced : list.first) = next;
    *(next ? &shadow->tables[next].previous_unsynced : list.last) = previous;
    --*list.count;
}

void xd_note_store(xd_shadow *shadow, uint32_t number)
{
    xd_table *table = &shadow->tables[number];
    if (table->flags & XD_TABLE_STORED) {
        table->flags |= XD_TABLE_STORED_AGAIN;
        return;
    }
    table->flags |= XD_TABLE_STORED;
    append_to(shadow, candidates_of(shadow), number);
}

void xd_forget_store(xd_shadow *shadow, uint32_t number)
{
    xd_table *table = &shadow->tables[number];
    if (table->flags & XD_TABLE_STORED)
        take_from(shadow, candidates_of(shadow), number);
    table->flags &= (uint8_t) ~(XD_TABLE_STORED | XD_TABLE_STORED_AGAIN);
}

void xd_remove(xd_shadow *shadow, uint32_t number)
{
    xd_table *table = &shadow->tables[number];
    if (!(table->kind & XD_KIND_SPLIT))
        take_from_index(shadow, number);
    xd_set_pending(shadow, table, 0);
    xd_set_checked(shadow, table);
    if (table->flags & XD_TABLE_UNSYNCED)
        take_from(shadow, unsynced_of(shadow), number);
    xd_forget_store(shadow, number);
    *table = (xd_table){.next_free = shadow->first_free};
    shadow->first_free = number;
    shadow->live--;
    shadow->counters->tables = shadow->live;
}

void xd_clear_blank(xd_shadow *shadow, uint32_t number)
{
    if (!(shadow->tables[number].flags & XD_TABLE_BLANK))
        return;
    memset(xd_page(shadow, number), 0, XD_FRAME_SIZE);
    shadow->tables[number].flags &= (uint8_t)~XD_TABLE_BLANK;
}

void xd_ref(xd_shadow *shadow, uint32_t number)
{
    shadow->tables[number].refs++;
}

void xd_link_to(xd_shadow *shadow, uint32_t parent, uint32_t child)
{
    xd_table *table = &shadow->tables[child];
    if (!(table->flags & XD_TABLE_UNREAD))
        shadow->relinks += xd_level(table) > 1 || table->flags & XD_TABLE_UNSYNCED || table->pending ||
                           table->epoch != shadow->epoch;
    table->parent = parent;
    xd_ref(shadow, child);
}

void xd_unlink(xd_shadow *shadow, uint32_t parent, uint32_t child)
{
    if (shadow->tables[child].parent == parent)
        shadow->tables[child].parent = 0;
    xd_unref(shadow, child);
}

/*
 * A table without references stays in the index, because an entry that is written a moment later often names it again.
 * xd_free_unreferenced therefore looks at the references once more.
 */
void xd_unref(xd_shadow *shadow, uint32_t number)
{
    xd_table *table = &shadow->tables[number];
    if (--table->refs)
        return;
    if (table->kind & XD_KIND_SPLIT) {
        xd_remove(shadow, number);
        return;
    }
    if (table->flags & XD_TABLE_UNREFERENCED)
        return;
    table->flags |= XD_TABLE_UNREFERENCED;
    table->next_unreferenced = shadow->first_unreferenced;
    shadow->first_unreferenced = number;
}

uint32_t xd_free_unreferenced(xd_shadow *shadow, uint64_t *gfns, uint32_t capacity)
{
    uint32_t freed = 0;
    for (uint32_t seen = 0; shadow->first_unreferenced && seen < capacity; seen++) {
        uint32_t number = shadow->first_unreferenced;
        xd_table *table = &shadow->tables[number];
        shadow->first_unreferenced = table->next_unreferenced;
        table->flags &= (uint8_t)~XD_TABLE_UNREFERENCED;
        table->next_unreferenced = 0;
        if (table->refs)
            continue;
        if (xd_level(table) > 1) {
            const uint64_t *entries = xd_page(shadow, number);
            for (int i = 0; i < XD_ENTRIES; i++)
                if (xd_is_link(entries[i]))
                    xd_unlink(shadow, number, xd_child(entries[i]));
        }
        uint64_t gfn = table->gfn;
        bool unsynced = table->flags & XD_TABLE_UNSYNCED;
        xd_remove(shadow, number);
        if (!unsynced && !xd_first_of_frame(shadow, gfn))
            gfns[freed++] = gfn;
    }
    return freed;
}

void xd_new_epoch(xd_shadow *shadow)
{
    shadow->epoch++;
    shadow->stale_tables = shadow->live;
}

void xd_set_frame_unread(xd_shadow *shadow, uint64_t gfn)
{
    for (uint32_t number = xd_first_of_frame(shadow, gfn); number; number = shadow->tables[number].next_of_frame)
        xd_set_unread(shadow, &shadow->tables[number]);
}

void xd_set_unsynced(xd_shadow *shadow, uint64_t gfn, int unsynced)
{
    for (uint32_t number = xd_first_of_frame(shadow, gfn); number; number = shadow->tables[number].next_of_frame) {
        xd_table *table = &shadow->tables[number];
        if (!(table->flags & XD_TABLE_UNSYNCED) == !unsynced)
            continue;
        xd_forget_store(shadow, number);
        table->flags ^= XD_TABLE_UNSYNCED;
        if (unsynced)
            append_to(shadow, unsynced_of(shadow), number);
        else
            take_from(shadow, unsynced_of(shadow), number);
    }
}
