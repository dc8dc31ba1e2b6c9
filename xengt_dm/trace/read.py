"""Reads a trace: JSON Lines in, a header and a list of events out, or an error that says which line is wrong.

The whole file is checked before the caller gets the first event, so an error in line 1000 leaves nothing half-done.
docs/trace-format.md says what is allowed; the checks here follow that text, in its order.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from xengt_dm.errors import DataError
from xengt_dm.trace.events import (
    BAR0_BYTES,
    FRAME_LIMIT,
    TRACE_VERSION,
    U64_MAX,
    VCPU_LIMIT,
    Add,
    Dump,
    Event,
    Fill,
    GpuStore,
    Header,
    L3Root,
    Mmio,
    Mode,
    Remove,
    Root,
    Store,
    Submit,
)
from xengt_dm.units import PAGE_SHIFT

Fields = dict[str, Any]

#: The first address, and the first frame, beyond the 64-bit address space.
_ADDRESS_END: Final = U64_MAX + 1
_FRAME_END: Final = _ADDRESS_END >> PAGE_SHIFT


#: Bytes in a line, with its end. The longest event has some 300; a trace may come from a stranger.
LINE_LIMIT: Final = 1 << 20


class _WrongError(Exception):
    """Says what is wrong with a line and what would be right. The reader adds the file and the line number."""


def read_trace(path: str | os.PathLike[str]) -> tuple[Header, list[Event]]:
    """Returns the header and all events of the trace at ``path``, which is gzip if its name ends in ``.gz``.

    Raises DataError if the file cannot be read or is not a trace. The message has ``path``, the line number (from 1),
    what is wrong and what would be right. Takes about 5 microseconds and 250 bytes for each event.
    """
    name = os.fspath(path)
    try:
        with gzip.open(name, "rb") if name.endswith(".gz") else open(name, "rb") as stream:
            return _read(name, iter(lambda: stream.readline(LINE_LIMIT + 1), b""))
    except EOFError:
        raise DataError(f"{name}: the gzip data ends early; the file was cut short") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{name}: not gzip data, though its name ends in .gz: {error}") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from None


def vcpu_count(events: Iterable[Event]) -> int:
    """Returns how many vCPUs the trace's guest needs: the highest vCPU number that stores, plus one."""
    return 1 + max((event.vcpu for event in events if isinstance(event, Store | Fill | Mmio)), default=0)


def frame_limit(header: Header, events: Iterable[Event]) -> int:
    """Returns the lowest gfn for which no frame at or above it is ever RAM in this trace."""
    return max([header.ram_frames, *(event.gfn + event.count for event in events if isinstance(event, Add))])


def _read(name: str, stream: Iterable[bytes]) -> tuple[Header, list[Event]]:
    decode = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant).decode
    header: Header | None = None
    events: list[Event] = []
    number = 0
    try:
        for line in stream:
            number += 1
            if len(line) > LINE_LIMIT:
                raise _WrongError(f"the line has more than {LINE_LIMIT} bytes; an event is far shorter")
            fields = decode(line.decode())
            if type(fields) is not dict:
                raise _WrongError(f"{_show(fields)} is no JSON object; a line is one object, {{...}}")
            if header is None:
                header = _header(fields)
            else:
                events.append(_event(fields))
    except _WrongError as error:
        raise DataError(f"{name}:{number}: {error}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{name}:{number}: byte {error.start + 1} is not UTF-8 ({error.reason})") from None
    except json.JSONDecodeError as error:
        column = 1 + min(error.pos, len(error.doc.rstrip()))
        what = f"not JSON at column {column}: {error.msg}" if error.doc.strip() else "the line is empty"
        raise DataError(f"{name}:{number}: {what}; a line is one JSON object") from None
    except ValueError:
        # json converts integers with int(), which refuses more digits than sys.get_int_max_str_digits().
        raise DataError(f"{name}:{number}: a number is far too long; numbers are integers from 0 to 2^64-1") from None
    except RecursionError:
        raise DataError(f"{name}:{number}: arrays or objects nest too deeply; an event is a flat object") from None
    if header is None:
        raise DataError(f"{name}:1: the file is empty; the first line must be the header")
    return header, events


