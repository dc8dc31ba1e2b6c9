/*
 * Runs of pages.
 *
 * Facts: one scratch table may be named by every entry of every directory, so that 4 tables map 2^36 pages. The number
 * of distinct tables is bounded by the quota, the number of paths to them is not. Consequence: the time of a reader
 * must depend on distinct tables only. Decision: each distinct table is summarised once, children before parents: how
 * many runs it has, how the first one begins and how the last one ends. The summary of two neighbours follows from
 * theirs: if the last run of the one goes on in the first of the other, they are joined. So runs are counted in the
 * time of the distinct tables; the caller lists them only if they are not too many, and listing steps over every
 * subtree that is empty or one single run. Cost: one summary a table for the time of the walk.
 *
 * Facts: between two calls the guest may store to any table, and tables come and go. Consequence: a summary, or the way
 * down to where the walk is, may be out of date. Decision: a summary holds for the frame and kind of the table that it
 * was made of, and a table on the way that is another one by now is left. A table that was listed without a new run is
 * summarised again before its next visit, so no number of visits to a table that the guest has cleared since then keeps
 * the walk from its end.
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
    uint64_t gfn; /* the table that it is of; its kind, and of a SPLIT its attributes */
    uint32_t kind;
    uint32_t attributes;
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

/* How far the walk came in a table. */
typedef struct place {
    uint64_t gfn;
    uint32_t number;
    uint32_t kind;
    uint32_t attributes;
    uint32_t next;   /* entry */
    uint64_t va;     /* while listing: of the first byte that the table covers */
    uint64_t before; /* while listing: runs that were begun before this table */
    summary sum;     /* while summarising: of the entries before `next` */
} place;

enum { LEVELS = 4, ROOTS = 4 };

struct xd_walker {
    const xd_shadow *shadow;
    uint64_t looks;  /* entries that this call may still look at */
    uint32_t level;  /* of the roots */
    uint32_t root_count;
    place roots[ROOTS];
    uint32_t next_root;
    uint32_t depth;  /* of `path` */
    uint32_t summing; /* of `sums` */
    place path[LEVELS]; /* while listing: from a root down to where the walk is */
    place sums[LEVELS]; /* the tables that are being summarised, each below the one before */
    summary space;
    xd_run last;     /* the last run that was begun, which may still grow */
    uint64_t begun;  /* runs */
    summary summaries[]; /* by number of the table */
};
typedef struct xd_walker walker;

static place place_of(const walker *self, uint32_t number)
{
    const xd_table *table = &self->shadow->tables[number];
    uint32_t attributes = table->kind & XD_KIND_SPLIT ? table->attributes : 0;
    return (place){.gfn = table->gfn, .number = number, .kind = table->kind, .attributes = attributes};
}

/* Returns whether the place is still one in the table that it was. */
static bool is_there(const walker *self, const place *at)
{
    place now = place_of(self, at->number);
    return at->number && now.gfn == at->gfn && now.kind == at->kind && now.attributes == at->attributes;
}

/* Returns the summary of a table, or NULL if it has none. */
static const summary *summary_of(const walker *self, uint32_t number)
{
    const summary *sum = &self->summaries[number];
    place was = {.gfn = sum->gfn, .number = number, .kind = sum->kind, .attributes = sum->attributes};
    return sum->done && is_there(self, &was) ? sum : NULL;
}

static void end_summary(walker *self)
{
    const place *at = &self->sums[--self->summing];
    summary *sum = &self->summaries[at->number];
    *sum = at->sum;
    sum->gfn = at->gfn;
    sum->kind = at->kind;
    sum->attributes = at->attributes;
    sum->done = 1;
}

/* Goes on with the summaries that are begun. Returns whether all are made. */
static bool summarise(walker *self)
{
    const summary nothing = {.runs = 0};
    while (self->summing) {
        place *at = &self->sums[self->summing - 1];
        if (at->next == XD_ENTRIES || !is_there(self, at)) {
            end_summary(self);
            continue;
        }
        const uint64_t *entries = xd_page(self->shadow, at->number);
        unsigned level = at->kind & XD_LEVEL_MASK;
        for (; at->next < XD_ENTRIES && self->looks; at->next++, self->looks--) {
            uint64_t entry = entries[at->next];
            summary leaf;
            const summary *next = &nothing;
            if (level > 1 && xd_is_link(entry)) {
                next = summary_of(self, xd_child(entry));
                if (!next) {
                    self->sums[self->summing++] = place_of(self, xd_child(entry));
                    break;
                }
            } else if (entry & XD_PRESENT) {
                leaf = of_leaf(entry, level);
                next = &leaf;
            }
            append(&at->sum, next);
            if (at->next == 0)
                at->sum.from_start = next->from_start;
        }
        if (!self->looks)
            return false;
    }
    return true;
}

xd_walker *xd_walk_new(const xd_shadow *shadow, const uint32_t *roots, uint32_t level)
{
    walker *self = calloc(1, sizeof(*self) + ((size_t)shadow->max_tables + 1) * sizeof(summary));
    if (!self)
        return NULL;
    self->shadow = shadow;
    self->level = level;
    self->root_count = level == 4 ? 1 : ROOTS;
    for (uint32_t i = 0; i < self->root_count; i++)
        self->roots[i] = place_of(self, roots[i]);
    return self;
}

