"""Two vCPUs store to their tables in every way; the daemon's shadow has to say what they meant, at each step."""

import time

from dom0.checks import require, say
from dom0.compare import compare
from dom0.daemon import Daemon, ask_at_once, serving
from dom0.guest import Guest, created

GUESTS = ("smoke",)
CPUS = 1

# The same as in tests/lab/guest/smoke.c.
_ANNOUNCED, _STORED, _UNLINKED, _REUSED, _RELINKED, _DESTROYED, _FREED = range(1, 8)
_STEP_SECONDS = 240
_END_SECONDS = 60


def _compare(guest: Guest, when: str) -> tuple[int, int]:
    """Compare the daemon's shadow with the guest's intent, and both with its tables: pages mapped, stores trapped."""
    say(f"{when}: dump")
    dump = ask_at_once(guest.domid, "dump", sync=True)
    pages = compare(guest, dump, when)
    protected, reached = dump["counters"]["protected_pages"], guest.read("tables")
    require(protected == reached, f"{when}: {protected} pages are protected, the live spaces reach {reached}")
    traps, expected = dump["counters"]["store_traps"], guest.read("traps")
    require(traps == expected, f"{when}: {traps} stores were trapped, the guest made {expected} to its tables")
    return pages, traps


def _audit(guest: Guest, daemon: Daemon) -> None:
    for audit in (daemon.ask("audit"), ask_at_once(guest.domid, "audit", sync=True)):
        require(audit["audit_mismatches"] == audit["audit_unsynced"] == 0, f"the audit found {audit}")


def run() -> dict[str, int | float | str]:
    """The scenario, in dom0."""
    with created("smoke") as guest, serving(guest.domid) as daemon:
        start = time.monotonic()
        guest.start()
        guest.reach(_ANNOUNCED, _STEP_SECONDS)
        mapped = daemon.extensions()
        require(mapped == {"_core", "_xen"}, f"the daemon has mapped {sorted(mapped)}: never the embedded hypervisor")
        _compare(guest, "announced")
        guest.leave(_ANNOUNCED)

        guest.reach(_STORED, _STEP_SECONDS)
        pages, _ = _compare(guest, "stored")
        _audit(guest, daemon)
        tables = guest.read("tables")
        guest.leave(_STORED)

        guest.reach(_UNLINKED, _STEP_SECONDS)
        _, before = _compare(guest, "unlinked")
        guest.leave(_UNLINKED)
        guest.reach(_REUSED, _STEP_SECONDS)
        after = ask_at_once(guest.domid, "status")["counters"]["store_traps"]
        require(after == before, f"{after - before} stores to unlinked tables were trapped")
        guest.leave(_REUSED)

        guest.reach(_RELINKED, _STEP_SECONDS)
        more_pages, _ = _compare(guest, "relinked")
        guest.leave(_RELINKED)

        guest.reach(_DESTROYED, _STEP_SECONDS)
        _, traps = _compare(guest, "destroyed")
        guest.leave(_DESTROYED)
        guest.reach(_FREED, _STEP_SECONDS)
        counters = daemon.ask("status")["counters"]
        more = counters["store_traps"] - traps
        require(more == 0, f"{more} stores to pages of destroyed spaces were trapped")
        figures: dict[str, int | float | str] = {
            "traps": traps,
            "mmio_traps": counters["mmio_traps"],
            "tables": tables,
            "mapped_pages": pages + more_pages,
            "stores": guest.read("stores"),
            "verified_bytes": guest.read("verified"),
        }
        guest.leave(_FREED)
        guest.close()
        say("the guest shuts down")
        status = daemon.wait_exit(_END_SECONDS)
        require(status == 0, f"the daemon ended with status {status} when its domain was gone")
        figures["guest_seconds"] = round(time.monotonic() - start, 1)
        return figures
