"""A domain with a server and its protection, which writes down all that it asks of the hypervisor."""

from __future__ import annotations

from typing import Any

from xengt_dm._core import ffi
from xengt_dm.daemon.main import PROTECTIONS
from xengt_dm.hypervisor.embedded import EmbeddedDomain, EmbeddedPort
from xengt_dm.hypervisor.embedded.p2m import P2mType
from xengt_dm.hypervisor.port import MemType, WriteTrap
from xengt_dm.traps.guard_ranges import FRAME
from xengt_dm.traps.protection import Protection
from xengt_dm.units import CData

FRAMES = 2048


class Setting:
    """A domain, a server with its claim, and the protection, with all that it asks for written down."""

    def __init__(self, flavour: str) -> None:
        self.domain = EmbeddedDomain(FRAMES, 2, flavour)
        self.calls: list[tuple[Any, ...]] = []
        self.busy: set[int] = set()
        self.port = _Recorder(self.domain, self.calls)
        self.server = self.port.create_server()
        self.port.map_slots(self.server)
        self.port.set_server_state(self.server, True)
        if self.port.write_trap is WriteTrap.CLAIM:
            self.port.claim_writes(self.server)
        self.protection: Protection = PROTECTIONS[self.port.write_trap](self.port, self.server, lambda: set(self.busy))
        self.calls.clear()

    def protect(self, *gfns: int) -> list[int]:
        errors = ffi.new("int[]", len(gfns))
        failed = self.protection.protect(ffi.new("uint64_t[]", gfns), len(gfns), errors)
        assert failed == sum(error != 0 for error in errors)
        return [*errors]

    def unprotect(self, *gfns: int) -> int:
        return self.protection.unprotect(ffi.new("uint64_t[]", gfns), len(gfns))

    def resync(self, *gfns: int) -> list[int]:
        errors = ffi.new("int[]", len(gfns))
        self.protection.resync(ffi.new("uint64_t[]", gfns), len(gfns), errors)
        return [*errors]

    def verify(self, *gfns: int) -> None:
        self.protection.verify(ffi.new("uint64_t[]", gfns), len(gfns))

    def remove(self, gfn: int, count: int = 1) -> None:
        """Without telling: the protection is told by the test."""
        self.domain.set_type(gfn, count, P2mType.MMIO_DM)

    def ranges(self) -> int:
        return self.domain.range_count(self.server)

    def taken(self) -> list[tuple[Any, ...]]:
        calls = [*self.calls]
        self.calls.clear()
        return calls


class _Recorder(EmbeddedPort):
    def __init__(self, domain: EmbeddedDomain, calls: list[tuple[Any, ...]]) -> None:
        super().__init__(domain)
        self._calls = calls

    def map_mmio(self, server: int, first: int, last: int) -> None:
        self._calls.append(("range", first // FRAME))
        super().map_mmio(server, first, last)

    def unmap_mmio(self, server: int, first: int, last: int) -> None:
        self._calls.append(("no range", first // FRAME))
        super().unmap_mmio(server, first, last)

    def set_server_state(self, server: int, enabled: bool) -> None:
        self._calls.append(("barrier",))
        super().set_server_state(server, enabled)

    def set_mem_types(self, mem_type: MemType, gfns: CData, count: int, errors: CData) -> int:
        name = "plain" if mem_type is MemType.RAM_RW else "trap"
        self._calls.extend((name, gfns[i]) for i in range(count))
        return super().set_mem_types(mem_type, gfns, count, errors)

    def map_frames(self, first_gfn: int, count: int, errors: CData, address: int = 0) -> int:
        self._calls.append(("map", first_gfn))
        return super().map_frames(first_gfn, count, errors, address)
