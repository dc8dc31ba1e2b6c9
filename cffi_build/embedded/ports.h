#ifndef XD_EMB_PORTS_H
#define XD_EMB_PORTS_H
#include "vcpu_run.h"
#include "state.h"

/* Port I/O and PCI configuration cycles. The vCPU's own thread. Return 0 or -errno. */

/* Execute OUT or IN; op->result receives what IN gives. */
int emb_port_io(emb_vcpu *v, xd_emb_op *op);

/* Execute REP_OUTS or REP_INS, all its elements. */
int emb_port_string(emb_vcpu *v, const xd_emb_op *op);

#endif
