#ifndef XD_XEN_FOREIGNMEMORY_H
#define XD_XEN_FOREIGNMEMORY_H
#include "types.h"

/*
 * Foreign memory: Xen's own functions, of tools/include/xenforeignmemory.h, and one of ours. Xen's return NULL or -1
 * with errno on failure. Any thread may call them; xengt_dm/hypervisor/xen/memory.py does.
 */

xenforeignmemory_handle *xenforeignmemory_open(struct xentoollog_logger *logger, unsigned int open_flags);
int xenforeignmemory_close(xenforeignmemory_handle *fmem);
int xenforeignmemory_restrict(xenforeignmemory_handle *fmem, domid_t domid);

void *xenforeignmemory_map(xenforeignmemory_handle *fmem, uint32_t dom, int prot, size_t pages, const xen_pfn_t arr[],
                           int err[]);
void *xenforeignmemory_map2(xenforeignmemory_handle *fmem, uint32_t dom, void *addr, int prot, int flags, size_t pages,
                            const xen_pfn_t arr[], int err[]);
int xenforeignmemory_unmap(xenforeignmemory_handle *fmem, void *addr, size_t pages);

xenforeignmemory_resource_handle *xenforeignmemory_map_resource(xenforeignmemory_handle *fmem, domid_t domid,
                                                                unsigned int type, unsigned int id,
                                                                unsigned long frame, unsigned long nr_frames,
                                                                void **paddr, int prot, int flags);
int xenforeignmemory_unmap_resource(xenforeignmemory_handle *fmem, xenforeignmemory_resource_handle *fres);
int xenforeignmemory_resource_size(xenforeignmemory_handle *fmem, domid_t domid, unsigned int type, unsigned int id,
                                   size_t *size);

/*
 * Maps the frames first_gfn to first_gfn + count - 1 of domain `domid` for reading and writing, one after the other, at
 * `address`, replacing what is there, or anywhere if that is 0, through the handle `fmem`. errors[i] receives 0, or a
 * positive errno; touching page i is then SIGBUS. Returns the address. On failure returns 0 with a positive errno in
 * *failure: nothing is mapped, and `address` is then a reservation without access. Called by hypervisor/xen/memory.py.
 */
uintptr_t xd_xen_map_frames(xenforeignmemory_handle *fmem, domid_t domid, uint64_t first_gfn, uint32_t count,
                            uintptr_t address, int *errors, int *failure);

#endif
