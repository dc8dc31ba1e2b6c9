#ifndef XD_QUICK_H
#define XD_QUICK_H
#include <stdint.h>
#include "aperture.h"
#include "gpu.h"
#include "need.h"
#include "shadow.h"
#include "slots.h"
#include "stats.h"
#include "submit.h"

/*
 * What a request asks for, done in C if it is simple: stores to leaf tables, accesses to plain registers, and submissions
 * (submit.h).
 *
 * Each of these comes to the same as in Python (ioreq/bus.py, ppgtt/stores.py, vgpu/mmio.py), counters included, and has
 * one outcome however often it is done. So there is no record of it in the journal but its slot, which is INPROCESS.
 * Whatever is not simple is left to Python, untouched; of a store the value may be in guest memory already, and
 * `outcome` of the xd_taken says so; burst.c then records the store as done, since others are served before Python has
 * answered it.
 *
 * The thread that serves the guest calls every function here.
 */

/*
 * The registers of a BAR. Offsets `hole_start`..`hole_end`-1 read as zero, and what is written there is dropped.
 *
 * reads, writes: a bit for each dword below `dwords`: who reads, or writes, a byte of it needs Python. All other dwords are
 * plain: they read as they were written. submits: the same, for registers of a dword each; a write of 1 to one that is zero
 * submits every live space, and the register stays zero. gpu: whose registers they are, which serves some of them itself
 * (hot.h); NULL: none. aperture: the BAR has no registers, but is this one; else NULL.
 */
typedef struct xd_registers {
    char *memory;
    uint64_t hole_start, hole_end;
    uint64_t dwords;
    const uint32_t *reads;
    const uint32_t *writes;
    xd_gpu *gpu;
    const xd_aperture *aperture;
    const uint32_t *submits;
} xd_registers;

/* A range of guest physical addresses that is a device's. registers: NULL if Python serves the device. */
typedef struct xd_range {
    uint64_t first, size;
    const xd_registers *registers;
} xd_range;

enum { XD_MOST_RANGES = 16 };

/* All ranges of devices in guest physical memory. */
typedef struct xd_ranges {
    uint32_t count;
    xd_range ranges[XD_MOST_RANGES];
} xd_ranges;

typedef struct xd_quick {
    xd_shadow *shadow;
    xd_counters *counters;
    const xd_ranges *ranges;
    xd_journal_record *journal; /* records of the vCPUs, for `gpu`; NULL: none */
    xd_gpu *gpu;     /* a burst ends when it wants attention; NULL: there is none */
    xd_submit *submit;
    uint32_t serves; /* 1: accesses by guest physical address are served; 0: nothing is */
    uint32_t padding;
    xd_need need;
} xd_quick;

#ifndef XD_CFFI
/*
 * Does what a request asks, if it is simple. quick: of the guest. taken: the request; its `outcome` is set if a store was
 * tried. data: receives what a read reads. Returns the request's route, an xd_route, or -1 if it is left to Python.
 * Called by burst.c.
 */
int xd_quick_serve(xd_quick *quick, xd_taken *taken, uint64_t *data);
#endif

#endif
