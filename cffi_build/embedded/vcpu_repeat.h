#ifndef XD_EMB_REPEAT_H
#define XD_EMB_REPEAT_H
#include "vcpu_run.h"
#include "state.h"

/*
 * Repeated instructions on memory, and what they share with string I/O. v: the vCPU, whose own thread calls these. d:
 * its domain. op: what it executes.
 */

/* Executes REP_STOS or REP_MOVS, all its elements. Returns 0 or -errno. Called by vcpu_run.c. */
int emb_repeat(emb_vcpu *v, const xd_emb_op *op);

/*
 * Returns how many of `count` elements one request can carry with a pointer to memory at `gpa`: as many as lie in that
 * page (hvmemul_do_io_addr). Returns 0 if even one of them cannot be had so: it then goes by value. Called by ports.c.
 */
uint64_t emb_fit_pointer(const xd_emb *d, uint64_t gpa, const xd_emb_op *op, uint64_t count);

/*
 * Does what the null handler does for a read of `count` elements by pointer: memory at `gpa` becomes all ones. Called
 * by ports.c.
 */
void emb_store_all_ones(emb_vcpu *v, const xd_emb_op *op, uint64_t gpa, uint64_t count);

#endif
