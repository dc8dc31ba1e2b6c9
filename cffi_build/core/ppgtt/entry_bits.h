#ifndef XD_ENTRY_BITS_H
#define XD_ENTRY_BITS_H
#include <stdint.h>

/*
 * Bits of a page-table entry of graphics generations 8 and 9, by position. No C file belongs to this header.
 *
 * Sources: Linux 6.1 drivers/gpu/drm/i915/gt/intel_gtt.h (GEN8_PAGE_PRESENT, GEN8_PAGE_RW, GEN8_PDE_PS_2M,
 * GEN8_PDE_IPS_64K; PPAT_* for PWT, PCD and PAT), gvt/gtt.c (GTT_HAW 46, ADDR_4K_MASK, ADDR_64K_MASK, ADDR_2M_MASK);
 * Intel PRM Broadwell volume 5 "Memory Views", PPGTT table entries.
 */
enum {
    XD_BIT_PRESENT = 0,    /* GEN8_PAGE_PRESENT */
    XD_BIT_WRITABLE = 1,   /* GEN8_PAGE_RW */
    XD_BIT_PWT = 3,        /* PPAT_UNCACHED is PWT and PCD */
    XD_BIT_PCD = 4,        /* PPAT_DISPLAY_ELLC */
    XD_BIT_PAT = 7,        /* PPAT_CACHED; in a 4 KiB or 64 KiB leaf entry */
    XD_BIT_HUGE = 7,       /* GEN8_PDE_PS_2M; in a directory entry: it maps a 1 GiB or 2 MiB page */
    XD_BIT_IPS = 11,       /* GEN8_PDE_IPS_64K; in a page-directory entry: its table holds 64 KiB entries */
    XD_BIT_PAT_HUGE = 12,  /* PAT of a 2 MiB leaf entry, whose bit 7 says that it is one */
    XD_ADDRESS_BITS = 46   /* GTT_HAW: addresses end below this bit; the bits above it have no meaning here */
};

#endif
