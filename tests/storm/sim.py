"""``python -m tests.storm.sim DIRECTORY SEED FLAVOUR [forgetful]``: a sim with the storm's guest, until the end of its stdin."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.storm import guest
from tests.storm.world import FRAMES, VCPUS
from tests.support.sim import PATIENCE, Console, environment
from xengt_dm.sim.process import SimSettings, open_sim
from xengt_dm.sim.programs import GUESTS

DOMID = 1


class StormSim:
    """The process, as a context. ``forgetful``: the guest knows that its device forgets what was written to it."""

    def __init__(self, directory: Path, seed: int, flavour: str, *, forgetful: bool) -> None:
        self.directory = directory
        command = [sys.executable, "-m", "tests.storm.sim", str(directory), str(seed), flavour]
        command += ["forgetful"] * forgetful
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise AssertionError("the sim does not start")
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def console(self) -> Console:
        return Console(self.directory, DOMID)


def _main() -> None:
    directory, seed, flavour = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    guest.install()
    GUESTS["storm"] = lambda domain, seed: guest.Guest(domain, seed, directory, "forgetful" in sys.argv[4:])
    settings = SimSettings(domid=DOMID, guest="storm", flavour=flavour, frames=FRAMES, vcpus=VCPUS, seed=seed)
    with open_sim(directory, settings) as sim:
        print("runs", flush=True)
        sys.stdin.read()
        sim.domain.destroy()
        assert isinstance(sim.guest, guest.Guest)
        sim.guest.abandon()


if __name__ == "__main__":
    _main()
