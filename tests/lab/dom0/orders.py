"""The guest of tests/lab/guest/cost.c: it does what it is told, and says in instructions what that took."""

import contextlib
import ctypes
import statistics
from collections.abc import Iterator

from .checks import ScenarioError, require, say, wait_until
from .guest import Guest, created
from .libxen import PAGE_SIZE

# The same as in tests/lab/guest/cost.c.
_ORDERS_GPA = 0x00401000
_MAGIC = 0x54534F43
_KINDS = (
    "announce", "destroy", "store", "rep", "read", "write", "same_entry", "other_entry", "link", "rewrite",
    "fresh", "filled", "scatter", "life", "cpuid",
)  # fmt: skip
#: The frames that hold tables: a root, two directories, leaf tables, spare ones.
FIRST_GFN, FRAMES = 0x800, 3 + 128 + 64
BAR0, BAR0_BYTES = 0xF0000000, 16 << 20
_FIELDS = ("magic", "given", "done", "what", "runs", "count", "tables", "failed")
_MOST_RUNS = 64
_STEP_SECONDS = 600


class Orders:
    """Gives orders to the guest, one at a time."""

    def __init__(self, guest: Guest) -> None:
        self.domid = guest.domid
        self._guest = guest
        self._page = guest.memory.map(_ORDERS_GPA // PAGE_SIZE, 1)

    def wait(self) -> None:
        """Wait until the guest takes orders."""
        wait_until("the guest to run", _STEP_SECONDS, lambda: self._word("magic").value == _MAGIC)
        require(not self._word("failed").value, "the guest found no Xen")

    def close(self) -> None:
        """Unmap its page."""
        self._guest.memory.unmap(self._page, 1)

    def do(self, what: str, *, count: int = 1, tables: int = 1, runs: int = 1) -> list[int]:
        """Have the guest do something `runs` times; the ticks that each run took. Raises ScenarioError."""
        require(runs <= _MOST_RUNS, f"{runs} runs")
        for name, value in (("what", _KINDS.index(what) + 1), ("runs", runs), ("count", count), ("tables", tables)):
            self._word(name).value = value
        ticks = (ctypes.c_uint64 * _MOST_RUNS).from_address(self._page + 4 * len(_FIELDS))
        for run in range(_MOST_RUNS):
            ticks[run] = 0
        number = (self._word("given").value + 1) % (1 << 32)
        self._word("given").value = number
        # What moves: the runs that are over.
        wait_until(
            f"the guest to {what}", _STEP_SECONDS, lambda: self._word("done").value == number, lambda: bytes(ticks)
        )
        return list(ticks[:runs])

    def cost(self, what: str, *, count: int = 1, tables: int = 1, runs: int = 3, units: int | None = None) -> float:
        """Instructions for each of `units`, by default `count`: the median of the runs, after one that does not count.

        Raises ScenarioError.
        """
        first, *others = self.do(what, count=count, tables=tables, runs=runs + 1)
        if not first:
            raise ScenarioError(f"{what} took no time")
        each = statistics.median(others) / (units or count)
        say(f"{what}: {each:,.0f} instructions")
        return each

    def _word(self, name: str) -> ctypes.c_uint32:
        return ctypes.c_uint32.from_address(self._page + 4 * _FIELDS.index(name))


@contextlib.contextmanager
def ordered() -> Iterator[Orders]:
    """A domain that runs guest/cost.c and waits for orders; destroyed at the end."""
    with created("cost", vcpus=1) as guest:
        orders = Orders(guest)
        try:
            guest.start()
            orders.wait()
            yield orders
        finally:
            orders.close()
