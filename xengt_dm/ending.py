"""How an instance ends: :func:`stop` releases the domain, :func:`leave` leaves everything to a successor."""

from __future__ import annotations

from xengt_dm.hypervisor.best_effort import BestEffort
from xengt_dm.ioreq.loop import ServeLoop
from xengt_dm.ioreq.server import IoreqServer
from xengt_dm.ppgtt.engine import Engine
from xengt_dm.traps.write_traps import WriteTraps


def stop(server: IoreqServer, loop: ServeLoop, traps: WriteTraps, engine: Engine) -> None:
    """Releases the domain in an order that is safe for the guest. A step that fails does not keep later ones from it.

    No store may be lost, and no vCPU may be left waiting. So requests are served for as long as any may come: while
    frames become RAM, while guard ranges are removed, and once more after the server is disabled.

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
    attempt(loop.halt_device)
    attempt(engine.abandon)  # work that is in progress ends early; its stores to guest memory are performed
    attempt(traps.refuse_new)
    attempt(unprotect)  # each frame when no store to it is in flight, for at most a second
    attempt(traps.unprotect_by_force)  # then the other frames
    attempt(drop_guard_ranges)
    attempt(release_claim)
    attempt(server.disable)  # from here on nothing new comes
    attempt(loop.answer_all)
    attempt(have_answers_taken)
    attempt.once(server.channels.unbind)
    attempt.once(server.unmap_slots)
    attempt(server.destroy)
    attempt.once(loop.close)
    attempt.once(engine.close)  # the last answer may have needed its mappings
    attempt.finish()


def leave(server: IoreqServer, loop: ServeLoop, engine: Engine) -> None:
    """Leaves the server to a successor as it is: with its claim, its ranges, the frames that trap and its requests.

    An instance ends in this way if it hands over, or if its adoption failed. Raises the error of the first step that
    failed.
    """
    attempt = BestEffort()
    attempt.once(loop.leave)
    attempt.once(server.channels.unbind)
    attempt.once(server.unmap_slots)
    attempt.once(loop.close)
    attempt.once(engine.leave)
    attempt.finish()
