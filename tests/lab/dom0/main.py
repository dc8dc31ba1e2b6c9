"""What dom0's init starts: installs the project, runs the scenario, reports to the result disk."""

import hashlib
import importlib
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

_LAB = Path("/lab")
sys.path.insert(0, str(_LAB))

from dom0.checks import ScenarioError, say  # noqa: E402
from dom0.daemon import LOGS  # noqa: E402

_RESULT_DISK = "/dev/vdc"
# The same word as in tests/lab/host/result.py.
_MAGIC = "xengt-dm-lab-result"
_LOG_LINES = 40


def _install() -> None:
    """Install the project's package, as a user of dom0 would."""
    say("installing the project")
    packages = [str(path) for path in _LAB.glob("*.deb")]
    done = subprocess.run(["dpkg", "--install", *packages], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ScenarioError(f"dpkg could not install the project: {' '.join(done.stderr.split())}")


def _report(why: str | None, figures: dict[str, int | float | str]) -> None:
    body = json.dumps({"why": why, "figures": figures}).encode()
    head = f"{_MAGIC} {len(body)} {hashlib.sha256(body).hexdigest()}\n".encode()
    disk = os.open(_RESULT_DISK, os.O_WRONLY)
    os.write(disk, head + body)
    os.fsync(disk)
    os.close(disk)


def _show_logs() -> None:
    for log in sorted(LOGS.glob("*")):
        for line in log.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:]:
            print(f"{log.name}: {line}", flush=True)


def main() -> None:
    """Run the scenario named on the lab's disk."""
    why: str | None = None
    figures: dict[str, int | float | str] = {}
    try:
        _install()
        scenario = importlib.import_module(f"scenarios.{(_LAB / 'scenario').read_text()}")
        figures = scenario.run()
    except ScenarioError as failure:
        why = str(failure)
    except Exception as error:
        traceback.print_exc()
        why = f"in dom0: {type(error).__name__}: {error}"
    if why is not None:
        _show_logs()
    say(f"scenario ended: {why or 'ok'}")
    _report(why, figures)


main()
