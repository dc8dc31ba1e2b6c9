#ifndef XD_UPDATE_H
#define XD_UPDATE_H
#include <stdint.h>
#include "directory.h"
#include "need.h"
#include "shadow.h"

/*
 * One slice of an update of a directory: XD_SLICE of its entries at most.
 *
 * ppgtt/tree.py calls xd_update_begin, write-protects the frames that it returns, and calls xd_update_finish. The steps
 * are those of directory.h, made here in one call for all entries of the slice.
 *
 * shadow: all tables of the guest. update: the memory of the slice. The thread that serves the guest calls every
 * function here.
 */

/* What came of a slice. Above CREATED it lacks something; after all of these but UNREAD_LEAVES, nothing has changed. */
enum {
    XD_UPDATE_DONE = 0,          /* the entries are updated; no table had to be created for them */
    XD_UPDATE_CREATED = 1,       /* tables are created; the caller protects their frames and calls xd_update_finish */
    XD_UPDATE_UNREAD_LEAVES = 2, /* of xd_update_finish: some leaf tables are unread, because chunks must be queried */
    XD_UPDATE_QUERY = 3,         /* chunks must be queried first; they are in `need` */
    XD_UPDATE_NO_ROOM = 4,       /* room for `needed` tables must be made first */
    XD_UPDATE_SHARED = 5,        /* the frames in `gfns`, which have tables already, must be protected again first */
    XD_UPDATE_GONE = 6           /* the page of the directory is not there any more */
};

/* How xd_update_begin goes about it; flags. */
enum {
    XD_UPDATE_WITHOUT_ROOM = 1,    /* leave out tables that the quota has no room for */
    XD_UPDATE_PROTECTED_AGAIN = 2, /* the caller did what XD_UPDATE_SHARED asks for; what is unsynced still is refused */
    XD_UPDATE_ONLY_ROOM = 4        /* return NO_ROOM as for all these entries, of any number; or DONE without an update */
};

/* The memory of a slice. Its content is good until the caller serves other requests. */
typedef struct xd_update {
    uint32_t number;                      /* the directory */
    uint32_t first, last;                 /* its entries */
    uint32_t count;                       /* of `missing` and `numbers` */
    uint32_t needed;                      /* tables that room is needed for */
    uint32_t directories;                 /* 1: the created tables are directories */
    uint32_t to_protect;                  /* of `gfns`: frames to protect */
    uint32_t unread;                      /* of `numbers`, after xd_update_finish */
    uint32_t numbers[XD_ENTRIES];         /* the created tables, 0 for one that was not; then those that are unread */
    uint64_t gfns[XD_SLICE];
    int errors[XD_SLICE];                 /* of the protector: 0 or an errno for each of `gfns` */
    uint32_t born;                        /* 1: the created tables may be unsynced from the start */
    uint64_t entries[XD_ENTRIES];         /* the guest's page */
    xd_missing_table missing[XD_ENTRIES];
    xd_need need;
} xd_update;

/*
 * Updates entries `first`..`last` of directory `number`, if all is there that it takes.
 *
 * flags: XD_UPDATE_*. Returns what it did. Called by ppgtt/tree.py.
 */
int xd_update_begin(xd_shadow *shadow, xd_update *update, uint32_t number, uint32_t first, uint32_t last,
                    uint32_t flags);
/*
 * Creates the table of a root, of frame `gfn` and this `kind`. The caller protects its frame, as after CREATED, but
 * does not call xd_update_finish. Called by ppgtt/tree.py.
 */
void xd_update_root(xd_shadow *shadow, xd_update *update, uint64_t gfn, uint32_t kind);
/*
 * Has created leaf tables be unsynced from the start, instead of protected: those whose frames have no error in
 * `errors`, up to shadow->max_unsynced. They are read by the next sync. Takes their frames out of `gfns`.
 *
 * Called by ppgtt/tree.py, after CREATED in relaxed mode, before it protects the other frames.
 */
void xd_update_born(xd_shadow *shadow, xd_update *update);
/* Removes the created tables whose frames have an error in `errors`. Called by ppgtt/tree.py, before it finishes. */
void xd_update_refused(xd_shadow *shadow, xd_update *update);
/*
 * Removes all tables that were created just now, as if xd_update_begin or xd_update_root had not been called. Returns how
 * many of their frames have no error in `errors`; they are in `gfns`, and the caller unprotects them. Called by
 * ppgtt/tree.py, if some cannot be protected yet.
 */
uint32_t xd_update_undo(xd_shadow *shadow, xd_update *update);
/*
 * Ends an update for which xd_update_begin returned CREATED: updates the created tables if they are protected leaf
 * tables, and links the entries. Created directories are not updated; the caller gets a reference to each.
 *
 * Returns CREATED; or UNREAD_LEAVES, and the leaf tables that could not be updated are in `numbers`, and the chunks that
 * must be queried for them in `need`. Called by ppgtt/tree.py.
 */
int xd_update_finish(xd_shadow *shadow, xd_update *update);

#endif
