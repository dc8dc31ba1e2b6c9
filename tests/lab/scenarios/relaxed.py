"""Relaxed mode: two vCPUs hammer the same leaf tables and submit, in every way and in any order; no store is lost.

A submission is a write to a register that has the translations of an engine invalidated.
"""

import time

from dom0.checks import Patience, require, say, sized
from dom0.compare import compare
from dom0.daemon import ask_at_once, serving
from dom0.guest import Guest, created

GUESTS = ("relaxed",)
CPUS = 1
CPUS_FULL = 2

# The same as in tests/lab/guest/relaxed.c.
_ANNOUNCED, _FINISHED = 1, 2
_ORDER_FINISH = 0x80000000
_STEP_SECONDS = 180
_STORES = sized(60_000, 1_000_000)
_SUBMISSIONS = sized(100, 3_000)
_AUDITS = sized(3, 20)
_LOOK_SECONDS = 0.5
_SAY_SECONDS = 10


def _audit(guest: Guest) -> None:
    audit = ask_at_once(guest.domid, "audit", sync=True)
    mismatches = audit["audit_mismatches"]
    require(mismatches == 0, f"the audit found {mismatches} mismatches after {guest.read('wanted')} submissions")


def _hammer_until_enough(guest: Guest) -> int:
    """Wait, with an audit now and then. Returns how many audits were made while the guest stored."""
    audits = 0
    said = time.monotonic()
    patience = Patience("stores and submissions", _STEP_SECONDS)
    before = sum(guest.stores())
    while (stores := sum(guest.stores()) - before) < _STORES or guest.read("wanted") < _SUBMISSIONS:
        guest.check()
        now = time.monotonic()
        if now > said + _SAY_SECONDS:
            say(f"{stores} stores, {guest.read('wanted')} submissions")
            said = now
        patience.look((stores, guest.read("wanted")))
        if stores * _AUDITS >= _STORES * audits:
            _audit(guest)
            audits += 1
        time.sleep(_LOOK_SECONDS)
    return audits


def run() -> dict[str, int | float | str]:
    """The scenario, in dom0."""
    with created("relaxed") as guest, serving(guest.domid, "--mode", "relaxed") as daemon:
        guest.start()
        guest.reach(_ANNOUNCED, _STEP_SECONDS)
        guest.leave(_ANNOUNCED)
        start = time.monotonic()
        audits = _hammer_until_enough(guest)
        seconds = round(time.monotonic() - start, 1)
        guest.order(_ORDER_FINISH)
        guest.reach(_FINISHED, _STEP_SECONDS)
        dump = daemon.ask("dump", "--sync")
        _audit(guest)
        counters = dump["counters"]
        require(counters["opened_pages"] > 0, "no table was unsynced after a store")
        require(counters["settled_tables"] > 0, "no table has settled")
        figures: dict[str, int | float | str] = {
            "stores": guest.read("stores"),
            "submissions": counters["submissions"],
            "audits": audits + 1,
            "traps": counters["store_traps"],
            "born_unsynced": counters["unsynced_births"],
            "unsynced": counters["opened_pages"],
            "settled": counters["settled_tables"],
            "late_stores": counters["straggler_stores"],
            "mapped_pages": compare(guest, dump, "in the end"),
            "hammer_seconds": seconds,
        }
        guest.leave(_FINISHED)
        return figures
