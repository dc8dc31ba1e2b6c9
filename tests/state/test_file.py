"""The file of the state: what a successor believes, and what it does with anything else that it finds."""

from __future__ import annotations

import errno
import mmap
import os
import random
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from xengt_dm.errors import BusyError, HostError
from xengt_dm.state.buffer import State
from xengt_dm.state.file import FILE_NAME, StateFile, open_state, problem_of
from xengt_dm.state.layout import VERSION, Capacities, Layout
from xengt_dm.units import PAGE_SIZE

DOMID = 7
FRAMES = 64
CAPACITIES = Capacities(frames=FRAMES, spaces=3)
SIZE = Layout(CAPACITIES).size
UUID = "0a0b0c0d-1111-2222-3333-444444444444"
OTHER = "0a0b0c0d-1111-2222-3333-444444444445"
ME = (os.geteuid(),)


def opened(directory: Path, uuid: str | None = UUID) -> StateFile:
    return open_state(directory, DOMID, ME, uuid)


def made(directory: Path, uuid: str | None = UUID) -> Path:
    """A file that a predecessor left, with a word that is not 0."""
    with opened(directory, uuid) as file:
        state = file.create(CAPACITIES)
        state.is_of(3)
        state.life.relaxed = True
    return directory / FILE_NAME


def found(directory: Path, frames: int = FRAMES, uuid: str | None = UUID) -> tuple[State | None, str | None]:
    """What a successor reads, and why it does not if it does not."""
    with opened(directory, uuid) as file:
        state = file.read(frames)
        return state, file.problem


def refused(directory: Path) -> str:
    """Why a successor does not believe what is there. It starts with a state of its own, which the next believes."""
    with opened(directory) as file:
        assert file.read(FRAMES) is None
        problem = file.problem
        assert problem is not None
        fresh = file.create(CAPACITIES)
        assert not fresh.life.relaxed
        fresh.is_of(4)
    state, now = found(directory)
    assert now is None
    assert state is not None
    assert state.server == 4
    assert {path.name for path in directory.iterdir()} <= {FILE_NAME, ".0.in-the-way"}
    return problem


def test_a_successor_finds_what_was_stored(tmp_path: Path) -> None:
    file = made(tmp_path)
    about = file.stat()
    assert (about.st_size, stat.S_IMODE(about.st_mode)) == (SIZE, 0o600)
    state, problem = found(tmp_path)
    assert problem is None
    assert state is not None
    assert (state.server, state.life.relaxed) == (3, True)
    state.device[-1] = 9  # through the file
    again, _ = found(tmp_path)
    assert again is not None
    assert again.device[-1] == 9


def test_there_is_none(tmp_path: Path) -> None:
    assert found(tmp_path) == (None, None)
    with opened(tmp_path) as file:
        file.remove()


def test_it_is_removed(tmp_path: Path) -> None:
    made(tmp_path)
    with opened(tmp_path) as file:
        file.remove()
        file.remove()
    assert found(tmp_path) == (None, None)
    assert [*tmp_path.iterdir()] == []


