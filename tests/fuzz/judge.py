"""Whether a device model did right by a hostile guest: what is looked at while the guest stands still.

Nothing here believes the device model. Which frames are the guest's is the harness's own record. What the guest's
tables mean is said by the walker of ``tests/oracle``, which spaces are live by a log of the guest's writes to
registers, and what memory must hold, where that is certain, by a copy that the harness keeps.
"""

from __future__ import annotations

import random
import struct
from typing import Any, Final

from tests.fuzz.hostile import FFI, LOST, OWNED
from tests.oracle.machine import CREATE, Machine
from tests.oracle.ram import EMPTY, PAGE, runs_of
from tests.oracle.tables import Walker
from xengt_dm.hypervisor.embedded import EmbeddedDomain, EmbeddedPort
from xengt_dm.hypervisor.port import MemType
from xengt_dm.instance import Instance
from xengt_dm.ppgtt.space import Mode, Space
from xengt_dm.steps import complete, finish
from xengt_dm.units import CData

#: A space of more runs than this is not listed: it is looked at in some places.
_MOST_RUNS: Final = 20_000
_PLACES: Final = 200
#: Differences told; more of them say nothing new.
_SHOWN: Final = 5


class WrongError(AssertionError):
    """The device model did something that it must not do."""


def judge(right: bool, what: object) -> None:
    """Raises WrongError unless ``right``."""
    if not right:
        raise WrongError(str(what))


class OwnedRam:
    """The memory of a domain as :class:`tests.oracle.ram.Ram` shows it; ``owned`` says which frames there are."""

    def __init__(self, domain: EmbeddedDomain, owned: bytearray) -> None:
        self._domain = domain
        self._owned = owned
        self._pages: dict[int, tuple[int, ...]] = {}

    def has(self, frame: int) -> bool:
        return frame < len(self._owned) and self._owned[frame] == OWNED

    def parts(self, first: int, count: int) -> list[tuple[int, int]]:
        if count == 1:
            return [(first, 1)] if self.has(first) else []
        return runs_of(filter(self.has, range(first, min(first + count, len(self._owned)))))

    def words(self, frame: int) -> tuple[int, ...]:
        if frame not in self._pages:
            self._pages[frame] = struct.unpack("<512Q", self._domain.read(frame * PAGE, PAGE))
        return self._pages[frame]


class Registers(Machine):
    """The device's registers by the book, and the spaces that are live, of which there are ``most`` at most."""

    def __init__(self, generation: int, most: int) -> None:
        super().__init__({"generation": generation, "ram_frames": 1})
        self._most = most

    def notify(self, what: int) -> None:
        before = dict(self.live)
        super().notify(what)
        if what in CREATE and len(self.live) > self._most:
            self.live.clear()
            self.live.update(before)

    @property
    def page_sizes(self) -> int:
        return self.register(0x4080, 4)


class OwnedPort(EmbeddedPort):
    """A port that notices when the device model reaches for a frame that the guest does not own."""

    def __init__(self, domain: EmbeddedDomain, owned: bytearray) -> None:
        super().__init__(domain)
        self._owned = owned
        #: What must not have happened; raised at the next look, since an error of a port means something else.
        self.wrong: list[str] = []

    def set_mem_types(self, mem_type: MemType, gfns: CData, count: int, errors: CData) -> int:
        lost = [gfns[i] for i in range(count) if gfns[i] >= len(self._owned) or self._owned[gfns[i]] == LOST]
        failed = super().set_mem_types(mem_type, gfns, count, errors)
        if lost:
            changed = {gfns[i] for i in range(count) if not errors[i]}
            # A frame that was lost before and is lost now was lost all the time: to lose it takes our own answer.
            self.wrong += [
                f"frame {gfn} is not the guest's, and became {mem_type.name}"
                for gfn in changed.intersection(lost)
                if gfn >= len(self._owned) or self._owned[gfn] == LOST
            ]
        return failed

    def map_frames(self, first_gfn: int, count: int, errors: CData, address: int = 0) -> int:
        if not 0 <= first_gfn < first_gfn + count <= len(self._owned):
            self.wrong.append(
                f"frames {first_gfn}..{first_gfn + count - 1} are beyond the domain's end, and were mapped"
            )
        return super().map_frames(first_gfn, count, errors, address)


