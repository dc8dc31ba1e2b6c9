#ifndef XD_EMB_WAIT_H
#define XD_EMB_WAIT_H
#include "domain.h"

#include <stdint.h>

/* How a vCPU waits: for an answer, or for a change of types. */

/* Set how many times a wait for an answer looks before it sleeps; 0: it sleeps at once. 200 at first. */
void xd_emb_set_spin(xd_emb *domain, uint32_t turns);

#ifndef XD_CFFI
typedef struct emb_vcpu emb_vcpu;

/* Returns v->wake, which counts the events that came by now. The vCPU's own thread. */
uint32_t emb_events_so_far(emb_vcpu *v);

/* Tell a vCPU that an event came for it. Any thread. */
void emb_wake(emb_vcpu *v);

/*
 * Raise the events of the vCPU's pending requests and wait until all of them are answered; *data receives the data of
 * the last. Returns 0 with the vCPU in XEN, or -errno if the domain stopped. The vCPU's own thread, which holds no
 * lock.
 */
int emb_wait_for_answers(emb_vcpu *v, uint64_t *data);

/* Forget the pending requests of a vCPU that stops; they stay in their slots. The vCPU's own thread. */
void emb_drop_pending(emb_vcpu *v);

/* Sleep until emb_domain.generation is no longer `generation`. The vCPU's own thread, which holds no lock. */
void emb_sleep_until_bumped(emb_vcpu *v, uint32_t generation);
#endif

#endif
