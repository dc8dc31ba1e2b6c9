#ifndef XD_SUBMIT_H
#define XD_SUBMIT_H
#include <stdint.h>
#include "shadow.h"
#include "sync.h"

/*
 * Submissions that C makes by itself, in a burst: those that read some unsynced leaf tables, and change no directory and
 * no type of a frame. All others are left to Python (ppgtt/syncing.py), untouched but for marks of that submission, and
 * if the shadow lacks frames that the guest's entries name by now, for what was read.
 *
 * submit: of the guest. The thread that serves the guest calls every function here.
 */
/*
 * So many live spaces are submitted in C; more are left to Python. Each of them follows the unsynced tables up, all of
 * them together XD_SUBMIT_WAYS. So a submission takes a part of a millisecond.
 */
enum { XD_SUBMIT_SPACES = 64, XD_SUBMIT_WAYS = 4096, XD_SUBMIT_CANDIDATES = 64, XD_SUBMIT_RECENT = 32 };
enum { XD_SUBMIT_LEFT = 0, XD_SUBMIT_DONE = 1 };
/* In xd_live_spaces.recent: all spaces, in the order that they had. */
enum { XD_SUBMIT_ALL = 0xffff };

/* A live space: `count` root addresses, 0 for none, and the numbers of their tables. */
typedef struct xd_live_space {
    const uint64_t *gpas;
    const uint32_t *roots;
    uint32_t count;
    uint32_t padding;
} xd_live_space;

/*
 * The live spaces, in no order. count: how many; if these are more than XD_SUBMIT_SPACES, not all of them are here.
 * recent: rows that C has submitted, the oldest first, or XD_SUBMIT_ALL; for Python, which keeps the order of their last
 * submissions (ppgtt/space.py).
 */
typedef struct xd_live_spaces {
    uint32_t count;
    uint32_t recent_count;
    uint16_t recent[XD_SUBMIT_RECENT];
    xd_live_space rows[XD_SUBMIT_SPACES];
} xd_live_spaces;

/*
 * work: memory of a sync, which is in use while `syncing` is 1. blocked: 1 if a submission has more to do than C knows:
 * somebody watches, there was a trap gap, or frames wait to be unprotected.
 */
typedef struct xd_submit {
    xd_shadow *shadow;
    xd_live_spaces *spaces;
    xd_sync_work *work;
    uint32_t syncing;
    uint32_t blocked;
} xd_submit;

/* Submits every live space. Returns XD_SUBMIT_DONE, or XD_SUBMIT_LEFT to Python. Called by quick.c. */
int xd_submit_all(xd_submit *submit);

/*
 * Submits the live space that has `count` roots, the first of which is at address `gpa`. Returns as xd_submit_all; LEFT
 * also if there is none. Called by tests.
 */
int xd_submit_one(xd_submit *submit, uint64_t gpa, uint32_t count);

#endif
