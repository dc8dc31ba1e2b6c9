"""Where daemons have their run directories, and a sim for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sim import Console, SimProcess


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def scripted_sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimProcess]:
    with SimProcess(tmp_path_factory.mktemp("sim"), "--guest", "scripted", "--frames", "64") as sim:
        yield sim
        assert sim.end() == (0, "")


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[SimProcess]:
    with SimProcess(tmp_path / "sim", "--guest", "scripted") as process:
        yield process


@pytest.fixture
def console(sim: SimProcess) -> Iterator[Console]:
    with sim.console() as opened:
        yield opened


@pytest.fixture
def directory(base: Path) -> Path:
    return base / "1"