void xd_walk_free(xd_walker *self)
{
    free(self);
}

int xd_walk_count(xd_walker *self, uint64_t looks, uint64_t *runs)
{
    static const summary nothing = {.runs = 0};
    self->looks = looks;
    while (summarise(self)) {
        if (self->next_root == self->root_count) {
            self->next_root = 0;
            *runs = self->space.runs;
            return 1;
        }
        const place *root = &self->roots[self->next_root];
        const summary *next = is_there(self, root) ? summary_of(self, root->number) : &nothing;
        if (!next) {
            self->sums[self->summing++] = *root;
            continue;
        }
        append(&self->space, next);
        self->next_root++;
    }
    return 0;
}

static xd_run run_of(uint64_t va, uint64_t length, edge start)
{
    uint32_t cache = (uint32_t)(4 * (start.attributes >> XD_BIT_PAT & 1) + 2 * (start.attributes >> XD_BIT_PCD & 1) +
                                (start.attributes >> XD_BIT_PWT & 1));
    return (xd_run){.va = va,
                    .length = length,
                    .gpa = start.gpa,
                    .writable = (start.attributes & XD_WRITABLE) != 0,
                    .cache = cache};
}

/* Adds pages to the last run if they continue it; else they begin a run, and what was the last one is written to `runs`. */
static void emit(walker *self, uint64_t va, uint64_t length, edge start, xd_run *runs, uint32_t *count)
{
    xd_run *last = &self->last;
    xd_run run = run_of(va, length, start);
    if (self->begun && last->va + last->length == va && last->gpa + last->length == run.gpa &&
        last->writable == run.writable && last->cache == run.cache) {
        last->length += length;
        return;
    }
    if (self->begun++)
        runs[(*count)++] = *last;
    *last = run;
}

/* Goes down into a table that covers the addresses from `va` on. */
static void enter(walker *self, place table, uint64_t va)
{
    table.va = va;
    table.before = self->begun;
    self->path[self->depth++] = table;
}

/*
 * Lists the bytes from `va` on that a table covers. Goes down into it unless it is empty or one run. Returns false if
 * it must be summarised first, and begins that.
 */
static bool list_table(walker *self, place table, uint64_t va, xd_run *runs, uint32_t *count)
{
    const summary *sum = summary_of(self, table.number);
    if (!sum)
        self->sums[self->summing++] = table;
    else if (sum->runs == 1 && sum->from_start && sum->to_end)
        emit(self, va, span_of(table.kind & XD_LEVEL_MASK) * XD_ENTRIES, sum->first, runs, count);
    else if (sum->runs)
        enter(self, table, va);
    return sum != NULL;
}

/* Leaves the table at the end of the path. */
static void leave(walker *self)
{
    const place *at = &self->path[--self->depth];
    if (self->begun == at->before)
        self->summaries[at->number].done = 0;
}

/* Goes on with the table at the end of the path, until it is at its end, or another table is to be listed first. */
static void list_entries(walker *self, xd_run *runs, uint32_t capacity, uint32_t *count)
{
    place *at = &self->path[self->depth - 1];
    const uint64_t *entries = xd_page(self->shadow, at->number);
    unsigned level = at->kind & XD_LEVEL_MASK;
    uint64_t span = span_of(level);
    uint32_t depth = self->depth;
    while (at->next < XD_ENTRIES && self->looks && *count < capacity && self->depth == depth) {
        uint64_t entry = entries[at->next];
        uint64_t va = at->va + at->next * span;
        self->looks--;
        if (level > 1 && xd_is_link(entry)) {
            if (!list_table(self, place_of(self, xd_child(entry)), va, runs, count))
                return;
        } else if (entry & XD_PRESENT) {
            emit(self, va, span, of_leaf(entry, level).first, runs, count);
        }
        at->next++;
    }
}

uint32_t xd_walk_list(xd_walker *self, uint64_t looks, xd_run *runs, uint32_t capacity, int *ended)
{
    uint32_t count = 0;
    self->looks = looks;
    *ended = 0;
    while (self->looks && count < capacity && summarise(self)) {
        if (self->depth) {
            const place *at = &self->path[self->depth - 1];
            if (at->next == XD_ENTRIES || !is_there(self, at))
                leave(self);
            else
                list_entries(self, runs, capacity, &count);
        } else if (self->next_root < self->root_count) {
            const place *root = &self->roots[self->next_root];
            uint64_t va = self->next_root * span_of(self->level) * XD_ENTRIES;
            if (!is_there(self, root) || list_table(self, *root, va, runs, &count))
                self->next_root++;
        } else {
            if (self->begun)
                runs[count++] = self->last;
            *ended = 1;
            break;
        }
    }
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
        edge start = of_leaf(entry, at).first;
        start.gpa += va % span_of(at) & ~(uint64_t)(XD_FRAME_SIZE - 1);
        return run_of(va & ~(uint64_t)(XD_FRAME_SIZE - 1), XD_FRAME_SIZE, start);
    }
    return nothing;
}
