#include "slot_page.h"

#include "slot_access.h"

#include <errno.h>

int xd_slot_post(void *page, uint32_t vcpu, const xd_ioreq *req)
{
    xd_ioreq *slot = slot_of(page, vcpu);
    if (load_state(slot) != XD_STATE_NONE)
        return -EBUSY;
    __atomic_store_n(&slot->addr, req->addr, __ATOMIC_RELAXED);
    __atomic_store_n(&slot->data, req->data, __ATOMIC_RELAXED);
    __atomic_store_n(&slot->count, req->count, __ATOMIC_RELAXED);
    __atomic_store_n(&slot->size, req->size, __ATOMIC_RELAXED);
    __atomic_store_n(&slot->type, req->type, __ATOMIC_RELAXED);
    __atomic_store_n(&slot->bits, (uint8_t)(req->bits & ~XD_STATE_MASK), __ATOMIC_RELAXED);
    store_state(slot, XD_STATE_READY);
    return 0;
}

uint64_t xd_slot_data(const void *page, uint32_t vcpu)
{
    return __atomic_load_n(&((const xd_ioreq *)page + vcpu)->data, __ATOMIC_RELAXED);
}

void xd_slot_set_state(void *page, uint32_t vcpu, uint32_t state)
{
    store_state(slot_of(page, vcpu), state);
}

void xd_slot_set_port(void *page, uint32_t vcpu, uint32_t port)
{
    __atomic_store_n(&slot_of(page, vcpu)->vp_eport, port, __ATOMIC_RELAXED);
}
