"""Every configuration key there is, as data; files, options, documentation and checks all follow this table.

A key is ``section.name``; a number's unit is the end of its name, or plain from the word. What a new setting needs is a
row here.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from xengt_dm.vgpu.registers import BAR0_SIZE

Value: TypeAlias = int | str | bool


class Kind(enum.Enum):
    """The type of a value; its TOML type is the name."""

    INTEGER = "integer"
    #: An integer that people read in hexadecimal.
    ADDRESS = "address"
    STRING = "string"
    BOOLEAN = "boolean"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One row. ``low`` and ``high`` are the first and last good integer; ``choices`` are all good values, if any.

    ``reloadable``: a running daemon follows on SIGHUP. ``host_only``: makes no sense for one domain. ``aliases``: older
    names, without a section. ``doc``: whole sentences, for the manual and the example.
    """

    name: str
    kind: Kind
    default: Value
    low: int = 0
    high: int = 0
    multiple: int = 1
    choices: tuple[Value, ...] = ()
    reloadable: bool = False
    host_only: bool = False
    aliases: tuple[str, ...] = ()
    doc: str

    @property
    def section(self) -> str:
        return self.name.partition(".")[0]

    @property
    def range(self) -> str:
        """What values are good, in words."""
        if self.choices:
            return " or ".join(", ".join(show(self, each) for each in self.choices).rsplit(", ", 1))
        if self.kind is Kind.BOOLEAN:
            return "true or false"
        if self.kind is Kind.STRING:
            return "any string"
        multiple = f", a multiple of {show(self, self.multiple)}" if self.multiple > 1 else ""
        return f"{show(self, self.low)} to {show(self, self.high)}{multiple}"


def show(key: Key, value: Value) -> str:
    """A value as TOML has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + "".join(map(_toml_character, value)) + '"'
    return f"{value:#x}" if key.kind is Kind.ADDRESS else str(value)


def _toml_character(character: str) -> str:
    """A character of a basic string, escaped where it must be or where a terminal might act on it."""
    if character in ('"', "\\"):
        return "\\" + character
    return character if character.isprintable() else f"\\U{ord(character):08x}"


#: What each section is about.
SECTIONS: Final = {
    "device": "The virtual graphics device, as the guest finds it.",
    "shadow": "The shadows of the guest's page tables.",
    "domain": "The domain that is served.",
    "log": "What is logged; xengt-dm(8) says where to.",
}

_ROWS: Final = (
    Key(
        name="device.bar0_gpa",
        kind=Kind.ADDRESS,
        default=0xF0000000,
        high=(1 << 52) - BAR0_SIZE,
        multiple=BAR0_SIZE,
        doc="Guest physical address of BAR0, 16 MiB of registers. It must lie outside the domain's RAM; the default is "
        "in the hole below 4 GiB that PVH guests have, too.",
    ),
    Key(
        name="device.generation",
        kind=Kind.INTEGER,
        default=8,
        choices=(8, 9),
        doc="Intel graphics generation whose page-table formats apply. 9 adds 64 KiB pages.",
    ),
    Key(
        name="device.low_gm_mib",
        kind=Kind.INTEGER,
        default=0,
        high=2048,
        aliases=("vgt_low_gm_sz",),
        doc="MiB of graphics memory that the guest is told it may map through the aperture. No memory is set aside.",
    ),
    Key(
        name="device.high_gm_mib",
        kind=Kind.INTEGER,
        default=0,
        high=4095,
        aliases=("vgt_high_gm_sz",),
        doc="MiB of graphics memory that the guest is told it has beyond the aperture. No memory is set aside.",
    ),
    Key(
        name="device.fences",
        kind=Kind.INTEGER,
        default=0,
        high=32,
        aliases=("vgt_fence_sz",),
        doc="Fence registers that the guest is told it may use.",
    ),
    Key(
        name="shadow.mode",
        kind=Kind.STRING,
        default="strict",
        choices=("strict", "relaxed"),
        reloadable=True,
        doc="When a shadow follows its guest table: at each store, or, for leaf tables, at each submission. The latter "
        "costs at most one trap for each of them between two submissions.",
    ),
    Key(
        name="shadow.max_tables",
        kind=Kind.INTEGER,
        default=65536,
        low=1,
        high=1 << 24,
        doc="Shadow tables at most; each takes about 4.2 KiB. Spaces that were not submitted for longest lose theirs "
        "first; what does not fit even so maps nothing, and is counted.",
    ),
    Key(
        name="domain.frame_limit",
        kind=Kind.INTEGER,
        default=0,
        high=1 << 34,
        doc="Frames of 4 KiB: none at or above this number is the domain's RAM. 0 takes the limit from xenstore.",
    ),
    Key(
        name="domain.check_interval_ms",
        kind=Kind.INTEGER,
        default=500,
        low=50,
        high=60_000,
        reloadable=True,
        doc="Milliseconds between two looks at whether the domain is still there.",
    ),
    Key(
        name="log.level",
        kind=Kind.STRING,
        default="info",
        choices=("debug", "info", "warning", "error"),
        reloadable=True,
        doc="The least that is logged.",
    ),
    Key(
        name="log.burst",
        kind=Kind.INTEGER,
        default=10,
        low=1,
        high=10_000,
        reloadable=True,
        doc="Events of one kind that a guest may cause in the log at once; after them, one each log.interval_ms.",
    ),
    Key(
        name="log.interval_ms",
        kind=Kind.INTEGER,
        default=6000,
        low=1,
        high=3_600_000,
        reloadable=True,
        doc="Milliseconds for each further event of one kind that a guest causes. What is held back is counted and "
        "told.",
    ),
)

KEYS: Final[Mapping[str, Key]] = {key.name: key for key in _ROWS}
