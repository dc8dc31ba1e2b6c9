"""How an instance ends: :func:`stop` gives everything back, :func:`leave` leaves everything to a successor."""

from __future__ import annotations

from xengt_dm.hypervisor.best_effort import BestEffort
from xengt_dm.ioreq.loop import ServeLoop
from xengt_dm.ioreq.server import IoreqServer
from xengt_dm.ppgtt.engine import Engine
from xengt_dm.traps.write_traps import WriteTraps


def stop(server: IoreqServer, loop: ServeLoop, traps: WriteTraps, engine: Engine) -> None:
    """Take everything down, in the order that keeps the guest safe, whatever fails meanwhile.

    No store may be lost, and no vCPU may be left waiting. So requests are served for as long as any may come: while
    frames become RAM, while guard ranges go, and once more after Xen has been told to send none.

    Raises the error of the first step that failed.
    """

    def unprotect() -> None:
        for _ in loop.rounds():
            if loop.complete(traps.unprotect_all()):
                return

    def drop_guard_ranges() -> None:
        for _ in loop.rounds():
            if traps.drop_guard_ranges():
                return

    def have_answers_taken() -> None:
        for _ in loop.rounds():
            if server.slots.all_taken():
                return

    def release_claim() -> None:
        server.release_claim()
        traps.claim_released()

    attempt = BestEffort()
    attempt(engine.abandon)  # what is under way ends early; its stores to guest memory are performed
    attempt(traps.refuse_new)
    attempt(unprotect)  # as stores to the frames end, for a second at most
    attempt(traps.unprotect_by_force)  # then whatever is left
    attempt(drop_guard_ranges)
    attempt(release_claim)
    attempt(server.disable)  # from here on nothing new comes
    attempt(loop.answer_all)
    attempt(have_answers_taken)
    attempt.once(server.channels.unbind)
    attempt.once(server.unmap_slots)
    attempt(server.destroy)
    attempt.once(engine.close)  # the last answer may have needed its mappings
    attempt.finish()


def leave(server: IoreqServer, loop: ServeLoop, engine: Engine) -> None:
    """Leave the server to a successor as it is: with its claim, its ranges, the frames that trap and its requests.

    For an instance that hands over, and for one that could not adopt. Raises the first error.
    """
    attempt = BestEffort()
    attempt.once(loop.leave)
    attempt.once(server.channels.unbind)
    attempt.once(server.unmap_slots)
    attempt.once(engine.leave)
    attempt.finish()