def test_somebody_else_removes_it_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watcher does, when a domain is gone; here, between the look and the removal."""
    made(tmp_path)

    def look_and_remove(path: str, **_: object) -> os.stat_result:
        about = os.lstat(tmp_path / path)
        (tmp_path / path).unlink()
        return about

    with opened(tmp_path) as file, monkeypatch.context() as patch:
        patch.setattr(os, "stat", look_and_remove)
        file.remove()
    assert [*tmp_path.iterdir()] == []


def test_all_that_is_touched_is_reserved_and_nothing_else(tmp_path: Path) -> None:
    file = made(tmp_path)
    layout = Layout(CAPACITIES)
    reserved = sum(region.size for region in layout.reserved())
    assert reserved <= file.stat().st_blocks * 512 < layout.size


@pytest.mark.parametrize(("ours", "theirs"), [(None, UUID), (UUID, None), (None, None)])
def test_a_uuid_that_is_not_known_is_none_to_differ(tmp_path: Path, ours: str | None, theirs: str | None) -> None:
    made(tmp_path, theirs)
    assert found(tmp_path, uuid=ours)[0] is not None


# What is not believed


@pytest.mark.parametrize(
    ("at", "value", "problem"),
    [
        (0, 0, "no state: it begins with 0x0"),
        (8, VERSION + 1, f"a state of version {VERSION + 1}"),
        (16, SIZE + PAGE_SIZE, f"a state of {SIZE + PAGE_SIZE} bytes; one of these capacities has {SIZE}"),
        (24, FRAMES + 1, "a state for 65 frames; the domain has 64"),
        (24, 1 << 63, "which no instance has"),
        (32, 65, f"a state of {SIZE} bytes; one of these"),
        (40, DOMID + 1, "a state of domain 8"),
        (48, 1, "a state of an earlier domain with this id"),
    ],
)
def test_another_header(tmp_path: Path, at: int, value: int, problem: str) -> None:
    file = made(tmp_path)
    with file.open("r+b") as writer:
        writer.seek(at)
        writer.write(struct.pack("<Q", value))
    assert problem in refused(tmp_path)


def test_of_an_earlier_domain(tmp_path: Path) -> None:
    made(tmp_path, OTHER)
    assert refused(tmp_path) == "a state of an earlier domain with this id"


@pytest.mark.parametrize("size", [0, 1, PAGE_SIZE, SIZE - PAGE_SIZE, SIZE - 1, SIZE + 1, SIZE + PAGE_SIZE, 1 << 40])
def test_another_size(tmp_path: Path, size: int) -> None:
    file = made(tmp_path)
    os.truncate(file, size)
    assert "bytes" in refused(tmp_path)


def test_a_hole_is_filled(tmp_path: Path) -> None:
    """It was cut and made longer again: of the right size, but without memory."""
    file = made(tmp_path)
    os.truncate(file, SIZE - PAGE_SIZE)
    os.truncate(file, SIZE)
    state, problem = found(tmp_path)
    assert (state is None, problem) == (False, None)
    assert file.stat().st_blocks * 512 >= sum(region.size for region in Layout(CAPACITIES).reserved())


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes(tmp_path: Path, seed: int) -> None:
    """Anywhere, with a header that is right or not."""
    file = made(tmp_path)
    noise = random.Random(seed)
    with file.open("r+b") as writer:
        writer.seek(noise.choice([0, 16]))
        writer.write(noise.randbytes(PAGE_SIZE))
    assert refused(tmp_path)


def _symlink(file: Path) -> None:
    file.rename(file.parent.parent / "elsewhere")
    file.symlink_to(file.parent.parent / "elsewhere")


def _hard_link(file: Path) -> None:
    os.link(file, file.parent.parent / "elsewhere")


def _instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def put(file: Path) -> None:
        file.unlink()
        make(file)

    return put


def _socket(file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(file))


def _directory(file: Path) -> None:
    (file / "deeper").mkdir(parents=True)
    (file / "deeper" / "file").touch()


@pytest.mark.parametrize(
    ("put", "problem"),
    [
        (_symlink, "it is a symbolic link"),
        (_instead(lambda file: file.symlink_to("/nowhere")), "it is a symbolic link"),
        (_instead(os.mkfifo), "it is a FIFO"),
        (_instead(_socket), "it is a socket"),
        (_instead(_directory), "it is a directory"),
        (_hard_link, "it has 2 links"),
        (lambda file: file.chmod(0o640), "others may use it: its mode is 0640"),
        (lambda file: file.chmod(0o602), "others may use it: its mode is 0602"),
    ],
)
def test_another_kind_of_file(tmp_path: Path, put: Callable[[Path], None], problem: str) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    put(made(directory))
    elsewhere = tmp_path / "elsewhere"
    before = elsewhere.read_bytes() if elsewhere.exists() else None
    assert refused(directory) == problem
    if before is not None:
        assert elsewhere.read_bytes() == before


def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    file = made(tmp_path)
    about = file.stat()
    assert problem_of(about, ME) is None
    assert problem_of(about, (0, about.st_uid)) is None
    assert problem_of(about, (about.st_uid + 1,)) == f"it belongs to user {about.st_uid}"
    with open_state(tmp_path, DOMID, (about.st_uid + 1,)) as opened:
        assert opened.read(FRAMES) is None
        assert opened.problem == f"it belongs to user {about.st_uid}"


def test_a_directory_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(HostError) as caught:
        open_state(tmp_path / "link", DOMID, ME)
    assert caught.value.errno == errno.ENOTDIR


@pytest.mark.parametrize("left", [0, PAGE_SIZE, 2 * PAGE_SIZE])
def test_cut_after_it_was_mapped(tmp_path: Path, left: int) -> None:
    made(tmp_path)
    with opened(tmp_path) as file:
        os.truncate(tmp_path / FILE_NAME, left)
        assert file.read(FRAMES) is None
        assert file.problem == "it was cut while it was read"
    assert "bytes" in refused(tmp_path)


def test_cut_between_two_looks_at_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = made(tmp_path)

    def mapped(descriptor: int, size: int) -> mmap.mmap:
        os.truncate(file, 0)
        return original(descriptor, size)

    original = mmap.mmap
    monkeypatch.setattr(mmap, "mmap", mapped)
    with opened(tmp_path) as left:
        monkeypatch.undo()
        assert left.read(FRAMES) is None
        assert "cannot be mapped" in str(left.problem)


CUT = """
import os, pathlib, sys
from xengt_dm.state.file import open_state
from xengt_dm.state.layout import Capacities

