"""What one vCPU has linked keeps no other one waiting: instructions of the daemon between two looks at the slots.

QEMU counts instructions here (-icount): its clock goes on by a nanosecond with each of them. So the processor time of
the daemon's thread, which Linux keeps without the time that Xen gives to others, is the number of instructions that
were executed for it, Xen's part of its hypercalls included, and does not depend on the machine that QEMU runs on.
"""

import struct
import time
from pathlib import Path

from dom0.checks import require, say, wait_until
from dom0.daemon import ask_at_once, serving
from dom0.guest import Guest, created

GUESTS = ("bounds",)
CPUS = 1
ICOUNT = True

# The same as in tests/lab/guest/bounds.c.
_ANNOUNCED, _FINISHED = 1, 2
_LINK, _UNLINK, _CREATE, _DESTROY = range(1, 5)
_ORDER_FINISH = 0x80000000
_TREE_GPA, _TABLES = 0x01000000, 2 + 8 + 8 * 512
_STEP_SECONDS = 300
_LIMIT = 6_000_000
_LONGEST = Path("/run/longest")
_MEASURED = ("python3", "/lab/dom0/measured.py", str(_LONGEST))


class _Steps:
    """Orders to the guest, numbered, and the longest time that each of them took the daemon between two looks."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._number = 0
        self.longest: dict[str, int] = {}

    def order(self, name: str, kind: int) -> None:
        """Have the guest do something."""
        self._begin()
        self._number += 1
        wanted = self._number << 4 | kind
        self._guest.order(wanted)

        def done() -> bool:
            self._guest.check()
            return self._guest.read("wanted") == wanted

        wait_until(f"the guest to {name}", _STEP_SECONDS, done, self._guest.moving)
        self._end(name)

    def ask(self, name: str, command: str, **arguments: object) -> dict[str, object]:
        """Have the daemon do something."""
        self._begin()
        answer = ask_at_once(self._guest.domid, command, **arguments)
        self._end(name)
        return answer

    def _begin(self) -> None:
        time.sleep(0.1)
        with _LONGEST.open("r+b") as file:  # the daemon has it mapped
            file.write(bytes(8))

    def _end(self, name: str) -> None:
        (longest,) = struct.unpack("<Q", _LONGEST.read_bytes())
        say(f"{name}: {longest:,} instructions at most between two looks")
        self.longest[name] = max(longest, self.longest.get(name, 0))


def run() -> dict[str, int | float | str]:
    """The scenario, in dom0."""
    _LONGEST.write_bytes(bytes(8))
    with created("bounds") as guest, serving(guest.domid, program=_MEASURED) as daemon:
        guest.start()
        guest.reach(_ANNOUNCED, _STEP_SECONDS)
        guest.leave(_ANNOUNCED)
        steps = _Steps(guest)
        steps.order("create", _CREATE)
        steps.order("link", _LINK)
        steps.order("unlink", _UNLINK)
        steps.order("link", _LINK)
        steps.ask("walk", "walk", va=0, root=_TREE_GPA, sync=True)
        audit = steps.ask("audit", "audit", sync=True)
        require(audit["audit_mismatches"] == 0, f"the audit found {audit}")
        steps.ask("dump", "dump", sync=True)
        steps.order("destroy", _DESTROY)
        steps.order("unlink", _UNLINK)
        tables = int(daemon.counter("tables"))
        steps.order("link", _LINK)
        steps.order("create", _CREATE)
        made = int(daemon.counter("tables")) - tables
        require(made == _TABLES, f"the tree made {made} tables, not {_TABLES}")
        steps.ask("relaxed", "mode", mode="relaxed")
        steps.ask("strict", "mode", mode="strict")
        steps.ask("quiesce", "quiesce")
        steps.ask("resume", "resume")
        guest.order(_ORDER_FINISH)
        guest.reach(_FINISHED, _STEP_SECONDS)
        figures: dict[str, int | float | str] = {"tables": made, "stores": guest.read("stores"), **steps.longest}
        over = {name: longest for name, longest in steps.longest.items() if longest > _LIMIT}
        require(not over, f"more than {_LIMIT} instructions between two looks at the slots: {over}")
        guest.leave(_FINISHED)
        return figures
