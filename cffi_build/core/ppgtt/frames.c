/* Which frames are RAM: answers of queries, how old they may be, and guarded access to what is mapped. */
#include "frames.h"
#include "guard.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Returns `size` bytes of zeros that take no memory until they are touched, or NULL. */
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
    frames->queried_at = reserve(chunks * sizeof(*frames->queried_at));
    frames->all_ram = reserve(chunks * sizeof(*frames->all_ram));
    frames->ram_frames = reserve(chunks * sizeof(*frames->ram_frames));
    frames->clock = frames->ram_valid_since = 1;
    if (!frames->state || !frames->mapped || !frames->queried_at || !frames->all_ram || !frames->ram_frames) {
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
    if (frames->queried_at)
        munmap(frames->queried_at, chunks * sizeof(*frames->queried_at));
    if (frames->all_ram)
        munmap(frames->all_ram, chunks * sizeof(*frames->all_ram));
    if (frames->ram_frames)
        munmap(frames->ram_frames, chunks * sizeof(*frames->ram_frames));
    free(frames);
}

static int is_all_ram(const xd_frames *frames, uint64_t chunk)
{
    return frames->all_ram[chunk] >= frames->ram_valid_since;
}

static uint64_t length(const xd_chunk_range *range)
{
    return range->end - range->first;
}

/* Extends a range by the chunks around it that are RAM throughout, by at most `most` on each side. */
static void extend(const xd_frames *frames, xd_chunk_range *range, uint64_t most)
{
    for (uint64_t i = 0; i < most && range->end < frames->chunks && is_all_ram(frames, range->end); i++)
        range->end++;
    for (uint64_t i = 0; i < most && range->first && is_all_ram(frames, range->first - 1); i++)
        range->first--;
}

/* A new range is searched only so far from its chunk: most searches find no range that is long enough to be kept. */
enum { SEARCH_LIMIT = 64 };

/*
 * Adds a chunk that is RAM throughout. A range next to it grows, and absorbs the other range if it reaches that one. If
 * there is none, the range around the chunk replaces the shorter of the two if it is longer.
 */
static void add_to_ranges(xd_frames *frames, uint64_t chunk)
{
    xd_chunk_range *shorter = &frames->ram[0];
    for (int i = 0; i < XD_RAM_RANGES; i++) {
        xd_chunk_range *range = &frames->ram[i], *other = &frames->ram[XD_RAM_RANGES - 1 - i];
        if (length(range) && chunk + 1 >= range->first && chunk <= range->end) {
            extend(frames, range, frames->chunks);
            if (range->first <= other->first && other->end <= range->end)
                other->first = other->end = 0;
            return;
        }
        if (length(range) < length(shorter))
            shorter = range;
    }
    xd_chunk_range range = {chunk, chunk + 1};
    extend(frames, &range, SEARCH_LIMIT);
    if (length(&range) > length(shorter)) {
        *shorter = range;
        extend(frames, shorter, frames->chunks);
    }
}

/* Removes a chunk from the range that has it, with the chunks on the shorter side of it. */
static void take_from_ranges(xd_frames *frames, uint64_t chunk)
{
    for (int i = 0; i < XD_RAM_RANGES; i++) {
        xd_chunk_range *range = &frames->ram[i];
        if (chunk < range->first || chunk >= range->end)
            continue;
        if (chunk - range->first < range->end - chunk)
            range->first = chunk + 1;
        else
            range->end = chunk;
    }
}

void xd_frames_record(xd_frames *frames, uint64_t chunk, void *address, const int *errors)
{
    uint64_t first = chunk << XD_CHUNK_SHIFT;
    uint16_t ram = 0;
    for (uint64_t i = 0; i < XD_CHUNK_FRAMES && first + i < frames->limit; i++)
        ram = (uint16_t)(ram + (errors[i] == 0));
    bool all_ram = ram == XD_CHUNK_FRAMES;
    for (uint64_t i = 0; i < XD_CHUNK_FRAMES && !all_ram; i++)
        frames->state[first + i] = first + i < frames->limit && errors[i] == 0 ? XD_FRAME_RAM : XD_FRAME_HOLE;
    frames->mapped[chunk] = address;
    frames->queried_at[chunk] = frames->clock;
    frames->all_ram[chunk] = all_ram ? frames->clock : 0;
    frames->ram_frames[chunk] = ram;
    if (all_ram)
        add_to_ranges(frames, chunk);
    else
        take_from_ranges(frames, chunk);
}

void xd_frames_forget(xd_frames *frames, uint64_t chunk)
{
    frames->mapped[chunk] = NULL;
    frames->queried_at[chunk] = frames->all_ram[chunk] = 0;
    take_from_ranges(frames, chunk);
}

void xd_frames_unmapped(xd_frames *frames, uint64_t chunk)
{
    frames->mapped[chunk] = NULL;
}

void xd_frames_invalidate(xd_frames *frames)
{
    frames->ram_valid_since = frames->holes_valid_since = ++frames->clock;
    memset(frames->ram, 0, sizeof(frames->ram));
}

void xd_frames_invalidate_holes(xd_frames *frames)
{
    frames->holes_valid_since = ++frames->clock;
}

/* What the last query found a frame below the limit to be; meaningless if its chunk was never queried. */
static int last_answer(const xd_frames *frames, uint64_t gfn)
{
    return frames->all_ram[gfn >> XD_CHUNK_SHIFT] ? XD_FRAME_RAM : frames->state[gfn];
}

int xd_frames_state(const xd_frames *frames, uint64_t gfn)
{
    if (gfn >= frames->limit)
        return XD_FRAME_HOLE;
    int state = last_answer(frames, gfn);
    uint64_t queried_at = frames->queried_at[gfn >> XD_CHUNK_SHIFT];
    if (queried_at < frames->ram_valid_since || (state == XD_FRAME_HOLE && queried_at < frames->holes_valid_since))
        return XD_FRAME_UNKNOWN;
    return state;
}

int xd_chunk_state(const xd_frames *frames, uint64_t chunk)
{
    if (chunk >= frames->chunks)
        return XD_CHUNK_NO_RAM;
    if (frames->all_ram[chunk])
        return is_all_ram(frames, chunk) ? XD_CHUNK_ALL_RAM : XD_CHUNK_UNKNOWN;
    uint64_t queried_at = frames->queried_at[chunk];
    if (queried_at < frames->ram_valid_since || queried_at < frames->holes_valid_since)
        return XD_CHUNK_UNKNOWN;
    return frames->ram_frames[chunk] ? XD_CHUNK_SOME_RAM : XD_CHUNK_NO_RAM;
}

/* Finds where `size` bytes at `gpa` are mapped. Returns 0 or an error as frames.h has them. */
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
    if (!chunk || (state == XD_FRAME_UNKNOWN && last_answer(frames, gfn) != XD_FRAME_RAM))
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
