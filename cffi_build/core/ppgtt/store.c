/* One store of the guest, from its ioreq to the shadow. */
#include "entry_bits.h"
#include "kernels.h"
#include "need.h"

#include <errno.h>

int xd_guest_store(xd_shadow *shadow, uint64_t gpa, uint64_t value, uint32_t size, xd_need *need)
{
    uint64_t gfn = gpa >> XD_FRAME_SHIFT;
    uint32_t offset = (uint32_t)(gpa & (XD_FRAME_SIZE - 1));
    uint32_t number = xd_first_of_frame(shadow, gfn);
    /* A page that traps is still the guest's, whatever it gave back. A straggler comes by address, so it proves nothing. */
    bool straggler = !number || shadow->tables[number].flags & XD_TABLE_OPEN;
    int error = straggler && xd_frames_state(shadow->frames, gfn) == XD_FRAME_UNKNOWN
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
    for (; number; number = shadow->tables[number].same_frame) {
        if (shadow->tables[number].flags & XD_TABLE_OPEN)
            continue;
        error = xd_leaf_update(shadow, number, offset / 8, (offset + size - 1) / 8, need);
        if (error)
            return error;
    }
    return XD_STORE_DONE;
}
