/*
 * The audit. It derives each shadow entry from the definitions in shadow.h and shares no code with the updates, so that
 * a fault there is not repeated here.
 */
#include "audit.h"
#include "table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef struct auditor {
    const xd_shadow *shadow;
    xd_audit *result;
    uint8_t *visited; /* a bit a table */
    uint32_t how;
    const uint64_t *refused;
    uint32_t refused_count;
} auditor;

static void mismatch(auditor *self, const xd_table *table, uint32_t slot, uint64_t guest, uint64_t entry)
{
    if (self->result->mismatches++)
        return;
    self->result->gfn = table->gfn;
    self->result->kind = table->kind;
    self->result->slot = slot;
    self->result->guest = guest;
    self->result->shadow = entry;
}

static bool is_ram(const auditor *self, uint64_t gfn)
{
    return xd_frames_state(self->shadow->frames, gfn) == XD_FRAME_RAM;
}

/* Between two syncs, a pending entry of a leaf may stay pending although its frame became RAM. */
static bool leaf_is_right(const auditor *self, const xd_table *table, const uint64_t *guest, uint32_t slot,
                          uint64_t entry)
{
    uint64_t named = guest[slot];
    uint64_t gpa = named & XD_ADDRESS_4K;
    if (table->kind & XD_KIND_64K) {
        named = guest[slot & ~15u];
        gpa = (named & XD_ADDRESS_64K) + (slot & 15u) * XD_FRAME_SIZE;
    }
    if (!(named & XD_PRESENT) || !is_ram(self, gpa >> XD_FRAME_SHIFT))
        return !(entry & XD_PRESENT);
    if (entry == XD_PENDING && self->how != XD_AUDIT_SYNCED)
        return true;
    uint64_t kept = XD_WRITABLE | XD_MASK(XD_BIT_PWT) | XD_MASK(XD_BIT_PCD) | XD_MASK(XD_BIT_PAT);
    return entry == (gpa | XD_PRESENT | (named & kept));
}

/* Between two syncs, an entry of a SPLIT may map nothing although its frame became RAM. */
static bool split_is_right(const auditor *self, uint64_t named, const uint64_t *entries)
{
    uint64_t gfn = xd_frame_2m(named);
    for (uint32_t i = 0; i < XD_ENTRIES; i++) {
        uint64_t expected = 0;
        if (is_ram(self, gfn + i))
            expected = ((gfn + i) << XD_FRAME_SHIFT) | XD_PRESENT | xd_attributes_of_2m(named);
        if (entries[i] != expected && (entries[i] || self->how == XD_AUDIT_SYNCED))
            return false;
    }
    return true;
}

static bool page_2m_is_right(const auditor *self, uint64_t named, uint64_t entry)
{
    if (!(entry & XD_PRESENT))
        return entry == XD_PENDING;
    if (xd_is_link(entry)) {
        const xd_table *child = &self->shadow->tables[xd_child(entry)];
        return child->kind == (1 | XD_KIND_SPLIT) &&
               split_is_right(self, named, xd_page(self->shadow, xd_child(entry)));
    }
    for (uint64_t i = 0; i < XD_CHUNK_FRAMES; i++)
        if (!is_ram(self, xd_frame_2m(named) + i))
            return false;
    return entry == (named & XD_LEAF_2M);
}

static bool directory_entry_is_right(const auditor *self, const xd_table *table, uint64_t named, uint64_t entry)
{
    unsigned level = xd_level(table);
    if (!(named & XD_PRESENT))
        return !(entry & XD_PRESENT);
    if (level == 3 && named & XD_HUGE)
        return !(entry & XD_PRESENT);
    if (level == 2 && named & XD_HUGE)
        return page_2m_is_right(self, named, entry);
    if (!(entry & XD_PRESENT))
        return entry == XD_PENDING;
    uint32_t kind = level - 1;
    if (level == 2 && named & XD_IPS && self->shadow->has_64k)
        kind |= XD_KIND_64K;
    if (!xd_is_link(entry) || !is_ram(self, xd_frame(named)))
        return false;
    const xd_table *child = &self->shadow->tables[xd_child(entry)];
    return child->gfn == xd_frame(named) && child->kind == kind && child->refs > 0;
}

