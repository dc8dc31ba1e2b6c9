"""Steps of a teardown: each is made, whatever becomes of those before it, and nothing that failed is forgotten."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from xengt_dm.errors import DomainGoneError, HostError
from xengt_dm.hypervisor.best_effort import BestEffort, retry_once


class Steps:
    """Steps that fail as a test says, and are counted."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def failing(self, name: str, *errors: BaseException) -> Callable[[], None]:
        """A step that raises these errors, one at each call, and then succeeds."""
        left = list(errors)

        def step() -> None:
            self.made.append(name)
            if left:
                raise left.pop(0)

        return step


def host_error(what: str = "call") -> HostError:
    return HostError(what, 1, 12)


def test_a_call_is_made_once_more() -> None:
    steps = Steps()
    retry_once(steps.failing("a", host_error()))
    with pytest.raises(HostError, match="second"):
        retry_once(steps.failing("b", host_error("first"), host_error("second")))
    assert steps.made == ["a", "a", "b", "b"]


def test_a_domain_that_is_gone_is_not_asked_again() -> None:
    steps = Steps()
    with pytest.raises(DomainGoneError):
        retry_once(steps.failing("a", DomainGoneError("call", 1, 3)))
    attempt = BestEffort()
    attempt(steps.failing("b", DomainGoneError("call", 1, 3)))
    attempt.finish()
    assert steps.made == ["a", "b"]


@pytest.mark.parametrize("error", [AssertionError("a bug"), KeyboardInterrupt()], ids=["a bug", "an interrupt"])
def test_the_steps_after_one_that_fails_are_made(error: BaseException) -> None:
    steps = Steps()
    attempt = BestEffort()
    attempt(steps.failing("a", host_error("first"), host_error("again")))
    attempt(steps.failing("b", error))
    attempt.once(steps.failing("c", host_error("third")))
    attempt(steps.failing("d"))
    with pytest.raises(HostError, match="again") as caught:
        attempt.finish()
    assert steps.made == ["a", "a", "b", "c", "d"]
    assert [note.startswith("a later step failed, too: ") for note in caught.value.__notes__] == [True, True]
    assert "third" in caught.value.__notes__[1]


def test_nothing_failed() -> None:
    BestEffort().finish()
