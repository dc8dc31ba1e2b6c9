#define _GNU_SOURCE
#include "sim_share.h"

#include "calls.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * The file of frames grows by so many; a device model can have so many references, each mapping counted; and so many
 * bits of a word are an errno.
 */
enum { EMB_GROWTH = 256, EMB_MOST_REFERENCES = 1 << 22, EMB_ERRNO_BITS = 16 };

struct xd_emb_mappings {
    xd_emb *domain;
    uint32_t *held; /* by frame of the file; under p2m */
    uint64_t nr_frames, total;
};

/*
 * Facts: a mapping beyond the end of its file is SIGBUS, and device models get these descriptors. What follows: the
 * seal, without which one of them could end the hypervisor.
 */
static int seal(int fd)
{
    return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL) ? -errno : 0;
}

void *emb_new_shared(const char *name, size_t bytes, int *fd)
{
    *fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (*fd < 0)
        return NULL;
    void *memory = MAP_FAILED;
    if (!ftruncate(*fd, (off_t)bytes) && !seal(*fd))
        memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    if (memory != MAP_FAILED)
        return memory;
    close(*fd);
    *fd = -1;
    return NULL;
}

void emb_ring(int fd)
{
    uint64_t one = 1;
    if (write(fd, &one, sizeof(one)) != sizeof(one) && errno != EAGAIN)
        abort();
}

bool emb_rings(int fd)
{
    struct pollfd one = { .fd = fd, .events = POLLIN };
    return poll(&one, 1, 0) > 0;
}

static int make_wake_fds(xd_emb *d)
{
    for (uint32_t i = 0; i < d->nr_vcpus; i++) {
        d->vcpus[i].wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (d->vcpus[i].wake_fd < 0)
            return -errno;
    }
    return 0;
}

/* Grow the file of frames to `count` frames. The new ones belong to no frame of the guest. */
static int grow(xd_emb *d, uint64_t count)
{
    struct emb_share *s = d->share;
    struct emb_frame *frames = realloc(s->frames, count * sizeof(*frames));
    if (frames)
        s->frames = frames;
    uint64_t *spare = realloc(s->spare, count * sizeof(*spare));
    if (spare)
        s->spare = spare;
    if (!frames || !spare)
        return -ENOMEM;
    struct stat file; /* a device model may have made it larger than this: the seal only keeps it from being cut */
    if (fstat(d->ram_fd, &file) ||
        ((uint64_t)file.st_size < count << EMB_SHIFT && ftruncate(d->ram_fd, (off_t)(count << EMB_SHIFT))))
        return -errno;
    for (uint64_t i = s->nr_frames; i < count; i++)
        frames[i] = (struct emb_frame){ .refs = 0 };
    s->nr_frames = count;
    return 0;
}

int xd_emb_share(xd_emb *d)
{
    if (d->share)
        return -EBUSY;
    d->share = calloc(1, sizeof(*d->share));
    if (!d->share)
        return -ENOMEM;
    struct emb_share *s = d->share;
    s->numbers = calloc(d->frames, sizeof(*s->numbers));
    int rc = s->numbers ? grow(d, d->frames) : -ENOMEM;
    if (!rc)
        rc = seal(d->ram_fd);
    if (!rc)
        rc = make_wake_fds(d);
    if (rc) {
        emb_unshare(d);
        return rc;
    }
    for (uint64_t gfn = 0; gfn < d->frames; gfn++) {
        s->numbers[gfn] = gfn;
        s->frames[gfn].guests = true;
    }
    return 0;
}

void emb_unshare(xd_emb *d)
{
    struct emb_share *s = d->share;
    if (!s)
        return;
    for (uint32_t i = 0; i < d->nr_vcpus; i++) {
        if (d->vcpus[i].wake_fd >= 0)
            close(d->vcpus[i].wake_fd);
        d->vcpus[i].wake_fd = -1;
    }
    free(s->frames);
    free(s->numbers);
    free(s->spare);
    free(s);
    d->share = NULL;
}

int xd_emb_ram_fd(const xd_emb *d)
{
    return d->ram_fd;
}

int xd_emb_slots_fd(xd_emb *d, const char *memory)
{
    pthread_mutex_lock(&d->servers_lock);
    const emb_page *page = d->pages;
    while (page && page->memory != memory)
        page = page->next;
    int fd = page ? page->fd : -EINVAL;
    pthread_mutex_unlock(&d->servers_lock);
    return fd;
}

static int punch(xd_emb *d, uint64_t first, uint64_t count)
{
    return fallocate(d->ram_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(first << EMB_SHIFT),
                     (off_t)(count << EMB_SHIFT))
               ? -errno
               : 0;
}

/* Add a frame to the spare ones. If it cannot be cleared now, its memory is lost to the domain; that is no error. */
static void make_spare(xd_emb *d, uint64_t frame)
{
    if (!punch(d, frame, 1))
        d->share->spare[d->share->nr_spare++] = frame;
}

