#ifndef XD_STREAMER_H
#define XD_STREAMER_H
#include <stdint.h>
#include "gpu.h"

/*
 * The command streamer: engines execute their lists, command by command, until there is a reason to stop. A run can be
 * repeated at any time. The thread that serves the guest calls every function here. gpu: of the guest. engine: its number.
 */

/* Why a run of an engine ended. */
enum {
    XD_CS_IDLE = 0,      /* it has no list, or is stopped */
    XD_CS_BUDGET = 1,
    XD_CS_BLOCKED = 2,   /* it waits for memory to change: to be tried again after others stored, or a while later */
    XD_CS_NEED = 3,      /* chunks in memory.need must be queried first */
    XD_CS_SYNC = 4,      /* the space whose roots xd_cs_roots returns must be synced first; then xd_cs_synced is called */
    XD_CS_DIRECTORY = 5, /* page tables must follow the store in the engine's `table` first, and `follows` become 0 */
    XD_CS_ERROR = 6      /* it came to a command that nobody can decode, and is stopped */
};

/*
 * What is done costs so much of a budget: a command, and each dword of one that is looked at; a restore or a save of a
 * context. A blit costs the bytes that it reads and writes, besides. 200,000 take about 100 microseconds.
 */
enum { XD_CS_DWORD_COST = 32, XD_CS_CONTEXT_COST = 8192 };

/* Executes what an engine has to do, for `budget`. Returns XD_CS_*. Called by vgpu/streamer.py and hot.c. */
int xd_cs_run(xd_gpu *gpu, uint32_t engine, uint64_t budget);

/*
 * Returns the level of the root tables of an engine's context, 4 or 2, and their guest addresses in `gpas`: 1 or 4. Called
 * by vgpu/streamer.py.
 */
uint32_t xd_cs_roots(const xd_gpu *gpu, uint32_t engine, uint64_t gpas[4]);

/*
 * What an engine uses of its page tables from here on is what they say then. Called by vgpu/engines.py and hot.c.
 */
void xd_cs_invalidate(xd_gpu *gpu, uint32_t engine);

/*
 * This process begins to use the GPU: what a former one knew of translations is not known. Called by vgpu/core.py.
 */
void xd_cs_adopt(xd_gpu *gpu);

/*
 * The space of an engine's context is in sync. has_root: whether it has a root table; without one it maps nothing. Called
 * by vgpu/streamer.py.
 */
void xd_cs_synced(xd_gpu *gpu, uint32_t engine, uint32_t has_root);

#endif
