#ifndef XD_EMB_PHASES_H
#define XD_EMB_PHASES_H
#include "domain.h"

#include <stdint.h>

/*
 * Where vCPUs are, how they are paused, and how a test holds one at a named point.
 *
 * vcpu: a vCPU's number. v: a vCPU. domain, d: see domain.h. Any thread may call the xd_emb_* functions.
 */

/*
 * Pauses the domain. Returns when no vCPU runs; one that waits for an answer does not run. Pauses nest. The caller must
 * hold none of the domain's locks, because a vCPU that is inside Xen may want any of them. Called by
 * hypervisor/embedded/domain.py and servers.c.
 */
void xd_emb_pause(xd_emb *domain);
/* Undoes one xd_emb_pause. Called by hypervisor/embedded/domain.py and servers.c. */
void xd_emb_unpause(xd_emb *domain);

/*
 * The guest shuts down in order: vCPUs stand still, but one that waits for an answer defers the shutdown until it came.
 * Called by hypervisor/embedded/domain.py.
 */
void xd_emb_shutdown(xd_emb *domain);

/* Returns 1 after xd_emb_shutdown, once no vCPU runs or waits; else 0. Called by hypervisor/embedded/domain.py. */
int xd_emb_is_shut_down(xd_emb *domain);

/* Named points at which a vCPU can be held. */
enum {
    XD_POINT_FETCH = 0,         /* before an instruction looks at memory */
    XD_POINT_BETWEEN_LOOKS = 1, /* before the emulator looks without the lock that the first look was made under */
    XD_POINT_COPY = 2,          /* the emulator has looked, and is about to write RAM itself */
    XD_POINT_POSTED = 3,        /* the request is READY, the event not yet raised */
    XD_POINT_ANSWERED = 4,      /* RESP_READY was seen, the slot is not yet NONE */
    XD_POINTS = 5
};

/*
 * Holds a vCPU when it next comes to a point, XD_POINT_*. Returns 0, or -EINVAL without such a vCPU or point. Called by
 * sim/console.py and tests.
 */
int xd_emb_hold(xd_emb *domain, uint32_t vcpu, int point);

/*
 * Lets a vCPU go on, and forgets every hold of it that is still to come. Returns 0 or -EINVAL. Called by sim/console.py
 * and tests.
 */
int xd_emb_unhold(xd_emb *domain, uint32_t vcpu);

/*
 * Lets a vCPU go on, and holds it again at the next point that it comes to, whichever that is. Returns 0 or -EINVAL.
 * Called by tests.
 */
int xd_emb_step(xd_emb *domain, uint32_t vcpu);

/* Where a vCPU is. */
enum {
    XD_PHASE_OUT = 0,      /* between instructions, or paused */
    XD_PHASE_GUEST = 1,    /* about to access memory by a translation that it has looked up */
    XD_PHASE_XEN = 2,      /* emulating */
    XD_PHASE_BLOCKED = 3,  /* it has looked at its slots since the last event, and waits for the next */
    XD_PHASE_RETRYING = 4, /* its instruction starts again as soon as types or the claim change */
    XD_PHASE_HELD = 5      /* at a named point */
};

/*
 * Waits until the vCPU is in a phase: OUT, BLOCKED, RETRYING or HELD. Returns 0, -ETIMEDOUT after `seconds`, -ESRCH if
 * the domain is destroyed, or -EINVAL. Called by sim/console.py and tests.
 */
int xd_emb_wait_phase(xd_emb *domain, uint32_t vcpu, uint32_t phase, double seconds);

/*
 * Waits until the vCPU is in any of these four. Returns the phase, for HELD with `point << 8` added; -ETIMEDOUT after
 * `seconds`; or as xd_emb_wait_phase. Called by tests.
 */
int xd_emb_wait_still(xd_emb *domain, uint32_t vcpu, double seconds);

#ifndef XD_CFFI
typedef struct emb_vcpu emb_vcpu;

/*
 * Enters a `phase`, GUEST or XEN; blocks while the domain is paused. Each entry to GUEST is a new translation. Returns
 * 0, or -errno (emb_why_stopped) if the domain stopped; the vCPU is then OUT. Called by C files of this folder, in the
 * vCPU's own thread.
 */
int emb_enter(emb_vcpu *v, uint32_t phase);

/*
 * Changes to XEN from GUEST, or to a `phase` in which the vCPU stands still. Called by C files of this folder, in the
 * vCPU's own thread.
 */
void emb_leave(emb_vcpu *v, uint32_t phase);

/*
 * A named point: blocks while a test holds the vCPU here. Called by C files of this folder, in the vCPU's own thread.
 */
void emb_point(emb_vcpu *v, int point);

/*
 * Wakes all threads that wait for a phase or a pause, after a phase changed. Takes the gate. Called by wait.c, in any
 * thread.
 */
void emb_tell_watchers(xd_emb *d);

/* Stops all vCPUs for good, wherever they are. Takes the gate. Called by domain.c, in any thread. */
void emb_stop_vcpus(xd_emb *d);
#endif

#endif
