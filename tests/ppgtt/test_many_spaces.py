"""Work on every live space, of which a guest may have thousands: no slice is about more than one of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from tests.support.engine_bench import EngineBench
from tests.support.tables import pte
from xengt_dm.ppgtt.engine import Engine, Sync
from xengt_dm.ppgtt.space import Mode
from xengt_dm.steps import Steps, complete

DIRECTORIES = range(1, 5)
SPACES = [*product((gfn << 12 for gfn in DIRECTORIES), repeat=4)]


def engine_with_spaces(sync: Sync) -> Engine:
    """They share all of their tables, so none of them has any to create or to free."""
    guest = EngineBench(64)
    for gfn in DIRECTORIES:
        guest.put(gfn, 0, pte(10 + gfn))
    engine: Any = guest.make_engine(sync=sync).steps
    for roots in SPACES:
        complete(engine.create_space(Mode.L3, roots))
    return engine


@pytest.mark.parametrize(
    "work",
    [
        lambda engine: engine.quiesce(),
        lambda engine: engine.forget_all_spaces(),
    ],
    ids=["quiesce", "the end"],
)
@pytest.mark.parametrize("sync", Sync)
def test_there_is_a_slice_for_each_space(work: Callable[[Engine], Steps[None]], sync: Sync) -> None:
    engine = engine_with_spaces(sync)
    assert sum(1 for _ in work(engine)) >= len(SPACES)
    assert engine.check() == []
    engine.close()


def test_a_resume_has_a_slice_for_each_space() -> None:
    engine = engine_with_spaces(Sync.STRICT)
    complete(engine.quiesce())
    assert sum(1 for _ in engine.resume()) >= len(SPACES)
    assert engine.check() == []
    engine.close()


def test_spaces_by_their_roots() -> None:
    engine = engine_with_spaces(Sync.STRICT)
    assert [space.roots for space in engine.spaces] == sorted(SPACES)
    space = engine.space(SPACES[7])
    assert space is not None
    assert space.roots == SPACES[7]
    assert engine.space((0x1000,)) is None
    engine.close()
