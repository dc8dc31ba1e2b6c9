"""States of earlier versions. Each file in ``previous`` is one that a daemon of that version left."""

from __future__ import annotations

import errno
import gzip
import os
import struct
from pathlib import Path

import pytest

from tests.state.test_file import DOMID, ME, refused
from xengt_dm.state.buffer import HEADER_SIZE
from xengt_dm.state.file import FILE_NAME, open_state
from xengt_dm.state.layout import VERSION
from xengt_dm.units import PAGE_SIZE


def previous(version: int, directory: Path) -> bytes:
    """Leave the file of that version in a run directory. Returns what is in it."""
    data = gzip.decompress((Path(__file__).parent / "previous" / f"version-{version}.gz").read_bytes())
    assert struct.unpack_from("<8sI", data) == (b"xdmState", version)
    file = directory / FILE_NAME
    file.write_bytes(data)
    file.chmod(0o600)
    return data


def test_version_1_is_refused(tmp_path: Path) -> None:
    """It knew the device alone, and there is no way to convert it: it counts as none."""
    previous(1, tmp_path)
    assert refused(tmp_path) == f"a state of version 1; this program has version {VERSION}"


def converted(directory: Path, before: bytes) -> None:
    """Read a state of version 2 of domain 1: nothing in it is lost, and it is of this version now."""
    for _ in range(2):  # the second time it need not be converted
        with open_state(directory, 1, ME) as file:
            state = file.read(struct.unpack_from("<Q", before, 24)[0])
            assert (file.problem, state is None) == (None, False)
            assert state is not None
            assert state.header.version == VERSION
            assert struct.unpack_from("<3Q", before, 40) == struct.unpack_from("<3Q", state.memory, 40)  # of whom it is
            assert state.memory[HEADER_SIZE : len(before)] == before[HEADER_SIZE:]
            assert not any(state.memory[len(before) :])
    assert [path.name for path in directory.iterdir()] == [FILE_NAME]
    assert (directory / FILE_NAME).stat().st_size == state.header.size == len(before) + 4 * PAGE_SIZE


def test_version_2_is_converted(tmp_path: Path) -> None:
    converted(tmp_path, previous(2, tmp_path))


@pytest.mark.parametrize("call", ["ftruncate", "posix_fallocate", "replace"])
def test_a_successor_that_dies_in_the_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The next one finds what the first one found."""

    class Killed(BaseException):
        pass

    def kill(*words: object, **more: object) -> None:
        raise Killed

    before = previous(2, tmp_path)
    with monkeypatch.context() as patched, open_state(tmp_path, 1, ME) as file:
        patched.setattr(os, call, kill)
        with pytest.raises(Killed):
            file.read(struct.unpack_from("<Q", before, 24)[0])
    converted(tmp_path, before)


def test_a_conversion_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*words: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = previous(2, tmp_path)
    with monkeypatch.context() as patched, open_state(tmp_path, 1, ME) as file:
        patched.setattr(os, "posix_fallocate", full)
        assert file.read(struct.unpack_from("<Q", before, 24)[0]) is None
        assert file.problem == "a state of version 2, not converted: No space left on device"
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize(
    ("at", "value", "problem"),
    [
        (8, VERSION, "bytes; one of these capacities has"),
        (16, PAGE_SIZE, "a state of 4096 bytes; one of these capacities has"),
        (24, 1 << 63, "which no instance has"),
        (40, DOMID + 1, "a state of domain 8"),
    ],
)
def test_a_state_of_version_2_that_is_not_believed(tmp_path: Path, at: int, value: int, problem: str) -> None:
    data = bytearray(previous(2, tmp_path))
    struct.pack_into("<Q", data, at, value)
    (tmp_path / FILE_NAME).write_bytes(data)
    assert problem in refused(tmp_path)
