"""The one place where an errno of Xen's libraries becomes an exception.

What an errno means depends on the call. EBUSY of a claim means that another device model has the claim; EBUSY of an
injection means that an earlier event has not been delivered yet. The table has the meanings for each call, taken from
the code that returns the errno.
"""

from __future__ import annotations

from errno import (
    E2BIG,
    EACCES,
    EAGAIN,
    EBUSY,
    EEXIST,
    EFAULT,
    EINVAL,
    ENOENT,
    ENOMEM,
    ENOSPC,
    ENOTCONN,
    ENOTTY,
    ENXIO,
    EOPNOTSUPP,
    EPERM,
    ERANGE,
    ESRCH,
)
from typing import Final

from xengt_dm.errors import CallError, DomainGoneError, HostError
from xengt_dm.hypervisor.port import NEEDS_HAP

_OPEN: Final = {
    ENOENT: "no such device node: this is not a Xen control domain, or its module is not loaded (modprobe xen-privcmd "
    "xen-evtchn)",
    ENXIO: "the device node has no driver: this kernel does not run on Xen",
    EACCES: "not permitted to open the device node: run as root, or hand the node to this user",
}

#: xen/arch/x86/hvm/dm.c dm_op; the kernel's half is drivers/xen/privcmd.c privcmd_ioctl_dm_op.
_ANY_DM_OP: Final = {
    EPERM: "not permitted: this is not the control domain, or the handle is restricted to another domain, or the "
    "ioreq server was created by another domain",
    EINVAL: "refused: is the domain HVM or PVH?",
    EOPNOTSUPP: "this Xen does not know the operation",
    ENOTTY: "this kernel has no dm_op ioctl: Linux 4.11 or later is needed",
    E2BIG: "more data than the kernel passes on (module parameters dm_op_max_nr_bufs, dm_op_buf_max_size)",
    EFAULT: "the hypervisor could not read the arguments",
}

