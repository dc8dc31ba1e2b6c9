"""Event channels over shared counters and eventfds; see :mod:`xengt_dm.hypervisor.sim`."""

from __future__ import annotations

import errno
import mmap
import os
from contextlib import suppress
from typing import Final

from xengt_dm._core import ffi, lib
from xengt_dm.errors import CallError, DomainGoneError, HostError
from xengt_dm.hypervisor.port import ChannelCalls
from xengt_dm.hypervisor.sim.connection import Connection
from xengt_dm.hypervisor.sim.messages import Call
from xengt_dm.pointers import address, pointer_into

_CALLS: Final = ("xd_eventfd_take", "xd_eventfd_unmask", "xd_eventfd_notify")


class SimEventPort:
    """Implements EventPort. Owns the descriptors that it is given: the eventfd, and the file of counters.

    A notify is no hypercall: on a channel of a domain that is gone it does nothing, as on Xen.
    """

    def __init__(self, connection: Connection, eventfd: int, counters: int) -> None:
        self._connection = connection
        self._fd = eventfd
        try:
            self._memory = mmap.mmap(counters, 0)
        except OSError as error:
            os.close(eventfd)
            raise HostError("mmap", connection.domid, error.errno or 0) from error
        finally:
            os.close(counters)
        #: Two words for each local port: events so far, and whether a notify reaches the domain.
        self._words = memoryview(self._memory).cast("I")
        self._channels = ffi.new("xd_eventfd_channels *", {"fd": eventfd})
        self._channels.words = pointer_into("uint32_t *", self._words)

    @property
    def fd(self) -> int:
        return self._fd

    def bind(self, remote_port: int) -> int:
        call = "xenevtchn_bind_interdomain"
        (port,), (wake,) = self._connection.call_for(Call.BIND, remote_port, name=call, descriptors=1)
        if not 0 < port < min(lib.XD_EVENTFD_PORTS, len(self._words) // 2):
            os.close(wake)
            raise HostError(call, self._connection.domid, errno.ENOSPC)
        self._channels.wake[port] = wake
        self._channels.most = max(self._channels.most, port + 1)
        return port

    def unbind(self, port: int) -> None:
        wake = self._wake_of("xenevtchn_unbind", port)
        # With the sim, the binding is gone, too.
        with suppress(DomainGoneError):
            self._connection.call(Call.UNBIND, port, name="xenevtchn_unbind")
        self._channels.wake[port] = 0
        os.close(wake)
        self._channels.taken[port] = self._words[2 * port]

    def drain(self) -> int:
        fired = lib.xd_eventfd_take(self._channels)
        if fired < 0:
            raise self.failure("read", -fired)
        return int(fired)

    def notify(self, port: int) -> None:
        self._wake_of("xenevtchn_notify", port)
        error = lib.xd_eventfd_notify(self._channels, port)
        if error:
            raise self.failure("xenevtchn_notify", -error)

    @property
    def calls(self) -> ChannelCalls:
        return ChannelCalls(address(self._channels), *(address(ffi.addressof(lib, name)) for name in _CALLS))

    def failure(self, call: str, errno: int) -> CallError:
        return HostError(call, self._connection.domid, errno)

    def _wake_of(self, call: str, port: int) -> int:
        wake = self._channels.wake[port] if 0 <= port < lib.XD_EVENTFD_PORTS else 0
        if not wake:
            raise HostError(call, self._connection.domid, errno.ENOTCONN)
        return int(wake)

    def close(self) -> None:
        """The caller closes the connection, with which every binding goes. Safe to call twice."""
        if self._fd < 0:
            return
        for port in range(self._channels.most):
            if self._channels.wake[port]:
                os.close(self._channels.wake[port])
        ffi.memmove(self._channels, ffi.new("xd_eventfd_channels *"), ffi.sizeof("xd_eventfd_channels"))
        self._words.release()
        self._memory.close()
        os.close(self._fd)
        self._fd = -1
