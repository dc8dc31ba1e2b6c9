/*
 * Runs of pages.
 *
 * Facts: one scratch table may be named by every entry of every directory, so that 4 tables map 2^36 pages. The number
 * of distinct tables is bounded by the quota, the number of paths to them is not. Consequence: the time of a reader
 * must depend on distinct tables only. Decision: each distinct table is summarised once, children before parents: how
 * many runs it has, how the first one begins and how the last one ends. The summary of two neighbours follows from
 * theirs: if the last run of the one goes on in the first of the other, they are joined. So runs are counted in the
 * time of the distinct tables; the caller lists them only if they are not too many, and listing steps over every
 * subtree that is empty or one single run. Cost: one summary a table for the time of the call.
 */
#include "walk.h"
#include "table.h"

#include <stdlib.h>
#include <string.h>

typedef struct edge {
    uint64_t gpa;        /* of the run's first page, or just after its last */
    uint64_t attributes; /* leaf bits in the place that a 4 KiB leaf has them */
} edge;

typedef struct summary {
    uint64_t runs;
    edge first;
    edge last;
    uint8_t from_start; /* the first run begins at the first byte covered */
    uint8_t to_end;     /* the last run ends at the last byte covered */
    uint8_t done;
} summary;

static const uint64_t ATTRIBUTES =
    XD_WRITABLE | XD_MASK(XD_BIT_PWT) | XD_MASK(XD_BIT_PCD) | XD_MASK(XD_BIT_PAT);

/* Returns the bytes that one entry of this level covers. */
static uint64_t span_of(unsigned level)
{
    return UINT64_C(1) << (XD_FRAME_SHIFT + 9 * (level - 1));
}

static bool join(edge end, edge start)
{
    return end.gpa == start.gpa && end.attributes == start.attributes;
}

/* Returns the summary of the bytes that one present leaf entry maps. */
static summary of_leaf(uint64_t entry, unsigned level)
{
    bool huge = level == 2;
    uint64_t gpa = entry & (huge ? XD_ADDRESS_2M : XD_ADDRESS_4K);
    uint64_t attributes = huge ? xd_attributes_of_2m(entry) : entry & ATTRIBUTES;
    return (summary){.runs = 1,
                     .first = {gpa, attributes},
                     .last = {gpa + span_of(level), attributes},
                     .from_start = 1,
                     .to_end = 1,
                     .done = 1};
}

/* Extends `all` by `next`, which covers the bytes just after it. */
static void append(summary *all, const summary *next)
{
    if (!next->runs) {
        all->to_end = 0;
        return;
    }
    bool joined = all->runs && all->to_end && next->from_start && join(all->last, next->first);
    if (!all->runs)
        all->first = next->first;
    all->runs += next->runs - joined;
    all->last = next->last;
    all->to_end = next->to_end;
}

/* Returns the summary of a table; `summaries` has one by number of each table that was summarised before. */
static const summary *summarise(const xd_shadow *shadow, summary *summaries, uint32_t number)
{
    summary *all = &summaries[number];
    if (all->done)
        return all;
    unsigned level = xd_level(&shadow->tables[number]);
    const uint64_t *entries = xd_page(shadow, number);
    static const summary nothing = {.runs = 0};
    summary sum = nothing;
    for (uint32_t i = 0; i < XD_ENTRIES; i++) {
        uint64_t entry = entries[i];
        summary leaf;
        const summary *next = &nothing;
        if (level > 1 && xd_is_link(entry)) {
            next = summarise(shadow, summaries, xd_child(entry));
        } else if (entry & XD_PRESENT) {
            leaf = of_leaf(entry, level);
            next = &leaf;
        }
        append(&sum, next);
        if (i == 0)
            sum.from_start = next->from_start;
    }
    sum.done = 1;
    *all = sum;
    return all;
}

