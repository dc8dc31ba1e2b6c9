"""A guest on shadow paging (``hap=0``): what differs from a guest with HAP.

Such a guest runs on page tables that Xen derives from the guest's own. An access that these tables refuse is a page
fault, which ``sh_page_fault`` decides by the p2m type; so it is what the nested page fault is to a guest with HAP.
Where it hands the access on as MMIO, the same emulator as for HAP continues. A store to a page that is read-only goes
to another emulator, which knows memory only: it performs the store, or drops it, or cannot do it. In the last case the
guest executes the instruction again, for ever.

Paths are in xen.git, at the tree that the flavour names. See docs/p2m.md.
"""

from __future__ import annotations

import enum
import errno
from dataclasses import dataclass
from typing import Final

from xengt_dm.hypervisor.embedded.p2m import (
    FLAVOURS,
    ChangeRow,
    Flavour,
    Look,
    LookRow,
    P2mType,
    Types,
    change,
    look,
)
from xengt_dm.hypervisor.port import MemType


class Paging(enum.StrEnum):
    """How Xen translates a guest's addresses."""

    HAP = "hap"
    SHADOW = "shadow"


T = P2mType
_EVERY: Final = frozenset(FLAVOURS)
_CLAIM: Final = frozenset(name for name, flavour in FLAVOURS.items() if flavour.claim)


@dataclass(frozen=True)
class ShadowRow:
    """What the accesses of a guest on shadow paging to a frame of a type meet.

    ``write`` is what the emulator for read-only pages finds when it would write to such a frame: memory (DIRECT),
    DISCARD, or nothing that it can write to (RETRY).
    """

    types: Types
    flavours: frozenset[str]
    store: Look
    load: Look
    write: Look
    source: str


def _only(*types: P2mType) -> Types:
    return frozenset(types)


_FAULT = "mm/shadow/multi.c sh_page_fault"
_GVA = "mm/shadow emulate_gva_to_mfn"
_D, _X, _V, _S, _R = Look.DIRECT, Look.DISCARD, Look.DEVICE, Look.SETTLE, Look.RETRY

#: Where emulate_gva_to_mfn is: multi.c in the 2014 series, common.c in 4.7 and 4.9, hvm.c since 4.12 (06d473a135).
SHADOW_LOOKS: Final = (
    ShadowRow(_only(T.RAM_RW), _EVERY, _D, _D, _D, f"{_FAULT}; {_GVA}"),
    ShadowRow(_only(T.POPULATE_ON_DEMAND), _EVERY, _S, _S, _D, f"{_FAULT}: get_gfn; p2m-pod.c p2m_pod_demand_populate"),
    ShadowRow(_only(T.RAM_RO), _EVERY, _X, _D, _X, f"{_FAULT}: p2m_is_readonly; {_GVA}: p2m_is_discard_write"),
    # p2m_is_discard_write holds for it, but the page is another domain's, so get_page_from_gfn has given none before
    # that is asked.
    ShadowRow(_only(T.GRANT_MAP_RO), _EVERY, _R, _D, _R, f"{_FAULT}: p2m_is_readonly; {_GVA}: get_page_from_gfn"),
    ShadowRow(_only(T.GRANT_MAP_RW, T.MMIO_DIRECT), _EVERY, _D, _D, _R, f"{_FAULT}; {_GVA}: get_page_from_gfn"),
    ShadowRow(_only(T.MMIO_DM), _EVERY, _V, _V, _R, f"{_FAULT}: p2m_mmio_dm; {_GVA}: get_page_from_gfn"),
    ShadowRow(_only(T.INVALID, T.MAP_FOREIGN), _EVERY, Look.PAGE_FAULT, Look.PAGE_FAULT, _R, f"{_FAULT}: p2m_is_valid"),
    ShadowRow(_only(T.RAM_BROKEN), _EVERY, Look.CRASH, Look.CRASH, _R, "mm/p2m.c __get_gfn_type_access: P2M_ALLOC"),
    # Facts: the series has sh_page_fault hand a demand write to this type on as MMIO, and _sh_propagate makes the page
    # read-only, as p2m_is_readonly says. But before both, each asks p2m_is_valid, and the type is neither in
    # P2M_RAM_TYPES nor in P2M_MMIO_TYPES: as it was committed, and up to 4.8, the guest gets a page fault for a load as
    # well as for a store, and the series' line is never reached. Decision: we do what the series says in that line.
    # Cost: here is a guest that nobody can have had on 4.6 to 4.8.
    ShadowRow(_only(T.IOREQ_SERVER), _EVERY - _CLAIM, _V, _D, _R, f"b4986813c5: {_FAULT}: ft_demand_write; {_GVA}"),
)

#: Types that no frame of a guest on shadow paging has: where Xen sees to that.
HAP_TYPES: Final = (
    (_only(T.RAM_LOGDIRTY), _EVERY, "mm/shadow/multi.c _sh_propagate: only HAP has the type"),
    (_only(T.RAM_PAGING_OUT, T.RAM_PAGED, T.RAM_PAGING_IN), _EVERY, "common/vm_event.c vm_event_domctl: hap_enabled"),
    (_only(T.RAM_SHARED), _EVERY, "mm/mem_sharing.c mem_sharing_domctl: hap_enabled"),
    (_only(T.IOREQ_SERVER), _CLAIM, "hvm/dm.c set_mem_type: hap_enabled; ca2b511d3f"),
)

#: The rule of set_mem_type that comes before all others; the claim is refused in the same way.
REFUSED: Final = ChangeRow(
    frozenset(P2mType), MemType.IOREQ_SERVER, _CLAIM, errno.EOPNOTSUPP, "hvm/dm.c set_mem_type: hap_enabled; ca2b511d3f"
)


def can_have(flavour: Flavour, paging: Paging, p2m_type: P2mType) -> bool:
    """Whether a frame of such a guest can have a type."""
    hap_only = (types for types, flavours, _ in HAP_TYPES if flavour.name in flavours)
    return paging is Paging.HAP or not any(p2m_type in types for types in hap_only)


def shadow_look(flavour: Flavour, p2m_type: P2mType) -> ShadowRow | None:
    """What accesses to a type meet in a guest on shadow paging; None for a type that no frame of it has."""
    for row in SHADOW_LOOKS:
        if p2m_type in row.types and flavour.name in row.flavours:
            return row
    assert not can_have(flavour, Paging.SHADOW, p2m_type), f"no row for {p2m_type.name}"
    return None


def paged_look(flavour: Flavour, paging: Paging, p2m_type: P2mType) -> tuple[LookRow, Look, Look, Look]:
    """The row for what both pagings share, and a store, a load, and a write of the emulator for read-only pages."""
    row = look(flavour, p2m_type)
    shadow = shadow_look(flavour, p2m_type) if paging is Paging.SHADOW else None
    if shadow is None:
        return row, row.store, row.load, Look.RETRY
    return row, shadow.store, shadow.load, shadow.write


def paged_change(flavour: Flavour, paging: Paging, old: P2mType, new: MemType) -> ChangeRow:
    """The rule that decides a change of type."""
    if paging is Paging.SHADOW and flavour.name in REFUSED.flavours and new is REFUSED.new:
        return REFUSED
    return change(flavour, old, new)
