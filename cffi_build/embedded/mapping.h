#ifndef XD_EMB_MAPPING_H
#define XD_EMB_MAPPING_H
#include "domain.h"

#include <stdint.h>

/*
 * Foreign mappings: the domain's frames in a device model's address space. The device model's thread calls these.
 * `domain`: see domain.h.
 */

/*
 * Returns the address of a mapping of all frames, frame n at n * 4096: where xd_emb_map_frames maps if it may choose.
 * Called by tests.
 */
char *xd_emb_window(const xd_emb *domain);

/*
 * Maps frames `first` to `first + count - 1` at *address, replacing what is there, or where it likes if that is 0; then
 * *address receives where. errors[i] receives 0 or a positive errno; touching that page is SIGBUS. Returns 0 or -errno.
 * Called by hypervisor/embedded/port.py.
 */
int xd_emb_map_frames(xd_emb *domain, uint64_t first, int count, int *errors, uint64_t *address);

/*
 * Undoes xd_emb_map_frames, of the same `address` and `count`. Returns 0 or -errno. Called by
 * hypervisor/embedded/port.py.
 */
int xd_emb_unmap_frames(xd_emb *domain, uint64_t address, int count);

/*
 * Lets `count` pages at `address` vanish from a mapping, as when the guest gave them back: touching them is SIGBUS
 * until they are mapped again. Returns 0 or -errno. Called by tests.
 */
int xd_emb_vanish(xd_emb *domain, uint64_t address, int count);

#endif
