/*
 * The event-channel device, /dev/xen/evtchn, as Linux' drivers/xen/evtchn.c makes it: a ring of ports that fired, each
 * masked from then until its number is written back. The fd is an eventfd, so that poll works; read, write and ioctl
 * on it, and only on it, are ours because this library is preloaded.
 */
#define _GNU_SOURCE
#include "fakexen.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xen/sys/evtchn.h>

#define API __attribute__((visibility("default")))

static struct {
    int bound, masked, latched;
    uint32_t remote;
    unsigned int notified;
} ports[NR_PORTS];
static uint32_t ring[NR_PORTS];
static unsigned int ring_size, ring_used;
static int overflow, device = -1;
static unsigned int reads, writes;

/* The eventfd is readable while the ring holds something. */
static void show(void)
{
    uint64_t value = 1;

    if (ring_used || overflow)
        syscall(SYS_write, device, &value, sizeof value);
    else
        syscall(SYS_read, device, &value, sizeof value);
}

static void deliver(uint32_t port)
{
    if (ports[port].masked) {
        ports[port].latched = 1;
        return;
    }
    ports[port].masked = 1;
    ports[port].latched = 0;
    if (ring_used < ring_size)
        ring[ring_used++] = port;
    else
        overflow = 1;
    show();
}

static void unmask(uint32_t port)
{
    if (port >= NR_PORTS || !ports[port].bound || !ports[port].masked)
        return;
    ports[port].masked = 0;
    if (ports[port].latched)
        deliver(port);
}

API ssize_t read(int fd, void *buffer, size_t count)
{
    if (device < 0 || fd != device)
        return syscall(SYS_read, fd, buffer, count);
    reads++;
    if (!(fcntl(fd, F_GETFL) & O_NONBLOCK)) {
        fputs("fake: a read that could block\n", stderr);
        abort();
    }
    if (overflow || ring_used == 0) {
        errno = overflow ? EFBIG : EAGAIN;
        return -1;
    }
    unsigned int taken = (unsigned int)(count / sizeof *ring);
    if (taken > ring_used)
        taken = ring_used;
    memcpy(buffer, ring, taken * sizeof *ring);
    memmove(ring, ring + taken, (ring_used - taken) * sizeof *ring);
    ring_used -= taken;
    show();
    return (ssize_t)(taken * sizeof *ring);
}

API ssize_t write(int fd, const void *buffer, size_t count)
{
    if (device < 0 || fd != device)
        return syscall(SYS_write, fd, buffer, count);
    writes++;
    for (size_t i = 0; i < count / sizeof(uint32_t); i++)
        unmask(((const uint32_t *)buffer)[i]);
    return (ssize_t)(count / sizeof(uint32_t) * sizeof(uint32_t));
}

API int ioctl(int fd, unsigned long request, ...)
{
    va_list args;

    va_start(args, request);
    void *argument = va_arg(args, void *);
    va_end(args);
    if (device < 0 || fd != device || request != IOCTL_EVTCHN_RESET)
        return (int)syscall(SYS_ioctl, fd, request, argument);
    ring_used = 0;
    overflow = 0;
    show();
    return 0;
}

API int fake_device_open(void)
{
    device = eventfd(0, EFD_CLOEXEC);
    return device;
}

API void fake_device_close(void)
{
    close(device);
    device = -1;
    memset(ports, 0, sizeof ports);
}

API int fake_device_fd(void)
{
    return device;
}

API void fake_device_reset(void)
{
    if (device >= 0)
        fake_device_close();
    memset(ports, 0, sizeof ports);
    ring_used = 0;
    ring_size = NR_PORTS;
    overflow = 0;
    reads = writes = 0;
}

/* A channel binds once, and its local port fires at once (xen/common/event_channel.c evtchn_bind_interdomain). */
API int fake_device_bind(uint32_t remote_port)
{
    uint32_t unused = 0;

    for (uint32_t port = NR_PORTS - 1; port >= PORT_FIRST; port--) {
        if (ports[port].bound && ports[port].remote == remote_port) {
            errno = EINVAL;
            return -1;
        }
        if (!ports[port].bound)
            unused = port;
    }
    if (unused == 0) {
        errno = ENOSPC;
        return -1;
    }
    memset(&ports[unused], 0, sizeof ports[unused]);
    ports[unused].bound = 1;
    ports[unused].remote = remote_port;
    deliver(unused);
    return (int)unused;
}

static int bound(uint32_t port)
{
    if (port < NR_PORTS && ports[port].bound)
        return 1;
    errno = ENOTCONN;
    return 0;
}

API int fake_device_unbind(uint32_t port)
{
    if (!bound(port))
        return -1;
    ports[port].bound = 0;
    return 0;
}

API int fake_device_notify(uint32_t port)
{
    if (!bound(port))
        return -1;
    ports[port].notified++;
    return 0;
}

API void fake_raise(unsigned int port)
{
    deliver(port);
}

/* The other end of each channel closes. */
API void fake_device_raise_all(void)
{
    for (uint32_t port = PORT_FIRST; port < NR_PORTS; port++)
        if (ports[port].bound)
            deliver(port);
}

API unsigned int fake_notified(unsigned int port)
{
    return ports[port].notified;
}

API int fake_masked(unsigned int port)
{
    return ports[port].masked;
}

API void fake_ring_size(unsigned int size)
{
    ring_size = size;
}

API unsigned int fake_device_reads(void)
{
    return reads;
}

API unsigned int fake_device_writes(void)
{
    return writes;
}
