"""How the embedded hypervisor's errors look from Python."""

from __future__ import annotations

import errno

from xengt_dm.errors import CallError, DomainGoneError, HostError, XengtError

#: What an errno means for the very call, where Xen's sources say more than its name does.
MEANINGS = {
    ("xendevicemodel_create_ioreq_server", errno.ENOSPC): "the domain has as many ioreq servers as Xen allows",
    ("xendevicemodel_map_io_range_to_ioreq_server", errno.EEXIST): "the server has a range that overlaps",
    ("xendevicemodel_map_io_range_to_ioreq_server", errno.ENOMEM): "the server has as many ranges as Xen allows",
    ("xendevicemodel_unmap_io_range_from_ioreq_server", errno.ENOENT): "the server has no range that holds all of it",
    ("xendevicemodel_map_pcidev_to_ioreq_server", errno.EEXIST): "the server has the PCI function already",
    ("xendevicemodel_map_pcidev_to_ioreq_server", errno.ENOMEM): "the server has as many PCI functions as Xen allows",
    ("xendevicemodel_unmap_pcidev_from_ioreq_server", errno.ENOENT): "the server does not have the PCI function",
    ("xendevicemodel_set_pci_intx_level", errno.EINVAL): "segment and bus must be 0, the pin 0..3",
    (
        "xendevicemodel_map_mem_type_to_ioreq_server",
        errno.EBUSY,
    ): "a server claims the type, or pages of one that went without releasing still have it",
    ("xendevicemodel_map_mem_type_to_ioreq_server", errno.EINVAL): "the server does not own the claim it would release",
    ("xendevicemodel_map_mem_type_to_ioreq_server", errno.EOPNOTSUPP): "this Xen has no claim of memory types",
    ("xenevtchn_bind_interdomain", errno.EINVAL): "the domain has no such channel, or somebody has bound it",
}


class VcpuStoppedError(XengtError):
    """A vCPU can run no more: its domain is destroyed. Ends a guest program quietly."""


class DomainCrashedError(VcpuStoppedError):
    """Xen would have crashed the domain; the message says why."""


class GuestFaultError(XengtError):
    """The instruction ended in a fault for the guest (#GP), which its program did not expect."""


def check(call: str, domid: int, rc: int) -> int:
    """``rc`` if it is no error; else raise what it stands for."""
    if rc >= 0:
        return rc
    raise failure(call, domid, -rc)


def failure(call: str, domid: int, error: int) -> CallError:
    """Returns the exception for an errno of ``call``."""
    return (DomainGoneError if error == errno.ESRCH else HostError)(call, domid, error, MEANINGS.get((call, error)))
