"""What a daemon answers, as far as it can be believed.

A daemon looks at what a hostile guest wrote. Whoever asks it is root, and shows the answer on a terminal or acts on it.
So the daemon is taken for compromised: an answer is data of bounded size, in which text cannot be acted on by a
terminal and numbers are those that a daemon can have. What is asked of it later, such as a key, it either has, or the
command ends with an error that says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from xengt_dm.control.protocol import ControlError
from xengt_dm.printable import printable

#: Levels of objects and arrays in an answer; a dump has six.
DEPTH_LIMIT: Final = 16
#: Characters of one text, and of the message of a refusal.
TEXT_LIMIT: Final = 64 * 1024
MESSAGE_LIMIT: Final = 2000
#: Values in an answer, as far as commas and brackets tell; a dump of as many mappings as a daemon lists has 13 million.
#: Two bytes of an answer can take a hundred of memory.
VALUES_LIMIT: Final = 1 << 24
#: Numbers are counters, addresses and seconds.
NUMBER_LIMIT: Final = 1 << 64


class Answer(dict[str, Any]):
    """An object of an answer; a key that it lacks is an error of the daemon, not of who asks."""

    __slots__ = ()

    def __missing__(self, key: str) -> Any:
        raise ControlError(f"the daemon's answer has no {key!r}, which this command needs; use its own version")


def decode(line: bytes | bytearray) -> Any:
    """Returns the JSON value in a line, made fit to be used. Raises ValueError or RecursionError if it is none."""
    if sum(map(line.count, (b",", b"[", b"{"))) > VALUES_LIMIT:
        raise ValueError("too many values")
    return _clean(json.loads(line, parse_constant=_no_constant, object_pairs_hook=_object), DEPTH_LIMIT)


def _object(pairs: list[tuple[str, Any]]) -> Answer:
    return Answer((printable(key[:TEXT_LIMIT]), value) for key, value in pairs)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _clean(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        if len(value) > TEXT_LIMIT:
            raise ValueError("a text that is too long")
        return printable(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, (int, float)):
        if not -NUMBER_LIMIT <= value <= NUMBER_LIMIT:  # nor is it infinite, as JSON's 1e999 is
            raise ValueError("a number that is too large")
        return value
    if depth == 0:
        raise ValueError("nested too deeply")
    # In place: an answer may be large.
    for place, each in enumerate(value) if isinstance(value, list) else [*value.items()]:
        value[place] = _clean(each, depth - 1)
    return value


def check_status(status: Any, domid: int, fields: Iterable[str] = (), counters: Iterable[str] = ()) -> dict[str, Any]:
    """Returns a daemon's status if it is one: of this domain, with these fields and counters. Raises ControlError."""
    if not isinstance(status, Answer):
        raise ControlError(f"the daemon of domain {domid} gives no status; is it what it says to be?")
    if status.get("domid", domid) != domid:
        raise ControlError(f"the daemon of domain {domid} says that it serves domain {status['domid']}")
    if not isinstance(status["counters"], Answer):
        raise ControlError(f"the daemon of domain {domid} has no counters")
    wrong = [name for name in fields if not _is_of_kind(name, status[name])]
    wrong += [name for name, value in status["counters"].items() if not _is_count(value)]
    wrong += [name for name in counters if name not in status["counters"]]
    if wrong:
        raise ControlError(f"the daemon of domain {domid} answers with a wrong {wrong[0]!r}")
    return status


def _is_of_kind(name: str, value: object) -> bool:
    if name in ("state", "mode", "version"):
        return isinstance(value, str) and len(value) < 100
    if name == "uptime_seconds":
        return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
    return _is_count(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
