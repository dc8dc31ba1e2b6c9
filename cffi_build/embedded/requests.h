#ifndef XD_EMB_REQUESTS_H
#define XD_EMB_REQUESTS_H
#include "ioreq.h"
#include "state.h"

/*
 * From an access to a request in a slot: ioreq_server_select and ioreq_send in xen/common/ioreq.c. The thread of the
 * vCPU that makes the access, `v`, calls these; they take servers_lock. server: its id. request: what is asked of it.
 */

/*
 * Returns the id of the server to which an access of a kind (XD_RANGE_*) goes by its address, or -1. All of first..last
 * must lie in one range of one server. Called by C files of this folder; `d` is the domain.
 */
int emb_select(xd_emb *d, uint32_t kind, uint64_t first, uint64_t last);

/*
 * Puts a request into the vCPU's slot of a server, and notes it in the vCPU as pending. The event is raised by
 * emb_wait_for_answers. Returns 0; -EFAULT where Xen could not send it, which the guest sees as a fault;
 * -ENOTRECOVERABLE after the domain was crashed. Called by vcpu_insn.c.
 */
int emb_post(emb_vcpu *v, uint32_t server, const xd_ioreq *request);

/* Posts INVALIDATE to every enabled server that can be told. Returns 0 or -ENOTRECOVERABLE. Called by hypercall.c. */
int emb_post_invalidate(emb_vcpu *v);

/*
 * Posts a request that is all of an emulated access, and waits for its answer; *data receives what a read gives.
 * Returns 0 or -errno. The vCPU is in XEN before and after. Called by ports.c and vcpu_repeat.c.
 */
int emb_request_and_wait(emb_vcpu *v, uint32_t server, const xd_ioreq *request, uint64_t *data);

#endif
