#ifndef XD_FRAMES_H
#define XD_FRAMES_H
#include <stdint.h>

/*
 * What is known of the guest's frames, and where they are mapped. Frames are known and mapped by the chunk of 512,
 * which is 2 MiB, which is one huge GPU page: a fact about a huge page is a fact about one chunk.
 *
 * Knowledge ages. A clock counts occasions; a chunk remembers when it was asked about. When the guest gave frames back
 * (doubt_all), all that was learnt before is UNKNOWN again; at each submission (doubt_holes) only the holes are, because
 * nothing tells a device model when a hole becomes RAM. A chunk may so be mapped and its frames UNKNOWN: its mapping is
 * still good for the frames that are still the guest's, but nobody has asked lately which ones these are.
 */
enum { XD_CHUNK_FRAMES = 512, XD_CHUNK_SHIFT = 9, XD_FRAME_SIZE = 4096, XD_FRAME_SHIFT = 12, XD_ENTRIES = 512 };
enum { XD_FRAME_UNKNOWN = 0, XD_FRAME_RAM = 1, XD_FRAME_HOLE = 2 };

/* Chunks `first`..`end`-1. */
typedef struct xd_run_of_chunks {
    uint64_t first, end;
} xd_run_of_chunks;

/*
 * A guest's RAM lies below 4 GiB, up to a hole for devices, and above. So two runs of chunks that are RAM throughout hold
 * about all frames that a leaf names, and a kernel asks no more of most of them. What lies in neither may be RAM as well.
 */
enum { XD_RAM_RUNS = 2 };

typedef struct xd_frames {
    uint64_t limit;  /* frames at and above it are holes */
    uint64_t chunks; /* chunks that cover `limit` */
    uint8_t *state;  /* one a frame, of chunks that are not whole */
    char **mapped;   /* one a chunk: its address, or NULL */
    uint32_t *asked; /* one a chunk: the clock when it was learnt */
    uint32_t *whole; /* one a chunk: the same clock if all its frames were RAM then, else 0 */
    xd_run_of_chunks ram[XD_RAM_RUNS]; /* chunks whose whole is not before ram_since */
    uint32_t clock;
    uint32_t ram_since;  /* RAM learnt before this is doubtful; never 0 */
    uint32_t hole_since; /* so are holes */
    uint32_t padding;
} xd_frames;

/* NULL if there is no memory. Room is taken as chunks become known, not for the limit. */
xd_frames *xd_frames_new(uint64_t limit);
void xd_frames_free(xd_frames *frames);

/* The chunk is mapped at `address`; `errors` has 0 for each frame that is RAM. */
void xd_frames_learn(xd_frames *frames, uint64_t chunk, void *address, const int *errors);
/* The chunk is mapped no more and nothing is known of it. */
void xd_frames_forget(xd_frames *frames, uint64_t chunk);
/* Mappings stay; what is RAM must be asked again, or only what is not. */
void xd_frames_doubt_all(xd_frames *frames);
void xd_frames_doubt_holes(xd_frames *frames);

int xd_frames_state(const xd_frames *frames, uint64_t gfn);

/*
 * Guarded access by guest physical address, within one frame. 0; -EAGAIN if the frame must be learnt first (RAM that is
 * merely doubtful is not: a page that traps is still the guest's); -ENOENT if it is a hole; -EFAULT if the page vanished; -EINVAL if it leaves the frame.
 */
int xd_frames_store(const xd_frames *frames, uint64_t gpa, uint64_t value, uint32_t size);
int xd_frames_load(const xd_frames *frames, uint64_t gpa, uint32_t size, uint64_t *value);
int xd_frames_read_page(const xd_frames *frames, uint64_t gfn, void *to);
/* As xd_guarded, on a frame where it lies. */
int xd_frames_on_page(const xd_frames *frames, uint64_t gfn, void (*work)(const void *page, void *more), void *more);

#endif
