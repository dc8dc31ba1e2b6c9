"""What the device needs of the rest of the program, as Protocols."""

from __future__ import annotations

from typing import Protocol

from xengt_dm.ppgtt.space import Mode
from xengt_dm.steps import Steps


class AddressSpaces(Protocol):
    """The address spaces of the GPU, which the guest announces; :class:`xengt_dm.ppgtt.engine.Engine` has them."""

    def create_space(self, mode: Mode, roots: tuple[int, ...]) -> Steps[None]:
        """The guest announces a space whose root tables are at these guest physical addresses."""

    def destroy_space(self, mode: Mode, roots: tuple[int, ...]) -> Steps[object]:
        """The guest is done with a space; counted, and nothing else, if there is no such space."""

    def submit_all(self) -> Steps[None] | None:
        """The GPU uses what page tables say now from here on. Returns None, or steps that do what is left."""

    def set_64k_pages(self, enabled: bool) -> None:
        """Whether a page directory can ask for 64 KiB pages from now on."""

    def ignore_notification(self) -> None:
        """The guest announced something that concerns no address space."""
