"""All configuration keys, as data. Files, options, documentation and checks are made from this table.

A key is ``section.name``. The name of a number ends in its unit, unless the unit is obvious. To add a setting, add a
row here.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

from xengt_dm.vgpu.registers import BAR0_SIZE

Value: TypeAlias = int | str | bool


class Kind(enum.Enum):
    """The type of a value; its TOML type is the name."""

    INTEGER = "integer"
    #: An integer that people read in hexadecimal.
    ADDRESS = "address"
    STRING = "string"
    BOOLEAN = "boolean"


class Key(NamedTuple):
    """One row. ``low`` and ``high`` are the first and last good integer; ``choices`` are all good values, if any.

    ``reloadable``: a running daemon follows on SIGHUP. ``host_only``: makes no sense for one domain. ``aliases``: older
    names, without a section. ``doc``: whole sentences, for the manual and the example.
    """

    name: str
    kind: Kind
    default: Value
    doc: str
    low: int = 0
    high: int = 0
    multiple: int = 1
    choices: tuple[Value, ...] = ()
    reloadable: bool = False
    host_only: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def section(self) -> str:
        """The part of the name before the dot."""
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
    "device": "The virtual graphics device that the guest sees.",
    "shadow": "The shadows of the guest's page tables.",
    "domain": "The domain that is served.",
    "record": "Recording what the guest does, with `xengt-dm record` or `run --record`.",
    "log": "What is logged. xengt-dm(8) says where the log goes.",
}

_ROWS: Final = (
    Key(
        name="device.kind",
        kind=Kind.STRING,
        default="ppgtt",
        choices=("ppgtt", "skylake"),
        doc="What the guest sees. ppgtt: BAR0 at a fixed address, with page tables that are shadowed and no GPU that "
        "uses them. skylake: the PCI function 00:02.0, an Intel Skylake GT2 (8086:1912) without a display. It needs an "
        "HVM guest, and the instance must run before the guest's firmware looks for devices.",
    ),
    Key(
        name="device.bar0_gpa",
        kind=Kind.ADDRESS,
        default=0xF0000000,
        high=(1 << 52) - BAR0_SIZE,
        multiple=BAR0_SIZE,
        doc="Guest physical address of BAR0, which is 16 MiB of registers. It must be outside the domain's RAM. The "
        "default is in the MMIO hole below 4 GiB, which PVH guests have, too. A guest that sees a PCI function decides "
        "itself where BAR0 is.",
    ),
    Key(
        name="device.generation",
        kind=Kind.INTEGER,
        default=8,
        choices=(8, 9),
        doc="The Intel graphics generation whose page-table formats apply. Generation 9 adds 64 KiB pages. A skylake "
        "is of generation 9.",
    ),
    Key(
        name="device.low_gm_mib",
        kind=Kind.INTEGER,
        default=16,
        high=2048,
        aliases=("vgt_low_gm_sz",),
        doc="The guest is told that it may map this many MiB of graphics memory through the aperture. No memory is "
        "allocated for it: each access of the guest to the aperture is a request. With 0, nothing can be mapped so, "
        "and a driver that captures the state of a hung GPU does not read it byte by byte through the aperture.",
    ),
    Key(
        name="device.high_gm_mib",
        kind=Kind.INTEGER,
        default=16,
        high=4095,
        aliases=("vgt_high_gm_sz",),
        doc="The guest is told that it has this many MiB of graphics memory beyond the aperture. No memory is "
        "allocated for it. Linux 6.1 stores to 256 entries of the GGTT for each MiB of both parts when its driver "
        "loads.",
    ),
    Key(
        name="device.fences",
        kind=Kind.INTEGER,
        default=0,
        high=32,
        aliases=("vgt_fence_sz",),
        doc="The guest is told that it may use this many fence registers.",
    ),
    Key(
        name="shadow.mode",
        kind=Kind.STRING,
        default="strict",
        choices=("strict", "relaxed"),
        reloadable=True,
        doc="When a shadow is updated. strict: at each store to its guest table. relaxed: leaf tables at each "
        "submission, and most stores to them do not trap.",
    ),
    Key(
        name="shadow.max_tables",
        kind=Kind.INTEGER,
        default=65536,
        low=1,
        high=1 << 24,
        doc="The quota: how many shadow tables the domain may have. Each takes about 4.3 KiB, and a daemon does not "
        "start if the limit of its control group, MemoryMax= of its unit, is too low for that. When the quota is used "
        "up, the address space that was submitted longest ago loses its shadow tables first. Entries for which there "
        "is still no table map nothing, and are counted.",
    ),
    Key(
        name="shadow.max_spaces",
        kind=Kind.INTEGER,
        default=4096,
        low=1,
        high=65536,
        doc="How many address spaces of the domain may be live at once. The announcement of one more is refused and "
        "counted; the other spaces do not notice.",
    ),
    Key(
        name="shadow.max_mapped_mib",
        kind=Kind.INTEGER,
        default=2048,
        low=256,
        high=1 << 20,
        multiple=2,
        doc="How much of the domain's memory the daemon may have mapped at once, in MiB. Each 2 MiB of guest memory "
        "are one mapping, and cost 4 KiB of page tables. If more is needed, the 2 MiB that were used longest ago are "
        "unmapped. A daemon does not start if vm.max_map_count of the host allows fewer mappings.",
    ),
    Key(
        name="domain.frame_limit",
        kind=Kind.INTEGER,
        default=0,
        high=1 << 34,
        doc="No frame at or above this number is RAM of the domain; a frame is 4 KiB. 0: take the limit from xenstore.",
    ),
    Key(
        name="domain.check_interval_ms",
        kind=Kind.INTEGER,
        default=500,
        low=50,
        high=60_000,
        reloadable=True,
        doc="Time between two checks that the domain still exists, in milliseconds. While the guest does nothing with "
        "its GPU, four times as long, but at most 2 seconds.",
    ),
    Key(
        name="record.max_mib",
        kind=Kind.INTEGER,
        default=1024,
        low=1,
        high=1 << 20,
        reloadable=True,
        doc="A recording ends by itself when its trace has this many MiB. A recording that goes on keeps the bounds "
        "that it was started with.",
    ),
    Key(
        name="record.max_minutes",
        kind=Kind.INTEGER,
        default=60,
        low=1,
        high=10_080,
        reloadable=True,
        doc="A recording ends by itself after this many minutes.",
    ),
    Key(
        name="log.level",
        kind=Kind.STRING,
        default="info",
        choices=("debug", "info", "warning", "error"),
        reloadable=True,
        doc="The lowest level that is logged.",
    ),
    Key(
        name="log.burst",
        kind=Kind.INTEGER,
        default=10,
        low=1,
        high=10_000,
        reloadable=True,
        doc="How many events of one kind a guest may cause in the log at once. After them one is logged every "
        "log.interval_ms.",
    ),
    Key(
        name="log.interval_ms",
        kind=Kind.INTEGER,
        default=6000,
        low=1,
        high=3_600_000,
        reloadable=True,
        doc="Time between further events of one kind that a guest causes, in milliseconds. Events that are held back "
        "are counted and reported.",
    ),
)

KEYS: Final[Mapping[str, Key]] = {key.name: key for key in _ROWS}
