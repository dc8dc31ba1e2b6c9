/* Updates of leaf tables, in lines of eight entries where that is possible. */
#include "leaf.h"
#include "table.h"
#include "translate.h"

#include <errno.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Slots that one 64 KiB entry takes. */
enum { GROUP = 16 };

/* Returns the shadow entry for a guest entry, provided that its frame is RAM. */
static uint64_t if_ram(uint64_t guest)
{
    return guest & XD_PRESENT ? xd_gpu_leaf(guest) : 0;
}

/* Sets one shadow entry from a guest entry; keeps `pending`, the number of pending entries of the table. */
static void set_entry(xd_shadow *shadow, uint64_t *entry, uint64_t guest, uint32_t *pending, xd_need *need)
{
    uint64_t value = if_ram(guest);
    if (value) {
        int state = xd_frames_state(shadow->frames, xd_frame(guest));
        if (state != XD_FRAME_RAM)
            value = xd_without_ram(shadow, *entry, xd_frame(guest), state, need);
    }
    *pending += (value == XD_PENDING) - (uint32_t)(*entry == XD_PENDING);
    *entry = value;
}

/* Returns whether the whole chunk of a leaf entry's frame is RAM. If not, the frame itself may still be RAM. */
static inline bool in_ram(const xd_frames *frames, uint64_t leaf)
{
    uint64_t chunk = xd_frame(leaf) >> XD_CHUNK_SHIFT;
    return chunk < frames->chunks && frames->all_ram[chunk] >= frames->ram_valid_since;
}

/* Eight entries as one vector: the compiler does not vectorise the loop in follow_lines by itself. */
typedef uint64_t line __attribute__((vector_size(64), aligned(8), may_alias));
typedef uint64_t pair __attribute__((vector_size(16)));
enum { LINE = 8 };

/* Returns whether any bit of a line is set. */
typedef bool any_bit(const line *words);

static inline bool any_bit_128(const line *words)
{
    union {
        line all;
        pair pairs[4];
    } of = {.all = *words};
    pair either = (of.pairs[0] | of.pairs[1]) | (of.pairs[2] | of.pairs[3]);
    return (either[0] | either[1]) != 0;
}

#if defined(__x86_64__)
/* The same in one instruction, which the compiler does not find by itself. */
static inline __attribute__((target("avx512f"))) bool any_bit_512(const line *words)
{
    __m512i all = _mm512_loadu_si512(words);
    return _mm512_test_epi64_mask(all, all) != 0;
}
#endif

/* An update of entries `first`..`last` of a leaf table. */
typedef struct change {
    xd_shadow *shadow;
    uint64_t *entries;
    xd_need *need;
    uint32_t first, last;
    uint32_t pending; /* pending entries of the whole table */
    bool check;       /* also check entries that are as they should be: their frames may not be RAM any more */
    bool blank;       /* the shadow entries have no meaning yet */
    bool changed;     /* becomes true if a shadow entry says something else now */
} change;

/* The address of the first byte of a range of chunks, and of its last byte. */
typedef struct bounds {
    uint64_t first, last;
} bounds;

static bounds bounds_of(const xd_chunk_range *range)
{
    enum { SHIFT = XD_CHUNK_SHIFT + XD_FRAME_SHIFT };
    return (bounds){.first = range->first << SHIFT, .last = (range->end << SHIFT) - 1};
}

/* Lines that are compared together, before any of them is looked at by itself: most are as they were. */
enum { BLOCK = 8 * LINE };

/* Returns whether a block of the guest's page says what the shadow says. `any` is one of the above. */
static inline __attribute__((always_inline)) bool block_is_same(const uint64_t *guest, const uint64_t *entries,
                                                                any_bit any)
{
    line difference = {0};
    for (uint32_t i = 0; i < BLOCK; i += LINE) {
        line value = *(const line *)&guest[i];
        __atomic_signal_fence(__ATOMIC_SEQ_CST); /* the guest may change it: read it once only */
        difference |= (value & (XD_LEAF_BITS & -(value & XD_PRESENT))) ^ *(const line *)&entries[i];
    }
    return !any(&difference);
}

/*
 * Updates lines of eight entries, from entry `i` on, of a table without pending entries. It stops at the first line
 * that has a changed or to be checked entry whose chunk is not RAM throughout, and returns the first entry of that
 * line. `any` is one of the above, for the processor.
 */
