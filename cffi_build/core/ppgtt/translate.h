#ifndef XD_TRANSLATE_H
#define XD_TRANSLATE_H

/*
 * From the guest's frames to the frames that the GPU uses.
 *
 * Facts: stock Xen tells user space no machine frame numbers. What follows: the shadow's consumer works on guest
 * frames, and the translation is the identity; the entry's frame stays and everything that has no meaning goes. A host
 * that can tell machine frames puts its lookup into xd_gpu_leaf, and lets leaf.c mask whole lines with XD_LEAF_BITS no
 * more: that is the shortcut that an identity allows, following eight entries at a time without translating one.
 */
#include "entry.h"

#include <stdint.h>

#define XD_LEAF_BITS                                                                                                   \
    ((((UINT64_C(1) << XD_ADDRESS_BITS) - 1) & ~(uint64_t)0xfff) | UINT64_C(1) << XD_BIT_PRESENT |                     \
     UINT64_C(1) << XD_BIT_WRITABLE | UINT64_C(1) << XD_BIT_PWT | UINT64_C(1) << XD_BIT_PCD | UINT64_C(1) << XD_BIT_PAT)

/* The shadow of a present 4 KiB entry whose frame is RAM. */
static inline uint64_t xd_gpu_leaf(uint64_t guest)
{
    return guest & XD_LEAF_BITS;
}

#endif
