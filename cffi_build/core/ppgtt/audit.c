/*
 * The audit. It derives each shadow entry from the definitions in shadow.h and shares no code with the updates, so that
 * a fault there is not repeated here.
 */
#include "audit.h"
#include "table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LEVELS = 4, ROOTS = 4 };

/* How far the audit came in a directory. The table may be freed meanwhile, and its number be given to another one. */
typedef struct place {
    uint64_t gfn;
    uint32_t number;
    uint32_t kind;
    uint32_t next; /* entry */
} place;

struct xd_auditor {
    const xd_shadow *shadow;
    xd_audit *result;
    uint64_t looks;   /* entries compared and frames looked up in this step */
    const uint64_t *refused;
    uint32_t refused_count;
    uint32_t how;
    uint32_t roots[ROOTS];
    uint32_t next_root;
    uint32_t depth;
    place path[LEVELS];
    uint8_t visited[]; /* a bit a table */
};
typedef struct xd_auditor auditor;

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

static bool is_ram(auditor *self, uint64_t gfn)
{
    self->looks++;
    return xd_frames_state(self->shadow->frames, gfn) == XD_FRAME_RAM;
}

/* Between two syncs, a pending entry of a leaf may stay pending although its frame became RAM. */
static bool leaf_is_right(auditor *self, const xd_table *table, const uint64_t *guest, uint32_t slot,
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
static bool split_is_right(auditor *self, uint64_t named, const uint64_t *entries)
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

static bool page_2m_is_right(auditor *self, uint64_t named, uint64_t entry)
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

static bool directory_entry_is_right(auditor *self, const xd_table *table, uint64_t named, uint64_t entry)
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
static bool may_be_pending(auditor *self, const xd_table *table, uint64_t named)
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
    return table->flags & XD_TABLE_UNREAD || self->how == XD_AUDIT_TRAP_GAP ||
           (self->how == XD_AUDIT_AS_IT_IS && table->epoch != self->shadow->epoch);
}

static void compare_entries(auditor *self, uint32_t number)
{
    const xd_table *table = &self->shadow->tables[number];
    const uint64_t *entries = xd_page(self->shadow, number);
    unsigned level = xd_level(table);
    uint64_t guest[XD_ENTRIES];
    self->looks += XD_ENTRIES;
    int error = xd_frames_read_page(self->shadow->frames, table->gfn, guest);
    if (error == -EAGAIN) { /* unmapped to make room */
        self->result->unsynced++;
        return;
    }
    if (error)
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

/* The same for an unsynced table, which is left out if the guest has stored to it since the last sync. */
static void compare_unsynced(auditor *self, uint32_t number)
{
    xd_audit before = *self->result;
    compare_entries(self, number);
    if (self->result->mismatches == before.mismatches)
        return;
    *self->result = before;
    self->result->unsynced++;
}

/* Audits a table, and goes down into it if it is a directory, unless the audit was there already. */
static void enter(auditor *self, uint32_t number)
{
    if (number > self->shadow->used)
        return; /* a damaged entry named it, which was counted as a mismatch */
    const xd_table *table = &self->shadow->tables[number];
    uint8_t bit = (uint8_t)(1u << number % 8);
    if (!table->kind || self->visited[number / 8] & bit || table->kind & XD_KIND_SPLIT)
        return; /* a SPLIT is compared with the entry it stands for */
    self->visited[number / 8] |= bit;
    self->result->tables++;
    if (is_left_out(self, table))
        self->result->unsynced++;
    else if (table->flags & XD_TABLE_UNSYNCED)
        compare_unsynced(self, number);
    else
        compare_entries(self, number);
    if (xd_level(table) > 1 && self->depth < LEVELS) /* a damaged entry may lead from a level to itself */
        self->path[self->depth++] = (place){.gfn = table->gfn, .number = number, .kind = table->kind};
}

/* Goes on in the directory that the path ends with, until there is a table to enter or the directory is at its end. */
static void go_on(auditor *self)
{
    place *here = &self->path[self->depth - 1];
    const xd_table *table = &self->shadow->tables[here->number];
    if (table->gfn != here->gfn || table->kind != here->kind)
        here->next = XD_ENTRIES; /* freed */
    const uint64_t *entries = xd_page(self->shadow, here->number);
    while (here->next < XD_ENTRIES) {
        uint32_t i = here->next++;
        if ((i && entries[i] == entries[i - 1]) || !xd_is_link(entries[i]))
            continue;
        enter(self, xd_child(entries[i]));
        return;
    }
    self->depth--;
}

xd_auditor *xd_audit_new(const xd_shadow *shadow, const uint32_t *roots, uint32_t level, uint32_t how,
                         const uint64_t *refused, uint32_t refused_count, xd_audit *result)
{
    auditor *self = calloc(1, sizeof(*self) + shadow->max_tables / 8 + 1);
    if (!self)
        return NULL;
    self->shadow = shadow;
    self->result = result;
    self->how = how;
    self->refused = refused;
    self->refused_count = refused_count;
    for (uint32_t i = 0; i < (level == 4 ? 1u : (uint32_t)ROOTS); i++)
        self->roots[i] = roots[i];
    *result = (xd_audit){.tables = 0};
    return self;
}

int xd_audit_step(xd_auditor *self, uint64_t looks)
{
    self->looks = 0;
    do {
        if (self->depth)
            go_on(self);
        else if (self->next_root == ROOTS)
            return 1;
        else if (self->roots[self->next_root++])
            enter(self, self->roots[self->next_root - 1]);
    } while (self->looks < looks);
    return 0;
}

void xd_audit_free(xd_auditor *self)
{
    free(self);
}
