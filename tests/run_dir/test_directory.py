"""The run directory: what a daemon leaves for its successor, and what it makes of what others left."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from xengt_dm._core import ffi
from xengt_dm.errors import ExitCode, HostError
from xengt_dm.run_dir.directory import ServerIdFile, open_directory, read_counters


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


@pytest.mark.parametrize("server", [0, 1, 65535])
def test_an_id_reads_back(tmp_path: Path, server: int) -> None:
    record = ServerIdFile(tmp_path)
    assert record.read() is None
    record.write(server)
    assert ServerIdFile(tmp_path).read() == server
    assert (tmp_path / "server-id").read_text() == f"{server}\n"
    record.clear()
    assert record.read() is None
    record.clear()


def test_writing_replaces(tmp_path: Path) -> None:
    """Whole or not at all: never is there a file that is half written under that name."""
    record = ServerIdFile(tmp_path)
    record.write(12345)
    before = os.stat(tmp_path / "server-id").st_ino
    record.write(7)
    assert record.read() == 7
    assert os.stat(tmp_path / "server-id").st_ino != before
    assert [path.name for path in tmp_path.iterdir()] == ["server-id"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"x\n",
        b"-1\n",
        b"65536\n",
        b"1 2\n",
        b"0x1\n",
        b"1.0",
        b"\xff\xfe\n",
        "\u0663\n".encode(),
        b"9" * 5000,
    ],
)
def test_files_that_hold_no_id(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "server-id").write_bytes(content)
    assert ServerIdFile(tmp_path).read() is None


def test_a_directory_in_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "server-id").mkdir()
    assert ServerIdFile(tmp_path).read() is None


def test_counters_by_name() -> None:
    counters = ffi.new("xd_counters *", {"store_traps": 3, "mmio_traps": 4, "audits": 9})
    named = read_counters(counters)
    assert (named["traps"], named["store_traps"], named["mmio_traps"], named["audits"]) == (7, 3, 4, 9)
    assert all(isinstance(value, int) for value in named.values())
