#ifndef XD_EMB_RMW_H
#define XD_EMB_RMW_H
#include "vcpu_run.h"
#include "state.h"

/*
 * Execute XCHG, CMPXCHG or MODIFY; op->result receives the old value, op->stored whether something was stored. Returns
 * 0 or -errno. The vCPU's own thread.
 */
int emb_rmw(emb_vcpu *v, xd_emb_op *op);

#endif
