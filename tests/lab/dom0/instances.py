"""Instances as units of systemd in dom0, and what their guests see of them."""

import time
from pathlib import Path
from typing import Any

from .checks import ScenarioError, require, wait_until
from .daemon import ask_at_once
from .guest import Guest
from .programs import run, show

#: Between two steps of an instance or of a guest, as far as anything moves.
STEP_SECONDS = 180
#: A unit has a control group here from its start until its last process has ended.
_GROUPS = Path("/sys/fs/cgroup/xengt.slice")
_RUN_DIRECTORIES = Path("/run/xengt-dm")
# The same as in tests/lab/guest/stop.c.
_ORDER_ANNOUNCE, _ORDER_GENTLY = 3, 4
_STORES_SERVED = 50
# One store of 16 bytes may trap as so many. The guest counts them when all have been made, so an instance may know of
# more than the mailbox does.
_STORES_AT_ONCE = 16
# An instance must end within so many seconds after its domain. That is meant for a real machine; an emulated one gets
# the time that it takes to start some programs in addition.
_END_SECONDS = 5
_END_STARTS = 10


def unit(domid: int) -> str:
    """The name of the unit of a domain's instance."""
    return f"xengt-dm@{domid}.service"


def properties(unit: str, *names: str) -> dict[str, str]:
    """What systemctl shows of a unit."""
    text = run("systemctl", "show", unit, f"--property={','.join(names)}")
    return dict(line.split("=", 1) for line in text.splitlines())


def state(domid: int) -> str:
    """The ActiveState of the unit of a domain's instance."""
    return properties(unit(domid), "ActiveState")["ActiveState"]


def wait_active(domid: int, what: str, after: int | None = None) -> None:
    """Wait until a domain's instance serves, and systemd knows it. ``after``: the process of the one before it.

    Starting systemctl again and again would take the processor from what it asks about.
    """
    wait_until(what, STEP_SECONDS, lambda: _process(domid) not in (None, after))
    wait_until(what, STEP_SECONDS, lambda: state(domid) == "active")


def _process(domid: int) -> int | None:
    """The process that serves a domain; None if nothing answers."""
    try:
        return int(status(domid)["pid"])
    except (OSError, ScenarioError):
        return None


def status(domid: int) -> dict[str, Any]:
    """What its instance says of itself. Raises ScenarioError if the domain is not served."""
    return ask_at_once(domid, "status")


def traps(domid: int) -> int:
    """How many stores the instance has trapped."""
    return int(status(domid)["counters"]["store_traps"])


def more_stores(guest: Guest, more: int, what: str) -> None:
    """Wait until its first vCPU has made so many more stores."""
    start = guest.read("progress0")

    def enough() -> bool:
        guest.check()
        return guest.read("progress0") >= start + more

    wait_until(f"{more} stores of {guest.program} {what}", STEP_SECONDS, enough, guest.moving)


def check_served(guest: Guest, when: str) -> None:
    """Require that every store is trapped now."""
    before = traps(guest.domid)
    more_stores(guest, _STORES_SERVED + _STORES_AT_ONCE, when)
    more = traps(guest.domid) - before
    require(more >= _STORES_SERVED, f"of {_STORES_SERVED} stores of {guest.program} {when}, {more} were trapped")


def wait_announced(guest: Guest) -> None:
    """Wait until its driver has announced its spaces again; it stores gently then."""
    done = "the guest to announce its spaces"
    wait_until(done, STEP_SECONDS, lambda: guest.read("order") == _ORDER_GENTLY, guest.moving)


def announce_again(guest: Guest) -> None:
    """Have its driver announce its spaces to an instance that is new, and require that they are served."""
    guest.order(_ORDER_ANNOUNCE)
    wait_announced(guest)
    check_served(guest, "under its new instance")


def audit(guest: Guest) -> None:
    """Require that each vCPU has announced a space, and that every shadow is right."""
    check_audit(guest, ask_at_once(guest.domid, "audit", sync=True))


def check_audit(guest: Guest, answer: dict[str, Any]) -> None:
    """As :func:`audit`, of an answer that is there."""
    require(len(answer["spaces"]) == guest.vcpus, f"{guest.program} has announced other spaces than: {answer}")
    require(answer["audit_mismatches"] == 0, f"the audit of {guest.program} found: {answer}")


def check_end(domid: int) -> float:
    """Require that a domain which is gone soon has no instance, and that nothing is left of it.

    Returns how long the instance outlived the call, in seconds.
    """
    name = unit(domid)
    gone = time.monotonic()
    wait_until(f"the end of {name}", STEP_SECONDS, lambda: not (_GROUPS / name).exists())
    wait_until(f"the end of {name}", STEP_SECONDS, lambda: state(domid) == "inactive")
    seconds = time.monotonic() - gone
    started = time.monotonic()
    run("xengt-dm", "--version")
    limit = _END_SECONDS + _END_STARTS * (time.monotonic() - started)
    require(seconds < limit, f"{name} ended {seconds:.1f} s after its domain, which is more than {limit:.1f} s")
    left = [str(path) for path in _RUN_DIRECTORIES.rglob(str(domid))]
    require(not left, f"of domain {domid} is left: {left}")
    return seconds


def check_no_failures() -> None:
    """Require that no unit of ours has failed."""
    failed = run("systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "xengt*")
    require(not failed.strip(), f"units failed: {failed}")


def show_logs() -> None:
    """Print to the console what an operator would look at."""
    commands = [
        ["systemctl", "--no-pager", "list-units", "--all", "xengt*", "lab*", "xen*"],
        ["journalctl", "--no-pager", "--lines=120", "--unit=xengt*"],
        ["sh", "-c", "tail -n 25 /var/log/xen/*.log"],
        ["xl", "list"],
    ]
    for words in commands:
        show(*words)
