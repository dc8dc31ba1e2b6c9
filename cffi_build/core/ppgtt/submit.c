#include "submit.h"

#include "table.h"
#include "unsync.h"

#include <stdbool.h>

/* Returns whether nothing is to be done for any space but to read unsynced leaf tables. */
static bool may_submit(const xd_submit *submit, uint32_t count)
{
    const xd_live_spaces *spaces = submit->spaces;
    return !submit->syncing && !submit->blocked && spaces->count <= XD_SUBMIT_SPACES &&
           spaces->recent_count < XD_SUBMIT_RECENT &&
           (uint64_t)count * submit->shadow->unsynced_tables <= XD_SUBMIT_WAYS &&
           !xd_unsync_is_due(submit->shadow, XD_SUBMIT_CANDIDATES);
}

/* Returns whether a table that is unchanged settles at this sync. */
static bool may_settle(const xd_table *table)
{
    return table->flags & XD_TABLE_UNSYNCED && table->life.unchanged + 1 >= table->life.calm;
}

/* Lists the tables to be read for `count` spaces. Returns false if there is more to do, or may be. */
static bool list_tables(xd_submit *submit, const xd_live_space *rows, uint32_t count)
{
    xd_shadow *shadow = submit->shadow;
    xd_sync_work *work = submit->work;
    uint64_t before = shadow->submission;
    uint64_t submissions[XD_SYNC_BATCH]; /* by table that is listed */
    work->directory_count = work->leaf_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t listed = work->leaf_count;
        if (!xd_sync_list(shadow, rows[i].gpas, rows[i].roots, rows[i].count, work))
            return false;
        while (listed < work->leaf_count)
            submissions[listed++] = before + i + 1;
    }
    for (uint32_t i = 0; i < work->leaf_count; i++) {
        const xd_table *table = &shadow->tables[work->leaves[i]];
        if (table->synced_in != submissions[i])
            return false; /* another space has it, too */
        if (shadow->relaxed && may_settle(table))
            return false;
    }
    return true;
}

/* Counts the submissions of `count` spaces, which have taken as long as all together divided by their number. */
static void count_submissions(xd_counters *counters, uint32_t count, uint64_t started)
{
    counters->submissions += count;
    uint64_t each = count ? (xd_now() - started) / count : 0;
    for (uint32_t i = 0; i < count; i++)
        xd_histogram_add(&counters->timing.syncs, each);
}

static int submit_rows(xd_submit *submit, const xd_live_space *rows, uint32_t count)
{
    xd_shadow *shadow = submit->shadow;
    xd_sync_work *work = submit->work;
    if (!may_submit(submit, count))
        return XD_SUBMIT_LEFT;
    uint64_t started = xd_now();
    xd_frames_invalidate_holes(shadow->frames);
    if (!list_tables(submit, rows, count))
        return XD_SUBMIT_LEFT;
    work->need.count = work->settled->count = 0;
    xd_leaves_sync(shadow, work->leaves, work->leaf_count, &work->need, work->settled);
    if (shadow->stale_tables)
        return XD_SUBMIT_LEFT;
    count_submissions(shadow->counters, count, started);
    if (shadow->candidates)
        xd_unsync_begin(shadow, shadow->candidates, work->settled); /* lists none: none is due */
    return XD_SUBMIT_DONE;
}

/* Notes for Python which space was submitted last. */
static void note(xd_live_spaces *spaces, uint32_t row)
{
    if (!spaces->recent_count || spaces->recent[spaces->recent_count - 1] != row)
        spaces->recent[spaces->recent_count++] = (uint16_t)row;
}

int xd_submit_all(xd_submit *submit)
{
    xd_live_spaces *spaces = submit->spaces;
    if (submit_rows(submit, spaces->rows, spaces->count) != XD_SUBMIT_DONE)
        return XD_SUBMIT_LEFT;
    note(spaces, XD_SUBMIT_ALL);
    return XD_SUBMIT_DONE;
}

int xd_submit_one(xd_submit *submit, uint64_t gpa, uint32_t count)
{
    xd_live_spaces *spaces = submit->spaces;
    for (uint32_t row = 0; row < spaces->count && row < XD_SUBMIT_SPACES; row++) {
        const xd_live_space *one = &spaces->rows[row];
        if (one->count != count || one->gpas[0] != gpa)
            continue;
        if (submit_rows(submit, one, 1) != XD_SUBMIT_DONE)
            return XD_SUBMIT_LEFT;
        note(spaces, row);
        return XD_SUBMIT_DONE;
    }
    return XD_SUBMIT_LEFT;
}
