/* Updates of directories: the tables that their entries name, and 2 MiB pages. */
#include "directory.h"
#include "table.h"
#include "translate.h"

#include <errno.h>
#include <string.h>

typedef enum { NOTHING, REFUSED, TABLE, PAGE_2M } meaning;

/* Returns what a guest entry asks for in a directory of this level; `kind` receives the child's if that is a TABLE. */
static meaning read_entry(const xd_shadow *shadow, unsigned level, uint64_t guest, uint32_t *kind)
{
    if (!(guest & XD_PRESENT))
        return NOTHING;
    *kind = level - 1;
    if (level == 3 && guest & XD_HUGE)
        return REFUSED;
    if (level == 2 && guest & XD_HUGE)
        return PAGE_2M;
    if (level == 2 && guest & XD_IPS && shadow->has_64k)
        *kind |= XD_KIND_64K;
    return TABLE;
}

/* Returns whether a shadow entry points to the table of this frame and kind. */
static bool links_to(const xd_shadow *shadow, uint64_t entry, uint64_t gfn, uint32_t kind)
{
    if (!xd_is_link(entry))
        return false;
    const xd_table *child = &shadow->tables[xd_child(entry)];
    return child->gfn == gfn && child->kind == kind;
}

int xd_directory_read(const xd_shadow *shadow, uint32_t number, uint64_t *entries)
{
    return xd_frames_read_page(shadow->frames, shadow->tables[number].gfn, entries);
}

/* Returns how much of the 2 MiB page that begins at a frame is RAM, an XD_CHUNK_*: such a page is a chunk. */
static int ram_of_2m(const xd_shadow *shadow, uint64_t first_gfn)
{
    return xd_chunk_state(shadow->frames, first_gfn >> XD_CHUNK_SHIFT);
}

/* The set of missing tables while it is collected: a hash table with open addressing, at most half full. */
enum { SET_SIZE = 2 * XD_ENTRIES };

/* Adds missing[count], about to be written, to the set. Returns false if the set has that table already. */
static bool insert_missing(uint16_t *set, uint32_t hash, const xd_missing_table *missing, uint64_t gfn, uint32_t kind,
                           int count)
{
    uint32_t i = hash % SET_SIZE;
    for (; set[i]; i = (i + 1) % SET_SIZE) {
        const xd_missing_table *one = &missing[set[i] - 1];
        if (one->gfn == gfn && one->kind == kind)
            return false;
    }
    set[i] = (uint16_t)(count + 1);
    return true;
}

int xd_directory_missing(xd_shadow *shadow, uint32_t number, const uint64_t *entries, uint32_t first, uint32_t last,
                         xd_missing_table *missing, uint32_t *splits, uint32_t *shared, xd_need *need)
{
    unsigned level = xd_level(&shadow->tables[number]);
    const uint64_t *shadow_entries = xd_page(shadow, number);
    uint16_t set[SET_SIZE] = {0};
    uint64_t same = 0; /* the last entry that names a table: drivers write the same entry many times in a row */
    int count = 0;
    *splits = *shared = 0;
    need->lacking = 0;
    for (uint32_t i = first; i <= last; i++) {
        uint64_t gfn = xd_frame(entries[i]);
        uint32_t kind = 0;
        meaning what = read_entry(shadow, level, entries[i], &kind);
        if (what == PAGE_2M) {
            uint64_t first_gfn = xd_frame_2m(entries[i]);
            int ram = ram_of_2m(shadow, first_gfn);
            *splits +=
                ram == XD_CHUNK_SOME_RAM && !links_to(shadow, shadow_entries[i], first_gfn, 1 | XD_KIND_SPLIT);
            if (ram == XD_CHUNK_UNKNOWN)
                xd_need_frame(need, gfn);
        }
        if (what != TABLE || entries[i] == same)
            continue;
        same = entries[i];
        int state = xd_frames_state(shadow->frames, gfn);
        if (state == XD_FRAME_UNKNOWN)
            xd_need_frame(need, gfn);
        if (state != XD_FRAME_RAM || links_to(shadow, shadow_entries[i], gfn, kind))
            continue;
        bool first_of_frame = !xd_first_of_frame(shadow, gfn);
        if ((!first_of_frame && xd_find(shadow, gfn, kind)) ||
            !insert_missing(set, xd_hash(shadow, gfn), missing, gfn, kind, count))
            continue;
        *shared += !first_of_frame;
        missing[count++] = (xd_missing_table){.gfn = gfn, .kind = kind, .first_of_frame = first_of_frame};
    }
    return need->lacking ? -EAGAIN : count;
}

