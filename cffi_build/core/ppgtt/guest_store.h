#ifndef XD_GUEST_STORE_H
#define XD_GUEST_STORE_H
#include <stdint.h>
#include "need.h"
#include "shadow.h"

/* What xd_guest_store did, and what is left to the caller. */
enum {
    XD_STORE_UNTRACKED = 0, /* stored to memory; the frame has no shadow table: a late store */
    XD_STORE_DONE = 1,      /* stored to memory; its leaf tables are updated */
    XD_STORE_DIRECTORY = 2, /* stored to memory; the frame serves as a directory, and the caller updates its tables */
    XD_STORE_LEAF = 3,      /* stored to memory; the caller updates its leaf tables, for which frames must be queried */
    XD_STORE_LATE = 4       /* stored to memory; the frame's leaf tables are unsynced: a late store */
};

/*
 * Performs one store of a guest CPU that trapped: to guest memory first, then to the leaf tables of that frame.
 *
 * shadow: of the guest. gpa, size: within one frame; 1, 2, 4 or 8 bytes. value: its low `size` bytes.
 * A protected leaf table is a candidate afterwards (unsync.h), in relaxed mode. After UNTRACKED and LATE the caller has
 * the frame trap before the request is answered (Protector.trap_late, ppgtt/ports.py).
 *
 * Returns one of the above; -EBUSY if nothing is stored yet, and the caller must ask Protector.held first; -EAGAIN if nothing is stored yet, and frames are listed in `need` that must be queried
 * before another call; or -ENOENT, -EFAULT, -EINVAL as xd_frames_store, and then the store is dropped.
 *
 * A store is performed once: between a query and what follows it, other vCPUs may store to the same place.
 *
 * Called by ppgtt/stores.py, quick.c and gpu_memory.c, in the thread that serves the guest, before the request is
 * answered.
 */
int xd_guest_store(xd_shadow *shadow, uint64_t gpa, uint64_t value, uint32_t size, xd_need *need);

#endif
