#ifndef XD_SYNC_H
#define XD_SYNC_H
#include <stdint.h>
#include "need.h"
#include "shadow.h"
#include "unsync.h"

/*
 * Which tables of an address space must be synced at a submission, and the sync of those that are leaf tables.
 *
 * A full sync (ppgtt/syncing.py) repeats: collect some tables that need it; update the directories; read the leaf
 * tables; until a walk through all tables finds nothing. Requests are served between these steps. Most submissions find
 * that nothing happened but stores to unsynced leaf tables. These take the short way: xd_sync_begin, and xd_sync_more
 * for each further slice.
 *
 * work: the walk or submission under way, which the caller keeps from its begin to its end. One sync is made at a time:
 * the marks of a walk and of a submission are kept in the tables, those of `shadow`. The thread that serves the guest
 * calls every function here.
 */
/* So many tables are read in a slice: some hundred microseconds if all of them changed. */
enum { XD_SYNC_BATCH = 256, XD_SYNC_LEVELS = 4 };
/* What came of a slice of a submission. */
enum {
    XD_SYNC_FULL = -1, /* there may be more to do than to read leaf tables: a full sync must follow */
    XD_SYNC_DONE = 0,  /* the submission has ended, and is counted */
    XD_SYNC_MORE = 1   /* xd_sync_more is to be called, once requests have been served */
};

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
    uint64_t started;                    /* xd_now() when xd_sync_begin was called */
    xd_need need;
    xd_retype *settled;                  /* receives the settled tables that a slice has found; the caller's */
} xd_sync_work;

/*
 * Begins a walk from the `count` roots down, whose state is `work`. roots: numbers of root tables, 0 for none. Called
 * by ppgtt/syncing.py.
 */
void xd_sync_walk(xd_shadow *shadow, const uint32_t *roots, uint32_t count, xd_sync_work *work);
/*
 * Continues the walk: collects tables that are unsynced, stale or have pending entries, and that this submission
 * (shadow->submission) has not collected yet, until a list is full or some thousand entries were looked at.
 *
 * Returns 1 if the walk is at its end, else 0. Tables may come and go between two calls: a table that is moved to where
 * the walk was already is missed, and then shadow->relinks has grown, and the caller walks once more. Called by
 * ppgtt/syncing.py.
 */
int xd_sync_collect(xd_shadow *shadow, xd_sync_work *work);

/*
 * Begins a submission of a space that may have nothing to sync but unsynced leaf tables, and reads XD_SYNC_BATCH of
 * these at most.
 *
 * gpas: the `count` root addresses of the space, 0 for none; roots: the numbers of their tables. `only_collect`: 1 to
 * leave them in work->leaves instead of reading them, and then the caller does that before it calls xd_sync_more.
 * Returns XD_SYNC_*. Called by ppgtt/syncing.py.
 */
int xd_sync_begin(xd_shadow *shadow, const uint64_t *gpas, const uint32_t *roots, uint32_t count, xd_sync_work *work,
                  int only_collect);
/*
 * Appends to work->leaves the tables that the submission of a space must read, if it has nothing else to sync and if
 * they fit. gpas, roots, count: as of xd_sync_begin. Returns 1, or 0 if that is not so. Called by submit.c.
 */
int xd_sync_list(xd_shadow *shadow, const uint64_t *gpas, const uint32_t *roots, uint32_t count, xd_sync_work *work);
/*
 * The next slice of the submission; `only_collect` as above. Between two slices, tables may come and go. Returns
 * XD_SYNC_*. Called by ppgtt/syncing.py.
 */
int xd_sync_more(xd_shadow *shadow, xd_sync_work *work, int only_collect);

#endif
