#ifndef XD_STATS_H
#define XD_STATS_H
#include <stdint.h>

/* What the hot path counts. One writer, the daemon; readers map the page read-only and may see a count a moment old. */
typedef struct xd_counters {
    uint64_t store_traps;
    uint64_t mmio_traps;
    uint64_t invalidate_requests;
    uint64_t unknown_requests;
    uint64_t malformed_requests;
    uint64_t spurious_events;
    uint64_t straggler_stores;
    uint64_t dropped_stores;
    uint64_t tables;
    uint64_t protected_pages;
    uint64_t opened_pages;
    uint64_t syncs;
    uint64_t submissions;
    uint64_t spaces;
    uint64_t reclaimed_spaces;
    uint64_t invalid_entries;
    uint64_t unsupported_entries;
    uint64_t quota_entries;
    uint64_t unprotectable_entries;
    uint64_t ignored_notifications;
    uint64_t vanished_pages;
    uint64_t audits;
    uint64_t audit_mismatches;
} xd_counters;

enum { XD_STATS_VERSION = 1, XD_STATS_SIZE = 4096 };

/* The page a daemon keeps in its run directory; `magic` is written last. */
typedef struct xd_stats {
    uint64_t magic;
    uint32_t version;
    uint32_t counters_size;
    uint64_t pid;
    uint64_t domid;
    uint64_t wakeups; /* of the serve loop */
    xd_counters counters;
} xd_stats;

/* Write the header of a zeroed page of XD_STATS_SIZE bytes. xd_stats_valid: 1 if a page of `size` bytes is one of ours. */
void xd_stats_init(xd_stats *page, uint64_t pid, uint64_t domid);
int xd_stats_valid(const xd_stats *page, uint64_t size);

#endif
