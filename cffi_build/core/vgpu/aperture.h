#ifndef XD_APERTURE_H
#define XD_APERTURE_H
#include <stdint.h>
#include "gpu_memory.h"

/*
 * The aperture, BAR2: what the CPU reads and writes there is memory, by fences and the entries of the GGTT. What names no
 * RAM reads as zeros, and what is written there is dropped. No access here counts as a fault of an engine.
 *
 * A fence (gt/intel_ggtt_fencing.c i965_write_fence_reg) is a range of the aperture in which a tiled surface looks as if it
 * had one row after the other. It has a first and a last page, a pitch, and whether tiles are X or Y: an X tile has 8 rows of
 * 512 bytes; a Y tile has 8 columns of 16 bytes, each with 32 rows. Rows of tiles follow each other.
 *
 * The thread that serves the guest calls every function here.
 */
typedef struct xd_aperture {
    xd_gpu_memory *memory;
    const uint64_t *fences;
    uint64_t fence_count;
} xd_aperture;

/*
 * offset: of an access to the BAR of `size` bytes, 1, 2, 4 or 8. Returns 1 if some of these bytes may lie apart from each
 * other. The functions below want 0. Called by quick.c, vgpu/ggtt.py.
 */
int xd_aperture_splits(uint64_t offset, uint32_t size);

/*
 * Reads `size` bytes at `offset` of the BAR. value: receives them. Returns XD_GM_DONE or XD_GM_AGAIN, as gpu_memory.h has
 * them. Called by quick.c, vgpu/ggtt.py.
 */
int xd_aperture_read(const xd_aperture *aperture, uint64_t offset, uint32_t size, uint64_t *value);

/* Writes the low `size` bytes of `value` at `offset` of the BAR. Returns XD_GM_DONE, AGAIN or TRACKED. Called by quick.c. */
int xd_aperture_write(const xd_aperture *aperture, uint64_t offset, uint32_t size, uint64_t value);

/*
 * Writes the low `size` bytes of `value` at `offset` of the BAR, whether the frame has page tables or not. Returns
 * XD_GM_DONE, AGAIN or DIRECTORY. Called by vgpu/ggtt.py.
 */
int xd_aperture_write_table(const xd_aperture *aperture, uint64_t offset, uint32_t size, uint64_t value);

#endif
