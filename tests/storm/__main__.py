"""``python -m tests.storm``: a storm of any size. It prints its seed, so that it can be made again."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.storm.checks import Check, Failed
from tests.storm.storm import Plan, Storm
from xengt_dm.hypervisor.embedded.p2m import FLAVOURS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.storm", description="Kill daemons at any instant.")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--kills", type=int, default=300, help="over all storms; default 300")
    size.add_argument("--full", dest="kills", action="store_const", const=2000, help="2,000 kills")
    parser.add_argument("--seed", type=int, help="default: another one each time")
    parser.add_argument("--xen", choices=[*FLAVOURS], help="one storm, on this; default: two, as a lab has")
    parser.add_argument("--rep-stores", action="store_true", help="as `xengt-dm sim --rep-stores`")
    parser.add_argument("--skip", action="append", default=[], choices=[check.value for check in Check])
    parser.add_argument("--hook", action="append", default=[], metavar="MODULE:FUNCTION", help="change the daemons")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 31) if arguments.seed is None else arguments.seed
    storms = [(arguments.xen, arguments.rep_stores, arguments.kills)]
    if arguments.xen is None:
        second = arguments.kills // 3
        storms = [("4.17", arguments.rep_stores, arguments.kills - second), ("4.20", True, second)]
    for number, (flavour, rep_stores, kills) in enumerate(storms):
        plan = Plan(
            seed=seed + number,
            kills=kills,
            flavour=flavour,
            rep_stores=rep_stores,
            checks=frozenset(Check) - {Check(name) for name in arguments.skip},
            hooks=tuple(arguments.hook),
        )
        print(f"Xen {flavour}{', rep stores' * rep_stores}, seed {plan.seed}", flush=True)
        if not _passes(plan):
            return 1
    return 0


def _passes(plan: Plan) -> bool:
    with tempfile.TemporaryDirectory() as scratch:
        storm = Storm(Path(scratch), plan, say=lambda line: print(line, flush=True))
        try:
            storm.run()
        except Failed as failed:
            print(f"FAILED {failed}")
            return False
        finally:
            print(storm.report, flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
