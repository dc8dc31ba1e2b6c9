#ifndef XD_MI_STORE_H
#define XD_MI_STORE_H
#ifndef XD_CFFI
#include "cs.h"

/*
 * Commands that store to memory. Handlers as cs.h has them. The thread that serves the guest calls every function here.
 * cs: a run of an engine. d, count: the dwords of the command.
 */

/* MI_STORE_DATA_IMM. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_mi_store_data_imm(xd_cs *cs, const uint32_t *d, uint32_t count);
/* MI_STORE_DATA_INDEX. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_mi_store_data_index(xd_cs *cs, const uint32_t *d, uint32_t count);
/* MI_REPORT_HEAD. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_mi_report_head(xd_cs *cs, const uint32_t *d, uint32_t count);
/* MI_UPDATE_GTT. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_mi_update_gtt(xd_cs *cs, const uint32_t *d, uint32_t count);
/* MI_FLUSH_DW. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_mi_flush_dw(xd_cs *cs, const uint32_t *d, uint32_t count);
/* PIPE_CONTROL. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_mi_pipe_control(xd_cs *cs, const uint32_t *d, uint32_t count);
/* MI_REPORT_PERF_COUNT. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_mi_report_perf_count(xd_cs *cs, const uint32_t *d, uint32_t count);
/* MI_COPY_MEM_MEM. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_mi_copy_mem_mem(xd_cs *cs, const uint32_t *d, uint32_t count);
/* MI_ATOMIC. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_mi_atomic(xd_cs *cs, const uint32_t *d, uint32_t count);
#endif
#endif
