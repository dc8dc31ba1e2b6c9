#include "phases.h"

#include "p2m.h"
#include "sim_share.h"
#include "state.h"
#include "wait.h"

#include <time.h>

void emb_tell_watchers(xd_emb *d)
{
    pthread_mutex_lock(&d->gate);
    pthread_cond_broadcast(&d->gate_cond);
    pthread_mutex_unlock(&d->gate);
}

void emb_stop_vcpus(xd_emb *d)
{
    __atomic_fetch_or(&d->hold, EMB_STOPPED, __ATOMIC_SEQ_CST);
    for (uint32_t i = 0; i < d->nr_vcpus; i++)
        emb_wake(&d->vcpus[i]);
    emb_bump(d);
    emb_tell_watchers(d);
}

/*
 * Phases. A vCPU in GUEST uses a translation; in XEN it emulates; in every other phase it does not run. Each entry to
 * GUEST is a new translation, counted in the same word, so that after a change of a type one can wait until no vCPU
 * uses an older translation.
 */
static bool is_running(const emb_vcpu *v)
{
    uint32_t phase = __atomic_load_n(&v->where, __ATOMIC_SEQ_CST) & EMB_PHASE_MASK;
    return phase == XD_PHASE_GUEST || phase == XD_PHASE_XEN;
}

static void set_phase(emb_vcpu *v, uint32_t phase)
{
    uint32_t word = __atomic_load_n(&v->where, __ATOMIC_RELAXED) & ~(uint32_t)EMB_PHASE_MASK;
    __atomic_store_n(&v->where, word | phase, __ATOMIC_SEQ_CST);
}

void emb_leave(emb_vcpu *v, uint32_t phase)
{
    xd_emb *d = v->domain;
    set_phase(v, phase);
    if (phase != XD_PHASE_XEN && __atomic_load_n(&d->watchers, __ATOMIC_SEQ_CST))
        emb_tell_watchers(d);
}

int emb_enter(emb_vcpu *v, uint32_t phase)
{
    xd_emb *d = v->domain;
    for (;;) {
        uint32_t word = __atomic_load_n(&v->where, __ATOMIC_RELAXED) & ~(uint32_t)EMB_PHASE_MASK;
        __atomic_store_n(&v->where, (word + EMB_TRANSLATION) | phase, __ATOMIC_SEQ_CST);
        if (!__atomic_load_n(&d->hold, __ATOMIC_SEQ_CST))
            return 0;
        emb_leave(v, XD_PHASE_OUT);
        __atomic_fetch_add(&d->watchers, 1, __ATOMIC_SEQ_CST);
        pthread_mutex_lock(&d->gate);
        uint32_t hold;
        while ((hold = __atomic_load_n(&d->hold, __ATOMIC_SEQ_CST)) && !(hold & EMB_STOPPED))
            pthread_cond_wait(&d->gate_cond, &d->gate);
        pthread_mutex_unlock(&d->gate);
        __atomic_fetch_sub(&d->watchers, 1, __ATOMIC_SEQ_CST);
        if (hold & EMB_STOPPED)
            return emb_why_stopped(d);
    }
}

void xd_emb_pause(xd_emb *d)
{
    __atomic_fetch_add(&d->hold, 1, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&d->watchers, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&d->gate);
    for (uint32_t i = 0; i < d->nr_vcpus; i++)
        while (is_running(&d->vcpus[i]))
            pthread_cond_wait(&d->gate_cond, &d->gate);
    pthread_mutex_unlock(&d->gate);
    __atomic_fetch_sub(&d->watchers, 1, __ATOMIC_SEQ_CST);
}

void xd_emb_unpause(xd_emb *d)
{
    __atomic_fetch_sub(&d->hold, 1, __ATOMIC_SEQ_CST);
    emb_tell_watchers(d);
}

void xd_emb_shutdown(xd_emb *d)
{
    __atomic_fetch_or(&d->hold, EMB_SHUTDOWN, __ATOMIC_SEQ_CST);
}

int xd_emb_is_shut_down(xd_emb *d)
{
    if (!(__atomic_load_n(&d->hold, __ATOMIC_SEQ_CST) & EMB_SHUTDOWN))
        return 0;
    for (uint32_t i = 0; i < d->nr_vcpus; i++) {
        uint32_t phase = __atomic_load_n(&d->vcpus[i].where, __ATOMIC_SEQ_CST) & EMB_PHASE_MASK;
        if (phase == XD_PHASE_BLOCKED || is_running(&d->vcpus[i]))
            return 0;
    }
    return 1;
}

