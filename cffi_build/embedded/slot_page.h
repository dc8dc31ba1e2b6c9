#ifndef XD_SLOT_PAGE_H
#define XD_SLOT_PAGE_H
#include "ioreq.h"

#include <stdint.h>

/*
 * The hypervisor's side of a page of ioreq slots; slots.h of core/ioreq has the device model's side. `page` is 4096
 * bytes, `vcpu` is below XD_SLOTS_PER_PAGE. Any thread may call these; each access is atomic, none takes a lock.
 */

/*
 * Posts a request: writes its fields, with vp_eport as it is in the slot, then READY (release). `req->vp_eport` and the
 * state in `req->bits` are ignored. Returns 0, or -EBUSY if the slot is not in NONE. Raising the event is the caller's.
 * Called by requests.c and tests.
 */
int xd_slot_post(void *page, uint32_t vcpu, const xd_ioreq *req);

/* Returns the slot's data: the answer to a read, if the state is RESP_READY. Called by wait.c and tests. */
uint64_t xd_slot_data(const void *page, uint32_t vcpu);

/*
 * Sets the state (XD_STATE_*, or any other value below 16, for tests), keeping the bits beside it. Called by wait.c and
 * tests.
 */
void xd_slot_set_state(void *page, uint32_t vcpu, uint32_t state);

/* Sets vp_eport to `port`, the domain's end of the vCPU's event channel. Called by servers.c and tests. */
void xd_slot_set_port(void *page, uint32_t vcpu, uint32_t port);

#endif
