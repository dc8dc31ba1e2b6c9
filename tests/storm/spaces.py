"""The address spaces of a driver of the storm's guest, and the registers by which they are announced."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from tests.support.tables import FRAME
from xengt_dm.hypervisor.embedded import Vcpu
from xengt_dm.settings import DEFAULT_BAR0
from xengt_dm.vgpu import registers as reg


class Announcements:
    """The registers by which spaces are announced, which all vCPUs share, and what they should hold."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pdps = [0] * reg.PDP_COUNT
        self.notified = 0

    def announce(self, vcpu: Vcpu, roots: list[int], notification: reg.Notification, halves: bool) -> None:
        with self.lock:
            for n, root in enumerate(roots):
                gpa, at = root * FRAME, DEFAULT_BAR0 + reg.PDP0 + 8 * n
                if halves:
                    vcpu.mmio_write(at, 4, gpa & 0xFFFFFFFF)
                    vcpu.mmio_write(at + 4, 4, gpa >> 32)
                else:
                    vcpu.mmio_write(at, 8, gpa)
                self.pdps[n] = gpa
            vcpu.mmio_write(DEFAULT_BAR0 + reg.G2V_NOTIFY, 4, int(notification))
            self.notified = int(notification)


@dataclass
class Space:
    """An address space: its mode, 4 or 3; its roots; its directories of leaves; how often it is announced."""

    mode: int
    roots: list[int]
    #: Directories of level 2. Those of an L3 space are its roots.
    directories: list[int]
    #: Of an L4 space: the only table of level 3.
    level3: int | None = None
    refs: int = 0
    leaves: set[int] = field(default_factory=set)

    @property
    def tables(self) -> set[int]:
        above = set() if self.level3 is None else {self.level3}
        return {*self.roots, *self.directories, *self.leaves} | above
