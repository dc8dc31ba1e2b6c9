#ifndef XD_EMB_SIM_SHARE_H
#define XD_EMB_SIM_SHARE_H
#include "domain.h"
#include "events.h"

#include <stddef.h>
#include <stdint.h>

/*
 * A domain that device models in other processes serve. What they need of it is in files and eventfds, whose
 * descriptors are passed to them; docs/sim.md has the whole. Device models hold no lock of the domain.
 *
 * Guest memory is a file of frames. A frame of the guest (gfn) is a frame of the file, at first the one with the same
 * number. Each mapping of a device model is a reference to a frame of the file. A frame that the guest gives back stays
 * as it is for as long as it has references, as a frame of Xen does, and the guest gets another one in its place.
 *
 * domain, d: see domain.h. Any thread may call these, unless they say otherwise.
 */

/*
 * Makes a domain ready for device models in other processes. Must be called before a vCPU runs and before a device
 * model opens the domain. Returns 0 or -errno. Called by sim/process.py.
 */
int xd_emb_share(xd_emb *domain);

/* Returns the descriptor of the file of frames. Owned by the domain. Called by sim/session.py. */
int xd_emb_ram_fd(const xd_emb *domain);

/*
 * Returns the descriptor of the file that is a page of slots, or -EINVAL if `page` is none. Owned by the domain. Called
 * by sim/session.py.
 */
int xd_emb_slots_fd(xd_emb *domain, const char *page);

/* The references of one device model. Not for two threads at once. */
typedef struct xd_emb_mappings xd_emb_mappings;

/*
 * Returns a device model's references, none at first, or NULL. The domain must be shared, and outlive them. Called by
 * sim/session.py.
 */
xd_emb_mappings *xd_emb_mappings_new(xd_emb *domain);

/* Gives every reference in `mappings` back, as the kernel does when a process ends. Called by sim/session.py. */
void xd_emb_mappings_free(xd_emb_mappings *mappings);

/*
 * The hypercall of a device model that maps guest frames `first` to `first + count - 1` in its own process. words[i]
 * receives a positive errno, or `number of the frame in the file << 16`; each such frame then has one more reference in
 * `mappings`. Returns 0; or -errno, with no reference taken. Called by sim/session.py.
 */
int xd_emb_frames_get(xd_emb_mappings *mappings, uint64_t first, int count, uint64_t *words);

/*
 * Gives `count` references in `mappings` back. `words` are those of xd_emb_frames_get, and such as are an errno are
 * ignored. Returns 0, or -EINVAL for a frame that the device model has no reference to; the words before it are done by
 * then. Called by sim/session.py.
 */
int xd_emb_frames_put(xd_emb_mappings *mappings, const uint64_t *words, int count);

/*
 * Returns the number of frames that are no longer the guest's, and are kept because of their references. Called by
 * sim/console.py.
 */
uint64_t xd_emb_frames_stale(xd_emb *domain);

#ifndef XD_CFFI
#include "state.h"

/* The frames of a shared domain. All under p2m. */
struct emb_share {
    struct emb_frame {
        uint32_t refs;
        bool guests; /* some gfn is this frame */
    } *frames;
    uint64_t nr_frames; /* of the file, and of `frames` and `spare` */
    uint64_t *numbers;  /* by gfn: the frame in the file */
    uint64_t *spare;    /* frames that are nobody's, zero */
    uint64_t nr_spare, nr_stale;
};

/*
 * Returns new, zero, shared memory of `bytes` bytes, whose size nobody can reduce, and its descriptor in *fd; or NULL.
 * `name` is for /proc. Called by events.c and servers.c.
 */
void *emb_new_shared(const char *name, size_t bytes, int *fd);

/*
 * Takes `count` frames from `gfn` from the guest, whose types are changed already. Returns 0 or -errno. The caller
 * holds p2m. Called by p2m.c.
 */
int emb_share_remove(xd_emb *d, uint64_t gfn, uint64_t count);

/* Frees what xd_emb_share made. Called by domain.c. */
void emb_unshare(xd_emb *d);

/* Writes the eventfd `fd`; one that is full is readable, too. Called by events.c and wait.c. */
void emb_ring(int fd);

/* Returns whether the eventfd `fd` was rung and not taken. Called by phases.c and wait.c. */
bool emb_rings(int fd);
#endif

#endif
