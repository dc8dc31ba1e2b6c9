"""What C may serve by itself, as it is now: see ``core/serve/quick.h``."""

from __future__ import annotations

from typing import Protocol

from xengt_dm._core import ffi
from xengt_dm.ioreq.bus import Bus
from xengt_dm.units import CData


class Stores(Protocol):
    """The stores to guest memory, as far as C serves them: :class:`xengt_dm.ppgtt.stores.TableStores`."""

    @property
    def pointer(self) -> CData:
        """The ``xd_shadow *`` of the guest."""


class Submissions(Protocol):
    """The submissions that C makes by itself: those of a :class:`xengt_dm.ppgtt.syncing.Syncer`."""

    @property
    def pointer(self) -> CData:
        """The ``xd_submit *`` of the guest."""

    def update(self) -> None:
        """Tell C whether it may make any from here on."""


class Quick:
    """What C serves of the requests for ``bus`` and ``stores``. ``counters`` is an ``xd_counters *``."""

    def __init__(
        self,
        bus: Bus,
        stores: Stores,
        submissions: Submissions,
        counters: CData,
        gpu: CData = ffi.NULL,
        journal: CData = ffi.NULL,
    ) -> None:
        """``gpu``: the ``xd_gpu *`` of the guest, or NULL. ``journal``: the records of its changes."""
        self._bus = bus
        self._submissions = submissions
        #: False: Python serves everything.
        self.on = True
        self.shadow = stores.pointer
        self.pointer: CData = ffi.new(
            "xd_quick *",
            {
                "shadow": self.shadow,
                "counters": counters,
                "ranges": bus.devices.pointer,
                "submit": submissions.pointer,
                "gpu": gpu,
                "journal": journal,
            },
        )

    def update(self) -> None:
        """Tell C what it may serve from here on; none of this changes while it serves."""
        self.pointer.serves = self.on and self._bus.is_simple
        self._submissions.update()
