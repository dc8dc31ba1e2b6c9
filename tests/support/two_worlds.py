"""Two instances that are asked the same: in one C serves what it can, in the other Python serves everything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.support.serving import serve_all
from tests.support.tables import FRAME, pte
from xengt_dm._core import ffi, lib
from xengt_dm._embedded import lib as embedded
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.instance import Instance, open_instance
from xengt_dm.pointers import pointer_into
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.ppgtt.space import Mode
from xengt_dm.settings import Settings
from xengt_dm.stats.counters import read_counters
from xengt_dm.steps import complete
from xengt_dm.vgpu.state import BAR0, UNASSIGNED

FRAMES = 64
VCPUS = 2
HOLE = 40
L4, L3, L2, L1, OTHER_L1, SELF, DATA = range(2, 9)
COPY: int = lib.XD_IOREQ_COPY


def request(addr: int, data: int = 0, size: int = 8, bits: int = 0) -> dict[str, int]:
    """A single access to memory."""
    return {"addr": addr, "data": data, "size": size, "count": 1, "bits": bits, "type": COPY}


class World:
    """An instance whose slots a test fills. ``bursts``: whether C serves what it can."""

    def __init__(self, stack: ExitStack, sync: Sync, *, bursts: bool) -> None:
        self.domain = stack.enter_context(EmbeddedDomain(FRAMES, VCPUS, holes=[(HOLE, 4)]))
        self.instance: Instance = stack.enter_context(
            open_instance(self.domain.port(), Settings(sync=sync, generation=9))
        )
        quick = self.instance.loop.quick
        assert quick is not None
        quick.on = bursts
        for table, entries in {L4: [L3], L3: [L2], L2: [L1, OTHER_L1, SELF], SELF: [DATA, SELF]}.items():
            for n, child in enumerate(entries):
                self.domain.write(table * FRAME + 8 * n, pte(child).to_bytes(8, "little"))
        complete(self.instance.engine.create_space(Mode.L4, (L4 * FRAME,)))

    def ask(self, vcpu: int, fields: dict[str, int]) -> int:
        """Have a request served; returns what a read reads."""
        page = self.instance.server.slots.page
        assert embedded.xd_slot_post(page, vcpu, ffi.new("xd_ioreq *", fields)) == 0
        assert serve_all(self.instance.loop) == 1
        assert lib.xd_slot_state(page, vcpu) == lib.XD_STATE_RESP_READY
        embedded.xd_slot_set_state(page, vcpu, lib.XD_STATE_NONE)
        return int(embedded.xd_slot_data(page, vcpu)) if fields["bits"] & lib.XD_BIT_READ else 0

    def state(self) -> dict[str, Any]:
        """All that a guest, an operator and a successor can see."""
        engine, found = self.instance.engine, self.instance.found.state
        bar0 = BAR0.of(found.device)
        answers = engine.counters.timing.answers
        return {
            "memory": [self.domain.read(gfn * FRAME, FRAME) for gfn in range(FRAMES) if not HOLE <= gfn < HOLE + 4],
            "registers": bytes(bar0[: UNASSIGNED.start]),
            "ggtt": bytes(bar0[UNASSIGNED.stop : UNASSIGNED.stop + FRAME]) + bytes(bar0[-FRAME:]),
            "journal": self.unfinished(),
            "counters": read_counters(engine.counters),
            "answers": [sum(answers[route].counts) for route in range(lib.XD_ROUTES)],
            "spaces": [(space.mode, space.roots, space.refs) for space in engine.spaces],
            "mappings": [[*map(tuple, complete(engine.mappings(space)))] for space in engine.spaces],
            "tables": [*engine.tables()],
            "protected": self.domain.protected(),
            "lives": self.lives(),
            "spaces by age": [space.roots for space in engine.spaces_by_age],
            "shadowed by age": [space.roots for space in engine._spaces._shadowed],
        }

    def unfinished(self) -> list[int]:
        """The vCPUs whose requests, all of which are answered, a successor would find neither untouched nor done."""
        records = pointer_into("xd_journal_record *", self.instance.found.state.journal)
        known = (lib.XD_JOURNAL_NOTHING, lib.XD_JOURNAL_DONE)
        return [vcpu for vcpu in range(VCPUS) if records[vcpu].commit & 0xFF not in known]

    def lives(self) -> list[tuple[int, ...]]:
        """What decides which leaf tables are unsynced: of each table in use, the flags and, of a leaf, its life."""
        shadow = self.instance.engine.shadow
        found = []
        for number in range(1, shadow.used + 1):
            table = shadow.tables[number]
            leaf = table.kind & lib.XD_LEVEL_MASK == 1
            life = (table.life.unchanged, table.life.calm, table.life.waited, table.life.patience) if leaf else ()
            if table.kind:
                found.append((table.gfn, table.kind, table.flags, *life))
        return sorted(found)


@contextmanager
def two_worlds(sync: Sync) -> Iterator[tuple[World, World]]:
    with ExitStack() as stack:
        yield World(stack, sync, bursts=True), World(stack, sync, bursts=False)
