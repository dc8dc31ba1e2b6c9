#ifndef XD_EMB_EVENTS_H
#define XD_EMB_EVENTS_H
#include "domain.h"

#include <stdint.h>

/*
 * Event channels. The domain's ends are numbered for the domain, a device model's ends for its handle, as
 * /dev/xen/evtchn has them: an event makes a port readable and masks it; one that comes while the port is masked is
 * latched, and fires when the port is unmasked.
 *
 * events: a device model's handle. port: its local port. domain, d: see domain.h. Any thread may call these, but
 * xd_emb_events_free only when no other call on the handle is under way.
 */
typedef struct xd_emb_events xd_emb_events;

/*
 * Makes a device model's handle, with no port bound. Returns NULL if memory or descriptors are short. Called by
 * hypervisor/embedded/port.py.
 */
xd_emb_events *xd_emb_events_new(xd_emb *domain);

/*
 * Closes a handle, as the kernel does when a process ends: every port is unbound, and the domain is not told. Called by
 * hypervisor/embedded/port.py.
 */
void xd_emb_events_free(xd_emb_events *events);

/*
 * Returns a descriptor that is readable while a port has fired and was not taken. Owned by the handle. Called by
 * hypervisor/embedded/port.py.
 */
int xd_emb_events_fd(const xd_emb_events *events);

/*
 * Binds to the domain's end `remote_port`. Returns the local port, which fires once, or -EINVAL, -ENOSPC. Called by
 * hypervisor/embedded/port.py.
 */
int xd_emb_events_bind(xd_emb_events *events, uint32_t remote_port);

/* Unbinds a local port. Returns 0 or -ENOTCONN. Called by hypervisor/embedded/port.py. */
int xd_emb_events_unbind(xd_emb_events *events, int port);

/*
 * Raises an event at the domain's end of a local port: its vCPU looks at its slots. Returns 0 or -ENOTCONN. Called by
 * hypervisor/embedded/port.py.
 */
int xd_emb_events_notify(xd_emb_events *events, int port);

/*
 * Takes one port that has fired; it stays masked until xd_emb_events_unmask. Returns the port, or 0 if there is none.
 * Called by hypervisor/embedded/port.py.
 */
int xd_emb_events_pending(xd_emb_events *events);

/* Unmasks a port that was taken. Returns 0 or -ENOTCONN. Called by hypervisor/embedded/port.py. */
int xd_emb_events_unmask(xd_emb_events *events, int port);

/* Takes and unmasks every port that has fired. Returns how many. Called by hypervisor/embedded/port.py. */
int xd_emb_events_drain(xd_emb_events *events);

/*
 * What a burst does with event channels (xd_channels in core/serve/burst.h). `events` is an xd_emb_events.
 *
 * Takes every port that has fired; they stay masked until the next xd_emb_channels_unmask. Returns how many. Called by a
 * burst, through its address.
 */
int xd_emb_channels_take(void *events);
/* Unmasks every port that xd_emb_channels_take took. Returns 0. `events` as above. Called by a burst. */
int xd_emb_channels_unmask(void *events);
/* As xd_emb_events_notify, and returns the same; `events` as above. Called by a burst, through its address. */
int xd_emb_channels_notify(void *events, uint32_t port);

/* What a device model in another process sees of its local port. Written by the hypervisor alone. */
typedef struct xd_emb_shared_port {
    uint32_t raised;    /* events so far */
    uint32_t connected; /* 1 while a notify reaches the domain */
} xd_emb_shared_port;

/*
 * Has a handle's events counted in a file, an array of xd_emb_shared_port by local port, instead of in the handle. Its
 * descriptor is then written at each event, and xd_emb_events_pending, _unmask and _drain must not be called. Must be
 * called before a port is bound. Returns the file's descriptor, owned by the handle, or -errno. Called by
 * sim/session.py.
 */
int xd_emb_events_share(xd_emb_events *events);

/*
 * Returns the eventfd that wakes the vCPU of a local `port`, or -ENOTCONN. Owned by the domain. Called by
 * sim/session.py.
 */
int xd_emb_events_wake_fd(xd_emb_events *events, int port);

#ifndef XD_CFFI
/*
 * Makes a domain's end, for vCPU `vcpu`. Returns its number, or 0 if there are too many. The caller holds servers_lock.
 * Called by servers.c.
 */
uint32_t emb_channel_new(xd_emb *d, uint32_t vcpu);

/*
 * Frees a domain's end; the device model's end stays, and a notify on it goes nowhere. The caller holds servers_lock.
 * Called by servers.c.
 */
void emb_channel_free(xd_emb *d, uint32_t port);

/*
 * Raises an event at the device model's end of a channel; `port` is the domain's end. Called by wait.c, in a vCPU's
 * thread, which holds no lock.
 */
void emb_raise(xd_emb *d, uint32_t port);
#endif

#endif
