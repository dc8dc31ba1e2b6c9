#ifndef XD_EMB_DOMAIN_H
#define XD_EMB_DOMAIN_H
#include "rules.h"

#include <stdint.h>

/*
 * A domain of the embedded hypervisor: one HVM domain inside this process, as Xen keeps it for a device model.
 *
 * Any thread may call the xd_emb_* functions of this folder, unless they say otherwise; Python calls them without the
 * GIL. In every header, `domain` is the domain, and `d` is in the functions that are for C alone.
 */
typedef struct xd_emb xd_emb;

/* What is counted. */
enum {
    XD_EMB_TRAPPED = 0,          /* requests posted, INVALIDATE left out */
    XD_EMB_INVALIDATES = 1,
    XD_EMB_DROPPED_STORES = 2,   /* instructions of which some part fell to the null handler */
    XD_EMB_DISCARDED_STORES = 3, /* instructions of which some part met read-only memory */
    XD_EMB_ALL_ONES_LOADS = 4,   /* reads that the null handler answered */
    XD_EMB_RETRIES = 5,          /* instructions started again because the type had no owner */
    XD_EMB_PASSES = 6,           /* emulation passes */
    XD_EMB_EVENTS = 7,           /* events raised to a device model */
    XD_EMB_LOST_EVENTS = 8,      /* events on a channel that nobody had bound */
    XD_EMB_SLEEPS = 9,           /* waits for an answer that went to sleep */
    XD_EMB_FAULTS = 10,          /* faults for the guest */
    XD_EMB_SETTLED = 11,         /* pages that became plain RAM when they were touched */
    XD_EMB_COUNTERS = 12
};

/*
 * Makes a domain with the number `domid`, of `frames` frames, all RAM and zero, with `vcpus` vCPUs (1 to 128). `rules`
 * is copied. Returns NULL if an argument is out of range or memory is short. Called by hypervisor/embedded/domain.py.
 */
xd_emb *xd_emb_new(uint32_t domid, uint64_t frames, uint32_t vcpus, const xd_emb_rules *rules);

/*
 * Frees a domain. No thread may be inside any call on it, and every xd_emb_events of it must have been freed. Called by
 * hypervisor/embedded/domain.py.
 */
void xd_emb_free(xd_emb *domain);

/*
 * Destroys a domain: its vCPUs stop where they are, and every call returns -ESRCH. Memory stays until xd_emb_free.
 * Called by hypervisor/embedded/domain.py and calls.c.
 */
void xd_emb_destroy(xd_emb *domain);

/*
 * Crashes a domain, as Xen's domain_crash does: its vCPUs stop. The first `reason` is kept. Called by C files of this
 * folder.
 */
void xd_emb_crash(xd_emb *domain, const char *reason);

/*
 * Returns why vCPUs run no more: ESRCH (destroyed), ENOTRECOVERABLE (crashed), or 0. `reason` receives the 128 bytes of
 * the crash's reason, zeros if there was none; it may be NULL. Called by hypervisor/embedded/domain.py and
 * sim/console.py.
 */
int xd_emb_stopped(xd_emb *domain, char *reason);

/* Returns a counter; `which` is an XD_EMB_*. Called by hypervisor/embedded/domain.py. */
uint64_t xd_emb_counter(const xd_emb *domain, int which);

#ifndef XD_CFFI
/* Returns -ESRCH, -ENOTRECOVERABLE, or 0: xd_emb_stopped for C. Called by C files of this folder, in any thread. */
int emb_why_stopped(const xd_emb *d);
#endif

#endif
