"""The text of a configuration file, parsed.

Whatever tomllib raises (RecursionError for deep nesting, ValueError for numbers of thousands of digits) is an error in
the file.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final

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
