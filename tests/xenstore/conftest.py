"""A client of a xenstored that is a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.xenstored import Answer, Daemon
from xengt_dm.xenstore import XenStore


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose path is short enough for a socket's address."""
    return tmp_path_factory.mktemp("xs")


@pytest.fixture
def start(place: Path) -> Iterator[Callable[..., tuple[XenStore, Daemon]]]:
    opened: list[tuple[XenStore, Daemon]] = []

    def begin(answer: Answer, *, piece: int = 1 << 20, timeout: float = 10.0) -> tuple[XenStore, Daemon]:
        daemon = Daemon(place / "socket", answer, piece)
        store = XenStore(place / "socket", place / "none", timeout)
        opened.append((store, daemon))
        return opened[-1]

    yield begin
    for store, daemon in opened:
        store.close()
        daemon.close()
