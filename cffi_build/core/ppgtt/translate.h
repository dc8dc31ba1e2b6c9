#ifndef XD_TRANSLATE_H
#define XD_TRANSLATE_H

/*
 * From the guest's frames to the frames that a GPU uses. For C files only: cffi does not read this header.
 *
 * Facts: stock Xen does not expose a guest's machine frame numbers to user space. Consequence: a GPU or a tool that
 * walks the shadow works on guest frames, so the translation is the identity; an entry keeps its frame and loses every
 * bit without an effect. Decision: a host that can tell machine frames puts its look-up into xd_gpu_leaf, and leaf.c
 * must then stop to mask whole lines with XD_LEAF_BITS. Cost: none today; eight entries at a time are masked and none
 * is translated.
 */
#include "entry_bits.h"

#include <stdint.h>

/* Every bit of a 4 KiB leaf entry that has an effect. */
#define XD_LEAF_BITS                                                                                                   \
    ((((UINT64_C(1) << XD_ADDRESS_BITS) - 1) & ~(uint64_t)0xfff) | UINT64_C(1) << XD_BIT_PRESENT |                     \
     UINT64_C(1) << XD_BIT_WRITABLE | UINT64_C(1) << XD_BIT_PWT | UINT64_C(1) << XD_BIT_PCD | UINT64_C(1) << XD_BIT_PAT)

/*
 * Returns the shadow entry for `guest`, a present 4 KiB guest entry whose frame is RAM. Called by C files of this
 * folder, in any thread.
 */
static inline uint64_t xd_gpu_leaf(uint64_t guest)
{
    return guest & XD_LEAF_BITS;
}

#endif