#: {call: {errno: meaning}}. Each comment names the source, the file that returns the errno; of Xen 4.17 if it is Xen's.
MEANINGS: Final[dict[str, dict[int, str]]] = {
    "xendevicemodel_open": _OPEN,
    "xenforeignmemory_open": _OPEN,
    "xenevtchn_open": _OPEN,
    # xen/common/ioreq.c ioreq_server_create
    "xendevicemodel_create_ioreq_server": {
        ENOSPC: "the domain has its 8 ioreq servers already (a device model that died leaves its server behind)",
        ENOMEM: "Xen has no memory left for an ioreq server",
        EINVAL: "refused: the domain is neither HVM nor PVH, or it is dying",
    },
    # xen/common/ioreq.c ioreq_server_map_io_range: rangesets of at most MAX_NR_IO_RANGES
    "xendevicemodel_map_io_range_to_ioreq_server": {
        EINVAL: "the range ends before it starts",
        EEXIST: "the range overlaps another range of this server",
        ENOMEM: "the server has its 256 ranges already, or Xen has no memory left",
    },
    "xendevicemodel_unmap_io_range_from_ioreq_server": {
        EINVAL: "the range ends before it starts",
        ENOENT: "the server does not have this range",
    },
    "xendevicemodel_map_pcidev_to_ioreq_server": {
        EINVAL: "a PCI device is 0..31 and a function 0..7",
        EEXIST: "this server has the PCI function already",
    },
    "xendevicemodel_unmap_pcidev_from_ioreq_server": {
        EINVAL: "a PCI device is 0..31 and a function 0..7",
        ENOENT: "the server does not have this PCI function",
    },
    # xen/arch/x86/mm/p2m.c p2m_set_ioreq_server, xen/arch/x86/hvm/dm.c
    "xendevicemodel_map_mem_type_to_ioreq_server": {
        EOPNOTSUPP: NEEDS_HAP,
        EBUSY: "another ioreq server claims the type, or pages of a former claim were never reset to ram_rw",
        EINVAL: "the claim belongs to another ioreq server, or Xen does not know this type or access",
        ENOMEM: "Xen ran out of memory on its walk over the domain's pages",
    },
    # xen/arch/x86/hvm/dm.c set_mem_type, allow_p2m_type_change
    "xendevicemodel_set_mem_type": {
        EOPNOTSUPP: NEEDS_HAP,
        EINVAL: "there is no such frame, or no server claims the type, or the frame's present type does not allow this "
        "change (ioreq_server is only reached from ram_rw, and only left to it)",
        EAGAIN: "the page is paged out, or shared and cannot be unshared",
        EBUSY: "the page's type changed under the call",
        ENOMEM: "Xen has no memory left to split a superpage",
    },
    # xen/common/ioreq.c
    "xendevicemodel_get_ioreq_server_info": {},
    "xendevicemodel_set_ioreq_server_state": {},
    "xendevicemodel_destroy_ioreq_server": {},
    # xen/arch/x86/hvm/dm.c set_pci_intx_level, set_isa_irq_level, set_pci_link_route
    "xendevicemodel_set_pci_intx_level": {EINVAL: "segment and bus must be 0, device 0..31, pin 0..3, level 0 or 1"},
    "xendevicemodel_set_isa_irq_level": {EINVAL: "an ISA interrupt is 0..15 and its level 0 or 1"},
    "xendevicemodel_set_pci_link_route": {EINVAL: "a link is 0..3 and its ISA interrupt 0..15"},
    # xen/arch/x86/hvm/dm.c inject_event; hvm/irq.c hvm_inject_msi
    "xendevicemodel_inject_event": {
        EINVAL: "no such vCPU",
        EBUSY: "the vCPU has not taken the event injected before",
    },
    "xendevicemodel_inject_msi": {
        EINVAL: "a delivery mode other than fixed and lowest priority",
        ERANGE: "vector 0",
    },
    # xen/arch/x86/hvm/dm.c track_dirty_vram, modified_memory; arch/x86/mm/hap/hap.c
    "xendevicemodel_track_dirty_vram": {EINVAL: "too many pages (at most 32768), or past the domain's memory"},
    "xendevicemodel_modified_memory": {EINVAL: "the frames lie past the domain's memory"},
    "xendevicemodel_modified_memory_bulk": {EINVAL: "the frames lie past the domain's memory"},
    "xendevicemodel_relocate_memory": {},
    "xendevicemodel_pin_memory_cacheattr": {EINVAL: "no such cache attribute, or the range ends before it starts"},
    "xendevicemodel_shutdown": {EINVAL: "no such shutdown reason"},
    "xendevicemodel_nr_vcpus": {EOPNOTSUPP: "this Xen is older than 4.15 and cannot say how many vCPUs a domain has"},
    # Linux drivers/xen/privcmd.c, xen/common/memory.c
    "xenforeignmemory_map": {
        EPERM: "not permitted: this is not the control domain, or the handle is restricted to another domain",
        EINVAL: "the kernel refused the range: no frames, or an address in the middle of a larger mapping",
        ENOMEM: "no memory or address space left for the mapping, or an address in the middle of a larger mapping",
    },
    "xenforeignmemory_unmap": {EINVAL: "this is not a mapping, or not a whole one"},
    # xen/common/memory.c acquire_resource, xen/common/ioreq.c ioreq_server_get_frame
    "xenforeignmemory_map_resource": {
        EOPNOTSUPP: "this kernel or Xen cannot map the ioreq pages: Linux 4.18 and Xen 4.11 or later are needed",
        ENOTTY: "this kernel cannot map the ioreq pages: Linux 4.18 or later is needed",
        EPERM: "not permitted: the handle is restricted to another domain, or the server's pages were already mapped "
        "through guest frames",
        EINVAL: "the server has no such page",
        ENOMEM: "Xen has no memory left for the ioreq pages",
    },
    "xenforeignmemory_unmap_resource": {},
    "xenforeignmemory_resource_size": {EOPNOTSUPP: "this kernel or Xen cannot tell the size"},
    # Linux drivers/xen/evtchn.c, xen/common/event_channel.c evtchn_bind_interdomain
    "xenevtchn_bind_interdomain": {
        EINVAL: "the domain's end is not a free channel for this domain: the server is gone, or another process is "
        "bound to it",
        EACCES: "the handle is restricted to another domain",
        ENOSPC: "this domain has no event channel left",
    },
    "xenevtchn_unbind": {ENOTCONN: "the port is not bound here", EINVAL: "no such port"},
    "xenevtchn_notify": {ENOTCONN: "the port is not bound here", EINVAL: "no such port"},
    "xentoolcore_restrict_all": {
        EOPNOTSUPP: "this kernel cannot confine a handle: Linux 4.11 or later is needed",
        ENOTTY: "this kernel cannot confine a handle: Linux 4.11 or later is needed",
        EINVAL: "a handle is already restricted to another domain",
    },
}

#: Calls for which ENOENT means that the ioreq server is gone, because nothing else that they name can be missing.
#: Facts: Xen destroys the servers of a dying domain at once, but the domain itself exists until the last reference to
#: it is dropped, and our own mappings are such references. So ESRCH comes only after we unmap (seen on 4.17 and 4.20).
SERVER_CALLS: Final = frozenset(
    {
        "xendevicemodel_get_ioreq_server_info",
        "xendevicemodel_map_io_range_to_ioreq_server",
        "xendevicemodel_map_mem_type_to_ioreq_server",
        "xendevicemodel_map_pcidev_to_ioreq_server",
        "xendevicemodel_set_ioreq_server_state",
        "xendevicemodel_destroy_ioreq_server",
        "xenforeignmemory_map_resource",
    }
)


def meaning(call: str, errno: int) -> str | None:
    """Returns what ``errno`` of ``call`` means, or None where the sources say no more than the errno's name."""
    if errno == ESRCH:
        return "the domain is gone"
    if errno == ENOENT and call in SERVER_CALLS:
        return "the ioreq server is gone, as it is when the domain is dying"
    own = MEANINGS.get(call, {}).get(errno)
    if own is None and call.startswith("xendevicemodel_"):
        return _ANY_DM_OP.get(errno)
    return own


def failure(call: str, domid: int | None, errno: int) -> CallError:
    """The exception for a failed ``call``, to be raised by the caller; DomainGoneError where the domain is gone."""
    gone = errno == ESRCH or (errno == ENOENT and call in SERVER_CALLS)
    return (DomainGoneError if gone else HostError)(call, domid, errno, meaning(call, errno))
