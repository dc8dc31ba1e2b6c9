"""TOML as a document and the lines of its keys, or words that say why a file is none.

A running daemon reads its files again in the process that serves the guest. So reading must end in bounded time for any
content: the size of a file and of a line are limited, because tomllib takes time quadratic in the parts of a dotted
key, and whatever tomllib raises (RecursionError for deep nesting, ValueError for numbers of thousands of digits) is an
error in the file.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any, Final

from xengt_dm.errors import ConfigError
from xengt_dm.printable import printable

#: The example with every key has 3 KiB; a file beyond this is something else.
SIZE_LIMIT: Final = 1 << 16
#: Bytes in one line.
LINE_LIMIT: Final = 1000
#: How tomllib begins what it says of a key or a section that the document has already.
_TWICE: Final = ("Cannot overwrite a value", "Cannot declare")


def read_document(path: Path) -> tuple[dict[str, Any], dict[str, int]] | None:
    """A file's document, and the line of each dotted name in it; None if there is no such file.

    Raises ConfigError, with file and line, if it is no TOML, and for a link to no file.
    """
    data = _read(path)
    if data is None:
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8, which TOML is") from None
    for number, line_text in enumerate(data.split(b"\n"), 1):
        if len(line_text) > LINE_LIMIT:
            raise ConfigError(f"{path}:{number}: a line of more than {LINE_LIMIT} bytes; is it the right file?")
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


def _read(path: Path) -> bytes | None:
    """The content of a regular file; nothing else is opened for longer than it takes to tell."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError(f"{path}: cannot be read: not a regular file")
            data = file.read(SIZE_LIMIT + 1)
    except FileNotFoundError:
        if path.is_symlink():
            raise ConfigError(f"{path}: a link to no file") from None
        return None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # a path with a NUL or a lone surrogate
        raise ConfigError(f"{printable(str(path))}: cannot be read: {error}") from None
    if len(data) > SIZE_LIMIT:
        raise ConfigError(f"{path}: more than {SIZE_LIMIT} bytes; is it the right file?")
    return data


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
    | (?P<space>[ \t\r]+)
    | (?P<word>[^\s"'#\[\]{}=]+)
    """,
    re.VERBOSE | re.DOTALL,
)


def key_lines(text: str) -> dict[str, int]:
    """The line of each dotted name in a good document, the first if there are several; tomllib does not tell.

    Takes time linear in the length of the text.
    """
    found: dict[str, int] = {}
    section = ""
    line = first_line = 1
    head: list[str] = []
    depth, in_value = 0, False
    for match in _PIECE.finditer(text + "\n"):
        kind, piece = match.lastgroup, match[0]
        if kind == "end" and (not in_value or depth == 0):
            if in_value:
                found.setdefault(section + "".join(head), first_line)
            elif head:
                section = "".join(head) + "."
            head, depth, in_value = [], 0, False
        elif kind == "equals":
            in_value = True
        elif in_value:
            depth += (kind == "open") - (kind == "close")
        elif kind in ("word", "string"):
            first_line = line if not head else first_line
            head.append(piece.strip("\"'"))
        line += piece.count("\n")
    return found
