"""Standard input, output and error that are there, whatever the process was started with."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Final

_STREAMS: Final = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))


def ensure_standard_streams() -> None:
    """Opens /dev/null for each of the descriptors 0 to 2 that is closed.

    Python starts without the stream of such a descriptor, so whatever writes to it fails; and the next file or socket
    that is opened gets the descriptor, and everything that is written to the stream.
    """
    for descriptor, name, mode in _STREAMS:
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):
                opened = os.open(os.devnull, os.O_RDWR)
                if opened != descriptor:
                    os.dup2(opened, descriptor)
                    os.close(opened)
                os.set_inheritable(descriptor, True)
        if getattr(sys, name) is None:
            with suppress(OSError):
                setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115 - for the process's life
