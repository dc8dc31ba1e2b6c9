#ifndef XD_SLOT_ACCESS_H
#define XD_SLOT_ACCESS_H
#include "ioreq.h"

/*
 * Access to a slot's state and port, for both of its sides: slots.c, and the embedded hypervisor. For C alone.
 *
 * Facts: byte 30 holds the state beside bits that only Xen writes while the request is ours. What follows: the state is
 * stored as one byte with the other bits kept. The load acquires and the store releases, so that whoever sees a state
 * sees the fields that were written before it.
 */
static inline xd_ioreq *slot_of(void *page, uint32_t vcpu)
{
    return (xd_ioreq *)page + vcpu;
}

static inline uint8_t load_bits(const xd_ioreq *slot)
{
    return __atomic_load_n(&slot->bits, __ATOMIC_ACQUIRE);
}

static inline uint32_t load_state(const xd_ioreq *slot)
{
    return load_bits(slot) & XD_STATE_MASK;
}

static inline uint32_t load_port(const xd_ioreq *slot)
{
    return __atomic_load_n(&slot->vp_eport, __ATOMIC_RELAXED);
}

static inline void store_state(xd_ioreq *slot, uint32_t state)
{
    uint8_t kept = (uint8_t)(__atomic_load_n(&slot->bits, __ATOMIC_RELAXED) & ~XD_STATE_MASK);
    __atomic_store_n(&slot->bits, (uint8_t)(kept | state), __ATOMIC_RELEASE);
}

#endif
