#ifndef XD_EMBEDDED_DOMAIN_H
#define XD_EMBEDDED_DOMAIN_H
/*
 * The inside of the embedded hypervisor, shared by embedded_*.c alone.
 *
 * Locks, in the order in which they may be taken: emb_vcpu.exec, p2m, servers, channels, gate. Whoever waits for vCPUs
 * to stand still (a pause) holds none of them, because a vCPU that is inside Xen may want any.
 */
#include "embedded.h"
#include "slot_page.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

enum { EMB_FRAME = 4096, EMB_SHIFT = 12, EMB_MAX_VCPUS = 128, EMB_MAX_SERVERS = 8, EMB_MAX_RANGES = 256 };
enum { EMB_MAX_PORTS = 2048, EMB_WORDS = EMB_MAX_PORTS / 64 };
/* emb_domain.hold: the low bits count pauses. */
#define EMB_STOPPED 0x80000000u
#define EMB_SHUTDOWN 0x40000000u
/* emb_vcpu.where: the phase in the low bits, and above them how many translations the vCPU has begun. */
enum { EMB_PHASE_MASK = 7, EMB_TRANSLATION = 8 };

/* A page of slots outlives its server for as long as somebody has it mapped or a vCPU waits on it. */
typedef struct emb_page {
    void *memory;
    struct emb_page *next;
    uint32_t refs;
} emb_page;

/* Sorted, and never touching one another. */
typedef struct emb_ranges {
    uint32_t count;
    struct { uint64_t first, last; } at[EMB_MAX_RANGES];
} emb_ranges;

typedef struct emb_server {
    bool exists, enabled;
    uint64_t born;   /* servers created before it, ever */
    emb_page *page;  /* NULL until somebody maps it, as in Xen */
    uint32_t ports[EMB_MAX_VCPUS];
    emb_ranges ranges[XD_RANGE_KINDS];
} emb_server;

/* The domain's end of an event channel between a vCPU and whoever serves it. */
typedef struct emb_channel {
    bool exists;
    uint32_t vcpu;
    xd_emb_events *events; /* NULL: unbound */
    int local;
} emb_channel;

typedef struct emb_pending {
    emb_page *page;
    uint32_t server, port;
    uint64_t born;
} emb_pending;

typedef struct emb_vcpu {
    xd_emb *domain;
    uint32_t id;
    uint32_t nr_pending;
    emb_pending pending[EMB_MAX_SERVERS];
    uint32_t posted_at; /* `wake` before the request was posted */
    uint32_t hold_mask; /* atomic: bit of each point with a hold */
    int held_at;        /* under gate: the point, or -1 */
    bool dropped, discarded;
    uint32_t luck, waits; /* see spin() in embedded_wait.c */
    pthread_mutex_t exec;
    _Alignas(64) uint32_t where; /* atomic */
    _Alignas(64) uint32_t wake;  /* atomic, futex: events to this vCPU */
    uint32_t asleep;             /* atomic */
    uint32_t looked;             /* atomic: `wake` at the last look at the slots */
} emb_vcpu;

struct xd_emb {
    uint32_t domid, nr_vcpus;
    uint64_t frames;
    xd_emb_rules rules;
    int ram_fd, void_fd;
    uint8_t *ram;    /* as the vCPUs see it */
    uint8_t *window; /* as a device model does: separate, so that pages may vanish from it alone */
    uint8_t *types;  /* atomic; written under p2m */
    bool vanished;   /* under p2m: some page of the window is not there */
    uint64_t entries;
    int owner;       /* atomic; written under p2m and servers */

    emb_server servers[EMB_MAX_SERVERS];
    uint64_t born;
    int default_server;
    uint32_t cf8; /* under servers_lock: the PCI address that was latched last */
    emb_page *pages; /* all that live */

    emb_channel channels[EMB_MAX_PORTS];

    uint32_t hold;       /* atomic: pauses, and EMB_STOPPED */
    uint32_t watchers;   /* atomic: threads that wait on gate_cond */
    uint32_t generation; /* atomic, futex: changes of types and claim */
    uint32_t retrying;   /* atomic: vCPUs that sleep on it */
    uint32_t gone;       /* atomic: destroyed */
    uint32_t spin;       /* atomic */
    char reason[128];    /* under gate: of a crash */

    uint32_t fail_mask;  /* atomic; the rest under gate */
    uint64_t fail_at, fail_count;
    int fail_error;

    uint64_t counters[XD_EMB_COUNTERS];
    pthread_mutex_t p2m, servers_lock, channels_lock, gate;
    pthread_cond_t gate_cond;
    emb_vcpu *vcpus;
};

