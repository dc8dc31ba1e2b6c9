#ifndef XD_SYNC_H
#define XD_SYNC_H
#include <stdint.h>
#include "need.h"
#include "shadow.h"

/*
 * Which tables of an address space must be synced at a submission, and how unsynced ones are resynced.
 *
 * A full sync (ppgtt/syncing.py) repeats: collect some tables that need it; update the directories; resync and update
 * the leaf tables; until a walk through all tables finds nothing. Requests are served between these steps. Most
 * submissions find that nothing happened but stores to unsynced leaf tables. These take the short way:
 * xd_sync_begin_leaves, resync and update the leaf tables, xd_sync_end_leaves; or xd_sync_slice_begin and
 * xd_sync_slice_end, if they are few.
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
 * full sync must follow. Called by xd_sync_slice_begin and tests.
 */
int xd_sync_begin_leaves(xd_shadow *shadow, const uint64_t *gpas, const uint32_t *roots, uint32_t count,
                         xd_sync_work *work);
/*
 * Ends the submission that xd_sync_begin_leaves began, and counts it. Returns 0, or -1 if tables became stale
 * meanwhile: then it is not counted, and a full sync must follow. Called by ppgtt/syncing.py.
 */
int xd_sync_end_leaves(xd_shadow *shadow, const xd_sync_work *work);

/* A slice of leaf tables that are resynced and updated: XD_SLICE at most. */
typedef struct xd_resync {
    uint32_t frames;                 /* of `gfns`: frames to protect */
    uint32_t count;                  /* of `numbers` */
    uint32_t numbers[2 * XD_SLICE]; /* tables to update; after xd_resync_finish, those that are unread */
    uint64_t gfns[XD_SLICE];
    int errors[XD_SLICE];           /* of the protector: 0 or an errno for each of `gfns` */
    xd_need need;
} xd_resync;

/*
 * Begins to resync the unsynced ones among `count` leaf tables: marks all tables of their frames as synced.
 *
 * leaves: their numbers, at most XD_SLICE. Lists in `resync` their frames, which the caller write-protects before it calls
 * xd_resync_finish, and the tables to update: the leaf tables themselves, and the tables of the same frames that this
 * submission has not collected. Returns how many frames. Called by ppgtt/leaves.py.
 */
uint32_t xd_resync_begin(xd_shadow *shadow, const uint32_t *leaves, uint32_t count, xd_resync *resync);
/*
 * Ends it: marks the frames that could not be protected as unsynced again, counts, and updates the tables.
 *
 * Returns how many tables could not be updated: they are in resync->numbers, and the chunks that must be queried for them
 * in resync->need. Called by ppgtt/leaves.py.
 */
uint32_t xd_resync_finish(xd_shadow *shadow, xd_resync *resync);

/*
 * Calls xd_sync_begin_leaves with `gpas`, `roots` and `count`, and then xd_resync_begin with `resync` if that returned
 * no more leaf tables than fit in a slice. Returns what xd_sync_begin_leaves does. Called by ppgtt/syncing.py.
 */
int xd_sync_slice_begin(xd_shadow *shadow, const uint64_t *gpas, const uint32_t *roots, uint32_t count,
                        xd_sync_work *work, xd_resync *resync);
/* Calls xd_resync_finish with `resync`, and then xd_sync_end_leaves. Returns what that does. Called by ppgtt/syncing.py. */
int xd_sync_slice_end(xd_shadow *shadow, const xd_sync_work *work, xd_resync *resync);

#endif
