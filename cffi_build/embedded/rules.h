#ifndef XD_EMB_RULES_H
#define XD_EMB_RULES_H
#include <stdint.h>

/*
 * What each Xen does with each p2m type, as data. xengt_dm/hypervisor/embedded/p2m.py fills these tables, with a source
 * for each row; the C files of this folder only obey them. There is no C file of this name.
 */

/* p2m_type_t, xen/arch/x86/include/asm/p2m.h (4.17). Number 15 was called p2m_mmio_write_dm up to 4.7. */
enum {
    XD_P2M_RAM_RW = 0, XD_P2M_INVALID = 1, XD_P2M_RAM_LOGDIRTY = 2, XD_P2M_RAM_RO = 3, XD_P2M_MMIO_DM = 4,
    XD_P2M_MMIO_DIRECT = 5, XD_P2M_POPULATE_ON_DEMAND = 6, XD_P2M_GRANT_MAP_RW = 7, XD_P2M_GRANT_MAP_RO = 8,
    XD_P2M_RAM_PAGING_OUT = 9, XD_P2M_RAM_PAGED = 10, XD_P2M_RAM_PAGING_IN = 11, XD_P2M_RAM_SHARED = 12,
    XD_P2M_RAM_BROKEN = 13, XD_P2M_MAP_FOREIGN = 14, XD_P2M_IOREQ_SERVER = 15, XD_P2M_TYPES = 16
};

/*
 * What an access meets when a type is looked up. The hardware looks first. Only an access that it cannot do reaches the
 * emulator, which looks again.
 */
enum {
    XD_LOOK_DIRECT = 0,  /* the access is done on the frame */
    XD_LOOK_DISCARD = 1, /* a write is dropped */
    XD_LOOK_DEVICE = 2,  /* it goes to the server that has a range there; without one, to the null handler */
    XD_LOOK_OWNER = 3,   /* it goes to the server that claims the type; retried while there is none */
    XD_LOOK_SETTLE = 4,  /* the page becomes plain RAM (marked dirty, populated), and the access starts again */
    XD_LOOK_RETRY = 5,   /* the access starts again when the type has changed */
    XD_LOOK_CRASH = 6,   /* the domain crashes */
    XD_LOOK_PAGE_FAULT = 7 /* the guest gets a page fault */
};

/* How the emulator treats a store over a page's end. */
enum {
    XD_STRADDLE_SPLIT = 0,  /* each page by itself: memory if it can be copied to, else requests (since 4.12) */
    XD_STRADDLE_IO = 1,     /* requests for all of it, as soon as some of it needs one */
    XD_STRADDLE_ALIGNED = 2 /* as IO, in chunks that divide the address, but the page at fault comes first */
};

/* Which parts of an access by request the emulator tries as memory again once the request was answered. */
enum {
    XD_AGAIN_NEVER = 0, /* none: what was begun by request is ended by request */
    XD_AGAIN_FIRST = 1, /* a part of which no chunk was done before */
    XD_AGAIN_ALWAYS = 2
};

typedef struct xd_emb_rules {
    uint16_t change_errno[16][5]; /* [old p2m type][new hvmmem type]: errno of set_mem_type, or 0 */
    uint8_t change_to[5];         /* [hvmmem type]: the p2m type that it becomes */
    uint16_t map_errno[16];       /* [p2m type]: errno of a foreign mapping, or 0 */
    uint8_t store[16];            /* [p2m type]: the hardware's look at a store, XD_LOOK_* */
    uint8_t load[16];             /* and at a load */
    uint8_t copy_store[16];       /* the emulator's look when it would copy to guest memory itself */
    uint8_t copy_load[16];
    uint8_t io_store[16];         /* its look when it has no memory to copy to: DEVICE or OWNER */
    uint8_t io_load[16];          /* DEVICE or DIRECT */
    uint8_t shadow_write[16];     /* what shadow paging's own emulator can write to: DIRECT, DISCARD, or RETRY */
    uint32_t max_servers;
    uint32_t max_ranges;          /* of a kind, per server */
    uint32_t has_claim;           /* map_mem_type_to_ioreq_server exists, and the type can only be set while claimed */
    uint32_t shadow_paging;       /* the guest has no HAP */
    uint32_t unlocked_looks;      /* the emulator's first look is not under the lock of the hardware's */
    uint32_t rep_stores;          /* every store is taken for one of rep stos, see vcpu_insn.c */
    uint32_t straddle;            /* XD_STRADDLE_* */
    uint32_t looks_again;         /* XD_AGAIN_* */
    uint32_t newest_first;        /* servers are asked newest first; else highest id first */
    uint32_t has_default_server;
} xd_emb_rules;

#endif
