#include "frames.h"
#include "guard.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Zero pages that cost nothing until touched. */
static void *reserve(uint64_t size)
{
    void *address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return address == MAP_FAILED ? NULL : address;
}

xd_frames *xd_frames_new(uint64_t limit)
{
    xd_frames *frames = calloc(1, sizeof(*frames));
    if (!frames)
        return NULL;
    frames->limit = limit;
    frames->chunks = (limit + XD_CHUNK_FRAMES - 1) >> XD_CHUNK_SHIFT;
    uint64_t chunks = frames->chunks ? frames->chunks : 1;
    frames->state = reserve(chunks << XD_CHUNK_SHIFT);
    frames->mapped = reserve(chunks * sizeof(*frames->mapped));
    frames->asked = reserve(chunks * sizeof(*frames->asked));
    frames->whole = reserve(chunks * sizeof(*frames->whole));
    frames->clock = 1;
    if (!frames->state || !frames->mapped || !frames->asked || !frames->whole) {
        xd_frames_free(frames);
        return NULL;
    }
    return frames;
}

void xd_frames_free(xd_frames *frames)
{
    if (!frames)
        return;
    uint64_t chunks = frames->chunks ? frames->chunks : 1;
    if (frames->state)
        munmap(frames->state, chunks << XD_CHUNK_SHIFT);
    if (frames->mapped)
        munmap(frames->mapped, chunks * sizeof(*frames->mapped));
    if (frames->asked)
        munmap(frames->asked, chunks * sizeof(*frames->asked));
    if (frames->whole)
        munmap(frames->whole, chunks * sizeof(*frames->whole));
    free(frames);
}

void xd_frames_learn(xd_frames *frames, uint64_t chunk, void *address, const int *errors)
{
    uint64_t first = chunk << XD_CHUNK_SHIFT;
    int whole = 1;
    for (uint64_t i = 0; i < XD_CHUNK_FRAMES; i++) {
        int ram = first + i < frames->limit && errors[i] == 0;
        frames->state[first + i] = ram ? XD_FRAME_RAM : XD_FRAME_HOLE;
        whole &= ram;
    }
    frames->mapped[chunk] = address;
    frames->asked[chunk] = frames->clock;
    frames->whole[chunk] = whole ? frames->clock : 0;
}

void xd_frames_forget(xd_frames *frames, uint64_t chunk)
{
    memset(frames->state + (chunk << XD_CHUNK_SHIFT), XD_FRAME_UNKNOWN, XD_CHUNK_FRAMES);
    frames->mapped[chunk] = NULL;
    frames->whole[chunk] = 0;
}

void xd_frames_doubt_all(xd_frames *frames)
{
    frames->ram_since = frames->hole_since = ++frames->clock;
}

void xd_frames_doubt_holes(xd_frames *frames)
{
    frames->hole_since = ++frames->clock;
}

int xd_frames_state(const xd_frames *frames, uint64_t gfn)
{
    if (gfn >= frames->limit)
        return XD_FRAME_HOLE;
    int state = frames->state[gfn];
    uint32_t asked = frames->asked[gfn >> XD_CHUNK_SHIFT];
    if (asked < frames->ram_since || (state == XD_FRAME_HOLE && asked < frames->hole_since))
        return XD_FRAME_UNKNOWN;
    return state;
}

static int locate(const xd_frames *frames, uint64_t gpa, uint64_t size, char **address)
{
    uint64_t gfn = gpa >> XD_FRAME_SHIFT;
    uint64_t offset = gpa & (XD_FRAME_SIZE - 1);
    if (offset + size > XD_FRAME_SIZE)
        return -EINVAL;
    int state = xd_frames_state(frames, gfn);
    if (state == XD_FRAME_HOLE)
        return -ENOENT;
    char *chunk = frames->mapped[gfn >> XD_CHUNK_SHIFT];
    if (!chunk || (state == XD_FRAME_UNKNOWN && frames->state[gfn] != XD_FRAME_RAM))
        return -EAGAIN;
    *address = chunk + ((gfn & (XD_CHUNK_FRAMES - 1)) << XD_FRAME_SHIFT) + offset;
    return 0;
}

int xd_frames_store(const xd_frames *frames, uint64_t gpa, uint64_t value, uint32_t size)
{
    char *address;
    int error = locate(frames, gpa, size, &address);
    return error ? error : xd_store(address, value, size);
}

int xd_frames_load(const xd_frames *frames, uint64_t gpa, uint32_t size, uint64_t *value)
{
    char *address;
    int error = locate(frames, gpa, size, &address);
    return error ? error : xd_load(address, size, value);
}

int xd_frames_read_page(const xd_frames *frames, uint64_t gfn, void *to)
{
    char *address;
    int error = locate(frames, gfn << XD_FRAME_SHIFT, XD_FRAME_SIZE, &address);
    return error ? error : xd_read(to, address, XD_FRAME_SIZE);
}
