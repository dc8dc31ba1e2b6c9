#ifndef XD_STATS_H
#define XD_STATS_H
#include <stdint.h>

/* Classic buckets: counts[i] are the observations of at most 2^(XD_HISTOGRAM_FIRST + i) ns that no bucket before has;
 * the last bucket has all others. */
enum { XD_HISTOGRAM_FIRST = 8, XD_HISTOGRAM_BUCKETS = 26 };
typedef struct xd_histogram {
    uint64_t counts[XD_HISTOGRAM_BUCKETS];
    uint64_t sum_ns;
} xd_histogram;

/* What became of a request, hence how long that may take. Whoever handles a request returns it with the answer. */
typedef enum xd_route {
    XD_ROUTE_REFUSED,         /* malformed, or of a kind that nobody here serves */
    XD_ROUTE_LEAF_STORE,      /* to a page table, all in C */
    XD_ROUTE_DIRECTORY_STORE, /* may add and remove tables */
    XD_ROUTE_UNTRACKED_STORE, /* to plain memory: a late store */
    XD_ROUTE_DROPPED_STORE,   /* to what is no RAM */
    XD_ROUTE_REGISTER_READ,
    XD_ROUTE_REGISTER_WRITE, /* notifications among them, which create and destroy spaces */
    XD_ROUTE_INVALIDATE,
    XD_ROUTES
} xd_route;

enum { XD_STATS_VCPUS = 128 };

typedef struct xd_timing {
    xd_histogram answers[XD_ROUTES];
    xd_histogram syncs;                /* syncing a space at its submission */
    uint64_t taken_ns[XD_STATS_VCPUS]; /* by vCPU: when its request was taken; 0 once it is answered */
} xd_timing;

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
    uint64_t audit_overdue;
    uint64_t refused_spaces;
    uint64_t cut_recordings;
    uint64_t given_up_requests;
    uint64_t refused_states;
    uint64_t unsynced_births;
    uint64_t settled_tables;
    xd_timing timing;
} xd_counters;

/*
 * All times are nanoseconds of CLOCK_MONOTONIC, which all processes of a host share. Functions that write belong to the
 * thread that serves the domain, the page's one writer.
 */

/*
 * Returns the time. Called by instance.py, ioreq/doorbell.py, ioreq/loop.py, ppgtt/syncing.py, stats/page.py,
 * stats/reader.py, vgpu/device.py, vgpu/engines.py, burst.c, slots.c, shadow.c, gpu.c, submit.c and sync.c; any thread
 * may.
 */
uint64_t xd_now(void);

/* Counts one observation of `ns` nanoseconds in `histogram`. Called by submit.c and tests. */
void xd_histogram_add(xd_histogram *histogram, uint64_t ns);

/*
 * Counts an observation that began at the time `since` and ends now in `histogram`. Called by ppgtt/syncing.py and
 * sync.c.
 */
void xd_observe(xd_histogram *histogram, uint64_t since);

/* Notes in `timing` that the request of `vcpu` was taken at the time `now`. Called by slots.c. */
void xd_timing_taken(xd_timing *timing, uint32_t vcpu, uint64_t now);

/*
 * Counts in `timing` the time since the request of `vcpu` was taken; nothing if it was not. `route` is an xd_route; any
 * other number counts as XD_ROUTE_REFUSED. Called by slots.c.
 */
void xd_timing_answered(xd_timing *timing, uint32_t vcpu, uint32_t route);

enum { XD_STATS_VERSION = 5, XD_STATS_SIZE = 4096, XD_STATS_PROGRAM = 32 };

/*
 * The page a daemon keeps in its run directory; `magic` is written last. A reader knows by `pid` and `process_start`
 * whether who wrote it still lives. Every count is one aligned word, so it is never torn; two words may be of two
 * moments.
 */
typedef struct xd_stats {
    uint64_t magic;
    uint32_t version;
    uint32_t size; /* of this structure */
    uint64_t domid;
    uint64_t pid;
    uint64_t process_start; /* proc(5), /proc/PID/stat, starttime */
    uint64_t start_time;    /* seconds since 1970 */
    uint64_t predecessors;  /* daemons that served this domain from this run directory before */
    uint64_t ended;         /* 1 after an orderly end */
    uint64_t heartbeat_ns;  /* when the event loop last looked after its domain */
    uint64_t wakeups;       /* of the serve loop */
    uint64_t bursts;        /* calls of xd_burst_run */
    uint64_t burst_requests;  /* answered by C alone */
    uint64_t handed_requests; /* that C left to Python */
    uint64_t vcpus;
    uint64_t generation;
    uint64_t max_tables;
    uint64_t relaxed;  /* 1 or 0, as the next */
    uint64_t quiesced;
    char program[XD_STATS_PROGRAM]; /* version of xengt-dm, with zeros to its end */
    xd_counters counters;
} xd_stats;

/*
 * Writes version, size and magic of a page whose other fields are set; from then on readers take it for valid. Called
 * by stats/page.py.
 */
void xd_stats_publish(xd_stats *page);

/*
 * Returns 1 if `size` bytes at `page` are a page of this version that was published, else 0. Called by stats/page.py,
 * in any thread of any process.
 */
int xd_stats_valid(const xd_stats *page, uint64_t size);

#endif
