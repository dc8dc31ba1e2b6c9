#ifndef XD_LEAF_H
#define XD_LEAF_H
#include <stdint.h>
#include "need.h"
#include "shadow.h"

/*
 * Leaf tables: 512 entries of 4 KiB, or 32 of 64 KiB that take 16 slots each.
 *
 * An update reads entries of the guest's page and writes the shadow entries that follow from them. What is read stays
 * true until the next trapped store if the page is write-protected, and of an unsynced table it was true at that moment.
 *
 * shadow: all tables of the guest. The thread that serves the guest calls every function here.
 */

/*
 * Updates shadow entries `first`..`last` (0..511) of leaf table `number`.
 *
 * Returns 0; -EAGAIN if frames are listed in `need` (need.h), and the table is unread until an update of all entries
 * returns 0; or -ENOENT or -EFAULT if the table's page is gone, and the table maps nothing now. An update of all 512
 * entries that returns 0 makes the table one of this epoch. Called by guest_store.c.
 */
int xd_leaf_update(xd_shadow *shadow, uint32_t number, uint32_t first, uint32_t last, xd_need *need);
/*
 * Updates all entries of leaf table `number` in one pass that compares and writes: from `page`, a copy of its guest
 * page, or if that is NULL from the page itself. What is as it was is not written.
 *
 * *changed: 1 if the table says something else now, or if only another update tells; else 0. need: see need.h. Returns
 * as xd_leaf_update. Called by unsync.c.
 */
int xd_leaf_sync(xd_shadow *shadow, uint32_t number, const uint64_t *page, xd_need *need, int *changed);
/*
 * Updates all entries of `count` leaf tables. A number that is none of a leaf table by now is skipped.
 *
 * Returns how many tables could not be updated because frames are unknown: their numbers are moved to the front of
 * `numbers`. If `need` is full the rest is not tried. Called by unsync.c and update.c.
 */
uint32_t xd_leaf_update_many(xd_shadow *shadow, uint32_t *numbers, uint32_t count, xd_need *need);

/*
 * Chooses vectors of 128, 256 or 512 bits for updates; without a call, the widest that the processor has are used.
 * Returns 0, or -ENOTSUP if the processor has no such vectors. Called by tests.
 */
int xd_leaf_vectors(uint32_t bits);

#endif
