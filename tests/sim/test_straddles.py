"""A store over the end of a frame, while the daemon is killed that protects the frame.

Xen 4.20 crashes the guest if the store ends in another way than it began.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sim import PATIENCE, Console, SimProcess
from tests.support.sim_space import L2, L3, L4, announce
from tests.support.tables import FRAME, address, pte
from xengt_dm.errors import ExitCode

#: A table that the guest links; the one behind it is linked already.
G = 20
DATA = bytes(range(16))
BORDER = G * FRAME + FRAME - 8
#: Dies when the frame is on record, and before it has the type.
BEFORE = f"""
import os, signal
from xengt_dm._core import ffi
from xengt_dm.traps import claim
set_types = claim.set_types_in_place
def hook(port, kind, gfns, count, errors):
    if kind == claim.ClaimTraps.TRAP and {G} in ffi.unpack(gfns, count):
        os.kill(os.getpid(), signal.SIGKILL)
    return set_types(port, kind, gfns, count, errors)
claim.set_types_in_place = hook
"""
#: Waits for the file "go" before it protects the frame, and dies before it looks for stores that lie in it.
AFTER = f"""
import os, pathlib, signal
from xengt_dm._core import ffi
from xengt_dm.traps.claim import ClaimTraps
protect, here = ClaimTraps._protect, pathlib.Path(%r)
def hook(self, gfns, count, errors):
    if {G} in ffi.unpack(gfns, count):
        (here / "ready").touch()
        while not (here / "go").exists():
            pass
        protect(self, gfns, count, errors)
        os.kill(os.getpid(), signal.SIGKILL)
    return protect(self, gfns, count, errors)
ClaimTraps._protect = hook
"""


@pytest.fixture(params=["4.17", "4.20"])
def sim(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SimProcess]:
    options = ("--guest", "scripted", "--frames", "64", "--vcpus", "2", "--xen", request.param)
    with SimProcess(tmp_path / "sim", *options) as process:
        yield process


def build(console: Console) -> None:
    for table, child in ((L4, L3), (L3, L2), (L2, G + 1)):
        console.run(0, "store", address(table), 8, pte(child))
    announce(console)


def test_a_frame_that_is_on_record_and_is_ram(sim: SimProcess, console: Console, base: Path) -> None:
    """Its bit does not prove that it traps: before it is protected, stores in it that go on in the next must end."""
    with sim.console() as other:
        with sim.serve(base, hook=BEFORE) as daemon:
            build(console)
            console.begin(0, "store", address(L2, 1), 8, pte(G))
            daemon.process.communicate(timeout=PATIENCE)
            assert daemon.process.returncode == -signal.SIGKILL
        over = threading.Event()

        def store_over_the_border() -> None:
            while not over.is_set():
                other.run(1, "store_bytes", BORDER, DATA.hex())

        storing = threading.Thread(target=store_over_the_border, daemon=True)
        storing.start()
        with sim.console() as looker, sim.serve(base) as daemon:
            console.receive()
            while G not in looker.state()["protected"]:
                assert looker.state()["crash_reason"] in (None, "")
            over.set()
            storing.join(PATIENCE)
            assert not storing.is_alive()
            assert looker.state()["crash_reason"] in (None, "")
            assert looker.ask("read", gpa=BORDER, size=16) == DATA.hex()
            assert daemon.stop()[0] == ExitCode.OK


def test_a_frame_that_was_protected_in_the_middle_of_a_store(
    sim: SimProcess, console: Console, base: Path, tmp_path: Path
) -> None:
    """The first half went to memory. The successor answers the second one when the frame is RAM again."""
    with sim.console() as other, sim.console() as looker:
        with sim.serve(base, hook=AFTER % str(tmp_path)) as daemon:
            build(console)
            console.begin(0, "store", address(L2, 1), 8, pte(G))
            while not (tmp_path / "ready").exists():
                looker.state()
            other.begin(1, "store_bytes", BORDER, DATA.hex())
            while looker.ask("read", gpa=BORDER, size=8) != DATA[:8].hex():
                pass
            (tmp_path / "go").touch()
            daemon.process.communicate(timeout=PATIENCE)
        with sim.serve(base) as daemon:
            console.receive()
            other.receive()
            state = looker.state()
            assert state["crash_reason"] in (None, "")
            assert looker.ask("read", gpa=BORDER, size=16) == DATA.hex()
            assert daemon.stop()[0] == ExitCode.OK
        assert looker.state()["protected"] == []
