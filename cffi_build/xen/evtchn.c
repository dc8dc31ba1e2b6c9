#include "evtchn.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <xen/sys/evtchn.h>

int xd_xen_evtchn_take(int fd, evtchn_port_t *ports)
{
    ssize_t got;

    do
        got = read(fd, ports, XD_EVTCHN_BATCH * sizeof *ports);
    while (got < 0 && errno == EINTR);
    if (got >= 0)
        return (int)((size_t)got / sizeof *ports);
    return errno == EAGAIN ? 0 : -errno;
}

int xd_xen_evtchn_unmask(int fd, const evtchn_port_t *ports, uint32_t count)
{
    while (count > 0) {
        uint32_t batch = count < XD_EVTCHN_BATCH ? count : XD_EVTCHN_BATCH;
        ssize_t put = write(fd, ports, batch * sizeof *ports);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -errno;
        uint32_t done = (uint32_t)((size_t)put / sizeof *ports);
        if (done == 0)
            return -EIO;
        ports += done;
        count -= done;
    }
    return 0;
}

int xd_xen_evtchn_drain(int fd, const evtchn_port_t *bound, uint32_t nr_bound)
{
    evtchn_port_t ports[XD_EVTCHN_BATCH];
    const evtchn_port_t *fired = ports;
    int count = xd_xen_evtchn_take(fd, ports);

    /*
     * The ring has room for each bound port once (the kernel grows it) and a port is in it at most once, so an
     * overflow is a kernel before 4.4 with over 1024 ports, or a bug. The ports that did not fit are masked and named
     * nowhere. So: empty the ring, and treat every bound port as fired. Cost: nothing where it does not happen.
     */
    if (count == -EFBIG) {
        if (ioctl(fd, IOCTL_EVTCHN_RESET) < 0)
            return -errno;
        fired = bound;
        count = (int)nr_bound;
    }
    if (count <= 0)
        return count;
    int failure = xd_xen_evtchn_unmask(fd, fired, (uint32_t)count);
    return failure ? failure : count;
}

int xd_xen_channels_take(void *channels)
{
    xd_xen_channels *all = channels;
    evtchn_port_t *into = all->ports + all->count;
    int count;

    /* A port is taken once until it is unmasked, and a domain has 128 vCPUs: there is always room for a read of all. */
    if (all->count > XD_EVTCHN_MOST_PORTS)
        return -EOVERFLOW;
    count = xd_xen_evtchn_take(all->fd, into);
    if (count == -EFBIG) { /* as in xd_xen_evtchn_drain */
        if (ioctl(all->fd, IOCTL_EVTCHN_RESET) < 0)
            return -errno;
        count = 0;
        for (uint32_t i = 0; i < all->nr_bound; i++)
            into[count++] = all->bound[i];
    }
    if (count > 0)
        all->count += (uint32_t)count;
    return count;
}

int xd_xen_channels_unmask(void *channels)
{
    xd_xen_channels *all = channels;
    int failure = xd_xen_evtchn_unmask(all->fd, all->ports, all->count);

    all->count = 0;
    return failure;
}

int xd_xen_channels_notify(void *channels, uint32_t port)
{
    const xd_xen_channels *all = channels;

    return xenevtchn_notify(all->handle, port) ? -errno : 0;
}