def _event(fields: Fields) -> Event:
    name = fields.get("op")
    op = _OPS.get(name) if type(name) is str else None
    if op is None:
        raise _no_such_event(fields)
    if fields.keys() != op.required:
        _keys(f"{name}", fields, op.required, op.optional)
    return op.parse(fields)


def _object(pairs: list[tuple[str, Any]]) -> Fields:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _WrongError(f"the key {_show(twice)} occurs twice")
    return fields


def _constant(text: str) -> None:
    raise _WrongError(f"{text} is no JSON; numbers are integers from 0 to 2^64-1")


def _show(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _one_of(names: Iterable[object]) -> str:
    *most, last = map(str, names)
    return f"{', '.join(most)} or {last}"


def _no_such_event(fields: Fields) -> _WrongError:
    if "trace" in fields:
        return _WrongError("a second header; only the first line is one")
    if "op" not in fields:
        return _WrongError(f'the key "op" is missing; it must be one of {_one_of(_OPS)}')
    return _WrongError(f"op is {_show(fields['op'])}; it must be one of {_one_of(_OPS)}")


def _keys(what: str, fields: Fields, required: frozenset[str], optional: frozenset[str]) -> None:
    for key in fields:
        if key not in required and key not in optional:
            known = ", ".join(sorted(required | optional))
            raise _WrongError(f"{what}: unknown key {_show(key)}; its keys are {known}")
    for key in sorted(required):
        if key not in fields:
            raise _WrongError(f"{what}: the key {_show(key)} is missing")


def _number(fields: Fields, key: str, limit: int = _ADDRESS_END, low: int = 0) -> int:
    """Returns ``fields[key]``, an integer from ``low`` to ``limit`` - 1. true, 1.0 and 1e3 are not integers."""
    value = fields[key]
    if type(value) is not int or not low <= value < limit:
        top = "2^64-1" if limit == _ADDRESS_END else str(limit - 1)
        raise _WrongError(f"{key} is {_show(value)}; it must be an integer from {low} to {top}")
    return value


def _size(fields: Fields, allowed: tuple[int, ...]) -> int:
    size = fields["size"]
    if type(size) is not int or size not in allowed:
        raise _WrongError(f"size is {_show(size)}; it must be {_one_of(allowed)}")
    return size


def _value(fields: Fields, size: int) -> int:
    value = _number(fields, "value")
    if value >> 8 * size:
        raise _WrongError(f"value {value} does not fit size {size}; it must be at most {(1 << 8 * size) - 1}")
    return value


def _vcpu(fields: Fields) -> int:
    return _number(fields, "vcpu", VCPU_LIMIT) if "vcpu" in fields else 0


def _aligned(fields: Fields, key: str) -> int:
    address = _number(fields, key)
    if address & 7:
        raise _WrongError(f"{key} is {address}; it must be a multiple of 8")
    return address


def _within(what: str, first: int, count: int, end: int) -> None:
    if first + count > end:
        raise _WrongError(f"{what} ends at {first + count}, past {end}, the first one that there is not")


def _mode_and_root(fields: Fields) -> tuple[Mode, Root]:
    mode, root = fields["mode"], fields["root"]
    if mode == "l4":
        return "l4", _number(fields, "root")
    if mode != "l3":
        raise _WrongError(f'mode is {_show(mode)}; it must be "l4" or "l3"')
    if type(root) is not list or len(root) != 4:
        raise _WrongError(f"root is {_show(root)}; with mode l3 it must be a list of four integers")
    for value in root:
        if type(value) is not int or not 0 <= value <= U64_MAX:
            raise _WrongError(f"root has {_show(value)}; it must be four integers from 0 to 2^64-1")
    four: L3Root = (root[0], root[1], root[2], root[3])
    return "l3", four


def _header(fields: Fields) -> Header:
    if "trace" not in fields:
        raise _WrongError('the first line must be the header, {"trace": 1, "generation": 9, "ram_frames": 16384}')
    if type(fields["trace"]) is not int or fields["trace"] != TRACE_VERSION:
        raise _WrongError(f"trace is {_show(fields['trace'])}; this program reads version {TRACE_VERSION}")
    _keys("header", fields, frozenset({"trace", "generation", "ram_frames"}), frozenset({"holes"}))
    generation = fields["generation"]
    if type(generation) is not int or generation not in (8, 9):
        raise _WrongError(f"generation is {_show(generation)}; it must be 8 or 9")
    ram_frames = _number(fields, "ram_frames", FRAME_LIMIT + 1, low=1)
    return Header(generation, ram_frames, _holes(fields.get("holes", []), ram_frames))


def _holes(holes: object, ram_frames: int) -> tuple[tuple[int, int], ...]:
    if type(holes) is not list:
        raise _WrongError(f"holes is {_show(holes)}; it must be a list of [first frame, count]")
    pairs: list[tuple[int, int]] = []
    for hole in holes:
        if type(hole) is not list or len(hole) != 2:
            raise _WrongError(f"holes has {_show(hole)}; each must be [first frame, count]")
        pair = {"a hole's first frame": hole[0], "a hole's count": hole[1]}
        first, count = (_number(pair, key, FRAME_LIMIT + 1) for key in pair)
        if first + count > ram_frames:
            raise _WrongError(f"the hole {_show(hole)} reaches over the last frame of RAM, {ram_frames - 1}")
        pairs.append((first, count))
    return tuple(pairs)


def _store(fields: Fields) -> Event:
    gpa, size = _number(fields, "gpa"), _size(fields, (1, 2, 4, 8))
    _within("the store", gpa, size, _ADDRESS_END)
    return Store(gpa, size, _value(fields, size), _vcpu(fields))


def _fill(fields: Fields) -> Event:
    gpa, count = _aligned(fields, "gpa"), _number(fields, "count")
    _within("the fill", gpa, 8 * count, _ADDRESS_END)
    return Fill(gpa, count, _number(fields, "value"), _vcpu(fields))


def _mmio(fields: Fields) -> Event:
    offset, size = _number(fields, "offset"), _size(fields, (4, 8))
    _within("the register write", offset, size, BAR0_BYTES)
    return Mmio(offset, size, _value(fields, size), _vcpu(fields))


def _submit(fields: Fields) -> Event:
    return Submit(*_mode_and_root(fields))


def _gpu_store(fields: Fields) -> Event:
    return GpuStore(*_mode_and_root(fields), _aligned(fields, "va"), _number(fields, "value"))


def _remove(fields: Fields) -> Event:
    gfn, count = _number(fields, "gfn"), _number(fields, "count")
    _within("the range of frames", gfn, count, _FRAME_END)
    return Remove(gfn, count)


def _add(fields: Fields) -> Event:
    gfn, count = _number(fields, "gfn"), _number(fields, "count")
    _within("the range of frames", gfn, count, FRAME_LIMIT)
    return Add(gfn, count)


def _dump(fields: Fields) -> Event:
    name = fields["id"]
    if type(name) is str:
        return Dump(name)
    if type(name) is not int or not 0 <= name <= U64_MAX:
        raise _WrongError(f"id is {_show(name)}; it must be a string, or an integer from 0 to 2^64-1")
    return Dump(name)


class _Op(NamedTuple):
    required: frozenset[str]
    optional: frozenset[str]
    parse: Callable[[Fields], Event]


def _op(parse: Callable[[Fields], Event], required: str, optional: str = "") -> _Op:
    return _Op(frozenset(["op", *required.split()]), frozenset(optional.split()), parse)


_OPS: Final[dict[str, _Op]] = {
    "store": _op(_store, "gpa size value", "vcpu"),
    "fill": _op(_fill, "gpa count value", "vcpu"),
    "mmio": _op(_mmio, "offset size value", "vcpu"),
    "submit": _op(_submit, "mode root"),
    "gpu_store": _op(_gpu_store, "mode root va value"),
    "remove": _op(_remove, "gfn count"),
    "add": _op(_add, "gfn count"),
    "dump": _op(_dump, "id"),
}
