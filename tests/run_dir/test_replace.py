"""What is at the name of a file that a daemon makes is taken away, whatever it is, and neither opened nor followed."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from xengt_dm.run_dir.directory import remove_directory
from xengt_dm.run_dir.ranges import RangesFile
from xengt_dm.run_dir.replace import make, put, take_away
from xengt_dm.run_dir.server_id import ServerIdFile
from xengt_dm.stats.page import StatsPage, copy_page


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


KINDS: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "FIFO": os.mkfifo,
    "directory": Path.mkdir,
    "full directory": lambda path: (path / "deeper").mkdir(parents=True),
    "link to itself": lambda path: path.symlink_to(path),
    "link to nowhere": lambda path: path.symlink_to("/nonexistent/x"),
    "link to a file": lambda path: path.symlink_to(path.parent / "precious"),
    "socket": _socket,
    "empty file": Path.touch,
    "file that nobody may open": lambda path: path.touch(0),
    "sparse file": _sparse,
}
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "precious").write_text("as it was")
    return tmp_path / "7"


def only(directory: Path, *names: str) -> None:
    """Nothing else is left, but a directory that was renamed."""
    left = {path.name for path in directory.iterdir() if not path.name.endswith(".in-the-way")}
    assert left == {"precious", *names}
    assert (directory / "precious").read_text() == "as it was"


@kinds
def test_a_file_is_made_and_renamed(directory: Path, kind: str) -> None:
    for name in ("new", "file"):
        KINDS[kind](directory / name)
    descriptor = make(directory / "new", 0o640)
    os.write(descriptor, b"content")
    os.close(descriptor)
    put(directory / "new", directory / "file")
    only(directory, "file")
    assert (directory / "file").read_text() == "content"
    assert stat.S_IMODE((directory / "file").stat().st_mode) == 0o640
    take_away(directory / "file")
    only(directory)


@kinds
def test_the_records_of_a_daemon(directory: Path, kind: str) -> None:
    for name in ("server-id", "server-id.new", "ranges", "stats", "stats.new"):
        KINDS[kind](directory / name)
    record = ServerIdFile(directory)
    assert record.read() is None
    record.write(3)
    assert record.read() == 3
    RangesFile(directory).clear()
    StatsPage(directory, 7)
    assert copy_page(directory / "stats").domid == 7
    only(directory, "server-id", "stats")
    record.clear()
    only(directory, "stats")


def test_what_was_in_the_way_is_removed_with_the_directory(directory: Path) -> None:
    for _ in range(3):
        KINDS["full directory"](directory / "file")
        take_away(directory / "file")
    assert remove_directory(directory.parent, 7) == [
        ".0.in-the-way",
        ".1.in-the-way",
        ".2.in-the-way",
        "precious",
    ]
    assert not directory.exists()
