"""The file with the server's id: what a daemon leaves for its successor, and what it makes of what others left."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from xengt_dm.errors import HostError
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


UUID = "0f8a3c1e-0000-4000-8000-00000000000a"
OTHER = "0f8a3c1e-0000-4000-8000-00000000000b"


def test_a_record_names_the_domain_that_it_is_for(tmp_path: Path) -> None:
    ServerIdFile(tmp_path, UUID).write(3)
    assert (tmp_path / "server-id").read_text() == f"3 {UUID}\n"
    for uuid, server, another in ((UUID, 3, False), (None, 3, False), (OTHER, None, True)):
        assert ServerIdFile(tmp_path, uuid).read() == server
        assert ServerIdFile(tmp_path, uuid).is_of_another_domain() is another


def test_a_record_without_a_uuid_is_believed(tmp_path: Path) -> None:
    """Where xenstore has no uuid of the domain, and from a daemon of before there was one in it."""
    ServerIdFile(tmp_path).write(3)
    assert ServerIdFile(tmp_path, UUID).read() == 3
    assert not ServerIdFile(tmp_path, UUID).is_of_another_domain()
    (tmp_path / "server-id").unlink()
    assert not ServerIdFile(tmp_path, UUID).is_of_another_domain()


@pytest.mark.parametrize(
    "tail", [" ", f" {UUID} ", f"  {UUID}", f" {UUID.upper()}", f" {UUID[:-1]}", f"\n{UUID}", "\n\n"]
)
def test_records_that_are_no_record(tmp_path: Path, tail: str) -> None:
    (tmp_path / "server-id").write_text(f"3{tail}")
    assert ServerIdFile(tmp_path, UUID).read() is None


def test_what_a_daemon_may_put_in_its_place_is_not_followed_and_not_waited_for(tmp_path: Path) -> None:
    """The directory belongs to the daemon's user, and root reads it."""
    ServerIdFile(tmp_path).write(3)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "server-id").symlink_to(tmp_path / "server-id")
    assert ServerIdFile(tmp_path / "mine").read() is None
    (tmp_path / "mine" / "server-id").unlink()
    os.mkfifo(tmp_path / "mine" / "server-id")
    assert ServerIdFile(tmp_path / "mine").read() is None


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    record = ServerIdFile(tmp_path)
    record.write(3)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(HostError, match=r"write .*/server-id: ENOSPC"):
            record.write(4)
    assert [path.name for path in tmp_path.iterdir()] == ["server-id"]
    assert record.read() == 3
