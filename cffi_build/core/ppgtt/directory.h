#ifndef XD_DIRECTORY_H
#define XD_DIRECTORY_H
#include <stdint.h>
#include "need.h"
#include "shadow.h"

/*
 * Directories: tables of levels 4 to 2, whose entries name other tables or, in level 2, map 2 MiB pages.
 *
 * A directory is updated some entries at a time, which has five steps. ppgtt/tree.py takes them in this order: read the
 * guest's page once; list the tables that these entries name and that have no shadow; create these; link the entries to
 * them; free the tables that lost their last reference. The first four work on the same copy of the page, and nothing
 * else happens between them. Tables are created before others are freed, so that an entry which names a table again
 * costs nothing.
 *
 * entries: the copy, XD_ENTRIES guest entries. first..last: the entries to be updated, 0..511. number: the directory's
 * shadow table, in `shadow`. need: see need.h. The thread that serves the guest calls every function here.
 */

/* A guest table that a directory names and that has no shadow table yet. */
typedef struct xd_missing_table {
    uint64_t gfn;
    uint32_t kind;
    uint32_t number;         /* its shadow table, once it is created; 0 if the quota has no room for it */
    uint32_t first_of_frame; /* 1: the first shadow table of its frame, so the frame must be write-protected */
    uint32_t refused;        /* 1: its frame could not be write-protected, so it has no shadow table */
} xd_missing_table;

/*
 * Copies the guest's page of directory `number` to `entries`. Returns as xd_frames_read_page. Called by ppgtt/tree.py.
 */
int xd_directory_read(const xd_shadow *shadow, uint32_t number, uint64_t *entries);
/*
 * Lists the tables that the entries name and that have no shadow table, each once.
 *
 * missing: room for XD_ENTRIES. splits: receives how many SPLIT tables linking may take besides. shared: receives how
 * many of the missing tables are of frames that have another one.
 * Returns how many tables are missing, or -EAGAIN if frames are listed in `need`. Called by ppgtt/tree.py.
 */
int xd_directory_missing(xd_shadow *shadow, uint32_t number, const uint64_t *entries, uint32_t first, uint32_t last,
                         xd_missing_table *missing, uint32_t *splits, uint32_t *shared, xd_need *need);
/*
 * Adds a table for each of `missing`, with one reference that the caller holds until xd_unref_tables; the quota
 * permitting.
 *
 * numbers: room for `count`, receives missing[i].number. gfns: room for `count`, receives the frames that must be
 * write-protected before the tables are read. Returns how many frames. Called by ppgtt/tree.py.
 */
uint32_t xd_create_tables(xd_shadow *shadow, xd_missing_table *missing, uint32_t count, uint32_t *numbers,
                          uint64_t *gfns);
/*
 * Drops the references that xd_create_tables took for the `count` tables of `missing`. Called by ppgtt/tree.py, once
 * the entries are linked.
 */
void xd_unref_tables(xd_shadow *shadow, const xd_missing_table *missing, uint32_t count);
/*
 * Writes the shadow entries of directory `number`: links to tables that exist, and 2 MiB leaf entries.
 *
 * missing: the `count` tables that were created just now, or could not be.
 *
 * What loses its last reference is left to xd_free_unreferenced. An entry whose table has no shadow becomes pending; it
 * is counted as one that the quota refused, unless its frame was refused.
 * Frames that became UNKNOWN since xd_directory_missing are listed in `need`; their entries map nothing. Returns how
 * many of the entries are pending. Called by ppgtt/tree.py.
 */
int xd_directory_link(xd_shadow *shadow, uint32_t number, const uint64_t *entries, uint32_t first, uint32_t last,
                      const xd_missing_table *missing, uint32_t count, xd_need *need);
/* Notes that all 512 entries were updated, the first of them not before `epoch` began. Called by ppgtt/tree.py. */
void xd_directory_checked(xd_shadow *shadow, uint32_t number, uint64_t epoch);
/* Makes a directory whose page is gone map nothing. Called by ppgtt/tree.py. */
void xd_directory_clear(xd_shadow *shadow, uint32_t number);

#endif