static int compare(const void *one, const void *other)
{
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

/* Returns whether a directory's entry has a reason to be pending just after a sync. */
static bool may_be_pending(const auditor *self, const xd_table *table, uint64_t named)
{
    bool no_room = self->shadow->live >= self->shadow->max_tables;
    if (xd_level(table) == 2 && named & XD_HUGE) {
        uint64_t ram = 0;
        for (uint64_t i = 0; i < XD_CHUNK_FRAMES; i++)
            ram += is_ram(self, xd_frame_2m(named) + i);
        return !ram || (ram < XD_CHUNK_FRAMES && no_room);
    }
    uint64_t gfn = xd_frame(named);
    return !is_ram(self, gfn) || no_room ||
           bsearch(&gfn, self->refused, self->refused_count, sizeof(gfn), compare);
}

/* Returns whether a table is compared only after the next sync. */
static bool is_left_out(const auditor *self, const xd_table *table)
{
    return table->flags & XD_TABLE_UNSYNCED || self->how == XD_AUDIT_TRAP_GAP ||
           (self->how == XD_AUDIT_AS_IT_IS && table->epoch != self->shadow->epoch);
}

static void compare_entries(auditor *self, uint32_t number)
{
    const xd_table *table = &self->shadow->tables[number];
    const uint64_t *entries = xd_page(self->shadow, number);
    unsigned level = xd_level(table);
    uint64_t guest[XD_ENTRIES];
    if (xd_frames_read_page(self->shadow->frames, table->gfn, guest))
        memset(guest, 0, sizeof(guest));
    for (uint32_t i = 0; i < XD_ENTRIES; i++) {
        self->result->entries += (guest[i] & XD_PRESENT) | (entries[i] & XD_PRESENT);
        bool right = level == 1 ? leaf_is_right(self, table, guest, i, entries[i])
                                : directory_entry_is_right(self, table, guest[i], entries[i]);
        if (!right)
            mismatch(self, table, i, guest[i], entries[i]);
        else if (self->how == XD_AUDIT_SYNCED && level > 1 && entries[i] == XD_PENDING && guest[i] & XD_PRESENT)
            self->result->overdue += !may_be_pending(self, table, guest[i]);
    }
}

static void audit_table(auditor *self, uint32_t number)
{
    if (number > self->shadow->used)
        return; /* a damaged entry named it, which was counted as a mismatch */
    const xd_table *table = &self->shadow->tables[number];
    uint8_t bit = (uint8_t)(1u << number % 8);
    if (self->visited[number / 8] & bit)
        return;
    self->visited[number / 8] |= bit;
    if (table->kind & XD_KIND_SPLIT)
        return; /* compared with the entry it stands for */
    self->result->tables++;
    if (is_left_out(self, table))
        self->result->unsynced++;
    else
        compare_entries(self, number);
    const uint64_t *entries = xd_page(self->shadow, number);
    uint64_t same = 0;
    for (uint32_t i = 0; xd_level(table) > 1 && i < XD_ENTRIES; i++) {
        if (entries[i] != same && xd_is_link(entries[i]))
            audit_table(self, xd_child(entries[i]));
        same = entries[i];
    }
}

int xd_audit_space(const xd_shadow *shadow, const uint32_t *roots, uint32_t level, uint32_t how,
                   const uint64_t *refused, uint32_t refused_count, xd_audit *result)
{
    auditor self = {.shadow = shadow, .result = result, .how = how, .refused = refused, .refused_count = refused_count};
    *result = (xd_audit){.tables = 0};
    self.visited = calloc(shadow->used / 8 + 1, 1);
    if (!self.visited)
        return -ENOMEM;
    for (uint32_t i = 0; i < (level == 4 ? 1u : 4u); i++)
        if (roots[i])
            audit_table(&self, roots[i]);
    free(self.visited);
    return 0;
}
