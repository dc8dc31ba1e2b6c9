#ifndef XD_ENTRY_H
#define XD_ENTRY_H
#include <stdint.h>

/*
 * Bits of a generation 8 and 9 page-table entry, by position. Sources: Linux 6.1 drivers/gpu/drm/i915/gt/intel_gtt.h
 * (GEN8_PAGE_PRESENT, GEN8_PAGE_RW, GEN8_PDE_PS_2M, GEN8_PDE_IPS_64K, PPAT_*), gvt/gtt.c (GTT_HAW 46, ADDR_*_MASK),
 * Intel PRM Broadwell vol. 5 "Memory Views", PPGTT table entries.
 */
enum {
    XD_BIT_PRESENT = 0,
    XD_BIT_WRITABLE = 1,
    XD_BIT_PWT = 3,
    XD_BIT_PCD = 4,
    XD_BIT_PAT = 7,        /* in a 4 KiB or 64 KiB leaf */
    XD_BIT_HUGE = 7,       /* in a directory entry: 1 GiB or 2 MiB page */
    XD_BIT_IPS = 11,       /* in a page-directory entry: its table holds 64 KiB entries */
    XD_BIT_PAT_HUGE = 12,  /* in a 2 MiB leaf */
    XD_ADDRESS_BITS = 46   /* frame numbers end below this bit; above it an entry means nothing */
};

#endif
