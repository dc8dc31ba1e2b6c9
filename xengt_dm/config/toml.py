"""A configuration file as a TOML document and the lines of its keys, or words that say why it is none.

A running daemon reads its files again in the process that serves the guest. So reading must end in bounded time for any
content: the size of a file and of a line are limited, because tomllib takes time quadratic in the parts of a dotted
key. A file that gives no key a value, as the one that the package installs, is read without tomllib, which takes longer
to import than such a file to read.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Final

from xengt_dm.errors import ConfigError
from xengt_dm.printable import printable

#: The example with every key has 3 KiB; a file beyond this is something else.
SIZE_LIMIT: Final = 1 << 16
#: Bytes in one line.
LINE_LIMIT: Final = 1000


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
    document = _without_keys(text)
    if document is not None:
        return document, {}
    from xengt_dm.config.toml_text import parse

    return parse(path, text)


def _without_keys(text: str) -> dict[str, Any] | None:
    """The document of comments and plain section heads. None for every other text, and for one that may be no TOML."""
    document: dict[str, Any] = {}
    for line in text.split("\n"):
        stripped = line.strip(" ")
        if not stripped:
            continue
        if stripped[0] == "[" and stripped[-1] == "]":
            name = stripped[1:-1]
            if not (name.isascii() and name.isalpha()) or name in document:
                return None
            document[name] = {}
        elif stripped[0] != "#" or not stripped.isprintable():
            return None
    return document


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
