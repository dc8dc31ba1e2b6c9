#ifndef XD_XEN_EVTCHN_H
#define XD_XEN_EVTCHN_H
#include "types.h"

/*
 * Event channels: Xen's own functions, of tools/include/xenevtchn.h, and three of ours. Xen's return NULL or -1 with
 * errno on failure. Any thread may call them; xengt_dm/hypervisor/xen/events.py does, from the thread that serves the
 * domain.
 */

xenevtchn_handle *xenevtchn_open(struct xentoollog_logger *logger, unsigned int flags);
xenevtchn_handle *xenevtchn_fdopen(struct xentoollog_logger *logger, int fd, unsigned open_flags);
int xenevtchn_close(xenevtchn_handle *xce);
int xenevtchn_fd(xenevtchn_handle *xce);
int xenevtchn_restrict(xenevtchn_handle *xce, domid_t domid);
xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *xce, uint32_t domid, evtchn_port_t remote_port);
xenevtchn_port_or_error_t xenevtchn_bind_unbound_port(xenevtchn_handle *xce, uint32_t domid);
xenevtchn_port_or_error_t xenevtchn_bind_virq(xenevtchn_handle *xce, unsigned int virq);
int xenevtchn_unbind(xenevtchn_handle *xce, evtchn_port_t port);
int xenevtchn_notify(xenevtchn_handle *xce, evtchn_port_t port);
xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *xce);
int xenevtchn_unmask(xenevtchn_handle *xce, evtchn_port_t port);

/* How many ports /dev/xen/evtchn hands over in one read: drivers/xen/evtchn.c evtchn_read, a page of them. */
enum { XD_EVTCHN_BATCH = 1024 };
/* Ports that one device model can bind: one for each vCPU. */
enum { XD_EVTCHN_MOST_PORTS = 128 };

/*
 * The library takes one port per system call; the device takes and gives arrays. `fd` is the handle's, set to
 * O_NONBLOCK. All of these return -errno when the device fails.
 */

/*
 * Reads the ports that are pending into ports[0..XD_EVTCHN_BATCH-1]; they stay masked until they are unmasked. Returns
 * how many; 0 when there are none; -EFBIG when the kernel's ring overflowed and ports were lost. Called by evtchn.c.
 */
int xd_xen_evtchn_take(int fd, evtchn_port_t *ports);

/*
 * Unmasks `count` ports. The kernel passes over a port that is not masked or not ours. Returns 0. Called by evtchn.c.
 */
int xd_xen_evtchn_unmask(int fd, const evtchn_port_t *ports, uint32_t count);

/*
 * Takes and unmasks every pending port, up to XD_EVTCHN_BATCH. Returns how many. After an overflow it empties the ring
 * and unmasks all of bound[0..nr_bound-1], and returns nr_bound: the caller's look at every slot finds what the lost
 * ports stood for. Called by hypervisor/xen/events.py.
 */
int xd_xen_evtchn_drain(int fd, const evtchn_port_t *bound, uint32_t nr_bound);

/*
 * The event channels of one device model, for a burst (xd_channels in core/serve/burst.h).
 *
 * handle, fd: the library's. bound: the `nr_bound` ports that are bound. ports: the `count` ports that were taken.
 */
typedef struct xd_xen_channels {
    xenevtchn_handle *handle;
    const evtchn_port_t *bound;
    uint32_t nr_bound;
    int fd;
    uint32_t count;
    evtchn_port_t ports[1152]; /* XD_EVTCHN_MOST_PORTS, and a batch more */
} xd_xen_channels;

/*
 * Takes every pending port, up to XD_EVTCHN_BATCH; they stay masked until xd_xen_channels_unmask. `channels` is an
 * xd_xen_channels. Returns how many. After an overflow, all that are bound count as taken, as in xd_xen_evtchn_drain.
 * Called by a burst, through its address.
 */
int xd_xen_channels_take(void *channels);
/* Unmasks what was taken. Returns 0. `channels` as above. Called by a burst, through its address. */
int xd_xen_channels_unmask(void *channels);
/* As xenevtchn_notify, but returns -errno. `channels` as above. Called by a burst, through its address. */
int xd_xen_channels_notify(void *channels, uint32_t port);

#endif
