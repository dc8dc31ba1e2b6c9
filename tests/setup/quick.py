"""Runs the tests of what a change touches, on the checkout's Python files: the loop of whoever is working on it."""

from __future__ import annotations

import argparse
import sys
import time

import environments
import projects
import running
from command import SetupError, heed_interrupts
from rooms import changed_files, rooms, touched

#: Each C file under each compiler; the rest of tests/lint looks at all files, which takes little.
_COMPILERS = "tests/lint/test_compilers.py"


def main() -> int:
    """Run what the arguments ask for: 0 if everything passed, 1 if not."""
    heed_interrupts()
    start = time.monotonic()
    options = _options()
    try:
        changed = [] if options.rooms else changed_files(options.since)
        what = touched(changed)
        arguments = [f"tests/{room}" for room in options.rooms] or ["tests/lint", "tests/setup", *what.arguments]
        if not options.rooms and not what.c_files:
            arguments.append(f"--ignore={_COMPILERS}")
        print(f"{len(changed)} files changed: {' '.join(arguments)}" if changed else " ".join(arguments), flush=True)
        if options.list:
            return 0
        if not options.slow:
            arguments += ["-m", "not slow"]
        checkout = projects.checkout(environments.make(environments.Kind.NEWEST))
        outcome = running.pytest("quick", checkout, [*running.SPREAD, *arguments, *options.pytest], may_skip=True)
    except SetupError as error:
        sys.exit(f"setup: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(
        f"{outcome.passed} passed, {outcome.failed} failed, {outcome.skipped} skipped, {time.monotonic() - start:.1f} s"
    )
    return 1 if outcome.failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests/quick",
        description="Run the tests of what changed since this branch left main, or of the rooms that are named.",
        epilog=f"Rooms: {', '.join(rooms())}.",
    )
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help="a folder of tests, or its path")
    parser.add_argument("--since", metavar="COMMIT", help="what changed since this commit")
    parser.add_argument("--slow", action="store_true", help="also the tests that take seconds")
    parser.add_argument("--list", action="store_true", help="only say what would run")
    parser.add_argument("--pytest", action="append", default=[], metavar="ARG", help="an argument more for pytest")
    options = parser.parse_args()
    options.rooms = [word.rstrip("/").removeprefix("tests/") for word in options.rooms]
    if unknown := set(options.rooms) - set(rooms()):
        parser.error(f"no room: {' '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    sys.exit(main())
