#ifndef XD_EMB_RMW_H
#define XD_EMB_RMW_H
#include "vcpu_run.h"
#include "state.h"

/*
 * Executes `op`: XCHG, CMPXCHG or MODIFY; op->result receives the old value, op->stored whether something was stored.
 * Returns 0 or -errno. Called by vcpu_run.c, in the own thread of the vCPU, `v`.
 */
int emb_rmw(emb_vcpu *v, xd_emb_op *op);

#endif
