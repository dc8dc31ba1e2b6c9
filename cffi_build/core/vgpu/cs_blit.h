#ifndef XD_CS_BLIT_H
#define XD_CS_BLIT_H
#ifndef XD_CFFI
#include "cs.h"

/*
 * Commands of the blitter, for the command streamer. A handler as cs.h has them. The thread that serves the guest calls it.
 */

/*
 * Any blit: the `count` dwords at `d`, in a run `cs`. Its addresses are those of the batch; in the ring, of the PPGTT.
 * Returns XD_CS_IDLE or a reason. Called by streamer.c.
 */
int xd_cs_blit(xd_cs *cs, const uint32_t *d, uint32_t count);
#endif
#endif
