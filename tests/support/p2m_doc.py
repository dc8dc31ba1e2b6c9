"""The tables of docs/p2m.md, made from the data that the embedded hypervisor works by.

``python -m tests.support.p2m_doc`` writes them into the file again, after a change to the data.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from xengt_dm.hypervisor.embedded import p2m, shadow_paging
from xengt_dm.hypervisor.embedded.p2m import FLAVOURS, Flavour, Look, P2mType
from xengt_dm.hypervisor.port import MemType

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "p2m.md"

LOOKS = {
    Look.DIRECT: "memory",
    Look.DISCARD: "discarded",
    Look.DEVICE: "by range",
    Look.OWNER: "to the owner",
    Look.SETTLE: "becomes RAM",
    Look.RETRY: "retried",
    Look.CRASH: "the domain crashes",
    Look.PAGE_FAULT: "page fault",
}


def name(p2m_type: P2mType) -> str:
    return f"`{p2m_type.name.lower()}`"


def hvm_name(hvmmem: MemType) -> str:
    return f"`{hvmmem.name.lower()}`"


def names(types: Iterable[P2mType]) -> str:
    return ", ".join(map(name, sorted(types)))


def error(number: int) -> str:
    return errno.errorcode[number] if number else "0"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def classes() -> str:
    return table(
        ["class", "predicate", "before the claim", "since the claim", "source"],
        [
            [
                f"`{row.name}`",
                f"`{row.predicate}`",
                names(row.before_claim),
                "the same" if row.before_claim == row.since_claim else names(row.since_claim),
                row.source,
            ]
            for row in p2m.CLASSES
        ],
    )


def flavours() -> str:
    def row(flavour: Flavour) -> list[str]:
        trap = f"{hvm_name(flavour.trap)} = {flavour.trap.value}" if flavour.trap is not None else "none"
        how = "the claim" if flavour.claim else "ranges" if flavour.trap is not None else "-"
        return [
            f"`{flavour.name}`",
            flavour.tree,
            trap,
            how,
            "no" if flavour.unlocked_looks else "yes",
            flavour.straddle.name.lower(),
            flavour.looks_again.name.lower(),
            "newest" if flavour.newest_first else "highest id",
            "yes" if flavour.default_server else "no",
            "yes" if flavour.emulates_again else "no",
            flavour.source,
        ]

    head = ["flavour", "tree", "type that traps", "who gets the store", "one lock for both looks", "straddle"]
    return table(
        [*head, "looks again", "server asked first", "default server", "emulated again", "source"],
        map(row, FLAVOURS.values()),
    )


def _where(members: Iterable[str]) -> str:
    named = set(members)
    return "all" if len(named) == len(FLAVOURS) else ", ".join(f"`{each}`" for each in FLAVOURS if each in named)


#: What the emulator for read-only pages finds.
_WRITES = {Look.DIRECT: "memory", Look.DISCARD: "discarded", Look.RETRY: "retried"}


def shadow() -> str:
    """What the accesses of a guest on shadow paging meet."""
    rows = shadow_paging.SHADOW_LOOKS
    return table(
        ["types", "flavours", "store", "load", "write of the emulator for read-only pages", "source"],
        [
            [names(row.types), _where(row.flavours), LOOKS[row.store], LOOKS[row.load], _WRITES[row.write], row.source]
            for row in rows
        ],
    )


def hap_only() -> str:
    """The types that no frame of a guest on shadow paging has."""
    return table(
        ["types", "flavours", "source"],
        [[names(types), _where(flavours), source] for types, flavours, source in shadow_paging.HAP_TYPES],
    )


def usable() -> str:
    return table(
        ["flavour", "the daemon"],
        [[f"`{flavour.name}`", p2m.why_unusable(flavour) or "runs"] for flavour in FLAVOURS.values()],
    )


def grouped(row: Callable[[Flavour], Sequence[str]]) -> Iterable[tuple[str, Sequence[str]]]:
    """Flavours with the same row, in one."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for flavour in FLAVOURS.values():
        groups.setdefault(tuple(row(flavour)), []).append(f"`{flavour.name}`")
    return [(", ".join(members), cells) for cells, members in groups.items()]


def trapped() -> str:
    def row(flavour: Flavour) -> list[str]:
        look = p2m.look(flavour, P2mType.IOREQ_SERVER)
        looks = (look.store, look.load, look.copy_store, look.copy_load, look.io_store, look.io_load)
        return [*(LOOKS[each] for each in looks), error(look.map_errno), look.source]

    head = ["flavours", "store", "load", "emulator's store", "emulator's load", "its store without memory"]
    return table(
        [*head, "its load without memory", "foreign mapping", "source"],
        [[members, *cells] for members, cells in grouped(row)],
    )


def looks() -> str:
    """The types that all flavours treat alike."""
    rows = [row for row in p2m.LOOKS if P2mType.IOREQ_SERVER not in row.types]
    head = ["types", "store", "load", "emulator's store", "emulator's load", "foreign mapping", "source"]
    return table(
        head,
        [
            [
                names(row.types),
                *(LOOKS[each] for each in (row.store, row.load, row.copy_store, row.copy_load)),
                error(row.map_errno),
                row.source,
            ]
            for row in rows
        ],
    )


def changes() -> str:
    parts = []
    for members, cells in grouped(lambda flavour: [_change_table(flavour)]):
        parts += [f"Flavours {members}:", cells[0]]
    return "\n\n".join(parts)


def _change_table(flavour: Flavour) -> str:
    rows: dict[tuple[str, ...], list[P2mType]] = {}
    for old in P2mType:
        cells = tuple(error(p2m.change(flavour, old, new).errno) for new in MemType)
        rows.setdefault(cells, []).append(old)
    return table(["from, to", *map(hvm_name, MemType)], [[names(types), *cells] for cells, types in rows.items()])


def rules() -> str:
    def one(row: p2m.ChangeRow) -> list[str]:
        types = "any" if len(row.old) == len(P2mType) else names(row.old)
        new = "any" if row.new is None else hvm_name(row.new)
        return [types, new, _where(row.flavours), error(row.errno), row.source]

    return table(["from", "to", "flavours", "answer", "source"], map(one, p2m.CHANGES))


TABLES: dict[str, Callable[[], str]] = {
    "classes": classes,
    "flavours": flavours,
    "usable": usable,
    "trapped": trapped,
    "looks": looks,
    "shadow": shadow,
    "hap_only": hap_only,
    "changes": changes,
    "rules": rules,
}
_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def render(text: str) -> str:
    """The document with its tables made anew. KeyError for a table that nobody knows."""
    return _BLOCK.sub(lambda block: f"{block[1]}\n{TABLES[block[2]]()}\n\n{block[3]}", text)


if __name__ == "__main__":
    DOCUMENT.write_text(render(DOCUMENT.read_text("utf-8")), "utf-8")
