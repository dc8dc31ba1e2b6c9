/* What a submission must sync, and how it begins and ends. The updates are those of directory.c and leaf.c. */
#include "sync.h"
#include "table.h"

enum { TOP_LEVEL = 4 }; /* tables of this level are roots, and nothing else */

static bool must_be_synced(const xd_shadow *shadow, const xd_table *table)
{
    return (table->flags & XD_TABLE_UNSYNCED || table->pending || table->epoch != shadow->epoch) &&
           !(table->kind & XD_KIND_SPLIT) && table->synced_in != shadow->submission;
}

/* Appends a table to `numbers`, if it must be synced and there is room, and marks it as synced in this submission. */
static void collect(xd_shadow *shadow, uint32_t number, uint32_t *numbers, uint32_t *count, uint32_t capacity)
{
    xd_table *table = &shadow->tables[number];
    if (*count == capacity || !must_be_synced(shadow, table))
        return;
    table->synced_in = shadow->submission;
    numbers[(*count)++] = number;
}

/*
 * Collects from a directory down. Only directories are marked as visited: leaf tables are many, most of them need
 * nothing, and looking at one twice costs little.
 */
static void collect_down(xd_shadow *shadow, uint32_t number, xd_sync_work *work)
{
    xd_table *table = &shadow->tables[number];
    if (table->visited == shadow->walk)
        return;
    table->visited = shadow->walk;
    collect(shadow, number, work->directories, &work->directory_count, work->capacity);
    const uint64_t *entries = xd_page(shadow, number);
    bool above_leaves = xd_level(table) == 2;
    uint64_t same = 0;
    for (uint32_t i = 0; i < XD_ENTRIES; i++) {
        if (entries[i] == same || !xd_is_link(entries[i]))
            continue;
        same = entries[i];
        if (above_leaves)
            collect(shadow, xd_child(same), work->leaves, &work->leaf_count, work->capacity);
        else
            collect_down(shadow, xd_child(same), work);
    }
}

typedef enum { BELOW, ELSEWHERE, UNCLEAR } place;

/* Returns whether a table lies below these roots, as far as the way up by xd_table.parent tells. */
static place place_of(const xd_shadow *shadow, uint32_t number, const uint32_t *roots, uint32_t count)
{
    bool only_way = true;
    for (;;) {
        const xd_table *table = &shadow->tables[number];
        for (uint32_t i = 0; i < count; i++)
            if (roots[i] == number)
                return BELOW;
        only_way &= table->refs == 1;
        if (!table->parent)
            return only_way && xd_level(table) == TOP_LEVEL ? ELSEWHERE : UNCLEAR;
        number = table->parent;
    }
}

/*
 * Collects the unsynced tables below the roots by following parents up: unsynced tables are few, a space has thousands
 * of tables. Returns false if the way up from one of them does not tell whether it lies below: then the caller walks
 * down.
 */
static bool collect_up(xd_shadow *shadow, const uint32_t *roots, uint32_t count, xd_sync_work *work)
{
    for (uint32_t number = shadow->first_unsynced; number; number = shadow->tables[number].next_unsynced) {
        place where = place_of(shadow, number, roots, count);
        if (where == UNCLEAR)
            return false;
        if (where == BELOW)
            collect(shadow, number, work->leaves, &work->leaf_count, work->capacity);
    }
    return true;
}

void xd_sync_collect(xd_shadow *shadow, const uint32_t *roots, uint32_t count, xd_sync_work *work)
{
    work->directory_count = work->leaf_count = 0;
    if (!shadow->pending_tables && !shadow->stale_tables && collect_up(shadow, roots, count, work))
        return;
    shadow->walk++;
    for (uint32_t i = 0; i < count; i++)
        if (roots[i])
            collect_down(shadow, roots[i], work);
}

int xd_sync_begin_leaves(xd_shadow *shadow, const uint64_t *gpas, const uint32_t *roots, uint32_t count,
                         xd_sync_work *work)
{
    work->started = xd_now();
    xd_frames_invalidate_holes(shadow->frames);
    if (shadow->pending_tables || shadow->stale_tables || shadow->wants_64k != shadow->has_64k)
        return -1;
    for (uint32_t i = 0; i < count; i++)
        if (gpas[i] && (!roots[i] || xd_frames_state(shadow->frames, gpas[i] >> XD_FRAME_SHIFT) != XD_FRAME_RAM))
            return -1;
    shadow->submission++;
    xd_sync_collect(shadow, roots, count, work);
    if (work->leaf_count == work->capacity)
        return -1;
    if (!work->leaf_count)
        xd_sync_end_leaves(shadow, work);
    return (int)work->leaf_count;
}

int xd_sync_end_leaves(xd_shadow *shadow, const xd_sync_work *work)
{
    if (shadow->stale_tables)
        return -1;
    shadow->counters->submissions++;
    xd_observe(&shadow->counters->timing.syncs, work->started);
    return 0;
}

uint32_t xd_resync_begin(xd_shadow *shadow, const uint32_t *leaves, uint32_t count, uint64_t *gfns, uint32_t *others,
                         uint32_t *other_count)
{
    uint32_t frames = 0;
    *other_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (!(shadow->tables[leaves[i]].flags & XD_TABLE_UNSYNCED))
            continue;
        uint64_t gfn = shadow->tables[leaves[i]].gfn;
        xd_set_unsynced(shadow, gfn, 0);
        gfns[frames++] = gfn;
        /* The frame of a leaf table has at most two tables: of 4 KiB and of 64 KiB entries. */
        for (uint32_t other = xd_first_of_frame(shadow, gfn); other; other = shadow->tables[other].next_of_frame)
            if (shadow->tables[other].synced_in != shadow->submission)
                others[(*other_count)++] = other;
    }
    return frames;
}

void xd_resync_end(xd_shadow *shadow, const uint64_t *gfns, const int *errors, uint32_t count)
{
    uint32_t failed = 0;
    for (uint32_t i = 0; i < count; i++)
        if (errors[i]) {
            xd_set_unsynced(shadow, gfns[i], 1);
            failed++;
        }
    shadow->counters->syncs += count;
    shadow->counters->protected_pages += count - failed;
}
