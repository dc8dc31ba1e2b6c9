#include "burst.h"

#include "owner.h"
#include "slot_access.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/epoll.h>

_Static_assert(sizeof(((xd_burst *)0)->handed) / sizeof(xd_taken) == XD_SLOTS_PER_PAGE, "every vCPU has one request");

enum {
    SPIN_NS = 50000,       /* a trip through Xen, there and back, with something to spare */
    CREDIT_LIMIT = 20,     /* spins in vain, times their price, until a burst stops spinning */
    PRICE = 5,
    FIRST_PAUSE = 64,
    LONGEST_PAUSE = 4096,
    LOOKS = 16,            /* between two looks at the clock */
    DOORBELL_NS = 200000,  /* between two looks at the doorbell while a burst spins */
    MOST_EMPTY = 1000      /* events in a row with which nothing comes: each vCPU can cause one, when two race */
};
/* What wait_for_more found. */
enum { EVENT = 1, DOORBELL = 2 };

static int fail(xd_burst *burst, int error, uint32_t call)
{
    if (!burst->error) {
        burst->error = -error;
        burst->failed = call;
    }
    return 0;
}

static void answer(xd_burst *burst, uint32_t vcpu, uint64_t data, int route)
{
    xd_slot_answer(burst->page, vcpu, data, (uint32_t)route, &burst->stats->counters.timing);
    burst->served++;
    if (!burst->ports[vcpu])
        return;
    int error = burst->channels.notify(burst->channels.handle, burst->ports[vcpu]);
    if (error < 0)
        fail(burst, error, XD_CALL_NOTIFY_PORT);
}

/*
 * Leaves a request to Python, and records that its store is done, if it is: another vCPU may be answered before Python
 * records it.
 */
static void hand(xd_burst *burst, uint32_t vcpu, const xd_taken *one)
{
    burst->nr_handed++;
    if (burst->journal && one->outcome >= 0 && one->outcome < XD_NOT_TRIED)
        xd_journal_done(&burst->journal[vcpu], 0);
}

/* Serves each slot that is READY, once. Returns how many those were; what C cannot do is in `handed` then. */
static uint32_t look(xd_burst *burst)
{
    uint32_t found = 0;
    for (uint32_t vcpu = 0; vcpu < burst->nr_vcpus; vcpu++) {
        if (load_state(slot_of(burst->page, vcpu)) != XD_STATE_READY)
            continue;
        if (!found++)
            burst->now = xd_now();
        xd_taken *one = &burst->handed[burst->nr_handed];
        uint64_t data = 0;
        xd_slot_take(burst->page, vcpu, one, &burst->stats->counters.timing, burst->journal, burst->now);
        int route = burst->quick ? xd_quick_serve(burst->quick, one, &data) : -1;
        if (route < 0)
            hand(burst, vcpu, one);
        else
            answer(burst, vcpu, data, route);
    }
    return found;
}

static bool wants_attention(const xd_burst *burst)
{
    const xd_gpu *gpu = burst->quick ? burst->quick->gpu : NULL;
    uint32_t urgent = XD_ATTENTION_INTERRUPT | XD_ATTENTION_RUN;
    return gpu && gpu->attention & (gpu->level_triggered ? urgent | XD_ATTENTION_LINE_DOWN : urgent);
}

static bool must_end(const xd_burst *burst)
{
    return burst->nr_handed || burst->error || wants_attention(burst);
}

/* Waits until `until` for an event or the doorbell; 0: looks for them. Returns EVENT, DOORBELL, both, or 0. */
static int wait_for_more(xd_burst *burst, uint64_t until)
{
    int timeout = 0;
    if (until) {
        uint64_t now = burst->now = xd_now();
        uint64_t ms = until > now ? (until - now + 999999) / 1000000 : 0;
        timeout = until == UINT64_MAX ? -1 : ms < 1000000 ? (int)ms : 1000000;
    }
    struct epoll_event events[2];
    int count = epoll_wait(burst->poll_fd, events, 2, timeout);
    if (count < 0 && errno != EINTR)
        return fail(burst, -errno, XD_CALL_POLL);
    if (count < 0) /* Python handles the signal, after what the vCPUs asked for before it */
        return DOORBELL | (until ? wait_for_more(burst, 0) : 0);
    int found = 0;
    for (int i = 0; i < count; i++)
        found |= events[i].data.fd == burst->channels_fd ? EVENT : DOORBELL;
    return found;
}

static int take(xd_burst *burst)
{
    int taken = burst->channels.take(burst->channels.handle);
    if (taken < 0)
        return fail(burst, taken, XD_CALL_TAKE);
    burst->masked = 1;
    burst->stats->wakeups++;
    return taken;
}

/*
 * Takes the events and serves what they tell of. An event is spurious if no slot held its request, and no request was
 * found without its event before. A descriptor that is always readable though there is nothing to take is broken, and
 * waiting for it would be a loop for ever.
 */
static uint32_t take_and_look(xd_burst *burst)
{
    int taken = take(burst);
    uint32_t found = burst->error ? 0 : look(burst);
    if (taken && !found && !burst->unannounced)
        burst->stats->counters.spurious_events++;
    burst->unannounced = 0;
    burst->empty = taken || found ? 0 : burst->empty + 1;
    if (burst->empty > MOST_EMPTY)
        fail(burst, -EIO, XD_CALL_TAKE);
    return found;
}

static void unmask(xd_burst *burst)
{
    if (!burst->masked)
        return;
    burst->masked = 0;
    int error = burst->channels.unmask(burst->channels.handle);
    if (error < 0)
        fail(burst, error, XD_CALL_UNMASK_PORTS);
}

