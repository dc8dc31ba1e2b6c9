"""Device models whose cost is measured: the C reference, and the installed xengt-dm; and what a process takes."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from .checks import require, say
from .daemon import Daemon, ask_at_once
from .orders import BAR0, BAR0_BYTES, FIRST_GFN, FRAMES, Orders
from .programs import wait_exit

_REFERENCE = Path("/lab/bin/reference")
_STOP_SECONDS = 300
_MODES = {"strict": ("--mode", "strict"), "relaxed": ("--mode", "relaxed")}


@contextlib.contextmanager
def reference(orders: Orders, wait: str, tables: int) -> Iterator[None]:
    """The C reference serves the guest's tables and registers. `wait` is how it waits; see reference.c."""
    orders.do("announce", tables=tables)  # before anything traps
    numbers = (orders.domid, FIRST_GFN, FRAMES, BAR0, BAR0_BYTES)
    words = [str(_REFERENCE), wait, *map(str, numbers)]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            require(process.stdout.readline() == "serving\n", "the C reference does not serve")
            yield
            process.send_signal(signal.SIGTERM)
            require(wait_exit(process, "the C reference", _STOP_SECONDS) == 0, "the C reference failed")
        finally:
            process.kill()


class Product:
    """A daemon of the installed package that serves the guest."""

    def __init__(self, domid: int, mode: str) -> None:
        self.domid = domid
        self.daemon = Daemon(domid, *_MODES[mode])

    @property
    def instructions(self) -> int:
        """Nanoseconds of processor time, which are instructions here, that the daemon has had.

        Source: Documentation/scheduler/sched-stats.rst of Linux.
        """
        return int(Path(f"/proc/{self.daemon.pid}/schedstat").read_text().split()[0])

    @property
    def memory(self) -> dict[str, int]:
        """KiB: what only this process has mapped, and of that the clean pages of files; and all that it has mapped."""
        found = {}
        for line in Path(f"/proc/{self.daemon.pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, value = line.split(":")
            found[name] = int(value.split()[0])
        return {
            "private": found["Private_Dirty"] + found["Private_Clean"],
            "clean": found["Private_Clean"],
            "rss": found["Rss"],
        }

    def traps(self) -> int:
        """Accesses of the guest that trapped so far."""
        counters = ask_at_once(self.domid, "status")["counters"]
        return int(counters["store_traps"]) + int(counters["mmio_traps"])

    def idle(self, seconds: float) -> float:
        """Instructions a second while nothing happens for so long."""
        before, begun = self.instructions, time.monotonic()
        time.sleep(seconds)
        return (self.instructions - before) / (time.monotonic() - begun)


@contextlib.contextmanager
def product(orders: Orders, mode: str) -> Iterator[Product]:
    """A daemon serves the guest in `mode`, and is stopped at the end."""
    say(f"starting the daemon, {mode}")
    served = Product(orders.domid, mode)
    try:
        served.daemon.wait_serving()
        yield served
        served.daemon.terminate()
        require(served.daemon.wait_exit(_STOP_SECONDS) == 0, "the daemon failed")
    finally:
        served.daemon.kill()
