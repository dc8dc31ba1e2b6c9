#ifndef XD_AUDIT_H
#define XD_AUDIT_H
#include <stdint.h>
#include "shadow.h"

/* What an audit found. */
typedef struct xd_audit {
    uint64_t tables;     /* distinct tables below the roots */
    uint64_t unsynced;   /* of these, tables that were left out because they are compared only after the next sync */
    uint64_t entries;    /* entries compared that are present in the guest's table or in the shadow */
    uint64_t mismatches; /* entries of the shadow that are not what the guest's entry says */
    uint64_t overdue;    /* pending entries of directories that have no reason to be pending */
    uint64_t gfn;        /* the first mismatch: its table and kind, the entry, and what guest and shadow have there */
    uint32_t kind;
    uint32_t slot;
    uint64_t guest;
    uint64_t shadow;
} xd_audit;

/* How an audit takes tables that are not in sync. */
enum {
    XD_AUDIT_AS_IT_IS = 0, /* between submissions: stale tables are left out, pending entries are not judged */
    XD_AUDIT_SYNCED = 1,   /* just after a sync of the space: stale tables are compared, pending entries are judged */
    XD_AUDIT_TRAP_GAP = 2  /* stores may have gone unseen since the last sync: all tables are left out */
};

/*
 * Compares each distinct table below the roots with the guest's page, entry by entry. Nothing is changed.
 *
 * Unsynced tables are always left out: they need not be right until the next sync. A mapping of a frame that is not RAM
 * is always wrong. A pending entry is right in a directory; in a leaf it is if its frame is not RAM, or with
 * XD_AUDIT_AS_IT_IS. With XD_AUDIT_SYNCED, a pending entry of a directory is overdue if its frame is RAM, there is room
 * for a table, and the frame is not among the refused ones.
 *
 * roots, level: as in walk.h. how: one of the above. refused: `refused_count` frames, sorted, that could not be
 * write-protected in the sync just made; none otherwise.
 * Returns 0 or -ENOMEM. Called by ppgtt/read.py.
 */
int xd_audit_space(const xd_shadow *shadow, const uint32_t *roots, uint32_t level, uint32_t how,
                   const uint64_t *refused, uint32_t refused_count, xd_audit *result);

#endif
