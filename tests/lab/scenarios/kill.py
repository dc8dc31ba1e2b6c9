"""SIGKILL to the daemon at drawn moments of whatever a guest's driver does: the guest notices pauses, and nothing else.

The guest stores, counts its announcements, writes registers and moves them to memory and back. Every few kills it rests
and finds all of this as it should be, and the daemon's spaces, references and shadows are compared with the guest's.
"""

import random
import time
from typing import Any

from dom0.checks import Patience, require, say, sized, wait_until
from dom0.compare import compare
from dom0.daemon import Daemon, ask_at_once
from dom0.guest import VCPUS, Guest, created
from dom0.libxen import DeviceModel
from dom0.zygote import Zygote

GUESTS = ("kill",)
CPUS = 1

# The same as in tests/lab/guest/kill.c.
_READY, _RESTED = 1, 2
_ORDER_STORE, _ORDER_REST = 0, 1
_STEP_SECONDS = 180
#: A multiple of _LOOK_EVERY: the guest rests when the last daemon stops.
_KILLS = sized(20, 100)
#: Kills between two looks.
_LOOK_EVERY = 5
_STORES_BEFORE = 50
_SEED = 20261128
#: How long a daemon serves before it is killed, at most.
_LIFE_SECONDS = 0.5
_LOOK_SECONDS = 0.002
_STILL_SECONDS = 0.02


def _stand_still(guest: Guest) -> None:
    """Until nothing of the guest moves between two looks: both vCPUs wait for an answer."""
    before = b""
    patience = Patience("both vCPUs to wait", _STEP_SECONDS)
    while (now := guest.moving()) != before:
        before = now
        patience.look(now)
        time.sleep(_STILL_SECONDS)


def _first_answer(guest: Guest, daemon: Daemon) -> float:
    """When a vCPU that stands still goes on: time.monotonic."""
    before = guest.moving()
    patience = Patience("a vCPU to go on", _STEP_SECONDS)
    while guest.moving() == before:
        patience.look(daemon.moving())
        time.sleep(_LOOK_SECONDS)
    return time.monotonic()


def _look(guest: Guest, when: str) -> int:
    """Have the guest rest, which it then does, and compare; returns the pages that are mapped."""
    guest.leave(0)  # the same checkpoint comes each time
    guest.order(_ORDER_REST)
    wait_until("the guest to rest", _STEP_SECONDS, lambda: guest.read("order") == _ORDER_STORE, guest.moving)
    guest.reach(_RESTED, _STEP_SECONDS)
    spaces: Any = ask_at_once(guest.domid, "spaces")
    told = {space["root"]: space["refs"] for space in spaces}
    meant = {guest.read(f"root{vcpu}"): guest.read(f"refs{vcpu}") for vcpu in range(VCPUS)}
    require(told == meant, f"{when}: spaces and references {told}, and the guest's are {meant}")
    return compare(guest, ask_at_once(guest.domid, "dump", sync=True), when)


def run() -> dict[str, int | float | str]:
    """The scenario, in dom0."""
    rng = random.Random(_SEED)
    waits = []
    with created("kill") as guest, Zygote() as zygote:
        model = DeviceModel(guest.domid)
        daemon = Daemon(guest.domid, zygote=zygote)
        try:
            daemon.wait_serving()
            guest.start()
            guest.reach(_READY, _STEP_SECONDS)
            guest.leave(_READY)
            guest.wait_stores(_STORES_BEFORE, _STEP_SECONDS, "under the first daemon")
            pages = _look(guest, "before any kill")
            for kill in range(1, _KILLS + 1):
                guest.leave(_RESTED)
                time.sleep(rng.uniform(0, _LIFE_SECONDS))
                if rng.random() < 0.2:
                    ask_at_once(guest.domid, "mode", mode=rng.choice(("strict", "relaxed")))
                start = time.monotonic()
                daemon.kill()
                dying = time.monotonic() - start
                _stand_still(guest)
                require(len(model.servers()) == 1, f"ioreq servers after the kill: {model.servers()}")
                start = time.monotonic()
                daemon = Daemon(guest.domid, zygote=zygote)
                waits.append(dying + _first_answer(guest, daemon) - start)
                daemon.wait_serving()
                require(len(model.servers()) == 1, f"ioreq servers after the adoption: {model.servers()}")
                guest.check()
                if kill % _LOOK_EVERY == 0:
                    pages = _look(guest, f"after {kill} kills")
                    say(f"{kill} kills, {sum(guest.stores())} stores, {pages} pages mapped")
            traps = daemon.counter("store_traps")
            daemon.terminate()  # the guest rests, so it does not miss its device
            status = daemon.wait_exit(_STEP_SECONDS)
            require(status == 0, f"the daemon ended with status {status}")
            require(not model.servers(), f"ioreq servers after the end: {model.servers()}")
            model.close()
        finally:
            daemon.kill()
        waits.sort()
        return {
            "kills": _KILLS,
            "stores": sum(guest.stores()),
            "verified_bytes": guest.read("verified"),
            "mapped_pages": pages,
            "traps_of_the_last": traps,
            "first_answer_ms": round(1000 * waits[len(waits) // 2]),
            "first_answer_most_ms": round(1000 * waits[-1]),
        }
