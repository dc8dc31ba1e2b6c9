/*
 * The audit: entry by entry, from the definitions, and not by the code that keeps the shadow.
 */
#include "entry_bits.h"
#include "walk.h"

#include <stdlib.h>
#include <string.h>

typedef struct auditor {
    xd_shadow *shadow;
    xd_audit *result;
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

static bool leaf_in_line(const auditor *self, const xd_table *table, const uint64_t *guest, uint32_t slot,
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
    uint64_t kept = XD_WRITABLE | XD_MASK(XD_BIT_PWT) | XD_MASK(XD_BIT_PCD) | XD_MASK(XD_BIT_PAT);
    return entry == (gpa | XD_PRESENT | (named & kept));
}

static bool split_in_line(const auditor *self, uint64_t named, const uint64_t *entries)
{
    uint64_t gfn = (named & XD_ADDRESS_2M) >> XD_FRAME_SHIFT;
    for (uint32_t i = 0; i < XD_ENTRIES; i++) {
        uint64_t expected = 0;
        if (is_ram(self, gfn + i))
            expected = ((gfn + i) << XD_FRAME_SHIFT) | XD_PRESENT | xd_attributes_of_2m(named);
        if (entries[i] != expected)
            return false;
    }
    return true;
}

static bool page_2m_in_line(const auditor *self, uint64_t named, uint64_t entry)
{
    if (!(entry & XD_PRESENT)) {
        return entry == XD_WAITING;
    }
    if (xd_is_link(entry)) {
        const xd_table *child = &self->shadow->tables[xd_child(entry)];
        return child->kind == (1 | XD_KIND_SPLIT) &&
               split_in_line(self, named, xd_page(self->shadow, xd_child(entry)));
    }
    for (uint64_t i = 0; i < XD_CHUNK_FRAMES; i++)
        if (!is_ram(self, ((named & XD_ADDRESS_2M) >> XD_FRAME_SHIFT) + i))
            return false;
    return entry == (named & XD_LEAF_2M);
}

static bool directory_in_line(const auditor *self, const xd_table *table, uint64_t named, uint64_t entry)
{
    unsigned level = xd_level(table);
    if (!(named & XD_PRESENT))
        return !(entry & XD_PRESENT);
    if (level == 3 && named & XD_HUGE)
        return !(entry & XD_PRESENT);
    if (level == 2 && named & XD_HUGE)
        return page_2m_in_line(self, named, entry);
    if (!(entry & XD_PRESENT))
        return entry == XD_WAITING;
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

/* Whether a present entry of a directory may map nothing for now. */
static bool may_wait(const auditor *self, const xd_table *table, uint64_t named)
{
    bool no_room = self->shadow->live >= self->shadow->max_tables;
    if (xd_level(table) == 2 && named & XD_HUGE) {
        uint64_t ram = 0;
        for (uint64_t i = 0; i < XD_CHUNK_FRAMES; i++)
            ram += is_ram(self, ((named & XD_ADDRESS_2M) >> XD_FRAME_SHIFT) + i);
        return !ram || (ram < XD_CHUNK_FRAMES && no_room);
    }
    uint64_t gfn = xd_frame(named);
    return !is_ram(self, gfn) || no_room ||
           bsearch(&gfn, self->refused, self->refused_count, sizeof(gfn), compare);
}

static void audit_table(auditor *self, uint32_t number)
{
    xd_table *table = &self->shadow->tables[number];
    if (table->seen == self->shadow->traversal)
        return;
    table->seen = self->shadow->traversal;
    if (table->kind & XD_KIND_SPLIT)
        return; /* checked from the entry it stands for */
    const uint64_t *entries = xd_page(self->shadow, number);
    uint64_t guest[XD_ENTRIES];
    if (xd_frames_read_page(self->shadow->frames, table->gfn, guest))
        memset(guest, 0, sizeof(guest));
    self->result->tables++;
    unsigned level = xd_level(table);
    for (uint32_t i = 0; i < XD_ENTRIES && !(table->flags & XD_TABLE_OPEN); i++) {
        self->result->entries += (guest[i] & XD_PRESENT) | (entries[i] & XD_PRESENT);
        bool in_line = level == 1 ? leaf_in_line(self, table, guest, i, entries[i])
                                  : directory_in_line(self, table, guest[i], entries[i]);
        if (!in_line)
            mismatch(self, table, i, guest[i], entries[i]);
        else if (level > 1 && entries[i] == XD_WAITING && guest[i] & XD_PRESENT)
            self->result->overdue += !may_wait(self, table, guest[i]);
    }
    uint64_t same = 0;
    for (uint32_t i = 0; level > 1 && i < XD_ENTRIES; i++) {
        if (entries[i] != same && xd_is_link(entries[i]))
            audit_table(self, xd_child(entries[i]));
        same = entries[i];
    }
}

void xd_audit_space(xd_shadow *shadow, const uint32_t *roots, uint32_t level, const uint64_t *refused,
                    uint32_t refused_count, xd_audit *result)
{
    auditor self = {.shadow = shadow, .result = result, .refused = refused, .refused_count = refused_count};
    *result = (xd_audit){.tables = 0};
    shadow->traversal++;
    for (uint32_t i = 0; i < (level == 4 ? 1u : 4u); i++)
        if (roots[i])
            audit_table(&self, roots[i]);
}
