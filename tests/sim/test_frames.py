"""What of the file of frames is mapped where."""

from __future__ import annotations

from array import array

from xengt_dm.hypervisor.sim.frames import MappedFrames


def words(*values: int) -> array[int]:
    return array("Q", values)


def table() -> MappedFrames:
    frames = MappedFrames()
    frames.add(10, words(0, 1, 2, 3))
    frames.add(20, words(7))
    return frames


def test_a_run_is_taken_as_it_was_added() -> None:
    frames = table()
    assert frames.at(10, 4) == words(0, 1, 2, 3)
    assert frames.at(10, 3) is frames.at(11, 3) is None
    assert frames.take(10, 4) == words(0, 1, 2, 3)
    assert frames.take(10, 4) == words()


def test_the_middle_of_a_run() -> None:
    frames = table()
    assert frames.take(11, 2) == words(1, 2)
    assert (frames.at(10, 1), frames.at(13, 1)) == (words(0), words(3))


def test_the_ends_of_runs_and_what_is_between() -> None:
    frames = table()
    assert frames.take(12, 100) == words(2, 3, 7)
    assert frames.at(10, 2) == words(0, 1)
    assert frames.take(0, 100) == words(0, 1)
    assert frames.take(0, 100) == words()
