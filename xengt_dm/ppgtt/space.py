"""One address space of the virtual GPU, and the live ones of a domain.

The region
----------
Facts: a driver may announce a space once and never again, and destroys it as often as it announced it. A store to a
shared file mapping is kept if the process dies at any moment.

What follows: the live spaces and their references are in memory that outlives the process, the *region*. It has an
entry of eight words for each space that may be live: the references, the mode (1: L4, 2: L3), four root addresses, and
two words that are 0. An entry without references is free, whatever its other words say. An announcement writes mode and
roots into a free entry first; then the space is live by one store, that of its references. Every other change of
references is one store as well, so a journal can make it once and only once (:data:`Commit`).

The region is read when :class:`LiveSpaces` is made, and only written afterwards.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

from xengt_dm._core import ffi, lib
from xengt_dm.errors import DataError
from xengt_dm.ppgtt.space_rows import SpaceRows
from xengt_dm.units import PAGE_SIZE, CData

#: Bytes of an entry of the region, and its words: references, mode, roots and zeros.
ENTRY_BYTES: Final = 64
_WORDS: Final = 8
_REFERENCES, _MODE, _ROOTS, _ZEROS = 0, 1, slice(2, 6), slice(6, 8)
#: No guest announces a space that often.
_MOST_REFERENCES: Final = 1 << 48

#: ``commit(word, value)`` stores a value into a word of the region, given by its index, before it returns. A journal
#: does so once and only once for the request that it is for, whenever the process dies.
Commit: TypeAlias = Callable[[int, int], None]


class Mode(enum.Enum):
    """How the GPU walks: 48-bit legacy with one root, or 32-bit legacy with four page-directory pointers."""

    L4 = "l4"
    L3 = "l3"

    @property
    def root_level(self) -> int:
        """The level of the tables that the roots are: 4, or 2 for the page directories of an l3 space."""
        return 4 if self is Mode.L4 else 2

    @property
    def root_count(self) -> int:
        """How many roots a space of this mode has."""
        return 1 if self is Mode.L4 else 4


#: The modes by the number that an entry of the region has for each.
_MODES: Final = {1: Mode.L4, 2: Mode.L3}
_NUMBERS: Final = {mode: number for number, mode in _MODES.items()}

#: The root addresses of a space, low 12 bits cleared. Their number tells the mode, so the key tells spaces apart.
SpaceKey = tuple[int, ...]


def space_key(mode: Mode, roots: tuple[int, ...]) -> SpaceKey:
    """The key of the space with these root addresses. Raises ValueError if their number does not fit the mode."""
    if len(roots) != mode.root_count:
        raise ValueError(f"an {mode.value} space has {mode.root_count} root(s), not {len(roots)}")
    return tuple(root & ~(PAGE_SIZE - 1) for root in roots)


class Space:
    """An address space.

    ``refs``: how often the guest announced it and did not take it back; 0 once it is done with it, and then the space
    gets no tables any more. ``entry``: the number of its entry in the region; None if it is not live. ``count``: how
    many roots it has. ``gpas``: their addresses, as ``uint64_t[4]``. ``numbers``: the numbers of their shadow tables,
    as ``uint32_t[4]``; 0 for none.
    """

    __slots__ = ("count", "entry", "gpas", "mode", "numbers", "refs", "roots")

    def __init__(self, mode: Mode, roots: SpaceKey, refs: int = 1, entry: int | None = None) -> None:
        self.mode = mode
        self.roots = roots
        self.count = len(roots)
        self.refs = refs
        self.entry = entry
        self.gpas: CData = ffi.new("uint64_t[4]", roots)
        self.numbers: CData = ffi.new("uint32_t[4]")

    @property
    def live(self) -> bool:
        """Whether the guest has announced it."""
        return self.entry is not None

    @property
    def shadowed(self) -> bool:
        """Whether any root has a shadow table."""
        return any(self.numbers[i] for i in range(self.count))


def sort_key(space: Space) -> tuple[int, SpaceKey]:
    """Sorts spaces by mode, L3 first, then by roots."""
    return -space.count, space.roots


class LiveSpaces:
    """The live spaces of a domain, in the order of their last submissions, the one submitted longest ago first.

    ``most``: how many can be announced. ``memory``: the region, with room for as many; without one it is private.
    Spaces that are live in it are live now, in the order of their entries. ``commit`` changes references; without one
    they are stored at once.

    Raises ValueError if the memory is too small, and DataError if its contents cannot be those of a region.

    No method but :meth:`__iter__` takes longer for more spaces: a guest may announce thousands of them.
    """

    def __init__(self, most: int, memory: memoryview | None = None, commit: Commit | None = None) -> None:
        if memory is None:
            memory = memoryview(bytearray(most * ENTRY_BYTES))
        elif memory.nbytes < most * ENTRY_BYTES or memory.nbytes % ENTRY_BYTES:
            raise ValueError(f"{memory.nbytes} bytes are no region of {most} spaces")
        self._most = most
        self._words = memory.cast("B").cast("Q")
        self._commit: Commit = commit or self._words.__setitem__
        self._spaces: OrderedDict[SpaceKey, Space] = OrderedDict()
        #: Those of them that have a shadow.
        self._shadowed: OrderedDict[Space, None] = OrderedDict()
        #: The last in both orders, if that is known: a guest often submits one space many times in a row.
        self._last: Space | None = None
        self._rows = SpaceRows()
        #: The live spaces for C, an ``xd_live_spaces *``.
        self.pointer: CData = self._rows.pointer
        #: The numbers of the free entries, the next one to be used last.
        self._free: list[int] = []
        self._load()
        self._free.reverse()

    def _load(self) -> None:
        words = _read(self._words)
        live: list[int] = []
        for entry, references in enumerate(words[_REFERENCES::_WORDS]):
            (live if references else self._free).append(entry)
        for entry in live:
            space = _space(entry, words[entry * _WORDS : (entry + 1) * _WORDS])
            if space.roots in self._spaces:
                raise DataError(f"entry {entry} of the live spaces is a space that an earlier entry is")
            self._spaces[space.roots] = space
            self._rows.add(space)

    def __len__(self) -> int:
        return len(self._spaces)

    def __iter__(self) -> Iterator[Space]:
        self._catch_up()
        return iter(self._spaces.values())

    @property
    def full(self) -> bool:
        """Whether there are so many live spaces that no other one can be announced."""
        return len(self._spaces) >= self._most

    def get(self, key: SpaceKey) -> Space | None:
        """The live space with this key."""
        return self._spaces.get(key)

    def announce(self, mode: Mode, key: SpaceKey) -> Space:
        """A space that is not live is announced; it has one reference then. It must not be :attr:`full`."""
        self._catch_up()
        entry = self._free[-1]
        space = Space(mode, key, entry=entry)
        first = entry * _WORDS
        for i, word in enumerate((_NUMBERS[mode], *space.gpas, 0, 0), start=first + _MODE):
            self._words[i] = word
        self._commit(first + _REFERENCES, 1)
        self._free.pop()
        self._spaces[key] = space
        self._rows.add(space)
        self._last = None
        return space

    def set_references(self, space: Space, count: int) -> None:
        """The guest announced a live space again, or took an announcement back. With 0 it is not live any more."""
        assert space.entry is not None
        self._commit(space.entry * _WORDS + _REFERENCES, count)
        space.refs = count
        if not count:
            self._free.append(space.entry)
            self._remove(space)

    def end(self, space: Space) -> None:
        """Whoever announced a live space is gone. To be done again does no harm, so no journal has it."""
        assert space.entry is not None
        self._words[space.entry * _WORDS + _REFERENCES] = 0
        space.refs = 0
        self._free.append(space.entry)
        self._remove(space)

    def forget(self, space: Space) -> None:
        """This process is done with a live space. The region keeps it for a successor."""
        space.refs = 0
        self._remove(space)

    def _remove(self, space: Space) -> None:
        self._catch_up()
        space.entry = None
        del self._spaces[space.roots]
        self._rows.remove(space)
        self._last = None

    def _catch_up(self) -> None:
        """Bring the order up to date with the submissions that C has made."""
        if self.pointer.recent_count:
            for space in self._rows.take_recent():
                for each in [*self._spaces.values()] if space is None else [space]:
                    self._submitted(each)

    def submitted(self, space: Space) -> None:
        """A live space is submitted, and becomes the last in order."""
        self._catch_up()
        self._submitted(space)

    def _submitted(self, space: Space) -> None:
        if space is self._last:
            return
        self._spaces.move_to_end(space.roots)
        if space in self._shadowed:
            self._shadowed.move_to_end(space)
        self._last = space

    def note_shadow(self, space: Space, there: bool) -> None:
        """A space has been given a shadow, or lost it. One that is not live is left out."""
        self._catch_up()
        self._last = None
        if there and self._spaces.get(space.roots) is space:
            self._shadowed[space] = None
        else:
            self._shadowed.pop(space, None)

    def oldest_shadowed(self, but: Space | None) -> Space | None:
        """The space with a shadow that was submitted longest ago; ``but`` does not count."""
        self._catch_up()
        return next((space for space in self._shadowed if space is not but), None)

    def violations(self) -> Iterator[str]:
        """Yields each difference between the region and the live spaces, a line each; for tests."""
        expected = {space.entry: [space.refs, _NUMBERS[space.mode], *space.gpas, 0, 0] for space in self}
        for entry, wanted in expected.items():
            assert entry is not None
            words = self._words[entry * _WORDS : (entry + 1) * _WORDS].tolist()
            if words != wanted:
                yield f"entry {entry} of the live spaces says {words}, not {wanted}"
        references = self._words[_REFERENCES::_WORDS].tolist()
        used = {entry for entry, count in enumerate(references) if count}
        if wrong := (used | expected.keys()) & set(self._free):
            yield f"entries {wrong} of the live spaces are said to be free"


def _read(region: memoryview) -> list[int]:
    """The words of a region. Raises DataError if some of the memory is not there."""
    words = ffi.new("uint64_t[]", len(region))
    if lib.xd_guard_install() or lib.xd_read_words(words, ffi.from_buffer("uint64_t[]", region), len(region)):
        raise DataError("the record of live spaces is not there as a whole")
    return list(ffi.unpack(words, len(region)))


def _space(entry: int, words: Sequence[int]) -> Space:
    """The space that an entry with references is. Raises DataError if it cannot be one."""
    mode = _MODES.get(words[_MODE])
    roots = words[_ROOTS]
    if (
        mode is None
        or words[_REFERENCES] > _MOST_REFERENCES
        or any(root % PAGE_SIZE for root in roots)
        or any(roots[mode.root_count :])
        or any(words[_ZEROS])
    ):
        raise DataError(f"entry {entry} of the live spaces is damaged")
    return Space(mode, tuple(roots[: mode.root_count]), words[_REFERENCES], entry)
