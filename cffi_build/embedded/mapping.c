#include "mapping.h"

#include "calls.h"
#include "state.h"

#include <sys/mman.h>

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
