/* One trapped store, from its request to guest memory and the shadow of a leaf table. */
#include "guest_store.h"
#include "leaf.h"
#include "table.h"

#include <errno.h>

int xd_guest_store(xd_shadow *shadow, uint64_t gpa, uint64_t value, uint32_t size, xd_need *need)
{
    if (shadow->held)
        return -EBUSY;
    uint64_t gfn = gpa >> XD_FRAME_SHIFT;
    uint32_t offset = (uint32_t)(gpa & (XD_FRAME_SIZE - 1));
    uint32_t number = xd_first_of_frame(shadow, gfn);
    /*
     * A store that trapped because its frame is write-protected proves that the guest still has the frame, whatever was
     * invalidated. A late store reached us through an address range, and proves nothing: whether its frame is RAM must
     * be known first.
     */
    bool late = !number || shadow->tables[number].flags & XD_TABLE_UNSYNCED;
    int error = late && xd_frames_state(shadow->frames, gfn) == XD_FRAME_UNKNOWN
                    ? -EAGAIN
                    : xd_frames_store(shadow->frames, gpa, value, size);
    if (error) {
        if (error == -EAGAIN)
            xd_need_frame(need, gfn);
        return error;
    }
    if (!number)
        return XD_STORE_UNTRACKED;
    if (xd_level(&shadow->tables[number]) > 1) /* the first of a frame is its highest */
        return XD_STORE_DIRECTORY;
    if (shadow->tables[number].flags & XD_TABLE_UNSYNCED)
        return XD_STORE_LATE;
    if (shadow->relaxed)
        xd_note_store(shadow, number);
    for (; number; number = shadow->tables[number].next_of_frame) {
        error = xd_leaf_update(shadow, number, offset / 8, (offset + size - 1) / 8, need);
        if (error == -EAGAIN) {
            xd_set_frame_unread(shadow, gfn);
            return XD_STORE_LEAF;
        }
        if (error)
            return error;
    }
    return XD_STORE_DONE;
}
