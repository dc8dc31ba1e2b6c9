#ifndef XD_EMB_REQUESTS_H
#define XD_EMB_REQUESTS_H
#include "ioreq.h"
#include "state.h"

/*
 * From an access to a request in a slot: ioreq_server_select and ioreq_send in xen/common/ioreq.c. The thread of the
 * vCPU that makes the access calls these; they take servers_lock.
 */

/*
 * Returns the id of the server to which an access of a kind (XD_RANGE_*) goes by its address, or -1. All of first..last
 * must lie in one range of one server.
 */
int emb_select(xd_emb *d, uint32_t kind, uint64_t first, uint64_t last);

/*
 * Put a request into the vCPU's slot of a server, and note it in the vCPU as pending. The event is raised by
 * emb_wait_for_answers. Returns 0; -EFAULT where Xen could not send it, which the guest sees as a fault;
 * -ENOTRECOVERABLE after the domain was crashed.
 */
int emb_post(emb_vcpu *v, uint32_t server, const xd_ioreq *request);

/* Post INVALIDATE to every enabled server that can be told. Returns 0 or -ENOTRECOVERABLE. */
int emb_post_invalidate(emb_vcpu *v);

/*
 * Post a request that is all of an emulated access, and wait for its answer; *data receives what a read gives. Returns
 * 0 or -errno. The vCPU is in XEN before and after.
 */
int emb_request_and_wait(emb_vcpu *v, uint32_t server, const xd_ioreq *request, uint64_t *data);

#endif
