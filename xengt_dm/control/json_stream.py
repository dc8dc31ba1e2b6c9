"""JSON that is encoded in pieces while it is sent, so that a long answer needs little memory and blocks nothing."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, Protocol, runtime_checkable

#: Elements of a long list that are encoded in one go, which takes about a millisecond.
SLICE: Final = 1024


class Pause(enum.Enum):
    """An element of a lazy list that is not encoded. It marks a point at which requests of the guest may be served."""

    PAUSE = enum.auto()


@runtime_checkable
class Rendered(Protocol):
    """A large object that encodes itself as JSON; :class:`xengt_dm.ppgtt.read.Runs` is one."""

    def json_pieces(self) -> Iterator[bytes]:
        """Yields the JSON text of the object, in pieces."""


class LazyObject:
    """A JSON object. Each of its members is computed just before it is encoded."""

    def __init__(self, members: Iterator[tuple[str, object]]) -> None:
        self.members = members


class LazyList:
    """A JSON array. Each of its elements is computed just before it is encoded; :class:`Pause` is left out."""

    def __init__(self, elements: Iterator[object]) -> None:
        self.elements = elements


def json_pieces(value: object) -> Iterator[bytes]:
    """Yields ``value`` as JSON, in pieces. At an empty piece the caller may do other work, such as serve requests.

    ``value`` is what json.dumps takes, and may contain LazyObject, LazyList and Rendered. There is an empty piece after
    each element of a lazy list, after each :data:`SLICE` elements of another list, and after each piece of a Rendered.
    Raises what the computation of a lazy part raises.
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
