"""What a row of the command tables says."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

#: The engines, in the order in which their state is kept.
ENGINES: Final = ("rcs0", "bcs0", "vcs0", "vecs0")
RENDER: Final = ("rcs0",)
BLITTER: Final = ("bcs0",)
VIDEO: Final = ("vcs0",)
ENHANCEMENT: Final = ("vecs0",)

#: A GPU address has 48 bits; the bits above them repeat the highest.
ADDRESS_BITS: Final = 48


class Client(enum.IntEnum):
    """Bits 31:29 of a header: which part of an engine a command is for. The other values are reserved."""

    MI = 0
    BLITTER = 2
    RENDER = 3

    @property
    def opcode_shift(self) -> int:
        """The lowest bit of the opcode, which reaches up to bit 28."""
        return {Client.MI: 23, Client.BLITTER: 22, Client.RENDER: 16}[self]


class Length(NamedTuple):
    """How many dwords a command has, its header included: ``(header & mask) + base``."""

    mask: int
    base: int

    def of(self, header: int) -> int:
        return (header & self.mask) + self.base

    def __str__(self) -> str:
        return f"bits {self.mask.bit_length() - 1}:0 + {self.base}" if self.mask else str(self.base)


ONE: Final = Length(0, 1)
BITS_5: Final = Length(0x3F, 2)
BITS_7: Final = Length(0xFF, 2)
BITS_8: Final = Length(0x1FF, 2)
BITS_9: Final = Length(0x3FF, 2)
BITS_10: Final = Length(0x7FF, 2)
BITS_11: Final = Length(0xFFF, 2)
BITS_15: Final = Length(0xFFFF, 2)


def fixed(dwords: int) -> Length:
    """The length of a command whose header does not say it."""
    return Length(0, dwords)


class Kind(enum.Enum):
    """How the value of a field is meant."""

    NUMBER = "number"
    #: A number that people read in hexadecimal.
    HEX = "hex"
    #: One bit, which says that something is so.
    FLAG = "flag"
    #: An address of the GPU, with its low bits zero.
    ADDRESS = "address"
    #: An offset from a base, or a shorter address, with its low bits zero.
    OFFSET = "offset"
    #: The offset of a register in BAR0, with its low bits zero.
    REGISTER = "register"
    #: A number in two's complement.
    SIGNED = "signed"


class Field(NamedTuple):
    """Bits ``high``..``low`` of a dword of a command. ``high`` above 31: it goes on in the next dword.

    ``values``: names of values that have one.
    """

    dword: int
    high: int
    low: int
    name: str
    kind: Kind = Kind.NUMBER
    values: Mapping[int, str] = {}

    def of(self, dwords: Sequence[int]) -> int | None:
        """Returns the field's value in a command; None if the command ends before the field."""
        if self.dword >= len(dwords):
            return None
        both = dwords[self.dword]
        if self.high > 31 and self.dword + 1 < len(dwords):
            both |= dwords[self.dword + 1] << 32
        value = (both & ((2 << self.high) - 1)) >> self.low
        if self.kind in (Kind.ADDRESS, Kind.OFFSET, Kind.REGISTER):
            return value << self.low
        if self.kind is Kind.SIGNED and value >> (self.high - self.low):
            return value - (2 << (self.high - self.low))
        return value


class Group(NamedTuple):
    """Fields that come again and again from dword ``first`` to the command's end, each time ``size`` dwords later.

    The ``dword`` of these fields counts from the beginning of each group.
    """

    first: int
    size: int
    fields: tuple[Field, ...]


class Command(NamedTuple):
    """One command, as data.

    name
        As the manuals have it, unique among the commands of an engine.
    client, opcode
        What the header begins with. Bits 28 down to ``client.opcode_shift`` are the opcode.
    length
        The rule for how many dwords it has.
    does
        What executing it does: the name of an ``xd_does`` of ``core/vgpu/commands.h`` in lower case.
    engines
        Those that know it.
    fields, group
        What is in it.
    least
        A command with fewer dwords than these lacks what executing it needs, and cannot be decoded.
    usual
        How many dwords drivers give it; 0 if it varies.
    privileged
        A batch without privilege executes it as MI_NOOP.
    """

    name: str
    client: Client
    opcode: int
    length: Length
    does: str = "skip"
    engines: tuple[str, ...] = ENGINES
    fields: tuple[Field, ...] = ()
    group: Group | None = None
    least: int = 1
    usual: int = 0
    privileged: bool = False
    source: str = ""

    @property
    def mask(self) -> int:
        """The bits of a header that say that it is this command's."""
        return 0xFFFF_FFFF & ~((1 << self.client.opcode_shift) - 1)

    @property
    def match(self) -> int:
        """What a header of this command has in the bits of :attr:`mask`."""
        return self.client << 29 | self.opcode << self.client.opcode_shift


def bits(dword: int, high: int, low: int, name: str, values: Mapping[int, str] | None = None) -> Field:
    """A number, shown in decimal or by the name of its value."""
    return Field(dword, high, low, name, Kind.NUMBER, values or {})


def hexadecimal(dword: int, name: str, high: int = 31, low: int = 0) -> Field:
    return Field(dword, high, low, name, Kind.HEX)


def signed(dword: int, high: int, low: int, name: str) -> Field:
    return Field(dword, high, low, name, Kind.SIGNED)


def flag(dword: int, bit: int, name: str) -> Field:
    """One bit; shown only if it is set."""
    return Field(dword, bit, bit, name, Kind.FLAG)


def address(dword: int, name: str = "address", low: int = 2) -> Field:
    """An address in this dword and the next; bits below ``low`` are something else."""
    return Field(dword, ADDRESS_BITS - 1, low, name, Kind.ADDRESS)


def offset(dword: int, name: str, low: int, high: int = 31) -> Field:
    """An offset from a base, or an address of less than 48 bits; bits below ``low`` are something else."""
    return Field(dword, high, low, name, Kind.OFFSET)


def register(dword: int, name: str = "register") -> Field:
    """The offset of a register, of which the low two bits are ignored."""
    return Field(dword, 22, 2, name, Kind.REGISTER)
