"""One address space of the virtual GPU, and the live ones of a domain."""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Iterator

from xengt_dm._core import ffi
from xengt_dm.units import PAGE_SIZE, CData


class Mode(enum.Enum):
    """How the GPU walks: 48-bit legacy with one root, or 32-bit legacy with four page-directory pointers."""

    L4 = "l4"
    L3 = "l3"

    @property
    def root_level(self) -> int:
        return 4 if self is Mode.L4 else 2

    @property
    def root_count(self) -> int:
        return 1 if self is Mode.L4 else 4


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
    gets no tables any more. ``count``: how many roots it has. ``gpas``: their addresses, as ``uint64_t[4]``.
    ``numbers``: the numbers of their shadow tables, as ``uint32_t[4]``; 0 for none.
    """

    __slots__ = ("count", "gpas", "mode", "numbers", "refs", "roots")

    def __init__(self, mode: Mode, roots: SpaceKey) -> None:
        self.mode = mode
        self.roots = roots
        self.count = len(roots)
        self.refs = 1
        self.gpas: CData = ffi.new("uint64_t[4]", roots)
        self.numbers: CData = ffi.new("uint32_t[4]")

    @property
    def shadowed(self) -> bool:
        """Whether any root has a shadow table."""
        return any(self.numbers[i] for i in range(self.count))


class LiveSpaces:
    """The live spaces of a domain, in the order of their last submissions, the one submitted longest ago first.

    Every method but :meth:`__iter__` takes constant time: a guest may announce thousands of spaces.
    """

    def __init__(self) -> None:
        self._spaces: OrderedDict[SpaceKey, Space] = OrderedDict()
        #: Those of them that have a shadow.
        self._shadowed: OrderedDict[Space, None] = OrderedDict()
        #: The last in both orders, if that is known: a guest often submits one space many times in a row.
        self._last: Space | None = None

    def __len__(self) -> int:
        return len(self._spaces)

    def __iter__(self) -> Iterator[Space]:
        return iter(self._spaces.values())

    def get(self, key: SpaceKey) -> Space | None:
        """The live space with this key."""
        return self._spaces.get(key)

    def add(self, space: Space) -> None:
        """A space is announced."""
        self._spaces[space.roots] = space
        self._last = None

    def remove(self, space: Space) -> None:
        """The guest is done with a live space."""
        del self._spaces[space.roots]
        self._last = None

    def submitted(self, space: Space) -> None:
        """A live space is submitted, and becomes the last in order."""
        if space is self._last:
            return
        self._spaces.move_to_end(space.roots)
        if space in self._shadowed:
            self._shadowed.move_to_end(space)
        self._last = space

    def note_shadow(self, space: Space, there: bool) -> None:
        """A space has been given a shadow, or lost it. One that is not live is left out."""
        self._last = None
        if there and self._spaces.get(space.roots) is space:
            self._shadowed[space] = None
        else:
            self._shadowed.pop(space, None)

    def oldest_shadowed(self, but: Space | None) -> Space | None:
        """The space with a shadow that was submitted longest ago; ``but`` does not count."""
        return next((space for space in self._shadowed if space is not but), None)
