#ifndef XD_OWNER_H
#define XD_OWNER_H
#include <stdint.h>

/*
 * Which thread serves a guest, and what belongs to it meanwhile.
 *
 * Facts: shadow, frames, slots and journal belong to the thread that serves the guest, and nothing in them is locked.
 * Python calls every function without the GIL, so a second thread can be in one of them at the same time; and a burst
 * (burst.h) is in C for as long as nobody needs Python.
 * What follows: a call by the wrong thread corrupts the shadow, and nobody notices.
 * Decision: who serves owns the memory of these parts, by address. The functions by which Python reaches them (all of
 * the headers that cffi_build/owned.py lists) look up their first argument here, and raise RuntimeError if it belongs
 * to another thread or if a burst is under way. C calls C without this look.
 * Cost: a load and a comparison or two in each call.
 *
 * There are XD_OWNERS owners in a process, one for each guest that is served; more are not checked.
 */
enum { XD_OWNERS = 16, XD_OWNED_PARTS = 6 };

typedef struct xd_part {
    uint64_t address;
    uint64_t size;
} xd_part;

/*
 * The calling thread owns these `count` parts (XD_OWNED_PARTS at most) from now on. Returns the number of the owner, or
 * -1 if there are too many. Called by burst.c, in the thread that serves the guest.
 */
int xd_owner_begin(const xd_part *parts, uint32_t count);
/* Ends what xd_owner_begin returned `owner` for; -1 is nothing. Called by burst.c, in the same thread. */
void xd_owner_end(int owner);
/* Notes whether a burst is under way (`busy` is 1 or 0). Called by burst.c, in the thread that owns `owner`. */
void xd_owner_busy(int owner, uint32_t busy);
/* Returns the owner that the calling thread has of the memory at `thing`, or -1. Called by burst.c. */
int xd_owner_of(const void *thing);

/*
 * Returns whether the calling thread may touch the memory at `thing`: it is nobody's; or it is the thread's own, and no
 * burst is under way. Notes a refusal for xd_owner_refused. Called by the wrappers that cffi makes, in any thread.
 */
int xd_owner_admits(const void *thing);
/*
 * Returns 1 if xd_owner_admits has refused the calling thread something since the last call, else 0. Called by the
 * wrappers that cffi makes, in any thread.
 */
int xd_owner_refused(void);

#endif
