#ifndef XD_EMB_RANGES_H
#define XD_EMB_RANGES_H
#include "domain.h"

#include <stdint.h>

/*
 * What servers claim by address: a set of ranges for each kind of access. Ranges include both ends; adjacent ones are
 * one range, and count as one.
 *
 * domain: see domain.h. server: its id. kind: XD_RANGE_*. first, last: the ends, both included. Any thread.
 */

/*
 * Kinds, XEN_DMOP_IO_RANGE_*. A PCI function is a range of one number: segment << 16 | bus << 8 | device << 3 |
 * function.
 */
enum { XD_RANGE_PORT = 0, XD_RANGE_MEMORY = 1, XD_RANGE_PCI = 2, XD_RANGE_KINDS = 3 };

/*
 * Claims a range for a server. A hypercall of the device model. Returns 0; -EINVAL if `first` is above `last`; -ENOENT
 * without such a server; -EEXIST if it overlaps a range that the server has; -ENOMEM if the server has the most ranges
 * of this kind. Called by hypervisor/embedded/port.py.
 */
int xd_emb_range_map(xd_emb *domain, uint32_t server, uint32_t kind, uint64_t first, uint64_t last);
/*
 * Gives a range back. A hypercall of the device model. Returns 0; -EINVAL if `first` is above `last`; -ENOENT without
 * such a server, or if no range of it holds all that is given back; -ENOMEM if the rest would be two ranges and the
 * server has the most of this kind. Called by hypervisor/embedded/port.py.
 */
int xd_emb_range_unmap(xd_emb *domain, uint32_t server, uint32_t kind, uint64_t first, uint64_t last);

/*
 * Returns how many ranges of a kind a server has, or -ENOENT, or -EINVAL. No hypercall. Called by
 * hypervisor/embedded/domain.py.
 */
int xd_emb_range_count(xd_emb *domain, uint32_t server, uint32_t kind);

#ifndef XD_CFFI
typedef struct emb_ranges emb_ranges;

/*
 * Returns the index in `ranges` of the range that holds all of first..last, or -1. The caller holds servers_lock.
 * Called by requests.c.
 */
int emb_ranges_find(const emb_ranges *ranges, uint64_t first, uint64_t last);
#endif

#endif
