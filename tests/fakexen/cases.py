"""Tests that need the fake libraries, run in a process that has them, and reported one by one by the one that has not.

Where the fakes are not, each such test is a stand-in without fixtures. The first of a folder has another pytest run all
of that folder's, which writes down what came of each as it ends; each stand-in then ends as its test did.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.fakexen import libraries

#: Set in the process that has the fakes: the file to which it reports.
_REPORT = "XENGT_FAKEXEN_REPORT"
_SECONDS = 600


def inside() -> bool:
    """Whether this process has the fakes."""
    return _REPORT in os.environ


class CaseFailedError(Exception):
    """What the other process said of a test that failed."""


class StandIn(pytest.Item):
    """In the place of a test that runs in another process."""

    def __init__(self, *, real: pytest.Function, **more: Any) -> None:
        super().__init__(**more)
        self.own_markers.extend(real.own_markers)
        self.keywords.update(real.keywords)
        self._location = real.reportinfo()

    def runtest(self) -> None:
        """End as the test did."""
        if not libraries.has_xen_headers():
            pytest.skip("libxen-dev is not installed, so _xen is not built")
        outcomes, output = _outcomes(self.path.parent)
        outcome = outcomes.get(self.nodeid, {"outcome": "failed", "text": f"it did not end:\n{output}"})
        if outcome["outcome"] == "skipped":
            pytest.skip(outcome["text"])
        if outcome["outcome"] == "failed":
            raise CaseFailedError(outcome["text"])

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> Any:
        """What the other process said, as it said it."""
        return str(excinfo.value) if isinstance(excinfo.value, CaseFailedError) else super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        """Where the test is."""
        return self._location


@functools.cache
def _outcomes(folder: Path) -> tuple[dict[str, dict[str, str]], str]:
    """What came of each test, by its node, and all that the process which ran them printed."""
    with tempfile.TemporaryDirectory(prefix="fakexen-") as scratch:
        libraries.build(Path(scratch))
        report = Path(scratch) / "report"
        report.touch()
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
            **libraries.environment(Path(scratch)),
            _REPORT: str(report),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
        done = subprocess.run(
            command,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        lines = map(json.loads, report.read_text().splitlines())
        return {line["node"]: line for line in lines}, f"{done.stdout}\nstatus {done.returncode}"


# For the conftest.py of a folder with such tests:


def replace(item: object) -> object:
    """What is collected for a test that needs the fakes, where they are not."""
    if not isinstance(item, pytest.Function) or "fake" not in item.fixturenames or inside():
        return item
    return StandIn.from_parent(item.parent, name=item.name, real=item)


def keep_those_with_fakes(items: list[pytest.Item]) -> None:
    """In the process that has the fakes, only what needs them runs."""
    if inside():
        items[:] = [item for item in items if isinstance(item, pytest.Function) and "fake" in item.fixturenames]


def write_down(report: pytest.TestReport) -> None:
    """In the process that has the fakes: how a test ended."""
    if not inside() or (report.when != "call" and report.passed):
        return
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
    line = {"node": report.nodeid, "outcome": report.outcome, "text": f"{text}\n{report.capstdout}{report.capstderr}"}
    with Path(os.environ[_REPORT]).open("a") as lines:
        lines.write(json.dumps(line) + "\n")
