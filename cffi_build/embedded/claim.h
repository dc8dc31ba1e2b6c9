#ifndef XD_EMB_CLAIM_H
#define XD_EMB_CLAIM_H
#include "domain.h"

#include <stdint.h>

/*
 * The claim of the trapped type: ioreq_server_map_mem_type in xen/common/ioreq.c, p2m_set_ioreq_server. Any
 * thread. `domain`: see domain.h.
 */

/*
 * Claims the type `hvmmem` (flags 2: writes) for a server, or releases the claim (flags 0), which resets every page of
 * the type. A hypercall of the device model. Returns 0, -EOPNOTSUPP where Xen has no claim, -EINVAL, -ENOENT, or
 * -EBUSY. Called by hypervisor/embedded/port.py.
 */
int xd_emb_claim(xd_emb *domain, uint32_t server, uint32_t hvmmem, uint32_t flags);

/*
 * Returns the id of the server that has the claim, or -1. No hypercall. Called by hypervisor/embedded/domain.py and
 * vcpu_insn.c.
 */
int xd_emb_owner(xd_emb *domain);

#endif
