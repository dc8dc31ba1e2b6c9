"""The record of the frames that may have the trapping type, for a successor.

Facts: a frame keeps its type when the process dies, no hypercall lists the frames of a type, and a store to a frame
that nobody serves blocks its vCPU for ever. A store to a shared file mapping is kept if the process dies at any moment.

What follows: a frame is recorded before it is given the type, and the record of it is removed after Xen has made it
RAM or has said that it does not have the type. So whenever the process dies, the record has every frame that has the
type, and perhaps some more.

A frame that a store lies in which goes on in the next frame is protected and made RAM again, or the rest of that store
is held (:mod:`xengt_dm.traps.holds`). A successor must know of these frames: :class:`FramesInHand` has them.

What a successor does: it adopts all of them (:meth:`xengt_dm.traps.write_traps.WriteTraps.adopt_protected`), protects
those again that are tables of live spaces, and unprotects the others.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from typing import Protocol

from xengt_dm._core import ffi, lib
from xengt_dm.errors import DataError
from xengt_dm.units import CData

_WORD_BYTES = 8


class ProtectedRecord(Protocol):
    """Records which frames may have the trapping type. :class:`~xengt_dm.traps.state.Frames` calls it."""

    def add(self, gfns: CData, count: int) -> None:
        """Records frames that are about to get the type. ``gfns`` is ``uint64_t *``."""

    def remove(self, gfns: Collection[int]) -> None:
        """Removes frames that do not have the type. Does nothing for those that are not recorded."""

    def clear(self) -> None:
        """Removes every frame."""

    @property
    def in_hand(self) -> FramesInHand:
        """The frames that are just being protected, and those for which stores are held."""


class FramesInHand:
    """Lists of frames in ``words``, which outlive the process: at least 4 words of 8 bytes.

    Each list has its length in its first word, which is stored last. Frames beyond its room are left out. There are
    never as many: a slice protects 64 at most, and each frame for which a store is held needs a vCPU of its own.
    """

    def __init__(self, words: memoryview) -> None:
        middle = len(words) * 2 // 3
        self._protecting = words[:middle]
        self._held = words[middle:]

    def begin(self, gfns: Sequence[int]) -> None:
        """These frames are about to be protected. Stores that go on in the next frames may lie in them."""
        _write(self._protecting, gfns)

    def end(self) -> None:
        """No such store lies in any of them, or it is held, or the frame is RAM again."""
        self._protecting[0] = 0

    def hold(self, gfns: Collection[int]) -> None:
        """The stores that are held are those to the frames behind these."""
        _write(self._held, sorted(gfns))

    def left(self) -> set[int]:
        """Returns the frames of both lists, in which a predecessor may have left anything."""
        return {*_read(self._protecting), *_read(self._held)}


def _write(words: memoryview, gfns: Sequence[int]) -> None:
    some = array("Q", gfns[: len(words) - 1])
    words[0] = 0
    words[1 : 1 + len(some)] = memoryview(some)
    words[0] = len(some)


def _read(words: memoryview) -> list[int]:
    return words[1 : 1 + min(words[0], len(words) - 1)].tolist()


def _private_words() -> memoryview:
    return memoryview(bytearray(192 * _WORD_BYTES)).cast("Q")


class NoProtectedRecord:
    """A :class:`ProtectedRecord` that records nothing, for frames that no successor will adopt."""

    def __init__(self) -> None:
        self.in_hand = FramesInHand(_private_words())

    def add(self, gfns: CData, count: int) -> None: ...

    def remove(self, gfns: Collection[int]) -> None: ...

    def clear(self) -> None: ...


class ProtectedBitmap:
    """A :class:`ProtectedRecord` in ``memory``, a bit for each of ``frames`` frames (``core/traps/protected_bits.h``).

    ``memory`` is writable, its size a multiple of 8 bytes. ``in_hand``: words for :class:`FramesInHand`. Raises
    ValueError if there are more frames than bits, OSError if the guard against vanishing pages cannot be installed.
    """

    def __init__(self, memory: memoryview, frames: int, in_hand: memoryview | None = None) -> None:
        self.in_hand = FramesInHand(_private_words() if in_hand is None else in_hand)
        if frames > memory.nbytes * 8 or memory.nbytes % _WORD_BYTES:
            raise ValueError(f"{memory.nbytes} bytes do not hold a bit for each of {frames} frames")
        error = lib.xd_guard_install()
        if error:
            raise OSError(-error, "installing the SIGBUS guard")
        # The pointer alone, and the memory beside it. An array that has the memoryview's buffer must not be kept: if
        # both are garbage in one cycle, CPython 3.11 and 3.12 may clear the memoryview first, and crash.
        array = ffi.from_buffer("uint64_t[]", memory, require_writable=True)
        self._words: CData = ffi.cast("uint64_t *", array)
        self._word_count = len(array)
        ffi.release(array)
        self._memory = memory
        self._frames = frames

    def add(self, gfns: CData, count: int) -> None:
        lib.xd_protected_add(self._words, self._frames, gfns, count)

    def remove(self, gfns: Collection[int]) -> None:
        lib.xd_protected_remove(self._words, self._frames, ffi.new("uint64_t[]", [*gfns]), len(gfns))

    def clear(self) -> None:
        ffi.memmove(self._words, bytes(self._word_count * _WORD_BYTES), self._word_count * _WORD_BYTES)

    def frames(self, most: int | None = None) -> list[int]:
        """Returns the recorded frames, ascending.

        Raises DataError if they are more than ``most``, if that is given, or if the memory is damaged: it has bits
        beyond the frames, or some of it is not there.
        """
        count, beyond = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        error = lib.xd_protected_count(self._words, self._word_count, self._frames, count, beyond)
        if not error and beyond[0]:
            raise DataError(f"{beyond[0]} frames are recorded as protected that the domain cannot have")
        if not error and most is not None and count[0] > most:
            raise DataError(f"{count[0]} frames are recorded as protected; the most that are adopted are {most}")
        gfns = ffi.new("uint64_t[]", 0 if error else count[0])
        if error or lib.xd_protected_list(self._words, self._word_count, gfns, count[0], count):
            raise DataError("the record of protected frames is not there as a whole")
        return list(ffi.unpack(gfns, count[0]))
