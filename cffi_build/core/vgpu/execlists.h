#ifndef XD_EXECLISTS_H
#define XD_EXECLISTS_H
#include <stdint.h>
#include "gpu.h"

/*
 * Execution lists: a driver submits up to two contexts to an engine, and reads from the context status buffer what became
 * of them. The buffer is in the engine's status page: six entries, and the number of the last one. For each list the
 * driver gets one event by which it becomes the active one, and for each of its elements one by which it has ended.
 *
 *     a list comes, the engine is idle            0x1    it is active
 *     ... the engine executes, its last context   0x8002 it is active: the context goes on with a new tail
 *     ... any other                               none   it is pending
 *     an element has ended, the list has another  0x14
 *     the last element has ended                  0x18   then 0x1 if a list is pending
 *
 * The thread that serves the guest calls every function here. gpu: of the guest. engine: its number. cs: a run of it.
 */

/* The guest writes `value` to the submission port. Returns 1 if that submits a list, else 0. Called by hot.c. */
int xd_execlists_write(xd_gpu *gpu, uint32_t engine, uint32_t value);

/*
 * The engine is reset: it forgets its lists, and the driver hears nothing of them. Registers that say what it does
 * become zero. Called by vgpu/engines.py and vgpu/core.py.
 */
void xd_execlists_reset(xd_gpu *gpu, uint32_t engine);

/* Returns whether the engine has nothing to do. Called by vgpu/engines.py, vgpu/streamer.py and streamer.c. */
int xd_execlists_idle(const xd_gpu *gpu, uint32_t engine);

/* The guest sets the number of the last entry of the status buffer to `index`. Called by hot.c. */
void xd_execlists_set_csb(xd_gpu *gpu, uint32_t engine, uint32_t index);

#ifndef XD_CFFI
struct xd_cs;
/* Has the registers show what the engine executes. Called by streamer.c. */
void xd_execlists_show(xd_gpu *gpu, uint32_t engine);
/* Tells the driver of the next event in the state. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_execlists_tell(struct xd_cs *cs);
/* The current context has ended and is saved. Called by context_image.c. */
void xd_execlists_ended(struct xd_cs *cs);
#endif

#endif
