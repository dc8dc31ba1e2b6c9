"""The table on real Xen, in dom0: what tests/lab/scenarios/conformance.py calls.

Facts: Xen deprecated shadow paging with XSA-495 (f2cac32029), and since then builds it only where it is asked to. Of
the hypervisors that Debian has now, some have it and some have not. What follows: where Xen has it, the cases of guests
on shadow paging run, and `run` and `start` must refuse such a guest; where not, Xen must refuse to create one, and
`create` must name the key all the same.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from dom0.checks import ScenarioError, require, say
from dom0.guest import Guest, created
from dom0.programs import outcome, run

from xengt_dm.errors import ExitCode
from xengt_dm.hypervisor.xen import library

from .runner import run as run_case
from .table import Case, flipped, for_flavour, load
from .xen import CONFIG, PAGING, READY, XenSide

_STEP_SECONDS = 60
_COMMAND_SECONDS = 300
_LEAST = 650
_EVERY = 100


@contextlib.contextmanager
def _guest(paging: str) -> Iterator[Guest]:
    """A new guest that waits to be started."""
    with created("conformance", on_poweroff="preserve", more=f"{CONFIG}\n{PAGING[paging]}") as guest:
        yield guest


@contextlib.contextmanager
def _side(paging: str) -> Iterator[XenSide]:
    """A new guest that waits for commands."""
    with _guest(paging) as guest:
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


def _refused(words: tuple[str, ...], status: int) -> None:
    """Raises ScenarioError unless a command ends with this status and names the key of the domain's configuration."""
    ended, _, said = outcome(*words, seconds=_COMMAND_SECONDS)
    say(f"{' '.join(words)}: status {ended}: {said.strip()[-300:]}")
    require(ended == status, f"{' '.join(words)} ended with status {ended}, not {status}")
    require("hap=1" in said, f"{' '.join(words)} does not name the key: {said[-300:]}")


def _has_shadow_paging() -> bool:
    """Whether Xen can run a guest without HAP, by its own word."""
    return "shadow" in run("xl", "info", "virt_caps").split()


def _commands_refuse_a_guest_without_hap(can_be_created: bool) -> None:
    """`run`, `start` and `create` say what the domain lacks, and `create` creates nothing."""
    if can_be_created:
        with _guest("shadow") as guest:
            _refused(("xengt-dm", "run", "--domid", str(guest.domid)), ExitCode.CONFIG)
            _refused(("xengt-dm", "start", "--domid", str(guest.domid)), ExitCode.UNAVAILABLE)
    config = Path("/run/without-hap.cfg")
    config.write_text('name = "without-hap"\ntype = "pvh"\nkernel = "/lab/guests/conformance.elf"\nhap = 0\n')
    _refused(("xengt-dm", "create", str(config)), ExitCode.CONFIG)
    require(outcome("xl", "domid", "without-hap")[0] != 0, "xengt-dm create has left a domain")
    if not can_be_created:
        status, _, said = outcome("xl", "create", "-p", str(config), seconds=_COMMAND_SECONDS)
        say(f"xl create with hap=0: status {status}: {' '.join(said.split())[-200:]}")
        require(status != 0, "Xen says that it has no shadow paging, and has created a domain without HAP")


class _Tally:
    """What the cases came to."""

    def __init__(self, cases: list[Case]) -> None:
        self._cases = cases
        self.wrong = self.guests = self.done = 0

    def play(self, paging: str) -> None:
        """Run the cases of a paging, and one that is wrong on purpose, in as few guests as can be."""
        cases = [case for case in self._cases if case.paging == paging]
        common = [case for case in cases if not case.fresh]
        say(f"{len(cases)} cases, {paging}")
        while common:
            # A case that disagrees leaves who knows what.
            with self._new_side(paging) as side:
                while common and self._count(_try(common.pop(0), side)):
                    pass
                if not common:
                    say("and a case that is wrong on purpose")
                    require(not _try(flipped(cases), side), "a case that is wrong on purpose agrees")
        for case in cases:
            if case.fresh:
                with self._new_side(paging) as side:
                    self._count(_try(case, side))

    @contextlib.contextmanager
    def _new_side(self, paging: str) -> Iterator[XenSide]:
        self.guests += 1
        with _side(paging) as side:
            yield side

    def _count(self, agrees: bool) -> bool:
        self.wrong += not agrees
        self.done += 1
        if self.done % _EVERY == 0:
            say(f"{self.done} cases")
        return agrees


def run_table() -> dict[str, int | float | str]:
    """Every case; the figures of the verdict. Raises ScenarioError if any disagrees."""
    version = library.read_version()
    assert version is not None
    cases = for_flavour(load(), f"{version.major}.{version.minor}", lab=True)
    require(len(cases) >= _LEAST, f"the table has {len(cases)} cases for this Xen, and should have {_LEAST}")
    start = time.monotonic()
    shadow_paging = _has_shadow_paging()
    if not shadow_paging:
        say("this Xen has no shadow paging: the cases without HAP are left out")
        cases = [case for case in cases if case.paging != "shadow"]
    _commands_refuse_a_guest_without_hap(shadow_paging)
    tally = _Tally(cases)
    for paging in reversed(PAGING):
        tally.play(paging)
    if tally.wrong:
        raise ScenarioError(f"{tally.wrong} of {len(cases)} cases disagree")
    shadow = sum(case.paging == "shadow" for case in cases)
    return {
        "cases": len(cases),
        "without_hap": shadow,
        "guests": tally.guests,
        "case_seconds": round(time.monotonic() - start, 1),
    }
