"""The event channels of one device model on Xen. One system call takes the events of all ports."""

from __future__ import annotations

import os

from xengt_dm.errors import CallError
from xengt_dm.hypervisor.port import ChannelCalls
from xengt_dm.hypervisor.xen.errors import failure
from xengt_dm.hypervisor.xen.library import Binding
from xengt_dm.units import CData


class XenEvents:
    """A handle of libxenevtchn, bound to event channels of one domain. Implements EventPort.

    Methods raise HostError, or DomainGoneError if the domain does not exist any more.
    """

    def __init__(self, binding: Binding, domid: int) -> None:
        self._ffi, self._lib = binding
        self._domid = domid
        self._handle = self._lib.xenevtchn_open(self._lib.xd_xen_quiet_logger(), 0)
        if self._handle == self._ffi.NULL:
            raise failure("xenevtchn_open", None, self._ffi.errno)
        self._fd = self._lib.xenevtchn_fd(self._handle)
        # Old kernels block nevertheless (tools/include/xenevtchn.h names 3.12). Kernels that can map the ioreq pages,
        # 4.18 and later, do not.
        os.set_blocking(self._fd, False)
        self._bound: list[int] = []
        self._ports = self._ffi.new("evtchn_port_t[]", 0)
        self._channels: CData = self._ffi.new("xd_xen_channels *", {"handle": self._handle, "fd": self._fd})
        self._drain = self._lib.xd_xen_evtchn_drain
        self._notify = self._lib.xenevtchn_notify

    def close(self) -> None:
        """Closes the handle. The kernel unbinds every port; the domain's ends stay and may be bound again."""
        if self._handle != self._ffi.NULL:
            handle, self._handle = self._handle, self._ffi.NULL
            self._lib.xenevtchn_close(handle)

    @property
    def fd(self) -> int:
        return self._fd

    def bind(self, remote_port: int) -> int:
        port = self._lib.xenevtchn_bind_interdomain(self._handle, self._domid, remote_port)
        if port < 0:
            raise failure("xenevtchn_bind_interdomain", self._domid, self._ffi.errno)
        self._set_bound([*self._bound, port])
        return port

    def unbind(self, port: int) -> None:
        if self._lib.xenevtchn_unbind(self._handle, port) != 0:
            raise failure("xenevtchn_unbind", self._domid, self._ffi.errno)
        self._set_bound([bound for bound in self._bound if bound != port])

    def _set_bound(self, bound: list[int]) -> None:
        self._bound = bound
        self._ports = self._ffi.new("evtchn_port_t[]", bound)
        self._channels.bound, self._channels.nr_bound = self._ports, len(bound)

    @property
    def calls(self) -> ChannelCalls:
        functions: CData = self._lib
        names = ("take", "unmask", "notify")
        return ChannelCalls(
            self._address(self._channels),
            *(self._address(self._ffi.addressof(functions, f"xd_xen_channels_{name}")) for name in names),
        )

    def _address(self, pointer: CData) -> int:
        return int(self._ffi.cast("uintptr_t", pointer))

    def failure(self, call: str, errno: int) -> CallError:
        return failure(call, self._domid, errno)

    def drain(self) -> int:
        """Takes and unmasks all pending events in two system calls; see EventPort.drain.

        Unmasking before the work loses no event: one that arrives while its slot is looked at is delivered again.
        """
        fired = self._drain(self._fd, self._ports, len(self._bound))
        if fired < 0:
            raise failure("read /dev/xen/evtchn", self._domid, -fired)
        return fired

    def notify(self, port: int) -> None:
        if self._notify(self._handle, port) != 0:
            raise failure("xenevtchn_notify", self._domid, self._ffi.errno)
