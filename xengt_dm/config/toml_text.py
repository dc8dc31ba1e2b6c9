"""The text of a configuration file, parsed.

Whatever tomllib raises (RecursionError for deep nesting, ValueError for numbers of thousands of digits) is an error in
the file.
"""

from __future__ import annotations

import json
import re
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from xengt_dm.errors import ConfigError
from xengt_dm.printable import printable

#: How tomllib begins what it says of a key or a section that the document has already.
_TWICE: Final = ("Cannot overwrite a value", "Cannot declare")


def parse(path: Path, text: str) -> tuple[dict[str, Any], dict[str, int]]:
    """The document, and the line of each dotted name in it.

    ``path`` is for errors. Raises ConfigError, with file and line, if it is no TOML.
    """
    try:
        return tomllib.loads(text), key_lines(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{path}:{_line_of(error, text)}: not TOML: {printable(str(error))}{_hint(error, text)}"
        ) from None
    except RecursionError:
        raise ConfigError(f"{path}: not TOML that can be read: nested too deeply") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not TOML that can be read: {printable(str(error))}") from None


def _line_of(error: tomllib.TOMLDecodeError, text: str) -> int:
    told = re.search(r"\(at line (\d+), ", str(error))
    return int(told[1]) if told else text.count("\n", 0, len(text.rstrip("\n"))) + 1


def _hint(error: tomllib.TOMLDecodeError, text: str) -> str:
    if text.startswith("\ufeff"):
        return "; it begins with a byte order mark"
    return "; the key or section is there twice" if str(error).startswith(_TWICE) else ""


_PIECE: Final = re.compile(
    r"""
    (?P<string>\"\"\"(?:[^"\\]|\\.|"(?!\"\"))*"{3,5} | '''(?:[^']|'(?!''))*'{3,5} | "(?:[^"\\\n]|\\.)*" | '[^'\n]*')
    | (?P<comment>\#[^\n]*)
    | (?P<end>\n)
    | (?P<open>[\[{])
    | (?P<close>[\]}])
    | (?P<equals>=)
    | (?P<comma>,)
    | (?P<space>[ \t\r]+)
    | (?P<word>[^\s"'#\[\]{}=,]+)
    """,
    re.VERBOSE | re.DOTALL,
)


#: Parts of a dotted name that have a line of their own: a section, and a key in it.
_PARTS: Final = 2

_Name: TypeAlias = tuple[str, ...]


class _Open(NamedTuple):
    """An inline table or an array that is open in a value. ``name``: that of the table; None if its keys have none."""

    is_table: bool
    name: _Name | None


def key_lines(text: str) -> dict[str, int]:
    """The line of each key and each section head in a good document, by dotted name; tomllib does not tell.

    Names are cut after two parts, and each first part is a name, too. A name that is there several times has its first
    line. Keys of inline tables count, those in arrays do not. Takes time linear in the length of the text.
    """
    found: dict[str, int] = {}
    section: _Name = ()
    key: list[str] = []
    name: _Name | None = None
    containers: list[_Open] = []
    in_value = False
    line = first_line = 1
    for match in _PIECE.finditer(text + "\n"):
        kind, piece = match.lastgroup, match[0]
        if kind == "end" and not containers:
            if key and not in_value:
                section = tuple(key[:_PARTS])
                _note(found, section, first_line)
            key, in_value = [], False
        elif not in_value:
            if kind in ("word", "string"):
                first_line = line if not key else first_line
                key += _parts(piece)
            elif kind == "equals":
                above = containers[-1].name if containers else section
                name = None if above is None else (*above, *key)[:_PARTS]
                _note(found, name or (), first_line)
                key, in_value = [], True
            elif kind == "close" and containers:
                containers.pop()
                in_value = True
        elif kind == "open":
            containers.append(_Open(piece == "{", name if piece == "{" else None))
            name, in_value = None, piece == "["
        elif kind == "close" and containers:
            containers.pop()
        elif kind == "comma" and containers and containers[-1].is_table:
            key, in_value = [], False
        line += piece.count("\n")
    return found


def _note(found: dict[str, int], name: _Name, line: int) -> None:
    for length in range(1, len(name) + 1):
        found.setdefault(".".join(name[:length]), line)


def _parts(piece: str) -> list[str]:
    """The parts of a dotted key in one word or string of it."""
    if piece[0] not in "\"'":
        return [part for part in piece.split(".") if part]
    if piece[0] == '"' and "\\" in piece:
        with suppress(ValueError):  # JSON has every escape of TOML except \U
            return [json.loads(piece, strict=False)]
    return [piece.strip("\"'")]
