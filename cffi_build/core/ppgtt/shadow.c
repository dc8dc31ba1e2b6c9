#include "shadow.h"
#include "entry_bits.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

_Static_assert(sizeof(xd_table) <= 64, "the record of a table is small beside its page");

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
    shadow->bucket_mask = 255;
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

/* Frames come in runs; multiplying by an odd constant and taking high bits spreads runs and strides alike. */
static uint32_t *bucket_of(const xd_shadow *shadow, uint64_t gfn)
{
    return &shadow->buckets[(uint32_t)((gfn * 0x9e3779b97f4a7c15u) >> 34) & shadow->bucket_mask];
}

/* The link that points to the frame's first shadow, or that would. */
static uint32_t *link_to_frame(const xd_shadow *shadow, uint64_t gfn)
{
    uint32_t *link = bucket_of(shadow, gfn);
    while (*link && shadow->tables[*link].gfn != gfn)
        link = &shadow->tables[*link].bucket_next;
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
        number = shadow->tables[number].same_frame;
    return number;
}

static uint32_t take_number(xd_shadow *shadow)
{
    uint32_t number = shadow->free_list;
    if (number)
        shadow->free_list = shadow->tables[number].same_frame;
    else if (shadow->used < shadow->max_tables)
        number = ++shadow->used;
    return number;
}

/* Only the first shadow of a frame is in the bucket's chain; inserting and removing keep that place. */
static void insert(xd_shadow *shadow, uint32_t number)
{
    xd_table *table = &shadow->tables[number];
    uint32_t *first = link_to_frame(shadow, table->gfn);
    xd_table *head = &shadow->tables[*first];
    if (!*first || xd_level(head) < xd_level(table)) {
        table->same_frame = *first;
        table->bucket_next = *first ? head->bucket_next : 0;
        *first = number;
        return;
    }
    while (head->same_frame && xd_level(&shadow->tables[head->same_frame]) >= xd_level(table))
        head = &shadow->tables[head->same_frame];
    table->same_frame = head->same_frame;
    head->same_frame = number;
}

static void take_out(xd_shadow *shadow, uint32_t number)
{
    xd_table *table = &shadow->tables[number];
    uint32_t *first = link_to_frame(shadow, table->gfn);
    if (*first == number) {
        if (table->same_frame)
            shadow->tables[table->same_frame].bucket_next = table->bucket_next;
        *first = table->same_frame ? table->same_frame : table->bucket_next;
        return;
    }
    uint32_t *link = &shadow->tables[*first].same_frame;
    while (*link != number)
        link = &shadow->tables[*link].same_frame;
    *link = table->same_frame;
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
                        .flags = leaf ? XD_TABLE_BLANK : 0,
                        .era = shadow->era,
                        .attended = shadow->submission};
    if (!(kind & XD_KIND_SPLIT))
        insert(shadow, number);
    shadow->live++;
    shadow->counters->tables = shadow->live;
    return number;
}

static void join_the_open(xd_shadow *shadow, uint32_t number)
{
    xd_table *table = &shadow->tables[number];
    table->open_before = shadow->last_open;
    table->open_after = 0;
    *(shadow->last_open ? &shadow->tables[shadow->last_open].open_after : &shadow->first_open) = number;
    shadow->last_open = number;
    shadow->open_tables++;
}

static void leave_the_open(xd_shadow *shadow, uint32_t number)
{
    const xd_table *table = &shadow->tables[number];
    *(table->open_before ? &shadow->tables[table->open_before].open_after : &shadow->first_open) = table->open_after;
    *(table->open_after ? &shadow->tables[table->open_after].open_before : &shadow->last_open) = table->open_before;
    shadow->open_tables--;
}

void xd_remove(xd_shadow *shadow, uint32_t number)
{
    xd_table *table = &shadow->tables[number];
    if (!(table->kind & XD_KIND_SPLIT))
        take_out(shadow, number);
    xd_set_waiting(shadow, table, 0);
    xd_set_current(shadow, table);
    if (table->flags & XD_TABLE_OPEN)
        leave_the_open(shadow, number);
    *table = (xd_table){.same_frame = shadow->free_list};
    shadow->free_list = number;
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
    shadow->tables[child].parent = parent;
    xd_ref(shadow, child);
}

void xd_unlink(xd_shadow *shadow, uint32_t parent, uint32_t child)
{
    if (shadow->tables[child].parent == parent)
        shadow->tables[child].parent = 0;
    xd_unref(shadow, child);
}

/*
 * A dying table stays findable, so that an entry which names it again before it is buried revives it; hence burying
 * looks at the references once more. `same_frame` is in use until then, so the dying are chained in `seen`.
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
    if (table->flags & XD_TABLE_DYING)
        return;
    table->flags |= XD_TABLE_DYING;
    table->seen = shadow->dying;
    shadow->dying = number;
}

uint32_t xd_bury(xd_shadow *shadow, uint64_t *gfns, uint32_t capacity)
{
    uint32_t freed = 0;
    while (shadow->dying && freed < capacity) {
        uint32_t number = shadow->dying;
        xd_table *table = &shadow->tables[number];
        shadow->dying = table->seen;
        table->flags &= (uint8_t)~XD_TABLE_DYING;
        table->seen = 0;
        if (table->refs)
            continue;
        if (xd_level(table) > 1) {
            const uint64_t *entries = xd_page(shadow, number);
            for (int i = 0; i < XD_ENTRIES; i++)
                if (xd_is_link(entries[i]))
                    xd_unlink(shadow, number, xd_child(entries[i]));
        }
        uint64_t gfn = table->gfn;
        xd_remove(shadow, number);
        if (!xd_first_of_frame(shadow, gfn))
            gfns[freed++] = gfn;
    }
    return freed;
}

void xd_new_era(xd_shadow *shadow)
{
    shadow->era++;
    shadow->stale_tables = shadow->live;
}

void xd_set_open(xd_shadow *shadow, uint64_t gfn, int open)
{
    for (uint32_t number = xd_first_of_frame(shadow, gfn); number; number = shadow->tables[number].same_frame) {
        xd_table *table = &shadow->tables[number];
        if (!(table->flags & XD_TABLE_OPEN) == !open)
            continue;
        table->flags ^= XD_TABLE_OPEN;
        if (open)
            join_the_open(shadow, number);
        else
            leave_the_open(shadow, number);
    }
}
