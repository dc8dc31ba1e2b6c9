"""What a daemon is stepped through: each kind of request of the guest, and each command of the operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.storm.world import CLEARED, MASKED, PLAIN_FRAMES
from tests.support.sim import Console
from tests.support.tables import FRAME, address, pte
from xengt_dm.settings import DEFAULT_BAR0
from xengt_dm.vgpu import registers as reg

#: Frames of the domain.
FRAMES: Final = 64
#: An L4 space with two leaves, which is announced twice.
L4, L3, L2, L1, OTHER_L1 = range(2, 7)
#: A directory with leaves that nothing links, and one that an L4 space links already.
LOOSE_L2, LOOSE_L1, LOOSE_OTHER_L1 = range(7, 10)
#: A second space, announced once, and one that is not announced.
SECOND_L4, SECOND_L3, SECOND_L2, SECOND_L1 = range(10, 14)
NEW_L4, NEW_L3, NEW_L2, NEW_L1 = range(14, 18)
#: The roots of an L3 space.
PDS = range(18, 22)
#: Plain pages, and one that is given back.
DATA: Final = 32
BALLOON: Final = 40

REGISTERS: Final = PLAIN_FRAMES[0][0] * FRAME
GGTT: Final = PLAIN_FRAMES[0][1] * FRAME
_NOTIFY: Final = DEFAULT_BAR0 + reg.G2V_NOTIFY
_PDP0: Final = DEFAULT_BAR0 + reg.PDP0


def prepare(console: Console) -> None:
    """What the guest has done before."""

    def store(gpa: int, value: int, size: int = 8) -> None:
        console.run(0, "store", gpa, size, value)

    for tables in ([L4, L3, L2, L1], [SECOND_L4, SECOND_L3, SECOND_L2, SECOND_L1], [NEW_L4, NEW_L3, NEW_L2, NEW_L1]):
        for table, child in zip(tables, [*tables[1:], DATA], strict=True):
            store(address(table), pte(child))
    store(address(L2, 1), pte(OTHER_L1))
    store(address(LOOSE_L2, 3), pte(LOOSE_L1))
    store(address(LOOSE_L2, 9), pte(LOOSE_OTHER_L1))
    for leaf in (L1, OTHER_L1, LOOSE_L1, LOOSE_OTHER_L1):
        console.run(
            0, "store_bytes", address(leaf, 8), b"".join(pte(DATA + n).to_bytes(8, "little") for n in range(8)).hex()
        )
    for n, page in enumerate(PDS):
        store(address(page, n), pte(LOOSE_L1))
        store(_PDP0 + 8 * n, page * FRAME)
    store(_NOTIFY, int(reg.Notification.PPGTT_L3_CREATE), 4)
    for root in (L4, L4, SECOND_L4):
        store(_PDP0, root * FRAME)
        store(_NOTIFY, int(reg.Notification.PPGTT_L4_CREATE), 4)
    for n in range(16):
        store(REGISTERS + 8 * n, 0x1111111111111111 * n)
        store(DATA * FRAME + 8 * n, 0x0101010101010101 * n)
    store(DEFAULT_BAR0 + MASKED[0][0], 0x00FF0055, 4)
    store(BALLOON * FRAME, 0x77)


@dataclass(frozen=True)
class Case:
    """One request or command. ``before``: stores to registers, (gpa, size, value), that come first.

    ``op``: an instruction of vCPU 0 with its arguments. ``command``: of the operator, with its arguments; ``commands``
    come before it.
    """

    name: str
    op: tuple[Any, ...] = ()
    before: tuple[tuple[int, int, int], ...] = ()
    command: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    commands: tuple[tuple[str, Mapping[str, Any]], ...] = ()


def _notify(name: str, kind: reg.Notification, root: int | None = None) -> Case:
    before = () if root is None else ((_PDP0, 8, root * FRAME),)
    return Case(name, ("store", _NOTIFY, 4, int(kind)), before)


def _l3(name: str, kind: reg.Notification) -> Case:
    before = tuple((_PDP0 + 8 * n, 8, page * FRAME) for n, page in enumerate(PDS))
    return Case(name, ("store", _NOTIFY, 4, int(kind)), before)


_Kind = reg.Notification
REQUESTS: Final = (
    Case("store to a leaf", ("store", address(L1, 5), 8, pte(DATA + 1))),
    Case("store over two leaves", ("store", address(L1, 512) - 4, 8, 0x1122334455667788)),
    Case("store that links tables", ("store", address(L3, 7), 8, pte(LOOSE_L2))),
    Case("store that unlinks tables", ("store", address(L3), 8, 0)),
    Case("exchange in a leaf", ("xchg", address(L1, 5), 8, pte(DATA + 2))),
    Case("add to a leaf", ("modify", 3, address(L1, 8), 8, FRAME)),
    Case("vector store to a leaf", ("store_bytes", address(L1, 16), "5a" * 64)),
    Case("rep stos to a leaf", ("rep_stos", address(L1, 16), 8, 3, pte(DATA + 3))),
    Case("rep movs within a leaf", ("rep_movs", address(L1, 9), address(L1, 8), 8, 4)),
    Case("rep movs within a directory", ("rep_movs", address(L2, 1), address(L2, 0), 8, 3)),
    Case("write of a plain register", ("store", REGISTERS + 8, 4, 0xABCD)),
    Case("write of a GGTT entry", ("store", GGTT + 16, 8, 0xABCDEF)),
    Case("read of a plain register", ("load", REGISTERS + 16, 4)),
    Case("write of a masked register", ("store", DEFAULT_BAR0 + MASKED[0][0], 4, 0x0F0F0A0A)),
    Case("write of one to clear", ("store", DEFAULT_BAR0 + CLEARED[0][0], 4, 0x12340101)),
    Case("rep stos to registers", ("rep_stos", REGISTERS, 4, 8, 0x5A5A)),
    Case("rep movs from registers to a leaf", ("rep_movs", address(L1, 32), REGISTERS, 4, 16)),
    Case("rep movs from registers to data", ("rep_movs", (DATA + 4) * FRAME, REGISTERS, 4, 16)),
    Case("rep movs from a leaf to registers", ("rep_movs", REGISTERS, address(L1, 8), 4, 16)),
    _notify("announcement of a new space", _Kind.PPGTT_L4_CREATE, NEW_L4),
    _notify("announcement of a live space", _Kind.PPGTT_L4_CREATE, L4),
    _notify("end of one announcement of two", _Kind.PPGTT_L4_DESTROY, L4),
    _notify("end of the only announcement", _Kind.PPGTT_L4_DESTROY, SECOND_L4),
    _l3("announcement of a live L3 space", _Kind.PPGTT_L3_CREATE),
    _l3("end of an L3 space", _Kind.PPGTT_L3_DESTROY),
    Case("frames given back", ("remove", BALLOON, 2)),
)
COMMANDS: Final = (
    Case("mode relaxed", command="mode", arguments={"mode": "relaxed"}),
    Case("mode strict", command="mode", arguments={"mode": "strict"}, commands=(("mode", {"mode": "relaxed"}),)),
    Case("quiesce", command="quiesce"),
    Case("resume", command="resume", commands=(("quiesce", {}),)),
    Case("record", command="record", arguments={"file": "a.trace"}),
    Case("end of a recording", command="record", arguments={"stop": True}, commands=(("record", {"file": "a.trace"}),)),
    Case("upgrade", command="upgrade"),
    Case("audit", command="audit", arguments={"sync": True}),
    Case("store of a GPU", command="gpu_store", arguments={"root": L4 * FRAME, "va": 8, "value": 0x55}),
)
CASES: Final = (*REQUESTS, *COMMANDS)
