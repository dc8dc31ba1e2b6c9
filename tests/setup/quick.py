"""Runs the tests of what a change touches, on the checkout's Python files: the loop of whoever is working on it."""

from __future__ import annotations

import argparse
import sys
import time

import environments
import projects
import running
import selection
from command import SetupError, heed_interrupts
from rooms import changed_files, rooms

#: Folders that may be named besides rooms.
_PARTS = ("lint", "setup")
#: Less than this many seconds of tests are over in one process before a second one is at work.
_ALONE_SECONDS = 8.0


def main() -> int:
    """Run what the arguments ask for: 0 if everything passed, 1 if not."""
    heed_interrupts()
    start = time.monotonic()
    options = _options()
    try:
        what = _selection(options)
        if options.list:
            return 0
        arguments = what.arguments if options.slow else [*what.arguments, "-m", "not slow"]
        if (what.seconds > _ALONE_SECONDS or options.slow) and not options.measure:
            arguments = [*running.SPREAD, *arguments]
        checkout = projects.checkout(environments.make(environments.Kind.NEWEST))
        outcome = running.pytest("quick", checkout, [*arguments, *options.pytest], may_skip=True)
        if options.measure:
            selection.record(outcome.file_seconds)
    except SetupError as error:
        sys.exit(f"setup: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(
        f"{outcome.passed} passed, {outcome.failed} failed, {outcome.skipped} skipped, {time.monotonic() - start:.1f} s"
    )
    return 1 if outcome.failed else 0


def _selection(options: argparse.Namespace) -> selection.Selection:
    """What is to run; says it, too."""
    if options.measure:
        return selection.named([*_PARTS, *rooms()], {})
    seconds = selection.measured()
    if options.rooms:
        what = selection.named(options.rooms, seconds)
        print(what, flush=True)
        return what
    changed = changed_files(options.since)
    what = selection.touched(changed, seconds, float("inf") if options.far else selection.BUDGET_SECONDS)
    print(f"changed: {' '.join(changed) or 'nothing'}\nruns: {what}", flush=True)
    if what.left_out:
        names = " ".join(map(selection.short, what.left_out))
        print(f"leaves out for time (--far runs them): {names}", flush=True)
    return what


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests/quick",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="""\
Run the tests of what changed since this branch left main, or of the rooms that are named.

A change runs the linters, the tests of the rooms that the changed files are in, and then the files of tests that reach
a changed file by imports, the nearest first, as long as it all takes less than 30 seconds on two idle processors.""",
        epilog=f"""\
It leaves out: tests marked slow (--slow runs them); files of tests for which no time is left, which it names (--far
runs them); tests that use a changed file only in a program that they start; compilers' warnings for C files that have
not changed; the lab, and all else that only tests/run does. Rooms that changed run as wholes, so a change of many
takes longer.

Rooms: {", ".join(rooms())}; also {" and ".join(_PARTS)}.""",
    )
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help="a folder of tests, or its path")
    parser.add_argument("--since", metavar="COMMIT", help="what changed since this commit")
    parser.add_argument("--far", action="store_true", help="also the files of tests for which no time is left")
    parser.add_argument("--slow", action="store_true", help="also the tests that take seconds")
    parser.add_argument("--list", action="store_true", help="only say what would run")
    parser.add_argument(
        "--measure", action="store_true", help="run every room, and write down how long each file takes"
    )
    parser.add_argument("--pytest", action="append", default=[], metavar="ARG", help="an argument more for pytest")
    options = parser.parse_args()
    options.rooms = [word.rstrip("/").removeprefix("tests/") for word in options.rooms]
    if unknown := set(options.rooms) - {*rooms(), *_PARTS}:
        parser.error(f"no room: {' '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    sys.exit(main())