/* Summarises all tables of a space. Returns the array, which the caller frees, or NULL without memory. */
static summary *summarise_space(const xd_shadow *shadow, const uint32_t *roots, uint32_t level, summary *space)
{
    summary *summaries = calloc((size_t)shadow->used + 1, sizeof(*summaries));
    *space = (summary){.runs = 0};
    if (!summaries)
        return NULL;
    for (uint32_t i = 0; i < (level == 4 ? 1u : 4u); i++) {
        summary none = {.runs = 0};
        append(space, roots[i] ? summarise(shadow, summaries, roots[i]) : &none);
    }
    return summaries;
}

uint64_t xd_count_runs(const xd_shadow *shadow, const uint32_t *roots, uint32_t level)
{
    summary space;
    summary *summaries = summarise_space(shadow, roots, level, &space);
    if (!summaries)
        return UINT64_MAX;
    free(summaries);
    return space.runs;
}

/* Appends pages to the runs, joined with the last run if they continue it. */
static void emit(xd_run *runs, uint64_t *count, uint64_t va, uint64_t length, edge start)
{
    xd_run *last = *count ? &runs[*count - 1] : NULL;
    uint32_t writable = (start.attributes & XD_WRITABLE) != 0;
    uint32_t cache = (uint32_t)(4 * (start.attributes >> XD_BIT_PAT & 1) + 2 * (start.attributes >> XD_BIT_PCD & 1) +
                                (start.attributes >> XD_BIT_PWT & 1));
    if (last && last->va + last->length == va && last->gpa + last->length == start.gpa && last->writable == writable &&
        last->cache == cache) {
        last->length += length;
        return;
    }
    runs[(*count)++] = (xd_run){.va = va, .length = length, .gpa = start.gpa, .writable = writable, .cache = cache};
}

/* Appends the runs below a table, which covers the addresses from `va` on. */
static void list(const xd_shadow *shadow, const summary *summaries, uint32_t number, uint64_t va, xd_run *runs,
                 uint64_t *count)
{
    const summary *sum = &summaries[number];
    unsigned level = xd_level(&shadow->tables[number]);
    uint64_t span = span_of(level);
    if (sum->runs == 1 && sum->from_start && sum->to_end) {
        emit(runs, count, va, span * XD_ENTRIES, sum->first);
        return;
    }
    const uint64_t *entries = xd_page(shadow, number);
    for (uint32_t i = 0; sum->runs && i < XD_ENTRIES; i++) {
        if (level > 1 && xd_is_link(entries[i]))
            list(shadow, summaries, xd_child(entries[i]), va + i * span, runs, count);
        else if (entries[i] & XD_PRESENT)
            emit(runs, count, va + i * span, span, of_leaf(entries[i], level).first);
    }
}

uint64_t xd_list_runs(const xd_shadow *shadow, const uint32_t *roots, uint32_t level, xd_run *runs)
{
    summary space;
    summary *summaries = summarise_space(shadow, roots, level, &space);
    uint64_t count = 0;
    if (!summaries)
        return 0;
    uint64_t span = span_of(level) * XD_ENTRIES;
    for (uint32_t i = 0; i < (level == 4 ? 1u : 4u); i++)
        if (roots[i])
            list(shadow, summaries, roots[i], i * span, runs, &count);
    free(summaries);
    return count;
}

xd_run xd_resolve(const xd_shadow *shadow, const uint32_t *roots, uint32_t level, uint64_t va)
{
    xd_run nothing = {.va = va};
    uint64_t covered = span_of(level) * XD_ENTRIES;
    uint64_t which = va / covered;
    if (which >= (level == 4 ? 1u : 4u))
        return nothing;
    uint32_t number = roots[which];
    while (number) {
        unsigned at = xd_level(&shadow->tables[number]);
        uint64_t entry = xd_page(shadow, number)[va / span_of(at) % XD_ENTRIES];
        if (at > 1 && xd_is_link(entry)) {
            number = xd_child(entry);
            continue;
        }
        if (!(entry & XD_PRESENT))
            return nothing;
        xd_run found;
        uint64_t count = 0;
        edge start = of_leaf(entry, at).first;
        start.gpa += va % span_of(at) & ~(uint64_t)(XD_FRAME_SIZE - 1);
        emit(&found, &count, va & ~(uint64_t)(XD_FRAME_SIZE - 1), XD_FRAME_SIZE, start);
        return found;
    }
    return nothing;
}
