"""The stats page: what its writer leaves, and what a reader makes of whatever lies in its place."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import pytest

from tests.stats.programs import busy, serving
from xengt_dm import __version__
from xengt_dm._core import ffi, lib
from xengt_dm.errors import DomainGoneError, HostError
from xengt_dm.stats import page as stats_page
from xengt_dm.stats.page import PageError, PageProblem, StatsPage, process_start, read_page
from xengt_dm.steps import complete

SIZE = lib.XD_STATS_SIZE
DOMID = 7


def refusal(directory: Path, domid: int = DOMID) -> PageProblem | None:
    try:
        read_page(directory, domid)
    except PageError as error:
        return error.reason
    return None


def test_a_page_says_who_writes_it(tmp_path: Path) -> None:
    written = StatsPage(tmp_path, DOMID)
    written.counters.store_traps = 3
    page = read_page(tmp_path, DOMID)
    assert (page.domid, page.pid, page.process_start) == (DOMID, os.getpid(), process_start(os.getpid()))
    assert ffi.string(page.program).decode() == __version__
    assert (page.version, page.size) == (lib.XD_STATS_VERSION, ffi.sizeof("xd_stats"))
    assert page.counters.store_traps == 3
    assert page.start_time > 1_600_000_000
    assert page.predecessors == 0


def test_every_count_is_an_aligned_word() -> None:
    """So none is torn, whoever reads it when."""
    for name, field in ffi.typeof("xd_counters").fields:
        assert field.offset % 8 == 0, name
        assert field.type.kind == "struct" or ffi.sizeof(field.type) == 8, name
    assert ffi.offsetof("xd_stats", "counters") % 8 == 0


def test_a_copy_does_not_change(tmp_path: Path) -> None:
    written = StatsPage(tmp_path, DOMID)
    page = read_page(tmp_path, DOMID)
    written.counters.store_traps = 3
    assert page.counters.store_traps == 0


@pytest.mark.parametrize("ended", [False, True])
def test_a_successor_counts_its_predecessors(tmp_path: Path, ended: bool) -> None:
    for predecessors in range(3):
        written = StatsPage(tmp_path, DOMID)
        assert written.pointer.predecessors == predecessors
        assert written.counters.store_traps == 0
        written.counters.store_traps = 9
        if ended:
            written.end()


def test_another_domains_page_is_no_predecessor(tmp_path: Path) -> None:
    StatsPage(tmp_path, DOMID)
    assert StatsPage(tmp_path, DOMID + 1).pointer.predecessors == 0


def test_an_older_page_stays_whole_for_who_has_it(tmp_path: Path) -> None:
    """A successor makes a new file, so what is mapped is neither cut short nor overwritten."""
    old = StatsPage(tmp_path, DOMID)
    StatsPage(tmp_path, DOMID)
    old.counters.store_traps = 5
    assert read_page(tmp_path, DOMID).counters.store_traps == 0


def test_a_successor_writes_through_no_link_that_was_left(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    directory = tmp_path / "run"
    directory.mkdir()
    for name in ("stats", "stats.new"):
        (directory / name).symlink_to(victim)
    StatsPage(directory, DOMID)
    assert victim.read_text() == "untouched"
    assert refusal(directory) is None
    assert not (directory / "stats").is_symlink()


def test_anyone_may_read_it(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        StatsPage(tmp_path, DOMID)
    finally:
        os.umask(old)
    assert (tmp_path / "stats").stat().st_mode & 0o777 == 0o644


def write(directory: Path, content: bytes) -> None:
    (directory / "stats").write_bytes(content)


def spoil(directory: Path, **fields: int) -> None:
    """A good page but for some fields."""
    page = StatsPage(directory, DOMID)
    for name, value in fields.items():
        setattr(page.pointer, name, value)


def test_no_page(tmp_path: Path) -> None:
    assert refusal(tmp_path) is PageProblem.MISSING
    assert refusal(tmp_path / "none") is PageProblem.MISSING


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE + 1, 2 * SIZE])
def test_of_another_size(tmp_path: Path, size: int) -> None:
    StatsPage(tmp_path, DOMID)
    os.truncate(tmp_path / "stats", size)
    assert refusal(tmp_path) is PageProblem.TRUNCATED


@pytest.mark.parametrize("byte", [b"\0", b"\xff", b"a"])
def test_of_another_program(tmp_path: Path, byte: bytes) -> None:
    write(tmp_path, byte * SIZE)
    assert refusal(tmp_path) is PageProblem.FOREIGN


@pytest.mark.parametrize("field", ["magic", "version", "size", "domid"])
def test_of_another_version_or_domain(tmp_path: Path, field: str) -> None:
    spoil(tmp_path, **{field: 99})
    assert refusal(tmp_path) is PageProblem.FOREIGN


def test_no_plain_file(tmp_path: Path) -> None:
    """A pipe would have its reader wait for ever."""
    os.mkfifo(tmp_path / "stats")
    assert refusal(tmp_path) is PageProblem.FOREIGN
    (tmp_path / "stats").unlink()
    (tmp_path / "stats").mkdir()
    assert refusal(tmp_path) is PageProblem.FOREIGN


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    StatsPage(tmp_path, DOMID)
    other = tmp_path / "other"
    other.mkdir()
    (other / "stats").symlink_to(tmp_path / "stats")
    assert refusal(other) is PageProblem.UNREADABLE


def test_of_a_process_whose_pid_is_anothers_by_now(tmp_path: Path) -> None:
    spoil(tmp_path, process_start=(process_start(os.getpid()) or 0) + 1)
    assert refusal(tmp_path) is PageProblem.STALE


@pytest.mark.parametrize("pid", [0, 1 << 22, (1 << 64) - 1])
def test_of_a_pid_that_nobody_has(tmp_path: Path, pid: int) -> None:
    spoil(tmp_path, pid=pid)
    assert refusal(tmp_path) is PageProblem.STALE


def test_of_a_daemon_that_stopped_in_order(tmp_path: Path) -> None:
    StatsPage(tmp_path, DOMID).end()
    assert refusal(tmp_path) is PageProblem.ENDED


WRITER = """
import sys
from pathlib import Path
from xengt_dm.stats.page import StatsPage
page = StatsPage(Path(sys.argv[1]), int(sys.argv[2]))
print("ready", flush=True)
sys.stdin.read()
"""


def test_of_a_daemon_that_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path), str(DOMID)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        assert refusal(tmp_path) is None
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert refusal(tmp_path) is PageProblem.STALE


def test_cut_short_before_it_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    StatsPage(tmp_path, DOMID)
    real = os.fstat

    def fstat(fd: int) -> os.stat_result:
        result = real(fd)
        os.truncate(tmp_path / "stats", 0)
        return result

    monkeypatch.setattr(stats_page.os, "fstat", fstat)
    assert refusal(tmp_path) is PageProblem.TRUNCATED


def test_cut_short_while_it_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Touching such a page raises SIGBUS, of which Python would die."""
    StatsPage(tmp_path, DOMID)

    class CutShort(mmap.mmap):
        def __new__(cls, *arguments: Any, **more: Any) -> Self:
            self = super().__new__(cls, *arguments, **more)
            os.truncate(tmp_path / "stats", 0)
            return self

    monkeypatch.setattr(stats_page.mmap, "mmap", CutShort)
    assert refusal(tmp_path) is PageProblem.TRUNCATED


