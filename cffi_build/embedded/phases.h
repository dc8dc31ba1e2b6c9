#ifndef XD_EMB_PHASES_H
#define XD_EMB_PHASES_H
#include "domain.h"

#include <stdint.h>

/* Where vCPUs are, how they are paused, and how a test holds one at a named point. */

/*
 * Pause the domain. Returns when no vCPU runs; one that waits for an answer does not run. Pauses nest. The caller must
 * hold none of the domain's locks, because a vCPU that is inside Xen may want any of them.
 */
void xd_emb_pause(xd_emb *domain);
void xd_emb_unpause(xd_emb *domain);

/*
 * The guest shuts down in order: vCPUs stand still, but one that waits for an answer defers the shutdown until it came.
 */
void xd_emb_shutdown(xd_emb *domain);

/* Returns 1 after xd_emb_shutdown, once no vCPU runs or waits; else 0. */
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

/* Hold a vCPU when it next comes to a point. Returns 0, or -EINVAL without such a vCPU or point. */
int xd_emb_hold(xd_emb *domain, uint32_t vcpu, int point);

/* Let a vCPU go on, and forget every hold of it that is still to come. Returns 0 or -EINVAL. */
int xd_emb_unhold(xd_emb *domain, uint32_t vcpu);

/* Let a vCPU go on, and hold it again at the next point that it comes to, whichever that is. Returns 0 or -EINVAL. */
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
 * Wait until the vCPU is in a phase: OUT, BLOCKED, RETRYING or HELD. Returns 0, -ETIMEDOUT after `seconds`, -ESRCH if
 * the domain is destroyed, or -EINVAL.
 */
int xd_emb_wait_phase(xd_emb *domain, uint32_t vcpu, uint32_t phase, double seconds);

/* Wait until the vCPU is in any of these four. Returns the phase, for HELD with `point << 8` added; or as above. */
int xd_emb_wait_still(xd_emb *domain, uint32_t vcpu, double seconds);

#ifndef XD_CFFI
typedef struct emb_vcpu emb_vcpu;

/*
 * Enter GUEST or XEN; blocks while the domain is paused. Each entry to GUEST is a new translation. Returns 0, or
 * -errno (emb_why_stopped) if the domain stopped; the vCPU is then OUT. The vCPU's own thread calls this.
 */
int emb_enter(emb_vcpu *v, uint32_t phase);

/* Change to XEN from GUEST, or to a phase in which the vCPU stands still. The vCPU's own thread calls this. */
void emb_leave(emb_vcpu *v, uint32_t phase);

/* A named point: blocks while a test holds the vCPU here. The vCPU's own thread calls this. */
void emb_point(emb_vcpu *v, int point);

/* Wake all threads that wait for a phase or a pause, after a phase changed. Any thread; takes the gate. */
void emb_tell_watchers(xd_emb *d);

/* Stop all vCPUs for good, wherever they are. Any thread; takes the gate. */
void emb_stop_vcpus(xd_emb *d);
#endif

#endif
