#ifndef XD_BLIT_H
#define XD_BLIT_H
#include <stdint.h>
#include "blit_command.h"

/*
 * Performing a blit, in spans that may be repeated after a kill.
 *
 * A span is a block of the rectangle with at most 4 KiB (blit_surface.h). Its final bytes are computed into the bounce
 * area, then written. One aligned store to blit->cursor says that the bounce area is valid, and another one that the
 * span is done. So whoever goes on after a kill either computes a span from operands of which nothing was overwritten,
 * or writes the bytes that were computed before, even if the destination is an operand or lies in the frames of the
 * source.
 *
 * Spans follow each other in the order that the command asks for, and a span is computed before any of it is written.
 * If source and destination have the same base, pitch and tiling, the result is as if the whole source was read first.
 * What comes of other overlaps is up to how the rectangle is cut into spans; the manuals call it undefined.
 */

enum { XD_BLIT_BUDGET = 16 };

/*
 * Goes on with a blit that xd_blit_begin found to be XD_BLIT_RUN.
 *
 * blit: its record, in the state. space: where its addresses are. bounce: XD_FRAME_SIZE bytes of the state that belong
 * to this blit until it is done. *budget: bytes that may be read and written, and is lowered by what was; the last span
 * may take more, and one is done unless it is 0.
 *
 * Returns XD_GM_DONE; XD_BLIT_BUDGET; or XD_GM_AGAIN or XD_GM_DIRECTORY as gpu_memory.h, and another call goes on after
 * the caller did what they ask for. Reads of what is not mapped give zeros and such writes vanish; memory->fault has
 * the first. Called by cs_blit.c, in the thread that serves the guest.
 */
int xd_blit_run(xd_blit *blit, xd_gpu_memory *memory, const xd_gpu_space *space, uint8_t *bounce, uint64_t *budget);

#endif
