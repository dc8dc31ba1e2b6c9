"""Relaxed mode: two vCPUs hammer the same leaf tables while submissions resync what their stores unsync; none is lost.

A guest submits by a register of its GPU's command streamers, which the device does not have yet. So the guest says in
the mailbox when it wants to submit, at moments that it draws, and the scenario has the daemon look a GPU address up
with a sync, which is what a submission does.
"""

import time

from dom0.checks import Patience, require, say, sized
from dom0.compare import compare
from dom0.daemon import ask_at_once, serving
from dom0.guest import Guest, created

GUESTS = ("relaxed",)

# The same as in tests/lab/guest/relaxed.c.
_ANNOUNCED, _FINISHED = 1, 2
_ORDER_FINISH = 0x80000000
_STEP_SECONDS = 180
_STORES = sized(100_000, 200_000)
_SUBMISSIONS = sized(30, 60)
_SUBMISSIONS_AN_AUDIT = 10
_POLL_SECONDS = 0.0005
_SAY_SECONDS = 10


def _submit_until_enough(guest: Guest) -> tuple[int, int]:
    """Make the submissions that the guest asks for: how many, and how many of them were audits."""
    made = audits = 0
    said = time.monotonic()
    patience = Patience("stores and submissions", _STEP_SECONDS)
    before = sum(guest.stores())
    while (stores := sum(guest.stores()) - before) < _STORES or made < _SUBMISSIONS:
        guest.check()
        now = time.monotonic()
        if now > said + _SAY_SECONDS:
            say(f"{stores} stores, {made} submissions")
            said = now
        patience.look((stores, made))
        if guest.read("wanted") == made:
            time.sleep(_POLL_SECONDS)
            continue
        if made % _SUBMISSIONS_AN_AUDIT:
            ask_at_once(guest.domid, "walk", va=0, sync=True)
        else:
            mismatches = ask_at_once(guest.domid, "audit", sync=True)["audit_mismatches"]
            require(mismatches == 0, f"the audit found {mismatches} mismatches after {made} submissions")
            audits += 1
        made += 1
        guest.order(made)
    return made, audits


def run() -> dict[str, int | float | str]:
    """The scenario, in dom0."""
    with created("relaxed") as guest, serving(guest.domid, "--mode", "relaxed") as daemon:
        guest.start()
        guest.reach(_ANNOUNCED, _STEP_SECONDS)
        guest.leave(_ANNOUNCED)
        start = time.monotonic()
        submissions, audits = _submit_until_enough(guest)
        seconds = round(time.monotonic() - start, 1)
        guest.order(_ORDER_FINISH)
        guest.reach(_FINISHED, _STEP_SECONDS)
        dump = daemon.ask("dump", "--sync")
        figures: dict[str, int | float | str] = {
            "stores": guest.read("stores"),
            "submissions": submissions,
            "audits": audits,
            "traps": dump["counters"]["store_traps"],
            "unsynced": dump["counters"]["opened_pages"],
            "late_stores": dump["counters"]["straggler_stores"],
            "mapped_pages": compare(guest, dump, "in the end"),
            "hammer_seconds": seconds,
        }
        guest.leave(_FINISHED)
        return figures
