#ifndef XD_HOT_H
#define XD_HOT_H
#include <stdint.h>
#include "gpu.h"

/*
 * The registers that do something and that a driver uses all the time: submission ports, status, timestamps, interrupts,
 * TLBs. They are served here, in a burst and outside of it; all others by their rows (vgpu/mmio.py).
 *
 * An access of 4 bytes is one to the register at its offset, one of 8 bytes is two. Any other access that touches one of
 * these registers reads a part of it, and writes nothing.
 *
 * The thread that serves the guest calls every function here. gpu: of the guest. offset, size: within BAR0.
 */
enum {
    XD_HOT_OTHER = 0, /* the access touches none of these registers; nothing was done */
    XD_HOT_DONE = 1,
    XD_HOT_RUNS = 2   /* plus the number of an engine: done; the access is to be answered when the engine has gone on */
};

/* A read by the guest, to *value. Returns XD_HOT_OTHER or XD_HOT_DONE. Called by vgpu/engines.py and quick.c. */
int xd_hot_read(xd_gpu *gpu, uint64_t offset, uint32_t size, uint64_t *value);

/*
 * A write of `value` by the guest. A list that it submits is executed, as far as that goes without help. Returns
 * XD_HOT_*. Called by vgpu/engines.py and quick.c.
 */
int xd_hot_write(xd_gpu *gpu, uint64_t offset, uint32_t size, uint64_t value);

#endif