directory = pathlib.Path(sys.argv[1])
file = open_state(directory, 7, (os.geteuid(),))
state = file.read(64) or file.create(Capacities(64, 3))
state.is_of(3)
print(file.problem, flush=True)
sys.stdin.readline()
state.device[0] = 1
print("stored", flush=True)
"""


def test_a_daemon_whose_file_is_cut_dies_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CUT, str(tmp_path)]
    said = []
    for cut in (True, False):
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as daemon:
            assert daemon.stdout is not None
            said.append(daemon.stdout.readline().strip())
            if cut:
                os.truncate(tmp_path / FILE_NAME, PAGE_SIZE)
            out, _ = daemon.communicate("\n")
        assert (daemon.returncode, out) == ((-signal.SIGBUS, "") if cut else (0, "stored\n"))
    assert said == ["None", f"a state of {SIZE} bytes in a file of 4096"]


# Who has the lock

LOCKER = """
import os, pathlib, sys
from xengt_dm.state.file import open_state
from xengt_dm.state.layout import Capacities

file = open_state(pathlib.Path(sys.argv[1]), 7, (os.geteuid(),))
if sys.argv[2] == "made":
    file.create(Capacities(64, 3)).is_of(3)
print(flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("what", ["made", "opened"])
def test_of_two_daemons_one_is_refused(tmp_path: Path, what: str) -> None:
    command = [sys.executable, "-c", LOCKER, str(tmp_path), what]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"\n"
        for _ in range(2):
            with pytest.raises(BusyError, match="xengt-dm stop --domid 7"):
                open_state(tmp_path, DOMID, ME)
        (tmp_path / FILE_NAME).unlink(missing_ok=True)
        with pytest.raises(BusyError):
            open_state(tmp_path, DOMID, ME)
        daemon.kill()
    with opened(tmp_path) as file:
        assert (file.read(FRAMES), file.problem) == (None, None)


def test_a_file_that_somebody_has_locked(tmp_path: Path) -> None:
    made(tmp_path)
    command = ["flock", "--exclusive", str(tmp_path / FILE_NAME), "sh", "-c", "echo; read line"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"\n"
        with pytest.raises(BusyError):
            open_state(tmp_path, DOMID, ME)
    assert found(tmp_path)[0] is not None


# Making one


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_a_dead_daemon_left_of_a_new_one(tmp_path: Path, kind: str) -> None:
    new = tmp_path / f"{FILE_NAME}.new"
    if kind == "file":
        new.write_text("half")
    elif kind == "directory":
        _directory(new)
    else:
        new.symlink_to("/etc/passwd")
    made(tmp_path)
    assert found(tmp_path)[0] is not None
    assert {path.name for path in tmp_path.iterdir()} - {".0.in-the-way"} == {FILE_NAME}


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    made(tmp_path)
    os.truncate(tmp_path / FILE_NAME, SIZE - PAGE_SIZE)
    os.truncate(tmp_path / FILE_NAME, SIZE)
    with monkeypatch.context() as context:
        context.setattr(os, "posix_fallocate", full)
        with opened(tmp_path) as file:
            assert file.read(FRAMES) is None
            assert file.problem == "its memory cannot be reserved: No space left on device"
            with pytest.raises(HostError) as caught:
                file.create(CAPACITIES)
        assert caught.value.errno == errno.ENOSPC
        assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert found(tmp_path)[0] is not None


def test_a_successor_has_no_handle_for_its_children(tmp_path: Path) -> None:
    """Not after exec: else a program that it started would keep the lock."""
    with opened(tmp_path) as file:
        file.create(CAPACITIES)
        # os.listdir has a descriptor of its own, which is closed by then.
        paths = "(f'/proc/self/fd/{n}' for n in os.listdir('/proc/self/fd'))"
        code = f"import os; print(*(os.readlink(path) for path in {paths} if os.path.lexists(path)))"
        listed = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, close_fds=False
        )
    assert str(tmp_path) not in listed.stdout
