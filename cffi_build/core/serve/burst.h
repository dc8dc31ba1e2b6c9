#ifndef XD_BURST_H
#define XD_BURST_H
#include <stdint.h>
#include "quick.h"
#include "slots.h"
#include "stats.h"

/*
 * A burst: requests are served, one after the other, for as long as nobody needs Python. docs/serving.md has the theory
 * and the figures.
 *
 *     look at all slots: serve what C can, answer, notify the vCPU
 *     nothing is left:   wait for an event of the channels, or for the doorbell
 *     an event:          take it, which leaves its port masked; look; unmask
 *
 * An event that comes while its port is masked stays pending and is delivered when the port is unmasked. So no request is
 * missed, whether it is found by its event or without.
 *
 * A burst spins: with the ports masked it looks at the slots again and again, so that the next store of a run costs
 * neither an event nor a system call but the notify. That pays if the vCPU has a CPU of its own meanwhile. No system
 * call tells a device model so, and it may change at any time. So spinning has a credit: a request that is found earns
 * what waiting for it would have cost, and SPIN_NS in vain cost five times as much. Without credit a burst waits, and tries
 * again at every 64th occasion, then every 128th, up to every 4096th.
 *
 * The thread that serves the guest calls every function here, Python without the GIL. A second thread gets an error.
 */

/*
 * The event channels of one device model, as functions of its hypervisor. handle: what they are called with.
 *
 * take: takes every pending event; its port is masked until `unmask`. Returns how many, or -errno. Never blocks.
 * unmask: unmasks all ports that were taken. Returns 0 or -errno.
 * notify: tells the domain of an event at the local port `port`. Returns 0 or -errno.
 */
typedef struct xd_channels {
    void *handle;
    int (*take)(void *handle);
    int (*unmask)(void *handle);
    int (*notify)(void *handle, uint32_t port);
} xd_channels;

/* Why a burst ended; of several, the highest. */
enum {
    XD_BURST_TIME = 0,     /* it is the time that the caller named */
    XD_BURST_DOORBELL = 1, /* the doorbell rang, or a signal came */
    XD_BURST_HANDED = 2,   /* requests are left to Python: `handed`; or the GPU wants attention */
    XD_BURST_ERROR = 3     /* a call on the channels failed: `error` and `failed`; `handed` is good, too */
};
/* xd_burst.failed */
enum { XD_CALL_TAKE = 0, XD_CALL_UNMASK_PORTS = 1, XD_CALL_NOTIFY_PORT = 2, XD_CALL_POLL = 3 };

typedef struct xd_burst {
    xd_channels channels;
    void *page;                 /* of slots */
    uint32_t nr_vcpus;
    int32_t channels_fd;        /* readable while an event is pending and not masked */
    int32_t poll_fd;            /* an epoll descriptor of channels_fd and of the doorbell */
    uint32_t spins;             /* 1: spinning is allowed */
    const uint32_t *ports;      /* by vCPU: the local port, or 0 if its channel is not bound */
    xd_journal_record *journal; /* of vCPU 0 */
    xd_stats *stats;
    xd_quick *quick;            /* NULL: everything is left to Python */

    uint32_t nr_handed;
    int32_t error;              /* a positive errno */
    uint32_t failed;
    uint32_t masked;            /* 1: events were taken and their ports are not unmasked yet */
    uint32_t hot;               /* 1: the last burst ended with a request, so the next request may be near */
    uint32_t unannounced;       /* requests that were found without their events since the last event */
    int32_t credit;
    uint32_t pause, paused;     /* without credit: occasions between two tries, and since the last */
    uint32_t empty;             /* events in a row with which nothing came */
    uint64_t served;            /* requests that were answered in C */
    uint64_t now;               /* the time when the clock was last looked at */
    xd_taken handed[128];       /* XD_SLOTS_PER_PAGE: what is left to Python, in hand */
} xd_burst;

/* Makes the memory of a burst ready for its first: sets credit and pause. Called by ioreq/burst.py. */
void xd_burst_init(xd_burst *burst);

/*
 * The calling thread owns the burst, and all that it serves with, from now on (owner.h). Returns the owner's number. A
 * burst that nobody owns owns all that by itself while it runs. Called by ioreq/burst.py and burst.c.
 */
int xd_burst_own(const xd_burst *burst);
/* Ends what xd_burst_own returned `owner` for. Called by ioreq/burst.py. */
void xd_burst_disown(const xd_burst *burst, int owner);

/*
 * Serves until `until`, a time of xd_now, or until there is a reason to end before; 0: serves what is there and waits for
 * nothing. Returns XD_BURST_*. Ports may stay masked, unless `until` is 0. Called by ioreq/burst.py.
 */
int xd_burst_run(xd_burst *burst, uint64_t until);

/* Looks at the slots once, and serves. Events are not touched. Returns TIME, HANDED or ERROR. Called by ioreq/burst.py. */
int xd_burst_look(xd_burst *burst);

/*
 * Unmasks the ports, if they are masked, so that others can wait for events. Returns TIME or ERROR. Called by
 * ioreq/burst.py.
 */
int xd_burst_unmask(xd_burst *burst);

#endif
