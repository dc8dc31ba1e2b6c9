#ifndef XD_GPU_MEMORY_H
#define XD_GPU_MEMORY_H
#include <stdint.h>
#include "frames.h"
#include "need.h"
#include "shadow.h"

/*
 * Guest memory as the GPU reaches it: through the GGTT, or through the shadow of a PPGTT, never through the guest's own
 * tables.
 *
 * Translations are cached until xd_gm_drop, which the caller calls whenever something else may have happened since the
 * last access: the guest stored to a table or to the GGTT, frames came or went, Python ran. An access to a frame of which
 * it is not known whether it is RAM is not made before its chunk is queried; so no store goes to a page that the guest
 * gave back before it. The thread that serves the guest calls every function here.
 *
 * address: in bytes; of a PPGTT 48 bits of it count, of the GGTT 32. space: where it is an address.
 */

/*
 * level: 0 is the GGTT; 4 a PPGTT with one root, 2 one with four roots. roots: numbers of their shadow tables, 0 for
 * none. epoch: shadow->epoch when the PPGTT was last in sync. is_final: 1 if it was synced in vain, so that what maps nothing
 * now maps nothing.
 */
typedef struct xd_gpu_space {
    uint32_t level;
    uint32_t roots[4];
    uint32_t is_final;
    uint64_t epoch;
} xd_gpu_space;

/* What came of an access. */
enum {
    XD_GM_DONE = 0,
    XD_GM_FAULT = 1,     /* a read gave zeros, a write vanished; `fault` says where */
    XD_GM_AGAIN = 2,     /* nothing was done: chunks in `need` must be queried first, or `space` must be synced (`stale`) */
    XD_GM_TRACKED = 3,   /* nothing was done: the frame has page tables, so the write must be made by xd_gm_write_table */
    XD_GM_DIRECTORY = 4  /* done; and the page tables of `table` must follow the store before the GPU goes on */
};

/* The first access since `valid` was 0 that went nowhere. level: of the space. */
typedef struct xd_gm_fault {
    uint32_t valid;
    uint32_t level;
    uint32_t write;
    uint32_t padding;
    uint64_t address;
} xd_gm_fault;

/* A store for which the tables of a frame must be updated: what xd_guest_store returned, and what was stored. */
typedef struct xd_gm_table {
    int32_t result;
    uint32_t size;
    uint64_t gpa;
    uint64_t value;
} xd_gm_table;

/* A translation: frame number `gfn` is mapped at `at`, NULL for none. page: address >> 12; root: 0 for the GGTT. */
typedef struct xd_gm_page {
    uint64_t page;
    uint64_t gfn;
    char *at;
    uint32_t root;
    uint8_t valid;
    uint8_t writable;
    uint8_t tracked; /* the frame has page tables */
    uint8_t padding;
} xd_gm_page;

enum { XD_GM_CACHE = 64, XD_GGTT_ADDRESS_BITS = 39 };

/*
 * ggtt: its `ggtt_entries` entries. stores: counts the stores that were made. frame: of the last access that went anywhere.
 * stale: after XD_GM_AGAIN, whether the space must be synced.
 */
typedef struct xd_gpu_memory {
    xd_shadow *shadow;
    xd_frames *frames;
    const uint64_t *ggtt;
    uint64_t ggtt_entries;
    uint64_t stores;
    uint64_t frame;
    uint32_t stale;
    uint32_t padding;
    xd_gm_fault fault;
    xd_gm_table table;
    xd_gm_page cache[XD_GM_CACHE];
    xd_need need;
} xd_gpu_memory;

/* Drops the translations of `memory`. Called by vgpu/engine_view.py and C files of this folder. */
void xd_gm_drop(xd_gpu_memory *memory);

/*
 * Reads `size` bytes, within one page, to `to`. 4 or 8 aligned bytes are one access of the machine. Returns
 * XD_GM_DONE, FAULT or AGAIN. Called by vgpu/engine_view.py and C files of this folder.
 */
int xd_gm_read(xd_gpu_memory *memory, const xd_gpu_space *space, uint64_t address, void *to, uint32_t size);

/*
 * Writes `size` bytes, within one page, from `from`; as xd_gm_read. Returns XD_GM_DONE, FAULT, AGAIN or TRACKED. Called by
 * C files of this folder.
 */
int xd_gm_write(xd_gpu_memory *memory, const xd_gpu_space *space, uint64_t address, const void *from, uint32_t size);

/*
 * Stores the low `size` bytes (1, 2, 4 or 8) of `value`, within one page, whether the frame has page tables or not.
 * Returns XD_GM_DONE, FAULT, AGAIN or DIRECTORY. Called by C files of this folder.
 */
int xd_gm_write_table(xd_gpu_memory *memory, const xd_gpu_space *space, uint64_t address, uint64_t value,
                      uint32_t size);

/*
 * Replaces the `size` bytes (4 or 8, aligned) at `address` by `value` if they are `old`, in one access of the machine.
 * *found: what was there. Returns XD_GM_DONE, with *found equal to `old` if it was stored; else as xd_gm_write. Called by
 * C files of this folder.
 */
int xd_gm_exchange(xd_gpu_memory *memory, const xd_gpu_space *space, uint64_t address, uint64_t old, uint64_t value,
                   uint32_t size, uint64_t *found);

#endif