static inline __attribute__((always_inline)) uint32_t follow_lines(change *one, const uint64_t *guest, uint32_t i,
                                                                   any_bit any)
{
    const xd_frames *frames = one->shadow->frames;
    const bounds one_range = bounds_of(&frames->ram[0]), other_range = bounds_of(&frames->ram[1]);
    for (; i + LINE - 1 <= one->last; i += LINE) {
        if (!one->check && i % BLOCK == 0 && i + BLOCK - 1 <= one->last &&
            block_is_same(&guest[i], &one->entries[i], any)) {
            i += BLOCK - LINE;
            continue;
        }
        line value = *(const line *)&guest[i];
        __atomic_signal_fence(__ATOMIC_SEQ_CST); /* as above; a block that differed is read again, and this counts */
        value &= XD_LEAF_BITS & -(value & XD_PRESENT);
        line *entries = (line *)&one->entries[i];
        bool differs = one->blank;
        if (!differs) {
            line difference = value ^ *entries;
            differs = any(&difference);
        }
        if (!differs && !one->check)
            continue;
        /* Bit 63 of each word is set if it is a present entry that lies in neither range. */
        line elsewhere = ((value - one_range.first) | (one_range.last - value)) &
                         ((value - other_range.first) | (other_range.last - value)) & (value << (63 - XD_BIT_PRESENT));
        if (any(&elsewhere))
            for (int k = 0; k < LINE; k++)
                if (value[k] && !in_ram(frames, value[k]))
                    return i;
        *entries = value;
        one->changed |= differs;
    }
    return i;
}

/* The same code compiled for each width of vectors. */
static uint32_t follow_lines_128(change *one, const uint64_t *guest, uint32_t i)
{
    return follow_lines(one, guest, i, any_bit_128);
}

#if defined(__x86_64__)
static __attribute__((target("avx2"))) uint32_t follow_lines_256(change *one, const uint64_t *guest, uint32_t i)
{
    return follow_lines(one, guest, i, any_bit_128);
}

static __attribute__((target("avx512f"))) uint32_t follow_lines_512(change *one, const uint64_t *guest, uint32_t i)
{
    return follow_lines(one, guest, i, any_bit_512);
}
#endif

static uint32_t (*best_follow_lines)(change *one, const uint64_t *guest, uint32_t i);

int xd_leaf_vectors(uint32_t bits)
{
#if defined(__x86_64__)
    if (bits == 512 && __builtin_cpu_supports("avx512f")) {
        best_follow_lines = follow_lines_512;
        return 0;
    }
    if (bits == 256 && __builtin_cpu_supports("avx2")) {
        best_follow_lines = follow_lines_256;
        return 0;
    }
#endif
    if (bits != 128)
        return -ENOTSUP;
    best_follow_lines = follow_lines_128;
    return 0;
}

static void choose_vectors(void)
{
    for (uint32_t bits = 512; xd_leaf_vectors(bits);)
        bits /= 2;
}

/* Updates the entries of a `change` from the guest's page; the work of xd_frames_on_page. */
static void follow(const void *page, void *more)
{
    change *one = more;
    const uint64_t *guest = page;
    uint32_t i = one->first;
    if (!best_follow_lines)
        choose_vectors();
    while (i <= one->last) {
        if (i % LINE == 0 && !one->pending)
            i = best_follow_lines(one, guest, i);
        if (i <= one->last && one->blank)
            memset(&one->entries[i], 0, LINE * sizeof(*one->entries));
        for (uint32_t end = i + LINE - i % LINE; i < end && i <= one->last; i++) {
            uint64_t entry = __atomic_load_n(&guest[i], __ATOMIC_RELAXED);
            if (!one->check && if_ram(entry) == one->entries[i])
                continue;
            uint64_t before = one->entries[i];
            set_entry(one->shadow, &one->entries[i], entry, &one->pending, one->need);
            one->changed |= one->entries[i] != before;
        }
    }
}

