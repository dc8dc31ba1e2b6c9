#ifndef XD_EMBEDDED_H
#define XD_EMBEDDED_H
#include <stdint.h>

/*
 * The embedded hypervisor: one HVM domain inside this process, as Xen keeps it for a device model. What each p2m type
 * does, and which changes between types are allowed, comes as tables from xengt_dm/hypervisor/embedded/p2m.py.
 *
 * Functions return 0 or a count, or -errno. All of them may be called from any thread.
 */
typedef struct xd_emb xd_emb;
typedef struct xd_emb_events xd_emb_events;

/* p2m_type_t, xen/arch/x86/include/asm/p2m.h (4.17). Number 15 was called p2m_mmio_write_dm up to 4.7. */
enum {
    XD_P2M_RAM_RW = 0, XD_P2M_INVALID = 1, XD_P2M_RAM_LOGDIRTY = 2, XD_P2M_RAM_RO = 3, XD_P2M_MMIO_DM = 4,
    XD_P2M_MMIO_DIRECT = 5, XD_P2M_POPULATE_ON_DEMAND = 6, XD_P2M_GRANT_MAP_RW = 7, XD_P2M_GRANT_MAP_RO = 8,
    XD_P2M_RAM_PAGING_OUT = 9, XD_P2M_RAM_PAGED = 10, XD_P2M_RAM_PAGING_IN = 11, XD_P2M_RAM_SHARED = 12,
    XD_P2M_RAM_BROKEN = 13, XD_P2M_MAP_FOREIGN = 14, XD_P2M_IOREQ_SERVER = 15, XD_P2M_TYPES = 16
};

/* What an access meets. The hardware looks first; only what it cannot do reaches the emulator, which looks again. */
enum {
    XD_LOOK_DIRECT = 0,  /* done on the frame */
    XD_LOOK_DISCARD = 1, /* a write is dropped */
    XD_LOOK_DEVICE = 2,  /* goes to the server whose range holds it, else to the null handler */
    XD_LOOK_OWNER = 3,   /* goes to the server that claims the type; retried while there is none */
    XD_LOOK_SETTLE = 4,  /* the page becomes plain RAM (marked dirty, populated), then the access starts again */
    XD_LOOK_RETRY = 5,   /* retried until the type changes */
    XD_LOOK_FAULT = 6    /* the guest gets a fault */
};

enum {
    XD_STRADDLE_SPLIT = 0,  /* each page for itself: memory if it can be copied to, else requests (since 4.12) */
    XD_STRADDLE_IO = 1,     /* requests for all of it, as soon as some of it needs one */
    XD_STRADDLE_ALIGNED = 2 /* like that, in chunks that divide the address; but the page at fault comes first */
};

enum {
    XD_AGAIN_NEVER = 0, /* none: by request once, by request to the end */
    XD_AGAIN_FIRST = 1, /* one of which no chunk was done before */
    XD_AGAIN_ALWAYS = 2
};

typedef struct xd_emb_rules {
    uint16_t change_errno[16][5]; /* [old p2m type][hvmmem type] of set_mem_type */
    uint8_t change_to[5];         /* [hvmmem type] -> p2m type */
    uint16_t map_errno[16];       /* of a foreign mapping */
    uint8_t store[16];            /* the hardware's look at a store */
    uint8_t load[16];             /* and at a load */
    uint8_t copy_store[16];       /* the emulator's look when it would copy to guest memory itself */
    uint8_t copy_load[16];
    uint8_t io_store[16];         /* its look when it has no memory to copy to: DEVICE or OWNER */
    uint8_t io_load[16];          /* DEVICE or DIRECT */
    uint32_t max_servers;
    uint32_t max_ranges;
    uint32_t has_claim;           /* map_mem_type_to_ioreq_server exists, and the type can only be set while claimed */
    uint32_t unlocked_looks;      /* the emulator's first look is not under the lock of the hardware's */
    uint32_t rep_stores;          /* every store is taken for one of rep stos, which no page may become RAM under */
    uint32_t straddle;            /* how a store over a page's end, or to a page known to be at fault, is emulated */
    uint32_t looks_again;         /* which parts of an access, once answered, are tried as memory again */
    uint32_t newest_first;        /* servers are asked newest first; else highest id first */
    uint32_t has_default_server;
} xd_emb_rules;

