"""The run directory: its name, its mode, and what is said when it cannot be made."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from xengt_dm.errors import ExitCode, HostError
from xengt_dm.run_dir.directory import instance_domids, open_directory, remove_directory


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


def test_which_domains_have_a_directory(tmp_path: Path) -> None:
    assert instance_domids(tmp_path / "none") == []
    for name in (
        "7",
        "10",
        "0",
        "32751",
        "launch",
        "32752",
        "007",
        "+7",
        "7.new",
        "9" * 200,
        "\N{ARABIC-INDIC DIGIT SEVEN}",
    ):
        (tmp_path / name).mkdir()
    assert instance_domids(tmp_path) == [0, 7, 10, 32751]
    with pytest.raises(OSError, match="Not a directory"):
        instance_domids(Path("/dev/null"))


def test_removing_a_directory(tmp_path: Path) -> None:
    assert remove_directory(tmp_path, 5) == []
    directory = open_directory(tmp_path, 5)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (directory / "b").symlink_to(tmp_path / "kept")
    (directory / "a").mkdir()
    (directory / "a" / "inner").touch()
    assert remove_directory(tmp_path, 5) == ["a", "b"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "kept"]


def test_a_directory_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "5").symlink_to(tmp_path / "kept")
    with pytest.raises(HostError, match=r"remove .*/5"):
        remove_directory(tmp_path, 5)
    assert (tmp_path / "kept" / "file").exists()