class Judge:
    """Looks at a device model and its domain. ``owned`` is the harness's record of the guest's frames."""

    def __init__(self, domain: EmbeddedDomain, port: OwnedPort, owned: bytearray, rng: random.Random) -> None:
        self._domain = domain
        self._port = port
        self._owned = owned
        self._rng = rng
        #: What lies in the frames that are not the guest's, by frame.
        self._canaries: dict[int, bytes] = {}
        self.spaces_compared = 0
        self.tables_compared = 0

    def look(self, instance: Instance, registers: Registers | None, model: CData | None) -> None:
        """All of it. The guest stands still, and nothing waits in the slots.

        ``registers``: by the guest's log of its writes; without them the device model's own are believed.
        ``model``: the guest's memory. Raises WrongError.
        """
        self.frames_that_are_lost()
        self.memory(model)
        engine = instance.engine
        judge(not engine.quiesced, "the instance is quiesced")
        if registers is not None:
            live = {
                (mode, root if isinstance(root, tuple) else (root,)): n for (mode, root), n in registers.live.items()
            }
            seen = {(space.mode.value, space.roots): space.refs for space in engine.spaces}
            judge(live == seen, f"live spaces are {live}, not {seen}")
        page_sizes = instance.device.read(0x4080, 4) if registers is None else registers.page_sizes
        ram = OwnedRam(self._domain, self._owned)
        walker = Walker(ram, engine.generation, page_sizes)  # type: ignore[arg-type]
        for space in engine.spaces:
            finish(engine.submit(space.mode, space.roots))
            self._space(instance, walker, space)
        judge(not (found := engine.check()), found)
        instance.traps.check()
        complete(engine.settle())
        instance.traps.unprotect_deferred()
        trapping, said = set(self._domain.protected()), set(instance.traps.protected)
        judge(trapping <= said, f"frames {sorted(trapping - said)[:_SHOWN]} trap, and the device model does not know")
        gone = {gfn for gfn in said - trapping if self._owned[gfn] == OWNED}
        tables = {table.frame for space in engine.spaces for table in walker.tables(space.mode.value, _root(space))}
        judge(
            not gone & tables,
            f"tables {sorted(gone & tables)[:_SHOWN]} do not trap, and the device model does not know",
        )
        self.tables_compared += len(tables)
        self._put_canaries()
        self.faults()

    def faults(self) -> None:
        """What the port has noticed."""
        judge(not self._port.wrong, self._port.wrong[:_SHOWN])

    def frames_that_are_lost(self) -> None:
        """Nobody has written to a frame that was not the guest's since the last look."""
        for frame, was in self._canaries.items():
            if self._owned[frame] == LOST:
                # A frame that was the guest's in between was emptied when it went.
                holds = self._domain.read(frame * PAGE, PAGE)
                judge(holds in (was, EMPTY), f"frame {frame} is not the guest's, and was written")

    def _put_canaries(self) -> None:
        """Fill the frames that are not the guest's with entries that name its tables: who reads them maps something."""
        self._canaries.clear()
        for frame, state in enumerate(self._owned):
            if state == LOST:
                page = struct.pack("<512Q", *[(1 + self._rng.randrange(8)) << 12 | 3] * 512)
                self._domain.write(frame * PAGE, page)
                self._canaries[frame] = page

    def memory(self, model: CData | None) -> None:
        """Every store of the guest is in its memory, and nothing else is."""
        if model is None:
            return
        for frame, state in enumerate(self._owned):
            if state == OWNED:
                got, want = self._domain.read(frame * PAGE, PAGE), bytes(FFI.buffer(model + frame * PAGE, PAGE))
                if got != want:
                    at = next(i for i in range(0, PAGE, 8) if got[i : i + 8] != want[i : i + 8])
                    judge(
                        False, f"{frame * PAGE + at:#x} holds {got[at : at + 8].hex()}, not {want[at : at + 8].hex()}"
                    )

    def _space(self, instance: Instance, walker: Walker, space: Space) -> None:
        engine, mode, root = instance.engine, space.mode.value, _root(space)
        name = f"{mode} space {space.roots}"
        self.spaces_compared += 1
        needed = len(walker.tables(mode, root)) + walker.broken_pages(mode, root)
        quota = instance.settings.max_tables
        whole = needed <= quota and not engine.counters.unprotectable_entries
        if walker.space_summary(mode, root).runs <= _MOST_RUNS:
            want = walker.mappings(mode, root) or []
            got = [list(run) for run in complete(engine.mappings(space)) or ()]
            if whole:
                if got != want:
                    raise WrongError(f"{name} maps {_differences(got, want)}")
            else:
                self._maps_no_more(walker, space, got, name)
        for _ in range(_PLACES):
            va = self._place(space.mode)
            page, run = walker.resolve(mode, root, va), engine.resolve(space, va)
            if run is not None:
                judge(page is not None and tuple(run[2:]) == tuple(page), f"{name}: {va:#x} is {run}, not {page}")
                judge(
                    self._owned[run.gpa // PAGE] == OWNED, f"{name}: {va:#x} leads to a frame that is not the guest's"
                )
            elif whole:
                judge(page is None, f"{name}: {va:#x} is nothing, not {page}")
        found = complete(engine.audit(space))
        judge(found.mismatches == 0, f"{name}: an audit finds {found}")

    def _maps_no_more(self, walker: Walker, space: Space, got: list[list[int]], name: str) -> None:
        for va, length, gpa, writable, cache in self._rng.sample(got, min(len(got), _PLACES)):
            for offset in {0, length // 2 // PAGE * PAGE, length - PAGE}:
                page = walker.resolve(space.mode.value, _root(space), va + offset)
                right = page is not None and tuple(page) == (gpa + offset, writable, cache)
                judge(right, f"{name}: {va + offset:#x} is {gpa + offset:#x}, not {page}")

    def _place(self, mode: Mode) -> int:
        va = self._rng.randrange(2) << 12 if mode is Mode.L4 else self._rng.randrange(4) << 30
        for level in range(4 if mode is Mode.L4 else 2):
            va |= self._rng.choice((0, 0, 1, 2, 3, 15, 16, 17, 255, 256, 510, 511)) << 12 + 9 * level
        return va


def _root(space: Space) -> Any:
    return space.roots[0] if space.mode is Mode.L4 else list(space.roots)


def _differences(got: list[list[int]], want: list[list[int]]) -> str:
    more = [run for run in got if run not in want][:_SHOWN]
    less = [run for run in want if run not in got][:_SHOWN]
    return f"too much: {more}, too little: {less}"