static bool may_spin(xd_burst *burst)
{
    if (!burst->spins)
        return false;
    if (burst->credit > 0)
        return true;
    if (++burst->paused < burst->pause)
        return false;
    burst->paused = 0;
    return true;
}

static void earn(xd_burst *burst)
{
    if (burst->credit <= 0) { /* a try that succeeded: one in vain ends it again */
        burst->credit = PRICE;
        burst->pause = FIRST_PAUSE;
    } else if (burst->credit < CREDIT_LIMIT) {
        burst->credit++;
    }
}

static void pay(xd_burst *burst)
{
    if (burst->credit > 0)
        burst->credit -= PRICE;
    else if (burst->pause < LONGEST_PAUSE)
        burst->pause *= 2;
}

/*
 * With the ports masked, serves what comes within SPIN_NS, and what comes within SPIN_NS of that, and so on. Returns
 * DOORBELL if it rang, else 0.
 */
static int spin(xd_burst *burst, uint64_t until)
{
    uint64_t last = xd_now(), looked = last;
    for (;;) {
        uint32_t found = 0;
        for (int looks = 0; looks < LOOKS && !found; looks++) {
            relax();
            found = look(burst);
        }
        uint64_t now = found ? burst->now : xd_now();
        if (found) {
            earn(burst);
            burst->unannounced += found;
            last = now;
        }
        if (must_end(burst) || now >= until)
            return 0;
        if (now - last > SPIN_NS && !found) {
            pay(burst);
            return 0;
        }
        if (now - looked > DOORBELL_NS) {
            looked = now;
            int ready = wait_for_more(burst, 0);
            if (ready & EVENT)
                take(burst);
            if (ready & DOORBELL)
                return DOORBELL;
        }
    }
}

static int serve_until(xd_burst *burst, uint64_t until)
{
    uint32_t found = look(burst);
    bool near = found || burst->hot; /* a request was there just now, so the next one may be near */
    burst->unannounced += found;
    for (;;) {
        if (!must_end(burst) && near && until && burst->masked && may_spin(burst) && spin(burst, until))
            return XD_BURST_DOORBELL;
        if (must_end(burst))
            return XD_BURST_HANDED;
        if (until && burst->now >= until)
            return XD_BURST_TIME;
        unmask(burst);
        int ready = wait_for_more(burst, until);
        near = ready & EVENT && take_and_look(burst);
        if (must_end(burst))
            return XD_BURST_HANDED;
        if (ready & DOORBELL)
            return XD_BURST_DOORBELL;
        if (!ready || !until)
            return XD_BURST_TIME;
    }
}

static int serve(xd_burst *burst, uint64_t until)
{
    int reason = serve_until(burst, until);
    if (!until)
        unmask(burst);
    return burst->nr_handed ? XD_BURST_HANDED : reason;
}

void xd_burst_init(xd_burst *burst)
{
    burst->credit = CREDIT_LIMIT;
    burst->pause = FIRST_PAUSE;
}

int xd_burst_own(const xd_burst *burst)
{
    xd_part parts[XD_OWNED_PARTS] = {
        {(uint64_t)(uintptr_t)burst, sizeof(*burst)},
        {(uint64_t)(uintptr_t)burst->page, XD_SLOTS_PER_PAGE * sizeof(xd_ioreq)},
        {(uint64_t)(uintptr_t)burst->journal, XD_SLOTS_PER_PAGE * sizeof(xd_journal_record)},
    };
    uint32_t count = 3;
    if (burst->quick) {
        xd_shadow *shadow = burst->quick->shadow;
        parts[count++] = (xd_part){(uint64_t)(uintptr_t)shadow, sizeof(*shadow)};
        parts[count++] = (xd_part){(uint64_t)(uintptr_t)shadow->frames, sizeof(*shadow->frames)};
        if (burst->quick->gpu)
            parts[count++] = (xd_part){(uint64_t)(uintptr_t)burst->quick->gpu, sizeof(*burst->quick->gpu)};
    }
    return xd_owner_begin(parts, count);
}

void xd_burst_disown(const xd_burst *burst, int owner)
{
    (void)burst;
    xd_owner_end(owner);
}

/* Returns the owner that runs this burst. *own: what to end afterwards, if nobody owns the burst otherwise; else -1. */
static int enter(xd_burst *burst, int *own)
{
    int owner = xd_owner_of(burst);
    *own = -1;
    if (owner < 0)
        owner = *own = xd_burst_own(burst);
    xd_owner_busy(owner, 1);
    burst->nr_handed = burst->failed = 0;
    burst->error = 0;
    return owner;
}

static int leave(xd_burst *burst, int owner, int own, int reason)
{
    xd_owner_busy(owner, 0);
    xd_owner_end(own);
    return burst->error ? XD_BURST_ERROR : reason;
}

int xd_burst_run(xd_burst *burst, uint64_t until)
{
    int own, owner = enter(burst, &own);
    uint64_t before = burst->served;
    int reason = serve(burst, until);
    burst->hot = reason == XD_BURST_HANDED;
    burst->stats->bursts++;
    burst->stats->burst_requests += burst->served - before;
    burst->stats->handed_requests += burst->nr_handed;
    return leave(burst, owner, own, reason);
}

int xd_burst_look(xd_burst *burst)
{
    int own, owner = enter(burst, &own);
    uint64_t before = burst->served;
    burst->unannounced += look(burst);
    burst->stats->burst_requests += burst->served - before;
    burst->stats->handed_requests += burst->nr_handed;
    return leave(burst, owner, own, burst->nr_handed ? XD_BURST_HANDED : XD_BURST_TIME);
}

int xd_burst_unmask(xd_burst *burst)
{
    int own, owner = enter(burst, &own);
    unmask(burst);
    return leave(burst, owner, own, XD_BURST_TIME);
}
