#ifndef XD_NEED_H
#define XD_NEED_H
#include <stdint.h>
#include "shadow.h"

/*
 * Chunks of guest frames that a function must know about before it can go on.
 *
 * The functions of leaf.h, directory.h and guest_store.h do not know of each frame whether it is RAM (frames.h). For an
 * entry whose frame is XD_FRAME_UNKNOWN they write a shadow entry that maps nothing, list the frame's chunk here, and
 * tell the caller, who queries the listed chunks (xd_frames_record), sets `count` to 0, and goes on as the function's
 * comment says. The thread that serves the guest calls every function here.
 */
typedef struct xd_need {
    uint32_t count;   /* chunks listed; the caller sets it to 0 */
    uint32_t lacking; /* 1 if the last call met an unknown frame, even if its chunk was listed already or had no room */
    uint64_t chunks[512];
} xd_need;

/* Lists a chunk in `need`, unless it was the last one listed. Called by need.c. */
void xd_need_chunk(xd_need *need, uint64_t chunk);
/*
 * Lists the chunk of frame `gfn` in `need`, unless it was the last one listed. Called by gpu_memory.c and C files of
 * this folder.
 */
void xd_need_frame(xd_need *need, uint64_t gfn);

/*
 * Returns the shadow entry for a present guest entry that names a frame which is not known to be RAM.
 *
 * before: the shadow entry until now. gfn: the frame that the guest entry names, or the first of its 2 MiB page. state:
 * XD_FRAME_UNKNOWN or XD_FRAME_HOLE. That is XD_PENDING for a hole; an entry that becomes pending is counted in
 * counters->invalid_entries. Lists an unknown frame in `need`, and returns 0 for it, or XD_PENDING if the entry is
 * pending already. Called by leaf.c and directory.c.
 */
uint64_t xd_without_ram(xd_shadow *shadow, uint64_t before, uint64_t gfn, int state, xd_need *need);

#endif
