"""The table on real Xen, in dom0: what tests/lab/scenarios/conformance.py calls."""

import contextlib
import time
from collections.abc import Iterator

from dom0.checks import ScenarioError, require, say
from dom0.guest import created

from xengt_dm.hypervisor.xen import library

from .runner import run as run_case
from .table import Case, flipped, for_flavour, load
from .xen import CONFIG, READY, XenSide

_STEP_SECONDS = 60
_LEAST = 650
_EVERY = 100


@contextlib.contextmanager
def _side() -> Iterator[XenSide]:
    """A new guest that waits for commands."""
    with created("conformance", on_poweroff="preserve", more=CONFIG) as guest:
        guest.start()
        guest.reach(READY, _STEP_SECONDS)
        with contextlib.closing(XenSide(guest)) as side:
            guest.leave(READY)
            yield side


def _try(case: Case, side: XenSide) -> bool:
    """Run a case; False if it disagrees, after saying so."""
    try:
        run_case(case, side)
    except Exception as error:  # whatever it is, the other cases are of interest
        say(f"disagrees: {case.name}: {type(error).__name__}: {error}")
        return False
    return True


def run() -> dict[str, int | float | str]:
    """Every case; the figures of the verdict. Raises ScenarioError if any disagrees."""
    version = library.read_version()
    assert version is not None
    cases = for_flavour(load(), f"{version.major}.{version.minor}", lab=True)
    require(len(cases) >= _LEAST, f"the table has {len(cases)} cases for this Xen, and should have {_LEAST}")
    common = [case for case in cases if not case.fresh]
    lost = [case for case in cases if case.fresh]
    wrong, guests, done = 0, 0, 0
    start = time.monotonic()
    while common:
        guests += 1
        # One that disagrees leaves who knows what.
        with _side() as side:
            while common:
                case = common.pop(0)
                agrees = _try(case, side)
                wrong += not agrees
                done += 1
                if done % _EVERY == 0:
                    say(f"{done} cases")
                if not agrees:
                    break
            if not common:
                say("and a case that is wrong on purpose")
                require(not _try(flipped(cases), side), "a case that is wrong on purpose agrees: this tests nothing")
    for case in lost:
        guests += 1
        with _side() as side:
            wrong += not _try(case, side)
    if wrong:
        raise ScenarioError(f"{wrong} of {len(cases)} cases disagree")
    return {"cases": len(cases), "guests": guests, "case_seconds": round(time.monotonic() - start, 1)}
