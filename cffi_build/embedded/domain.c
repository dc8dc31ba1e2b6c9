/* The domain of the embedded hypervisor: how it is made, and how it ends. */
#define _GNU_SOURCE
#include "domain.h"

#include "phases.h"
#include "servers.h"
#include "sim_share.h"
#include "state.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static uint8_t *map_ram(int fd, uint64_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    return at == MAP_FAILED ? NULL : at;
}

xd_emb *xd_emb_new(uint32_t domid, uint64_t frames, uint32_t vcpus, const xd_emb_rules *rules)
{
    if (!frames || !vcpus || vcpus > EMB_MAX_VCPUS || rules->max_servers > EMB_MAX_SERVERS ||
        rules->max_ranges > EMB_MAX_RANGES)
        return NULL;
    xd_emb *d = calloc(1, sizeof(*d));
    if (!d)
        return NULL;
    d->domid = domid;
    d->frames = frames;
    d->nr_vcpus = vcpus;
    d->rules = *rules;
    d->owner = -1;
    d->default_server = -1;
    pthread_mutex_init(&d->p2m, NULL);
    pthread_mutex_init(&d->servers_lock, NULL);
    pthread_mutex_init(&d->channels_lock, NULL);
    pthread_mutex_init(&d->gate, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&d->gate_cond, &monotonic);
    pthread_condattr_destroy(&monotonic);

    d->ram_fd = memfd_create("xengt-dm guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    d->void_fd = memfd_create("xengt-dm void", MFD_CLOEXEC);
    uint64_t bytes = frames << EMB_SHIFT;
    if (d->ram_fd >= 0 && ftruncate(d->ram_fd, (off_t)bytes) == 0) {
        d->ram = map_ram(d->ram_fd, bytes);
        d->window = map_ram(d->ram_fd, bytes);
    }
    d->types = calloc(frames, 1);
    d->vcpus = aligned_alloc(64, vcpus * sizeof(emb_vcpu));
    if (!d->ram || !d->window || !d->types || !d->vcpus || d->void_fd < 0) {
        d->nr_vcpus = 0;
        xd_emb_free(d);
        return NULL;
    }
    memset(d->vcpus, 0, vcpus * sizeof(emb_vcpu));
    for (uint32_t i = 0; i < vcpus; i++) {
        emb_vcpu *v = &d->vcpus[i];
        v->domain = d;
        v->id = i;
        v->held_at = -1;
        v->wake_fd = -1;
        pthread_mutex_init(&v->exec, NULL);
    }
    return d;
}

void xd_emb_free(xd_emb *d)
{
    for (uint32_t i = 0; i < d->nr_vcpus; i++)
        pthread_mutex_destroy(&d->vcpus[i].exec);
    for (emb_page *page = d->pages, *next; page; page = next) {
        next = page->next;
        emb_free_page(page);
    }
    emb_unshare(d);
    if (d->ram)
        munmap(d->ram, d->frames << EMB_SHIFT);
    if (d->window)
        munmap(d->window, d->frames << EMB_SHIFT);
    if (d->ram_fd >= 0)
        close(d->ram_fd);
    if (d->void_fd >= 0)
        close(d->void_fd);
    free(d->types);
    free(d->vcpus);
    pthread_cond_destroy(&d->gate_cond);
    pthread_mutex_destroy(&d->gate);
    pthread_mutex_destroy(&d->channels_lock);
    pthread_mutex_destroy(&d->servers_lock);
    pthread_mutex_destroy(&d->p2m);
    free(d);
}

void xd_emb_destroy(xd_emb *d)
{
    __atomic_store_n(&d->gone, 1, __ATOMIC_SEQ_CST);
    emb_stop_vcpus(d);
}

void xd_emb_crash(xd_emb *d, const char *reason)
{
    pthread_mutex_lock(&d->gate);
    if (!d->reason[0]) {
        strncpy(d->reason, reason, sizeof(d->reason) - 1);
    }
    pthread_mutex_unlock(&d->gate);
    emb_stop_vcpus(d);
}

int emb_why_stopped(const xd_emb *d)
{
    if (__atomic_load_n(&d->gone, __ATOMIC_SEQ_CST))
        return -ESRCH;
    return __atomic_load_n(&d->hold, __ATOMIC_SEQ_CST) & EMB_STOPPED ? -ENOTRECOVERABLE : 0;
}

int xd_emb_stopped(xd_emb *d, char *reason)
{
    if (reason) {
        pthread_mutex_lock(&d->gate);
        memcpy(reason, d->reason, sizeof(d->reason));
        pthread_mutex_unlock(&d->gate);
    }
    return -emb_why_stopped(d);
}

uint64_t xd_emb_counter(const xd_emb *d, int which)
{
    return which < 0 || which >= XD_EMB_COUNTERS ? 0 : __atomic_load_n(&d->counters[which], __ATOMIC_RELAXED);
}
