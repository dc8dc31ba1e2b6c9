#ifndef XD_SYNC_H
#define XD_SYNC_H
#include <stdint.h>
#include "shadow.h"

/*
 * Which tables of an address space must be synced at a submission, and how unsynced ones are resynced.
 *
 * A full sync (ppgtt/syncing.py) repeats: collect some tables that need it; update the directories; resync and update
 * the leaf tables; until a walk through all tables finds nothing. Requests are served between these steps. Most
 * submissions find that nothing happened but stores to unsynced leaf tables. These take the short way:
 * xd_sync_begin_leaves, resync and update the leaf tables, xd_sync_end_leaves.
 *
 * work: the walk or submission under way, which the caller keeps from its begin to its end. One sync is made at a time:
 * the marks of a walk and of a submission are kept in the tables, those of `shadow`. The thread that serves the guest
 * calls every function here.
 */
enum { XD_SYNC_BATCH = 512, XD_SYNC_LEVELS = 4 };

/* How far a walk came in a directory: the next entry to look at. */
typedef struct xd_sync_place {
    uint32_t number;
    uint32_t next;
} xd_sync_place;

/* The tables that a submission must sync next, and the walk that collects them. */
typedef struct xd_sync_work {
    uint32_t directories[XD_SYNC_BATCH]; /* parents before children */
    uint32_t leaves[XD_SYNC_BATCH];
    uint32_t directory_count;
    uint32_t leaf_count;
    uint32_t roots[4];                   /* of the space; 0: no more */
    uint32_t next_root;
    uint32_t depth;                      /* of `path` */
    xd_sync_place path[XD_SYNC_LEVELS];  /* from a root down to where the walk is */
    uint64_t relinks;                    /* shadow->relinks when the walk began */
    uint64_t collected;                  /* tables that the walk collected */
    uint64_t started;                    /* xd_now() when xd_sync_begin_leaves was called */
} xd_sync_work;

/*
 * Begins a walk from the `count` roots down, whose state is `work`. roots: numbers of root tables, 0 for none. Called
 * by ppgtt/syncing.py.
 */
void xd_sync_walk(xd_shadow *shadow, const uint32_t *roots, uint32_t count, xd_sync_work *work);
/*
 * Goes on with the walk: collects tables that are unsynced, stale or have pending entries, and that this submission
 * (shadow->submission) has not collected yet, until a list is full or some thousand entries were looked at.
 *
 * Returns 1 if the walk is at its end, else 0. Tables may come and go between two calls: a table that is moved to where
 * the walk was already is missed, and then shadow->relinks has grown, and the caller walks once more. Called by
 * ppgtt/syncing.py.
 */
int xd_sync_collect(xd_shadow *shadow, xd_sync_work *work);

/*
 * Begins a submission that has only leaf tables to sync, and fewer than XD_SYNC_BATCH.
 *
 * gpas: the `count` root addresses of the space, 0 for none; roots: the numbers of their tables.
 * Returns how many leaf tables, in work->leaves, must be resynced and updated before xd_sync_end_leaves is called; 0 if
 * there are none, and then the submission has ended and is counted; -1 if there may be more to do than that, and then a
 * full sync must follow. Called by ppgtt/syncing.py.
 */
int xd_sync_begin_leaves(xd_shadow *shadow, const uint64_t *gpas, const uint32_t *roots, uint32_t count,
                         xd_sync_work *work);
/*
 * Ends the submission that xd_sync_begin_leaves began, and counts it. Returns 0, or -1 if tables became stale
 * meanwhile: then it is not counted, and a full sync must follow. Called by ppgtt/syncing.py.
 */
int xd_sync_end_leaves(xd_shadow *shadow, const xd_sync_work *work);

/*
 * Begins to resync the unsynced ones among `count` leaf tables: marks all tables of their frames as synced.
 *
 * gfns: room for `count`, receives their frames, which the caller write-protects before it updates the tables. others:
 * room for `count`, receives the tables of the same frames that this submission has not collected, which the caller
 * must update as well. other_count: receives how many these are. Returns how many frames. Called by ppgtt/leaves.py.
 */
uint32_t xd_resync_begin(xd_shadow *shadow, const uint32_t *leaves, uint32_t count, uint64_t *gfns, uint32_t *others,
                         uint32_t *other_count);
/*
 * Ends it: marks the frames that could not be protected as unsynced again, and counts.
 *
 * gfns, count: the frames that xd_resync_begin returned. errors: `count` numbers, 0 for each frame that is protected
 * now. Called by ppgtt/leaves.py.
 */
void xd_resync_end(xd_shadow *shadow, const uint64_t *gfns, const int *errors, uint32_t count);

#endif
