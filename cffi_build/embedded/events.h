#ifndef XD_EMB_EVENTS_H
#define XD_EMB_EVENTS_H
#include "domain.h"

#include <stdint.h>

/*
 * Event channels. The domain's ends are numbered for the domain, a device model's ends for its handle, as
 * /dev/xen/evtchn has them: an event makes a port readable and masks it; one that comes while the port is masked is
 * latched, and fires when the port is unmasked.
 */
typedef struct xd_emb_events xd_emb_events;

/* A device model's handle, with no port bound. Returns NULL if memory or descriptors are short. */
xd_emb_events *xd_emb_events_new(xd_emb *domain);

/* Close a handle, as the kernel does when a process ends: every port is unbound, and the domain is not told. */
void xd_emb_events_free(xd_emb_events *events);

/* Returns a descriptor that is readable while a port has fired and was not taken. Owned by the handle. */
int xd_emb_events_fd(const xd_emb_events *events);

/* Bind to the domain's end `remote_port`. Returns the local port, which fires once, or -EINVAL, -ENOSPC. */
int xd_emb_events_bind(xd_emb_events *events, uint32_t remote_port);

/* Unbind a local port. Returns 0 or -ENOTCONN. */
int xd_emb_events_unbind(xd_emb_events *events, int port);

/* Raise an event at the domain's end of a local port: its vCPU looks at its slots. Returns 0 or -ENOTCONN. */
int xd_emb_events_notify(xd_emb_events *events, int port);

/* Take one port that has fired; it stays masked until xd_emb_events_unmask. Returns the port, or 0 if there is none. */
int xd_emb_events_pending(xd_emb_events *events);

/* Unmask a port that was taken. Returns 0 or -ENOTCONN. */
int xd_emb_events_unmask(xd_emb_events *events, int port);

/* Take and unmask every port that has fired. Returns how many. */
int xd_emb_events_drain(xd_emb_events *events);

#ifndef XD_CFFI
/* Make a domain's end, for a vCPU. Returns its number, or 0 if there are too many. The caller holds servers_lock. */
uint32_t emb_channel_new(xd_emb *d, uint32_t vcpu);

/* Free a domain's end; the device model's end stays, and a notify on it goes nowhere. The caller holds servers_lock. */
void emb_channel_free(xd_emb *d, uint32_t port);

/* Raise an event at the device model's end of a channel. A vCPU's thread, which holds no lock. */
void emb_raise(xd_emb *d, uint32_t port);
#endif

#endif
