/* libxenevtchn.so.1 on the fake. */
#include "fakexen.h"

struct xenevtchn_handle {
    int unused;
};
static struct xenevtchn_handle only;

xenevtchn_handle *xenevtchn_open(struct xentoollog_logger *logger, unsigned int flags)
{
    (void)logger;
    if (ENTER(-1, U64(flags)) || fake_device_open() < 0)
        return NULL;
    fake.open_handles++;
    return &only;
}

xenevtchn_handle *xenevtchn_fdopen(struct xentoollog_logger *logger, int fd, unsigned open_flags)
{
    (void)logger, (void)fd, (void)open_flags;
    errno = ENOSYS;
    return NULL;
}

int xenevtchn_close(xenevtchn_handle *xce)
{
    (void)xce;
    ENTER(-1, U64(0));
    fake_device_close();
    fake.open_handles--;
    return 0;
}

int xenevtchn_fd(xenevtchn_handle *xce)
{
    (void)xce;
    return fake_device_fd();
}

int xenevtchn_notify(xenevtchn_handle *xce, evtchn_port_t port)
{
    (void)xce;
    return ENTER(-1, U64(port)) ? -1 : fake_device_notify(port);
}

xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *xce, uint32_t domid, evtchn_port_t remote_port)
{
    (void)xce;
    if (ENTER(domid, U64(domid), U64(remote_port)))
        return -1;
    if (remote_port < EPORT_FIRST || remote_port >= EPORT_FIRST + FAKE_SERVERS * FAKE_VCPUS ||
        fake_live_server((ioservid_t)((remote_port - EPORT_FIRST) / FAKE_VCPUS))) {
        errno = EINVAL;
        return -1;
    }
    return fake_device_bind(remote_port);
}

xenevtchn_port_or_error_t xenevtchn_bind_unbound_port(xenevtchn_handle *xce, uint32_t domid)
{
    (void)xce;
    return ENTER(domid, U64(domid)) ? -1 : PORT_FIRST;
}

xenevtchn_port_or_error_t xenevtchn_bind_virq(xenevtchn_handle *xce, unsigned int virq)
{
    (void)xce;
    return ENTER(-1, U64(virq)) ? -1 : PORT_FIRST;
}

int xenevtchn_unbind(xenevtchn_handle *xce, evtchn_port_t port)
{
    (void)xce;
    return ENTER(-1, U64(port)) ? -1 : fake_device_unbind(port);
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *xce)
{
    (void)xce;
    errno = ENOSYS;
    return -1;
}

int xenevtchn_unmask(xenevtchn_handle *xce, evtchn_port_t port)
{
    (void)xce, (void)port;
    errno = ENOSYS;
    return -1;
}

int xenevtchn_restrict(xenevtchn_handle *xce, domid_t domid)
{
    (void)xce;
    return ENTER(domid, U64(domid));
}
