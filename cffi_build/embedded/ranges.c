/*
 * What a server claims by address: a rangeset with a limit, xen/common/rangeset.c, and its users in xen/common/ioreq.c.
 */
#include "ranges.h"

#include "calls.h"
#include "state.h"

#include <string.h>

int emb_ranges_find(const emb_ranges *ranges, uint64_t first, uint64_t last)
{
    uint32_t low = 0, high = ranges->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (ranges->at[middle].last < first)
            low = middle + 1;
        else
            high = middle;
    }
    bool holds = low < ranges->count && ranges->at[low].first <= first && last <= ranges->at[low].last;
    return holds ? (int)low : -1;
}

/* Make room for a range at `at`, or close the gap there. */
static void move(emb_ranges *r, uint32_t at, int by)
{
    uint32_t from = by > 0 ? at : at + 1;
    memmove(&r->at[by > 0 ? at + 1 : at], &r->at[from], (r->count - from) * sizeof(r->at[0]));
    r->count += (uint32_t)by;
}

static int add(emb_ranges *r, uint32_t limit, uint64_t first, uint64_t last)
{
    uint32_t at = 0;
    while (at < r->count && r->at[at].last < first)
        at++;
    if (at < r->count && r->at[at].first <= last)
        return -EEXIST;
    bool below = at && r->at[at - 1].last + 1 == first;
    bool above = at < r->count && last + 1 == r->at[at].first;
    /* One that joins only the next above is made before it is merged with it (rangeset_add_range). */
    if (!below && r->count == limit)
        return -ENOMEM;
    if (below && above) {
        r->at[at - 1].last = r->at[at].last;
        move(r, at, -1);
    } else if (below) {
        r->at[at - 1].last = last;
    } else if (above) {
        r->at[at].first = first;
    } else {
        move(r, at, 1);
        r->at[at].first = first;
        r->at[at].last = last;
    }
    return 0;
}

static int cut(emb_ranges *r, uint32_t limit, uint64_t first, uint64_t last)
{
    int found = emb_ranges_find(r, first, last);
    if (found < 0)
        return -ENOENT;
    uint32_t at = (uint32_t)found;
    uint64_t end = r->at[at].last;
    bool head = r->at[at].first < first, tail = last < end;
    if (head && tail) {
        if (r->count == limit)
            return -ENOMEM;
        move(r, at + 1, 1);
        r->at[at + 1].first = last + 1;
        r->at[at + 1].last = end;
    }
    if (head)
        r->at[at].last = first - 1;
    else if (tail)
        r->at[at].first = last + 1;
    else
        move(r, at, -1);
    return 0;
}

static int change(xd_emb *d, int call, __typeof__(add) *how, uint32_t id, uint32_t kind, uint64_t first,
                  uint64_t last)
{
    int rc = xd_emb_call(d, call);
    if (rc)
        return rc;
    if (first > last || kind >= XD_RANGE_KINDS)
        return -EINVAL;
    pthread_mutex_lock(&d->servers_lock);
    emb_server *s = emb_find_server(d, id);
    rc = s ? how(&s->ranges[kind], d->rules.max_ranges, first, last) : -ENOENT;
    pthread_mutex_unlock(&d->servers_lock);
    return rc;
}

int xd_emb_range_map(xd_emb *d, uint32_t id, uint32_t kind, uint64_t first, uint64_t last)
{
    return change(d, XD_CALL_MAP_RANGE, add, id, kind, first, last);
}

int xd_emb_range_unmap(xd_emb *d, uint32_t id, uint32_t kind, uint64_t first, uint64_t last)
{
    return change(d, XD_CALL_UNMAP_RANGE, cut, id, kind, first, last);
}

int xd_emb_range_count(xd_emb *d, uint32_t id, uint32_t kind)
{
    if (kind >= XD_RANGE_KINDS)
        return -EINVAL;
    pthread_mutex_lock(&d->servers_lock);
    const emb_server *s = emb_find_server(d, id);
    int count = s ? (int)s->ranges[kind].count : -ENOENT;
    pthread_mutex_unlock(&d->servers_lock);
    return count;
}
