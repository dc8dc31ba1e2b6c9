"""The file with the server's id: what a daemon leaves for its successor, and what it makes of what others left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xengt_dm.run_dir.server_id import ServerIdFile


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