void emb_point(emb_vcpu *v, int point)
{
    uint32_t bit = 1u << point;
    if (!(__atomic_load_n(&v->hold_mask, __ATOMIC_ACQUIRE) & bit))
        return;
    xd_emb *d = v->domain;
    pthread_mutex_lock(&d->gate);
    __atomic_fetch_and(&v->hold_mask, ~bit, __ATOMIC_ACQ_REL);
    v->held_at = point;
    /* Between two instructions a vCPU uses no translation, and can be paused. */
    if (point == XD_POINT_FETCH)
        set_phase(v, XD_PHASE_OUT);
    pthread_cond_broadcast(&d->gate_cond);
    __atomic_fetch_add(&d->watchers, 1, __ATOMIC_SEQ_CST);
    while (v->held_at == point && !emb_why_stopped(d))
        pthread_cond_wait(&d->gate_cond, &d->gate);
    v->held_at = -1;
    __atomic_fetch_sub(&d->watchers, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&d->gate);
}

int xd_emb_hold(xd_emb *d, uint32_t vcpu, int point)
{
    if (vcpu >= d->nr_vcpus || point < 0 || point >= XD_POINTS)
        return -EINVAL;
    __atomic_fetch_or(&d->vcpus[vcpu].hold_mask, 1u << point, __ATOMIC_ACQ_REL);
    return 0;
}

int xd_emb_unhold(xd_emb *d, uint32_t vcpu)
{
    if (vcpu >= d->nr_vcpus)
        return -EINVAL;
    pthread_mutex_lock(&d->gate);
    __atomic_store_n(&d->vcpus[vcpu].hold_mask, 0, __ATOMIC_RELEASE);
    d->vcpus[vcpu].held_at = -1;
    pthread_cond_broadcast(&d->gate_cond);
    pthread_mutex_unlock(&d->gate);
    return 0;
}

int xd_emb_step(xd_emb *d, uint32_t vcpu)
{
    if (vcpu >= d->nr_vcpus)
        return -EINVAL;
    pthread_mutex_lock(&d->gate);
    emb_vcpu *v = &d->vcpus[vcpu];
    __atomic_store_n(&v->hold_mask, (1u << XD_POINTS) - 1, __ATOMIC_RELEASE);
    if (v->held_at == XD_POINT_FETCH) /* on its way from here on, before its thread knows */
        set_phase(v, XD_PHASE_XEN);
    v->held_at = -1;
    pthread_cond_broadcast(&d->gate_cond);
    pthread_mutex_unlock(&d->gate);
    return 0;
}

static uint32_t phase_of(const emb_vcpu *v)
{
    if (v->held_at >= 0)
        return XD_PHASE_HELD;
    uint32_t phase = __atomic_load_n(&v->where, __ATOMIC_SEQ_CST) & EMB_PHASE_MASK;
    bool event = __atomic_load_n(&v->wake, __ATOMIC_SEQ_CST) != __atomic_load_n(&v->looked, __ATOMIC_SEQ_CST);
    event |= v->wake_fd >= 0 && emb_rings(v->wake_fd);
    return phase == XD_PHASE_BLOCKED && event ? (uint32_t)XD_PHASE_XEN : phase;
}

static int wait_phases(xd_emb *d, uint32_t vcpu, uint32_t phases, double seconds)
{
    if (vcpu >= d->nr_vcpus || seconds < 0 || seconds > 1e6)
        return -EINVAL;
    emb_vcpu *v = &d->vcpus[vcpu];
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    double whole = (double)(time_t)seconds;
    until.tv_sec += (time_t)seconds;
    until.tv_nsec += (long)((seconds - whole) * 1e9);
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    int rc = 0;
    __atomic_fetch_add(&d->watchers, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&d->gate);
    for (;;) {
        if (phases >> phase_of(v) & 1) {
            rc = (int)phase_of(v) | (v->held_at > 0 ? v->held_at << 8 : 0);
            break;
        }
        if (__atomic_load_n(&d->gone, __ATOMIC_SEQ_CST)) {
            rc = -ESRCH;
            break;
        }
        if (pthread_cond_timedwait(&d->gate_cond, &d->gate, &until) == ETIMEDOUT) {
            rc = -ETIMEDOUT;
            break;
        }
    }
    pthread_mutex_unlock(&d->gate);
    __atomic_fetch_sub(&d->watchers, 1, __ATOMIC_SEQ_CST);
    return rc;
}

int xd_emb_wait_phase(xd_emb *d, uint32_t vcpu, uint32_t phase, double seconds)
{
    int rc = phase > XD_PHASE_HELD ? -EINVAL : wait_phases(d, vcpu, 1u << phase, seconds);
    return rc < 0 ? rc : 0;
}

int xd_emb_wait_still(xd_emb *d, uint32_t vcpu, double seconds)
{
    uint32_t still = 1u << XD_PHASE_OUT | 1u << XD_PHASE_BLOCKED | 1u << XD_PHASE_RETRYING | 1u << XD_PHASE_HELD;
    return wait_phases(d, vcpu, still, seconds);
}
