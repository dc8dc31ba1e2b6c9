#ifndef XD_SLOTS_H
#define XD_SLOTS_H
#include "ioreq.h"
#include "stats.h"

#include <stdint.h>

/*
 * The device model's side of a page of ioreq slots: taking requests and answering them.
 *
 * `page` is the mapped page, 4096 bytes. `nr_vcpus` is the number of slots in use, at most XD_SLOTS_PER_PAGE, and
 * `vcpu` is below it. `timing` receives the times of requests, or is NULL. All of these belong to the
 * one thread that serves the domain; none of them blocks but xd_slots_await and xd_slots_await_taken, which spin.
 * Callers in Python call without the GIL.
 */

/* A request copied out of its slot. From then on nobody looks at the slot's fields again, only at its state. */
typedef struct xd_taken {
    xd_ioreq req;
    uint32_t vcpu;
    uint32_t padding;
} xd_taken;

/*
 * Take requests: each slot of vCPUs 0 to nr_vcpus - 1 that is READY is copied to out[] once and moved to INPROCESS.
 * With `begun` not 0, slots that are INPROCESS already are copied, too: somebody began to serve these requests. `out`
 * has room for nr_vcpus requests. Returns how many were taken. Called by ioreq/slots.py.
 */
int xd_slots_take(void *page, uint32_t nr_vcpus, int begun, xd_taken *out, xd_timing *timing);

/*
 * Answer a request that was taken: store `data` if the request was a read, then make the slot RESP_READY (release). The
 * vCPU may continue from then on. The caller must notify the vCPU's event channel afterwards. `route` (xd_route) says
 * which histogram of `timing` gets the time that the answer took. Called by ioreq/slots.py.
 */
void xd_slot_answer(void *page, uint32_t vcpu, uint64_t data, uint32_t route, xd_timing *timing);

/*
 * As xd_slots_take without `begun`; where nothing is READY it looks again until `nanoseconds` have passed. Returns how
 * many requests were taken to `out`. Called by ioreq/slots.py.
 */
int xd_slots_await(void *page, uint32_t nr_vcpus, uint32_t nanoseconds, xd_taken *out, xd_timing *timing);

/*
 * Wait until Xen has taken every answer (no slot is RESP_READY), for at most `nanoseconds`. Returns 1 if it has, else
 * 0. Called by ioreq/slots.py.
 */
int xd_slots_await_taken(const void *page, uint32_t nr_vcpus, uint32_t nanoseconds);

/*
 * Returns vp_eport, Xen's end of the vCPU's event channel; 0 before the server was first enabled. Called by
 * ioreq/slots.py.
 */
uint32_t xd_slot_port(const void *page, uint32_t vcpu);

/* Returns the slot's state, XD_STATE_* (acquire). Called by ioreq/slots.py. */
uint32_t xd_slot_state(const void *page, uint32_t vcpu);

#endif
