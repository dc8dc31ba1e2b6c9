"""Releases resources although hypercalls fail: repeats a call once, and takes the later steps in any case.

Facts: a hypercall may fail although nothing is wrong, for example because Xen has no memory for a moment. If a call
fails that acquires a resource, its caller can give up. If a call fails that releases a resource, the resource is left
behind: a page that traps, or a server without a daemon.

What we do: a call that releases something is made a second time (:func:`retry_once`). If that fails, too, the later
steps of the teardown are taken all the same (:class:`BestEffort`).

Type changes of frames are retried elsewhere: :mod:`xengt_dm.traps.retype`.
"""

from __future__ import annotations

from collections.abc import Callable

from xengt_dm.errors import DomainGoneError, HostError


def retry_once(call: Callable[..., object], *arguments: object) -> None:
    """Makes a call, and makes it again if it raises HostError. Raises what the second call raises."""
    try:
        call(*arguments)
    except HostError:
        call(*arguments)


class BestEffort:
    """Takes the steps of a teardown one after the other, the later ones also if an earlier one fails.

    attempt = BestEffort()
    attempt(server.disable)
    attempt(server.destroy)
    attempt.finish()
    """

    def __init__(self) -> None:
        self._error: BaseException | None = None

    def __call__(self, step: Callable[..., object], *arguments: object) -> None:
        """Takes a step, a second time if it raises HostError.

        DomainGoneError is no failure: what the step releases is gone with the domain.
        """
        self.once(retry_once, step, *arguments)

    def once(self, step: Callable[..., object], *arguments: object) -> None:
        """Takes a step only once: because it retries its own calls, or because a second try would not help."""
        try:
            step(*arguments)
        except DomainGoneError:
            pass
        except BaseException as error:  # even after a bug or an interrupt no vCPU may be left waiting
            self.note(error)

    def note(self, error: BaseException) -> None:
        """Records the failure of a step that the caller took itself."""
        if self._error is None:
            self._error = error
        else:
            self._error.add_note(f"a later step failed, too: {error!r}")

    def finish(self) -> None:
        """Raises the error of the first step that failed, if any; its notes have the errors of the later ones."""
        if self._error is not None:
            raise self._error
