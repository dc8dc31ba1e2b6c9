"""Reading a configuration file: TOML in, assignments with their places out, or every complaint at once."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from xengt_dm.config.keys import KEYS, Key, Value
from xengt_dm.config.values import WrongError, check, find_key, from_text
from xengt_dm.errors import ConfigError

#: No file of ours comes near; a file that does is something else.
SIZE_LIMIT: Final = 1 << 20


class Assignment(NamedTuple):
    """``origin`` says to people where the value comes from: a file with a line, or an option."""

    key: Key
    value: Value
    origin: str


def read_file(path: Path, *, of_domain: bool = False, keys: Mapping[str, Key] = KEYS) -> list[Assignment] | None:
    """What a file says; None if there is no such file. ``of_domain``: it is about one domain.

    Raises ConfigError with all that is wrong with it, a line each.
    """
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_LIMIT + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > SIZE_LIMIT:
        raise ConfigError(f"{path}: more than {SIZE_LIMIT} bytes; is it the right file?")
    try:
        text = data.decode()
        document = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8, which TOML is") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    return _assignments(path, text, document, of_domain, keys)


def read_setting(text: str, origin: str = "--set", keys: Mapping[str, Key] = KEYS) -> Assignment:
    """One ``key=value`` of a command line. Raises ConfigError."""
    name, sign, value = text.partition("=")
    if not sign:
        raise ConfigError(f"{origin} {text}: no value; give it like {origin} shadow.mode=relaxed")
    return assign(name.strip(), value, origin, keys)


def assign(name: str, text: str, origin: str, keys: Mapping[str, Key] = KEYS) -> Assignment:
    """A key, by name or alias, and its value as a person wrote it. Raises ConfigError."""
    try:
        key = find_key(name, keys)
        return Assignment(key, from_text(key, text), origin)
    except WrongError as error:
        raise ConfigError(f"{origin}: {error}") from None


def _assignments(
    path: Path, text: str, document: dict[str, Any], of_domain: bool, keys: Mapping[str, Key]
) -> list[Assignment]:
    found: dict[str, Assignment] = {}
    complaints = []
    lines = _lines(text)
    for name, value in _leaves(document, {key.section for key in keys.values()}):
        origin = f"{path}:{lines[name]}" if name in lines else str(path)
        try:
            key = find_key(name, keys)
            if key.name in found:
                raise WrongError(f"{name}: has a value already, from {found[key.name].origin}; keep one")
            if of_domain and key.host_only:
                raise WrongError(f"{name}: holds for the whole host; set it in the host's file")
            found[key.name] = Assignment(key, check(key, value), origin)
        except WrongError as error:
            complaints.append(f"{origin}: {error}")
    if complaints:
        raise ConfigError("\n".join(complaints))
    return list(found.values())


def _leaves(document: dict[str, Any], sections: set[str]) -> Iterator[tuple[str, object]]:
    """Every value with its dotted name. What is in a section is a value, even if it is a table."""
    for name, value in document.items():
        if isinstance(value, dict) and (name in sections or value):
            for inner, each in value.items():
                yield f"{name}.{inner}", each
        elif value != {}:
            yield name, value


#: `[section]`, `[section.sub]`; and `key =`, `section.key =`, each part bare or quoted.
_HEADING: Final = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]")
_PAIR: Final = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")


def _lines(text: str) -> dict[str, int]:
    """The line of each dotted name, as far as a look at the beginnings of lines can tell; tomllib does not say."""
    section = ""
    found: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if heading := _HEADING.match(line):
            section = _plain(heading[1]) + "."
        elif pair := _PAIR.match(line):
            found.setdefault(section + _plain(pair[1]), number)
    return found


def _plain(name: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in name.split("."))
