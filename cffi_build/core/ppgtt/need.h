#ifndef XD_NEED_H
#define XD_NEED_H

/* For the C side only: asking for knowledge, and what an entry becomes whose frame is not RAM. */
#include "entry_bits.h"
#include "kernels.h"

static inline void xd_need_chunk(xd_need *need, uint64_t chunk)
{
    need->lacking = 1;
    if (need->count && need->chunks[need->count - 1] == chunk)
        return;
    if (need->count < XD_ENTRIES)
        need->chunks[need->count++] = chunk;
}

static inline void xd_need_frame(xd_need *need, uint64_t gfn)
{
    xd_need_chunk(need, gfn >> XD_CHUNK_SHIFT);
}

/* The shadow entry for a present guest entry whose frame is not known to be RAM; counts it when it becomes so. */
static inline uint64_t xd_without_ram(xd_shadow *shadow, uint64_t before, uint64_t gfn, int state, xd_need *need)
{
    if (state == XD_FRAME_UNKNOWN) {
        xd_need_frame(need, gfn);
        return 0;
    }
    shadow->counters->invalid_entries += before != XD_WAITING;
    return XD_WAITING;
}

#endif
