"""Writing traces: what is written reads back, and whatever cuts the writer short leaves a trace."""

from __future__ import annotations

import errno
import gzip
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xengt_dm.trace import write as trace_writer
from xengt_dm.trace.events import (
    Add,
    Dump,
    Event,
    Fill,
    GpuStore,
    Header,
    Mmio,
    Remove,
    Store,
    Submit,
)
from xengt_dm.trace.read import read_trace
from xengt_dm.trace.write import TraceWriter

u64 = st.integers(0, (1 << 64) - 1)
vcpus = st.integers(0, 127)
spaces = st.one_of(
    st.tuples(st.just("l4"), u64),
    st.tuples(st.just("l3"), st.tuples(u64, u64, u64, u64)),
)
sized = st.sampled_from([1, 2, 4, 8]).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, (1 << 8 * n) - 1)))
words = st.sampled_from([4, 8]).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, (1 << 8 * n) - 1)))
events = st.one_of(
    st.builds(lambda gpa, sv, vcpu: Store(gpa, *sv, vcpu), st.integers(0, (1 << 64) - 8), sized, vcpus),
    st.builds(lambda n, *rest: Fill(8 * n, *rest), st.integers(0, 1 << 60), st.integers(0, 1 << 20), u64, vcpus),
    st.builds(lambda offset, sv, vcpu: Mmio(offset, *sv, vcpu), st.integers(0, (16 << 20) - 8), words, vcpus),
    st.builds(lambda space: Submit(*space), spaces),
    st.builds(lambda space, n, value: GpuStore(*space, 8 * n, value), spaces, st.integers(0, (1 << 61) - 1), u64),
    st.builds(Remove, st.integers(0, 1 << 51), st.integers(0, 1 << 51)),
    st.builds(Add, st.integers(0, 1 << 33), st.integers(0, 1 << 33)),
    st.builds(Dump, st.one_of(st.text(), u64)),
)
headers = st.builds(
    Header,
    st.sampled_from([8, 9]),
    st.integers(1 << 20, 1 << 34),
    st.lists(st.integers(0, 1000), unique=True, max_size=4).map(lambda firsts: tuple((8 * f, 8) for f in firsts)),
)


@given(header=headers, written=st.lists(events, max_size=30), suffix=st.sampled_from(["", ".gz"]))
def test_what_is_written_reads_back(
    tmp_path_factory: pytest.TempPathFactory, header: Header, written: list[Event], suffix: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"roundtrip.jsonl{suffix}"
    with TraceWriter(path, header) as writer:
        for event in written:
            writer.write(event)
    assert read_trace(path) == (header, written)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_readable_after_each_flush(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    writer = TraceWriter(path, Header(9, 64))
    assert read_trace(path) == (Header(9, 64), [])
    stores = [Store(8 * number, 8, number) for number in range(20)]
    for number, store in enumerate(stores):
        writer.write(store)
        assert len(read_trace(path)[1]) == number
        writer.flush()
        assert read_trace(path)[1] == stores[: number + 1]
    writer.close()
    writer.close()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_written_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(trace_writer, "CHUNK_BYTES", 1000)
    path = tmp_path / f"a.jsonl{suffix}"
    with TraceWriter(path, Header(9, 64)) as writer:
        for number in range(100):
            writer.write(Store(8 * number, 8, number))
        assert 80 < len(read_trace(path)[1]) < 100


def test_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("x" * 10_000)
    with TraceWriter(path, Header(8, 1)) as writer:
        writer.write(Dump("a"))
    assert read_trace(path) == (Header(8, 1), [Dump("a")])


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    writer = TraceWriter(path, Header(9, 64))
    writer.write(Dump("kept"))
    writer.flush()
    real_write = os.write
    room = [25]

    def write(fd: int, data: memoryview) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = real_write(fd, data[: room[0]])
        room[0] -= done
        return done

    monkeypatch.setattr(os, "write", write)
    writer.write(Dump("lost, because the disk is full"))
    with pytest.raises(OSError, match="No space left"):
        writer.flush()
    assert read_trace(path)[1] == [Dump("kept")]
    room[0] = 1000
    writer.write(Dump("later"))
    writer.close()
    assert read_trace(path)[1] == [Dump("kept"), Dump("later")]


def test_gzip_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a.gz", "b.gz"):
        with TraceWriter(tmp_path / name, Header(9, 64)) as writer:
            writer.write(Dump(name[1:]))
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()).count(b"\n") == 2


def test_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        TraceWriter(tmp_path / "none" / "a.jsonl", Header(9, 64))
