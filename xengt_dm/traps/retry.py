"""When Xen refuses to change the type of a frame: what is tried again, when, and how often."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from xengt_dm._core import ffi
from xengt_dm.hypervisor.port import DomainPort, MemType

#: How often unsyncing a frame is retried after the store that asked for it; then the next store asks anew.
UNSYNC_TRIES: Final = 8
#: Frames whose types are changed back between two looks at the slots.
BATCH: Final = 64


def set_types(port: DomainPort, mem_type: MemType, gfns: Sequence[int]) -> list[int]:
    """Change the types of frames. Returns an errno or 0 for each. A frame that fails is tried once more.

    Raises DomainGoneError.
    """
    if not gfns:
        return []
    errors = ffi.new("int[]", len(gfns))
    if not port.set_mem_types(mem_type, ffi.new("uint64_t[]", gfns), len(gfns), errors):
        return [0] * len(gfns)
    failed = [i for i in range(len(gfns)) if errors[i]]
    again = ffi.new("int[]", len(failed))
    port.set_mem_types(mem_type, ffi.new("uint64_t[]", [gfns[i] for i in failed]), len(failed), again)
    for i, error in zip(failed, again, strict=True):
        errors[i] = error
    return [*errors]


class MadeRam(NamedTuple):
    """Of frames that trapped: those that are ``plain`` RAM now, and those that the guest has given back or replaced."""

    plain: set[int]
    lost: set[int]


def make_ram(port: DomainPort, gfns: Sequence[int]) -> MadeRam:
    """Give frames that trap the type ``ram_rw``. What is in neither set is as before. Raises DomainGoneError."""
    errors = dict(zip(gfns, set_types(port, MemType.RAM_RW, gfns), strict=True))
    # Xen says EINVAL for no frame in a state that we can have brought it into.
    return MadeRam(
        {gfn for gfn, error in errors.items() if not error},
        {gfn for gfn, error in errors.items() if error == errno.EINVAL},
    )


def batches(gfns: Sequence[int]) -> Iterator[Sequence[int]]:
    """Frames in portions of :data:`BATCH`."""
    for i in range(0, len(gfns), BATCH):
        yield gfns[i : i + BATCH]


class UnsyncRetries:
    """The frames whose unsync was refused, with the tries that each has left.

    A frame that nobody asks to unsync in the round in which it is due is forgotten: its table is gone, or the mode is
    strict by now.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, int] = {}
        self._due: dict[int, int] = {}

    def __contains__(self, gfn: int) -> bool:
        """Whether the frame waits for the next round."""
        return gfn in self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, gfn: int, tries: int = UNSYNC_TRIES) -> None:
        """Retry the frame in the next round, if there are tries left."""
        if tries:
            self._waiting[gfn] = tries

    def start_round(self) -> list[int]:
        """The frames to retry now."""
        if not self._waiting and not self._due:
            return []
        self._due, self._waiting = self._waiting, {}
        return [*self._due]

    def take(self, gfn: int) -> int | None:
        """The tries that a frame has left which is due in this round; None if it is not, or was taken already."""
        return self._due.pop(gfn, None)
