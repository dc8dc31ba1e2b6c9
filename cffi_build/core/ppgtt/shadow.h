#ifndef XD_SHADOW_H
#define XD_SHADOW_H
#include <stdint.h>
#include "frames.h"
#include "stats.h"

/*
 * The shadow tables of one domain: a 4 KiB page and a record for each, an index by guest frame, and reference counts.
 *
 * A shadow table stands for one guest table at one level; its key is (frame, kind), because the guest may use one frame
 * at several levels at once. `kind` is the level, with XD_KIND_64K if the entries of a leaf are 64 KiB ones. A table
 * with XD_KIND_SPLIT has no guest table: it stands for a 2 MiB page that is RAM only in part, and is not in the index.
 *
 * A shadow entry is one of
 *
 *   in a leaf       the frame as the GPU sees it | PRESENT | WRITABLE, PWT, PCD, PAT of the guest entry;
 *   in a directory  (number of the child's shadow table << 12) | PRESENT | WRITABLE, or a 2 MiB leaf entry;
 *   0               the guest entry maps nothing;
 *   XD_PENDING      the guest entry is present but cannot be honoured now: its frame is a hole, there is no room for
 *                   its table, or the frame cannot be write-protected. Not present to a GPU; tried again at each sync;
 *   XD_REFUSED      the guest entry asks for what no shadow can say (a 1 GiB page). Not present to a GPU; final.
 *
 * A leaf table is *unsynced* if its frame is not write-protected: the guest changes it unseen, and each sync reads it
 * (unsync.h). A table is *stale* if its entries were last checked in an earlier epoch. A table is *unread*
 * while an update of it is under way that takes more than one slice (ppgtt/tree.py), from the moment it is added to
 * begin with. It counts as stale, so the next sync reads it if it was not read by then.
 *
 * number: an index into `tables` and `pages`, 1..max_tables; 0 is no table. roots: an address space's root tables, 1 of
 * level 4 or 4 of level 2, 0 for a root that has no table.
 * shadow: all tables of one guest; gfn: a frame; kind: of a table, as above. Thread: every function belongs to the
 * thread that serves the guest.
 */
/* The types of so many frames are changed between two looks at the ioreq slots, at most; see xengt_dm/steps.py. */
enum { XD_SLICE = 64 };
enum { XD_PENDING = 2, XD_REFUSED = 4 };
enum { XD_LEVEL_MASK = 7, XD_KIND_64K = 8, XD_KIND_SPLIT = 16 };
enum {
    XD_TABLE_UNSYNCED = 1,
    XD_TABLE_UNREFERENCED = 2, /* in the list of tables that xd_free_unreferenced frees */
    XD_TABLE_BLANK = 4,        /* a leaf whose page has not been written since the table was added */
    XD_TABLE_UNREAD = 8,       /* its entries are about to be updated, since it was added or the guest changed them */
    /* Of leaf tables; see unsync.h. Of the tables of one frame, only the first has a STORED. */
    XD_TABLE_STORED = 16,       /* a candidate: a store to it has trapped, and it is in the list of candidates */
    XD_TABLE_STORED_AGAIN = 32, /* of a candidate: another store has trapped since the submission before */
    XD_TABLE_CHANGED = 64       /* of an UNSYNCED table: a sync has found it changed since it was unsynced */
};
/* Unsynced tables at most; a leaf table above that is protected. Each is read at each sync of a space that reaches it. */
enum { XD_MOST_UNSYNCED = 16384 };

/*
 * What decides whether a leaf table is protected or unsynced; see unsync.h. It begins with XD_CALM and XD_PATIENCE, and
 * never grows beyond the others.
 */
