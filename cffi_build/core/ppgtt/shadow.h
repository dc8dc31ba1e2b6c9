#ifndef XD_SHADOW_H
#define XD_SHADOW_H
#include <stdint.h>
#include "frames.h"
#include "stats.h"

/*
 * The shadow tables of one domain: an arena of 4 KiB shadow pages, a record for each, and an index by guest frame.
 *
 * A shadow is keyed by (frame, kind), the kind being the level and whether the entries are 64 KiB ones, because one
 * guest frame may serve at several levels at once. The shadows of one frame are chained in `same_frame`, highest level
 * first. A shadow entry is
 *
 *   in a leaf       the frame as the GPU sees it | PRESENT | WRITABLE, PWT, PCD, PAT of the guest's entry;
 *   in a directory  (number of the child's shadow << 12) | PRESENT | WRITABLE, or a 2 MiB leaf like the guest's;
 *   0               where the guest's entry maps nothing;
 *   XD_WAITING      where the guest's entry is present but cannot be honoured now: a hole, the quota, a page that Xen
 *                   does not let us protect. Not present to a GPU; looked at again at each submission.
 *
 *   XD_REFUSED      where it asks for what no table here can say (a 1 GiB page). Not present either, and final.
 *
 * Number 0 is no table. All functions belong to one thread.
 */
enum { XD_WAITING = 2, XD_REFUSED = 4 };
enum { XD_LEVEL_MASK = 7, XD_KIND_64K = 8, XD_KIND_SPLIT = 16 };
enum { XD_TABLE_OPEN = 1, XD_TABLE_DYING = 2, XD_TABLE_BLANK = 4 /* a leaf, its page not yet written since it was new */ };

typedef struct xd_table {
    uint64_t gfn;        /* of the guest's table; of a SPLIT, the first frame of the 2 MiB page it stands for */
    uint32_t refs;       /* shadow entries and roots that point here */
    uint32_t same_frame; /* next shadow of this frame; or next in the free list */
    uint32_t bucket_next;
    uint32_t seen;       /* last traversal that came here; of a dying table, the next one */
    uint32_t attended;   /* last submission that brought it up to date */
    uint32_t parent;     /* a directory that has an entry which points here; 0: not known */
    uint32_t open_before, open_after; /* of an open table: its neighbours among them */
    uint32_t era;        /* shadow->era when all its entries were last checked */
    uint16_t waiting;    /* entries that are XD_WAITING, or a split that is not whole */
    uint16_t attributes; /* of a SPLIT: the leaf bits of the entry it stands for */
    uint8_t kind;        /* 0: not in use */
    uint8_t flags;
    uint8_t padding[2];
} xd_table;

typedef struct xd_shadow {
    xd_frames *frames;
    xd_counters *counters;
    xd_table *tables;
    uint64_t *pages;
    uint32_t *buckets;
    uint32_t bucket_mask;
    uint32_t max_tables;
    uint32_t used;       /* numbers ever handed out, 1..used */
    uint32_t live;
    uint32_t free_list;
    uint32_t dying;      /* list of tables without references, not yet taken apart */
    uint32_t traversal;
    uint32_t submission;
    uint32_t open_tables;
    uint32_t first_open, last_open; /* the open tables, in the order in which they were opened */
    uint32_t waiting_tables;
    uint32_t has_64k;    /* generation 9 with register 0x4080 saying so: the IPS bit counts */
    uint32_t wants_64k;  /* what has_64k is to be from the next submission on */
    uint32_t era;        /* counts the changes after which every entry must be looked at again */
    uint32_t stale_tables; /* of an earlier era */
} xd_shadow;

xd_shadow *xd_shadow_new(xd_frames *frames, xd_counters *counters, uint32_t max_tables);
void xd_shadow_free(xd_shadow *shadow);

/* The first shadow of a frame, and the one of a kind; 0 if there is none. */
uint32_t xd_first_of_frame(const xd_shadow *shadow, uint64_t gfn);
uint32_t xd_find(const xd_shadow *shadow, uint64_t gfn, uint32_t kind);
/*
 * A new empty shadow with no references, or 0 if the quota is used up. A leaf's page is not cleared, because all of it is
 * about to be written; until it was, the leaf is BLANK, and linking clears what is BLANK still.
 */
uint32_t xd_add(xd_shadow *shadow, uint64_t gfn, uint32_t kind);
/* Take a shadow without references out at once; its page is given back. */
void xd_remove(xd_shadow *shadow, uint32_t number);

void xd_ref(xd_shadow *shadow, uint32_t number);
/* Drop a reference; at zero the table joins the dying. */
void xd_unref(xd_shadow *shadow, uint32_t number);
/*
 * Take up to `capacity` dying tables apart, children included as they die. Writes the frames that no shadow has any
 * more to `gfns` and returns how many; call again until it returns 0 and `dying` is 0.
 */
uint32_t xd_bury(xd_shadow *shadow, uint64_t *gfns, uint32_t capacity);

/* What every table says must be looked at again: frames left or came, or the IPS bit changed its meaning. */
void xd_new_era(xd_shadow *shadow);

/* Mark or unmark all shadows of a frame as open: writable to the guest, to be synchronised before use. */
void xd_set_open(xd_shadow *shadow, uint64_t gfn, int open);

#endif
