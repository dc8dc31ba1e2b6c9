#ifndef XD_UNSYNC_H
#define XD_UNSYNC_H
#include <stdint.h>
#include "need.h"
#include "shadow.h"

/*
 * Unsynced leaf tables: how syncs read them, and which tables are unsynced and which are protected.
 *
 * A leaf table of relaxed mode is unsynced from the start (xd_update_born), and each sync of a space that reaches it
 * reads it. One that `calm` syncs in a row have found unchanged is *settled*: it is resynced, which is to say protected
 * and read. A store to a protected leaf table makes it a *candidate*: at the end of the next submission it is unsynced,
 * if its patience is over.
 *
 * Patience: to unsync a table and to resync it again costs about as much as a trap. So a table is unsynced after the
 * first submission before which several stores to it have trapped, or after the second before which one has. If it then
 * is not stored to before it has settled, that was for nothing, and the patience is doubled; if it is, it begins anew.
 * If several stores come at once to a table that had settled, it had settled too early, and `calm` is doubled.
 *
 * shadow: all tables of the guest. numbers: leaf tables. need: see need.h. The types of frames are changed by the
 * caller, between a begin and its finish. The thread that serves the guest calls every function here.
 */

/* Tables whose frames are to change their types, XD_SLICE at most. */
typedef struct xd_retype {
    uint32_t count;
    uint32_t numbers[XD_SLICE]; /* the first table of each frame */
    uint64_t gfns[XD_SLICE];
    int errors[XD_SLICE];       /* 0, or an errno for a frame whose type was not changed */
} xd_retype;

/*
 * Reads `count` leaf tables for a sync: unsynced ones are compared with their shadows, and updated if they differ; any
 * other one is updated. A number that is none of a leaf table by now is skipped.
 *
 * settled: receives the tables that are settled and not in it yet, as far as there is room.
 * Returns how many tables could not be updated because frames are unknown, as xd_leaf_update_many does. Called by
 * ppgtt/leaves.py, submit.c and sync.c.
 */
uint32_t xd_leaves_sync(xd_shadow *shadow, uint32_t *numbers, uint32_t count, xd_need *need, xd_retype *settled);
/*
 * The same for table `number`, from `page`, a copy of its guest page of XD_ENTRIES entries. Returns 0, or 1 if frames are
 * unknown. Called by ppgtt/leaves.py, where somebody watches what is read.
 */
uint32_t xd_leaf_sync_from(xd_shadow *shadow, uint32_t number, const uint64_t *page, xd_need *need, xd_retype *settled);

/*
 * Returns 1 if xd_unsync_begin, called for all candidates, may list any, or if these are more than `most`; else 0. Called
 * by submit.c.
 */
int xd_unsync_is_due(const xd_shadow *shadow, uint32_t most);
/*
 * Lists in `retype` candidates that are to be unsynced, the oldest first, and takes them off the list of candidates; so
 * it does with those that must wait, or are none any more. Looks at `most` candidates. Returns how many are listed.
 * Called by ppgtt/leaves.py and submit.c.
 */
uint32_t xd_unsync_begin(xd_shadow *shadow, uint32_t most, xd_retype *retype);
/*
 * Ends it: the frames in `retype` without an error are plain RAM now, and their tables unsynced. The others are candidates again.
 * Called by ppgtt/leaves.py.
 */
void xd_unsync_finish(xd_shadow *shadow, const xd_retype *retype);

/*
 * Lists in `retype` unsynced tables, the ones that were unsynced longest ago first, up to `count` and XD_SLICE of them.
 * Returns how many. Called by ppgtt/leaves.py, for strict mode.
 */
uint32_t xd_resync_oldest(const xd_shadow *shadow, uint32_t count, xd_retype *retype);
/*
 * The frames in `retype` without an error are write-protected now: marks their tables as synced, and updates them.
 *
 * Returns how many tables could not be updated because frames are unknown: their numbers are in `unread`, which has room
 * for 2 * XD_SLICE; the next sync does it if the caller does not. Called by ppgtt/leaves.py.
 */
uint32_t xd_resync_finish(xd_shadow *shadow, const xd_retype *retype, uint32_t *unread, xd_need *need);

#endif