uint32_t xd_create_tables(xd_shadow *shadow, xd_missing_table *missing, uint32_t count, uint32_t *numbers,
                          uint64_t *gfns)
{
    uint32_t to_protect = 0;
    for (uint32_t i = 0; i < count; i++) {
        xd_missing_table *one = &missing[i];
        if (one->refused) {
            numbers[i] = 0;
            continue;
        }
        one->first_of_frame = !xd_first_of_frame(shadow, one->gfn);
        one->number = numbers[i] = xd_add(shadow, one->gfn, one->kind);
        if (!one->number)
            continue;
        xd_ref(shadow, one->number);
        if (one->first_of_frame)
            gfns[to_protect++] = one->gfn;
    }
    return to_protect;
}

void xd_unref_tables(xd_shadow *shadow, const xd_missing_table *missing, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (missing[i].number)
            xd_unref(shadow, missing[i].number);
}

/* Writes the entries of a SPLIT table: those frames of its 2 MiB page that are RAM. */
static void fill_split(xd_shadow *shadow, uint32_t number)
{
    const xd_table *table = &shadow->tables[number];
    uint64_t *entries = xd_page(shadow, number);
    for (uint32_t i = 0; i < XD_ENTRIES; i++) {
        uint64_t gfn = table->gfn + i;
        bool ram = xd_frames_state(shadow->frames, gfn) == XD_FRAME_RAM;
        entries[i] = ram ? xd_gpu_leaf((gfn << XD_FRAME_SHIFT) | table->attributes | XD_PRESENT) : 0;
    }
    shadow->tables[number].flags &= (uint8_t)~XD_TABLE_BLANK;
    xd_set_checked(shadow, &shadow->tables[number]);
}

/* Returns the shadow entry for a guest entry that maps a 2 MiB page. */
static uint64_t link_2m(xd_shadow *shadow, uint64_t before, uint64_t guest, xd_need *need)
{
    uint64_t gfn = xd_frame_2m(guest);
    uint64_t attributes = xd_attributes_of_2m(guest);
    switch (ram_of_2m(shadow, gfn)) {
    case XD_CHUNK_ALL_RAM:
        return guest & XD_LEAF_2M;
    case XD_CHUNK_UNKNOWN:
        return xd_without_ram(shadow, before, gfn, XD_FRAME_UNKNOWN, need);
    case XD_CHUNK_NO_RAM:
        return xd_without_ram(shadow, before, gfn, XD_FRAME_HOLE, need);
    default: /* XD_CHUNK_SOME_RAM */
        break;
    }
    uint32_t number;
    if (links_to(shadow, before, gfn, 1 | XD_KIND_SPLIT) &&
        shadow->tables[xd_child(before)].attributes == attributes) {
        number = xd_child(before);
    } else {
        number = xd_add(shadow, gfn, 1 | XD_KIND_SPLIT);
        if (!number) {
            shadow->counters->quota_entries += before != XD_PENDING;
            return XD_PENDING;
        }
        shadow->counters->invalid_entries++;
        shadow->tables[number].attributes = (uint32_t)attributes;
    }
    fill_split(shadow, number);
    return xd_link(number);
}

/* Returns whether a table is missing because its frame could not be write-protected. */
static bool was_refused(const xd_missing_table *missing, uint32_t count, uint64_t gfn)
{
    for (uint32_t i = 0; i < count; i++)
        if (missing[i].refused && missing[i].gfn == gfn)
            return true;
    return false;
}

/* The tables that were missing, in the order of the entries; `next` is the one that no entry has named yet. */
typedef struct created {
    const xd_missing_table *missing;
    uint32_t count;
    uint32_t next;
} created;

