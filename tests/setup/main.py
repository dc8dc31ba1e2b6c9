"""Runs the parts of the tests, one after the other, to the last one even if one fails, and sums up."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import projects
import running
from command import Limits, SetupError, Words, end_all, heed_interrupts, in_sight
from environments import CHECKOUT, Kind, make
from outcomes import Outcome, sum_up
from parts import IF_NAMED, LAB_JOBS, ONLY_ON, PACKAGES, PYTEST_PARTS, SCENARIOS, XENS, Part, installed
from projects import Installed
from rooms import rooms

_SETUP = CHECKOUT / "tests" / "setup"
_PROGRAM_LIMITS = Limits(silent=900, longest=2 * 3600)


@dataclass
class Wanted:
    """What the command line asks for by name: parts, rooms, scenarios of the lab."""

    parts: list[Part] = field(default_factory=list)
    rooms: list[str] = field(default_factory=list)
    scenarios: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    wanted: Wanted
    xens: list[str]
    #: What the lab and the storm are told of how large they are to be.
    size: list[str]
    pytest: list[str]
    bench: list[str]
    campaign: list[str]


def wanted(words: list[str]) -> Wanted:
    """What these words name: all parts but bench if there are none. Raises ValueError for one that names nothing.

    A room may also be named by its path, ``tests/ppgtt``, and a scenario as ``lab/stop``: of a room and a scenario of
    one name, the plain name means the room.
    """
    found = Wanted()
    parts = {part.value: part for part in Part}
    known = rooms()
    for word in words:
        scenario = word.removeprefix("lab/")
        room = word.rstrip("/").removeprefix("tests/")
        if word in parts:
            found.parts.append(parts[word])
        elif room in known:
            found.rooms.append(room)
        elif scenario in (*SCENARIOS, *IF_NAMED):
            found.scenarios.append(scenario)
        else:
            raise ValueError(word)
    if not words:
        found.parts = [part for part in Part if part not in (Part.BENCH, Part.CAMPAIGN)]
    if found.scenarios and Part.LAB not in found.parts:
        found.parts.append(Part.LAB)
    return found


def scenarios(options: Options) -> dict[str, list[str]]:
    """The scenarios of the lab by Xen: those that are named; else all, but those of ONLY_ON on their Xen alone."""

    def of_one(xen: str) -> list[str]:
        if options.wanted.scenarios:
            return options.wanted.scenarios
        return [each for each in SCENARIOS if options.size or ONLY_ON.get(each, xen) == xen]

    return {xen: of_one(xen) for xen in options.xens}


def main() -> int:
    """Run what the arguments ask for: 0 if everything passed, 1 if not."""
    heed_interrupts()
    options = _options()
    outcomes = []
    try:
        if options.wanted.rooms:
            outcomes.append(_timed("rooms", Part.UNIT, partial(_run_rooms, options)))
        for part in options.wanted.parts:
            outcome = _timed(part.value, part, partial(_run, part, options))
            outcomes.append(outcome)  # each at once, for an interrupt loses what is in the middle
    except KeyboardInterrupt:
        end_all()
        outcomes.append(Outcome("the rest", failed=1, why="interrupted"))
    return sum_up(outcomes)


def _options() -> Options:
    parser = argparse.ArgumentParser(
        prog="tests/run",
        description="Pass the tests: all parts but bench and campaign, or those parts, rooms and scenarios that are "
        "named.",
        epilog=f"Parts: {', '.join(part.value for part in Part)}. Rooms: {', '.join(rooms())}. "
        f"Scenarios: {', '.join(SCENARIOS)}; lab/NAME if a room has the name. "
        f"Only if named: {', '.join(IF_NAMED)}.",
    )
    parser.add_argument("what", nargs="*", metavar="PART|ROOM|SCENARIO")
    parser.add_argument("--xen", action="append", choices=XENS, help="only on this Xen")
    parser.add_argument("--full", action="store_true", help="scenarios and storms in their full size")
    parser.add_argument("--pytest", action="append", default=[], metavar="ARG", help="an argument more for pytest")
    parser.add_argument("--bench", action="append", default=[], metavar="ARG", help="an argument for the benchmarks")
    parser.add_argument("--campaign", action="append", default=[], metavar="ARG", help="an argument for the campaign")
    arguments = parser.parse_args()
    try:
        asked = wanted(arguments.what)
    except ValueError as error:
        parser.error(f"neither part, room nor scenario: {error}")
    return Options(
        asked,
        arguments.xen or list(XENS),
        ["--full"] if arguments.full else [],
        arguments.pytest,
        arguments.bench,
        arguments.campaign,
    )


def _timed(name: str, part: Part, run: Callable[[], Outcome]) -> Outcome:
    """Run something that needs the packages of a part, and say how long it took."""
    print(f"\n===== {name} =====", flush=True)
    start = time.monotonic()
    try:
        if subprocess.run([_SETUP / "debian", *PACKAGES[part]], stdin=subprocess.DEVNULL, check=False).returncode:
            raise SetupError("Debian packages are missing")
        outcome = run()
    except SetupError as error:
        print(error, flush=True)
        outcome = Outcome(name, failed=1, why="could not be set up")
    outcome.seconds = time.monotonic() - start
    return outcome


def _run(part: Part, options: Options) -> Outcome:
    match part:
        case Part.LAB:
            return running.lab(scenarios(options), options.size, LAB_JOBS)
        case Part.STORM:
            return _run_program("storm", installed(Kind.NEWEST)(), "tests.storm", options.size)
        case Part.BENCH:
            return _run_program("bench", installed(Kind.NEWEST)(), "tests.bench", options.bench)
        case Part.CAMPAIGN:
            return _run_program(
                "campaign", projects.install_sanitized(make(Kind.NEWEST)), "tests.fuzz.campaign", options.campaign
            )
        case _:
            plan = PYTEST_PARTS[part]
            return running.pytest(part.value, plan.install(), [*plan.arguments, *options.pytest])


def _run_rooms(options: Options) -> Outcome:
    arguments = [*running.SPREAD, *(f"tests/{room}" for room in options.wanted.rooms), *options.pytest]
    return running.pytest("rooms", installed(Kind.NEWEST)(), arguments)


def _run_program(name: str, project: Installed, module: str, arguments: list[str]) -> Outcome:
    """Run a module of the tests that is a program of its own.

    What bench measures is what users get: today's releases, and the flags of an ordinary build.
    """
    environment = project.environment()
    environment["PYTHONPATH"] += f"{os.pathsep}{CHECKOUT}"  # for the module; the installed project comes first
    words: Words = [project.python, "-m", module, *arguments]
    status = in_sight(words, env=environment, cwd=CHECKOUT, limits=_PROGRAM_LIMITS, say=running.say)
    return Outcome(name, failed=1, why=f"status {status}") if status else Outcome(name, passed=1)


if __name__ == "__main__":
    sys.exit(main())
