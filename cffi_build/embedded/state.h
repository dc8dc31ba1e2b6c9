#ifndef XD_EMB_STATE_H
#define XD_EMB_STATE_H
/*
 * The state of a domain and of its parts, for the C files of this folder alone.
 *
 * Locks, in the order in which they may be taken: emb_vcpu.exec, p2m, servers_lock, channels_lock, gate. A thread that
 * waits until the vCPUs do not run (a pause) must hold none of them, because a vCPU in XEN may need any.
 */
#include "domain.h"
#include "events.h"
#include "phases.h"
#include "ranges.h"
#include "servers.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

enum { EMB_FRAME = 4096, EMB_SHIFT = 12, EMB_MAX_VCPUS = 128, EMB_MAX_SERVERS = 8, EMB_MAX_RANGES = 256 };
enum { EMB_MAX_PORTS = 2048 };
/* xd_emb.hold: flags above a count of pauses. */
#define EMB_STOPPED 0x80000000u
#define EMB_SHUTDOWN 0x40000000u
/* emb_vcpu.where: the phase (XD_PHASE_*) in the low bits, above them the number of translations begun. */
enum { EMB_PHASE_MASK = 7, EMB_TRANSLATION = 8 };

/* A page of slots. It outlives its server for as long as somebody has it mapped or a vCPU waits on it. */
struct emb_page {
    void *memory; /* of the file `fd`, which other processes may have mapped, too */
    int fd;
    struct emb_page *next;
    uint32_t refs; /* the server, each mapping, each pending request */
};

/* Sorted; no two ranges overlap or touch. */
struct emb_ranges {
    uint32_t count;
    struct { uint64_t first, last; } at[EMB_MAX_RANGES];
};

struct emb_server {
    bool exists, enabled;
    uint64_t born;   /* servers that the domain had before this one */
    emb_page *page;  /* NULL until somebody maps it, as in Xen */
    uint32_t ports[EMB_MAX_VCPUS];
    emb_ranges ranges[XD_RANGE_KINDS];
};

/* The domain's end of an event channel between a vCPU and a device model. */
typedef struct emb_channel {
    bool exists;
    uint32_t vcpu;
    xd_emb_events *events; /* the device model's handle; NULL: unbound */
    int local;             /* its port there */
} emb_channel;

/* A request of a vCPU that waits for its answer. */
typedef struct emb_pending {
    emb_page *page;
    uint32_t server, port;
    uint64_t born; /* emb_server.born: whether it is still the same server */
} emb_pending;

struct emb_vcpu {
    xd_emb *domain;
    uint32_t id;
    uint32_t nr_pending;
    emb_pending pending[EMB_MAX_SERVERS];
    uint32_t posted_at;  /* `wake` before the request was posted */
    uint32_t hold_mask;  /* atomic: 1 << XD_POINT_* of each hold */
    int held_at;         /* under gate: the point where it is held, or -1 */
    bool dropped;        /* some part of the present instruction fell to the null handler */
    bool discarded;      /* some part of it met read-only memory */
    uint32_t luck, waits; /* of the spin before a sleep, see wait.c */
    int wake_fd;          /* of a shared domain: the eventfd by which it is woken; else -1 */
    pthread_mutex_t exec; /* held while operations run */
    _Alignas(64) uint32_t where; /* atomic: EMB_PHASE_MASK, EMB_TRANSLATION */
    _Alignas(64) uint32_t wake;  /* atomic, futex: events to this vCPU */
    uint32_t asleep;             /* atomic: it sleeps on `wake` */
    uint32_t looked;             /* atomic: `wake` at the last look at the slots */
};

struct xd_emb {
    uint32_t domid, nr_vcpus;
    uint64_t frames;
    xd_emb_rules rules;
    int ram_fd;      /* guest memory */
    struct emb_share *share; /* of a shared domain (sim_share.h), else NULL */
    int void_fd;     /* an empty file: touching a page of it is SIGBUS */
    uint8_t *ram;    /* guest memory as the vCPUs see it */
    uint8_t *window; /* as a device model does: separate, so that pages may vanish from it alone */
    uint8_t *types;  /* atomic; written under p2m: XD_P2M_* by frame */
    bool vanished;   /* under p2m: some page of the window is not there */
    uint64_t entries; /* atomic; written under p2m: frames of the trapped type */
    int owner;       /* atomic; written under p2m and servers_lock: the server that claims the type, or -1 */

    /* Under servers_lock. */
    emb_server servers[EMB_MAX_SERVERS];
    uint64_t born;      /* servers made so far */
    int default_server; /* or -1 */
    uint32_t cf8;       /* the PCI address that was latched last */
    emb_page *pages;    /* all that live */

    emb_channel channels[EMB_MAX_PORTS]; /* under channels_lock; 0 is none */

    uint32_t hold;       /* atomic: pauses, EMB_STOPPED, EMB_SHUTDOWN */
    uint32_t watchers;   /* atomic: threads that wait on gate_cond */
    uint32_t generation; /* atomic, futex: changes of types and claim */
    uint32_t retrying;   /* atomic: vCPUs that sleep on it */
    uint32_t gone;       /* atomic: 1 once destroyed */
    char reason[128];    /* under gate: of a crash */

    uint32_t fail_mask;  /* atomic: 1 << XD_CALL_* of the hypercalls that are counted; the rest under gate */
    uint64_t fail_at, fail_count;
    int fail_error;

    uint64_t counters[XD_EMB_COUNTERS]; /* atomic */
    pthread_mutex_t p2m, servers_lock, channels_lock, gate;
    pthread_cond_t gate_cond;
    emb_vcpu *vcpus;
};

/* Counts one more of `which`, an XD_EMB_*, in the domain `d`. Called by C files of this folder, in any thread. */
static inline void emb_count(xd_emb *d, int which)
{
    __atomic_fetch_add(&d->counters[which], 1, __ATOMIC_RELAXED);
}

/*
 * Returns the p2m type of frame `gfn` of domain `d`, MMIO_DM beyond its memory. Called by C files of this folder, in
 * any thread.
 */
static inline uint32_t emb_type(const xd_emb *d, uint64_t gfn)
{
    return gfn < d->frames ? __atomic_load_n(&d->types[gfn], __ATOMIC_SEQ_CST) : (uint32_t)XD_P2M_MMIO_DM;
}

/*
 * Returns what an access to `gpa` in domain `d` meets by `table`, one of the tables of d->rules: XD_LOOK_*. Called by C
 * files of this folder, in any thread.
 */
static inline uint32_t emb_look(const xd_emb *d, const uint8_t *table, uint64_t gpa)
{
    return table[emb_type(d, gpa >> EMB_SHIFT)];
}

/*
 * Returns the address `bytes` above `gpa`. One that would wrap round to the guest's memory is beyond all memory
 * instead. Called by C files of this folder, in any thread.
 */
static inline uint64_t emb_up(uint64_t gpa, uint64_t bytes)
{
    return gpa + bytes < gpa ? ~(uint64_t)(EMB_FRAME - 1) : gpa + bytes;
}

#endif
