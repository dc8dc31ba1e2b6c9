#ifndef XD_EMB_WAIT_H
#define XD_EMB_WAIT_H
#include "domain.h"

#include <stdint.h>

/* How a vCPU waits: for an answer, or for a change of types. `v` is the vCPU. For C files only. */

typedef struct emb_vcpu emb_vcpu;

/* Returns v->wake, which counts the events that came by now. Called by requests.c, in the vCPU's own thread. */
uint32_t emb_events_so_far(emb_vcpu *v);

/* Tells a vCPU that an event came for it. Called by events.c and phases.c, in any thread. */
void emb_wake(emb_vcpu *v);

/*
 * Raises the events of the vCPU's pending requests and waits until all of them are answered; *data receives the data of
 * the last. Returns 0 with the vCPU in XEN, or -errno if the domain stopped. Called by C files of this folder, in the
 * vCPU's own thread, which holds no lock.
 */
int emb_wait_for_answers(emb_vcpu *v, uint64_t *data);

/*
 * Forgets the pending requests of a vCPU that stops; they stay in their slots. Called by vcpu_run.c, in the vCPU's own
 * thread.
 */
void emb_drop_pending(emb_vcpu *v);

/*
 * Sleeps until emb_domain.generation is no longer `generation`. Called by vcpu_insn.c and vcpu_rmw.c, in the vCPU's own
 * thread, which holds no lock.
 */
void emb_sleep_until_bumped(emb_vcpu *v, uint32_t generation);
#endif
