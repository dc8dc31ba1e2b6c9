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
 */

/*
 * Make a domain ready for device models in other processes. Must be called before a vCPU runs and before a device model
 * opens the domain. Returns 0 or -errno.
 */
int xd_emb_share(xd_emb *domain);

/* Returns the descriptor of the file of frames. Owned by the domain. */
int xd_emb_ram_fd(const xd_emb *domain);

/* Returns the descriptor of the file that is a page of slots, or -EINVAL. Owned by the domain. */
int xd_emb_slots_fd(xd_emb *domain, const char *page);

/* The references of one device model. Not for two threads at once. */
typedef struct xd_emb_mappings xd_emb_mappings;

/* Returns a device model's references, none at first, or NULL. The domain must be shared, and outlive them. */
xd_emb_mappings *xd_emb_mappings_new(xd_emb *domain);

/* Give every reference back, as the kernel does when a process ends. */
void xd_emb_mappings_free(xd_emb_mappings *mappings);

/*
 * The hypercall of a device model that maps guest frames `first` to `first + count - 1` in its own process. words[i]
 * receives a positive errno, or `number of the frame in the file << 16`; each such frame then has one more reference.
 * Returns 0; or -errno, with no reference taken.
 */
int xd_emb_frames_get(xd_emb_mappings *mappings, uint64_t first, int count, uint64_t *words);

/*
 * Give references back. `words` are those of xd_emb_frames_get, and such as are an errno are ignored. Returns 0, or
 * -EINVAL for a frame that the device model has no reference to; the words before it are done by then.
 */
int xd_emb_frames_put(xd_emb_mappings *mappings, const uint64_t *words, int count);

/* Returns the number of frames that are no longer the guest's, and are kept because of their references. */
uint64_t xd_emb_frames_stale(xd_emb *domain);

/* What a device model in another process sees of its local port. Written by the hypervisor alone. */
typedef struct xd_emb_shared_port {
    uint32_t raised;    /* events so far */
    uint32_t connected; /* 1 while a notify reaches the domain */
} xd_emb_shared_port;

/*
 * Have a handle's events counted in a file, an array of xd_emb_shared_port by local port, instead of in the handle. Its
 * descriptor is then written at each event, and xd_emb_events_pending, _unmask and _drain must not be called. Must be
 * called before a port is bound. Returns the file's descriptor, owned by the handle, or -errno.
 */
int xd_emb_events_share(xd_emb_events *events);

/* Returns the eventfd that wakes the vCPU of a local port, or -ENOTCONN. Owned by the domain. */
int xd_emb_events_wake_fd(xd_emb_events *events, int port);

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

/* Returns new, zero, shared memory whose size nobody can reduce, and its descriptor; or NULL. */
void *emb_new_shared(const char *name, size_t bytes, int *fd);

/* Take frames from the guest, whose types are changed already. Returns 0 or -errno. The caller holds p2m. */
int emb_share_remove(xd_emb *d, uint64_t gfn, uint64_t count);

/* Free what xd_emb_share made. */
void emb_unshare(xd_emb *d);

/* Write an eventfd; one that is full is readable, too. */
void emb_ring(int fd);

/* Returns whether an eventfd was rung and not taken. */
bool emb_rings(int fd);
#endif

#endif
