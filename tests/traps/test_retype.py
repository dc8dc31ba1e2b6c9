"""Type changes that Xen refuses: which are tried a second time, and that every part of the traps does so."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from tests.support.faults import Call, fail_nth
from tests.support.trapping import Setting
from xengt_dm._core import ffi
from xengt_dm.hypervisor.port import MemType
from xengt_dm.traps.retype import set_types, set_types_in_place
from xengt_dm.units import CData

TRANSIENT = (errno.EBUSY, errno.EAGAIN, errno.ENOMEM)
NAMES = [errno.errorcode[number] for number in TRANSIENT]


@pytest.fixture(params=["4.17", "v7"])
def any_kind(request: pytest.FixtureRequest) -> Iterator[Setting]:
    setting = Setting(request.param)
    with setting.domain:
        yield setting


@pytest.mark.parametrize("error", TRANSIENT, ids=NAMES)
def test_protecting_is_tried_a_second_time(any_kind: Setting, error: int) -> None:
    fail_nth(any_kind.domain, 2, error, Call.SET_MEM_TYPE)
    assert any_kind.protect(5, 6, 7) == [0, 0, 0]
    assert [call for call in any_kind.taken() if call[0] == "trap"] == [("trap", gfn) for gfn in (5, 6, 7, 6)]
    assert any_kind.domain.protected() == [5, 6, 7]


@pytest.mark.parametrize("error", TRANSIENT, ids=NAMES)
def test_resyncing_is_tried_a_second_time(any_kind: Setting, error: int) -> None:
    any_kind.protect(5)
    assert any_kind.unsync(5)
    fail_nth(any_kind.domain, 1, error, Call.SET_MEM_TYPE)
    assert any_kind.resync(5) == [0]


@pytest.mark.parametrize("error", [*TRANSIENT, errno.EINVAL], ids=[*NAMES, "EINVAL"])
def test_unprotecting_is_tried_a_second_time(any_kind: Setting, error: int) -> None:
    any_kind.protect(5, 6)
    fail_nth(any_kind.domain, 1, error, Call.SET_MEM_TYPE)
    any_kind.unprotect(5, 6)
    assert any_kind.domain.protected() == []
    assert any_kind.traps.vanished == 0


def test_a_frame_that_is_no_ram_costs_one_call(any_kind: Setting) -> None:
    any_kind.remove(6)
    assert any_kind.protect(5, 6) == [0, errno.EINVAL]
    assert [call for call in any_kind.taken() if call[0] == "trap"] == [("trap", 5), ("trap", 6)]


def test_there_is_no_third_try(any_kind: Setting) -> None:
    calls: list[list[int]] = []

    def refuse(mem_type: MemType, gfns: CData, count: int, errors: CData) -> int:
        calls.append(ffi.unpack(gfns, count))
        for i in range(count):
            errors[i] = errno.EBUSY if gfns[i] % 2 else 0
        return sum(gfns[i] % 2 for i in range(count))

    any_kind.port.set_mem_types = refuse  # type: ignore[method-assign]
    errors = ffi.new("int[]", 4)
    gfns = ffi.new("uint64_t[]", [4, 5, 6, 7])
    assert set_types_in_place(any_kind.port, MemType.RAM_RW, gfns, 4, errors) == 2
    assert [*errors] == [0, errno.EBUSY, 0, errno.EBUSY]
    assert calls == [[4, 5, 6, 7], [5, 7]]


def test_no_frames_are_no_call(any_kind: Setting) -> None:
    any_kind.taken()
    assert set_types(any_kind.port, MemType.RAM_RW, []) == []
    assert any_kind.taken() == []
