"""The record of protected frames: what it holds, and that no frame traps at any hypercall that it does not have."""

from __future__ import annotations

import mmap
import random
import tempfile

import pytest
import trio

from tests.support.protected import WatchedPort, new_bitmap
from tests.support.trapping import FRAMES, Setting
from tests.support.whole_run import FRAMES as WHOLE_FRAMES
from tests.support.whole_run import HostStep, run
from xengt_dm import instance as instance_module
from xengt_dm._core import ffi
from xengt_dm.errors import DataError
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.hypervisor.embedded.p2m import P2mType
from xengt_dm.hypervisor.port import WriteTrap
from xengt_dm.instance import Instance
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.steps import complete
from xengt_dm.traps.claim import ClaimTraps
from xengt_dm.traps.protected import ProtectedBitmap
from xengt_dm.traps.ranges import RangeTraps
from xengt_dm.units import PAGE_SIZE


def add(bitmap: ProtectedBitmap, *gfns: int) -> None:
    bitmap.add(ffi.new("uint64_t[]", gfns), len(gfns))


# The bitmap


def test_it_has_what_was_added_and_not_removed() -> None:
    rng = random.Random(1)
    bitmap, model = new_bitmap(1000), set[int]()
    for _ in range(300):
        some = rng.sample(range(1000), rng.choice([1, 2, 64]))
        if rng.random() < 0.6:
            add(bitmap, *some)
            model.update(some)
        else:
            bitmap.remove(some)
            model.difference_update(some)
        assert bitmap.frames() == sorted(model)
    bitmap.clear()
    assert bitmap.frames() == []


