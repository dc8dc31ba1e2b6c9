#include "events.h"

#include "calls.h"
#include "sim_share.h"
#include "state.h"
#include "wait.h"

#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

enum { EMB_WORDS = EMB_MAX_PORTS / 64 };

struct xd_emb_events {
    xd_emb *domain;
    int fd;
    uint32_t readable; /* bits in `fired`; the eventfd is set while it is not 0 */
    uint32_t next_port;
    uint64_t bound[EMB_WORDS], fired[EMB_WORDS], masked[EMB_WORDS], latched[EMB_WORDS];
    uint64_t taken[EMB_WORDS]; /* by xd_emb_channels_take */
    uint32_t remote[EMB_MAX_PORTS];
    xd_emb_shared_port *shared; /* of a device model in another process, else NULL */
    int shared_fd;
};

static bool test_bit(const uint64_t *words, int port)
{
    return words[port / 64] >> (port % 64) & 1;
}

static void set_bit(uint64_t *words, int port)
{
    words[port / 64] |= 1ull << (port % 64);
}

static void clear_bit(uint64_t *words, int port)
{
    words[port / 64] &= ~(1ull << (port % 64));
}

/* An eventfd of 64 bits does not run dry here, so this cannot fail but for EINTR, which it has not. */
static void reset_fd(int fd)
{
    uint64_t value;
    if (read(fd, &value, sizeof(value)) != sizeof(value))
        abort();
}

static void fire(xd_emb_events *events, int port)
{
    if (events->shared) {
        __atomic_store_n(&events->shared[port].raised, events->shared[port].raised + 1, __ATOMIC_SEQ_CST);
        emb_ring(events->fd);
        return;
    }
    if (test_bit(events->masked, port)) {
        set_bit(events->latched, port);
        return;
    }
    set_bit(events->masked, port);
    set_bit(events->fired, port);
    if (events->readable++ == 0)
        emb_ring(events->fd);
}

/* Tell a device model in another process whether its notifies reach the domain. */
static void set_connected(xd_emb_events *events, int port, uint32_t connected)
{
    if (events->shared)
        __atomic_store_n(&events->shared[port].connected, connected, __ATOMIC_SEQ_CST);
}

static void unfire(xd_emb_events *events, int port)
{
    clear_bit(events->fired, port);
    if (--events->readable == 0)
        reset_fd(events->fd);
}

uint32_t emb_channel_new(xd_emb *d, uint32_t vcpu)
{
    uint32_t port = 0;
    pthread_mutex_lock(&d->channels_lock);
    for (uint32_t i = 1; i < EMB_MAX_PORTS && !port; i++)
        if (!d->channels[i].exists)
            port = i;
    if (port)
        d->channels[port] = (emb_channel){ .exists = true, .vcpu = vcpu };
    pthread_mutex_unlock(&d->channels_lock);
    return port;
}

/* Xen makes the other end unbound, too. */
void emb_channel_free(xd_emb *d, uint32_t port)
{
    pthread_mutex_lock(&d->channels_lock);
    emb_channel *channel = &d->channels[port];
    if (channel->events) {
        channel->events->remote[channel->local] = 0;
        set_connected(channel->events, channel->local, 0);
    }
    *channel = (emb_channel){ .exists = false };
    pthread_mutex_unlock(&d->channels_lock);
}

void emb_raise(xd_emb *d, uint32_t port)
{
    pthread_mutex_lock(&d->channels_lock);
    emb_channel *channel = &d->channels[port];
    if (channel->exists && channel->events) {
        emb_count(d, XD_EMB_EVENTS);
        fire(channel->events, channel->local);
    } else {
        emb_count(d, XD_EMB_LOST_EVENTS);
    }
    pthread_mutex_unlock(&d->channels_lock);
}

xd_emb_events *xd_emb_events_new(xd_emb *d)
{
    xd_emb_events *events = calloc(1, sizeof(*events));
    if (!events)
        return NULL;
    events->domain = d;
    events->next_port = 1;
    events->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (events->fd < 0) {
        free(events);
        return NULL;
    }
    return events;
}

static void unbind(xd_emb_events *events, int port)
{
    uint32_t remote = events->remote[port];
    if (remote)
        events->domain->channels[remote].events = NULL;
    events->remote[port] = 0;
    set_connected(events, port, 0);
    if (test_bit(events->fired, port))
        unfire(events, port);
    clear_bit(events->bound, port);
    clear_bit(events->masked, port);
    clear_bit(events->latched, port);
    clear_bit(events->taken, port);
}

void xd_emb_events_free(xd_emb_events *events)
{
    xd_emb *d = events->domain;
    pthread_mutex_lock(&d->channels_lock);
    for (int port = 1; port < EMB_MAX_PORTS; port++)
        if (test_bit(events->bound, port))
            unbind(events, port);
    pthread_mutex_unlock(&d->channels_lock);
    close(events->fd);
    if (events->shared) {
        munmap(events->shared, EMB_MAX_PORTS * sizeof(*events->shared));
        close(events->shared_fd);
    }
    free(events);
}

int xd_emb_events_share(xd_emb_events *events)
{
    events->shared = emb_new_shared("xengt-dm events", EMB_MAX_PORTS * sizeof(*events->shared), &events->shared_fd);
    return events->shared ? events->shared_fd : -ENOMEM;
}

int xd_emb_events_fd(const xd_emb_events *events)
{
    return events->fd;
}

