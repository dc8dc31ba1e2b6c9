#ifndef XD_KERNELS_H
#define XD_KERNELS_H
#include <stdint.h>
#include "shadow.h"

/*
 * All work per entry. Each function brings shadow entries `first`..`last` of a table in line with the guest's page, and
 * is to be called after the page was protected, so that what it reads stays true.
 *
 * Whether a frame is RAM may not be known yet. Then a function leaves the entries concerned mapping nothing, lists the
 * chunks in `need`, and returns -EAGAIN: learn these chunks and call again.
 */
typedef struct xd_need {
    uint32_t count;
    uint32_t lacking; /* something was unknown, even if its chunk is listed already or did not fit */
    uint64_t chunks[512];
} xd_need;

/* A guest table that a directory names and that has no shadow yet. */
typedef struct xd_wanted {
    uint64_t gfn;
    uint32_t kind;
    uint32_t number; /* of its shadow, once it has one */
    uint32_t fresh;  /* 1: the first shadow of its frame, so the frame is to be protected */
    uint32_t padding;
} xd_wanted;

/* A leaf table, from guest memory. 0; -EAGAIN; -ENOENT, -EFAULT: its page is gone, it maps nothing. */
int xd_leaf_update(xd_shadow *shadow, uint32_t number, uint32_t first, uint32_t last, xd_need *need);
/*
 * Whole leaf tables. Those that need more knowledge are moved to the front of `numbers`, and their count is returned;
 * stops early when `need` is full.
 */
uint32_t xd_leaf_update_many(xd_shadow *shadow, uint32_t *numbers, uint32_t count, xd_need *need);
/* The two above use the widest vectors that the processor has. For tests: of 128, 256 or 512 bits; -ENOTSUP. */
int xd_leaf_vectors(uint32_t bits);

/* A directory's guest page, once; the functions below work on this copy. 0, -EAGAIN, -ENOENT, -EFAULT. */
int xd_directory_read(const xd_shadow *shadow, uint32_t number, uint64_t *entries);
/*
 * The tables that entries first..last name and that have no shadow, each once, and how many shadows the splitting of
 * 2 MiB pages may take besides. `wanted` has room for XD_ENTRIES. The count, or -EAGAIN.
 */
int xd_directory_wanted(xd_shadow *shadow, uint32_t number, const uint64_t *entries, uint32_t first, uint32_t last,
                        xd_wanted *wanted, uint32_t *splits, xd_need *need);
/*
 * Give each of the wanted a shadow, as far as the quota goes; the rest get number 0. The caller holds a reference to
 * each until xd_let_go. The numbers are written to `numbers` too, the frames to be protected to `gfns`; returns how many
 * these are.
 */
uint32_t xd_adopt(xd_shadow *shadow, xd_wanted *wanted, uint32_t count, uint32_t *numbers, uint64_t *gfns);
void xd_let_go(xd_shadow *shadow, const xd_wanted *wanted, uint32_t count);
/* Set the shadow entries; what loses its last reference joins the dying. How many entries had to be left waiting. */
int xd_directory_link(xd_shadow *shadow, uint32_t number, const uint64_t *entries, uint32_t first, uint32_t last,
                      xd_need *need);
/* A directory whose page is gone maps nothing. */
void xd_directory_clear(xd_shadow *shadow, uint32_t number);

enum { XD_STORE_UNTRACKED = 0, XD_STORE_DONE = 1, XD_STORE_DIRECTORY = 2 };
/*
 * One store by the guest, within one frame: to guest memory first, then to the shadows of that frame, if none of them
 * is a directory. UNTRACKED: the frame has no shadow, only memory was stored to. DIRECTORY: the shadows are the caller's
 * to update. -EAGAIN as above; then the store may be repeated. -ENOENT, -EFAULT, -EINVAL as in frames.h.
 */
int xd_guest_store(xd_shadow *shadow, uint64_t gpa, uint64_t value, uint32_t size, xd_need *need);

/*
 * The tables below `roots` that a submission must look at: open, waiting, or of an earlier era, and not yet attended in
 * this submission; parents before children. Marks them attended. Each array has room for `capacity`; what does not fit
 * is found by the next call.
 */
typedef struct xd_reached {
    uint32_t *directories;
    uint32_t *leaves;
    uint32_t directory_count;
    uint32_t leaf_count;
    uint32_t capacity;
    uint32_t padding;
    uint64_t started; /* xd_now() of xd_submit_leaves */
} xd_reached;
void xd_reach(xd_shadow *shadow, const uint32_t *roots, uint32_t count, xd_reached *reached);

/*
 * Close the frames of those leaves that are open: their marks go, the frames are written to `gfns`, and to `others` the
 * leaves of the same frames that are not among `leaves`. Returns how many frames; both arrays have room for `count`.
 */
uint32_t xd_close_frames(xd_shadow *shadow, const uint32_t *leaves, uint32_t count, uint64_t *gfns, uint32_t *others,
                         uint32_t *other_count);
/* What came of protecting them again, an errno or 0 for each; those that failed are open as before. Counts them. */
void xd_frames_closed(xd_shadow *shadow, const uint64_t *gfns, const int *errors, uint32_t count);

/*
 * Most submissions find that nothing happened but stores to leaf tables. This begins one, and returns how many leaves
 * are to be brought in line, which are then in `reached`; or -1 if there may be more to do than that, and the submission
 * has not begun. `roots` are addresses, 0 for none; `numbers` their shadows.
 */
int xd_submit_leaves(xd_shadow *shadow, const uint64_t *roots, const uint32_t *numbers, uint32_t count,
                     xd_reached *reached);
/* The end of one, and 0; -1, and the submission has not been, if there is more to do by now. */
int xd_leaves_submitted(xd_shadow *shadow, const xd_reached *reached);

#endif
