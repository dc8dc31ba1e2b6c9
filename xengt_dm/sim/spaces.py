"""Address spaces of the GPU as a driver makes them: four levels of tables, announced through PVINFO."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from xengt_dm.sim.driver import Driver
from xengt_dm.units import PAGE_SHIFT, PAGE_SIZE
from xengt_dm.vgpu import registers as reg

_TABLE: Final = 3
WRITABLE: Final = 3
READ_ONLY: Final = 1
_INDEX_BITS: Final = 9


class AddressSpace:
    """A space with a root table and nothing mapped. ``take`` returns free frames, which are all zeros."""

    def __init__(self, driver: Driver, take: Callable[[], int]) -> None:
        self._driver = driver
        self._take = take
        self.root = take()
        #: By address >> shift, for each level but the last: the gfn of the table that covers it.
        self._tables: dict[tuple[int, int], int] = {}

    def announce(self, what: reg.Notification = reg.Notification.PPGTT_L4_CREATE) -> None:
        root = self.root << PAGE_SHIFT
        self._driver.write(reg.PDP0, root & 0xFFFFFFFF)
        self._driver.write(reg.PDP0 + 4, root >> 32)
        self._driver.write(reg.G2V_NOTIFY, what)

    def destroy(self) -> None:
        self.announce(reg.Notification.PPGTT_L4_DESTROY)

    def entry_of(self, address: int) -> int:
        """The gpa of the leaf entry of an address, whose tables are made if they are missing."""
        table = self.root
        for level in (4, 3, 2):
            shift = PAGE_SHIFT + _INDEX_BITS * (level - 1)
            key = level, address >> shift
            gpa = table * PAGE_SIZE + 8 * (address >> shift & 511)
            if key not in self._tables:
                self._tables[key] = self._take()
                self._driver.cpu.store(gpa, 8, self._tables[key] << PAGE_SHIFT | _TABLE)
            table = self._tables[key]
        return table * PAGE_SIZE + 8 * (address >> PAGE_SHIFT & 511)

    def map(self, address: int, gfn: int, bits: int = WRITABLE) -> None:
        """Map the page at ``address`` to a frame."""
        self._driver.cpu.store(self.entry_of(address), 8, gfn << PAGE_SHIFT | bits)

    def unmap(self, address: int) -> None:
        self._driver.cpu.store(self.entry_of(address), 8, 0)