enum { XD_CALM = 16, XD_MOST_CALM = 128, XD_PATIENCE = 2, XD_MOST_PATIENCE = 64 };
typedef struct xd_leaf_life {
    uint8_t unchanged; /* syncs in a row that found it unchanged; kept while it is protected because of that */
    uint8_t calm;      /* after so many of them it is protected */
    uint8_t waited;    /* submissions for which it has been a candidate; one with several stores counts as two */
    uint8_t patience;  /* after so many of them it is unsynced */
} xd_leaf_life;

typedef struct xd_table {
    uint64_t gfn;               /* the guest table; of a SPLIT, the first frame of its 2 MiB page */
    union {
        uint64_t visited;       /* of a directory: shadow->walk of the last walk that came here */
        xd_leaf_life life;      /* of a leaf */
    };
    uint64_t synced_in;         /* shadow->submission of the last submission that synced it */
    uint64_t epoch;             /* shadow->epoch when all its entries were last checked */
    uint32_t refs;              /* shadow entries, roots and jobs that point here */
    union {
        uint32_t next_of_frame; /* the next table of the same frame, of the same level or a lower one */
        uint32_t next_free;     /* of a number that is not in use: the next one */
    };
    union {
        uint32_t next_in_bucket; /* of a frame's first table: that of the next frame in the bucket */
        uint32_t attributes;     /* of a SPLIT: the attributes of its 2 MiB entry, at the bits of a 4 KiB entry */
    };
    uint32_t next_unreferenced; /* of an UNREFERENCED table: the next one */
    uint32_t previous_unsynced; /* of an UNSYNCED or STORED table: its neighbours in the list of these, oldest first */
    uint32_t next_unsynced;
    uint32_t parent;            /* a directory with an entry that points here; 0: none is known */
    uint16_t pending;           /* entries to try again at each sync: XD_PENDING ones, and links to SPLIT tables */
    uint8_t kind;               /* 0: not in use */
    uint8_t flags;
} xd_table;

typedef struct xd_shadow {
    xd_frames *frames;
    xd_counters *counters;
    xd_table *tables;
    uint64_t *pages;           /* XD_ENTRIES shadow entries a table */
    uint32_t *buckets;         /* by hash of a frame: the number of a frame's first table */
    uint32_t bucket_mask;
    uint32_t max_tables;       /* the quota */
    uint32_t used;             /* numbers 1..used were handed out at least once */
    uint32_t live;             /* tables in use */
    uint32_t first_free;
    uint32_t first_unreferenced;
    uint32_t relaxed;          /* 1: relaxed mode, in which stores to leaf tables make them candidates */
    uint32_t max_unsynced;     /* XD_MOST_UNSYNCED, or what a test has put here */
    uint32_t unsynced_tables;
    uint32_t first_unsynced, last_unsynced;
    uint32_t candidates;       /* STORED tables */
    uint32_t first_candidate, last_candidate;
    uint32_t held;             /* 1: stores to some frame must not be answered now; ppgtt/ports.py, Protector.held */
    uint32_t pending_tables;   /* tables with pending entries */
    uint32_t has_64k;          /* 1: the IPS bit of an entry has a meaning (generation 9, register 0x4080) */
    uint32_t wants_64k;        /* what has_64k becomes at the next sync */
    uint32_t stale_tables;     /* tables of an earlier epoch, and UNREAD ones */
    uint64_t walk;             /* counts walks from the roots down */
    uint64_t submission;       /* counts submissions */
    uint64_t epoch;            /* counts the events after which every entry must be checked again; never 0 */
    uint64_t relinks;          /* counts links to tables that were there before and may need a sync */
    uint64_t hash_keys[2];     /* random, so that a guest cannot choose frames that share a bucket */
} xd_shadow;

/*
 * Returns an empty set of at most `max_tables` shadow tables, or NULL without memory. `frames` and `counters` must
 * outlive it. The keys of the hash are random numbers of the kernel's. Called by ppgtt/tree.py.
 */
xd_shadow *xd_shadow_new(xd_frames *frames, xd_counters *counters, uint32_t max_tables);
/* Frees the tables; NULL is none. Called by ppgtt/tree.py. */
void xd_shadow_free(xd_shadow *shadow);

