#ifndef XD_XEN_DEVICEMODEL_H
#define XD_XEN_DEVICEMODEL_H
#include "types.h"

/*
 * Device-model operations: Xen's own functions, of tools/include/xendevicemodel.h, and two of ours. Xen's return 0, or
 * -1 with errno; ranges include both ends. Any thread may call them. xengt_dm/hypervisor/xen/devicemodel.py does, from
 * the thread that serves the domain.
 */

xendevicemodel_handle *xendevicemodel_open(struct xentoollog_logger *logger, unsigned int open_flags);
int xendevicemodel_close(xendevicemodel_handle *dmod);
int xendevicemodel_restrict(xendevicemodel_handle *dmod, domid_t domid);

int xendevicemodel_create_ioreq_server(xendevicemodel_handle *dmod, domid_t domid, int handle_bufioreq,
                                       ioservid_t *id);
int xendevicemodel_get_ioreq_server_info(xendevicemodel_handle *dmod, domid_t domid, ioservid_t id,
                                         xen_pfn_t *ioreq_gfn, xen_pfn_t *bufioreq_gfn, evtchn_port_t *bufioreq_port);
int xendevicemodel_map_io_range_to_ioreq_server(xendevicemodel_handle *dmod, domid_t domid, ioservid_t id,
                                                int is_mmio, uint64_t start, uint64_t end);
int xendevicemodel_unmap_io_range_from_ioreq_server(xendevicemodel_handle *dmod, domid_t domid, ioservid_t id,
                                                    int is_mmio, uint64_t start, uint64_t end);
int xendevicemodel_map_mem_type_to_ioreq_server(xendevicemodel_handle *dmod, domid_t domid, ioservid_t id,
                                                uint16_t type, uint32_t flags);
int xendevicemodel_map_pcidev_to_ioreq_server(xendevicemodel_handle *dmod, domid_t domid, ioservid_t id,
                                              uint16_t segment, uint8_t bus, uint8_t device, uint8_t function);
int xendevicemodel_unmap_pcidev_from_ioreq_server(xendevicemodel_handle *dmod, domid_t domid, ioservid_t id,
                                                  uint16_t segment, uint8_t bus, uint8_t device, uint8_t function);
int xendevicemodel_set_ioreq_server_state(xendevicemodel_handle *dmod, domid_t domid, ioservid_t id, int enabled);
int xendevicemodel_destroy_ioreq_server(xendevicemodel_handle *dmod, domid_t domid, ioservid_t id);

int xendevicemodel_set_pci_intx_level(xendevicemodel_handle *dmod, domid_t domid, uint16_t segment, uint8_t bus,
                                      uint8_t device, uint8_t intx, unsigned int level);
int xendevicemodel_set_isa_irq_level(xendevicemodel_handle *dmod, domid_t domid, uint8_t irq, unsigned int level);
int xendevicemodel_set_pci_link_route(xendevicemodel_handle *dmod, domid_t domid, uint8_t link, uint8_t irq);
int xendevicemodel_inject_msi(xendevicemodel_handle *dmod, domid_t domid, uint64_t msi_addr, uint32_t msi_data);
int xendevicemodel_inject_event(xendevicemodel_handle *dmod, domid_t domid, int vcpu, uint8_t vector, uint8_t type,
                                uint32_t error_code, uint8_t insn_len, uint64_t extra);

int xendevicemodel_track_dirty_vram(xendevicemodel_handle *dmod, domid_t domid, uint64_t first_pfn, uint32_t nr,
                                    unsigned long *dirty_bitmap);
int xendevicemodel_modified_memory(xendevicemodel_handle *dmod, domid_t domid, uint64_t first_pfn, uint32_t nr);
int xendevicemodel_modified_memory_bulk(xendevicemodel_handle *dmod, domid_t domid,
                                        struct xen_dm_op_modified_memory_extent extents[], uint32_t nr);
int xendevicemodel_relocate_memory(xendevicemodel_handle *dmod, domid_t domid, uint32_t size, uint64_t src_gfn,
                                   uint64_t dst_gfn);
int xendevicemodel_pin_memory_cacheattr(xendevicemodel_handle *dmod, domid_t domid, uint64_t start, uint64_t end,
                                        uint32_t type);
int xendevicemodel_shutdown(xendevicemodel_handle *dmod, domid_t domid, unsigned int reason);
int xendevicemodel_nr_vcpus(xendevicemodel_handle *dmod, domid_t domid, unsigned int *vcpus);

/*
 * Changes the type of each frame gfns[0..count-1] of domain `domid` by a hypercall of its own, through the handle
 * `dmod`; `type` is hvmmem_type_t. errors[i] receives 0 or a positive errno. Returns how many failed, or -ESRCH if the
 * domain is gone; the frames that were not tried then have ESRCH, too. Blocks for up to 51 ms while Xen says that a
 * page is paged out. Called by hypervisor/xen/devicemodel.py.
 */
int xd_xen_set_mem_types(xendevicemodel_handle *dmod, domid_t domid, uint32_t type, const uint64_t *gfns,
                         uint32_t count, int *errors);

/*
 * Returns a logger that says nothing, which is never freed. Xen's libraries print to stderr by default; here each
 * failure becomes an exception. Called by hypervisor/xen/devicemodel.py, hypervisor/xen/events.py and
 * hypervisor/xen/memory.py.
 */
struct xentoollog_logger *xd_xen_quiet_logger(void);

#endif
