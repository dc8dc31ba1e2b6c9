#ifndef XD_EMB_MEMORY_H
#define XD_EMB_MEMORY_H
#include "domain.h"

#include <stdint.h>

/*
 * Guest memory by guest physical address. The domain's vCPUs and a device model access it at once, so every access is
 * made of pieces of 1, 2, 4 or 8 aligned bytes, each of them one atomic access.
 *
 * gpa: a guest physical address in bytes. domain, d: see domain.h. Any thread.
 */

/*
 * Reads `size` bytes of guest memory to `to` with no trap, whatever its type: how a test looks, and what DMA does.
 * Returns 0, or -EINVAL if `gpa` to `gpa + size - 1` is not within the domain's frames. Called by
 * hypervisor/embedded/domain.py.
 */
int xd_emb_peek(const xd_emb *domain, uint64_t gpa, void *to, uint64_t size);

/*
 * Writes `size` bytes at `from` to guest memory, with no trap. Returns as xd_emb_peek. Called by
 * hypervisor/embedded/domain.py.
 */
int xd_emb_poke(xd_emb *domain, uint64_t gpa, const void *from, uint64_t size);

#ifndef XD_CFFI
/*
 * Stores `size` bytes at `from` to guest memory, with no trap. The caller has made sure that they are within the
 * domain's frames. Called by C files of this folder.
 */
void emb_ram_store(xd_emb *d, uint64_t gpa, const uint8_t *from, uint32_t size);

/* Loads `size` bytes to `to`, as emb_ram_store stores them. Called by C files of this folder. */
void emb_ram_load(const xd_emb *d, uint64_t gpa, uint8_t *to, uint32_t size);
#endif

#endif
