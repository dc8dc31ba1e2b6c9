"""Traces by hand: ``python -m tests.oracle generate | expect | check | hunt | corpus``, from the project's root."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path

from .compare import compare
from .corpus_files import write_corpus
from .generate import KINDS, generate
from .hunt import MODES, differences, minimised, replay
from .machine import Trace, expected, load, save


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.oracle", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("generate", help="write a generated trace")
    make.add_argument("kind", choices=KINDS)
    make.add_argument("seed", type=int)
    make.add_argument("file", type=Path)
    make.add_argument("--scale", type=int, default=1)
    say = commands.add_parser("expect", help="print what replay must say of a trace")
    say.add_argument("file", type=Path)
    check = commands.add_parser("check", help="replay traces and compare")
    check.add_argument("files", type=Path, nargs="+")
    check.add_argument("--max-tables", type=int)
    hunt = commands.add_parser("hunt", help="replay generated traces, and cut down what fails")
    hunt.add_argument("--kind", choices=KINDS, action="append")
    hunt.add_argument("--seed", type=int, default=random.randrange(1 << 31), help="the first; then upwards")
    hunt.add_argument("--count", type=int, default=100)
    hunt.add_argument("--scale", type=int, default=1)
    hunt.add_argument("--max-tables", type=int)
    hunt.add_argument("--keep", type=Path, help="directory for the traces that fail, cut down")
    commands.add_parser("corpus", help="write the hand-made traces and their table anew")
    args = parser.parse_args()
    if args.command == "generate":
        save(args.file, generate(args.kind, args.seed, args.scale))
    elif args.command == "expect":
        json.dump(expected(load(args.file)), sys.stdout)
        print()
    elif args.command == "corpus":
        write_corpus()
    elif args.command == "check":
        failed = [path for path in args.files if _check(str(path), load(path), args.max_tables)]
        return len(failed) > 0
    else:
        return _hunt(args)
    return 0


def _check(name: str, trace: Trace, max_tables: int | None) -> bool:
    want = expected(trace)
    failed = False
    for mode in MODES:
        output = replay(trace, mode, max_tables)
        found = [output["failure"]] if "failure" in output else []
        found += compare(want, output, mode, max_tables) if "dumps" in output else []
        print(f"{name} ({mode}, {output['seconds']:.1f} s): {'FAIL' if found else 'ok'}", flush=True)
        for difference in found[:10]:
            print(f"    {difference}")
        failed = failed or bool(found)
    return failed


def _hunt(args: argparse.Namespace) -> int:
    failures = 0
    started = time.monotonic()
    print(f"seeds {args.seed} to {args.seed + args.count - 1}", flush=True)
    for seed in range(args.seed, args.seed + args.count):
        for kind in args.kind or KINDS:
            trace = generate(kind, seed, args.scale)
            for mode in MODES:
                found = differences(trace, mode, args.max_tables)
                if not found:
                    continue
                failures += 1
                print(f"{kind} {seed} ({mode}):", *found[:4], sep="\n    ", flush=True)
                if args.keep:
                    small = minimised(trace, lambda attempt, mode=mode: _fails(attempt, mode, args.max_tables))  # type: ignore[misc]
                    save(args.keep / f"{kind}-{seed}-{mode}.jsonl", small)
    print(f"{args.count} seeds, {failures} failures, {time.monotonic() - started:.0f} s")
    return failures > 0


def _fails(trace: Trace, mode: str, max_tables: int | None) -> bool:
    return bool(differences(trace, mode, max_tables))


if __name__ == "__main__":
    sys.exit(main())
