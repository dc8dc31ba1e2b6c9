"""``python -m tests.single_step``: kill a daemon after every instruction, or every line, of a request."""

from __future__ import annotations

import argparse
import random
import sys

from tests.single_step.cases import CASES
from tests.single_step.harness import Stepper
from tests.single_step.sweep import KINDS, Sweep


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.single_step", description=__doc__)
    parser.add_argument("--points", type=int, default=0, help="so many steps of each case, drawn; default: every step")
    parser.add_argument("--seed", type=int, help="default: another one each time")
    parser.add_argument("--mode", default="strict", choices=["strict", "relaxed"])
    parser.add_argument("--what", action="append", choices=KINDS)
    parser.add_argument("--case", action="append", default=[], help="only cases whose names have this in them")
    parser.add_argument("--skip", action="append", default=[], help="what of the end state is not compared")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 31) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    failed = 0
    with Stepper(arguments.mode) as stepper:
        for case in CASES:
            if arguments.case and not any(words in case.name for words in arguments.case):
                continue
            for what in arguments.what or KINDS:
                sweep = Sweep(stepper, case, what, frozenset(arguments.skip))
                wrong = sweep.run(arguments.points, random.Random(seed))
                failed += bool(wrong)
                print(f"{'FAILED' if wrong else 'ok'} {sweep}", *wrong[:4], sep="\n  ", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
