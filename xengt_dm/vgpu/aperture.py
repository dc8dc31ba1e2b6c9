"""The aperture, BAR2, of a device that translates no addresses of graphics memory."""

from __future__ import annotations


class NoAperture:
    """Reads as zero; what is written is dropped."""

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None: ...
