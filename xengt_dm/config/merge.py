"""The configuration of one daemon: defaults, the host's file, the domain's file, options; the later wins."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from xengt_dm.config.files import Assignment, read_file
from xengt_dm.config.keys import KEYS, Key
from xengt_dm.errors import ConfigError
from xengt_dm.vgpu.registers import GraphicsMemory

DEFAULT_DIRECTORY: Final = Path("/etc/xengt-dm")
HOST_FILE: Final = "xengt-dm.toml"
DOMAINS: Final = "domains"
#: What xl appends to the name of a domain that it receives, tools/xl/xl_vmcontrol.c.
INCOMING: Final = "--incoming"
#: Bytes of a file's name, linux/limits.h.
NAME_MAX: Final = 255

#: Entries of 8 bytes in the upper half of BAR0, each for 4 KiB of graphics memory.
_GRAPHICS_MEMORY_MIB: Final = 4096
#: A skylake has 2 MiB of entries (GMCH_CTRL in xengt_dm/vgpu/pci.py).
_SKYLAKE_MIB: Final = 1024


class Config:
    """A value for every key, with its origin."""

    def __init__(self, assignments: Iterable[Assignment], keys: Mapping[str, Key] = KEYS) -> None:
        """Later assignments override earlier ones. Raises ConfigError if values contradict each other."""
        self.settings = {key.name: Assignment(key, key.default, "default") for key in keys.values()}
        self.settings.update((each.key.name, each) for each in assignments)
        self._check()

    def integer(self, name: str) -> int:
        """Returns the value of a key of kind INTEGER or ADDRESS, in the key's unit."""
        value = self.settings[name].value
        assert isinstance(value, int)
        return value

    def string(self, name: str) -> str:
        """Returns the value of a key of kind STRING."""
        value = self.settings[name].value
        assert isinstance(value, str)
        return value

    def boolean(self, name: str) -> bool:
        """Returns the value of a key of kind BOOLEAN."""
        value = self.settings[name].value
        assert isinstance(value, bool)
        return value

    def changes(self, new: Config) -> list[tuple[Assignment, Assignment]]:
        """Returns the old and the new assignment of each key whose value is different in ``new``."""
        pairs = ((old, new.settings[name]) for name, old in self.settings.items())
        return [(old, other) for old, other in pairs if old.value != other.value]

    def replaced(self, assignments: Iterable[Assignment]) -> Config:
        """Returns a configuration with other values for some keys. Raises ConfigError."""
        keys = {name: setting.key for name, setting in self.settings.items()}
        return Config([*self.settings.values(), *assignments], keys)

    def _check(self) -> None:
        low, high = self.settings.get("device.low_gm_mib"), self.settings.get("device.high_gm_mib")
        if not low or not high:
            return
        kind = self.settings.get("device.kind")
        limit = _SKYLAKE_MIB if kind and kind.value == "skylake" else _GRAPHICS_MEMORY_MIB
        memory = GraphicsMemory(int(low.value), int(high.value))
        if memory.high_base_mib >= limit:
            raise ConfigError(
                f"{low.origin}: {low.key.name}: {memory.low_mib} is too much; it may be {limit // 2} at most"
            )
        if memory.high_base_mib + memory.high_mib > limit:
            raise ConfigError(
                f"{high.origin}: {high.key.name}: {memory.high_mib} is too much; with {low.key.name} {memory.low_mib} "
                f"({low.origin}) it may be {limit - memory.high_base_mib} at most"
            )


def host_file(directory: Path) -> Path:
    """Returns the path of the host's configuration file."""
    return directory / HOST_FILE


def domain_file(directory: Path, name: str) -> Path | None:
    """Returns the path of the configuration file of the domain with this name; None for a name that no file can have.

    While a domain is migrated in, xl calls it NAME--incoming; its file is that of NAME.
    """
    name = name.removesuffix(INCOMING)
    if not name or "/" in name or "\0" in name or name.startswith("."):
        return None
    file = f"{name}.toml"
    try:
        fits = len(os.fsencode(file)) <= NAME_MAX
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        fits = False
    return directory / DOMAINS / file if fits else None


def domain_files(directory: Path) -> list[Path]:
    """Returns the paths of all domains' files that exist. Raises ConfigError if their directory cannot be read."""
    folder = directory / DOMAINS
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        if folder.is_symlink():
            raise ConfigError(f"{folder}: a link to no directory") from None
        return []
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be read: {error.strerror}") from error
    return sorted(folder / name for name in names if name.endswith(".toml") and not name.startswith("."))


def load(directory: Path, domain: str | None = None, options: Sequence[Assignment] = ()) -> Config:
    """Returns the configuration from the host's file, the file of the domain with this name, and options.

    Either file may be missing. Raises ConfigError with all errors in the first bad file.
    """
    assignments = read_file(host_file(directory)) or []
    path = domain_file(directory, domain) if domain is not None else None
    if path is not None:
        assignments += read_file(path, of_domain=True) or []
    return Config([*assignments, *options])
