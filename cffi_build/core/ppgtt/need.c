/* The list of chunks that must be queried, and what an entry becomes whose frame is not RAM. */
#include "need.h"

void xd_need_chunk(xd_need *need, uint64_t chunk)
{
    need->lacking = 1;
    if (need->count && need->chunks[need->count - 1] == chunk)
        return;
    if (need->count < sizeof(need->chunks) / sizeof(*need->chunks))
        need->chunks[need->count++] = chunk;
}

void xd_need_frame(xd_need *need, uint64_t gfn)
{
    xd_need_chunk(need, gfn >> XD_CHUNK_SHIFT);
}

uint64_t xd_without_ram(xd_shadow *shadow, uint64_t before, uint64_t gfn, int state, xd_need *need)
{
    if (state == XD_FRAME_UNKNOWN) {
        xd_need_frame(need, gfn);
        return before == XD_PENDING ? XD_PENDING : 0;
    }
    shadow->counters->invalid_entries += before != XD_PENDING;
    return XD_PENDING;
}