/* Replaces each 64 KiB entry by the 16 entries of 4 KiB that it stands for; a GPU ignores the other 15 of its group. */
static void spread_64k(uint64_t *entries, uint32_t first, uint32_t last)
{
    for (uint32_t head = first; head <= last; head += GROUP) {
        uint64_t guest = entries[head];
        uint64_t base = (guest & XD_ADDRESS_64K) | (guest & ~XD_ADDRESS_4K);
        for (uint32_t i = 0; i < GROUP; i++)
            entries[head + i] = base + ((uint64_t)i << XD_FRAME_SHIFT);
    }
}

/* The table's page is gone: it maps nothing. */
static void clear(xd_shadow *shadow, uint32_t number)
{
    memset(xd_page(shadow, number), 0, XD_FRAME_SIZE);
    xd_set_pending(shadow, &shadow->tables[number], 0);
}

/*
 * Copies entries `first`..`last` of the guest's page to their places in `entries`; with more than one, the whole page.
 */
static int read_entries(const xd_shadow *shadow, uint64_t gfn, uint32_t first, uint32_t last, uint64_t *entries)
{
    if (first == last)
        return xd_frames_load(shadow->frames, (gfn << XD_FRAME_SHIFT) + first * 8u, 8, &entries[first]);
    return xd_frames_read_page(shadow->frames, gfn, entries);
}

/*
 * xd_leaf_update, from `copy` of the guest's page if that is there. *changed: whether the table says something else now,
 * as far as the result is 0 or -EAGAIN.
 */
static int update(xd_shadow *shadow, uint32_t number, uint32_t first, uint32_t last, const uint64_t *copy,
                  xd_need *need, bool *changed)
{
    xd_table *table = &shadow->tables[number];
    bool whole = first == 0 && last == XD_ENTRIES - 1;
    bool wide = table->kind & XD_KIND_64K;
    bool in_place = whole && !wide && !copy;
    if (wide) {
        first -= first % GROUP;
        last += GROUP - 1 - last % GROUP;
    }
    if (!in_place)
        xd_clear_blank(shadow, number);
    bool blank = table->flags & XD_TABLE_BLANK;
    change one = {.shadow = shadow,
                  .entries = xd_page(shadow, number),
                  .need = need,
                  .first = first,
                  .last = last,
                  .pending = table->pending,
                  .check = blank || (whole && table->epoch != shadow->epoch),
                  .blank = blank,
                  .changed = blank};
    need->lacking = 0;
    int error;
    if (in_place) {
        error = xd_frames_on_page(shadow->frames, table->gfn, follow, &one);
    } else {
        uint64_t guest[XD_ENTRIES];
        if (copy)
            memcpy(guest, copy, sizeof(guest));
        error = copy ? 0 : read_entries(shadow, table->gfn, first, last, guest);
        if (!error && wide)
            spread_64k(guest, first, last);
        if (!error)
            follow(guest, &one);
    }
    *changed = one.changed;
    if (error == -EAGAIN) {
        xd_need_frame(need, table->gfn);
        xd_set_unread(shadow, table);
        return error;
    }
    table->flags &= (uint8_t)~XD_TABLE_BLANK;
    if (error) {
        clear(shadow, number);
        return error;
    }
    xd_set_pending(shadow, table, (uint16_t)one.pending);
    if (need->lacking) {
        xd_set_unread(shadow, table);
        return -EAGAIN;
    }
    if (whole)
        xd_set_checked(shadow, table);
    return 0;
}

int xd_leaf_update(xd_shadow *shadow, uint32_t number, uint32_t first, uint32_t last, xd_need *need)
{
    bool changed;
    return update(shadow, number, first, last, NULL, need, &changed);
}

int xd_leaf_sync(xd_shadow *shadow, uint32_t number, const uint64_t *page, xd_need *need, int *changed)
{
    bool differs;
    int error = update(shadow, number, 0, XD_ENTRIES - 1, page, need, &differs);
    *changed = error || differs;
    return error;
}

uint32_t xd_leaf_update_many(xd_shadow *shadow, uint32_t *numbers, uint32_t count, xd_need *need)
{
    uint32_t left = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = numbers[i];
        if (xd_level(&shadow->tables[number]) != 1 || shadow->tables[number].kind & XD_KIND_SPLIT)
            continue; /* freed since the list was made; the number may be in use again */
        bool full = need->count == XD_ENTRIES;
        if (full || xd_leaf_update(shadow, number, 0, XD_ENTRIES - 1, need) == -EAGAIN)
            numbers[left++] = number;
    }
    return left;
}
