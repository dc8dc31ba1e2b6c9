#ifndef XD_SLOT_ACCESS_H
#define XD_SLOT_ACCESS_H
#include "ioreq.h"

/*
 * Access to a slot's state and port, for both of its sides: slots.c, and the embedded hypervisor. For C alone.
 *
 * Facts: byte 30 holds the state beside bits that only Xen writes while the request is ours. What follows: the state is
 * stored as one byte with the other bits kept. The load acquires and the store releases, so that whoever sees a state
 * sees the fields that were written before it.
 *
 * page: a mapped page of slots. vcpu: below XD_SLOTS_PER_PAGE. Any thread may call these; each is one atomic access at most.
 */

/* Returns the slot of a vCPU. Called by slots.c, burst.c, requests.c, slot_page.c and wait.c. */
static inline xd_ioreq *slot_of(void *page, uint32_t vcpu)
{
    return (xd_ioreq *)page + vcpu;
}

/* Returns the slot's byte with the state and XD_BIT_* (acquire). Called by slots.c. */
static inline uint8_t load_bits(const xd_ioreq *slot)
{
    return __atomic_load_n(&slot->bits, __ATOMIC_ACQUIRE);
}

/* Returns the slot's state, XD_STATE_* (acquire). Called by slots.c, burst.c, slot_page.c and wait.c. */
static inline uint32_t load_state(const xd_ioreq *slot)
{
    return load_bits(slot) & XD_STATE_MASK;
}

/* Returns vp_eport of the slot. Called by slots.c and requests.c. */
static inline uint32_t load_port(const xd_ioreq *slot)
{
    return __atomic_load_n(&slot->vp_eport, __ATOMIC_RELAXED);
}

/* Changes the slot's state, XD_STATE_* (release). Called by slots.c and slot_page.c. */
static inline void store_state(xd_ioreq *slot, uint32_t state)
{
    uint8_t kept = (uint8_t)(__atomic_load_n(&slot->bits, __ATOMIC_RELAXED) & ~XD_STATE_MASK);
    __atomic_store_n(&slot->bits, (uint8_t)(kept | state), __ATOMIC_RELEASE);
}

/* Tells the processor that this thread looks at a slot again and again. Called by slots.c, burst.c and wait.c. */
static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

#endif
