#ifndef XD_SYNC_H
#define XD_SYNC_H
#include <stdint.h>
#include "shadow.h"

/*
 * Which tables of an address space must be synced at a submission, and how unsynced ones are resynced.
 *
 * A full sync (ppgtt/engine.py) repeats: collect the tables that need it; update the directories; resync and update the
 * leaf tables; until nothing is left. Most submissions find that nothing happened but stores to unsynced leaf tables.
 * These take the short way: xd_sync_begin_leaves, resync and update the leaf tables, xd_sync_end_leaves.
 */

/* The tables that a submission must sync. The caller owns the arrays. */
typedef struct xd_sync_work {
    uint32_t *directories; /* parents before children */
    uint32_t *leaves;
    uint32_t directory_count;
    uint32_t leaf_count;
    uint32_t capacity; /* numbers that each array has room for */
    uint32_t padding;
    uint64_t started;  /* xd_now() when xd_sync_begin_leaves was called */
} xd_sync_work;

/*
 * Collects the tables below `roots` that are unsynced, stale or have pending entries, and that this submission
 * (shadow->submission) has not collected yet. What exceeds the capacity is found by another call.
 *
 * roots: `count` numbers of root tables, 0 for none. Called by ppgtt/engine.py.
 */
void xd_sync_collect(xd_shadow *shadow, const uint32_t *roots, uint32_t count, xd_sync_work *work);

/*
 * Begins a submission that has only leaf tables to sync.
 *
 * gpas: the `count` root addresses of the space, 0 for none; roots: the numbers of their tables.
 * Returns how many leaf tables, in work->leaves, must be resynced and updated before xd_sync_end_leaves is called; 0 if
 * there are none, and then the submission has ended and is counted; -1 if there may be more to do than that, and then a
 * full sync must follow. Called by ppgtt/engine.py.
 */
int xd_sync_begin_leaves(xd_shadow *shadow, const uint64_t *gpas, const uint32_t *roots, uint32_t count,
                         xd_sync_work *work);
/*
 * Ends the submission that xd_sync_begin_leaves began, and counts it. Returns 0, or -1 if tables became stale
 * meanwhile: then it is not counted, and a full sync must follow. Called by ppgtt/engine.py.
 */
int xd_sync_end_leaves(xd_shadow *shadow, const xd_sync_work *work);

/*
 * Begins to resync the unsynced ones among `count` leaf tables: marks all tables of their frames as synced.
 *
 * gfns: room for `count`, receives their frames, which the caller write-protects before it updates the tables. others:
 * room for `count`, receives the tables of the same frames that this submission has not collected, which the caller
 * must update as well. Returns how many frames. Called by ppgtt/tree.py.
 */
uint32_t xd_resync_begin(xd_shadow *shadow, const uint32_t *leaves, uint32_t count, uint64_t *gfns, uint32_t *others,
                         uint32_t *other_count);
/*
 * Ends it: marks the frames that could not be protected as unsynced again, and counts.
 *
 * errors: `count` numbers, 0 for each frame that is protected now. Called by ppgtt/tree.py.
 */
void xd_resync_end(xd_shadow *shadow, const uint64_t *gfns, const int *errors, uint32_t count);

#endif
