"""Which state a successor goes on with, by what it finds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xengt_dm.adoption import MOST_ADOPTIONS, Found, find_state
from xengt_dm.ioreq.journal import RECORD_BYTES, Journal
from xengt_dm.state.file import open_state
from xengt_dm.state.layout import JOURNALED, ROWS, SPACE_ENTRY, WORD, Capacities, Layout

CAPACITIES = Capacities(frames=64, spaces=3)
SERVER = 3
MOST_PROTECTED = 7


def found(directory: Path, server: int | None = SERVER) -> Found:
    """As a successor that is killed then."""
    with open_state(directory, 7, (os.geteuid(),)) as file:
        return find_state(file, server, CAPACITIES, MOST_PROTECTED)


def started(directory: Path) -> None:
    """A daemon with no predecessor starts to serve, and is killed."""
    left = found(directory, None)
    assert (left.kept, left.problem) == (False, None)
    left.state.life.generation = 8
    left.state.is_of(SERVER)


def test_successors_that_do_not_come_to_serve(tmp_path: Path) -> None:
    """So many of them go on with the state, and the next one does not."""
    started(tmp_path)
    for number in range(1, MOST_ADOPTIONS + 1):
        left = found(tmp_path)
        assert left.kept
        assert (left.state.life.adoptions, left.state.life.successors) == (number, number)
    left = found(tmp_path)
    assert left.problem == f"{MOST_ADOPTIONS} successors in a row died with it before they served"
    assert (left.kept, left.state.life.adoptions, left.state.server) == (False, 0, None)


def test_one_that_dies_before_it_is_about_a_server(tmp_path: Path) -> None:
    started(tmp_path)
    (tmp_path / "state").unlink()
    assert found(tmp_path).problem == "there is none"
    assert found(tmp_path).problem == "its daemon died before the server was ready"


def test_a_state_whose_server_is_gone(tmp_path: Path) -> None:
    """It is about nothing any more, and replaced without a word."""
    started(tmp_path)
    left = found(tmp_path, None)
    assert (left.kept, left.problem, left.state.server) == (False, None, None)


def journaled(directory: Path, word: int, value: int) -> None:
    """The predecessor died while it changed this word for vCPU 3, if one believes the journal."""
    with open_state(directory, 7, (os.geteuid(),)) as file:
        state = file.read(CAPACITIES.frames)
        assert state is not None
        record = state.journal[3 * RECORD_BYTES : 4 * RECORD_BYTES].cast("Q")
        record[0], record[4], record[5], record[6] = 2, 1, word, value


@pytest.mark.parametrize("name", [row.name for row in ROWS])
def test_a_journal_that_changes_what_no_request_changes(tmp_path: Path, name: str) -> None:
    """Such as what is checked before it, or another record of the journal."""
    started(tmp_path)
    region = Layout(CAPACITIES)[name]
    journaled(tmp_path, region.end // WORD - 1, 0)
    assert found(tmp_path).problem == (None if name in JOURNALED else "the journal's record of vCPU 3 is damaged")


def test_a_journal_changes_what_is_checked_then(tmp_path: Path) -> None:
    started(tmp_path)
    journaled(tmp_path, Layout(CAPACITIES)["spaces"].offset // WORD + SPACE_ENTRY // WORD, 1)
    assert found(tmp_path).problem == "entry 1 of the live spaces is damaged"


def test_more_frames_than_a_successor_can_adopt(tmp_path: Path) -> None:
    for bits, problem in (
        (0x7F, None),
        (0xFF, "8 frames are recorded as protected; the most that are adopted are 7"),
    ):
        started(tmp_path)
        with open_state(tmp_path, 7, (os.geteuid(),)) as file:
            state = file.read(CAPACITIES.frames)
            assert state is not None
            state.protected[0] = bits
        assert found(tmp_path).problem == problem


def test_what_kills_its_reader_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything but the header is read, it is counted that a successor begins to."""

    def kill(self: object, regions: object) -> None:
        raise KeyboardInterrupt

    started(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "take_over", kill)
        for _ in range(MOST_ADOPTIONS):
            with pytest.raises(KeyboardInterrupt):
                found(tmp_path)
        assert "successors in a row" in str(found(tmp_path).problem)
