/*
 * The device model's side of a page of ioreq slots.
 *
 * Facts: a slot is memory that two parties write. Xen re-reads only the state. A compiler may read a plain field twice
 * (XSA-155, XSA-197). What follows: every access is atomic, of a chosen width, and a request is copied out once, after
 * the acquire load that saw READY.
 */
#include "slots.h"

#include "frames.h"
#include "slot_access.h"

#include <stdbool.h>

_Static_assert(sizeof(xd_ioreq) == 32, "struct ioreq is 32 bytes");
_Static_assert(__builtin_offsetof(xd_ioreq, vp_eport) == 24, "vp_eport is at 24");
_Static_assert(__builtin_offsetof(xd_ioreq, bits) == 30, "the bit fields are at 30");
_Static_assert((int)XD_STATS_VCPUS == (int)XD_SLOTS_PER_PAGE, "every slot's request is timed");

static int is_wanted(uint32_t state, int which)
{
    return (state == XD_STATE_READY && which != XD_TAKE_BEGUN) || (state == XD_STATE_INPROCESS && which != XD_TAKE_READY);
}

/* Copies a request whose slot had `bits`, and makes the slot INPROCESS. */
static void take_one(void *page, uint32_t vcpu, uint8_t bits, xd_taken *out, xd_journal_record *journal)
{
    xd_ioreq *slot = slot_of(page, vcpu);
    out->vcpu = vcpu;
    out->outcome = XD_NOT_TRIED;
    out->req.addr = __atomic_load_n(&slot->addr, __ATOMIC_RELAXED);
    out->req.data = __atomic_load_n(&slot->data, __ATOMIC_RELAXED);
    out->req.count = __atomic_load_n(&slot->count, __ATOMIC_RELAXED);
    out->req.size = __atomic_load_n(&slot->size, __ATOMIC_RELAXED);
    out->req.vp_eport = __atomic_load_n(&slot->vp_eport, __ATOMIC_RELAXED);
    out->req.padding = 0;
    out->req.bits = bits;
    out->req.type = __atomic_load_n(&slot->type, __ATOMIC_RELAXED);
    if (journal && (bits & XD_STATE_MASK) == XD_STATE_READY)
        xd_journal_forget(&journal[vcpu]);
    store_state(slot, XD_STATE_INPROCESS);
}

void xd_slot_take(void *page, uint32_t vcpu, xd_taken *out, xd_timing *timing, xd_journal_record *journal, uint64_t now)
{
    take_one(page, vcpu, load_bits(slot_of(page, vcpu)), out, journal);
    xd_timing_taken(timing, vcpu, now);
}

int xd_slots_take(void *page, uint32_t nr_vcpus, int which, xd_taken *out, xd_timing *timing,
                  xd_journal_record *journal)
{
    int taken = 0;
    uint64_t now = 0;
    for (uint32_t vcpu = 0; vcpu < nr_vcpus; vcpu++) {
        uint8_t bits = load_bits(slot_of(page, vcpu));
        if (!is_wanted(bits & XD_STATE_MASK, which))
            continue;
        take_one(page, vcpu, bits, &out[taken++], journal);
        if (timing) {
            now = now ? now : xd_now();
            xd_timing_taken(timing, vcpu, now);
        }
    }
    return taken;
}

int xd_slots_await_taken(const void *page, uint32_t nr_vcpus, uint32_t nanoseconds)
{
    uint64_t end = xd_now() + nanoseconds;
    for (uint32_t vcpu = 0; vcpu < nr_vcpus; vcpu++)
        while (xd_slot_state(page, vcpu) == XD_STATE_RESP_READY) {
            if (xd_now() >= end)
                return 0;
            relax();
        }
    return 1;
}

void xd_slot_answer(void *page, uint32_t vcpu, uint64_t data, uint32_t route, xd_timing *timing)
{
    xd_ioreq *slot = slot_of(page, vcpu);
    if (__atomic_load_n(&slot->bits, __ATOMIC_RELAXED) & XD_BIT_READ)
        __atomic_store_n(&slot->data, data, __ATOMIC_RELAXED);
    store_state(slot, XD_STATE_RESP_READY);
    if (timing)
        xd_timing_answered(timing, vcpu, route);
}

int xd_slots_may_straddle(const void *page, uint32_t nr_vcpus, const uint64_t *gfns, uint32_t count)
{
    for (uint32_t vcpu = 0; vcpu < nr_vcpus; vcpu++) {
        const xd_ioreq *slot = (const xd_ioreq *)page + vcpu;
        uint64_t gpa = __atomic_load_n(&slot->addr, __ATOMIC_RELAXED);
        bool one = __atomic_load_n(&slot->count, __ATOMIC_RELAXED) == 1;
        if (load_bits(slot) & XD_BIT_READ || (one && gpa % XD_FRAME_SIZE >= XD_STORE_REACH))
            continue;
        for (uint32_t i = 0; i < count; i++)
            if (gfns[i] + 1 == gpa >> XD_FRAME_SHIFT)
                return 1;
    }
    return 0;
}

uint32_t xd_slot_port(const void *page, uint32_t vcpu)
{
    return load_port((const xd_ioreq *)page + vcpu);
}

uint32_t xd_slot_state(const void *page, uint32_t vcpu)
{
    return load_state((const xd_ioreq *)page + vcpu);
}
