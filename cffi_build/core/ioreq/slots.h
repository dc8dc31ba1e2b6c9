#ifndef XD_IOREQ_H
#define XD_IOREQ_H
#include "stats.h"

#include <stdint.h>

/*
 * The synchronous ioreq slot, xen/include/public/hvm/ioreq.h `struct ioreq`: 32 bytes, one a vCPU, 128 a page.
 * Xen writes the bit fields of byte 30 as bit fields; here they are masks, because a slot is shared memory and each
 * access to it must be one access of a width we chose.
 */
typedef struct xd_ioreq {
    uint64_t addr;     /* guest physical address; PCI_CONFIG: SBDF << 32 | register */
    uint64_t data;     /* the value, or the guest physical address of the data if DATA_IS_PTR */
    uint32_t count;    /* repetitions */
    uint32_t size;     /* bytes per repetition */
    uint32_t vp_eport; /* Xen's end of this vCPU's event channel */
    uint16_t padding;
    uint8_t bits;      /* state, DATA_IS_PTR, READ, DOWN */
    uint8_t type;
} xd_ioreq;

enum { XD_IOREQ_PIO = 0, XD_IOREQ_COPY = 1, XD_IOREQ_PCI_CONFIG = 2, XD_IOREQ_TIMEOFFSET = 7, XD_IOREQ_INVALIDATE = 8 };
enum { XD_STATE_NONE = 0, XD_STATE_READY = 1, XD_STATE_INPROCESS = 2, XD_STATE_RESP_READY = 3, XD_STATE_MASK = 0x0f };
enum { XD_BIT_DATA_IS_PTR = 0x10, XD_BIT_READ = 0x20, XD_BIT_DOWN = 0x40 };
enum { XD_SLOTS_PER_PAGE = 128 };

/* A request taken out of its slot: the only copy that anyone looks at from then on. */
typedef struct xd_taken {
    xd_ioreq req;
    uint32_t vcpu;
    uint32_t padding;
} xd_taken;

/*
 * The device model's side. xd_slots_take moves each READY slot of vCPUs 0..nr_vcpus-1 to INPROCESS and copies it out
 * once; with `adopt`, slots that a predecessor left INPROCESS too. Returns how many were taken (`out` has room for
 * nr_vcpus). xd_slot_answer stores `data` if the request was a read, then RESP_READY (release); the notify is the caller's.
 * Both keep the time in `timing`, if that is not NULL; `route` says which of its histograms gets the answer, an xd_route.
 */
int xd_slots_take(void *page, uint32_t nr_vcpus, int adopt, xd_taken *out, xd_timing *timing);
void xd_slot_answer(void *page, uint32_t vcpu, uint64_t data, uint32_t route, xd_timing *timing);
uint32_t xd_slot_port(const void *page, uint32_t vcpu);

/* As xd_slots_take, but if there is nothing yet, go on looking for up to `nanoseconds`. */
int xd_slots_await(void *page, uint32_t nr_vcpus, uint32_t nanoseconds, xd_taken *out, xd_timing *timing);

/* Look, for up to `nanoseconds`, whether Xen has taken every answer; 1 if it has. */
int xd_slots_await_taken(const void *page, uint32_t nr_vcpus, uint32_t nanoseconds);

/*
 * The hypervisor's side, for the embedded one. xd_slot_post writes the request with state NONE, then READY (release);
 * -EBUSY if the slot is not in NONE. xd_slot_state is an acquire load of the state alone.
 */
int xd_slot_post(void *page, uint32_t vcpu, const xd_ioreq *req);
uint32_t xd_slot_state(const void *page, uint32_t vcpu);
uint64_t xd_slot_data(const void *page, uint32_t vcpu);
void xd_slot_set_state(void *page, uint32_t vcpu, uint32_t state);
void xd_slot_set_port(void *page, uint32_t vcpu, uint32_t port);

#endif
