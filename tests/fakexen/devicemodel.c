/* libxendevicemodel.so.1 on the fake: the rules of xen/arch/x86/hvm/dm.c and xen/common/ioreq.c that a caller can see. */
#define _GNU_SOURCE
#include "fakexen.h"

#include <string.h>
#include <sys/mman.h>
#include <xen/hvm/ioreq.h>

struct xendevicemodel_handle {
    int unused;
};
static struct xendevicemodel_handle only;

/* A call that the fake only writes down. */
#define NOTED(name, parameters, ...)                                                                                  \
    int name parameters                                                                                               \
    {                                                                                                                 \
        (void)dmod;                                                                                                   \
        return ENTER(domid, U64(domid), __VA_ARGS__);                                                                 \
    }

static int fail(int error)
{
    errno = error;
    return -1;
}

xendevicemodel_handle *xendevicemodel_open(struct xentoollog_logger *logger, unsigned int open_flags)
{
    (void)logger;
    if (ENTER(-1, U64(open_flags)))
        return NULL;
    fake.open_handles++;
    return &only;
}

int xendevicemodel_close(xendevicemodel_handle *dmod)
{
    (void)dmod;
    ENTER(-1, U64(0));
    fake.open_handles--;
    return 0;
}

int xendevicemodel_create_ioreq_server(xendevicemodel_handle *dmod, domid_t domid, int handle_bufioreq, ioservid_t *id)
{
    (void)dmod;
    if (ENTER(domid, U64(domid), U64(handle_bufioreq)))
        return -1;
    if (fake.stage == 1)
        return fail(EINVAL);
    for (ioservid_t next = 0; next < FAKE_SERVERS; next++) {
        if (!fake.servers[next].alive) {
            fake.servers[next].alive = 1;
            fake.servers[next].slots = mmap(NULL, FRAME_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
            *id = next;
            return 0;
        }
    }
    return fail(ENOSPC);
}

int xendevicemodel_get_ioreq_server_info(xendevicemodel_handle *dmod, domid_t domid, ioservid_t id,
                                         xen_pfn_t *ioreq_gfn, xen_pfn_t *bufioreq_gfn, evtchn_port_t *bufioreq_port)
{
    (void)dmod, (void)bufioreq_port;
    if (ENTER(domid, U64(domid), U64(id)))
        return -1;
    /* Asking for frames would have Xen take them from the guest: nobody here should. */
    if (ioreq_gfn || bufioreq_gfn)
        return fail(EINVAL);
    return fake_live_server(id);
}

int xendevicemodel_set_ioreq_server_state(xendevicemodel_handle *dmod, domid_t domid, ioservid_t id, int enabled)
{
    (void)dmod;
    if (ENTER(domid, U64(domid), U64(id), U64(enabled)) || fake_live_server(id))
        return -1;
    fake.servers[id].enabled = enabled;
    /* The channels' numbers appear in the slots when the server is enabled, not before. */
    struct ioreq *slots = fake.servers[id].slots;
    for (unsigned int vcpu = 0; enabled && vcpu < FAKE_VCPUS; vcpu++)
        slots[vcpu].vp_eport = fake_vp_eport(id, vcpu);
    return 0;
}

int xendevicemodel_destroy_ioreq_server(xendevicemodel_handle *dmod, domid_t domid, ioservid_t id)
{
    (void)dmod;
    if (ENTER(domid, U64(domid), U64(id)) || fake_live_server(id))
        return -1;
    fake_drop_server(id);
    return 0;
}

int xendevicemodel_map_mem_type_to_ioreq_server(xendevicemodel_handle *dmod, domid_t domid, ioservid_t id,
                                                uint16_t type, uint32_t flags)
{
    (void)dmod;
    if (ENTER(domid, U64(domid), U64(id), U64(type), U64(flags)) || fake_live_server(id))
        return -1;
    if (type != HVMMEM_ioreq_server || flags & ~XEN_DMOP_IOREQ_MEM_ACCESS_WRITE)
        return fail(EINVAL);
    if (flags == 0) {
        if (fake.claim != id)
            return fail(EINVAL);
        for (unsigned int gfn = 0; gfn < FAKE_FRAMES; gfn++)
            if (fake.types[gfn] == HVMMEM_ioreq_server)
                fake.types[gfn] = HVMMEM_ram_rw;
        fake.claim = -1;
        return 0;
    }
    if (fake.claim >= 0)
        return fail(EBUSY);
    for (unsigned int gfn = 0; gfn < FAKE_FRAMES; gfn++)
        if (fake.types[gfn] == HVMMEM_ioreq_server)
            return fail(EBUSY);
    fake.claim = id;
    return 0;
}

int xendevicemodel_set_mem_type(xendevicemodel_handle *dmod, domid_t domid, hvmmem_type_t mem_type, uint64_t first_pfn,
                                uint32_t nr)
{
    (void)dmod;
    if (ENTER(domid, U64(domid), U64(mem_type), U64(first_pfn), U64(nr)))
        return -1;
    if (fake.stage == 1 || nr != 1 || first_pfn >= FAKE_FRAMES || mem_type > HVMMEM_ioreq_server || mem_type == HVMMEM_unused)
        return fail(EINVAL);
    int *type = &fake.types[first_pfn];
    if (fake.paged_out[first_pfn] > 0) {
        fake.paged_out[first_pfn]--;
        return fail(EAGAIN);
    }
    if (mem_type == HVMMEM_ioreq_server && (fake.claim < 0 || *type != HVMMEM_ram_rw))
        return fail(EINVAL);
    if (mem_type == HVMMEM_ram_rw && *type != HVMMEM_ram_rw && *type != HVMMEM_ioreq_server)
        return fail(EINVAL);
    if (*type == HVMMEM_ioreq_server && mem_type != HVMMEM_ram_rw)
        return fail(EINVAL);
    *type = (int)mem_type;
    return 0;
}

int xendevicemodel_nr_vcpus(xendevicemodel_handle *dmod, domid_t domid, unsigned int *vcpus)
{
    (void)dmod;
    *vcpus = FAKE_VCPUS;
    return ENTER(domid, U64(domid));
}

int xendevicemodel_track_dirty_vram(xendevicemodel_handle *dmod, domid_t domid, uint64_t first_pfn, uint32_t nr,
                                    unsigned long *dirty_bitmap)
{
    (void)dmod;
    memset(dirty_bitmap, 0xa5, (nr + 7) / 8);
    return ENTER(domid, U64(domid), U64(first_pfn), U64(nr));
}

int xendevicemodel_modified_memory_bulk(xendevicemodel_handle *dmod, domid_t domid,
                                        struct xen_dm_op_modified_memory_extent extents[], uint32_t nr)
{
    (void)dmod;
    for (uint32_t i = 0; i < nr; i++)
        if (ENTER(domid, U64(domid), U64(extents[i].first_pfn), U64(extents[i].nr)))
            return -1;
    return 0;
}

int xendevicemodel_map_io_range_to_ioreq_server(xendevicemodel_handle *dmod, domid_t domid, ioservid_t id, int is_mmio,
                                                uint64_t start, uint64_t end)
{
    (void)dmod;
    if (ENTER(domid, U64(domid), U64(id), U64(is_mmio), U64(start), U64(end)) || fake_live_server(id))
        return -1;
    return start > end ? fail(EINVAL) : 0;
}

int xendevicemodel_unmap_io_range_from_ioreq_server(xendevicemodel_handle *dmod, domid_t domid, ioservid_t id,
                                                    int is_mmio, uint64_t start, uint64_t end)
{
    (void)dmod;
    if (ENTER(domid, U64(domid), U64(id), U64(is_mmio), U64(start), U64(end)) || fake_live_server(id))
        return -1;
    return start > end ? fail(EINVAL) : 0;
}

NOTED(xendevicemodel_map_pcidev_to_ioreq_server,
      (xendevicemodel_handle *dmod, domid_t domid, ioservid_t id, uint16_t segment, uint8_t bus, uint8_t device,
       uint8_t function),
      U64(id), U64(segment), U64(bus), U64(device), U64(function))
NOTED(xendevicemodel_unmap_pcidev_from_ioreq_server,
      (xendevicemodel_handle *dmod, domid_t domid, ioservid_t id, uint16_t segment, uint8_t bus, uint8_t device,
       uint8_t function),
      U64(id), U64(segment), U64(bus), U64(device), U64(function))
NOTED(xendevicemodel_set_pci_intx_level,
      (xendevicemodel_handle *dmod, domid_t domid, uint16_t segment, uint8_t bus, uint8_t device, uint8_t intx,
       unsigned int level),
      U64(segment), U64(bus), U64(device), U64(intx), U64(level))
NOTED(xendevicemodel_set_isa_irq_level,
      (xendevicemodel_handle *dmod, domid_t domid, uint8_t irq, unsigned int level), U64(irq), U64(level))
NOTED(xendevicemodel_set_pci_link_route, (xendevicemodel_handle *dmod, domid_t domid, uint8_t link, uint8_t irq),
      U64(link), U64(irq))
NOTED(xendevicemodel_inject_msi,
      (xendevicemodel_handle *dmod, domid_t domid, uint64_t msi_addr, uint32_t msi_data), U64(msi_addr), U64(msi_data))
NOTED(xendevicemodel_inject_event,
      (xendevicemodel_handle *dmod, domid_t domid, int vcpu, uint8_t vector, uint8_t type, uint32_t error_code,
       uint8_t insn_len, uint64_t extra),
      U64(vcpu), U64(vector), U64(type), U64(error_code), U64(insn_len), U64(extra))
NOTED(xendevicemodel_modified_memory,
      (xendevicemodel_handle *dmod, domid_t domid, uint64_t first_pfn, uint32_t nr), U64(first_pfn), U64(nr))
NOTED(xendevicemodel_relocate_memory,
      (xendevicemodel_handle *dmod, domid_t domid, uint32_t size, uint64_t src_gfn, uint64_t dst_gfn), U64(size),
      U64(src_gfn), U64(dst_gfn))
NOTED(xendevicemodel_pin_memory_cacheattr,
      (xendevicemodel_handle *dmod, domid_t domid, uint64_t start, uint64_t end, uint32_t type), U64(start), U64(end),
      U64(type))
NOTED(xendevicemodel_shutdown, (xendevicemodel_handle *dmod, domid_t domid, unsigned int reason), U64(reason))

int xendevicemodel_restrict(xendevicemodel_handle *dmod, domid_t domid)
{
    (void)dmod;
    return ENTER(domid, U64(domid));
}
