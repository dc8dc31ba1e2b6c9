"""``python -m tests.storm``: a storm of any size. It prints its seed, so that it can be made again."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.storm.checks import Check, Failed
from tests.storm.storm import Plan, Storm


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.storm", description="Kill daemons at any instant.")
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, help="default: another one each time")
    parser.add_argument("--xen", default="4.17", help="as `xengt-dm sim --xen`")
    parser.add_argument("--skip", action="append", default=[], choices=[check.value for check in Check])
    parser.add_argument("--hook", action="append", default=[], metavar="MODULE:FUNCTION", help="change the daemons")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 31) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    plan = Plan(
        seed=seed,
        kills=arguments.kills,
        flavour=arguments.xen,
        checks=frozenset(Check) - {Check(name) for name in arguments.skip},
        hooks=tuple(arguments.hook),
    )
    with tempfile.TemporaryDirectory() as scratch:
        storm = Storm(Path(scratch), plan)
        try:
            storm.run()
        except Failed as failed:
            print(f"FAILED {failed}\n{storm.report}")
            return 1
    print(storm.report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
