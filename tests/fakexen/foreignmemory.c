/* libxenforeignmemory.so.1 on the fake. */
#define _GNU_SOURCE
#include "fakexen.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <xen/memory.h>

struct xenforeignmemory_handle {
    int unused;
};
struct xenforeignmemory_resource_handle {
    void *address;
    size_t bytes;
};
static struct xenforeignmemory_handle only;

xenforeignmemory_handle *xenforeignmemory_open(struct xentoollog_logger *logger, unsigned int open_flags)
{
    (void)logger;
    if (ENTER(-1, U64(open_flags)))
        return NULL;
    fake.open_handles++;
    return &only;
}

int xenforeignmemory_close(xenforeignmemory_handle *fmem)
{
    (void)fmem;
    ENTER(-1, U64(0));
    fake.open_handles--;
    return 0;
}

int xenforeignmemory_restrict(xenforeignmemory_handle *fmem, domid_t domid)
{
    (void)fmem;
    return ENTER(domid, U64(domid));
}

/*
 * As Linux has it: a domain that is gone, or a frame that is no RAM, is a negative errno for the frame and no failure
 * of the call; a failure of the call unmaps the address that was given.
 */
void *xenforeignmemory_map2(xenforeignmemory_handle *fmem, uint32_t dom, void *addr, int prot, int flags, size_t pages,
                            const xen_pfn_t arr[], int err[])
{
    (void)fmem;
    uint8_t *at = mmap(addr, pages * FRAME_SIZE, prot, MAP_SHARED | flags, fake.empty_fd, 0);
    if (at == MAP_FAILED)
        return NULL;
    int failed = ENTER(dom, U64(dom), U64(arr[0]), U64(pages));
    if (failed && errno != ESRCH) {
        int error = errno;
        munmap(at, pages * FRAME_SIZE);
        errno = error;
        return NULL;
    }
    for (size_t i = 0; i < pages; i++) {
        err[i] = failed ? -ESRCH : -EINVAL;
        if (failed || fake.stage == 1 || arr[i] >= FAKE_FRAMES || fake.types[arr[i]] == HVMMEM_mmio_dm)
            continue;
        err[i] = 0;
        if (mmap(at + i * FRAME_SIZE, FRAME_SIZE, prot, MAP_SHARED | MAP_FIXED, fake.ram_fd,
                 (off_t)(arr[i] * FRAME_SIZE)) == MAP_FAILED)
            abort();
    }
    return at;
}

void *xenforeignmemory_map(xenforeignmemory_handle *fmem, uint32_t dom, int prot, size_t pages, const xen_pfn_t arr[],
                           int err[])
{
    return xenforeignmemory_map2(fmem, dom, NULL, prot, 0, pages, arr, err);
}

int xenforeignmemory_unmap(xenforeignmemory_handle *fmem, void *addr, size_t pages)
{
    (void)fmem;
    return ENTER(-1, U64(pages)) ? -1 : munmap(addr, pages * FRAME_SIZE);
}

xenforeignmemory_resource_handle *xenforeignmemory_map_resource(xenforeignmemory_handle *fmem, domid_t domid,
                                                                unsigned int type, unsigned int id,
                                                                unsigned long frame, unsigned long nr_frames,
                                                                void **paddr, int prot, int flags)
{
    (void)fmem;
    if (ENTER(domid, U64(domid), U64(type), U64(id), U64(frame), U64(nr_frames)) || fake_live_server((ioservid_t)id))
        return NULL;
    if (type != XENMEM_resource_ioreq_server || frame != XENMEM_resource_ioreq_server_frame_ioreq(0) ||
        nr_frames != 1 || flags != 0 || *paddr != NULL) {
        errno = EINVAL;
        return NULL;
    }
    /* The same memory for each mapping: an alias of the page that the server has. */
    void *at = mremap(fake.servers[id].slots, 0, FRAME_SIZE, MREMAP_MAYMOVE);
    if (at == MAP_FAILED)
        return NULL;
    if (mprotect(at, FRAME_SIZE, prot))
        abort();
    xenforeignmemory_resource_handle *handle = malloc(sizeof *handle);
    handle->address = *paddr = at;
    handle->bytes = FRAME_SIZE;
    fake.open_handles++;
    return handle;
}

int xenforeignmemory_unmap_resource(xenforeignmemory_handle *fmem, xenforeignmemory_resource_handle *fres)
{
    (void)fmem;
    if (ENTER(-1, U64(0)))
        return -1;
    munmap(fres->address, fres->bytes);
    free(fres);
    fake.open_handles--;
    return 0;
}

int xenforeignmemory_resource_size(xenforeignmemory_handle *fmem, domid_t domid, unsigned int type, unsigned int id,
                                   size_t *size)
{
    (void)fmem;
    *size = 2 * FRAME_SIZE;
    return ENTER(domid, U64(domid), U64(type), U64(id));
}
