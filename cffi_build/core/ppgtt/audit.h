#ifndef XD_AUDIT_H
#define XD_AUDIT_H
#include <stdint.h>
#include "shadow.h"

/*
 * Comparing the shadow with the guest's tables. The thread that serves the guest calls every function here.
 */

/* What an audit found. */
typedef struct xd_audit {
    uint64_t tables;     /* distinct tables below the roots */
    uint64_t unsynced;   /* of these, tables that were left out: not in sync, or not mapped */
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

/* An audit under way. */
typedef struct xd_auditor xd_auditor;

/*
 * Begins an audit, which compares each distinct table below the roots with the guest's page, entry by entry. Nothing is
 * changed. It is done in slices, and requests may be served between two of them: a table that comes, or moves to where
 * the audit was already, may be missed.
 *
 * An unsynced table that differs is left out: nobody can tell a store since the last sync from a fault. Unread tables are
 * always left out: they need not be right until the next sync. So are tables whose page is not mapped now, because an audit maps nothing (shadow.max_mapped_mib). A mapping of a frame that
 * is not RAM is always wrong. A pending entry is right in a directory; in a leaf it is if its frame is not RAM, or with
 * XD_AUDIT_AS_IT_IS. With XD_AUDIT_SYNCED, a pending entry of a directory is overdue if its frame is RAM, there is room
 * for a table, and the frame is not among the refused ones.
 *
 * roots, level: as in walk.h. how: one of the above. refused: `refused_count` frames, sorted, that could not be
 * write-protected in the sync just made; none otherwise. These, shadow and result must outlive the audit.
 * Returns NULL without memory. Called by ppgtt/read.py.
 */
xd_auditor *xd_audit_new(const xd_shadow *shadow, const uint32_t *roots, uint32_t level, uint32_t how,
                         const uint64_t *refused, uint32_t refused_count, xd_audit *result);
/*
 * Compares tables until about `looks` frames were looked up and entries compared, one table at least. Returns 1 at the
 * end of the audit, else 0. Called by ppgtt/read.py.
 */
int xd_audit_step(xd_auditor *audit, uint64_t looks);
/* Frees an audit, at its end or before; NULL is none. Called by ppgtt/read.py. */
void xd_audit_free(xd_auditor *audit);

#endif
