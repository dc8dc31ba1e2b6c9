/* What a submission has to look at. */
#include "entry_bits.h"
#include "kernels.h"

static bool to_be_attended(const xd_shadow *shadow, const xd_table *table)
{
    return (table->flags & XD_TABLE_OPEN || table->waiting || table->era != shadow->era) &&
           !(table->kind & XD_KIND_SPLIT) && table->attended != shadow->submission;
}

static void attend(xd_shadow *shadow, uint32_t number, uint32_t *numbers, uint32_t *count, uint32_t capacity)
{
    xd_table *table = &shadow->tables[number];
    if (*count == capacity || !to_be_attended(shadow, table))
        return;
    table->attended = shadow->submission;
    numbers[(*count)++] = number;
}

/* Below a directory. Of leaves there are many, most of them need nothing, and looking at one twice costs little. */
static void reach(xd_shadow *shadow, uint32_t number, xd_reached *reached)
{
    xd_table *table = &shadow->tables[number];
    if (table->seen == shadow->traversal)
        return;
    table->seen = shadow->traversal;
    attend(shadow, number, reached->directories, &reached->directory_count, reached->capacity);
    const uint64_t *entries = xd_page(shadow, number);
    bool above_leaves = xd_level(table) == 2;
    uint64_t same = 0;
    for (uint32_t i = 0; i < XD_ENTRIES; i++) {
        if (entries[i] == same || !xd_is_link(entries[i]))
            continue;
        same = entries[i];
        if (above_leaves)
            attend(shadow, xd_child(same), reached->leaves, &reached->leaf_count, reached->capacity);
        else
            reach(shadow, xd_child(same), reached);
    }
}

void xd_reach(xd_shadow *shadow, const uint32_t *roots, uint32_t count, xd_reached *reached)
{
    reached->directory_count = reached->leaf_count = 0;
    if (!shadow->open_tables && !shadow->waiting_tables && !shadow->stale_tables)
        return;
    shadow->traversal++;
    for (uint32_t i = 0; i < count; i++)
        if (roots[i])
            reach(shadow, roots[i], reached);
}

uint32_t xd_close_frames(xd_shadow *shadow, const uint32_t *leaves, uint32_t count, uint64_t *gfns, uint32_t *others,
                         uint32_t *other_count)
{
    uint32_t closed = 0;
    *other_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        const xd_table *table = &shadow->tables[leaves[i]];
        if (!(table->flags & XD_TABLE_OPEN))
            continue;
        xd_set_open(shadow, table->gfn, 0);
        gfns[closed++] = table->gfn;
        /* A leaf frame has at most two shadows, of 4 KiB and of 64 KiB entries. */
        for (uint32_t number = xd_first_of_frame(shadow, table->gfn); number; number = shadow->tables[number].same_frame)
            if (shadow->tables[number].attended != shadow->submission)
                others[(*other_count)++] = number;
    }
    return closed;
}
