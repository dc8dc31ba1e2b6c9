#ifndef XD_EMB_PORTS_H
#define XD_EMB_PORTS_H
#include "vcpu_run.h"
#include "state.h"

/* Port I/O and PCI configuration cycles. `v`: the vCPU, whose own thread calls these. `op`: what it executes. */

/* Executes OUT or IN; op->result receives what IN gives. Returns 0 or -errno. Called by vcpu_run.c. */
int emb_port_io(emb_vcpu *v, xd_emb_op *op);

/* Executes REP_OUTS or REP_INS, all its elements. Returns 0 or -errno. Called by vcpu_run.c. */
int emb_port_string(emb_vcpu *v, const xd_emb_op *op);

#endif
