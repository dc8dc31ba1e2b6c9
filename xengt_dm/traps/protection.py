"""Having Xen trap the stores to a frame, and letting go of it without losing one, nor the guest.

The straggler
-------------
Facts: when a vCPU stores to a page that traps, Xen looks at the page's type twice: once when its copy to guest memory
refuses (``__hvm_copy``), and once more, without a lock, when it chooses who gets the request (``hvmemul_do_io``,
xen/arch/x86/hvm/emulate.c). If the page becomes ``ram_rw`` in between, the second look finds neither the type nor a
range, and the null handler drops the store. A store of more than 8 bytes is several requests, one after the other, and
once the first was made the rest is never tried as memory (``hvm_mmio_cache``): from the first request to the last
answer the vCPU is in the middle of it, also while it waits for us.

What follows: a frame must never become writable without a range while another vCPU may be in the middle of a store to
it.

What we do: before the type changes back the frame is an MMIO range of ours too (it is *covered*), so that a straggler
still finds us; it arrives as an ordinary request and is performed in memory. A range means nothing to a page that is
RAM, so covers may stay. They may go

* when the frame is protected again: whichever look comes next then finds the type; or
* after a barrier: enabling an enabled server changes nothing, but Xen pauses the domain for it, synchronously, and a
  paused vCPU has left its emulation pass. It may be waiting for us, though. Then its slot says where: a frame that a
  slot names before the barrier or after it, or the one behind, stays covered. (Both times, because between the two a
  vCPU may take its answer, or come to wait.)

Cost: two hypercalls more per frame, and a pause of the domain for every so many frames that are let go.

The instruction under way
-------------------------
Facts (emulate.c, hvm.c): the first look at the type is made under the p2m lock, and the request is sent under it. Once
the request is answered the instruction is emulated again, without the lock. If the page has become ``ram_rw`` by then,
``hvmemul_rep_stos`` and ``hvmemul_rep_movs``, and since 672894a11f (4.20, 4.19.2, 4.18.5) every store, are done on
memory and never take the answer; the next request of that vCPU does not match it, and Xen crashes the domain (4.17.7:
"domain_crash called from arch/x86/hvm/emulate.c:200"). Linux clears page tables by ``rep stos``. No request says what
instruction it is of.

What follows: a frame must not become plain memory while an instruction that stores to it is under way; while a store to
it is being answered, one always is. So a table cannot be opened by the store that hits it.

What we do on such a hypervisor (``stores_must_end``): a frame that the latest request of a vCPU names *lingers*: it
stays protected, belongs to no table, its stores are performed, and it goes when no slot names it. Where Xen has taken
the answer, a barrier tells whether the instruction is over. A request that comes between our look and the change of the
type was sent because of the old type; a second look finds it, and the frame is protected again before the answer. A
table to be opened is tried again after the answer to its store, and after the next ones.

Cost: a pause of the domain where another vCPU was the last to store to what is let go. What remains: a store over a
page's end whose first page becomes *protected* while the second is being answered ends like that, too; Xen looks at the
first page again, finds that it traps, and has no request of it. No driver is known to store like that.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import ClassVar

from xengt_dm._core import ffi
from xengt_dm.errors import DomainGoneError, HostError
from xengt_dm.hypervisor.port import DomainPort, MemType
from xengt_dm.traps.guard_ranges import FrameRanges
from xengt_dm.traps.retry import set_types, twice
from xengt_dm.units import CData

#: Frames that change their type in one go.
BATCH = 64
#: So often is unsyncing a frame tried again after a store to it, before it has to be stored to again.
UNSYNC_TRIES = 8


class Protection(ABC):
    """The :class:`~xengt_dm.ppgtt.ports.Protector` and ``FrameMapper`` of one server; what the two kinds share.

    ``in_flight`` says which frames the requests in the slots name; see
    :meth:`~xengt_dm.ioreq.server.IoreqServer.frames_in_flight`.

    What is protected is known here exactly, whatever becomes of who asked for it: :meth:`release` needs nobody else.
    """

    #: The type that traps.
    TRAP: ClassVar[MemType]

    def __init__(self, port: DomainPort, server: int, in_flight: Callable[[], set[int]]) -> None:
        self._port = port
        self._server = server
        self._in_flight = in_flight
        self._ranges = FrameRanges(port, server)
        self._protected: set[int] = set()
        self._open: set[int] = set()
        #: Protected frames that nobody wants protected any more, but Xen would not let go, or a store is under way.
        self._lingering: set[int] = set()
        self._stopped = False
        #: Frames that were no longer ours to unprotect: the guest had given them back.
        self.vanished = 0
        #: The frames that the latest requests name; see :meth:`~xengt_dm.ioreq.server.IoreqServer.latest_frames`.
        self.latest: Callable[[], tuple[set[int], set[int]]] = _no_frames
        self._forced = False
        #: See :attr:`xengt_dm.ppgtt.ports.Protector.gaps`.
        self.gaps = 0
        #: Frames whose unsync was refused, with the tries left; and those of them that are being tried again.
        self._to_retry: dict[int, int] = {}
        self._due: dict[int, int] = {}

    # Protector

    def protect(self, gfns: CData, count: int, errors: CData) -> int:
        if self._stopped:
            ffi.memmove(errors, ffi.new("int[]", [errno.ESHUTDOWN] * count), count * ffi.sizeof("int"))
            return count
        return self._trap(gfns, count, errors)

    def unprotect(self, gfns: CData, count: int) -> int:
        frames = ffi.unpack(gfns, count)
        still = [gfn for gfn in frames if gfn not in self._open] if self._open else frames
        self._open.difference_update(frames)
        self._forget(frames)
        if self._protected:
            mine = [gfn for gfn in still if gfn in self._protected]
            self._lingering.update(mine)
            self._let_all_go(mine)
        return len(still)

    def unsync(self, gfn: int) -> bool:
        due = self._due.pop(gfn, None)
        if self._stopped or gfn not in self._protected:
            return False
        if due is None and gfn in self._to_retry:
            return False
        if gfn in self._let_go([gfn]):
            self._open.add(gfn)
            return True
        if due is None:
            self._to_retry[gfn] = UNSYNC_TRIES
        elif due > 1:
            self._to_retry[gfn] = due - 1
        return False

    def take_retries(self) -> list[int]:
        """The frames whose unsync was refused and is worth another try, now that the stores to them are answered.

        The caller asks the engine to unsync each. A frame that is refused :data:`UNSYNC_TRIES` times more is forgotten
        until a store traps again.
        """
        self._due, self._to_retry = self._to_retry, {}
        return [*self._due]

    def resync(self, gfns: CData, count: int, errors: CData) -> int:
        failures = self.protect(gfns, count, errors)
        for i in range(count):
            if not errors[i]:
                self._open.discard(gfns[i])
        return failures

    @abstractmethod
    def verify(self, gfns: CData, count: int) -> None: ...

    @abstractmethod
    def frames_changed(self) -> None: ...

    # FrameMapper

    def map_frames(self, first_gfn: int, count: int, errors: CData, address: int = 0) -> int:
        return self._port.map_frames(first_gfn, count, errors, address)

    def unmap_frames(self, address: int, count: int) -> None:
        self._port.unmap_frames(address, count)

    # Life

    @property
    def protected(self) -> frozenset[int]:
        return frozenset(self._protected)

    def adopt(self, first: int, last: int) -> None:
        """Take over what a predecessor left of ranges over frames ``first``..``last``. Raises HostError."""
        self._ranges.adopt(first, last)

    def stop(self) -> None:
        """Protect nothing from here on; what is protected can still be let go."""
        self._stopped = True

    def inherit(self, gfns: Collection[int]) -> None:
        """A predecessor has left these frames protected; they are to be let go."""
        self._protected.update(gfns)
        self._lingering.update(gfns)

    def wind_down(self) -> bool:
        """Let everything go that can be, for good. False if something stays protected for now."""
        self.stop()
        self._let_all_go(sorted(self._protected))
        return not self._protected

    def settle(self) -> bool:
        """When there is time: try again to let go what could not be. False if any of that stays protected for now."""
        if self._lingering:
            self._let_all_go(sorted(self._lingering))
        return not self._lingering

    def release(self) -> None:
        """Let everything go, for good and whatever is under way. Raises HostError if something stays protected."""
        self.stop()
        self._forced = True
        try:
            self._let_all_go(sorted(self._protected))
            self._let_all_go(sorted(self._protected))
        except DomainGoneError:
            self._protected.clear()  # they went with it
            raise
        if self._protected:
            raise HostError(
                "xendevicemodel_set_mem_type", self._port.domid, errno.EBUSY, f"{len(self._protected)} stay protected"
            )

    def uncover(self, only_for_room: bool = False) -> bool:
        """Give back the ranges of frames that are plain memory, behind a barrier.

        ``only_for_room``: only where that leaves no more ranges than before. False if any stays for now. Raises
        DomainGoneError.
        """
        if not self._idle():
            return True
        busy = self._in_flight()
        if not self._barrier():
            return False
        idle = self._idle() - busy - self._in_flight()
        for gfn in self._ranges.ends(idle):
            self._give_back(gfn)
        if not only_for_room:
            for gfn in idle & self._ranges.frames():
                self._give_back(gfn)
        return not self._idle()

    # Inside

    def _barrier(self) -> bool:
        """Have every vCPU leave its emulation pass, or wait for us. False if that failed. Raises DomainGoneError."""
        try:
            twice(self._port.set_server_state, self._server, True)
        except HostError:
            return False
        return True

    @abstractmethod
    def _trap(self, gfns: CData, count: int, errors: CData) -> int:
        """Have stores to frames trapped; as :meth:`protect`."""

    @abstractmethod
    def _cover(self, gfns: Sequence[int]) -> Collection[int]:
        """Claim the addresses of frames that are about to be let go. Returns those of which that succeeded."""

    @abstractmethod
    def _idle(self) -> set[int]:
        """Frames that have a range which only stragglers need."""

    def _give_back(self, gfn: int) -> None:
        self._ranges.remove(gfn)

    @abstractmethod
    def _forget(self, gfns: Sequence[int]) -> None:
        """The engine has no more to do with these frames, protected or not."""

    def _let_all_go(self, gfns: Sequence[int]) -> None:
        for i in range(0, len(gfns), BATCH):
            self._let_go(gfns[i : i + BATCH])

    def _let_go(self, gfns: Sequence[int]) -> set[int]:
        """Make protected frames plain memory, covered. Returns those that are; what stays protected may be retried."""
        able = self._cover(gfns)
        covered = [gfn for gfn in gfns if gfn in able]
        errors = self._set_types(MemType.RAM_RW, covered)
        plain = {gfn for gfn, error in zip(covered, errors, strict=True) if not error}
        # A frame in any state that we may have brought it into can be let go; so the guest has given this one back.
        gone = {gfn for gfn, error in zip(covered, errors, strict=True) if error == errno.EINVAL}
        self._protected -= plain | gone
        self._lingering -= plain | gone
        self.vanished += len(gone)
        for gfn in gone:
            self._ranges.remove(gfn)
        return plain

    def _set_types(self, mem_type: MemType, gfns: Sequence[int]) -> list[int]:
        return set_types(self._port, mem_type, gfns)

    def _unverified(self, error: int) -> HostError:
        """A table is not protected, and its shadow would go out of line without anybody's knowing."""
        return HostError(
            "xendevicemodel_set_mem_type",
            self._port.domid,
            error,
            f"{errno.errorcode.get(error, error)} on protecting a page that the guest replaced",
        )


def _no_frames() -> tuple[set[int], set[int]]:
    return set(), set()
