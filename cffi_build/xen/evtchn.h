#ifndef XD_XEN_EVTCHN_H
#define XD_XEN_EVTCHN_H
#include "types.h"

/* tools/include/xenevtchn.h; NULL or -1 with errno. */
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

/* What /dev/xen/evtchn hands over in one read: a page of ports, drivers/xen/evtchn.c evtchn_read. */
enum { XD_EVTCHN_BATCH = 1024 };

/*
 * The library takes one port a system call; the device takes and gives arrays. `fd` is the handle's, set to O_NONBLOCK.
 *
 * xd_xen_evtchn_take reads the ports that are pending into ports[0..XD_EVTCHN_BATCH-1], which leaves them masked, and
 * returns how many; 0 when there are none; -EFBIG when the kernel's ring overflowed and ports were lost.
 * xd_xen_evtchn_unmask re-arms them; a port that is not masked, or not ours, is passed over by the kernel.
 * xd_xen_evtchn_drain does one of each. After an overflow it empties the ring and unmasks all of `bound`, which it also
 * returns as fired: the caller's look at every slot finds what the lost ports stood for.
 * All return -errno when the device fails.
 */
int xd_xen_evtchn_take(int fd, evtchn_port_t *ports);
int xd_xen_evtchn_unmask(int fd, const evtchn_port_t *ports, uint32_t count);
int xd_xen_evtchn_drain(int fd, const evtchn_port_t *bound, uint32_t nr_bound);

#endif
