#include "stats.h"

#include <time.h>

_Static_assert(sizeof(xd_stats) <= XD_STATS_SIZE, "the stats fit their page");

static const uint64_t MAGIC = 0x73746174734d4458; /* "XDMstats" */

uint64_t xd_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void xd_histogram_add(xd_histogram *histogram, uint64_t ns)
{
    uint32_t bits = ns > 1 ? 64 - (uint32_t)__builtin_clzll(ns - 1) : 0; /* the least that has ns <= 2^bits */
    uint32_t bucket = bits > XD_HISTOGRAM_FIRST ? bits - XD_HISTOGRAM_FIRST : 0;
    histogram->counts[bucket < XD_HISTOGRAM_BUCKETS ? bucket : XD_HISTOGRAM_BUCKETS - 1]++;
    histogram->sum_ns += ns;
}

void xd_observe(xd_histogram *histogram, uint64_t since)
{
    xd_histogram_add(histogram, xd_now() - since);
}

void xd_timing_taken(xd_timing *timing, uint32_t vcpu, uint64_t now)
{
    if (vcpu < XD_STATS_VCPUS)
        timing->taken_ns[vcpu] = now;
}

void xd_timing_answered(xd_timing *timing, uint32_t vcpu, uint32_t route)
{
    if (vcpu >= XD_STATS_VCPUS || !timing->taken_ns[vcpu])
        return;
    xd_observe(&timing->answers[route < XD_ROUTES ? route : XD_ROUTE_REFUSED], timing->taken_ns[vcpu]);
    timing->taken_ns[vcpu] = 0;
}

void xd_stats_publish(xd_stats *page)
{
    page->version = XD_STATS_VERSION;
    page->size = sizeof(*page);
    __atomic_store_n(&page->magic, MAGIC, __ATOMIC_RELEASE);
}

int xd_stats_valid(const xd_stats *page, uint64_t size)
{
    return size == XD_STATS_SIZE && __atomic_load_n(&page->magic, __ATOMIC_ACQUIRE) == MAGIC &&
           page->version == XD_STATS_VERSION && page->size == sizeof(*page);
}
