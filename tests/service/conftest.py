"""A host with stand-ins for xl and the starter of instances."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.toolstack import XlHost
from tests.support.watched import WatchedHost
from xengt_dm.service import instances


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where options for starts are kept."""
    folder = tmp_path / "launch"
    for function in (
        instances.remember,
        instances.remember_words,
        instances.remembered,
        instances.launch_of,
        instances.forget,
        instances.forget_others,
    ):
        defaults = tuple(folder if each == instances.LAUNCH else each for each in function.__defaults__ or ())
        monkeypatch.setattr(function, "__defaults__", defaults)
    return folder


@pytest.fixture
def host(tmp_path: Path, launch: Path) -> XlHost:
    return XlHost(tmp_path)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[WatchedHost]:
    made = WatchedHost(tmp_path)
    yield made
    for each in made.holds.values():
        each.set()
    made.close()