/* Returns the table of a frame, or 0. */
static uint32_t find_child(const xd_shadow *shadow, uint64_t gfn, uint32_t kind, created *tables)
{
    if (tables->next < tables->count) {
        const xd_missing_table *next = &tables->missing[tables->next];
        if (next->gfn == gfn && next->kind == kind) {
            tables->next++;
            return next->number;
        }
    }
    return xd_find(shadow, gfn, kind);
}

/* Returns the shadow entry for a guest entry that names a table. */
static uint64_t link_table(xd_shadow *shadow, uint64_t before, uint64_t gfn, uint32_t kind, created *tables,
                           xd_need *need)
{
    int state = xd_frames_state(shadow->frames, gfn);
    if (state != XD_FRAME_RAM)
        return xd_without_ram(shadow, before, gfn, state, need);
    uint32_t child = find_child(shadow, gfn, kind, tables);
    if (child) {
        xd_clear_blank(shadow, child);
        return xd_link(child);
    }
    shadow->counters->quota_entries += before != XD_PENDING && !was_refused(tables->missing, tables->count, gfn);
    return XD_PENDING;
}

/* Returns whether a shadow entry is to be tried again at each sync: it counts in xd_table.pending. */
static bool is_pending(const xd_shadow *shadow, uint64_t entry)
{
    return entry == XD_PENDING || (xd_is_link(entry) && shadow->tables[xd_child(entry)].kind & XD_KIND_SPLIT);
}

/* Writes a shadow entry, with the references that the new and the old one hold: the new one first. */
static void set_entry(xd_shadow *shadow, uint32_t number, uint64_t *entry, uint64_t value)
{
    uint64_t before = *entry;
    if (value == before)
        return;
    *entry = value;
    if (xd_is_link(value))
        xd_link_to(shadow, number, xd_child(value));
    if (xd_is_link(before))
        xd_unlink(shadow, number, xd_child(before));
}

int xd_directory_link(xd_shadow *shadow, uint32_t number, const uint64_t *entries, uint32_t first, uint32_t last,
                      const xd_missing_table *missing, uint32_t count, xd_need *need)
{
    xd_table *table = &shadow->tables[number];
    unsigned level = xd_level(table);
    uint64_t *shadow_entries = xd_page(shadow, number);
    uint32_t pending = table->pending;
    created tables = {.missing = missing, .count = count};
    uint64_t same = 0;
    uint64_t same_value = 0;
    int left = 0;
    need->lacking = 0;
    for (uint32_t i = first; i <= last; i++) {
        uint64_t before = shadow_entries[i];
        uint64_t value = 0;
        uint32_t kind = 0;
        bool was_pending = is_pending(shadow, before);
        switch (read_entry(shadow, level, entries[i], &kind)) {
        case NOTHING:
            break;
        case REFUSED:
            value = XD_REFUSED;
            shadow->counters->unsupported_entries += before != XD_REFUSED;
            break;
        case PAGE_2M:
            value = link_2m(shadow, before, entries[i], need);
            break;
        case TABLE:
            if (entries[i] == same && xd_is_link(same_value))
                value = same_value;
            else
                value = link_table(shadow, before, xd_frame(entries[i]), kind, &tables, need);
            same = entries[i];
            same_value = value;
            break;
        }
        set_entry(shadow, number, &shadow_entries[i], value);
        left += value == XD_PENDING;
        pending += is_pending(shadow, value) - (uint32_t)was_pending;
    }
    xd_set_pending(shadow, table, (uint16_t)pending);
    return left;
}

void xd_directory_checked(xd_shadow *shadow, uint32_t number, uint64_t epoch)
{
    if (epoch == shadow->epoch)
        xd_set_checked(shadow, &shadow->tables[number]);
}

void xd_directory_clear(xd_shadow *shadow, uint32_t number)
{
    uint64_t *entries = xd_page(shadow, number);
    for (uint32_t i = 0; i < XD_ENTRIES; i++)
        set_entry(shadow, number, &entries[i], 0);
    xd_set_pending(shadow, &shadow->tables[number], 0);
}