def test_a_bit_is_where_the_layout_says() -> None:
    memory = bytearray(32)
    add(ProtectedBitmap(memoryview(memory), 200), 0, 9, 64, 199)
    assert {i for i in range(256) if memory[i // 8] >> i % 8 & 1} == {0, 9, 64, 199}


def test_frames_that_the_domain_cannot_have_are_left_out() -> None:
    memory = bytearray(24)
    bitmap = ProtectedBitmap(memoryview(memory), 130)
    add(bitmap, 129, 130, 191, 192, 1 << 40, (1 << 64) - 1)
    bitmap.remove([130, 192, 1 << 40])
    assert bitmap.frames() == [129]


@pytest.mark.parametrize(("frames", "gfn"), [(130, 130), (130, 191), (128, 128), (1, 191), (1, 1)])
def test_a_bit_beyond_the_frames_is_damage(frames: int, gfn: int) -> None:
    memory = bytearray(24)
    memory[gfn // 8] |= 1 << gfn % 8
    with pytest.raises(DataError, match="1 frames"):
        ProtectedBitmap(memoryview(memory), frames).frames()


def test_memory_that_is_gone_is_damage() -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(2 * PAGE_SIZE)
        bitmap = ProtectedBitmap(memoryview(mmap.mmap(file.fileno(), 2 * PAGE_SIZE)), 16 * PAGE_SIZE)
        add(bitmap, 7)
        assert bitmap.frames() == [7]
        file.truncate(PAGE_SIZE)
        with pytest.raises(DataError, match="not there"):
            bitmap.frames()


def test_memory_of_the_wrong_size() -> None:
    for size, frames in ((8, 65), (12, 64)):
        with pytest.raises(ValueError, match="bytes"):
            ProtectedBitmap(memoryview(bytearray(size)), frames)


# The traps


def stop(instance: Instance) -> None:
    """Nothing is done between the steps."""


def quiesce_and_resume(instance: Instance) -> None:
    trio.run(instance.quiesce)
    assert instance.server.port.bitmap.frames() == []  # type: ignore[attr-defined]
    trio.run(instance.resume)


@pytest.mark.parametrize("sync", list(Sync))
@pytest.mark.parametrize(("xen", "rep_stores"), [("4.17", False), ("4.17", True), ("v7", False)])
@pytest.mark.parametrize("meanwhile", [stop, quiesce_and_resume])
def test_every_frame_that_traps_is_recorded_at_each_hypercall(
    xen: str, rep_stores: bool, sync: Sync, meanwhile: HostStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Port(WatchedPort):
        def left(self) -> dict[str, object]:
            return {}

    with EmbeddedDomain(WHOLE_FRAMES, 2, xen, rep_stores=rep_stores) as domain:
        port = Port(domain)
        made = {
            WriteTrap.CLAIM: lambda *most: ClaimTraps(*most[:-1], port.bitmap),
            WriteTrap.RANGES: lambda *most: RangeTraps(*most[:-1], port.bitmap),
        }
        for kind, make in made.items():
            monkeypatch.setitem(instance_module.WRITE_TRAPS, kind, make)  # type: ignore[arg-type]
        outcome = run(domain, sync, port, meanwhile)  # type: ignore[arg-type]
        assert (outcome.error, outcome.wrong) == (None, [])
        assert port.looks > 60
        assert domain.protected() == []
        assert port.bitmap.frames() == []


# A successor


@pytest.fixture(params=["4.17", "v7"])
def any_kind(request: pytest.FixtureRequest) -> Setting:
    return Setting(request.param)


def test_a_successor_adopts_what_is_recorded_and_unprotects_the_rest(any_kind: Setting) -> None:
    any_kind.protect(*range(5, 205))
    any_kind.succeed()
    assert any_kind.traps.protected == set(range(5, 205))
    assert any_kind.protect(6, 7, 300) == [0, 0, 0]
    slices = 0
    for _ in any_kind.traps.unprotect_adopted():
        slices += 1
        any_kind.traps.check()
    assert slices == 4
    assert any_kind.domain.protected() == [6, 7, 300] == sorted(any_kind.traps.protected)
    assert any_kind.protected.frames() == [6, 7, 300]
    any_kind.traps.drop_guard_ranges()
    assert any_kind.ranges() == (0 if any_kind.domain.flavour.claim else 2)


def test_deferred_unprotects_leave_adopted_ones_alone(any_kind: Setting) -> None:
    any_kind.protect(5)
    any_kind.succeed()
    assert any_kind.traps.unprotect_deferred()
    assert any_kind.domain.protected() == [5]


def test_frames_that_are_recorded_and_do_not_trap(any_kind: Setting) -> None:
    """The predecessor died between the record and the type, or the guest took a frame, or has another page in it."""
    any_kind.protect(5, 6, 7, 8, 9)
    any_kind.remove(6)
    any_kind.remove(7)
    for gfn in (8, 9):
        any_kind.domain.set_type(gfn, 1, P2mType.RAM_RW)
    any_kind.succeed()
    assert any_kind.protect(5, 8) == [0, 0]
    assert any_kind.domain.protected() == [5, 8]
    complete(any_kind.traps.unprotect_adopted())
    assert any_kind.domain.protected() == [5, 8] == any_kind.protected.frames()
    assert any_kind.traps.vanished == 2


def test_a_store_in_flight_defers_the_unprotecting_of_what_was_adopted() -> None:
    setting = Setting("4.17", rep_stores=True)
    setting.protect(5, 8)
    setting.slots.unfinished = {5, FRAMES + 7}
    setting.succeed()
    setting.traps.protect_in_flight()
    complete(setting.traps.unprotect_adopted())
    assert setting.domain.protected() == [5] == setting.protected.frames()
    setting.slots.unfinished = set()
    assert setting.traps.unprotect_deferred()
    assert setting.domain.protected() == []


def test_a_released_claim_leaves_nothing_recorded() -> None:
    setting = Setting("4.17")
    setting.protect(5, 6)
    setting.port.release_writes(setting.server)
    setting.traps.claim_released()
    assert setting.protected.frames() == []
    assert setting.traps.protected == set()
    setting.unprotect(5, 6)
