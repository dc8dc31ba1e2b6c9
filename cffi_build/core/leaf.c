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
    int changed = 0;
    uint32_t i = first;
    while (i <= last) {
        /* Eight at a time, because most entries of most tables are as they were; the compiler makes vectors of it. */
        if (!all && i % 8 == 0 && i + 7 <= last) {
            uint64_t difference = 0;
            for (uint32_t j = i; j < i + 8; j++)
                difference |= (guest[j] & xd_leaf_mask(guest[j])) ^ entries[j];
            if (!difference) {
                i += 8;
                continue;
            }
        }
        uint32_t end = i % 8 == 0 && i + 7 <= last ? i + 8 : i + 1;
        for (; i < end; i++) {
            if (!all && if_ram(guest[i]) == entries[i])
                continue;
            uint64_t before = entries[i];
            set_entry(shadow, &entries[i], guest[i], &waiting, need);
            changed += entries[i] != before;
        }
    }
    xd_set_waiting(shadow, table, (uint16_t)waiting);
    if (need->lacking)
        return -EAGAIN;
    if (whole)
        xd_set_current(shadow, table);
    return changed;
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
