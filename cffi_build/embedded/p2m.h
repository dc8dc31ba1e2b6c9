#ifndef XD_EMB_P2M_H
#define XD_EMB_P2M_H
#include "domain.h"

#include <stdint.h>

/* The types of frames, and their changes. gfn: a frame's number. domain, d: see domain.h. Any thread. */

/*
 * Returns the p2m type of a frame (XD_P2M_*); of one beyond the domain's memory, MMIO_DM. Called by
 * hypervisor/embedded/domain.py.
 */
int xd_emb_type(const xd_emb *domain, uint64_t gfn);

/*
 * Gives `count` frames from `gfn` the type `p2m_type`. No hypercall of the device model: a test puts frames into the
 * state that it starts from. Returns 0 or -EINVAL. Called by hypervisor/embedded/domain.py, and called by hypercall.c
 * for frames that the guest takes back.
 */
int xd_emb_set_type(xd_emb *domain, uint64_t gfn, uint64_t count, int p2m_type);

/* Returns how many frames have the trapped type: p2m->ioreq.entry_count. Called by hypervisor/embedded/domain.py. */
uint64_t xd_emb_entries(const xd_emb *domain);

/*
 * set_mem_type, one hypercall for each of the `count` frames in `gfns`. `hvmmem` is hvmmem_type_t, errors[i] receives 0
 * or a positive errno. Returns how many failed, or -ESRCH. Called by hypervisor/embedded/port.py and sim/session.py, in
 * the device model's thread.
 */
int xd_emb_set_mem_types(xd_emb *domain, uint32_t hvmmem, const uint64_t *gfns, int count, int *errors);

/*
 * Starts (`on` is 1) or ends (0) global log-dirty mode, which migration needs. Returns 0, or -EBUSY while frames have
 * the trapped type. Called by hypervisor/embedded/domain.py.
 */
int xd_emb_log_dirty(xd_emb *domain, int on);

#ifndef XD_CFFI
/*
 * Changes one frame's type. The caller holds p2m, and calls emb_types_changed before it releases it. Called by claim.c.
 */
void emb_change_type(xd_emb *d, uint64_t gfn, uint32_t type);

/*
 * Ends a change of types: waits until no vCPU uses a translation that it looked up before, and wakes vCPUs whose
 * instructions are retried. The caller holds p2m. Called by claim.c.
 */
void emb_types_changed(xd_emb *d);

/*
 * Wakes vCPUs whose instructions are retried (emb_sleep_until_bumped): types or the claim have changed. Called by
 * servers.c and phases.c.
 */
void emb_bump(xd_emb *d);

/* Turns a frame of look SETTLE into plain RAM. Called by vcpu_insn.c, in a vCPU's thread, which holds no lock. */
void emb_settle(xd_emb *d, uint64_t gfn);

/*
 * Takes `count` frames from the guest; their content is lost. Returns 1 if any of them was there, so that device models
 * must be told; 0 if none was; or -errno. Called by hypercall.c, in a vCPU's thread, which holds no lock.
 */
int emb_remove(xd_emb *d, uint64_t gfn, uint64_t count);
#endif

#endif
