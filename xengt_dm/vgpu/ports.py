"""What the device needs of the rest of the program, as Protocols."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from xengt_dm._core import ffi
from xengt_dm.ppgtt.space import Mode
from xengt_dm.steps import Steps
from xengt_dm.units import CData


class AddressSpaces(Protocol):
    """The address spaces of the GPU, which the guest announces; :class:`xengt_dm.ppgtt.engine.Engine` has them."""

    def create_space(self, mode: Mode, roots: tuple[int, ...]) -> Steps[None]:
        """The guest announces a space whose root tables are at these guest physical addresses."""

    def destroy_space(self, mode: Mode, roots: tuple[int, ...]) -> Steps[object]:
        """The guest is done with a space; counted, and nothing else, if there is no such space."""

    def submit_all(self) -> Steps[None] | None:
        """The GPU uses what page tables say now from here on. Returns None, or steps that do what is left."""

    def end_all_spaces(self) -> Steps[None]:
        """The guest's driver is gone, and did not say that it is done with its spaces."""

    def set_64k_pages(self, enabled: bool) -> None:
        """Whether a page directory can ask for 64 KiB pages from now on."""

    def ignore_notification(self) -> None:
        """The guest announced something that concerns no address space."""


class Engines(Protocol):
    """The engines, by their numbers: their places in :data:`xengt_dm.vgpu.registers.engine.ENGINES`."""

    @property
    def pointer(self) -> CData:
        """The ``xd_gpu *`` by which C serves some registers, or NULL."""

    def read(self, offset: int, size: int) -> int | None:
        """A read of BAR0, if it is of a register that C serves; else None."""

    def write(self, offset: int, size: int, value: int) -> tuple[bool, Steps[None] | None]:
        """A write of BAR0. Returns whether it is of a register that C serves, and steps that do what is left of it."""

    def reset(self, engines: Collection[int]) -> None:
        """Drop what these engines execute or have pending, without an event. Their registers are reset afterwards."""

    def stop(self, engine: int) -> None:
        """The engine has stopped between two commands when this returns. Does nothing if it is stopped."""

    def go_on(self, engine: int) -> Steps[None] | None:
        """The engine is not stopped any more. Returns None, or steps that execute what it has to do."""

    def is_idle(self, engine: int) -> bool:
        """Whether the engine has nothing to execute."""

    def invalidate_tlb(self, engine: int) -> Steps[None] | None:
        """What the engine uses of its page tables from here on is what they say now."""


class NoEngines:
    """:class:`Engines` of a device that executes nothing. Somebody else may, with any of ``spaces``."""

    pointer: CData = ffi.NULL

    def __init__(self, spaces: AddressSpaces) -> None:
        self._spaces = spaces

    def read(self, offset: int, size: int) -> int | None:
        return None

    def write(self, offset: int, size: int, value: int) -> tuple[bool, Steps[None] | None]:
        return False, None

    def reset(self, engines: Collection[int]) -> None: ...

    def stop(self, engine: int) -> None: ...

    def go_on(self, engine: int) -> Steps[None] | None:
        return None

    def is_idle(self, engine: int) -> bool:
        return True

    def invalidate_tlb(self, engine: int) -> Steps[None] | None:
        return self._spaces.submit_all()


class Requests(Protocol):
    """The guest's requests, whose changes of the state are made once: :class:`xengt_dm.ioreq.journal.Journal`."""

    @property
    def words(self) -> CData:
        """The ``uint64_t *`` to the words of the state."""

    @property
    def record(self) -> tuple[CData, int]:
        """The ``xd_journal_record *`` of the request that is being served, or NULL, and its element."""


class Interrupts(Protocol):
    """What delivers interrupts to the guest, for :class:`xengt_dm.vgpu.pci.InterruptSource`."""

    def inject_msi(self, address: int, data: int) -> bool:
        """Deliver a message, with address and data as the guest wrote them. Returns whether it was accepted."""

    def set_intx(self, sbdf: int, pin: int, asserted: bool) -> None:
        """Drive the line 0 (INTA) to 3 (INTD) of a PCI function."""


class Windows(Protocol):
    """Where the guest reaches the device's memory BARs."""

    def place(self, bar: int, address: int | None) -> None:
        """The BAR with this number is at ``address`` from here on; None: nowhere."""