xd_emb_mappings *xd_emb_mappings_new(xd_emb *d)
{
    xd_emb_mappings *mappings = d->share ? calloc(1, sizeof(*mappings)) : NULL;
    if (mappings)
        mappings->domain = d;
    return mappings;
}

static void put_one(xd_emb *d, uint64_t frame)
{
    struct emb_frame *one = &d->share->frames[frame];
    if (--one->refs || one->guests)
        return;
    d->share->nr_stale--;
    make_spare(d, frame);
}

void xd_emb_mappings_free(xd_emb_mappings *mappings)
{
    pthread_mutex_lock(&mappings->domain->p2m);
    for (uint64_t frame = 0; frame < mappings->nr_frames; frame++)
        for (; mappings->held[frame]; mappings->held[frame]--)
            put_one(mappings->domain, frame);
    pthread_mutex_unlock(&mappings->domain->p2m);
    free(mappings->held);
    free(mappings);
}

/* Make room for every frame that the file has. The caller holds p2m. */
static int make_room(xd_emb_mappings *mappings)
{
    uint64_t count = mappings->domain->share->nr_frames;
    if (mappings->nr_frames == count)
        return 0;
    uint32_t *held = realloc(mappings->held, count * sizeof(*held));
    if (!held)
        return -ENOMEM;
    for (uint64_t frame = mappings->nr_frames; frame < count; frame++)
        held[frame] = 0;
    mappings->held = held;
    mappings->nr_frames = count;
    return 0;
}

int xd_emb_frames_get(xd_emb_mappings *mappings, uint64_t first, int count, uint64_t *words)
{
    xd_emb *d = mappings->domain;
    int rc = count <= 0 ? -EINVAL : xd_emb_call(d, XD_CALL_MAP_FRAMES);
    if (!rc && mappings->total + (uint64_t)count > EMB_MOST_REFERENCES)
        rc = -ENOMEM;
    if (rc)
        return rc;
    pthread_mutex_lock(&d->p2m);
    rc = make_room(mappings);
    for (int i = 0; i < count && !rc; i++) {
        uint64_t gfn = first + (uint64_t)i;
        words[i] = gfn < first || gfn >= d->frames ? EINVAL : d->rules.map_errno[d->types[gfn]];
        if (words[i])
            continue;
        uint64_t frame = d->share->numbers[gfn];
        words[i] = frame << EMB_ERRNO_BITS;
        d->share->frames[frame].refs++;
        mappings->held[frame]++;
        mappings->total++;
    }
    pthread_mutex_unlock(&d->p2m);
    return rc;
}

int xd_emb_frames_put(xd_emb_mappings *mappings, const uint64_t *words, int count)
{
    int rc = 0;
    pthread_mutex_lock(&mappings->domain->p2m);
    for (int i = 0; i < count && !rc; i++) {
        uint64_t frame = words[i] >> EMB_ERRNO_BITS;
        if (words[i] & ((1u << EMB_ERRNO_BITS) - 1))
            continue;
        if (frame >= mappings->nr_frames || !mappings->held[frame]) {
            rc = -EINVAL;
            continue;
        }
        mappings->held[frame]--;
        mappings->total--;
        put_one(mappings->domain, frame);
    }
    pthread_mutex_unlock(&mappings->domain->p2m);
    return rc;
}

uint64_t xd_emb_frames_stale(xd_emb *d)
{
    pthread_mutex_lock(&d->p2m);
    uint64_t stale = d->share ? d->share->nr_stale : 0;
    pthread_mutex_unlock(&d->p2m);
    return stale;
}

/* Give the guest another frame for one that a device model has mapped. */
static int replace(xd_emb *d, uint64_t gfn)
{
    struct emb_share *s = d->share;
    uint64_t old = s->numbers[gfn], made = s->nr_frames;
    if (!s->nr_spare) {
        int rc = grow(d, made + EMB_GROWTH);
        if (rc)
            return rc;
        for (uint64_t frame = s->nr_frames; frame > made; frame--)
            s->spare[s->nr_spare++] = frame - 1;
    }
    uint64_t new = s->spare[s->nr_spare - 1];
    void *at = d->ram + (gfn << EMB_SHIFT);
    if (mmap(at, EMB_FRAME, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, d->ram_fd,
             (off_t)(new << EMB_SHIFT)) == MAP_FAILED)
        return -errno;
    s->nr_spare--;
    s->nr_stale++;
    s->frames[old].guests = false;
    s->frames[new].guests = true;
    s->numbers[gfn] = new;
    return 0;
}

int emb_share_remove(xd_emb *d, uint64_t gfn, uint64_t count)
{
    struct emb_share *s = d->share;
    int rc = 0;
    for (uint64_t i = gfn, end; i < gfn + count && !rc; i = end) {
        end = i + 1;
        if (s->frames[s->numbers[i]].refs) {
            rc = replace(d, i);
            continue;
        }
        while (end < gfn + count && s->numbers[end] == s->numbers[i] + (end - i) && !s->frames[s->numbers[end]].refs)
            end++;
        rc = punch(d, s->numbers[i], end - i);
    }
    return rc;
}