enum {
    XD_EMB_TRAPPED = 0,        /* ioreqs posted, INVALIDATE left out */
    XD_EMB_INVALIDATES = 1,
    XD_EMB_DROPPED_STORES = 2, /* instructions of which some part fell to the null handler */
    XD_EMB_DISCARDED_STORES = 3, /* instructions of which some part met read-only memory */
    XD_EMB_ALL_ONES_LOADS = 4, /* reads that the null handler answered */
    XD_EMB_RETRIES = 5,        /* instructions started again because the type had no owner */
    XD_EMB_PASSES = 6,         /* emulation passes */
    XD_EMB_EVENTS = 7,         /* events raised to a device model */
    XD_EMB_LOST_EVENTS = 8,    /* events on a channel that nobody had bound */
    XD_EMB_SLEEPS = 9,         /* waits for an answer that went to sleep */
    XD_EMB_FAULTS = 10,        /* faults for the guest */
    XD_EMB_SETTLED = 11,       /* pages that became plain RAM when they were touched */
    XD_EMB_COUNTERS = 12
};

/* All frames are RAM at first, and zero. `rules` is copied. NULL if memory is short. */
xd_emb *xd_emb_new(uint32_t domid, uint64_t frames, uint32_t vcpus, const xd_emb_rules *rules);
/* No thread may be inside any call, nor any event handle be open. */
void xd_emb_free(xd_emb *domain);
/* The domain is no more: every vCPU stops, every call says -ESRCH. Memory stays until xd_emb_free. */
void xd_emb_destroy(xd_emb *domain);
/* 0, or why vCPUs stand still: ESRCH destroyed, ENOTRECOVERABLE crashed; `reason` takes 128 bytes, or is NULL. */
int xd_emb_stopped(xd_emb *domain, char *reason);
void xd_emb_crash(xd_emb *domain, const char *reason);
/* Pausing returns when no vCPU runs; one that waits for an answer does not run. Pauses nest. */
void xd_emb_pause(xd_emb *domain);
void xd_emb_unpause(xd_emb *domain);
/* An orderly shutdown: vCPUs stand still from here on, but one that waits for an answer defers it until it has it. */
void xd_emb_shutdown(xd_emb *domain);
int xd_emb_is_shut_down(xd_emb *domain);
uint64_t xd_emb_counter(const xd_emb *domain, int which);

/* Frames and types. xd_emb_set_type is no hypercall: it puts frames into a state that a test starts from. */
int xd_emb_type(const xd_emb *domain, uint64_t gfn);
int xd_emb_set_type(xd_emb *domain, uint64_t gfn, uint64_t count, int p2m_type);
uint64_t xd_emb_entries(const xd_emb *domain);
int xd_emb_log_dirty(xd_emb *domain, int on);
/* Change `count` frames, one hypercall each; errors[i] is 0 or errno. Returns how many failed, or -ESRCH. */
int xd_emb_set_mem_types(xd_emb *domain, uint32_t hvmmem, const uint64_t *gfns, int count, int *errors);
/* The device model's mapping of all frames: frame n is at n * 4096. */
char *xd_emb_window(const xd_emb *domain);
/* Map frames at *address, or where it likes and says so if that is 0; errors[i] is 0 or errno. */
int xd_emb_map_frames(xd_emb *domain, uint64_t first, int count, int *errors, uint64_t *address);
int xd_emb_unmap_frames(xd_emb *domain, uint64_t address, int count);
/* Let pages of the device model's mappings vanish: touching them is SIGBUS until they are mapped again. */
int xd_emb_vanish(xd_emb *domain, uint64_t address, int count);
/* The domain's own view of its memory, for tests: no trap. */
int xd_emb_peek(const xd_emb *domain, uint64_t gpa, void *to, uint64_t size);
int xd_emb_poke(xd_emb *domain, uint64_t gpa, const void *from, uint64_t size);