/*
 * Returns the frame's table of the highest level; next_of_frame leads to the others. 0 if it has none. Called by
 * ppgtt/leaves.py, ppgtt/stores.py, ppgtt/tree.py, gpu_memory.c and C files of this folder.
 */
uint32_t xd_first_of_frame(const xd_shadow *shadow, uint64_t gfn);
/*
 * Returns the frame's table of this kind, or 0. Called by ppgtt/check.py, ppgtt/stores.py, ppgtt/tree.py, directory.c
 * and streamer.c.
 */
uint32_t xd_find(const xd_shadow *shadow, uint64_t gfn, uint32_t kind);
/*
 * Adds an empty table without references. Returns its number, or 0 if the quota is used up. The page of a leaf is not
 * cleared, because the caller is about to write all of it: until then the table is BLANK. Called by directory.c.
 */
uint32_t xd_add(xd_shadow *shadow, uint64_t gfn, uint32_t kind);
/* Removes a table that nothing points to. Called by update.c. */
void xd_remove(xd_shadow *shadow, uint32_t number);
/*
 * Clears the page of a BLANK table. Called by leaf.c, directory.c and update.c, before the page is read or a part of it written.
 */
void xd_clear_blank(xd_shadow *shadow, uint32_t number);

/* Adds a reference. Called by ppgtt/tree.py, directory.c and update.c. */
void xd_ref(xd_shadow *shadow, uint32_t number);
/*
 * Drops a reference. A table without references stays in the index, so that it can be referenced again, until
 * xd_free_unreferenced is called; a SPLIT is removed at once. Called by ppgtt/tree.py and directory.c.
 */
void xd_unref(xd_shadow *shadow, uint32_t number);
/*
 * Adds the reference of an entry: `parent` is the directory that has it, `child` the table that it points to. Called by
 * directory.c.
 */
void xd_link_to(xd_shadow *shadow, uint32_t parent, uint32_t child);
/* Drops the reference that xd_link_to added for `parent` and `child`. Called by directory.c. */
void xd_unlink(xd_shadow *shadow, uint32_t parent, uint32_t child);
/*
 * Frees tables without references, and the tables below them that lose their last reference by that.
 *
 * gfns: room for `capacity` frames; receives those that have no table any more and are protected. Frees at most
 * `capacity` tables. Returns how many frames. The caller repeats the call until first_unreferenced is 0. Called by
 * ppgtt/tree.py.
 */
uint32_t xd_free_unreferenced(xd_shadow *shadow, uint64_t *gfns, uint32_t capacity);

/*
 * Starts an epoch: every entry of every table must be checked again. Called by ppgtt/stores.py and ppgtt/syncing.py,
 * after frames came or went, or IPS changed its meaning.
 */
void xd_new_epoch(xd_shadow *shadow);

/*
 * Marks all tables of a frame as unread: their guest table changed, and they are updated later. Called by
 * ppgtt/stores.py, ppgtt/tree.py, cs.c and guest_store.c.
 */
void xd_set_frame_unread(xd_shadow *shadow, uint64_t gfn);

/*
 * Notes that all tables of a frame are unsynced (`unsynced` is 1) or synced (0). The caller changes the protection of
 * the frame. Called by ppgtt/leaves.py, unsync.c, update.c and
 * tests.
 */
void xd_set_unsynced(xd_shadow *shadow, uint64_t gfn, int unsynced);
/*
 * Notes that a store to leaf table `number`, the first of its frame, has trapped: it is a candidate from here on.
 * Called by guest_store.c and unsync.c.
 */
void xd_note_store(xd_shadow *shadow, uint32_t number);
/* Takes a candidate off the list and forgets its stores. Called by unsync.c. */
void xd_forget_store(xd_shadow *shadow, uint32_t number);

#endif