static inline void emb_count(xd_emb *d, int which)
{
    __atomic_fetch_add(&d->counters[which], 1, __ATOMIC_RELAXED);
}

static inline uint32_t emb_type(const xd_emb *d, uint64_t gfn)
{
    return gfn < d->frames ? __atomic_load_n(&d->types[gfn], __ATOMIC_SEQ_CST) : (uint32_t)XD_P2M_MMIO_DM;
}

/* An address some bytes up. None wraps round to the guest's memory: what would is beyond all memory. */
static inline uint64_t emb_up(uint64_t gpa, uint64_t bytes)
{
    return gpa + bytes < gpa ? ~(uint64_t)(EMB_FRAME - 1) : gpa + bytes;
}

/* embedded_domain.c */
int emb_enter(emb_vcpu *v, uint32_t phase);
void emb_leave(emb_vcpu *v, uint32_t phase);
void emb_point(emb_vcpu *v, int point);
int emb_why_stopped(const xd_emb *d);
void emb_tell_watchers(xd_emb *d);

/* embedded_memory.c */
void emb_change_type(xd_emb *d, uint64_t gfn, uint32_t type);
void emb_types_changed(xd_emb *d);
void emb_ram_store(xd_emb *d, uint64_t gpa, const uint8_t *from, uint32_t size);
void emb_ram_load(const xd_emb *d, uint64_t gpa, uint8_t *to, uint32_t size);
void emb_settle(xd_emb *d, uint64_t gfn);
int emb_remove(xd_emb *d, uint64_t gfn, uint64_t count);
void emb_bump(xd_emb *d);

/* embedded_servers.c; the first under servers_lock */
emb_server *emb_find_server(xd_emb *d, uint32_t id);
int emb_select(xd_emb *d, uint32_t kind, uint64_t first, uint64_t last);
int emb_post(emb_vcpu *v, uint32_t server, const xd_ioreq *request);
int emb_post_invalidate(emb_vcpu *v);
void emb_put_page(xd_emb *d, emb_page *page);

/* embedded_events.c */
uint32_t emb_channel_new(xd_emb *d, uint32_t vcpu);
void emb_channel_free(xd_emb *d, uint32_t port);
void emb_raise(xd_emb *d, uint32_t port);

/* embedded_wait.c */
void emb_wake(emb_vcpu *v);
int emb_wait_for_answers(emb_vcpu *v, uint64_t *data);
void emb_drop_pending(emb_vcpu *v);
void emb_sleep_until_bumped(emb_vcpu *v, uint32_t generation);

/* embedded_ranges.c */
int emb_ranges_find(const emb_ranges *ranges, uint64_t first, uint64_t last);

/* embedded_insn.c: what an instruction does to memory. */
enum { EMB_DONE = 0, EMB_PENDING = 1, EMB_RETRY = 2 };

typedef struct emb_part {
    uint64_t gpa;
    uint32_t offset, size;
    uint32_t done;   /* bytes that requests have taken care of, and will not be asked about again */
    bool io;         /* it is in Xen's MMIO cache: no copy is tried any more */
    bool copied;
} emb_part;

typedef struct emb_access {
    emb_vcpu *v;
    uint8_t *bytes;
    emb_part parts[2];
    uint32_t nr_parts;
    uint32_t fault_part; /* whose page the hardware tripped over */
    uint32_t chunk;      /* all requests are of this size; 0: as large as can be */
    bool write;
    bool locked;  /* p2m is held */
    bool lying;   /* an answer that the emulator has not asked for again */
    bool no_copy; /* the emulator does not look whether it is memory by now */
} emb_access;

int emb_begin(emb_access *a, uint64_t gpa, uint32_t size, uint32_t *generation);
int emb_emulate(emb_access *a);
uint32_t emb_mapping_look(const emb_access *a);
void emb_split(emb_access *a, uint64_t gpa, uint32_t size);
void emb_unlock(emb_access *a);
uint32_t emb_look(const xd_emb *d, const uint8_t *table, uint64_t gpa);
int emb_store(emb_vcpu *v, uint64_t gpa, const uint8_t *from, uint32_t size);
int emb_load(emb_vcpu *v, uint64_t gpa, uint8_t *to, uint32_t size);

/* embedded_special.c */
int emb_rmw(emb_vcpu *v, xd_emb_op *op);
int emb_repeat(emb_vcpu *v, const xd_emb_op *op);
int emb_port_io(emb_vcpu *v, xd_emb_op *op);
int emb_hypercall_output(emb_vcpu *v, xd_emb_op *op);
int emb_invalidate(emb_vcpu *v);

#endif
