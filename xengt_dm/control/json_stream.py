"""JSON that is made while it is written, so that a long answer needs neither its memory nor all of the time at once."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, Protocol, runtime_checkable

#: Elements of a long list that are encoded in one go, which takes about a millisecond.
SLICE: Final = 1024


class Pause(enum.Enum):
    """Stands among the elements of a lazy list for a moment at which whoever writes it may do something else."""

    PAUSE = enum.auto()


@runtime_checkable
class Rendered(Protocol):
    """Something long that knows its own JSON text; :class:`xengt_dm.ppgtt.read.Runs` is one."""

    def json_pieces(self) -> Iterator[bytes]: ...


class LazyObject:
    """A JSON object whose members are made only when it is their turn to be encoded."""

    def __init__(self, members: Iterator[tuple[str, object]]) -> None:
        self.members = members


class LazyList:
    """A JSON array whose elements are made only when it is their turn to be encoded; :class:`Pause` is none of them."""

    def __init__(self, elements: Iterator[object]) -> None:
        self.elements = elements


def json_pieces(value: object) -> Iterator[bytes]:
    """``value`` as JSON in pieces; an empty one is a moment at which whoever writes them may do something else.

    ``value`` is what json.dumps takes, with lazy parts in it at will, and what can render itself. Such moments come
    after each element of a lazy list, each :data:`SLICE` of a long one and each piece of what renders itself. What
    making a lazy part raises comes through.
    """
    if isinstance(value, LazyObject):
        yield from _object_pieces(value.members)
    elif isinstance(value, Mapping):
        yield from _object_pieces(iter(value.items()))
    elif isinstance(value, LazyList):
        separator = b"["
        for element in value.elements:
            if isinstance(element, Pause):
                yield b""
                continue
            yield separator
            yield from json_pieces(element)
            yield b""
            separator = b", "
        yield b"[]" if separator == b"[" else b"]"
    elif isinstance(value, Rendered):
        for piece in value.json_pieces():
            yield piece
            yield b""
    elif isinstance(value, (list, tuple)) and len(value) > SLICE:
        separator = b"["
        elements = iter(value)
        while part := list(islice(elements, SLICE)):
            yield separator + json.dumps(part)[1:-1].encode()
            yield b""
            separator = b", "
        yield b"]"
    else:
        yield json.dumps(value).encode()


def _object_pieces(members: Iterator[tuple[str, object]]) -> Iterator[bytes]:
    separator = "{"
    for name, member in members:
        yield f"{separator}{json.dumps(name)}: ".encode()
        yield from json_pieces(member)
        separator = ", "
    yield b"{}" if separator == "{" else b"}"
