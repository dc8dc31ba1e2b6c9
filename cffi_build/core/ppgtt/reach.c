/* What a submission has to look at. */
#include "entry_bits.h"
#include "kernels.h"

enum { TOP_LEVEL = 4 }; /* tables of this level are roots, and nothing else */

static bool to_be_attended(const xd_shadow *shadow, const xd_table *table)
{
    return (table->flags & XD_TABLE_OPEN || table->waiting || table->era != shadow->era) &&
           !(table->kind & XD_KIND_SPLIT) && table->attended != shadow->submission;
}

static void attend(xd_shadow *shadow, uint32_t number, uint32_t *numbers, uint32_t *count, uint32_t capacity)
{
    xd_table *table = &shadow->tables[number];
    if (*count == capacity || !to_be_attended(shadow, table))
        return;
    table->attended = shadow->submission;
    numbers[(*count)++] = number;
}

/* Below a directory. Of leaves there are many, most of them need nothing, and looking at one twice costs little. */
static void reach(xd_shadow *shadow, uint32_t number, xd_reached *reached)
{
    xd_table *table = &shadow->tables[number];
    if (table->seen == shadow->traversal)
        return;
    table->seen = shadow->traversal;
    attend(shadow, number, reached->directories, &reached->directory_count, reached->capacity);
    const uint64_t *entries = xd_page(shadow, number);
    bool above_leaves = xd_level(table) == 2;
    uint64_t same = 0;
    for (uint32_t i = 0; i < XD_ENTRIES; i++) {
        if (entries[i] == same || !xd_is_link(entries[i]))
            continue;
        same = entries[i];
        if (above_leaves)
            attend(shadow, xd_child(same), reached->leaves, &reached->leaf_count, reached->capacity);
        else
            reach(shadow, xd_child(same), reached);
    }
}

typedef enum { BELOW, ELSEWHERE, UNCLEAR } place;

/* Whether a table lies below these roots, as far as one way up from it tells. */
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
 * The open tables below the roots, from the tables upwards: they are few, a space has thousands. False if one does not
 * know all that it is named by; then only the way down tells.
 */
static bool reach_open(xd_shadow *shadow, const uint32_t *roots, uint32_t count, xd_reached *reached)
{
    for (uint32_t number = shadow->first_open; number; number = shadow->tables[number].open_after) {
        place where = place_of(shadow, number, roots, count);
        if (where == UNCLEAR)
            return false;
        if (where == BELOW)
            attend(shadow, number, reached->leaves, &reached->leaf_count, reached->capacity);
    }
    return true;
}

void xd_reach(xd_shadow *shadow, const uint32_t *roots, uint32_t count, xd_reached *reached)
{
    reached->directory_count = reached->leaf_count = 0;
    if (!shadow->waiting_tables && !shadow->stale_tables && reach_open(shadow, roots, count, reached))
        return;
    shadow->traversal++;
    for (uint32_t i = 0; i < count; i++)
        if (roots[i])
            reach(shadow, roots[i], reached);
}

int xd_submit_leaves(xd_shadow *shadow, const uint64_t *roots, const uint32_t *numbers, uint32_t count,
                     xd_reached *reached)
{
    reached->started = xd_now();
    xd_frames_doubt_holes(shadow->frames);
    if (shadow->waiting_tables || shadow->stale_tables || shadow->wants_64k != shadow->has_64k)
        return -1;
    for (uint32_t i = 0; i < count; i++)
        if (roots[i] && (!numbers[i] || xd_frames_state(shadow->frames, roots[i] >> XD_FRAME_SHIFT) != XD_FRAME_RAM))
            return -1;
    shadow->submission++;
    xd_reach(shadow, numbers, count, reached);
    return reached->leaf_count < reached->capacity ? (int)reached->leaf_count : -1;
}

int xd_leaves_submitted(xd_shadow *shadow, const xd_reached *reached)
{
    if (shadow->stale_tables)
        return -1;
    shadow->counters->submissions++;
    xd_observe(&shadow->counters->timing.syncs, reached->started);
    return 0;
}

uint32_t xd_close_frames(xd_shadow *shadow, const uint32_t *leaves, uint32_t count, uint64_t *gfns, uint32_t *others,
                         uint32_t *other_count)
{
    uint32_t closed = 0;
    *other_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        const xd_table *table = &shadow->tables[leaves[i]];
        if (!(table->flags & XD_TABLE_OPEN))
            continue;
        xd_set_open(shadow, table->gfn, 0);
        gfns[closed++] = table->gfn;
        /* A leaf frame has at most two shadows, of 4 KiB and of 64 KiB entries. */
        for (uint32_t number = xd_first_of_frame(shadow, table->gfn); number; number = shadow->tables[number].same_frame)
            if (shadow->tables[number].attended != shadow->submission)
                others[(*other_count)++] = number;
    }
    return closed;
}

void xd_frames_closed(xd_shadow *shadow, const uint64_t *gfns, const int *errors, uint32_t count)
{
    uint32_t failed = 0;
    for (uint32_t i = 0; i < count; i++)
        if (errors[i]) {
            xd_set_open(shadow, gfns[i], 1);
            failed++;
        }
    shadow->counters->syncs += count;
    shadow->counters->protected_pages += count - failed;
}
