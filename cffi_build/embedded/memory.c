/* Guest memory and p2m types of the embedded hypervisor. */
#define _GNU_SOURCE
#include "domain.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Guest memory is memory of two masters: each piece is one access of the widest aligned width. */
static uint32_t piece_of(uint64_t gpa, uint32_t size)
{
    uint32_t piece = 8;
    while (piece > size || (gpa & (piece - 1)))
        piece >>= 1;
    return piece;
}

void emb_ram_store(xd_emb *d, uint64_t gpa, const uint8_t *from, uint32_t size)
{
    while (size) {
        uint32_t piece = piece_of(gpa, size);
        void *to = d->ram + gpa;
        uint64_t value = 0;
        memcpy(&value, from, piece);
        switch (piece) {
        case 8: __atomic_store_n((uint64_t *)to, value, __ATOMIC_RELEASE); break;
        case 4: __atomic_store_n((uint32_t *)to, (uint32_t)value, __ATOMIC_RELEASE); break;
        case 2: __atomic_store_n((uint16_t *)to, (uint16_t)value, __ATOMIC_RELEASE); break;
        default: __atomic_store_n((uint8_t *)to, (uint8_t)value, __ATOMIC_RELEASE); break;
        }
        gpa += piece;
        from += piece;
        size -= piece;
    }
}

void emb_ram_load(const xd_emb *d, uint64_t gpa, uint8_t *to, uint32_t size)
{
    while (size) {
        uint32_t piece = piece_of(gpa, size);
        const void *from = d->ram + gpa;
        uint64_t value;
        switch (piece) {
        case 8: value = __atomic_load_n((const uint64_t *)from, __ATOMIC_ACQUIRE); break;
        case 4: value = __atomic_load_n((const uint32_t *)from, __ATOMIC_ACQUIRE); break;
        case 2: value = __atomic_load_n((const uint16_t *)from, __ATOMIC_ACQUIRE); break;
        default: value = __atomic_load_n((const uint8_t *)from, __ATOMIC_ACQUIRE); break;
        }
        memcpy(to, &value, piece);
        gpa += piece;
        to += piece;
        size -= piece;
    }
}

static int within(const xd_emb *d, uint64_t gpa, uint64_t size)
{
    uint64_t bytes = d->frames << EMB_SHIFT;
    return size <= UINT32_MAX && gpa <= bytes && size <= bytes - gpa;
}

int xd_emb_peek(const xd_emb *d, uint64_t gpa, void *to, uint64_t size)
{
    if (!within(d, gpa, size))
        return -EINVAL;
    emb_ram_load(d, gpa, to, (uint32_t)size);
    return 0;
}

int xd_emb_poke(xd_emb *d, uint64_t gpa, const void *from, uint64_t size)
{
    if (!within(d, gpa, size))
        return -EINVAL;
    emb_ram_store(d, gpa, from, (uint32_t)size);
    return 0;
}

/* Types. */
int xd_emb_type(const xd_emb *d, uint64_t gfn)
{
    return (int)emb_type(d, gfn);
}

uint64_t xd_emb_entries(const xd_emb *d)
{
    return __atomic_load_n(&d->entries, __ATOMIC_ACQUIRE);
}

/* Under p2m. */
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
        if (!rc && d->rules.has_claim && d->rules.change_to[hvmmem] == XD_P2M_IOREQ_SERVER && d->owner < 0)
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
 * reads zero. Returns 1 if any of them was there, so that device models must be told; 0 if none was.
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
    int rc = !count ? 0 : fallocate(d->ram_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(gfn << EMB_SHIFT),
                                    (off_t)(count << EMB_SHIFT));
    pthread_mutex_unlock(&d->p2m);
    return rc ? -errno : there;
}

/* Foreign mappings. */
char *xd_emb_window(const xd_emb *d)
{
    return (char *)d->window;
}

static bool in_window(const xd_emb *d, uint64_t address)
{
    uint64_t start = (uint64_t)(uintptr_t)d->window;
    return address >= start && address < start + (d->frames << EMB_SHIFT);
}

static int map_at(void *address, uint64_t bytes, int fd, uint64_t offset)
{
    void *got = mmap(address, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, (off_t)offset);
    return got == MAP_FAILED ? -errno : 0;
}

int xd_emb_map_frames(xd_emb *d, uint64_t first, int count, int *errors, uint64_t *address)
{
    int rc = count <= 0 ? -EINVAL : xd_emb_call(d, XD_CALL_MAP_FRAMES);
    if (rc)
        return rc;
    uint64_t n = (uint64_t)count;
    pthread_mutex_lock(&d->p2m);
    for (int i = 0; i < count; i++) {
        uint64_t gfn = first + (uint64_t)i;
        errors[i] = gfn < first || gfn >= d->frames ? EINVAL : d->rules.map_errno[d->types[gfn]];
    }
    char *at = (char *)(uintptr_t)*address;
    bool inside = first < d->frames && n <= d->frames - first;
    char *own = inside ? (char *)d->window + (first << EMB_SHIFT) : NULL;
    if (!at && inside)
        at = own;
    if (at && at == own) {
        if (d->vanished)
            rc = map_at(at, n << EMB_SHIFT, d->ram_fd, first << EMB_SHIFT);
    } else {
        if (!at) {
            void *got = mmap(NULL, n << EMB_SHIFT, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            at = got == MAP_FAILED ? NULL : got;
            rc = at ? 0 : -errno;
        }
        /* Beyond the end of its file a page is SIGBUS, as a frame that privcmd could not map is. */
        if (!rc)
            rc = map_at(at, n << EMB_SHIFT, d->void_fd, 0);
        for (int i = 0, end; !rc && i < count; i = end) {
            for (end = i + 1; end < count && !errors[end] == !errors[i]; end++)
                ;
            if (!errors[i])
                rc = map_at(at + ((uint64_t)i << EMB_SHIFT), (uint64_t)(end - i) << EMB_SHIFT, d->ram_fd,
                            (first + (uint64_t)i) << EMB_SHIFT);
        }
    }
    pthread_mutex_unlock(&d->p2m);
    *address = (uint64_t)(uintptr_t)at;
    return rc;
}

int xd_emb_unmap_frames(xd_emb *d, uint64_t address, int count)
{
    if (in_window(d, address))
        return 0;
    return munmap((void *)(uintptr_t)address, (size_t)count << EMB_SHIFT) ? -errno : 0;
}

int xd_emb_vanish(xd_emb *d, uint64_t address, int count)
{
    pthread_mutex_lock(&d->p2m);
    d->vanished = true;
    int rc = map_at((void *)(uintptr_t)address, (uint64_t)count << EMB_SHIFT, d->void_fd, 0);
    pthread_mutex_unlock(&d->p2m);
    return rc;
}
