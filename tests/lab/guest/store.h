/* Every way in which the lab's guests store to memory. */
#ifndef STORE_H
#define STORE_H

#include "lab.h"

enum store_way {
    STORE_MOV_1,
    STORE_MOV_2,
    STORE_MOV_4,
    STORE_MOVQ_MMX,
    STORE_MOVQ_SSE,
    STORE_MOVDQU,
    STORE_MOVDQA,
    STORE_REP_MOVSB,
    STORE_REP_MOVSL,
    STORE_XCHG,
    STORE_CMPXCHG,
    STORE_CMPXCHG8B,
    STORE_XOR,
    STORE_UNALIGNED_4,
    /* These and MOVDQU can go over a page's end. */
    STORE_UNALIGNED_2,
    STORE_UNALIGNED_8,
    STORE_UNALIGNED_ODD,
    STORE_WAYS
};

/* Bytes that `way` stores at least: lengths are multiples of it; MOVDQA wants its addresses aligned to it, too. */
u32 store_unit(enum store_way way);

/*
 * Store `bytes` bytes from `from` to `to` that way, lowest address first. Returns the number of writes that Xen sends to
 * a device model if `to` is write-protected and the range stays within a page.
 */
u32 store(enum store_way way, void *to, const void *from, u32 bytes);

/*
 * Store 16 bytes, 8 on each side of the page boundary `boundary`. writes[0] and writes[1] become the numbers of writes
 * that Xen makes of it in the page before and the page after.
 */
void store_across(enum store_way way, void *boundary, const void *from, u32 writes[2]);

/* Like store(), for a repeated value: rep stosb, or rep stosl where `wide` (then `bytes` is a multiple of 4). */
u32 store_fill(void *to, u8 value, u32 bytes, int wide);

#endif
