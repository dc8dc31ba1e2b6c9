"""Whatever fails around a device model, at whichever of its hypercalls: it unwinds, and the guest is not harmed.

What is meant by that: no page is left that traps, no server, channel or mapping; no vCPU waits; the guest's memory is
what the guest stored. The device model may end with a HostError, and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from tests.support.control import handlers_of
from tests.support.faults import Call, counting, fail_nth, lose_domain_at, vanish
from tests.support.tables import FRAME
from tests.support.whole_run import FRAMES, TABLES, HostStep, Outcome, TrackedPort, run
from xengt_dm._core import ffi
from xengt_dm._embedded import lib
from xengt_dm.cli import main
from xengt_dm.control.protocol import RefusedError
from xengt_dm.daemon.recording import Recording
from xengt_dm.errors import DomainGoneError, HostError
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.instance import Instance
from xengt_dm.ioreq import loop
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.stats.counters import read_counters

pytestmark = pytest.mark.slow

FLAVOURS = ("4.17", "v7")
#: How calls that can fail are known to fail; ESRCH is another test.
ERRNOS = (errno.EINVAL, errno.ENOMEM, errno.EBUSY, errno.ENOENT, errno.EAGAIN)
ALL_CALLS = ~Call(0)


def nothing(instance: Instance) -> None:
    pass


def calls_of(flavour: str, sync: Sync, calls: Call, meanwhile: HostStep = nothing, rep_stores: bool = False) -> int:
    with EmbeddedDomain(FRAMES, 2, flavour, rep_stores=rep_stores) as domain, counting(domain, calls) as counted:
        outcome = run(domain, sync, TrackedPort(domain), meanwhile)
        assert (outcome.error, outcome.wrong, domain.dropped_stores) == (None, [], 0)
        assert not any(outcome.left.values())
    return counted[0]


def every_call(
    flavour: str,
    sync: Sync,
    calls: Call,
    arm: Callable[[EmbeddedDomain, int], None],
    meanwhile: HostStep = nothing,
    rep_stores: bool = False,
) -> list[Outcome]:
    """An outcome for each n; outcomes[0] is of the first call."""
    outcomes = []
    for n in range(1, calls_of(flavour, sync, calls, meanwhile, rep_stores) + 1):
        with EmbeddedDomain(FRAMES, 2, flavour, rep_stores=rep_stores) as domain:
            port = TrackedPort(domain)
            arm(domain, n)
            outcome = run(domain, sync, port, meanwhile)
            assert not any(outcome.left.values()), f"call {n}: {outcome}"
            assert outcome.wrong == [], f"call {n}: {outcome}"
            assert domain.crash_reason == ""
            outcomes.append(outcome)
    return outcomes


@pytest.mark.parametrize("number", ERRNOS, ids=[errno.errorcode[number] for number in ERRNOS])
@pytest.mark.parametrize("sync", Sync, ids=[sync.value for sync in Sync])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_call_can_fail(flavour: str, sync: Sync, number: int) -> None:
    def arm(domain: EmbeddedDomain, n: int) -> None:
        fail_nth(domain, n, number, ALL_CALLS)

    outcomes = every_call(flavour, sync, ALL_CALLS, arm)
    assert any(outcome.error is None for outcome in outcomes)
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    assert failed
    assert {error.errno for error in failed} == {number}


@pytest.mark.parametrize("sync", Sync, ids=[sync.value for sync in Sync])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_host_that_stands_still_for_a_while(flavour: str, sync: Sync, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clock goes on, and nothing else; a vCPU in the middle of a store is waited for even so."""
    clock = itertools.count(0, 60)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with EmbeddedDomain(FRAMES, 2, flavour) as domain:
        outcome = run(domain, sync, TrackedPort(domain))
    assert (outcome.error, outcome.wrong) == (None, [])


def quiesce_and_resume(instance: Instance) -> None:
    """What an operator may ask for at any time; that it is refused is no harm."""
    recording = Recording(instance.engine, instance.device, instance.bus, FRAMES)
    commands = handlers_of(instance, recording)
    with contextlib.suppress(RefusedError):
        trio.run(commands["quiesce"], {})
        trio.run(commands["resume"], {})
        trio.run(commands["mode"], {"mode": "relaxed" if instance.engine.sync_mode is Sync.STRICT else "strict"})


@pytest.mark.parametrize("sync", Sync, ids=[sync.value for sync in Sync])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_call_can_fail_when_an_operator_is_at_work(flavour: str, sync: Sync) -> None:
    def arm(domain: EmbeddedDomain, n: int) -> None:
        fail_nth(domain, n, errno.ENOMEM, ALL_CALLS)

    assert len(every_call(flavour, sync, ALL_CALLS, arm, quiesce_and_resume)) > 200


@pytest.mark.parametrize("meanwhile", [nothing, quiesce_and_resume], ids=["alone", "operator"])
@pytest.mark.parametrize("sync", Sync, ids=[sync.value for sync in Sync])
def test_every_call_can_fail_where_a_store_must_end(sync: Sync, meanwhile: HostStep) -> None:
    """How many calls there are depends on when vCPUs take their answers; the guest must live whichever fails."""

    def arm(domain: EmbeddedDomain, n: int) -> None:
        fail_nth(domain, n, errno.EBUSY, ALL_CALLS)

    calls = every_call("4.17", sync, ALL_CALLS, arm, meanwhile, rep_stores=True)
    assert len(calls) > (50 if sync is Sync.RELAXED else 100)  # most stores ask for nothing in relaxed mode


