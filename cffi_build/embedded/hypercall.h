#ifndef XD_EMB_HYPERCALL_H
#define XD_EMB_HYPERCALL_H
#include "vcpu_run.h"
#include "state.h"

/* Hypercalls that the guest makes. `v`: the vCPU, whose own thread calls these. `op`: what it executes. */

/*
 * Executes HYPERCALL; op->result receives 0 or EFAULT, which is the guest's result. Returns 0 or -errno. Called by
 * vcpu_run.c.
 */
int emb_hypercall_output(emb_vcpu *v, xd_emb_op *op);

/*
 * Executes REMOVE (XENMEM_decrease_reservation), to its end, where device models hear of it. Returns 0 or -errno.
 * Called by vcpu_run.c.
 */
int emb_remove_frames(emb_vcpu *v, const xd_emb_op *op);

/* Executes ADD (XENMEM_populate_physmap). What is there goes before. Returns 0 or -errno. Called by vcpu_run.c. */
int emb_add_frames(emb_vcpu *v, const xd_emb_op *op);

#endif
