#ifndef XD_CS_FETCH_H
#define XD_CS_FETCH_H
#ifndef XD_CFFI
#include "cs.h"

/*
 * Fetching commands. An engine keeps a copy of the next of them, its window, as hardware does: what is stored to these
 * commands by others is seen after the next jump; what the engine itself stores there, at once. The thread that serves the
 * guest calls every function here.
 */

/*
 * Finds the `count` dwords (at most XD_WINDOW) from `ip` on, in a run `cs`: *at points to them until the next call. Returns
 * XD_CS_IDLE or a reason. Called by streamer.c.
 */
int xd_cs_fetch(xd_cs *cs, uint64_t ip, uint32_t count, const uint32_t **at);
#endif
#endif
