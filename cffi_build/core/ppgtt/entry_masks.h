#ifndef XD_ENTRY_MASKS_H
#define XD_ENTRY_MASKS_H

/*
 * Masks of guest entries, which follow from entry_bits.h. For C files only: cffi does not read this header. Any thread
 * may call these functions; they only compute.
 */
#include "entry_bits.h"
#include "frames.h"

#define XD_MASK(bit) (UINT64_C(1) << (bit))
#define XD_PRESENT XD_MASK(XD_BIT_PRESENT)
#define XD_WRITABLE XD_MASK(XD_BIT_WRITABLE)
#define XD_HUGE XD_MASK(XD_BIT_HUGE)
#define XD_IPS XD_MASK(XD_BIT_IPS)
/* The address of a page whose size is 2^low bytes. */
#define XD_ADDRESS(low) ((XD_MASK(XD_ADDRESS_BITS) - 1) & ~(XD_MASK(low) - 1))
#define XD_ADDRESS_4K XD_ADDRESS(12)
#define XD_ADDRESS_64K XD_ADDRESS(16)
#define XD_ADDRESS_2M XD_ADDRESS(21)
/* Every bit of a 2 MiB leaf entry that has an effect. */
#define XD_LEAF_2M                                                                                                     \
    (XD_ADDRESS_2M | XD_PRESENT | XD_HUGE | XD_WRITABLE | XD_MASK(XD_BIT_PWT) | XD_MASK(XD_BIT_PCD) |                  \
     XD_MASK(XD_BIT_PAT_HUGE))

/*
 * Returns the frame that an entry names: its 4 KiB page, or its table. Called by gpu_memory.c and C files of this
 * folder.
 */
static inline uint64_t xd_frame(uint64_t entry)
{
    return (entry & XD_ADDRESS_4K) >> XD_FRAME_SHIFT;
}

/* Returns the first frame of the 2 MiB page that an entry names. Called by audit.c, directory.c and gpu_memory.c. */
static inline uint64_t xd_frame_2m(uint64_t entry)
{
    return (entry & XD_ADDRESS_2M) >> XD_FRAME_SHIFT;
}

/*
 * Returns the attributes of a 2 MiB entry at the bits where a 4 KiB entry has them: PAT moves from bit 12 to bit 7.
 * Called by audit.c, directory.c and walk.c.
 */
static inline uint64_t xd_attributes_of_2m(uint64_t entry)
{
    uint64_t kept = entry & (XD_WRITABLE | XD_MASK(XD_BIT_PWT) | XD_MASK(XD_BIT_PCD));
    return kept | (entry & XD_MASK(XD_BIT_PAT_HUGE) ? XD_MASK(XD_BIT_PAT) : 0);
}

#endif
