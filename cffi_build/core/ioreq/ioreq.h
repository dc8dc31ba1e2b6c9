#ifndef XD_IOREQ_H
#define XD_IOREQ_H
#include <stdint.h>

/*
 * The synchronous ioreq slot: `struct ioreq` of xen/include/public/hvm/ioreq.h. 32 bytes, one per vCPU, 128 per page.
 *
 * Xen declares the contents of byte 30 as bit fields. Here they are masks: a slot is memory shared with Xen, so each
 * access to it must be one access of a width that we choose.
 */
typedef struct xd_ioreq {
    uint64_t addr;     /* guest physical address; PIO: the port; PCI_CONFIG: SBDF << 32 | register */
    uint64_t data;     /* the value; with XD_BIT_DATA_IS_PTR the guest physical address of the data */
    uint32_t count;    /* repetitions */
    uint32_t size;     /* bytes per repetition */
    uint32_t vp_eport; /* Xen's end of this vCPU's event channel */
    uint16_t padding;
    uint8_t bits;      /* the state (XD_STATE_MASK) and XD_BIT_* */
    uint8_t type;      /* XD_IOREQ_* */
} xd_ioreq;

enum { XD_IOREQ_PIO = 0, XD_IOREQ_COPY = 1, XD_IOREQ_PCI_CONFIG = 2, XD_IOREQ_TIMEOFFSET = 7, XD_IOREQ_INVALIDATE = 8 };
enum { XD_STATE_NONE = 0, XD_STATE_READY = 1, XD_STATE_INPROCESS = 2, XD_STATE_RESP_READY = 3, XD_STATE_MASK = 0x0f };
/* READ: the guest reads. DOWN: repetitions go to lower addresses (EFLAGS.DF). */
enum { XD_BIT_DATA_IS_PTR = 0x10, XD_BIT_READ = 0x20, XD_BIT_DOWN = 0x40 };
enum { XD_SLOTS_PER_PAGE = 128 };

#endif
