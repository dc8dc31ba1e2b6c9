#ifndef XD_WALK_H
#define XD_WALK_H
#include <stdint.h>
#include "shadow.h"

/*
 * Reading the shadow as a GPU would, and checking it against the guest's tables.
 *
 * An address space is 1 root of level 4 or 4 roots of level 2 (`level` tells which); root 0 maps nothing.
 */
typedef struct xd_run {
    uint64_t va;
    uint64_t length; /* bytes */
    uint64_t gpa;
    uint32_t writable;
    uint32_t cache; /* 4*PAT + 2*PCD + PWT */
} xd_run;

/*
 * How many maximal runs of pages the space maps: consecutive va, consecutive gpa, same attributes. Work is bounded by
 * the number of distinct tables. UINT64_MAX if there is no memory.
 */
uint64_t xd_count_runs(const xd_shadow *shadow, const uint32_t *roots, uint32_t level);
/* Write them, in order of va. `runs` has room for what xd_count_runs said. Returns the count. */
uint64_t xd_list_runs(const xd_shadow *shadow, const uint32_t *roots, uint32_t level, xd_run *runs);

/*
 * The runs as JSON, `[va,length,gpa,writable,cache]` each, with commas between them; returns how many bytes. `to` has
 * room for XD_RUN_JSON bytes a run.
 */
enum { XD_RUN_JSON = 112 };
uint64_t xd_runs_json(const xd_run *runs, uint64_t count, char *to);

/* The page at va as a run of 4 KiB, or length 0 if nothing is mapped. */
xd_run xd_resolve(const xd_shadow *shadow, const uint32_t *roots, uint32_t level, uint64_t va);

typedef struct xd_audit {
    uint64_t tables;
    uint64_t entries;    /* present in the guest or in the shadow */
    uint64_t mismatches;
    uint64_t overdue;    /* directory entries that wait for nothing */
    uint64_t gfn;        /* the first mismatch: table, its kind, entry, what the guest and the shadow say there */
    uint32_t kind;
    uint32_t slot;
    uint64_t guest;
    uint64_t shadow;
} xd_audit;

/*
 * Compare each distinct table below the roots with the guest's page. Open tables are passed over: they are by
 * definition not in line until the next submission. An entry that waits is in line if its frame is no RAM, or if it
 * names a table that the quota or Xen refused; a mapping of a frame that is no RAM never is.
 *
 * Of the entries that wait, `overdue` counts those that have no reason to: a frame that is RAM, room for a table, and a
 * frame that is not among the `refused` (sorted), which are those that Xen did not let us protect in this submission.
 */
void xd_audit_space(xd_shadow *shadow, const uint32_t *roots, uint32_t level, const uint64_t *refused,
                    uint32_t refused_count, xd_audit *result);

#endif
