/* What a submission must sync, and how it begins and ends. The updates are those of directory.c and leaf.c. */
#include "sync.h"
#include "table.h"

#include <string.h>

enum { TOP_LEVEL = 4 }; /* tables of this level are roots, and nothing else */

static bool must_be_synced(const xd_shadow *shadow, const xd_table *table)
{
    return (table->flags & XD_TABLE_UNSYNCED || table->pending || table->epoch != shadow->epoch) &&
           !(table->kind & XD_KIND_SPLIT) && table->synced_in != shadow->submission;
}

/* Appends a table to `numbers` if it must be synced, and marks it as synced in this submission. */
static void collect(xd_shadow *shadow, uint32_t number, uint32_t *numbers, uint32_t *count)
{
    xd_table *table = &shadow->tables[number];
    if (!must_be_synced(shadow, table))
        return;
    table->synced_in = shadow->submission;
    numbers[(*count)++] = number;
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

/* Unsynced tables whose way up is followed, at most: more of them are found by a walk down, which can pause. */
enum { MOST_WAYS_UP = 1024 };

/*
 * Collects the unsynced tables below the roots by following parents up: unsynced tables are few, a space has thousands
 * of tables. Returns false if that does not tell of all of them, or if the list is full.
 */
static bool collect_up(xd_shadow *shadow, const uint32_t *roots, uint32_t count, xd_sync_work *work)
{
    if (shadow->unsynced_tables > MOST_WAYS_UP)
        return false;
    for (uint32_t number = shadow->first_unsynced; number; number = shadow->tables[number].next_unsynced) {
        place where = place_of(shadow, number, roots, count);
        if (where == UNCLEAR || work->leaf_count == XD_SYNC_BATCH)
            return false;
        if (where == BELOW)
            collect(shadow, number, work->leaves, &work->leaf_count);
    }
    return true;
}

/* Goes down into a directory, unless the walk was there already. */
static void enter(xd_shadow *shadow, uint32_t number, xd_sync_work *work)
{
    xd_table *table = &shadow->tables[number];
    if (table->visited == shadow->walk)
        return;
    table->visited = shadow->walk;
    collect(shadow, number, work->directories, &work->directory_count);
    work->path[work->depth++] = (xd_sync_place){.number = number};
}

void xd_sync_walk(xd_shadow *shadow, const uint32_t *roots, uint32_t count, xd_sync_work *work)
{
    shadow->walk++;
    work->depth = work->next_root = 0;
    for (uint32_t i = 0; i < 4; i++)
        work->roots[i] = i < count ? roots[i] : 0;
    work->relinks = shadow->relinks;
    work->collected = 0;
}

/*
 * Only directories are marked as visited: leaf tables are many, most of them need nothing, and looking at one twice
 * costs little. A table on the path that was freed between two calls has another mark or is no directory: the walk
 * leaves it.
 */
int xd_sync_collect(xd_shadow *shadow, xd_sync_work *work)
{
    enum { MOST_LOOKS = 128 * XD_ENTRIES };
    uint32_t looks = 0;
    work->directory_count = work->leaf_count = 0;
    while (work->directory_count < XD_SYNC_BATCH && work->leaf_count < XD_SYNC_BATCH && looks < MOST_LOOKS) {
        if (!work->depth) {
            if (work->next_root == 4)
                break;
            uint32_t root = work->roots[work->next_root++];
            if (root && shadow->tables[root].kind)
                enter(shadow, root, work);
            continue;
        }
        xd_sync_place *here = &work->path[work->depth - 1];
        const xd_table *table = &shadow->tables[here->number];
        if (here->next == XD_ENTRIES || xd_level(table) < 2 || table->visited != shadow->walk) {
            work->depth--;
            continue;
        }
        const uint64_t *entries = xd_page(shadow, here->number);
        bool above_leaves = xd_level(table) == 2;
        uint64_t same = here->next ? entries[here->next - 1] : 0;
        for (; here->next < XD_ENTRIES && work->leaf_count < XD_SYNC_BATCH; looks++) {
            uint64_t entry = entries[here->next++];
            if (entry == same || !xd_is_link(entry))
                continue;
            same = entry;
            if (!above_leaves) {
                enter(shadow, xd_child(entry), work);
                break;
            }
            collect(shadow, xd_child(entry), work->leaves, &work->leaf_count);
        }
    }
    work->collected += work->directory_count + work->leaf_count;
    return !work->depth && work->next_root == 4;
}

/* Reads the leaf tables that were collected, so that none are left. Those that could not be read are stale then. */
static void read_leaves(xd_shadow *shadow, xd_sync_work *work)
{
    work->need.count = 0;
    xd_leaves_sync(shadow, work->leaves, work->leaf_count, &work->need, work->settled);
    work->leaf_count = 0;
}

static int end(xd_shadow *shadow, const xd_sync_work *work)
{
    if (shadow->stale_tables)
        return XD_SYNC_FULL;
    shadow->counters->submissions++;
    xd_observe(&shadow->counters->timing.syncs, work->started);
    return XD_SYNC_DONE;
}

/* Returns whether a space may have nothing to sync but unsynced leaf tables. */
static bool may_be_short(const xd_shadow *shadow, const uint64_t *gpas, const uint32_t *roots, uint32_t count)
{
    if (shadow->pending_tables || shadow->stale_tables || shadow->wants_64k != shadow->has_64k)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (gpas[i] && (!roots[i] || xd_frames_state(shadow->frames, gpas[i] >> XD_FRAME_SHIFT) != XD_FRAME_RAM))
            return false;
    return true;
}

int xd_sync_list(xd_shadow *shadow, const uint64_t *gpas, const uint32_t *roots, uint32_t count, xd_sync_work *work)
{
    if (!may_be_short(shadow, gpas, roots, count))
        return 0;
    shadow->submission++;
    return collect_up(shadow, roots, count, work);
}

int xd_sync_begin(xd_shadow *shadow, const uint64_t *gpas, const uint32_t *roots, uint32_t count, xd_sync_work *work,
                  int only_collect)
{
    work->started = xd_now();
    work->settled->count = 0;
    xd_frames_invalidate_holes(shadow->frames);
    if (!may_be_short(shadow, gpas, roots, count))
        return XD_SYNC_FULL;
    shadow->submission++;
    work->directory_count = work->leaf_count = 0;
    if (!collect_up(shadow, roots, count, work)) {
        shadow->submission++; /* what was collected on the way up is collected again */
        xd_sync_walk(shadow, roots, count, work);
        return xd_sync_more(shadow, work, only_collect);
    }
    xd_sync_walk(shadow, roots, 0, work); /* that walk is at its end */
    if (only_collect && work->leaf_count)
        return XD_SYNC_MORE;
    read_leaves(shadow, work);
    return end(shadow, work);
}

int xd_sync_more(xd_shadow *shadow, xd_sync_work *work, int only_collect)
{
    int ended = xd_sync_collect(shadow, work);
    if (work->directory_count)
        return XD_SYNC_FULL;
    if (only_collect && work->leaf_count)
        return XD_SYNC_MORE;
    read_leaves(shadow, work);
    if (!ended)
        return XD_SYNC_MORE;
    return work->relinks == shadow->relinks ? end(shadow, work) : XD_SYNC_FULL;
}
