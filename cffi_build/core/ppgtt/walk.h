#ifndef XD_WALK_H
#define XD_WALK_H
#include <stdint.h>
#include "shadow.h"

/*
 * Reading the shadow of an address space as a GPU would. Nothing here changes a table, a counter or a frame's record.
 *
 * roots, level: 1 root of level 4, or 4 roots of level 2; a root 0 maps nothing. va: a GPU address in bytes. shadow:
 * all tables of the guest. The thread that serves the guest calls every function here.
 */

/* Consecutive pages with the same attributes: GPU addresses va.. are guest addresses gpa.. */
typedef struct xd_run {
    uint64_t va;
    uint64_t length; /* bytes */
    uint64_t gpa;
    uint32_t writable;
    uint32_t cache; /* 4*PAT + 2*PCD + PWT */
} xd_run;

/*
 * A walk through all that a space maps: first it counts the maximal runs, then it lists them. It goes on a bounded number
 * of entries at a time. What the guest does between two calls is in the result or not, table by table: each table is
 * shown as it was at some moment of the walk. The caller frees it with xd_walk_free.
 */
typedef struct xd_walker xd_walker;

/* Returns a walk that begins, or NULL without memory. Called by ppgtt/read.py. */
xd_walker *xd_walk_new(const xd_shadow *shadow, const uint32_t *roots, uint32_t level);
/* Frees `walker`, at the end of the walk or before; NULL is none. Called by ppgtt/read.py. */
void xd_walk_free(xd_walker *walker);
/*
 * Goes on counting, for `looks` entries. Returns 1 at the end of `walker`, with the number of runs in *runs; else 0. It
 * takes the time of the distinct tables, however many ways lead to each. Called by ppgtt/read.py.
 */
int xd_walk_count(xd_walker *walker, uint64_t looks, uint64_t *runs);
/*
 * Goes on listing, for `looks` entries; to be called once they are counted. Writes runs in order of va; `runs` has room
 * for `capacity`, at least 1. *ended is 1 at the end of `walker`, else 0.
 *
 * Returns how many runs. They may be more than were counted if the guest stored to tables since, so the caller stops
 * when they become too many. Called by ppgtt/read.py.
 */
uint32_t xd_walk_list(xd_walker *walker, uint64_t looks, xd_run *runs, uint32_t capacity, int *ended);

/* Returns the 4 KiB page at va as a run, with length 0 if nothing is mapped there. Called by ppgtt/read.py. */
xd_run xd_resolve(const xd_shadow *shadow, const uint32_t *roots, uint32_t level, uint64_t va);

#endif
