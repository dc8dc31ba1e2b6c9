#define _GNU_SOURCE
#include "foreignmemory.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { FRAME_SHIFT = 12 };

/*
 * Facts: on a failure libxenforeignmemory unmaps the address that it was given (tools/libs/foreignmemory/linux.c). That
 * leaves a hole in a window that the caller still counts as its own: the next mmap of any thread may land there, and
 * the caller's unmap would then take that away. What follows: the hole is filled with a reservation, by
 * MAP_FIXED_NOREPLACE, because another thread may have been faster. Cost: then the window is lost, but no other memory
 * with it.
 */
static void reserve_again(uintptr_t address, size_t bytes)
{
    void *at = (void *)address;
    (void)mmap(at, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
}

uintptr_t xd_xen_map_frames(xenforeignmemory_handle *fmem, domid_t domid, uint64_t first_gfn, uint32_t count,
                            uintptr_t address, int *errors, int *failure)
{
    if (count == 0 || first_gfn > UINT64_MAX - count) {
        *failure = EINVAL;
        return 0;
    }
    xen_pfn_t *gfns = malloc(count * sizeof *gfns);
    if (gfns == NULL) {
        *failure = ENOMEM;
        return 0;
    }
    for (uint32_t i = 0; i < count; i++) {
        gfns[i] = first_gfn + i;
        errors[i] = 0;
    }
    /*
     * A frame that is paged out is asked for again every 100 us by the library itself, without end: a host whose pager
     * died blocks its device models here.
     */
    void *at = xenforeignmemory_map2(fmem, domid, (void *)address, PROT_READ | PROT_WRITE, address ? MAP_FIXED : 0,
                                     count, gfns, errors);
    int error = errno;
    free(gfns);
    if (at == NULL) {
        if (address)
            reserve_again(address, (size_t)count << FRAME_SHIFT);
        *failure = error;
        return 0;
    }
    /* The header promises errno values; the kernel's are negative, and the library passes them on as they are. */
    int gone = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (errors[i] < 0)
            errors[i] = -errors[i];
        gone |= errors[i] == ESRCH;
    }
    if (gone) {
        (void)xenforeignmemory_unmap(fmem, at, count);
        if (address)
            reserve_again(address, (size_t)count << FRAME_SHIFT);
        *failure = ESRCH;
        return 0;
    }
    *failure = 0;
    return (uintptr_t)at;
}
