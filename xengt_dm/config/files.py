"""Reads configuration files and options. Returns assignments with their origins, or raises all errors at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from xengt_dm.config.keys import KEYS, Key, Value
from xengt_dm.config.toml import read_document
from xengt_dm.config.values import WrongError, brief, check, find_key, from_text
from xengt_dm.errors import ConfigError

#: How many errors in one file are reported.
COMPLAINTS: Final = 50


class Assignment(NamedTuple):
    """A value of a key. ``origin`` says where it comes from, for messages: a file and line, or an option."""

    key: Key
    value: Value
    origin: str


def read_file(path: Path, *, of_domain: bool = False, keys: Mapping[str, Key] = KEYS) -> list[Assignment] | None:
    """Returns the assignments in a file; None if there is no such file. ``of_domain``: the file is that of a domain.

    Raises ConfigError with all errors in the file, a line each.
    """
    read = read_document(path)
    if read is None:
        return None
    return _assignments(path, *read, of_domain, keys)


def read_setting(text: str, origin: str = "--set", keys: Mapping[str, Key] = KEYS) -> Assignment:
    """One ``key=value`` of a command line. Raises ConfigError."""
    name, sign, value = text.partition("=")
    if not sign:
        raise ConfigError(f"{origin} {brief(text)}: no value; give it like {origin} shadow.mode=relaxed")
    return assign(name.strip(), value, origin, keys)


def assign(name: str, text: str, origin: str, keys: Mapping[str, Key] = KEYS) -> Assignment:
    """A key, by name or alias, and its value as a person wrote it. Raises ConfigError."""
    try:
        key = find_key(name, keys)
        return Assignment(key, from_text(key, text), origin)
    except WrongError as error:
        raise ConfigError(f"{origin}: {error}") from None


def _assignments(
    path: Path, document: dict[str, Any], lines: Mapping[str, int], of_domain: bool, keys: Mapping[str, Key]
) -> list[Assignment]:
    found: dict[str, Assignment] = {}
    complaints = []
    sections = {key.section for key in keys.values()}
    for name, value in _leaves(document, sections):
        origin = f"{path}:{lines[name]}" if name in lines else str(path)
        try:
            if name in sections and isinstance(value, list):
                raise WrongError(f"{name}: is a section, [{name}]; it can be neither an array nor [[{name}]]")
            key = find_key(name, keys)
            if key.name in found:
                raise WrongError(f"{name}: has a value already, from {found[key.name].origin}; keep one")
            if of_domain and key.host_only:
                raise WrongError(f"{name}: holds for the whole host; set it in the host's file")
            found[key.name] = Assignment(key, check(key, value), origin)
        except WrongError as error:
            complaints.append(f"{origin}: {error}")
        if len(complaints) == COMPLAINTS:
            complaints.append(f"{path}: there may be more; is it the right file?")
            break
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
