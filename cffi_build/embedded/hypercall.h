#ifndef XD_EMB_HYPERCALL_H
#define XD_EMB_HYPERCALL_H
#include "vcpu_run.h"
#include "state.h"

/* Hypercalls that the guest makes. The vCPU's own thread. Return 0 or -errno. */

/* Execute HYPERCALL; op->result receives 0 or EFAULT, which is the guest's result. */
int emb_hypercall_output(emb_vcpu *v, xd_emb_op *op);

/* Execute REMOVE (XENMEM_decrease_reservation), to its end, where device models hear of it. */
int emb_remove_frames(emb_vcpu *v, const xd_emb_op *op);

/* Execute ADD (XENMEM_populate_physmap). What is there goes before. */
int emb_add_frames(emb_vcpu *v, const xd_emb_op *op);

#endif
