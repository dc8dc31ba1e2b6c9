"""The run directory: its name, its mode, and what is said when it cannot be made."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from xengt_dm.errors import ExitCode, HostError
from xengt_dm.run_dir import directory as directory_module
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


def nested(directory: Path, levels: int, name: str = "d") -> None:
    """Makes a directory in a directory and so on, more than a path can name."""
    above = os.open(directory, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=above)
        inner = os.open(name, os.O_RDONLY, dir_fd=above)
        os.close(os.open("file", os.O_CREAT, dir_fd=inner))
        os.close(above)
        above = inner
    os.close(above)


@pytest.mark.parametrize("name", ["d", "d" * 255, ".0.removed"])
def test_directories_nested_deep_are_removed(tmp_path: Path, name: str) -> None:
    """More levels than Python has calls, or a process descriptors. The user of a daemon may leave anything behind."""
    directory = open_directory(tmp_path, 5)
    nested(directory, 1500, name)
    (directory / "2").mkdir()
    (directory / "2" / ".1.removed").mkdir()
    nested(directory / "2" / ".1.removed", 20)
    assert remove_directory(tmp_path, 5) == sorted(["2", name])
    assert not directory.exists()


def test_a_daemon_removes_its_own_files_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And another command removes the directory itself."""
    directory = open_directory(tmp_path, 7)
    for name in ("state", "stats"):
        (directory / name).touch()
    unlink, rmdir = os.unlink, Path.rmdir

    def unlink_twice(name: str, *, dir_fd: int) -> None:
        unlink(name, dir_fd=dir_fd)
        unlink(name, dir_fd=dir_fd)

    def rmdir_twice(path: Path) -> None:
        rmdir(path)
        rmdir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink_twice)
        patch.setattr(Path, "rmdir", rmdir_twice)
        assert remove_directory(tmp_path, 7) == ["state", "stats"]
    assert not directory.exists()


def test_a_directory_that_somebody_goes_on_to_fill_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = open_directory(tmp_path, 5)
    (directory / "first").touch()
    unlink, seconds = os.unlink, [0.0]

    def refill(name: str, *, dir_fd: int) -> None:
        unlink(name, dir_fd=dir_fd)
        (directory / f"{name[:5]}{seconds[0]}").touch()
        seconds[0] += 1

    monkeypatch.setattr(os, "unlink", refill)
    monkeypatch.setattr(directory_module, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    with pytest.raises(HostError, match=r"remove .*/5.*: ETIMEDOUT"):
        remove_directory(tmp_path, 5)
    assert seconds[0] == pytest.approx(directory_module.REMOVE_SECONDS, abs=2)