@pytest.mark.parametrize(
    "line",
    [b"", b"7", b"7 (a) b", b"7 (x) S " + b"y " * 40],
    ids=["empty", "short", "shorter", "letters"],
)
def test_a_process_that_cannot_be_looked_at_is_none(tmp_path: Path, line: bytes) -> None:
    assert process_start(7, tmp_path) is None
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_bytes(line)
    assert process_start(7, tmp_path) is None


def test_the_name_of_a_process_is_its_own_affair(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    fields = b" ".join(str(number).encode() for number in range(4, 53))
    (tmp_path / "7" / "stat").write_bytes(b"7 (a) 1 2 (\n) S " + fields)
    assert process_start(7, tmp_path) == 22


def test_a_daemon_says_what_it_is_and_ends_in_order(tmp_path: Path) -> None:
    directory = tmp_path / str(DOMID)
    with serving(tmp_path, DOMID) as machine:
        machine.run(busy)
        page = read_page(directory, DOMID)
        assert (page.vcpus, page.generation, page.max_tables) == (1, 8, machine.instance.settings.max_tables)
        assert (page.relaxed, page.quiesced) == (0, 0)
        complete(machine.instance.engine.quiesce())
        machine.instance.tell_stats()
        assert read_page(directory, DOMID).quiesced == 1
    assert refusal(directory) is PageProblem.ENDED


def test_an_end_for_want_of_a_domain_is_in_order(tmp_path: Path) -> None:
    with pytest.raises(DomainGoneError), serving(tmp_path, DOMID):
        raise DomainGoneError("a call", DOMID, 3)
    assert refusal(tmp_path / str(DOMID)) is PageProblem.ENDED


def test_a_failure_is_not(tmp_path: Path) -> None:
    """This process lives on, so only the page can tell; and it says nothing."""
    with pytest.raises(HostError), serving(tmp_path, DOMID):
        raise HostError("a call", DOMID, 5)
    assert refusal(tmp_path / str(DOMID)) is None


FULL = """
mount -t tmpfs -o size=64k none "$1" && mkdir "$1/7" || exit 77
dd if=/dev/zero of="$1/fill" bs=4096 2>/dev/null
exec "$2" -c "
import sys
from pathlib import Path
from xengt_dm.errors import HostError
from xengt_dm.stats.page import StatsPage
try:
    StatsPage(Path(sys.argv[1]), 7)
except HostError as error:
    print(error, [path.name for path in Path(sys.argv[1]).iterdir()])
" "$1/7"
"""


def test_a_full_file_system_is_an_error_and_no_signal(tmp_path: Path) -> None:
    """A page of a sparse file is made when it is first touched, and that would be SIGBUS."""
    words = ["unshare", "--mount", "--map-root-user", "sh", "-c", FULL, "sh", str(tmp_path), sys.executable]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no namespace with a file system of its own here")
    assert (done.returncode, done.stdout.strip()) == (
        0,
        f"make {tmp_path}/7/stats.new for domain 7: ENOSPC: No space left on device []",
    )
