#ifndef XD_FRAMES_H
#define XD_FRAMES_H
#include <stdint.h>

/*
 * Which frames of the guest are RAM, and where they are mapped in this process.
 *
 * The unit is the chunk: 512 frames, 2 MiB. The hypervisor is asked about a whole chunk (a query), and a chunk is
 * mapped as a whole. One 2 MiB GPU page is one chunk, too, so a fact about such a page is a fact about a chunk.
 *
 * Answers grow old. `clock` counts invalidations, and each chunk has the clock value of its last query. After
 * xd_frames_invalidate every frame is UNKNOWN until its chunk is queried again. After xd_frames_invalidate_holes only
 * the holes are, because nothing tells a device model when a hole becomes RAM. The mapping of a chunk outlives both: it
 * is still good for the frames that the guest still has.
 *
 * Thread: every function belongs to the thread that serves the guest. gfn: a guest frame number; gpa: a guest physical
 * address in bytes; chunk: gfn >> XD_CHUNK_SHIFT, below frames->chunks.
 */
enum { XD_CHUNK_FRAMES = 512, XD_CHUNK_SHIFT = 9, XD_FRAME_SIZE = 4096, XD_FRAME_SHIFT = 12, XD_ENTRIES = 512 };
enum { XD_FRAME_UNKNOWN = 0, XD_FRAME_RAM = 1, XD_FRAME_HOLE = 2 };
/* How much of a chunk is RAM. */
enum { XD_CHUNK_UNKNOWN = 0, XD_CHUNK_ALL_RAM = 1, XD_CHUNK_SOME_RAM = 2, XD_CHUNK_NO_RAM = 3 };

/* Chunks `first`..`end`-1; none if both are equal. */
typedef struct xd_chunk_range {
    uint64_t first, end;
} xd_chunk_range;

/*
 * A guest's RAM lies below 4 GiB, up to a hole for devices, and above 4 GiB. So two ranges of chunks that are RAM
 * throughout hold about all frames that leaf entries name, and leaf.c compares addresses with the ends of these ranges
 * only. A chunk in neither range may be RAM as well.
 */
enum { XD_RAM_RANGES = 2 };

typedef struct xd_frames {
    uint64_t limit;       /* frames; a frame at or above it is a hole */
    uint64_t chunks;      /* chunks that `limit` frames take */
    uint8_t *state;       /* by frame: XD_FRAME_RAM or XD_FRAME_HOLE; not kept for chunks whose all_ram is not 0 */
    char **mapped;        /* by chunk: the address of its mapping, or NULL */
    uint64_t *queried_at; /* by chunk: the clock of its last query, or 0 */
    uint64_t *all_ram;    /* by chunk: the clock of its last query if that found nothing but RAM, else 0 */
    uint16_t *ram_frames; /* by chunk: how many of its frames the last query found to be RAM */
    xd_chunk_range ram[XD_RAM_RANGES]; /* of chunks with all_ram >= ram_valid_since */
    uint64_t clock;             /* 64 bits do not wrap: a guest makes some ten thousand invalidations a second */
    uint64_t ram_valid_since;   /* RAM found by an earlier query is UNKNOWN; never 0 */
    uint64_t holes_valid_since; /* a hole found by an earlier query is UNKNOWN */
} xd_frames;

/*
 * Returns the record of a guest with `limit` frames, all UNKNOWN, or NULL without memory. Its memory grows with
 * queries. Called by ppgtt/guest_frames.py.
 */
xd_frames *xd_frames_new(uint64_t limit);
/* Frees the record; NULL is none. It unmaps no guest memory. Called by ppgtt/guest_frames.py. */
void xd_frames_free(xd_frames *frames);

/*
 * Records the answer to a query.
 *
 * address: where the chunk is mapped now. errors: XD_CHUNK_FRAMES numbers, 0 for each frame that is RAM; those of
 * frames at or above the limit are not read. Called by ppgtt/guest_frames.py.
 */
void xd_frames_record(xd_frames *frames, uint64_t chunk, void *address, const int *errors);
/* Forgets a chunk: it is mapped no more, and its frames are UNKNOWN. Called by ppgtt/guest_frames.py. */
void xd_frames_forget(xd_frames *frames, uint64_t chunk);
/*
 * Notes that a chunk is not mapped any more. What was found out about its frames stays; an access to one of them
 * returns -EAGAIN until the chunk is queried again. Called by ppgtt/guest_frames.py.
 */
void xd_frames_unmapped(xd_frames *frames, uint64_t chunk);
/* Makes every frame UNKNOWN; mappings stay. Called by ppgtt/guest_frames.py, when the guest gave frames back. */
void xd_frames_invalidate(xd_frames *frames);
/* Makes every hole UNKNOWN; mappings stay. Called by ppgtt/guest_frames.py, submit.c and sync.c, when a sync begins. */
void xd_frames_invalidate_holes(xd_frames *frames);

/*
 * Returns XD_FRAME_RAM, XD_FRAME_HOLE or XD_FRAME_UNKNOWN, in constant time. Called by ppgtt/guest_frames.py,
 * gpu_memory.c and C files of this folder.
 */
int xd_frames_state(const xd_frames *frames, uint64_t gfn);
/*
 * Returns the same for a whole chunk, an XD_CHUNK_*, in constant time. A chunk beyond the limit has no RAM. Called by
 * directory.c.
 */
int xd_chunk_state(const xd_frames *frames, uint64_t chunk);

/*
 * Guarded access to guest memory within one frame (guard.h). These four return 0, or
 *   -EINVAL  the access leaves the frame;
 *   -ENOENT  the frame is a hole;
 *   -EAGAIN  the frame's chunk must be queried first. A frame that was RAM at the last query is accepted even if an
 *            invalidation has made it UNKNOWN, because its mapping is still good if the guest still has it;
 *   -EFAULT  the page was not there any more.
 */

/* Stores the low `size` bytes of `value`: 1, 2, 4 or 8. Returns as above. Called by guest_store.c. */
int xd_frames_store(const xd_frames *frames, uint64_t gpa, uint64_t value, uint32_t size);
/*
 * Loads 1, 2, 4 or 8 bytes (`size`) into *value, zero-extended. Returns as above. Called by ppgtt/guest_frames.py and
 * leaf.c.
 */
int xd_frames_load(const xd_frames *frames, uint64_t gpa, uint32_t size, uint64_t *value);
/*
 * Copies a whole frame to `to`, which has room for XD_FRAME_SIZE bytes. Returns as above. Called by ppgtt/leaves.py and
 * C files of this folder.
 */
int xd_frames_read_page(const xd_frames *frames, uint64_t gfn, void *to);
/*
 * Calls `work` on the frame where it is mapped, with `more`. Returns as above; after -EFAULT, `work` ended in the
 * middle. Called by leaf.c.
 */
int xd_frames_on_page(const xd_frames *frames, uint64_t gfn, void (*work)(const void *page, void *more), void *more);

#endif
