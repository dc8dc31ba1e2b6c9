"""measured.py FILE ARGUMENTS: `xengt-dm ARGUMENTS`, and how long the serving thread does not look at the slots.

What counts is the processor time of the thread between two looks, or between one and a moment in which the event loop
asks for events: a request would have had its event by then, and be served next. FILE is 8 bytes that the longest of
these times is written to, in nanoseconds; whoever reads it may set it to 0. Under QEMU's -icount a nanosecond is an
instruction. The log says of what the longest times were made: hypercalls, and collections of garbage.
"""

import functools
import gc
import mmap
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

import trio

from xengt_dm.cli import main
from xengt_dm.hypervisor.xen.port import XenPort
from xengt_dm.ioreq.burst import Burst
from xengt_dm.ioreq.slots import Slots

_LONGEST = struct.Struct("<Q")


#: What takes long, besides Python.
_CALLS = ("set_mem_types", "map_frames", "unmap_frames", "claim_writes", "release_writes", "set_server_state")


class _Looks(trio.abc.Instrument):
    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _LONGEST.size)
        self._last = 0
        self._parts: list[tuple[str, int]] = []
        self._collecting = 0
        gc.callbacks.append(self._collected)

    def watch(self, look: Callable[..., Any]) -> Callable[..., Any]:
        """The same look, watched."""

        def watched(*arguments: Any, **named: Any) -> Any:
            self.before_io_wait(0)
            found = look(*arguments, **named)
            self._last = time.thread_time_ns()
            return found

        return watched

    def before_io_wait(self, timeout: float) -> None:
        """A look begins, or the event loop asks for events."""
        now = time.thread_time_ns()
        if self._last and now - self._last > _LONGEST.unpack_from(self._shared)[0]:
            _LONGEST.pack_into(self._shared, 0, now - self._last)
            print(f"{now - self._last} between two looks: {self._parts}", file=sys.stderr, flush=True)
        self._parts.clear()

    def after_io_wait(self, timeout: float) -> None:
        """The event loop has events."""
        self._last = time.thread_time_ns()

    def time(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, as a part of the time between two looks."""

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.thread_time_ns()
            try:
                return call(*arguments, **named)
            finally:
                self._parts.append((name, time.thread_time_ns() - start))

        return timed

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = time.thread_time_ns()
        else:
            self._parts.append((f"collection {info['generation']}", time.thread_time_ns() - self._collecting))


_looks = _Looks(sys.argv.pop(1))
Slots.take = _looks.watch(Slots.take)  # type: ignore[method-assign]
Burst.run = _looks.watch(Burst.run)  # type: ignore[method-assign]
Burst.look = _looks.watch(Burst.look)  # type: ignore[method-assign]
for _name in _CALLS:
    setattr(XenPort, _name, _looks.time(_name, getattr(XenPort, _name)))
trio.run = functools.partial(trio.run, instruments=[_looks])
sys.exit(main())
