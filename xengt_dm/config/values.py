"""Checks what a user wrote for a key: returns a value that the key can have, or raises an error that says why not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from xengt_dm.config.keys import Key, Kind, Value, show
from xengt_dm.printable import printable

#: Messages quote so many characters of a text, and an integer of so many bits.
TEXT_LIMIT: Final = 60
BITS_SHOWN: Final = 128
#: Characters of a name of which a near one is looked for.
NAME_LIMIT: Final = 100


class WrongError(Exception):
    """What is wrong with a key or its value; who reads adds where that is."""


def find_key(name: str, keys: Mapping[str, Key]) -> Key:
    """The key with this name or alias. Raises WrongError."""
    for key in keys.values():
        if name == key.name or name.removeprefix(f"{key.section}.") in key.aliases:
            return key
    import difflib  # only a mistake needs it

    name = name[:NAME_LIMIT]
    near = difflib.get_close_matches(name, keys, n=1, cutoff=0.6)
    if not near:
        last = name.rpartition(".")[2]
        near = [each for each in keys if each.rpartition(".")[2] == last]
    remedy = f"did you mean {near[0]}?" if near else "`xengt-dm config show` lists those that there are"
    raise WrongError(f"{brief(name)}: there is no such key; {remedy}")


def check(key: Key, value: object) -> Value:
    """A value as TOML gives it, if the key takes it. Raises WrongError."""
    if not _fits_kind(key, value):
        raise WrongError(f"{key.name}: {_shown(value)} is no {_kind_name(key)}; it must be {key.range}")
    assert isinstance(value, (int, str))
    if key.choices:
        good = value in key.choices
    elif key.kind in (Kind.INTEGER, Kind.ADDRESS):
        assert isinstance(value, int)
        good = key.low <= value <= key.high and value % key.multiple == 0
    else:
        good = True
    if not good:
        raise WrongError(f"{key.name}: {_shown(value, key)} is not allowed; it must be {key.range}")
    return value


def from_text(key: Key, text: str) -> Value:
    """A value as a person gives it on a command line: numbers with 0x or without, strings bare. Raises WrongError."""
    text = text.strip()
    value: object = text
    if key.kind is Kind.BOOLEAN:
        value = {"true": True, "false": False}.get(text.lower(), text)
    elif key.kind is not Kind.STRING:
        try:
            value = int(text, 0) if text.isascii() else text
        except ValueError:
            value = text
    elif len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        value = text[1:-1]
    return check(key, value)


def _fits_kind(key: Key, value: object) -> bool:
    if key.kind is Kind.BOOLEAN:
        return isinstance(value, bool)
    if key.kind is Kind.STRING:
        return isinstance(value, str)
    return isinstance(value, int) and not isinstance(value, bool)


def _kind_name(key: Key) -> str:
    return "integer" if key.kind is Kind.ADDRESS else key.kind.value


def _shown(value: object, key: Key | None = None) -> str:
    """A value in a message: as TOML has it, of ``key`` if that is known, or what kind of thing it is."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, int) and value.bit_length() > BITS_SHOWN:  # not every integer has decimal digits in Python
        return f"an integer of {value.bit_length()} bits"
    if key is not None and isinstance(value, (int, str)):
        return brief(show(key, value))
    return brief(
        f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    )


def brief(text: str) -> str:
    """A text in a message, on one line and not too long."""
    text = printable(text)
    return text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 3] + "..."
