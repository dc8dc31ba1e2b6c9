#ifndef XD_EMB_P2M_H
#define XD_EMB_P2M_H
#include "domain.h"

#include <stdint.h>

/* The types of frames, and their changes. */

/* Returns the p2m type of a frame (XD_P2M_*); of one beyond the domain's memory, MMIO_DM. */
int xd_emb_type(const xd_emb *domain, uint64_t gfn);

/* Give frames a type. No hypercall: a test puts frames into the state that it starts from. Returns 0 or -EINVAL. */
int xd_emb_set_type(xd_emb *domain, uint64_t gfn, uint64_t count, int p2m_type);

/* Returns how many frames have the trapped type: p2m->ioreq.entry_count. */
uint64_t xd_emb_entries(const xd_emb *domain);

/*
 * set_mem_type, one hypercall a frame. `hvmmem` is hvmmem_type_t, errors[i] receives 0 or a positive errno. Returns how
 * many failed, or -ESRCH. The device model's thread calls this.
 */
int xd_emb_set_mem_types(xd_emb *domain, uint32_t hvmmem, const uint64_t *gfns, int count, int *errors);

/* Global log-dirty mode, which migration needs. Returns 0, or -EBUSY while frames have the trapped type. */
int xd_emb_log_dirty(xd_emb *domain, int on);

#ifndef XD_CFFI
/* Change one frame's type. The caller holds p2m, and calls emb_types_changed before it releases it. */
void emb_change_type(xd_emb *d, uint64_t gfn, uint32_t type);

/*
 * End a change of types: wait until no vCPU uses a translation that it looked up before, and wake vCPUs whose
 * instructions are retried. The caller holds p2m.
 */
void emb_types_changed(xd_emb *d);

/* Wake vCPUs whose instructions are retried (emb_sleep_until_bumped): types or the claim have changed. Any thread. */
void emb_bump(xd_emb *d);

/* Turn a frame of look SETTLE into plain RAM. A vCPU's thread, which holds no lock. */
void emb_settle(xd_emb *d, uint64_t gfn);

/*
 * Take frames from the guest; their content is lost. Returns 1 if any of them was there, so that device models must be
 * told; 0 if none was; or -errno. A vCPU's thread, which holds no lock.
 */
int emb_remove(xd_emb *d, uint64_t gfn, uint64_t count);
#endif

#endif
