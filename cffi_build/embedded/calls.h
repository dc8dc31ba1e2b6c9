#ifndef XD_EMB_CALLS_H
#define XD_EMB_CALLS_H
#include "domain.h"

#include <stdint.h>

/* Hypercalls as such: their kinds, and the n-th failing on demand, for tests. Any thread. `domain`: see domain.h. */
enum {
    XD_CALL_CREATE = 0, XD_CALL_DESTROY = 1, XD_CALL_STATE = 2, XD_CALL_MAP_RANGE = 3, XD_CALL_UNMAP_RANGE = 4,
    XD_CALL_SET_MEM_TYPE = 5, XD_CALL_MAP_MEM_TYPE = 6, XD_CALL_MAP_SLOTS = 7, XD_CALL_MAP_FRAMES = 8,
    XD_CALL_BIND = 9, XD_CALL_UNBIND = 10, XD_CALL_NOTIFY = 11, XD_CALL_OTHER = 12, XD_CALL_KINDS = 13
};

/*
 * From now on counts the hypercalls whose kinds are in `mask` (bits 1 << XD_CALL_*), and lets the n-th (from 1) fail
 * with the positive errno `error`, once; n 0 only counts. ESRCH takes the domain away with it. Returns how many were
 * counted since the last call of this function. Called by sim/console.py and tests.
 */
uint64_t xd_emb_fail(xd_emb *domain, uint32_t mask, uint64_t n, int error);

/*
 * Begins a hypercall, of this kind. Every function that stands for one calls this first and returns what it returns, if
 * that is not 0. Returns 0, the -errno that was asked for, or -ESRCH. Called by C files of this folder, and called by
 * hypervisor/embedded/port.py for a hypercall that C has no function for.
 */
int xd_emb_call(xd_emb *domain, int kind);

#endif
