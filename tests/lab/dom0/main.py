"""What dom0's init starts: runs the scenarios, reports each to the result disk."""

import hashlib
import importlib
import json
import os
import sys
import time
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

Figures = dict[str, int | float | str]


def _report(outcomes: list[dict[str, object]]) -> None:
    body = json.dumps(outcomes).encode()
    head = f"{_MAGIC} {len(body)} {hashlib.sha256(body).hexdigest()}\n".encode()
    disk = os.open(_RESULT_DISK, os.O_WRONLY)
    os.write(disk, head + body)
    os.fsync(disk)
    os.close(disk)


def _show_logs() -> None:
    for log in sorted(LOGS.glob("*")):
        for line in log.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:]:
            print(f"{log.name}: {line}", flush=True)


def _try(name: str) -> tuple[str | None, Figures]:
    """Run a scenario: why it did not pass, and its figures."""
    try:
        figures: Figures = importlib.import_module(f"scenarios.{name}").run()
        return None, figures
    except ScenarioError as failure:
        return str(failure), {}
    except Exception as error:
        traceback.print_exc()
        return f"in dom0: {type(error).__name__}: {error}", {}


def main() -> None:
    """Run the scenarios named on the lab's disk, up to the first that does not pass: it leaves who knows what."""
    outcomes: list[dict[str, object]] = []
    for name in (_LAB / "scenario").read_text().split():
        say(f"scenario {name}")
        start = time.monotonic()
        why, figures = _try(name)
        figures["seconds"] = round(time.monotonic() - start, 1)
        outcomes.append({"scenario": name, "why": why, "figures": figures})
        say(f"scenario {name} ended: {why or 'ok'}")
        if why is not None:
            _show_logs()
        _report(outcomes)
        if why is not None:
            return


main()
