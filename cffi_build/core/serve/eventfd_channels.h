#ifndef XD_EVENTFD_CHANNELS_H
#define XD_EVENTFD_CHANNELS_H
#include <stdint.h>

/*
 * Event channels without Xen: events are counted in memory that both sides share, and told by eventfds.
 *
 * channels: of one device model. The thread that serves the guest calls every function here. They are the functions of an
 * xd_channels (burst.h), whose `handle` is the xd_eventfd_channels; nothing is masked.
 */
enum { XD_EVENTFD_PORTS = 2048 };

/*
 * fd: the eventfd that tells of events. words: two for each port: the events so far, and whether a notify reaches the
 * domain. By port: the events that were taken; the eventfd of the other end, or 0 if the port is not bound.
 */
typedef struct xd_eventfd_channels {
    int32_t fd;
    uint32_t most; /* ports that were ever bound are below this */
    const uint32_t *words;
    uint32_t taken[2048];
    int32_t wake[2048];
} xd_eventfd_channels;

/* Takes every event. Returns of how many ports. Called by hypervisor/sim/events.py, and by a burst. */
int xd_eventfd_take(void *channels);
/* Nothing to do: nothing was masked. Returns 0. Called by a burst, through its address. */
int xd_eventfd_unmask(void *channels);
/*
 * Tells the domain of an event at `port`. Returns 0, or -ENOTCONN. Called by hypervisor/sim/events.py, and by a burst
 * through its address.
 */
int xd_eventfd_notify(void *channels, uint32_t port);

#endif
