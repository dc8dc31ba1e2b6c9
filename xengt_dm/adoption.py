"""How a successor takes over the server and the state of a predecessor that died or left.

Facts: a server outlives its process, with the requests in its slots, its claim, its ranges and the types of frames. The
state outlives it, too, if the file is sound (:mod:`xengt_dm.state.file`). It has the device, the live spaces, the
frames that may be protected, the ranges, and the mode that the operator chose.

What follows: with the state, nothing has to be searched for or released. The frames that may trap are on record, so
they continue to trap until the shadows have been built again: :func:`adopt`. Without the state, the frames that trap
are not known, and only a release of the claim turns them into RAM: :func:`adopt_without_state`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from xengt_dm.errors import DataError
from xengt_dm.hypervisor.port import DomainPort
from xengt_dm.ioreq.bar import Bar
from xengt_dm.ioreq.foreign import is_foreign
from xengt_dm.ioreq.journal import Journal
from xengt_dm.ioreq.ranges import Range, RangeKind, RangesRegion
from xengt_dm.ioreq.server import IoreqServer
from xengt_dm.ppgtt.space import LiveSpaces
from xengt_dm.state.buffer import State
from xengt_dm.state.layout import Capacities
from xengt_dm.state.store import StateStore
from xengt_dm.steps import complete
from xengt_dm.traps.guard_ranges import guard_range, search_ram
from xengt_dm.traps.protected import ProtectedBitmap
from xengt_dm.traps.write_traps import WriteTraps
from xengt_dm.units import PAGE_SHIFT
from xengt_dm.vgpu.registers import BAR0_SIZE

#: After so many successors in a row that died before they served, the next one does not use the state. The number is
#: large because a test that kills daemons at random instants also hits some of them during their start.
MOST_ADOPTIONS: Final = 20
GENERATIONS: Final = (8, 9)
#: How many models of the device there are, xengt_dm.gpu.MODELS.
MODELS: Final = 2
#: How long a successor waits until the vCPUs have taken its predecessor's answers. A paused vCPU takes none.
TAKEN_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.001
_ADDRESS_LIMIT: Final = 1 << 52
_MOST: Final = 1 << 32
#: How many frames may trap for each table of the quota, and beside them, so that a successor has the memory to adopt
#: them: it takes some 100 bytes for each, and 4,400 for a table. A predecessor had one for each table, and several of
#: them that died soon after another may have left others. The quota may have been higher.
MOST_PROTECTED: Final = 4
MOST_OTHERS: Final = 1 << 18


class Found(NamedTuple):
    """The state of an instance, and where it is from. ``problem``: why a predecessor's was not used, None otherwise.

    ``kept``: whether it is a predecessor's. ``protected``: the frames that may trap, according to that state.
    """

    state: State
    kept: bool
    problem: str | None = None
    protected: Sequence[int] = ()


def server_of_state(port: DomainPort, store: StateStore, bar0: int) -> int | None:
    """Returns the id of a predecessor's server, if the record of the id is lost but its state is not. Raises CallError.

    The state may be older than the server. So it must be of this very domain, or the server must look like one of ours.
    """
    server = store.left_server
    if server is None or not port.server_exists(server):
        return None
    bar = Range(RangeKind.MEMORY, bar0, bar0 + BAR0_SIZE - 1)
    return server if store.certain or not is_foreign(port, server, bar) else None


def find_state(store: StateStore, server: int | None, capacities: Capacities, most_protected: int) -> Found:
    """Returns the state that a predecessor kept of ``server``, or a fresh one of these capacities. Raises HostError.

    ``server``: the id of the server that the predecessor left, None if it left none; then a state is of no use.
    ``most_protected``: a state with more frames that may trap is not used.
    """
    if server is None:
        return Found(store.create(capacities), kept=False)
    state = store.read(capacities.frames)
    deaths = 1
    if state is not None:
        life = state.life
        adoptions, deaths = life.adoptions, _count(life.deaths)
        # First, so that a state whose content kills its reader is given up after some time.
        life.adoptions, life.successors, life.deaths = _count(adoptions), _count(life.successors), deaths
        try:
            if adoptions >= MOST_ADOPTIONS:
                raise DataError(f"{adoptions} successors in a row died with it before they served")
            protected = _protected_by(state, server, most_protected)
        except DataError as error:
            store.refuse(str(error))
        else:
            return Found(state, kept=True, protected=protected)
    problem = store.problem or "there is none"
    fresh = store.create(capacities)
    fresh.life.deaths = deaths
    return Found(fresh, kept=False, problem=problem)


def _count(number: int) -> int:
    """Returns ``number`` + 1, limited because the word of a damaged state may have any value."""
    return min(number, _MOST) + 1


def _protected_by(state: State, server: int, most: int) -> list[int]:
    """Returns the frames that may trap, according to a state; ``most`` at most.

    Raises DataError if the state cannot be that of ``server``, or must not be used.
    """
    Journal(state.journal, state.words).take_over(state.layout.journaled())  # before anything that it changes is read
    life = state.life
    if state.server is None:
        raise DataError("its daemon died before the server was ready")
    if state.server != server:
        raise DataError(f"a state of ioreq server {state.server}; the one that is there is {server}")
    if life.generation not in GENERATIONS:
        raise DataError(f"a device of generation {life.generation}")
    if life.model >= MODELS:
        raise DataError(f"a device of kind {life.model}")
    if life.bar0 % BAR0_SIZE or life.bar0 >= _ADDRESS_LIMIT:
        raise DataError(f"a device with BAR0 at {life.bar0:#x}")
    if RangesRegion(state.ranges).read() is None:
        raise DataError("its ranges are none that a server can have")
    protected = ProtectedBitmap(state.protected, state.layout.capacities.frames).frames(most)
    LiveSpaces(state.layout.capacities.spaces, state.spaces)
    return protected


def adopt(
    server: IoreqServer,
    traps: WriteTraps,
    bars: Mapping[Bar, int],
    protected: Sequence[int],
    *,
    quiesced: bool,
    fixed: Collection[Range] = (),
) -> None:
    """Takes over the server of a predecessor whose state is used. ``bars``: the gpa of each; ``fixed``: other ranges.

    ``protected``: the frames that may trap, according to the state. They still trap afterwards, and so do the frames of
    the requests that are not over. Later :meth:`~xengt_dm.traps.write_traps.WriteTraps.unprotect_adopted` unprotects
    those that the shadows do not protect again. ``quiesced``: do not claim, which Xen may refuse.

    If this fails, or this process dies, the next successor finds everything as it was. Raises CallError.
    """
    server.enable()  # it is enabled already, unless the predecessor died very early
    left = server.ranges.read() or []
    _adopt_ranges(server, traps, left)
    traps.adopt_protected(protected)
    if not quiesced:
        server.claim()  # does nothing unless the predecessor died very early
    traps.protect_in_flight()
    _map_ranges(server, bars, fixed, left)
    _answer_from_here_on(server)


def adopt_without_state(
    server: IoreqServer,
    traps: WriteTraps,
    bars: Mapping[Bar, int],
    left: list[Range] | None,
    fixed: Collection[Range] = (),
) -> None:
    """Takes over the server of a predecessor whose state is not used. ``bars``, ``fixed``: as in :func:`adopt`.

    Facts: the frames that the predecessor had protected are not known. Only a release of the claim turns them into RAM,
    and it must not come between an answer and the end of the instruction that the answer is for
    (:mod:`xengt_dm.traps.state`). What we do: wait until the vCPUs have taken every answer that the predecessor gave;
    release the claim and claim again; protect the frames that the unanswered requests store to.

    If this fails, or this process dies, no request was answered, and the next successor finds the server as it is then.
    ``left``: the ranges, if an older version recorded them; None if not. Raises CallError.
    """
    port, channels = server.port, server.channels
    server.enable()  # it is enabled already, unless the predecessor died very early

    # Find the ranges of the server.
    if left is None:
        left = [guard_range(gfn) for gfn in search_ram(port, server.id)]
    _adopt_ranges(server, traps, left)

    # Turn every frame into RAM, except those of stores that are not over.
    traps.guard_in_flight()
    if port.retype_in_flight_is_fatal:
        channels.bind(range(server.slots.vcpus))
        _have_answers_taken(server)
        server.enable()  # a barrier: the instructions of those answers are over
    server.claim_again()
    traps.claim_released()
    traps.protect_in_flight()
    complete(traps.unprotect_adopted())

    _map_ranges(server, bars, fixed, left)
    _answer_from_here_on(server)


def _adopt_ranges(server: IoreqServer, traps: WriteTraps, left: list[Range]) -> None:
    server.ranges.start(left)
    traps.adopt_guard_ranges([each.first >> PAGE_SHIFT for each in left if each.kind is RangeKind.GUARD])


def _map_ranges(server: IoreqServer, bars: Mapping[Bar, int], fixed: Collection[Range], left: list[Range]) -> None:
    """Gives the server the ranges of the device, and removes other ranges that the predecessor had."""
    wanted = [*fixed, *(bar.range_at(address) for bar, address in bars.items())]
    for each in left:
        if each.kind is not RangeKind.GUARD and each not in wanted:
            server.remove_range(each)
    for bar, address in bars.items():
        bar.map(address)
    for each in fixed:
        server.add_range(each)


def _answer_from_here_on(server: IoreqServer) -> None:
    server.channels.bind(range(server.slots.vcpus))
    for vcpu in server.slots.answered():  # the predecessor may have died before it notified them
        server.channels.notify(vcpu)
    server.owned = True


def _have_answers_taken(server: IoreqServer) -> None:
    """Notifies the vCPUs that have answers in their slots until they take them, for at most :data:`TAKEN_SECONDS`."""
    slots = server.slots
    deadline = time.monotonic() + TAKEN_SECONDS
    while answered := slots.answered():
        for vcpu in answered:
            server.channels.notify(vcpu)
        if time.monotonic() >= deadline:
            return
        time.sleep(_LOOK_SECONDS)
