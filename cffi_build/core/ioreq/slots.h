#ifndef XD_SLOTS_H
#define XD_SLOTS_H
#include "ioreq.h"
#include "journal.h"
#include "stats.h"

#include <stdint.h>

/*
 * The device model's side of a page of ioreq slots: taking requests and answering them.
 *
 * `page` is the mapped page, 4096 bytes. `nr_vcpus` is the number of slots in use, at most XD_SLOTS_PER_PAGE, and
 * `vcpu` is below it. `timing` receives the times of requests, or is NULL. `journal` has a record for each
 * vCPU, which is forgotten when the vCPU has a new request; or it is NULL. All of these belong to the one thread that
 * serves the domain; none of them blocks but xd_slots_await_taken, which spins. Callers in Python call without the GIL.
 */

/*
 * A request copied out of its slot. From then on nobody looks at the slot's fields again, only at its state.
 *
 * outcome: XD_NOT_TRIED; XD_SUBMITTED plus the number of an engine: the request has submitted a list to it, and is to be
 * answered when the engine has gone on (hot.h); or the request is a store that was tried already, and this is what xd_guest_store returned.
 */
typedef struct xd_taken {
    xd_ioreq req;
    uint32_t vcpu;
    int32_t outcome;
} xd_taken;

enum { XD_NOT_TRIED = 100, XD_SUBMITTED = 101 };

/* Which requests to take: those that are READY, those that are INPROCESS since somebody began to serve them, or both. */
enum { XD_TAKE_READY = 0, XD_TAKE_ALL = 1, XD_TAKE_BEGUN = 2 };

/*
 * Take requests: each slot of vCPUs 0 to nr_vcpus - 1 in a state that `which` (XD_TAKE_*) names is copied to out[] once,
 * and is INPROCESS then. `out` has room for nr_vcpus requests. Returns how many were taken. Called by ioreq/slots.py.
 */
int xd_slots_take(void *page, uint32_t nr_vcpus, int which, xd_taken *out, xd_timing *timing,
                  xd_journal_record *journal);

#ifndef XD_CFFI
/*
 * Takes the request of `vcpu`, whose slot is READY, at the time `now`: copies it to *out once, and makes the slot
 * INPROCESS. Called by burst.c.
 */
void xd_slot_take(void *page, uint32_t vcpu, xd_taken *out, xd_timing *timing, xd_journal_record *journal,
                  uint64_t now);
#endif

/*
 * Answer a request that was taken: store `data` if the request was a read, then make the slot RESP_READY (release). The
 * vCPU may continue from then on. The caller must notify the vCPU's event channel afterwards. `route` (xd_route) says
 * which histogram of `timing` gets the time that the answer took. Called by ioreq/slots.py and burst.c.
 */
void xd_slot_answer(void *page, uint32_t vcpu, uint64_t data, uint32_t route, xd_timing *timing);

/*
 * Wait until Xen has taken every answer (no slot is RESP_READY), for at most `nanoseconds`. Returns 1 if it has, else
 * 0. Called by ioreq/slots.py.
 */
int xd_slots_await_taken(const void *page, uint32_t nr_vcpus, uint32_t nanoseconds);

/* An instruction stores 64 bytes at most, so its other bytes are no further than this from those of a request. */
enum { XD_STORE_REACH = 63 };

/*
 * Returns whether the instruction that made the last request of any vCPU may have stored to one of the `count` frames
 * `gfns` and gone on in the next one; 1 also for some requests that are no stores. Called by ioreq/slots.py.
 */
int xd_slots_may_straddle(const void *page, uint32_t nr_vcpus, const uint64_t *gfns, uint32_t count);

/*
 * Returns vp_eport, Xen's end of the vCPU's event channel; 0 before the server was first enabled. Called by
 * ioreq/slots.py.
 */
uint32_t xd_slot_port(const void *page, uint32_t vcpu);

/* Returns the slot's state, XD_STATE_* (acquire). Called by ioreq/slots.py. */
uint32_t xd_slot_state(const void *page, uint32_t vcpu);

#endif
