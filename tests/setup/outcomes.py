"""What came of the parts of the tests, and how it is summed up."""

from __future__ import annotations

import re
import xml.etree.ElementTree
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Outcome:
    """Of one part."""

    name: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    why: str = ""
    #: By file of tests.
    file_seconds: dict[str, float] = field(default_factory=dict)


def of_report(name: str, report: Path, status: int, *, may_skip: bool = False) -> Outcome:
    """What pytest counted in its report of a run that ended with this status.

    A skipped test fails the part unless it ``may_skip``.
    """
    if not report.exists():
        return Outcome(name, failed=1, why=f"pytest ended with status {status} and without a report")
    root = xml.etree.ElementTree.parse(report).getroot()
    suites = root.iter("testsuite")
    counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for suite in suites:
        for key in counts:
            counts[key] += int(suite.get(key, "0"))
    failed = counts["failures"] + counts["errors"]
    skipped = counts["skipped"]
    outcome = Outcome(name, counts["tests"] - failed - skipped, failed, skipped)
    for case in root.iter("testcase"):
        module = re.match(r"(?:\w+\.)*test_\w+", case.get("classname", ""))
        if module:
            file = module[0].replace(".", "/") + ".py"
            outcome.file_seconds[file] = outcome.file_seconds.get(file, 0.0) + float(case.get("time", "0"))
    if status != 0:
        outcome.why = f"pytest ended with status {status}"
    elif skipped and not may_skip:
        outcome.why = "tests were skipped"
    elif not outcome.passed:
        outcome.why = "no test ran"
    if outcome.why and not outcome.failed:
        outcome.failed = 1
    return outcome


def sum_up(outcomes: Iterable[Outcome]) -> int:
    """Print a line a part, and the whole on the last: the exit status that says the same."""
    outcomes = [*outcomes]
    print("\n===== all =====")
    for outcome in outcomes:
        verdict = f"FAILED: {outcome.why}" if outcome.why else "passed" if not outcome.failed else "FAILED"
        print(f"{outcome.name:9} {outcome.seconds:7.1f} s  {outcome.passed:5} tests  {verdict}")
    passed, failed, skipped = (sum(getattr(each, key) for each in outcomes) for key in ("passed", "failed", "skipped"))
    print(f"all       {sum(outcome.seconds for outcome in outcomes):7.1f} s")
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed or not passed else 0
