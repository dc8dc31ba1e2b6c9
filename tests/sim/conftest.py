"""Where daemons have their run directories."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    return path
