#ifndef XD_EMB_SHADOW_PAGING_H
#define XD_EMB_SHADOW_PAGING_H
#include "vcpu_insn.h"

/*
 * The emulator that shadow paging has for stores to read-only pages. It knows memory only: no device model is asked.
 * Return EMB_DONE, or EMB_RETRY where it cannot do the access: the guest then executes the instruction again. The
 * vCPU's own thread calls these, after emb_begin said EMB_BY_SHADOW.
 */

/* Store all of the access, or drop all of it. */
int emb_shadow_store(const emb_access *a);

/* Read the bytes of the access to `to`, as the first half of a read-modify-write. */
int emb_shadow_load(const emb_access *a, uint8_t *to);

#endif