int xd_emb_events_bind(xd_emb_events *events, uint32_t remote_port)
{
    xd_emb *d = events->domain;
    int rc = xd_emb_call(d, XD_CALL_BIND);
    if (rc)
        return rc;
    pthread_mutex_lock(&d->channels_lock);
    emb_channel *channel = remote_port < EMB_MAX_PORTS ? &d->channels[remote_port] : NULL;
    if (!channel || !channel->exists || channel->events) {
        rc = -EINVAL;
    } else {
        rc = -ENOSPC;
        for (int tried = 0; tried < EMB_MAX_PORTS - 1 && rc < 0; tried++) {
            int port = (int)events->next_port;
            events->next_port = events->next_port % (EMB_MAX_PORTS - 1) + 1;
            if (!test_bit(events->bound, port))
                rc = port;
        }
        if (rc > 0) {
            set_bit(events->bound, rc);
            events->remote[rc] = remote_port;
            channel->events = events;
            channel->local = rc;
            set_connected(events, rc, 1);
            /* Xen cannot know what was missed while nobody was bound, and so raises the event once. */
            fire(events, rc);
        }
    }
    pthread_mutex_unlock(&d->channels_lock);
    return rc;
}

static bool is_bound(const xd_emb_events *events, int port)
{
    return port > 0 && port < EMB_MAX_PORTS && test_bit(events->bound, port);
}

int xd_emb_events_unbind(xd_emb_events *events, int port)
{
    xd_emb *d = events->domain;
    int rc = xd_emb_call(d, XD_CALL_UNBIND);
    if (rc && rc != -ESRCH)
        return rc;
    pthread_mutex_lock(&d->channels_lock);
    if (is_bound(events, port)) {
        unbind(events, port);
        rc = 0;
    } else {
        rc = -ENOTCONN;
    }
    pthread_mutex_unlock(&d->channels_lock);
    return rc;
}

int xd_emb_events_wake_fd(xd_emb_events *events, int port)
{
    xd_emb *d = events->domain;
    pthread_mutex_lock(&d->channels_lock);
    uint32_t remote = is_bound(events, port) ? events->remote[port] : 0;
    int fd = remote ? d->vcpus[d->channels[remote].vcpu].wake_fd : -ENOTCONN;
    pthread_mutex_unlock(&d->channels_lock);
    return fd;
}

int xd_emb_events_notify(xd_emb_events *events, int port)
{
    xd_emb *d = events->domain;
    int rc = xd_emb_call(d, XD_CALL_NOTIFY);
    if (rc)
        return rc;
    emb_vcpu *v = NULL;
    pthread_mutex_lock(&d->channels_lock);
    if (!is_bound(events, port))
        rc = -ENOTCONN;
    else if (events->remote[port])
        v = &d->vcpus[d->channels[events->remote[port]].vcpu];
    pthread_mutex_unlock(&d->channels_lock);
    if (v)
        emb_wake(v);
    return rc;
}

int xd_emb_events_pending(xd_emb_events *events)
{
    xd_emb *d = events->domain;
    int port = 0;
    pthread_mutex_lock(&d->channels_lock);
    for (int word = 0; word < EMB_WORDS && !port; word++)
        if (events->fired[word])
            port = word * 64 + __builtin_ctzll(events->fired[word]);
    if (port)
        unfire(events, port);
    pthread_mutex_unlock(&d->channels_lock);
    return port;
}

int xd_emb_events_unmask(xd_emb_events *events, int port)
{
    xd_emb *d = events->domain;
    int rc = 0;
    pthread_mutex_lock(&d->channels_lock);
    if (!is_bound(events, port)) {
        rc = -ENOTCONN;
    } else if (!test_bit(events->fired, port)) {
        clear_bit(events->masked, port);
        if (test_bit(events->latched, port)) {
            clear_bit(events->latched, port);
            fire(events, port);
        }
    }
    pthread_mutex_unlock(&d->channels_lock);
    return rc;
}

/* Adds the ports that fired to `ports`; none has fired afterwards. Returns how many. With channels_lock held. */
static int take_fired(xd_emb_events *events, uint64_t ports[EMB_WORDS])
{
    int taken = 0;
    for (int word = 0; word < EMB_WORDS; word++) {
        taken += __builtin_popcountll(events->fired[word]);
        ports[word] |= events->fired[word];
        events->fired[word] = 0;
    }
    if (events->readable) {
        events->readable = 0;
        reset_fd(events->fd);
    }
    return taken;
}

int xd_emb_events_drain(xd_emb_events *events)
{
    xd_emb *d = events->domain;
    uint64_t fired[EMB_WORDS] = {0};
    pthread_mutex_lock(&d->channels_lock);
    int taken = take_fired(events, fired);
    /* What was latched while the port was masked is served by the scan that follows. */
    for (int word = 0; word < EMB_WORDS; word++) {
        events->masked[word] &= ~fired[word];
        events->latched[word] &= ~fired[word];
    }
    pthread_mutex_unlock(&d->channels_lock);
    return taken;
}

int xd_emb_channels_take(void *channels)
{
    xd_emb_events *events = channels;
    xd_emb *d = events->domain;
    pthread_mutex_lock(&d->channels_lock);
    int taken = take_fired(events, events->taken);
    pthread_mutex_unlock(&d->channels_lock);
    return taken;
}

int xd_emb_channels_unmask(void *channels)
{
    xd_emb_events *events = channels;
    xd_emb *d = events->domain;
    pthread_mutex_lock(&d->channels_lock);
    for (int word = 0; word < EMB_WORDS; word++) {
        uint64_t taken = events->taken[word];
        uint64_t again = events->latched[word] & taken;
        events->taken[word] = 0;
        events->masked[word] &= ~taken;
        events->latched[word] &= ~taken;
        for (; again; again &= again - 1)
            fire(events, word * 64 + __builtin_ctzll(again));
    }
    pthread_mutex_unlock(&d->channels_lock);
    return 0;
}

int xd_emb_channels_notify(void *channels, uint32_t port)
{
    return xd_emb_events_notify(channels, (int)port);
}
