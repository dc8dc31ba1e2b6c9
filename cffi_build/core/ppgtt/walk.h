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
 * Returns how many maximal runs the space maps, or UINT64_MAX without memory. Takes the time of its distinct tables.
 * Called by ppgtt/read.py.
 */
uint64_t xd_count_runs(const xd_shadow *shadow, const uint32_t *roots, uint32_t level);
/*
 * Writes the runs in order of va; `runs` has room for what xd_count_runs returned. Returns how many. Called by
 * ppgtt/read.py.
 */
uint64_t xd_list_runs(const xd_shadow *shadow, const uint32_t *roots, uint32_t level, xd_run *runs);

/* Returns the 4 KiB page at va as a run, with length 0 if nothing is mapped there. Called by ppgtt/read.py. */
xd_run xd_resolve(const xd_shadow *shadow, const uint32_t *roots, uint32_t level, uint64_t va);

#endif
