"""The run directory: its name, its mode, and what is said when it cannot be made."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from xengt_dm.errors import ExitCode, HostError
from xengt_dm.run_dir.directory import open_directory


def test_a_directory_for_its_user_alone(tmp_path: Path) -> None:
    made = open_directory(tmp_path / "run", 5)
    assert made == tmp_path / "run" / "5"
    assert made.stat().st_mode & 0o777 == 0o700
    assert open_directory(tmp_path / "run", 5) == made


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    """The message names it; the exit status is that of something that is not there."""
    (tmp_path / "run").write_text("a file")
    with pytest.raises(HostError, match=str(tmp_path / "run" / "5")) as caught:
        open_directory(tmp_path / "run", 5)
    assert caught.value.errno == errno.ENOTDIR
    assert caught.value.exit_code == ExitCode.UNAVAILABLE
