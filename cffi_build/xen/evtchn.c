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
