"""One run of pytest, and the scenarios of the lab: what the parts of the tests are made of."""

from __future__ import annotations

import concurrent.futures
import os
import re
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import cache
from command import Limits, Words, in_sight
from environments import CHECKOUT
from outcomes import Outcome, of_report
from projects import Installed

#: Tests are spread over the processors by whatever test is next, so that a slow one holds up nobody.
SPREAD = ["-n", str(len(os.sched_getaffinity(0))), "--dist", "worksteal"]
#: The longest test takes seconds; under the sanitizers, or on a busy machine, a minute.
PYTEST_LIMITS = Limits(silent=900, longest=2 * 3600)
#: A scenario says something at least once a minute while something moves, and knows better what to wait for
#: (tests/lab/host/machine.py). The longest silence is that of an image that is built.
LAB_LIMITS = Limits(silent=1800, longest=8 * 3600)


def say(line: str) -> None:
    """Print a line now."""
    print(line, flush=True)


def pytest(name: str, installed: Installed, arguments: Sequence[str], *, may_skip: bool = False) -> Outcome:
    """Run pytest on a project; what came of it."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        words: Words = [installed.python, "-m", "pytest", "-q", "-rsxX", f"--junit-xml={report}"]
        words += ["-o", f"cache_dir={cache.root() / 'pytest'}", *arguments]
        environment = {
            **installed.environment(),
            "HYPOTHESIS_STORAGE_DIRECTORY": str(cache.root() / "hypothesis"),
            "MYPY_CACHE_DIR": str(cache.root() / "mypy"),
        }
        status = in_sight(words, env=environment, cwd=CHECKOUT, limits=PYTEST_LIMITS, say=say)
        return of_report(name, report, status, may_skip=may_skip)


def lab(scenarios: Mapping[str, Sequence[str]], options: Sequence[str], jobs: int) -> Outcome:
    """Run the scenarios of each Xen, so many of these at once; each counts as one test."""
    pool = concurrent.futures.ThreadPoolExecutor(jobs)
    try:
        verdicts = list(pool.map(lambda xen: _on_one_xen(scenarios[xen], xen, options), scenarios))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    failed = [
        f"{name} on {xen}"
        for (xen, names), passed in zip(scenarios.items(), verdicts, strict=True)
        for name in names
        if name not in passed
    ]
    return Outcome("lab", sum(map(len, verdicts)), len(failed), why=", ".join(failed))


_VERDICT = re.compile(r"PASS (\S+) \(")
_output = threading.Lock()


def _on_one_xen(scenarios: Sequence[str], xen: str, options: Sequence[str]) -> set[str]:
    """The names of the scenarios that passed."""
    passed = set()

    def heard(line: str) -> None:
        if verdict := _VERDICT.match(line):
            passed.add(verdict[1])
        with _output:
            say(f"{xen} | {line}")

    words: Words = [CHECKOUT / "tests" / "lab" / "run", *scenarios, "--xen", xen, *options]
    in_sight(words, env=os.environ, cwd=CHECKOUT, limits=LAB_LIMITS, say=heard)
    return passed & set(scenarios)
