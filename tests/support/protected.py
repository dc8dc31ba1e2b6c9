"""A port that looks, at each hypercall, whether every frame that traps is on record for a successor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xengt_dm.hypervisor.embedded import EmbeddedDomain, EmbeddedPort
from xengt_dm.hypervisor.embedded.p2m import P2mType
from xengt_dm.hypervisor.port import MemType
from xengt_dm.traps.protected import ProtectedBitmap
from xengt_dm.units import CData

#: What may be called while frames trap.
_CALLS = (
    "claim_writes",
    "destroy_server",
    "map_frames",
    "map_mmio",
    "map_slots",
    "release_writes",
    "set_server_state",
    "unmap_frames",
    "unmap_mmio",
    "unmap_slots",
)


def new_bitmap(frames: int) -> ProtectedBitmap:
    """An empty record of so many frames."""
    return ProtectedBitmap(memoryview(bytearray(-(-frames // 64) * 8)), frames)


class WatchedPort(EmbeddedPort):
    """Before and after each hypercall, every frame that traps must be recorded in ``bitmap``.

    set_mem_types is a hypercall for each frame.
    """

    def __init__(self, domain: EmbeddedDomain) -> None:
        super().__init__(domain)
        self.bitmap = new_bitmap(domain.ram_frames)
        self.looks = 0
        for name in _CALLS:
            setattr(self, name, self._watched(getattr(self, name)))

    def look(self) -> None:
        """Raises AssertionError if a frame traps that is not recorded."""
        self.looks += 1
        recorded = set(self.bitmap.frames())
        unknown = [gfn for gfn in self._domain.protected() if gfn not in recorded]
        assert not unknown, f"frames {unknown} trap, and a successor would not know"

    def set_mem_types(self, mem_type: MemType, gfns: CData, count: int, errors: CData) -> int:
        failed = 0
        for i in range(count):
            self.look()
            failed += super().set_mem_types(mem_type, gfns + i, 1, errors + i)
            self.look()
        return failed

    def _watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **named: Any) -> Any:
            self.look()
            result = call(*arguments, **named)
            self.look()
            return result

        return watched


def trapping(domain: EmbeddedDomain, frames: range) -> set[int]:
    """Those of these frames that trap."""
    return {gfn for gfn in frames if domain.type_of(gfn) is P2mType.IOREQ_SERVER}