/* ioreq servers. */
int xd_emb_server_create(xd_emb *domain);
int xd_emb_server_destroy(xd_emb *domain, uint32_t server);
int xd_emb_server_exists(xd_emb *domain, uint32_t server);
int xd_emb_server_state(xd_emb *domain, uint32_t server, int enabled);
int xd_emb_server_default(xd_emb *domain, uint32_t server);
int xd_emb_slots_map(xd_emb *domain, uint32_t server, char **page);
int xd_emb_slots_unmap(xd_emb *domain, char *page);
/* Kinds of ranges, XEN_DMOP_IO_RANGE_*; a PCI function is a range of one, segment << 16 | bus << 8 | devfn. */
enum { XD_RANGE_PORT = 0, XD_RANGE_MEMORY = 1, XD_RANGE_PCI = 2, XD_RANGE_KINDS = 3 };
int xd_emb_range_map(xd_emb *domain, uint32_t server, uint32_t kind, uint64_t first, uint64_t last);
int xd_emb_range_unmap(xd_emb *domain, uint32_t server, uint32_t kind, uint64_t first, uint64_t last);
int xd_emb_range_count(xd_emb *domain, uint32_t server, uint32_t kind);
/* map_mem_type_to_ioreq_server: flags 2 claims, 0 releases. */
int xd_emb_claim(xd_emb *domain, uint32_t server, uint32_t hvmmem, uint32_t flags);
/* The server that has the claim, or -1. */
int xd_emb_owner(xd_emb *domain);

/* Event channels of one device model, as /dev/xen/evtchn has them. */
xd_emb_events *xd_emb_events_new(xd_emb *domain);
void xd_emb_events_free(xd_emb_events *events);
int xd_emb_events_fd(const xd_emb_events *events);
int xd_emb_events_bind(xd_emb_events *events, uint32_t remote_port);
int xd_emb_events_unbind(xd_emb_events *events, int port);
int xd_emb_events_notify(xd_emb_events *events, int port);
/* Take one pending port, which stays masked until xd_emb_events_unmask; 0 if there is none. */
int xd_emb_events_pending(xd_emb_events *events);
int xd_emb_events_unmask(xd_emb_events *events, int port);
/* Take and unmask all that are pending; how many. */
int xd_emb_events_drain(xd_emb_events *events);

/* Operations of a vCPU. One is one instruction, except for those that say otherwise. */
enum {
    XD_OP_STORE = 0,    /* 1, 2, 4 or 8 bytes of value; 1..64 bytes at `data` if that is not 0 */
    XD_OP_LOAD = 1,     /* 1, 2, 4 or 8 bytes into value */
    XD_OP_FILL = 2,     /* `count` stores of `size` bytes of value, upwards: a compiled memset */
    XD_OP_COPY = 3,     /* `count` bytes at `data` by stores of up to 8: a compiled memcpy */
    XD_OP_REP_STOS = 4, /* `count` elements of `size` bytes */
    XD_OP_REP_MOVS = 5, /* the same from gpa `data` */
    XD_OP_XCHG = 6,     /* value goes in, the old value comes out */
    XD_OP_CMPXCHG = 7,  /* compared with `data`; the old value comes out, and 1 in `count` if value was stored */
    XD_OP_REMOVE = 8,   /* the guest gives back `count` frames from gfn `gpa` */
    XD_OP_ADD = 9,      /* `count` frames from gfn `gpa` are RAM again, zero */
    XD_OP_OUT = 10,     /* port I/O of 1, 2 or 4 bytes; 0xcf8 and 0xcfc reach PCI configuration space */
    XD_OP_IN = 11,
    XD_OP_MODIFY = 12,    /* or, and, xor, add (XD_MODIFY_*, in `data`) of value, locked or not; the old value comes out */
    XD_OP_HYPERCALL = 13, /* a hypercall that gives back `size` bytes at `data`; 0 or EFAULT comes out */
    XD_OP_KINDS = 14
};
enum { XD_REP_DOWN = 1 }; /* the direction flag */
enum { XD_MODIFY_OR = 0, XD_MODIFY_AND = 1, XD_MODIFY_XOR = 2, XD_MODIFY_ADD = 3, XD_MODIFY_KINDS = 4 };

