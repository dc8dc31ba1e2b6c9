"""What a row of the register tables says."""

from __future__ import annotations

from typing import Final, NamedTuple

#: Every bit of a register of any size.
ALL_BITS: Final = (1 << 64) - 1


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

    @property
    def end(self) -> int:
        """The offset behind the last byte."""
        return self.offset + self.size

    @property
    def bits(self) -> int:
        """A mask of all its bits."""
        return (1 << 8 * self.size) - 1