@pytest.mark.parametrize("sync", Sync, ids=[sync.value for sync in Sync])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_domain_can_go_at_every_call(flavour: str, sync: Sync) -> None:
    for n in range(1, calls_of(flavour, sync, ALL_CALLS) + 1):
        with EmbeddedDomain(FRAMES, 2, flavour) as domain:
            port = TrackedPort(domain)
            lose_domain_at(domain, n, ALL_CALLS)
            outcome = run(domain, sync, port)
            assert outcome.error is None or isinstance(outcome.error, DomainGoneError), f"call {n}"
            left = {what: outcome.left[what] for what in ("slots", "mappings", "channels")}
            assert not any(left.values()), f"call {n}: {left}"


#: Steps of the teardown: what is left if one can never be made, and nothing else.
STUCK = {
    "unmap_mmio": set(),
    "release_writes": {"owner"},
    "destroy_server": {"servers", "owner"},
    "unmap_frames": {"mappings"},
}


def stuck(port: TrackedPort, method: str) -> None:
    def fail(*arguments: object) -> None:
        raise HostError(method, port.domid, errno.EIO)

    setattr(port, method, fail)


@pytest.mark.parametrize("sync", Sync, ids=[sync.value for sync in Sync])
@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("method", STUCK)
def test_a_step_of_the_teardown_that_can_never_be_made(method: str, flavour: str, sync: Sync) -> None:
    with EmbeddedDomain(FRAMES, 2, flavour) as domain:
        port = TrackedPort(domain)
        stuck(port, method)
        outcome = run(domain, sync, port)
        left = {what for what, things in outcome.left.items() if things}
        assert left <= STUCK[method]
        if left:
            assert outcome.error is not None
            assert outcome.error.errno == errno.EIO
        assert outcome.wrong == []


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_types_that_can_never_be_changed_back(flavour: str) -> None:
    """All else goes, and the error says how many pages stay; the guest's memory is right even so."""
    with EmbeddedDomain(FRAMES, 2, flavour) as domain:
        port = TrackedPort(domain)
        change = port.set_mem_types

        def only_to_the_trap(mem_type: int, gfns: object, count: int, errors: object) -> int:
            if mem_type:
                return change(mem_type, gfns, count, errors)  # type: ignore[arg-type]
            for i in range(count):
                errors[i] = errno.EBUSY  # type: ignore[index]
            return count

        port.set_mem_types = only_to_the_trap  # type: ignore[assignment,method-assign]
        outcome = run(domain, Sync.STRICT, port)
        left = {what for what, things in outcome.left.items() if things}
        # Releasing the claim resets them all.
        assert left == (set() if flavour == "4.17" else {"protected"})
        assert outcome.error is not None
        assert "stay protected" in str(outcome.error)
        if flavour == "4.17":
            assert outcome.wrong == []


@pytest.mark.parametrize("sync", Sync, ids=[sync.value for sync in Sync])
@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("gfn", TABLES)
def test_a_page_of_the_mapping_can_vanish(gfn: int, flavour: str, sync: Sync) -> None:
    """Touching it is SIGBUS. What the guest stores there goes nowhere, and nothing else is disturbed."""
    seen: dict[str, int] = {}
    with EmbeddedDomain(FRAMES, 2, flavour) as domain:
        port = TrackedPort(domain)
        window = int(ffi.cast("uintptr_t", lib.xd_emb_window(domain.handle)))

        def cut(instance: Instance) -> None:
            vanish(domain, window + gfn * FRAME, 1)
            seen.update(read_counters(instance.stats.counters))

        outcome = run(domain, sync, port, cut)
        assert outcome.error is None
        assert not any(outcome.left.values())
        assert set(outcome.wrong) <= {gfn}
        assert domain.crash_reason == ""
    assert seen["audit_mismatches"] == 0


def test_no_file_is_left_open() -> None:
    def open_files() -> int:
        gc.collect()
        return len([*Path("/proc/self/fd").iterdir()])

    with EmbeddedDomain(FRAMES, 2) as domain:
        before = open_files()
        for n in range(1, calls_of("4.17", Sync.STRICT, ALL_CALLS)):
            port = TrackedPort(domain)
            fail_nth(domain, n, errno.EIO, ALL_CALLS)
            run(domain, Sync.STRICT, port)
            port.close()
            domain.write(0, bytes(FRAMES * FRAME))
        assert open_files() == before


@pytest.mark.parametrize("flavour", ["4.7", "4.9"])
def test_the_demo_says_why_not(flavour: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["demo", "--xen", flavour, "--seconds", "0"])
    assert end.value.code == 69
    assert "run the guest on Xen 4.13 or later" in capsys.readouterr().err


@pytest.mark.parametrize("flavour", ["4.7", "4.9"])
def test_a_xen_that_shows_not_every_store_is_refused(flavour: str) -> None:
    with EmbeddedDomain(FRAMES, 2, flavour) as domain:
        port = TrackedPort(domain)
        outcome = run(domain, Sync.STRICT, port)
        assert outcome.error is not None
        assert outcome.error.exit_code == 69
        assert flavour in str(outcome.error)
        assert "run the guest on Xen 4.13 or later" in str(outcome.error)
        assert not any(outcome.left.values())
