"""Protection where one server claims the type (Xen >= 4.9): the type alone says who gets a store."""

from __future__ import annotations

import errno
from collections.abc import Collection, Sequence

from xengt_dm._core import ffi
from xengt_dm.hypervisor.port import MemType
from xengt_dm.traps.protection import Protection
from xengt_dm.units import CData

#: Frames let go between two barriers.
MAX_COVERS = 64


class ClaimProtection(Protection):
    """A frame has a range only as a cover, from when it is let go to the next barrier or its next protection."""

    TRAP = MemType.IOREQ_SERVER

    def verify(self, gfns: CData, count: int) -> None:
        errors = ffi.new("int[]", count)
        self._port.set_mem_types(self.TRAP, gfns, count, errors)
        for i in range(count):
            error = errors[i]
            if error not in (0, errno.EINVAL):
                (error,) = self._set_types(self.TRAP, [gfns[i]])
            if not error:
                self._protected.add(gfns[i])
            elif error != errno.EINVAL:  # which is a frame that still has the type, or is no RAM
                raise self._unverified(error)

    def frames_changed(self) -> None:
        """A range over a hole would bring us every store to it, which Xen is to drop."""
        self.uncover()

    def _let_go(self, gfns: Sequence[int]) -> set[int]:
        if self._forced:
            return super()._let_go(gfns)
        lingered = self._lingering.intersection(gfns)
        busy = self._stored_to(gfns)
        plain = super()._let_go([gfn for gfn in gfns if gfn not in busy])
        late = sorted(plain & self.latest()[0])
        back = {gfn for gfn, error in zip(late, self._set_types(self.TRAP, late), strict=True) if not error}
        self._protected |= back
        self._lingering |= back & lingered
        return plain - back

    def _stored_to(self, gfns: Sequence[int]) -> set[int]:
        """Those of the frames that an instruction under way may be storing to."""
        busy, recent = self.latest()
        if not busy.issuperset(recent.intersection(gfns)):
            busy |= self.latest()[0] if self._barrier() else recent
        return busy.intersection(gfns)

    def _trap(self, gfns: CData, count: int, errors: CData) -> int:
        failures = self._port.set_mem_types(self.TRAP, gfns, count, errors)
        frames = ffi.unpack(gfns, count)
        if failures:
            for i, gfn in enumerate(frames):
                if errors[i] == errno.EINVAL and gfn in self._lingering:  # it has the type
                    errors[i] = 0
                    failures -= 1
            frames = [gfn for i, gfn in enumerate(frames) if not errors[i]]
        self._protected.update(frames)
        self._lingering.difference_update(frames)
        if len(self._ranges):
            for gfn in self._ranges.frames().intersection(frames):
                self._ranges.remove(gfn)
        return failures

    def _cover(self, gfns: Sequence[int]) -> Collection[int]:
        new = [gfn for gfn in gfns if gfn not in self._ranges]
        if len(self._ranges) + len(new) > MAX_COVERS:
            self.uncover()
        return {gfn for gfn in gfns if not self._ranges.add(gfn) or not self._ranges.add(gfn)}

    def _idle(self) -> set[int]:
        return self._ranges.frames()

    def _forget(self, gfns: Sequence[int]) -> None:
        pass
