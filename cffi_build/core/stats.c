#include "stats.h"

_Static_assert(sizeof(xd_stats) <= XD_STATS_SIZE, "the stats fit their page");

static const uint64_t MAGIC = 0x73746174734d4458; /* "XDMstats" */

void xd_stats_init(xd_stats *page, uint64_t pid, uint64_t domid)
{
    page->version = XD_STATS_VERSION;
    page->counters_size = sizeof(page->counters);
    page->pid = pid;
    page->domid = domid;
    __atomic_store_n(&page->magic, MAGIC, __ATOMIC_RELEASE);
}

int xd_stats_valid(const xd_stats *page, uint64_t size)
{
    return size == XD_STATS_SIZE && __atomic_load_n(&page->magic, __ATOMIC_ACQUIRE) == MAGIC &&
           page->version == XD_STATS_VERSION && page->counters_size == sizeof(page->counters);
}
