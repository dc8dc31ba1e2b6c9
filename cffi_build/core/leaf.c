/* Leaf tables: 512 entries of 4 KiB, or 32 of 64 KiB that stand for 16 each. */
#include "entry_bits.h"
#include "guard.h"
#include "kernels.h"
#include "need.h"

#include <errno.h>
#include <string.h>

/* The entries of a leaf that stand for one 64 KiB entry. */
enum { GROUP = 16 };

/* What the shadow says if the frame is RAM. The guest's frame is the GPU's frame: see translate.h for the one place. */
static uint64_t if_ram(uint64_t guest)
{
    return guest & XD_PRESENT ? xd_gpu_leaf(guest) : 0;
}

static void set_entry(xd_shadow *shadow, uint64_t *entry, uint64_t guest, uint32_t *waiting, xd_need *need)
{
    uint64_t value = if_ram(guest);
    if (value) {
        int state = xd_frames_state(shadow->frames, xd_frame(guest));
        if (state != XD_FRAME_RAM)
            value = xd_without_ram(shadow, *entry, xd_frame(guest), state, need);
    }
    *waiting += (value == XD_WAITING) - (uint32_t)(*entry == XD_WAITING);
    *entry = value;
}

/* A leaf whose whole chunk is known to be RAM; false tells nothing. */
static inline bool in_ram(const xd_frames *frames, uint64_t leaf)
{
    uint64_t chunk = xd_frame(leaf) >> XD_CHUNK_SHIFT;
    return chunk < frames->chunks && frames->whole[chunk] > 0 && frames->whole[chunk] >= frames->ram_since;
}

/* Eight entries, in what vectors the target has: what the compiler does not find by itself. */
typedef uint64_t line __attribute__((vector_size(64), aligned(8), may_alias));
typedef uint64_t pair __attribute__((vector_size(16)));

static inline uint64_t any_bit(const line *words)
{
    union {
        line all;
        pair pairs[4];
    } of = {.all = *words};
    pair either = (of.pairs[0] | of.pairs[1]) | (of.pairs[2] | of.pairs[3]);
    return either[0] | either[1];
}

/*
 * Eight entries of which none waits: most are as they were, or lie in one chunk that is RAM, or are all not present.
 * `good` is a leaf in a chunk that is known to be RAM, or 0. False if they need to be looked at one by one.
 */
static inline bool set_line(const xd_frames *frames, line *entries, const line *guest, bool check, uint64_t *good)
{
    line value = *guest & XD_LEAF_BITS & -(*guest & XD_PRESENT);
    line difference = value ^ *entries;
    if (!check && !any_bit(&difference))
        return true;
    line elsewhere = (((value ^ *good) & XD_ADDRESS_2M) | (XD_PRESENT & ~*good)) & -(value & XD_PRESENT);
    if (any_bit(&elsewhere))
        for (int i = 0; i < 8; i++) {
            if (!value[i])
                continue;
            if (!in_ram(frames, value[i]))
                return false;
            *good = value[i];
        }
    *entries = value;
    return true;
}

/* Spread each 64 KiB entry over the 16 4 KiB entries it stands for; the other 15 of the guest's mean nothing. */
static void spread_64k(uint64_t *entries, uint32_t first, uint32_t last)
{
    for (uint32_t head = first; head <= last; head += GROUP) {
        uint64_t guest = entries[head];
        uint64_t base = (guest & XD_ADDRESS_64K) | (guest & ~XD_ADDRESS_4K);
        for (uint32_t i = 0; i < GROUP; i++)
            entries[head + i] = base + ((uint64_t)i << XD_FRAME_SHIFT);
    }
}

static void clear(xd_shadow *shadow, uint32_t number)
{
    memset(xd_page(shadow, number), 0, XD_FRAME_SIZE);
    xd_set_waiting(shadow, &shadow->tables[number], 0);
}

static int read_entries(const xd_shadow *shadow, uint64_t gfn, uint32_t first, uint32_t last, uint64_t *entries)
{
    if (first == last)
        return xd_frames_load(shadow->frames, (gfn << XD_FRAME_SHIFT) + first * 8u, 8, &entries[first]);
    return xd_frames_read_page(shadow->frames, gfn, entries);
}

int xd_leaf_update(xd_shadow *shadow, uint32_t number, uint32_t first, uint32_t last, xd_need *need)
{
    xd_table *table = &shadow->tables[number];
    bool whole = first == 0 && last == XD_ENTRIES - 1;
    bool all = whole && table->era != shadow->era;
    if (table->kind & XD_KIND_64K) {
        first -= first % GROUP;
        last += GROUP - 1 - last % GROUP;
    }
    uint64_t guest[XD_ENTRIES];
    int error = read_entries(shadow, table->gfn, first, last, guest);
    if (error == -EAGAIN) {
        xd_need_frame(need, table->gfn);
        return error;
    }
    if (error) {
        clear(shadow, number);
        return error;
    }
    if (table->kind & XD_KIND_64K)
        spread_64k(guest, first, last);

    uint64_t *entries = xd_page(shadow, number);
    uint32_t waiting = table->waiting;
    need->lacking = 0;
    uint64_t good = 0;
    uint32_t i = first;
    while (i <= last) {
        bool whole_line = i % 8 == 0 && i + 7 <= last;
        if (whole_line && !waiting &&
            set_line(shadow->frames, (line *)&entries[i], (const line *)&guest[i], all, &good)) {
            i += 8;
            continue;
        }
        for (uint32_t end = whole_line ? i + 8 : i + 1; i < end; i++)
            if (all || if_ram(guest[i]) != entries[i])
                set_entry(shadow, &entries[i], guest[i], &waiting, need);
    }
    xd_set_waiting(shadow, table, (uint16_t)waiting);
    if (need->lacking)
        return -EAGAIN;
    if (whole)
        xd_set_current(shadow, table);
    return 0;
}

uint32_t xd_leaf_update_many(xd_shadow *shadow, uint32_t *numbers, uint32_t count, xd_need *need)
{
    uint32_t left = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = numbers[i];
        if (xd_level(&shadow->tables[number]) != 1 || shadow->tables[number].kind & XD_KIND_SPLIT)
            continue; /* died, or died and was born again as another, since the list was made */
        bool full = need->count == XD_ENTRIES;
        if (full || xd_leaf_update(shadow, number, 0, XD_ENTRIES - 1, need) == -EAGAIN)
            numbers[left++] = number;
    }
    return left;
}
