"""What the guest's memory and its device's plain registers should hold: bytes by address, and what instructions do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tests.support.tables import FRAME


class Memory:
    """Frames of RAM and of BAR0, each with the bytes that it should hold."""

    def __init__(self, gfns: Iterable[int]) -> None:
        self.frames = {gfn: bytearray(FRAME) for gfn in gfns}

    def read(self, gpa: int, size: int) -> bytes:
        return b"".join(bytes(self.frames[gfn][at:end]) for gfn, at, end in _pieces(gpa, size))

    def write(self, gpa: int, data: bytes) -> None:
        done = 0
        for gfn, at, end in _pieces(gpa, len(data)):
            self.frames[gfn][at:end] = data[done : done + end - at]
            done += end - at

    def value(self, gpa: int, size: int) -> int:
        return int.from_bytes(self.read(gpa, size), "little")

    def store(self, gpa: int, size: int, value: int) -> None:
        self.write(gpa, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))

    def rep_stos(self, gpa: int, size: int, count: int, value: int, down: bool) -> None:
        for i in range(count):
            self.store(gpa + (-i if down else i) * size, size, value)

    def rep_movs(self, gpa: int, source: int, size: int, count: int, down: bool) -> None:
        """One element after the other, each from what the ones before it left."""
        for i in range(count):
            step = (-i if down else i) * size
            self.write(gpa + step, self.read(source + step, size))

    def entries(self, gfn: int) -> memoryview:
        """The 512 entries of a table."""
        return memoryview(self.frames[gfn]).cast("Q")


def _pieces(gpa: int, size: int) -> Iterator[tuple[int, int, int]]:
    """The parts of an access that lie in one frame each: gfn, first offset, offset behind the last."""
    while size:
        gfn, at = divmod(gpa, FRAME)
        part = min(size, FRAME - at)
        yield gfn, at, at + part
        gpa += part
        size -= part
