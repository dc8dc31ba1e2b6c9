/*
 * Waiting for an answer, and the states of a slot (xen/common/ioreq.c, wait_for_io).
 *
 * Xen looks at a slot only after an event on its channel, or if the answer was there before the vCPU began to wait.
 * Here a vCPU looks only after an event. So a device model that forgets to notify always hangs here, while on Xen it
 * hangs only sometimes.
 */
#define _GNU_SOURCE
#include "wait.h"

#include "phases.h"
#include "servers.h"
#include "sim_share.h"
#include "slot_access.h"
#include "slot_page.h"
#include "state.h"

#include <linux/futex.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How many times a wait for an answer looks before it sleeps. */
enum { MOST_LOOKS = 200 };

static void futex_wait(uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

/*
 * Facts: device models in other processes write the eventfd, and nothing else of a vCPU; phases.c tells by it, or by
 * `wake`, whether a vCPU has an event to look after. What follows: the vCPU counts in `wake` before it empties the
 * eventfd, so that the event is in one of them at any time.
 */
static void take_bell(emb_vcpu *v)
{
    uint64_t value;
    __atomic_fetch_add(&v->wake, 1, __ATOMIC_SEQ_CST);
    if (read(v->wake_fd, &value, sizeof(value)) != sizeof(value))
        return; /* a device model emptied it, which costs it a wake-up */
}

static uint32_t await_bell(emb_vcpu *v)
{
    struct pollfd bell = { .fd = v->wake_fd, .events = POLLIN };
    if (!emb_rings(v->wake_fd))
        emb_count(v->domain, XD_EMB_SLEEPS);
    while (poll(&bell, 1, -1) <= 0)
        ;
    take_bell(v);
    return __atomic_load_n(&v->wake, __ATOMIC_SEQ_CST);
}

uint32_t emb_events_so_far(emb_vcpu *v)
{
    if (v->wake_fd >= 0 && emb_rings(v->wake_fd))
        take_bell(v);
    return __atomic_load_n(&v->wake, __ATOMIC_SEQ_CST);
}

void emb_wake(emb_vcpu *v)
{
    if (v->wake_fd >= 0) {
        emb_ring(v->wake_fd);
        return;
    }
    __atomic_fetch_add(&v->wake, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&v->asleep, __ATOMIC_SEQ_CST))
        syscall(SYS_futex, &v->wake, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static bool spin(emb_vcpu *v, uint32_t seen, uint32_t *now)
{
    if (!v->luck && ++v->waits % 64)
        return false;
    for (int looks = 0; looks < MOST_LOOKS; looks++) {
        if ((*now = __atomic_load_n(&v->wake, __ATOMIC_ACQUIRE)) != seen) {
            v->luck = v->luck < 4 ? v->luck + 1 : 4;
            return true;
        }
        relax();
    }
    v->luck = v->luck > 2 ? v->luck - 2 : 0;
    return false;
}

static uint32_t await_event(emb_vcpu *v, uint32_t seen)
{
    xd_emb *d = v->domain;
    uint32_t now;
    if (v->wake_fd >= 0)
        return await_bell(v);
    if (spin(v, seen, &now))
        return now;
    emb_count(d, XD_EMB_SLEEPS);
    __atomic_store_n(&v->asleep, 1, __ATOMIC_SEQ_CST);
    while ((now = __atomic_load_n(&v->wake, __ATOMIC_SEQ_CST)) == seen)
        futex_wait(&v->wake, seen);
    __atomic_store_n(&v->asleep, 0, __ATOMIC_RELAXED);
    return now;
}

/*
 * Facts: wait_for_io crashes a domain whose slot goes backward (XSA-262), but remembers the state that it saw only
 * while it runs; x86 restarts it from its beginning whenever the vCPU has slept, and a slot that moved has made it
 * sleep. What follows: a device model would have to move the slot twice between two loads of Xen's to be caught. So
 * here, a step backward is a step like any other.
 */
/* Returns 1 if the request is finished, 0 if not yet, or -errno. */
static int step(emb_vcpu *v, emb_pending *one, uint64_t *data)
{
    xd_emb *d = v->domain;
    pthread_mutex_lock(&d->servers_lock);
    const emb_server *server = &d->servers[one->server];
    bool alive = server->exists && server->born == one->born;
    pthread_mutex_unlock(&d->servers_lock);
    /* The server was destroyed over the request: Xen finds nothing pending and takes the request as it is. */
    if (!alive)
        return 1;
    uint32_t state = load_state(slot_of(one->page->memory, v->id));
    if (state == XD_STATE_NONE) {
        *data = ~0ull;
        return 1;
    }
    if (state > XD_STATE_RESP_READY) {
        xd_emb_crash(d, "a slot's state is none that exists");
        return emb_why_stopped(d);
    }
    if (state != XD_STATE_RESP_READY)
        return 0;
    emb_point(v, XD_POINT_ANSWERED);
    *data = xd_slot_data(one->page->memory, v->id);
    xd_slot_set_state(one->page->memory, v->id, XD_STATE_NONE);
    return 1;
}

void emb_drop_pending(emb_vcpu *v)
{
    while (v->nr_pending)
        emb_put_page(v->domain, v->pending[--v->nr_pending].page);
}

/*
 * Facts: Xen takes an answer, and emulates the instruction again, on the vCPU's own stack, and preempts nothing there.
 * What follows: a pause of the domain finds an answer not yet taken, or the instruction over. So here a vCPU takes an
 * answer in XEN, like all else that a pause waits for.
 */
int emb_wait_for_answers(emb_vcpu *v, uint64_t *data)
{
    xd_emb *d = v->domain;
    emb_point(v, XD_POINT_POSTED);
    for (uint32_t i = 0; i < v->nr_pending; i++)
        emb_raise(d, v->pending[i].port);
    __atomic_store_n(&v->looked, v->posted_at, __ATOMIC_SEQ_CST);
    emb_leave(v, XD_PHASE_BLOCKED);
    uint32_t seen = v->posted_at;
    int rc = emb_why_stopped(d); /* who stopped the vCPUs before `posted_at` was looked at wakes this one no more */
    while (v->nr_pending && !rc) {
        seen = await_event(v, seen);
        rc = emb_enter(v, XD_PHASE_XEN);
        for (uint32_t i = 0; i < v->nr_pending && !rc;) {
            int finished = step(v, &v->pending[i], data);
            if (finished < 0) {
                rc = finished;
            } else if (finished) {
                emb_put_page(d, v->pending[i].page);
                v->pending[i] = v->pending[--v->nr_pending];
            } else {
                i++;
            }
        }
        if (!v->nr_pending || rc)
            return rc; /* it has an event, and does not wait for the next */
        emb_leave(v, XD_PHASE_BLOCKED);
        __atomic_store_n(&v->looked, seen, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&d->watchers, __ATOMIC_SEQ_CST))
            emb_tell_watchers(d);
    }
    return rc ? rc : emb_enter(v, XD_PHASE_XEN);
}

/*
 * Facts: if no server has the claim, the guest retries a store to a page of the type for ever, until a type or the
 * claim changes. What follows: a vCPU that sleeps until then behaves the same for an observer, and uses no CPU.
 */
void emb_sleep_until_bumped(emb_vcpu *v, uint32_t generation)
{
    xd_emb *d = v->domain;
    emb_count(d, XD_EMB_RETRIES);
    emb_leave(v, XD_PHASE_RETRYING);
    __atomic_fetch_add(&d->retrying, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&d->generation, __ATOMIC_SEQ_CST) == generation)
        futex_wait(&d->generation, generation);
    __atomic_fetch_sub(&d->retrying, 1, __ATOMIC_SEQ_CST);
}
