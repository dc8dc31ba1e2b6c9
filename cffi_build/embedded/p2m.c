#define _GNU_SOURCE
#include "p2m.h"

#include "calls.h"
#include "sim_share.h"
#include "state.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

int xd_emb_type(const xd_emb *d, uint64_t gfn)
{
    return (int)emb_type(d, gfn);
}

uint64_t xd_emb_entries(const xd_emb *d)
{
    return __atomic_load_n(&d->entries, __ATOMIC_ACQUIRE);
}

void emb_change_type(xd_emb *d, uint64_t gfn, uint32_t type)
{
    uint32_t old = d->types[gfn];
    __atomic_store_n(&d->types[gfn], (uint8_t)type, __ATOMIC_SEQ_CST);
    if ((old == XD_P2M_IOREQ_SERVER) != (type == XD_P2M_IOREQ_SERVER))
        __atomic_fetch_add(&d->entries, type == XD_P2M_IOREQ_SERVER ? 1 : (uint64_t)-1, __ATOMIC_ACQ_REL);
}

void emb_bump(xd_emb *d)
{
    __atomic_fetch_add(&d->generation, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&d->retrying, __ATOMIC_SEQ_CST))
        syscall(SYS_futex, &d->generation, FUTEX_WAKE_PRIVATE, EMB_MAX_VCPUS, NULL, NULL, 0);
}

/*
 * The flush of stale translations (ept_sync_domain): a vCPU that was in the guest before the type changed may still be
 * about to store; one that enters now sees the new type. Only the former are waited for. A translation lasts for one
 * access, so this is short, but for a thread that lost its CPU in the middle of it.
 */
void emb_types_changed(xd_emb *d)
{
    for (uint32_t i = 0; i < d->nr_vcpus; i++) {
        const uint32_t *where = &d->vcpus[i].where;
        uint32_t word = __atomic_load_n(where, __ATOMIC_SEQ_CST);
        if ((word & EMB_PHASE_MASK) != XD_PHASE_GUEST)
            continue;
        while (__atomic_load_n(where, __ATOMIC_SEQ_CST) == word)
            sched_yield();
    }
    emb_bump(d);
}

int xd_emb_set_type(xd_emb *d, uint64_t gfn, uint64_t count, int type)
{
    if (gfn > d->frames || count > d->frames - gfn || type < 0 || type >= XD_P2M_TYPES)
        return -EINVAL;
    pthread_mutex_lock(&d->p2m);
    for (uint64_t i = 0; i < count; i++)
        emb_change_type(d, gfn + i, (uint32_t)type);
    emb_types_changed(d);
    pthread_mutex_unlock(&d->p2m);
    return 0;
}

int xd_emb_set_mem_types(xd_emb *d, uint32_t hvmmem, const uint64_t *gfns, int count, int *errors)
{
    int failed = 0;
    pthread_mutex_lock(&d->p2m);
    for (int i = 0; i < count; i++) {
        uint64_t gfn = gfns[i];
        int rc = -xd_emb_call(d, XD_CALL_SET_MEM_TYPE);
        if (!rc && (gfn >= d->frames || hvmmem >= sizeof(d->rules.change_to)))
            rc = EINVAL;
        bool needs_claim = d->rules.has_claim && !d->rules.shadow_paging;
        if (!rc && needs_claim && d->rules.change_to[hvmmem] == XD_P2M_IOREQ_SERVER && d->owner < 0)
            rc = EINVAL;
        if (!rc)
            rc = d->rules.change_errno[d->types[gfn]][hvmmem];
        if (!rc)
            emb_change_type(d, gfn, d->rules.change_to[hvmmem]);
        errors[i] = rc;
        failed += rc != 0;
    }
    emb_types_changed(d);
    pthread_mutex_unlock(&d->p2m);
    return __atomic_load_n(&d->gone, __ATOMIC_SEQ_CST) ? -ESRCH : failed;
}

int xd_emb_log_dirty(xd_emb *d, int on)
{
    /* Shadow paging changes no types for it, and asks for none: sh_enable_log_dirty, xen/arch/x86/mm/shadow/common.c. */
    if (d->rules.shadow_paging)
        return 0;
    pthread_mutex_lock(&d->p2m);
    int rc = on && d->rules.has_claim && d->entries ? -EBUSY : 0;
    uint32_t from = on ? XD_P2M_RAM_RW : XD_P2M_RAM_LOGDIRTY, to = on ? XD_P2M_RAM_LOGDIRTY : XD_P2M_RAM_RW;
    for (uint64_t gfn = 0; !rc && gfn < d->frames; gfn++)
        if (d->types[gfn] == from)
            emb_change_type(d, gfn, to);
    emb_types_changed(d);
    pthread_mutex_unlock(&d->p2m);
    return rc;
}

/* A frame whose type was a reason to look twice becomes plain RAM: marked dirty, or populated on demand. */
void emb_settle(xd_emb *d, uint64_t gfn)
{
    pthread_mutex_lock(&d->p2m);
    if (d->rules.store[emb_type(d, gfn)] == XD_LOOK_SETTLE) {
        emb_change_type(d, gfn, XD_P2M_RAM_RW);
        emb_count(d, XD_EMB_SETTLED);
    }
    pthread_mutex_unlock(&d->p2m);
}

/*
 * Frames go: guest_remove_page, p2m_remove_entry. Their content goes with them: what a device model still has mapped
 * reads zero; of a shared domain it is the old frame, as on Xen. Returns 1 if any of them was there, so that device models must be told; 0 if none was.
 */
int emb_remove(xd_emb *d, uint64_t gfn, uint64_t count)
{
    if (gfn > d->frames || count > d->frames - gfn)
        return -EINVAL;
    int there = 0;
    pthread_mutex_lock(&d->p2m);
    for (uint64_t i = gfn; i < gfn + count; i++) {
        there |= d->types[i] != XD_P2M_MMIO_DM;
        emb_change_type(d, i, XD_P2M_MMIO_DM);
    }
    emb_types_changed(d);
    int rc = 0;
    if (d->share)
        rc = emb_share_remove(d, gfn, count);
    else if (count && fallocate(d->ram_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(gfn << EMB_SHIFT),
                                (off_t)(count << EMB_SHIFT)))
        rc = -errno;
    pthread_mutex_unlock(&d->p2m);
    return rc ? rc : there;
}
