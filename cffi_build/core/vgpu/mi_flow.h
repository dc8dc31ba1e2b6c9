#ifndef XD_MI_FLOW_H
#define XD_MI_FLOW_H
#ifndef XD_CFFI
#include "cs.h"

/*
 * Commands that decide what is executed next: batches, semaphores, predicates. Handlers as cs.h has them. The thread that
 * serves the guest calls every function here. cs: a run of an engine. d, count: the dwords of the command.
 */

/* MI_NOOP. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_mi_noop(xd_cs *cs, const uint32_t *d, uint32_t count);
/* MI_ARB_ON_OFF. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_mi_arb_on_off(xd_cs *cs, const uint32_t *d, uint32_t count);
/* MI_BATCH_BUFFER_START. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_mi_batch_buffer_start(xd_cs *cs, const uint32_t *d, uint32_t count);
/* MI_BATCH_BUFFER_END. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_mi_batch_buffer_end(xd_cs *cs, const uint32_t *d, uint32_t count);
/* MI_CONDITIONAL_BATCH_BUFFER_END. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_mi_conditional_batch_buffer_end(xd_cs *cs, const uint32_t *d, uint32_t count);
/* MI_SEMAPHORE_SIGNAL. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_mi_semaphore_signal(xd_cs *cs, const uint32_t *d, uint32_t count);
/* MI_SEMAPHORE_WAIT. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_mi_semaphore_wait(xd_cs *cs, const uint32_t *d, uint32_t count);
/* MI_SET_PREDICATE. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_mi_set_predicate(xd_cs *cs, const uint32_t *d, uint32_t count);
/* MI_PREDICATE. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_mi_predicate(xd_cs *cs, const uint32_t *d, uint32_t count);

/*
 * Returns whether MI_SET_PREDICATE has the engine pass over a command that does this, an xd_does. Called by streamer.c.
 */
bool xd_mi_is_predicated(const xd_cs *cs, uint32_t does);
#endif
#endif
