"""A device model in a few lines, on the hypervisor port alone: takes requests, stores what the guest stored, answers.

A test drives it by hand (:meth:`DeviceModel.take`, :meth:`DeviceModel.answer`), or lets it serve a guest program to its
end (:meth:`DeviceModel.serve`). Nothing here sleeps: it waits on the event channels' fd, and on one that says that the
program is over.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.tables import FRAME
from xengt_dm._core import ffi, lib
from xengt_dm.hypervisor.embedded import EmbeddedDomain, EmbeddedPort, Vcpu
from xengt_dm.hypervisor.port import MemType

#: A test that waits longer than this hangs.
PATIENCE = 20.0
COPY, PIO, PCI_CONFIG, INVALIDATE = (
    lib.XD_IOREQ_COPY,
    lib.XD_IOREQ_PIO,
    lib.XD_IOREQ_PCI_CONFIG,
    lib.XD_IOREQ_INVALIDATE,
)


@dataclass(frozen=True)
class Request:
    """One request, as it came out of its slot."""

    addr: int
    size: int
    data: int
    read: bool = False
    type: int = COPY
    count: int = 1
    vcpu: int = 0
    pointer: bool = False
    down: bool = False

    @property
    def write(self) -> tuple[int, int, int]:
        return self.addr, self.size, self.data


def write(addr: int, size: int, data: int, **more: Any) -> Request:
    return Request(addr, size, data & ((1 << (8 * size)) - 1), **more)


@dataclass
class DeviceModel:
    """A server with ranges (first, last) of MMIO, and the claim."""

    domain: EmbeddedDomain
    ranges: Sequence[tuple[int, int]] = ()
    claim: bool = True
    enable: bool = True
    #: Take this server over instead of creating one.
    adopt: int | None = None
    port: EmbeddedPort = field(init=False)
    server: int = field(init=False)

    def __post_init__(self) -> None:
        self.port = self.domain.port()
        self.server = self.port.create_server() if self.adopt is None else self.adopt
        self.page = ffi.cast("char *", self.port.map_slots(self.server))
        for first, last in self.ranges:
            self.port.map_mmio(self.server, first, last)
        if self.claim and self.adopt is None:
            self.port.claim_writes(self.server)
        if self.enable and self.adopt is None:
            self.port.set_server_state(self.server, True)
        self.channels: dict[int, int] = {}
        if self.enable:
            self.bind()
        errors = ffi.new("int[]", self.domain.ram_frames)
        self.base = self.port.map_frames(0, self.domain.ram_frames, errors)
        self._taken = ffi.new("xd_taken[128]")
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self.port.events.fd, select.EPOLLIN)
        self._epoll.register(self._wake, select.EPOLLIN)

    def bind(self) -> None:
        for vcpu in range(self.domain.vcpu_count):
            self.channels[vcpu] = self.port.events.bind(lib.xd_slot_port(self.page, vcpu))

    def close(self) -> None:
        """As when the process dies: handles go, the server stays."""
        self._epoll.close()
        os.close(self._wake)
        self.port.close()

    def set_types(self, mem_type: int, gfns: Sequence[int]) -> list[int]:
        array = ffi.new("uint64_t[]", list(gfns))
        errors = ffi.new("int[]", len(gfns))
        failed = self.port.set_mem_types(MemType(mem_type), array, len(gfns), errors)
        outcome = [int(error) for error in errors]
        assert failed == sum(1 for error in outcome if error)
        return outcome

    def protect(self, *gfns: int) -> None:
        trap = self.domain.flavour.trap
        assert trap is not None
        assert self.set_types(trap, gfns) == [0] * len(gfns)

    def unprotect(self, *gfns: int) -> None:
        assert self.set_types(MemType.RAM_RW, gfns) == [0] * len(gfns)

    def poll(self) -> bool:
        """Whether the event channels' fd is readable now."""
        return any(fd == self.port.events.fd for fd, _ in self._epoll.poll(0))

    def scan(self, adopt: bool = False) -> list[Request]:
        """What the slots hold now; ``adopt``: also what a predecessor had taken."""
        taken = self._taken
        count = lib.xd_slots_take(self.page, self.domain.vcpu_count, adopt, taken, ffi.NULL, ffi.NULL)
        return [
            Request(
                addr=one.req.addr,
                size=one.req.size,
                data=one.req.data,
                read=bool(one.req.bits & lib.XD_BIT_READ),
                type=one.req.type,
                count=one.req.count,
                vcpu=one.vcpu,
                pointer=bool(one.req.bits & lib.XD_BIT_DATA_IS_PTR),
                down=bool(one.req.bits & lib.XD_BIT_DOWN),
            )
            for one in taken[0:count]
        ]

    def take(self) -> list[Request]:
        """Wait for requests; empty if the program is over first."""
        while True:
            ready = self._epoll.poll(PATIENCE)
            assert ready, "no request came"
            self.port.events.drain()
            if requests := self.scan():
                return requests
            if any(fd == self._wake for fd, _ in ready):
                os.eventfd_read(self._wake)
                return []

    def take_one(self) -> Request:
        (request,) = self.take()
        return request

    def commit(self, request: Request) -> None:
        """Store what the guest stored, if it stored to RAM; Xen does not."""
        if request.type == COPY and not request.read and request.addr < self.domain.ram_frames * FRAME:
            data = request.data.to_bytes(8, "little")[: request.size]
            ffi.memmove(ffi.cast("char *", self.base + request.addr), data, request.size)

    def answer(self, request: Request, data: int = 0, commit: bool = True) -> None:
        if commit:
            self.commit(request)
        lib.xd_slot_answer(self.page, request.vcpu, data, lib.XD_ROUTE_REFUSED, ffi.NULL)
        self.port.events.notify(self.channels[request.vcpu])

    def start(self, program: Callable[[Vcpu], None], vcpu: int = 0) -> None:
        """Run a guest program, and have :meth:`take` return when it is over."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)  # of a program before it, that nobody served to its end

        def run(cpu: Vcpu) -> None:
            try:
                program(cpu)
            finally:
                os.eventfd_write(self._wake, 1)

        self.domain.start(vcpu, run)

    def serve(
        self,
        program: Callable[[Vcpu], None],
        vcpu: int = 0,
        on_request: Callable[[Request], int | None] = lambda request: None,
    ) -> list[Request]:
        """Serve a guest program to its end; reads are answered with what ``on_request`` returns. All requests."""
        self.start(program, vcpu)
        seen: list[Request] = []
        while requests := self.take():
            for request in requests:
                seen.append(request)
                self.answer(request, on_request(request) or 0)
        assert self.domain.join(PATIENCE)
        return seen
