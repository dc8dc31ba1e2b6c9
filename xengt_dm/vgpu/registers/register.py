"""What a row of the register tables says."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

#: Every bit of a register of any size.
ALL_BITS: Final = (1 << 64) - 1
#: What ``Register.context`` and ``Register.served`` may be, besides nothing.
IMAGE: Final = "image"
EXTRA: Final = "extra"
CORE: Final = "core"
_NO_VALUES: Final[Mapping[int, str]] = MappingProxyType({})


class Field(NamedTuple):
    """Bits ``high``..``low`` of a register, for people. ``values``: what some of their values mean."""

    name: str
    high: int
    low: int
    values: Mapping[int, str] = _NO_VALUES

    def of(self, value: int) -> int:
        """Returns the field in a register's value."""
        return value >> self.low & (1 << self.high - self.low + 1) - 1


def fields(text: str, **values: Mapping[int, str]) -> tuple[Field, ...]:
    """Returns the fields of ``"NAME:BIT NAME:HIGH-LOW ..."``; ``values``: of fields, by their names."""
    found = []
    for each in text.split():
        name, _, bits = each.partition(":")
        high, _, low = bits.partition("-")
        found.append(Field(name, int(high), int(low or high), values.get(name, _NO_VALUES)))
    return tuple(found)


class Register(NamedTuple):
    """One register of BAR0, as data. How each field takes effect is at the top of :mod:`xengt_dm.vgpu.mmio`.

    name
        As the source has it, unique among all rows.
    offset
        In bytes from the start of BAR0, a multiple of ``size``.
    size
        1, 2, 4 or 8 bytes.
    source
        Where all this is from: file and symbol of a driver or chapter of a manual, or why it is as it is.
    reset
        The value after a reset; or the name of a value that only the host knows, such as ``"vgt_id"``.
    writable
        Bits that the guest can set and clear. The others keep their values.
    write_one_to_clear
        Bits that a written 1 clears and a written 0 keeps; none of them may be ``writable``.
    masked
        Bits 31:16 of a written value select which of bits 15:0 are written. Bits 31:16 read as zero.
    on_read
        Name of the behaviour that brings the stored value up to date before it is read.
    on_write
        Name of the behaviour that follows a write.
    whole
        ``on_write`` follows only a write that covers every byte of the register.
    block
        What it belongs to: an engine, such as ``"rcs0"``, or a part of the device, such as ``"gt"``.
    fields
        What its bits mean, for people. They may leave bits out.
    context
        Where a context keeps its own value: ``IMAGE``, in the list that the driver writes into a context image;
        ``EXTRA``, in the image behind that list; ``""``: contexts share the register.
    user
        A batch without privilege may write it.
    served
        ``CORE``: C does what is special about it (``cffi_build/core/vgpu/``); the row's other fields say the rest.
    """

    name: str
    offset: int
    size: int = 4
    source: str = ""
    reset: int | str = 0
    writable: int = ALL_BITS
    write_one_to_clear: int = 0
    masked: bool = False
    on_read: str = ""
    on_write: str = ""
    whole: bool = False
    block: str = ""
    fields: tuple[Field, ...] = ()
    context: str = ""
    user: bool = False
    served: str = ""

    @property
    def end(self) -> int:
        """The offset behind the last byte."""
        return self.offset + self.size

    @property
    def bits(self) -> int:
        """A mask of all its bits."""
        return (1 << 8 * self.size) - 1
