/* How unsynced leaf tables are read, and when tables are unsynced and resynced. */
#include "unsync.h"
#include "leaf.h"
#include "table.h"

#include <errno.h>
#include <stddef.h>

/* Lists a table in `settled` if it is settled, with every other table of its frame. */
static void list_if_settled(const xd_shadow *shadow, uint32_t number, xd_retype *settled)
{
    const xd_table *table = &shadow->tables[number];
    uint64_t gfn = table->gfn;
    if (settled->count == XD_SLICE || !shadow->relaxed)
        return;
    uint32_t first = xd_first_of_frame(shadow, gfn);
    for (uint32_t other = first; other; other = shadow->tables[other].next_of_frame)
        if (shadow->tables[other].life.unchanged < shadow->tables[other].life.calm)
            return;
    for (uint32_t i = 0; i < settled->count; i++)
        if (settled->gfns[i] == gfn)
            return;
    settled->numbers[settled->count] = first;
    settled->gfns[settled->count++] = gfn;
}

/* Reads one leaf table. Returns as xd_leaf_update. */
static int sync_one(xd_shadow *shadow, uint32_t number, const uint64_t *page, xd_need *need, xd_retype *settled)
{
    xd_table *table = &shadow->tables[number];
    int changed;
    int error = xd_leaf_sync(shadow, number, page, need, &changed);
    if (!(table->flags & XD_TABLE_UNSYNCED))
        return error;
    shadow->counters->syncs++;
    if (changed) {
        table->life.unchanged = 0;
        table->flags |= XD_TABLE_CHANGED;
    } else {
        table->life.unchanged = (uint8_t)(table->life.unchanged + (table->life.unchanged < UINT8_MAX));
        if (table->life.unchanged >= table->life.calm)
            list_if_settled(shadow, number, settled);
    }
    return error;
}

static bool is_leaf(const xd_shadow *shadow, uint32_t number)
{
    const xd_table *table = &shadow->tables[number];
    return xd_level(table) == 1 && !(table->kind & XD_KIND_SPLIT);
}

uint32_t xd_leaves_sync(xd_shadow *shadow, uint32_t *numbers, uint32_t count, xd_need *need, xd_retype *settled)
{
    uint32_t left = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = numbers[i];
        if (i + 4 < count)
            __builtin_prefetch(&shadow->tables[numbers[i + 4]]);
        if (!is_leaf(shadow, number))
            continue; /* freed since the list was made; the number may be in use again */
        if (need->count == XD_ENTRIES || sync_one(shadow, number, NULL, need, settled) == -EAGAIN)
            numbers[left++] = number;
    }
    return left;
}

uint32_t xd_leaf_sync_from(xd_shadow *shadow, uint32_t number, const uint64_t *page, xd_need *need, xd_retype *settled)
{
    return is_leaf(shadow, number) && sync_one(shadow, number, page, need, settled) == -EAGAIN;
}

/* Whether the tables of a frame are leaf tables, and protected: the first is the highest. */
static bool may_be_unsynced(const xd_shadow *shadow, uint32_t number)
{
    const xd_table *table = &shadow->tables[number];
    return xd_level(table) == 1 && !(table->flags & XD_TABLE_UNSYNCED) &&
           xd_first_of_frame(shadow, table->gfn) == number;
}

int xd_unsync_is_due(const xd_shadow *shadow, uint32_t most)
{
    if (!shadow->candidates || !shadow->relaxed)
        return 0;
    if (shadow->candidates > most)
        return 1;
    for (uint32_t number = shadow->first_candidate; number; number = shadow->tables[number].next_unsynced) {
        const xd_table *table = &shadow->tables[number];
        bool again = table->flags & XD_TABLE_STORED_AGAIN;
        if (table->life.waited + 1 + again >= table->life.patience)
            return 1;
    }
    return 0;
}

uint32_t xd_unsync_begin(xd_shadow *shadow, uint32_t most, xd_retype *retype)
{
    retype->count = 0;
    for (; most && shadow->first_candidate && retype->count < XD_SLICE; most--) {
        uint32_t number = shadow->first_candidate;
        xd_table *table = &shadow->tables[number];
        xd_leaf_life *life = &table->life;
        bool again = table->flags & XD_TABLE_STORED_AGAIN;
        xd_forget_store(shadow, number);
        if (!shadow->relaxed || !may_be_unsynced(shadow, number))
            continue;
        if (again && life->unchanged) {
            life->calm = (uint8_t)(life->calm < XD_MOST_CALM ? 2 * life->calm : XD_MOST_CALM);
            life->unchanged = 0;
        }
        life->waited = (uint8_t)(life->waited + 1 + again);
        if (life->waited > XD_MOST_PATIENCE)
            life->waited = XD_MOST_PATIENCE;
        if (life->waited < life->patience || shadow->unsynced_tables + retype->count >= shadow->max_unsynced)
            continue;
        retype->numbers[retype->count] = number;
        retype->gfns[retype->count++] = table->gfn;
    }
    return retype->count;
}

void xd_unsync_finish(xd_shadow *shadow, const xd_retype *retype)
{
    for (uint32_t i = 0; i < retype->count; i++) {
        xd_leaf_life *life = &shadow->tables[retype->numbers[i]].life;
        if (retype->errors[i]) {
            xd_note_store(shadow, retype->numbers[i]);
            continue;
        }
        life->waited = life->unchanged = 0;
        xd_set_unsynced(shadow, retype->gfns[i], 1);
        shadow->counters->opened_pages++;
        shadow->counters->protected_pages--;
    }
}

uint32_t xd_resync_oldest(const xd_shadow *shadow, uint32_t count, xd_retype *retype)
{
    retype->count = 0;
    for (uint32_t number = shadow->first_unsynced; number && retype->count < XD_SLICE && count; count--) {
        const xd_table *table = &shadow->tables[number];
        if (xd_first_of_frame(shadow, table->gfn) == number) {
            retype->numbers[retype->count] = number;
            retype->gfns[retype->count++] = table->gfn;
        }
        number = table->next_unsynced;
    }
    return retype->count;
}

/* What a table that has settled learns from having been unsynced, now that it is protected. */
static void end_of_unsync(xd_table *table)
{
    xd_leaf_life *life = &table->life;
    if (life->unchanged < life->calm)
        life->unchanged = 0; /* it is protected for another reason */
    else if (table->flags & XD_TABLE_CHANGED)
        life->patience = XD_PATIENCE;
    else if (life->patience < XD_MOST_PATIENCE)
        life->patience = (uint8_t)(2 * life->patience);
    table->flags &= (uint8_t)~XD_TABLE_CHANGED;
}

uint32_t xd_resync_finish(xd_shadow *shadow, const xd_retype *retype, uint32_t *unread, xd_need *need)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < retype->count; i++) {
        if (retype->errors[i])
            continue;
        xd_set_unsynced(shadow, retype->gfns[i], 0);
        shadow->counters->protected_pages++;
        for (uint32_t number = retype->numbers[i]; number; number = shadow->tables[number].next_of_frame) {
            end_of_unsync(&shadow->tables[number]);
            unread[count++] = number; /* the frame of a leaf table has two at most, of 4 KiB and of 64 KiB entries */
        }
    }
    return xd_leaf_update_many(shadow, unread, count, need);
}
