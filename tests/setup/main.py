"""Runs the parts of the tests, one after the other, to the last one even if one fails, and sums up."""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import cache
from command import SetupError, Words, end_all, in_sight
from environments import CHECKOUT
from parts import (
    BENCH_SECONDS,
    LAB_JOBS,
    LAB_SECONDS,
    PACKAGES,
    PYTEST_PARTS,
    SCENARIOS,
    XENS,
    Part,
    install_for_bench,
)

_SETUP = CHECKOUT / "tests" / "setup"


@dataclass
class Outcome:
    """Of one part."""

    name: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    why: str = ""


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    parts: list[Part]
    scenarios: list[str]
    xens: list[str]
    pytest: list[str]
    bench: list[str]


def main() -> int:
    """Run what the arguments ask for: 0 if everything passed, 1 if not."""
    signal.signal(signal.SIGTERM, _interrupt)
    options = _options()
    outcomes = []
    try:
        for part in options.parts:
            print(f"\n===== {part.value} =====", flush=True)
            start = time.monotonic()
            outcome = _run(part, options)
            outcome.seconds = time.monotonic() - start
            outcomes.append(outcome)
    except KeyboardInterrupt:
        end_all()
        outcomes.append(Outcome("the rest", failed=1, why="interrupted"))
    return _sum_up(outcomes)


def _options() -> Options:
    parts = {part.value: part for part in Part}
    parser = argparse.ArgumentParser(
        prog="tests/run",
        description="Pass the tests: all of them but bench, or those named.",
        epilog=f"Parts: {', '.join(parts)}. Scenarios of the lab: {', '.join(SCENARIOS)}.",
    )
    parser.add_argument("what", nargs="*", metavar="PART|SCENARIO", help="parts; scenarios, if not all of the lab's")
    parser.add_argument("--xen", action="append", choices=XENS, help="only on this Xen")
    parser.add_argument("--pytest", action="append", default=[], metavar="ARG", help="an argument more for pytest")
    parser.add_argument("--bench", action="append", default=[], metavar="ARG", help="an argument for the benchmarks")
    arguments = parser.parse_args()
    unknown = [word for word in arguments.what if word not in parts and word not in SCENARIOS]
    if unknown:
        parser.error(f"neither part nor scenario: {' '.join(unknown)}")
    scenarios = [word for word in arguments.what if word in SCENARIOS]
    chosen = [parts[word] for word in arguments.what if word in parts]
    if scenarios and Part.LAB not in chosen:
        chosen.append(Part.LAB)
    return Options(
        chosen or [part for part in Part if part is not Part.BENCH],
        scenarios or list(SCENARIOS),
        arguments.xen or list(XENS),
        arguments.pytest,
        arguments.bench,
    )


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(part: Part, options: Options) -> Outcome:
    try:
        if subprocess.run([_SETUP / "debian", *PACKAGES[part]], stdin=subprocess.DEVNULL, check=False).returncode:
            raise SetupError("Debian packages are missing")
        match part:
            case Part.LAB:
                return _run_lab(options)
            case Part.BENCH:
                return _run_bench(options)
            case _:
                return _run_pytest(part, options)
    except SetupError as error:
        print(error, flush=True)
        return Outcome(part.value, failed=1, why="could not be set up")


def _run_pytest(part: Part, options: Options) -> Outcome:
    plan = PYTEST_PARTS[part]
    installed = plan.install()
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        words: Words = [installed.python, "-m", "pytest", "-q", "-rsxX", f"--junit-xml={report}"]
        words += ["-o", f"cache_dir={cache.root() / 'pytest'}", *plan.arguments, *options.pytest]
        environment = {
            **installed.environment(),
            "HYPOTHESIS_STORAGE_DIRECTORY": str(cache.root() / "hypothesis"),
            "MYPY_CACHE_DIR": str(cache.root() / "mypy"),
        }
        status = in_sight(words, env=environment, cwd=CHECKOUT, seconds=plan.seconds, say=_say)
        return _read_report(part.value, report, status)


def _say(line: str) -> None:
    print(line, flush=True)


def _read_report(name: str, report: Path, status: int) -> Outcome:
    """What pytest counted. A skipped test fails the part: everything that a test can miss is set up here."""
    if not report.exists():
        return Outcome(name, failed=1, why=f"pytest ended with status {status} and without a report")
    suites = xml.etree.ElementTree.parse(report).getroot().iter("testsuite")
    counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for suite in suites:
        for key in counts:
            counts[key] += int(suite.get(key, "0"))
    failed = counts["failures"] + counts["errors"]
    skipped = counts["skipped"]
    outcome = Outcome(name, counts["tests"] - failed - skipped, failed, skipped)
    if status != 0:
        outcome.why = f"pytest ended with status {status}"
    elif skipped:
        outcome.why = "tests were skipped"
    elif not outcome.passed:
        outcome.why = "no test ran"
    if outcome.why and not outcome.failed:
        outcome.failed = 1
    return outcome


def _run_lab(options: Options) -> Outcome:
    cases = [(scenario, xen) for scenario in options.scenarios for xen in options.xens]
    pool = concurrent.futures.ThreadPoolExecutor(LAB_JOBS)
    try:
        verdicts = list(pool.map(_run_scenario, cases))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    passed = [case for case, good in zip(cases, verdicts, strict=True) if good]
    failed = [f"{scenario} on {xen}" for scenario, xen in cases if (scenario, xen) not in passed]
    return Outcome("lab", len(passed), len(failed), why=", ".join(failed))


def _run_bench(options: Options) -> Outcome:
    installed = install_for_bench()
    environment = installed.environment()
    environment["PYTHONPATH"] += f"{os.pathsep}{CHECKOUT}"  # for tests.bench; the installed project comes first
    words: Words = [installed.python, "-m", "tests.bench", *options.bench]
    status = in_sight(words, env=environment, cwd=CHECKOUT, seconds=BENCH_SECONDS, say=_say)
    return Outcome("bench", failed=1, why=f"status {status}") if status else Outcome("bench", passed=1)


_output = threading.Lock()


def _run_scenario(case: tuple[str, str]) -> bool:
    scenario, xen = case

    def say(line: str) -> None:
        with _output:
            print(f"{scenario} {xen} | {line}", flush=True)

    words: Words = [CHECKOUT / "tests" / "lab" / "run", scenario, "--xen", xen]
    return in_sight(words, env=os.environ, cwd=CHECKOUT, seconds=LAB_SECONDS, say=say) == 0


def _sum_up(outcomes: list[Outcome]) -> int:
    print("\n===== all =====")
    for outcome in outcomes:
        verdict = f"FAILED: {outcome.why}" if outcome.why else "passed" if not outcome.failed else "FAILED"
        print(f"{outcome.name:9} {outcome.seconds:7.1f} s  {outcome.passed:5} tests  {verdict}")
    passed, failed, skipped = (sum(getattr(each, key) for each in outcomes) for key in ("passed", "failed", "skipped"))
    print(f"all       {sum(outcome.seconds for outcome in outcomes):7.1f} s")
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
