"""The daemon on each Xen that it can run on: the same guest gets the same shadows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.oracle import save
from tests.oracle.corpus_files import corpus
from tests.oracle.generate import KINDS, generate
from xengt_dm.cli import main
from xengt_dm.errors import ExitCode
from xengt_dm.hypervisor.embedded.p2m import FLAVOURS, why_unusable
from xengt_dm.hypervisor.embedded.shadow_paging import Paging
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.settings import DEFAULT_MAX_TABLES
from xengt_dm.sim.demo import demo
from xengt_dm.sim.replay import Outcome, replay
from xengt_dm.trace.read import read_trace
from xengt_dm.traps.guard_ranges import MOST

USABLE = [name for name, flavour in FLAVOURS.items() if not why_unusable(flavour)]
SYNCS = pytest.mark.parametrize("sync", Sync, ids=[sync.value for sync in Sync])


def play(path: Path, sync: Sync, flavour: str) -> Outcome:
    header, events = read_trace(path)
    return replay(header, events, sync=sync, max_tables=DEFAULT_MAX_TABLES, flavour=flavour)


def plain(outcome: Outcome) -> list[Any]:
    """The dumps with their runs as lists."""
    dumps: list[Any] = []
    for dump in outcome.dumps:
        spaces: Any = dump["spaces"]
        for space in spaces:
            runs = space["mappings"]
            dumps.append((dump["id"], space["mode"], space["root"], None if runs is None else [tuple(r) for r in runs]))
    return dumps


def test_which_are_usable() -> None:
    assert USABLE == ["v7", "4.12", "4.17", "4.20"]


@SYNCS
def test_demo_is_the_same_on_all(sync: Sync) -> None:
    results = [demo(0, flavour, 1, lambda traps, gone: None, sync) for flavour in USABLE]
    for result in results:
        assert (result.mismatches, result.wrong, result.resolved) == (0, 0, 2000)
        assert result.counters["unprotectable_entries"] == 0
        assert result.counters["dropped_stores"] == 0
        assert result.counters["protected_pages"] == 0
    assert len({(result.spaces, result.tables, result.digest) for result in results}) == 1
    assert demo(0, "v7", 2, lambda traps, gone: None, sync).digest != results[0].digest


@SYNCS
def test_demo_is_the_same_on_shadow_paging(sync: Sync) -> None:
    hap, shadow = (demo(0, "v7", 1, lambda traps, gone: None, sync, paging) for paging in Paging)
    assert (shadow.paging, shadow.mismatches, shadow.wrong, shadow.resolved) == (Paging.SHADOW, 0, 0, 2000)
    assert (shadow.spaces, shadow.tables, shadow.digest) == (hap.spaces, hap.tables, hap.digest)
    assert shadow.counters["store_traps"] > (1000 if sync is Sync.STRICT else 0)
    assert shadow.counters["unprotectable_entries"] == shadow.counters["dropped_stores"] == 0
    assert shadow.counters["protected_pages"] == 0


def test_demo_command_on_shadow_paging() -> None:
    words = ["demo", "--xen", "v7", "--paging", "shadow", "--seconds", "0"]
    result = CliRunner().invoke(main, [*words, "--json"])
    assert result.exit_code == 0
    assert json.loads(result.output)["paging"] == "shadow"
    assert json.loads(result.output)["counters"]["store_traps"] > 1000
    assert "as Xen v7, shadow paging" in CliRunner().invoke(main, words).output


@pytest.mark.parametrize("flavour", ["4.12", "4.17", "4.20"])
def test_demo_command_where_the_claim_is_refused(flavour: str) -> None:
    result = CliRunner().invoke(main, ["demo", "--xen", flavour, "--paging", "shadow"])
    assert result.exit_code == ExitCode.CONFIG
    assert "EOPNOTSUPP: the domain runs on shadow paging: " in result.output
    assert "Write hap=1 in the domain's xl file" in result.output


@pytest.mark.parametrize("flavour", ["v7", "4.17"])
def test_demo_command(flavour: str) -> None:
    result = CliRunner().invoke(main, ["demo", "--xen", flavour, "--seconds", "0", "--json"])
    assert result.exit_code == 0
    told = json.loads(result.output)
    assert told["xen"] == flavour
    assert told["counters"]["store_traps"] > 1000


@SYNCS
@pytest.mark.parametrize("name", [name for name in corpus() if not name.startswith("runs-")])
def test_corpus_on_v7(tmp_path: Path, name: str, sync: Sync) -> None:
    save(tmp_path / "a.jsonl", corpus()[name])
    today, series = (play(tmp_path / "a.jsonl", sync, flavour) for flavour in ("4.17", "v7"))
    assert plain(series) == plain(today)
    assert series.counters["audit_mismatches"] == 0
    assert series.counters["unprotectable_entries"] == 0
    assert series.counters["dropped_stores"] == today.counters["dropped_stores"]
    if name != "store-over-a-page-end":  # which each emulator cuts in its own way
        # An event is spurious when its request was found without it.
        assert {**series.counters, "spurious_events": 0} == {**today.counters, "spurious_events": 0}


@SYNCS
@pytest.mark.parametrize("kind", KINDS)
def test_generated_on_v7(tmp_path: Path, kind: str, sync: Sync) -> None:
    for seed in range(2000, 2004):
        print("seed", seed)
        save(tmp_path / "a.jsonl", generate(kind, seed))
        today, series = (play(tmp_path / "a.jsonl", sync, flavour) for flavour in ("4.17", "v7"))
        assert plain(series) == plain(today)
        assert series.counters["dropped_stores"] == today.counters["dropped_stores"]


TABLE, DATA, HOLE = 5, 9, 40
#: A table that is unlinked, so that its frame has a guard range, and then given back.
GIVEN_BACK = [
    {"trace": 1, "generation": 9, "ram_frames": 64},
    *({"op": "store", "gpa": g * 4096, "size": 8, "value": (g + 1) * 4096 | 3} for g in (2, 3, 4, TABLE)),
    {"op": "mmio", "offset": 0x78838, "size": 8, "value": 2 * 4096},
    {"op": "mmio", "offset": 0x78818, "size": 4, "value": 4},
    {"op": "store", "gpa": TABLE * 4096, "size": 8, "value": DATA * 4096 | 3},
    {"op": "store", "gpa": 4 * 4096, "size": 8, "value": 0},
    {"op": "remove", "gfn": TABLE, "count": 1},
    *({"op": "store", "gpa": TABLE * 4096 + 8 * slot, "size": 8, "value": 1} for slot in range(3)),
    {"op": "dump", "id": "a"},
]


@SYNCS
@pytest.mark.parametrize("flavour", USABLE)
def test_stores_to_what_was_given_back_are_dropped_by_xen(tmp_path: Path, flavour: str, sync: Sync) -> None:
    """A range left over the hole would bring each of them to us."""
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in GIVEN_BACK))
    counters = play(path, sync, flavour).counters
    assert (counters["dropped_stores"], counters["straggler_stores"]) == (3, 0)


def test_replay_command(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in GIVEN_BACK))
    assert CliRunner().invoke(main, ["replay", "--xen", "v7", str(path)]).exit_code == 0
    assert "--xen" not in CliRunner().invoke(main, ["replay", "--help"]).output


def scattered(tables: int) -> list[dict[str, Any]]:
    """A space of so many leaf tables, no two of them neighbours, each with one page; then all but three go."""
    root, pointers, directory, first, data = 2, 4, 6, 10, 3

    def entry(gfn: int, slot: int, target: int) -> dict[str, Any]:
        return {"op": "store", "gpa": gfn * 4096 + 8 * slot, "size": 8, "value": target * 4096 | 3}

    links = [entry(root, 0, pointers), entry(pointers, 0, directory)]
    for slot in range(tables):
        links += [entry(directory, slot, first + 2 * slot), entry(first + 2 * slot, 0, data)]
    unlink = {"op": "fill", "gpa": directory * 4096, "count": tables - 3, "value": 0}
    return [
        {"trace": 1, "generation": 9, "ram_frames": 1024},
        *links,
        {"op": "mmio", "offset": 0x78838, "size": 8, "value": root * 4096},
        {"op": "mmio", "offset": 0x78818, "size": 4, "value": 4},
        {"op": "dump", "id": "all"},
        {"op": "store", "gpa": (first + 2 * tables - 2) * 4096 + 8, "size": 8, "value": data * 4096 | 3},
        unlink,
        {"op": "dump", "id": "three"},
    ]


def played_scattered(tmp_path: Path, sync: Sync) -> tuple[Outcome, Outcome]:
    """300 tables, by the rules of today and by those of the 2014 series."""
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in scattered(300)))
    return play(path, sync, "4.17"), play(path, sync, "v7")


def test_unsynced_tables_need_no_range(tmp_path: Path) -> None:
    today, series = played_scattered(tmp_path, Sync.RELAXED)
    assert plain(series) == plain(today)
    assert len(plain(today)[0][3]) == 300
    assert series.counters["unprotectable_entries"] == 0
    assert series.counters["audit_mismatches"] == 0


def test_tables_that_find_no_range_map_nothing_until_there_is_room(tmp_path: Path) -> None:
    today, series = played_scattered(tmp_path, Sync.STRICT)
    full, short = plain(today), plain(series)
    assert len(full[0][3]) == 300
    assert len(short[0][3]) == MOST - 3  # three are for the directories
    assert set(short[0][3]) < set(full[0][3])
    assert short[1] == full[1]
    assert len(full[1][3]) == 4  # the last table has two
    assert series.counters["unprotectable_entries"] >= 300 - (MOST - 3)
    assert series.counters["audit_mismatches"] == 0
    assert today.counters["unprotectable_entries"] == 0
