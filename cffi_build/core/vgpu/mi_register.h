#ifndef XD_MI_REGISTER_H
#define XD_MI_REGISTER_H
#ifndef XD_CFFI
#include "cs.h"

/*
 * Commands that load and store registers, and compute with them. Handlers as cs.h has them. The thread that serves the
 * guest calls every function here. cs: a run of an engine. d, count: the dwords of the command.
 *
 * A batch without privilege loads the registers that xd_cs_may_store names; loads of others have no effect. It may read
 * all.
 */

/* MI_LOAD_REGISTER_IMM. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_mi_load_register_imm(xd_cs *cs, const uint32_t *d, uint32_t count);
/* MI_LOAD_REGISTER_MEM. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_mi_load_register_mem(xd_cs *cs, const uint32_t *d, uint32_t count);
/* MI_LOAD_REGISTER_REG. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_mi_load_register_reg(xd_cs *cs, const uint32_t *d, uint32_t count);
/* MI_STORE_REGISTER_MEM. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_mi_store_register_mem(xd_cs *cs, const uint32_t *d, uint32_t count);
/* MI_MATH. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_mi_math(xd_cs *cs, const uint32_t *d, uint32_t count);
#endif
#endif
