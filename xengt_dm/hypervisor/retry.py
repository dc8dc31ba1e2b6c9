"""What to do when a call to the hypervisor fails whose failure would leave something behind.

A call fails now and then although nothing is wrong: Xen has no memory for a moment, or a page is being paged in. On the
way up such a failure is told to whoever asked. On the way down the call is made a second time, and if that fails, too,
the other steps are made all the same.
"""

from __future__ import annotations

from collections.abc import Callable

from xengt_dm.errors import DomainGoneError, HostError


def retry_once(call: Callable[..., object], *arguments: object) -> None:
    """Call, and call again if that raises HostError. Raises what the second call raises."""
    try:
        call(*arguments)
    except HostError:
        call(*arguments)


class BestEffort:
    """Makes the steps of a teardown one after the other, whatever becomes of each.

    attempt = BestEffort()
    attempt(server.disable)
    attempt(server.destroy)
    attempt.finish()
    """

    def __init__(self) -> None:
        self._error: BaseException | None = None

    def __call__(self, step: Callable[..., object], *arguments: object) -> None:
        """Make a step, twice if it raises HostError. A domain that is gone is no failure: nothing is left to do."""
        self.once(retry_once, step, *arguments)

    def once(self, step: Callable[..., object], *arguments: object) -> None:
        """Make a step that is not worth a second try, or tries again what is."""
        try:
            step(*arguments)
        except DomainGoneError:
            pass
        except BaseException as error:  # even a bug or an interrupt must not leave a vCPU waiting
            self.note(error)

    def note(self, error: BaseException) -> None:
        """A step failed that was made without this."""
        if self._error is None:
            self._error = error
        else:
            self._error.add_note(f"a later step failed, too: {error!r}")

    def finish(self) -> None:
        """Raises the error of the first step that failed; notes on it tell of the others."""
        if self._error is not None:
            raise self._error
