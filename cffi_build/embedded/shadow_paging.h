#ifndef XD_EMB_SHADOW_PAGING_H
#define XD_EMB_SHADOW_PAGING_H
#include "vcpu_insn.h"

/*
 * The emulator that shadow paging has for stores to read-only pages. It knows memory only: no device model is asked.
 * The vCPU's own thread calls these for an access `a`, after emb_begin said EMB_BY_SHADOW.
 */

/*
 * Stores all of the access, or drops all of it. Returns EMB_DONE, or EMB_RETRY where it cannot do that: the guest then
 * executes the instruction again. Called by vcpu_insn.c and vcpu_rmw.c.
 */
int emb_shadow_store(const emb_access *a);

/*
 * Reads the bytes of the access to `to`, as the first half of a read-modify-write. Returns EMB_DONE, or EMB_RETRY where
 * it cannot do that: the guest then executes the instruction again. Called by vcpu_rmw.c.
 */
int emb_shadow_load(const emb_access *a, uint8_t *to);

#endif
