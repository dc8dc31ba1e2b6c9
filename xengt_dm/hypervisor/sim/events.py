"""Event channels over shared counters and eventfds; see :mod:`xengt_dm.hypervisor.sim`."""

from __future__ import annotations

import errno
import mmap
import os
from contextlib import suppress

from xengt_dm.errors import DomainGoneError, HostError
from xengt_dm.hypervisor.sim.connection import Connection
from xengt_dm.hypervisor.sim.messages import Call


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
        #: Of ports that are or were bound: the events that were taken.
        self._taken: dict[int, int] = {}
        #: Of bound ports: the eventfd of the vCPU.
        self._wake: dict[int, int] = {}

    @property
    def fd(self) -> int:
        return self._fd

    def bind(self, remote_port: int) -> int:
        (port,), (wake,) = self._connection.call_for(
            Call.BIND, remote_port, name="xenevtchn_bind_interdomain", descriptors=1
        )
        self._wake[port] = wake
        self._taken.setdefault(port, 0)
        return port

    def unbind(self, port: int) -> None:
        wake = self._wake_of("xenevtchn_unbind", port)
        # With the sim, the binding is gone, too.
        with suppress(DomainGoneError):
            self._connection.call(Call.UNBIND, port, name="xenevtchn_unbind")
        del self._wake[port]
        os.close(wake)
        self._taken[port] = self._words[2 * port]

    def drain(self) -> int:
        with suppress(BlockingIOError):
            os.eventfd_read(self._fd)
        fired = 0
        for port in self._wake:
            raised = self._words[2 * port]
            if raised != self._taken[port]:
                self._taken[port] = raised
                fired += 1
        return fired

    def notify(self, port: int) -> None:
        wake = self._wake_of("xenevtchn_notify", port)
        if self._words[2 * port + 1]:
            with suppress(BlockingIOError):  # it is full, so the vCPU has been told
                os.eventfd_write(wake, 1)

    def _wake_of(self, call: str, port: int) -> int:
        wake = self._wake.get(port)
        if wake is None:
            raise HostError(call, self._connection.domid, errno.ENOTCONN)
        return wake

    def close(self) -> None:
        """The caller closes the connection, with which every binding goes. Safe to call twice."""
        if self._fd < 0:
            return
        for wake in self._wake.values():
            os.close(wake)
        self._wake.clear()
        self._words.release()
        self._memory.close()
        os.close(self._fd)
        self._fd = -1