typedef struct xd_emb_op {
    uint64_t gpa;
    uint64_t value;
    uint64_t data;
    uint64_t count;
    uint32_t size;
    uint16_t kind;
    uint16_t flags;
} xd_emb_op;

/*
 * Execute operations on a vCPU; two threads on one vCPU take turns, call by call. `*done` is how many were finished.
 * 0; -ESRCH the domain is gone; -ENOTRECOVERABLE it crashed; -EFAULT a fault for the guest; -EINVAL a bad operation.
 */
int xd_emb_run(xd_emb *domain, uint32_t vcpu, xd_emb_op *ops, int count, int *done);
/* How many times a wait looks before it sleeps. */
void xd_emb_set_spin(xd_emb *domain, uint32_t turns);

/* Named points at which a vCPU can be held; a hold is for the next time the vCPU comes there. */
enum {
    XD_POINT_FETCH = 0,         /* before an instruction looks at memory */
    XD_POINT_BETWEEN_LOOKS = 1, /* before the emulator looks without the lock that the first look was made under */
    XD_POINT_COPY = 2,          /* the emulator has looked, and is about to write RAM itself */
    XD_POINT_POSTED = 3,        /* the request is READY, the event not yet raised */
    XD_POINT_ANSWERED = 4,      /* RESP_READY was seen, the slot not yet taken back */
    XD_POINTS = 5
};
int xd_emb_hold(xd_emb *domain, uint32_t vcpu, int point);
int xd_emb_let_go(xd_emb *domain, uint32_t vcpu);
/* Let a vCPU go on, and hold it again at the next point that it comes to, whichever that is. */
int xd_emb_step(xd_emb *domain, uint32_t vcpu);
/* Where a vCPU is. BLOCKED: it has looked at its slots since the last event, and waits for the next. RETRYING: its instruction starts again as soon as types or claim change. */
enum {
    XD_PHASE_OUT = 0, XD_PHASE_GUEST = 1, XD_PHASE_XEN = 2, XD_PHASE_BLOCKED = 3, XD_PHASE_RETRYING = 4,
    XD_PHASE_HELD = 5
};
/* Wait until the vCPU is OUT, BLOCKED, RETRYING or HELD; -ETIMEDOUT after `seconds`, -ESRCH if the domain goes. */
int xd_emb_wait_phase(xd_emb *domain, uint32_t vcpu, uint32_t phase, double seconds);
/* Wait until it is in any of these four, and say which; of one that is HELD, `point << 8` too. */
int xd_emb_wait_still(xd_emb *domain, uint32_t vcpu, double seconds);

/* Faults on demand: hypercalls of the kinds in `mask` are counted, and the n-th (from 1) fails. */
enum {
    XD_CALL_CREATE = 0, XD_CALL_DESTROY = 1, XD_CALL_STATE = 2, XD_CALL_MAP_RANGE = 3, XD_CALL_UNMAP_RANGE = 4,
    XD_CALL_SET_MEM_TYPE = 5, XD_CALL_MAP_MEM_TYPE = 6, XD_CALL_MAP_SLOTS = 7, XD_CALL_MAP_FRAMES = 8,
    XD_CALL_BIND = 9, XD_CALL_UNBIND = 10, XD_CALL_NOTIFY = 11, XD_CALL_OTHER = 12, XD_CALL_KINDS = 13
};
/* Error ESRCH takes the domain away with it. n 0 only counts. Returns the count so far, and starts a new one. */
uint64_t xd_emb_fail(xd_emb *domain, uint32_t mask, uint64_t n, int error);
/* A hypercall that this file does not have, as far as faults go: 0 or -errno. */
int xd_emb_call(xd_emb *domain, int kind);

#endif
