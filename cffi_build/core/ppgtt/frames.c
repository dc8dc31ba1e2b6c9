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
    frames->clock = frames->ram_since = 1;
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

static int is_whole(const xd_frames *frames, uint64_t chunk)
{
    return frames->whole[chunk] >= frames->ram_since;
}

static uint64_t length(const xd_run_of_chunks *run)
{
    return run->end - run->first;
}

/* As far as it goes both ways, but at most `most` chunks each way. */
static void extend(const xd_frames *frames, xd_run_of_chunks *run, uint64_t most)
{
    for (uint64_t i = 0; i < most && run->end < frames->chunks && is_whole(frames, run->end); i++)
        run->end++;
    for (uint64_t i = 0; i < most && run->first && is_whole(frames, run->first - 1); i++)
        run->first--;
}

/* What replaces the shorter of the two runs is looked for only so far, because it is looked for often. */
enum { SHORT_RUN = 64 };

/* A run that this chunk continues grows, and takes the other in if it comes so far. */
static void add_to_runs(xd_frames *frames, uint64_t chunk)
{
    xd_run_of_chunks *shorter = &frames->ram[0];
    for (int i = 0; i < XD_RAM_RUNS; i++) {
        xd_run_of_chunks *run = &frames->ram[i], *other = &frames->ram[XD_RAM_RUNS - 1 - i];
        if (length(run) && chunk + 1 >= run->first && chunk <= run->end) {
            extend(frames, run, frames->chunks);
            if (run->first <= other->first && other->end <= run->end)
                other->first = other->end = 0;
            return;
        }
        if (length(run) < length(shorter))
            shorter = run;
    }
    xd_run_of_chunks run = {chunk, chunk + 1};
    extend(frames, &run, SHORT_RUN);
    if (length(&run) > length(shorter)) {
        *shorter = run;
        extend(frames, shorter, frames->chunks);
    }
}

static void take_from_runs(xd_frames *frames, uint64_t chunk)
{
    for (int i = 0; i < XD_RAM_RUNS; i++) {
        xd_run_of_chunks *run = &frames->ram[i];
        if (chunk < run->first || chunk >= run->end)
            continue;
        if (chunk - run->first < run->end - chunk)
            run->first = chunk + 1;
        else
            run->end = chunk;
    }
}

void xd_frames_learn(xd_frames *frames, uint64_t chunk, void *address, const int *errors)
{
    uint64_t first = chunk << XD_CHUNK_SHIFT;
    int whole = first + XD_CHUNK_FRAMES <= frames->limit;
    for (uint64_t i = 0; i < XD_CHUNK_FRAMES && whole; i++)
        whole = errors[i] == 0;
    for (uint64_t i = 0; i < XD_CHUNK_FRAMES && !whole; i++)
        frames->state[first + i] = first + i < frames->limit && errors[i] == 0 ? XD_FRAME_RAM : XD_FRAME_HOLE;
    frames->mapped[chunk] = address;
    frames->asked[chunk] = frames->clock;
    frames->whole[chunk] = whole ? frames->clock : 0;
    if (whole)
        add_to_runs(frames, chunk);
    else
        take_from_runs(frames, chunk);
}

void xd_frames_forget(xd_frames *frames, uint64_t chunk)
{
    frames->mapped[chunk] = NULL;
    frames->asked[chunk] = frames->whole[chunk] = 0;
    take_from_runs(frames, chunk);
}

void xd_frames_doubt_all(xd_frames *frames)
{
    frames->ram_since = frames->hole_since = ++frames->clock;
    memset(frames->ram, 0, sizeof(frames->ram));
}

void xd_frames_doubt_holes(xd_frames *frames)
{
    frames->hole_since = ++frames->clock;
}

/* What was last said of a frame below the limit, if its chunk was ever asked about. */
static int last_known(const xd_frames *frames, uint64_t gfn)
{
    return frames->whole[gfn >> XD_CHUNK_SHIFT] ? XD_FRAME_RAM : frames->state[gfn];
}

int xd_frames_state(const xd_frames *frames, uint64_t gfn)
{
    if (gfn >= frames->limit)
        return XD_FRAME_HOLE;
    int state = last_known(frames, gfn);
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
    if (!chunk || (state == XD_FRAME_UNKNOWN && last_known(frames, gfn) != XD_FRAME_RAM))
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

int xd_frames_on_page(const xd_frames *frames, uint64_t gfn, void (*work)(const void *page, void *more), void *more)
{
    char *address;
    int error = locate(frames, gfn << XD_FRAME_SHIFT, XD_FRAME_SIZE, &address);
    return error ? error : xd_guarded(address, XD_FRAME_SIZE, work, more);
}
