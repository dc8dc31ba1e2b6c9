"""The words of the region ``life``: the part of an instance's state that is not the device's.

Each is one word that is changed by one aligned store of 8 bytes. So a process that is killed leaves either the old
value or the new one.
"""

from __future__ import annotations

from typing import Final

from xengt_dm.state.layout import WORD

#: The words that have frames, see :attr:`Life.frames_in_hand`.
_FRAMES: Final = slice(64, 256)
#: Where the name of the recording is, and its most bytes; the rest of the region is words.
_NAME_AT: Final = 2048
_NAME_BYTES: Final = 1024


class _Word:
    """A property that is the word with this index."""

    def __init__(self, index: int) -> None:
        self._index = index

    def __get__(self, life: Life, owner: type[Life]) -> int:
        return life.words[self._index]

    def __set__(self, life: Life, value: int) -> None:
        life.words[self._index] = value


class _Flag(_Word):
    """A word that is 0 or 1. Any other value counts as 1."""

    def __get__(self, life: Life, owner: type[Life]) -> bool:
        return bool(super().__get__(life, owner))


class Life:
    """The region as attributes. Those without a comment are settings of that name (:mod:`xengt_dm.instance`).

    A number may have any 64-bit value, because the buffer may be damaged; its reader must check it.
    """

    #: 1 in relaxed mode, 0 in strict mode.
    relaxed = _Flag(0)
    #: Whether the instance is to be quiesced: set before anything is unprotected, cleared once the claim is made again.
    quiesced = _Flag(1)
    #: Whether the server has the claim: set after it was made, and cleared before it is released.
    claimed = _Flag(2)
    #: Whether a recording goes on; its name is :attr:`recording_name`.
    recording = _Flag(3)
    generation = _Word(4)
    bar0 = _Word(5)
    max_tables = _Word(6)
    max_mapped_chunks = _Word(7)
    #: How many daemons in a row took the state over and ended before they served.
    adoptions = _Word(8)
    #: How many daemons took the state over.
    successors = _Word(9)
    #: How many daemons in a row died while they built the shadows again.
    rebuilds = _Word(10)
    #: How many daemons in a row died before they had served for a while (:mod:`xengt_dm.service.backoff`).
    deaths = _Word(11)
    #: When a daemon left its domain to a successor, in nanoseconds of CLOCK_MONOTONIC, until one serves; else 0.
    left_at = _Word(12)
    #: Which device it is, see :data:`xengt_dm.gpu.MODELS`.
    model = _Word(13)

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self.words = memory[:_NAME_AT].cast("Q")
        assert self.words.itemsize == WORD
        #: The frames that a daemon was in the middle of protecting (:class:`xengt_dm.traps.protected.FramesInHand`).
        self.frames_in_hand = self.words[_FRAMES]

    @property
    def recording_name(self) -> str:
        """The name of the file; bytes that are not UTF-8 are escaped."""
        data = bytes(self._memory[_NAME_AT : _NAME_AT + _NAME_BYTES])
        return data.rstrip(b"\0").decode("utf-8", "backslashreplace")

    @recording_name.setter
    def recording_name(self, name: str) -> None:
        data = name.encode("utf-8", "surrogateescape")[:_NAME_BYTES]
        self._memory[_NAME_AT : _NAME_AT + _NAME_BYTES] = data.ljust(_NAME_BYTES, b"\0")
