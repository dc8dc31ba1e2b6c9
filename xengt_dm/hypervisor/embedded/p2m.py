"""p2m types, and what each Xen does with them: the data that the embedded hypervisor works by.

One table for the types (:data:`CLASSES`), one for what an access to each type meets (:data:`LOOKS`), one for the
changes of type that a device model may ask for (:data:`CHANGES`), one for the rest that differs between releases
(:data:`FLAVOURS`). Every row has its source; paths are in xen.git at the release named, or at the commit.
"""

from __future__ import annotations

import enum
import errno
from dataclasses import dataclass
from typing import Final

from xengt_dm._embedded import lib
from xengt_dm.hypervisor.port import MemType


class P2mType(enum.IntEnum):
    """p2m_type_t, xen/arch/x86/include/asm/p2m.h (4.17)."""

    RAM_RW = 0
    INVALID = 1
    RAM_LOGDIRTY = 2
    RAM_RO = 3
    #: Also what a lookup says of a frame that has no entry: a hole.
    MMIO_DM = 4
    MMIO_DIRECT = 5
    POPULATE_ON_DEMAND = 6
    GRANT_MAP_RW = 7
    GRANT_MAP_RO = 8
    RAM_PAGING_OUT = 9
    RAM_PAGED = 10
    RAM_PAGING_IN = 11
    RAM_SHARED = 12
    RAM_BROKEN = 13
    MAP_FOREIGN = 14
    #: p2m_mmio_write_dm up to 4.7, p2m_ioreq_server since 4.8 (b4986813c5, cb34624af5).
    IOREQ_SERVER = 15


class Look(enum.IntEnum):
    """What an access meets when the hardware, or the emulator, looks at a type."""

    DIRECT = lib.XD_LOOK_DIRECT
    DISCARD = lib.XD_LOOK_DISCARD
    DEVICE = lib.XD_LOOK_DEVICE
    OWNER = lib.XD_LOOK_OWNER
    SETTLE = lib.XD_LOOK_SETTLE
    RETRY = lib.XD_LOOK_RETRY
    CRASH = lib.XD_LOOK_CRASH
    PAGE_FAULT = lib.XD_LOOK_PAGE_FAULT


T = P2mType
Types = frozenset[P2mType]

_RAM_BUT_TRAP: Final[Types] = frozenset(
    {T.RAM_RW, T.RAM_LOGDIRTY, T.RAM_RO, T.RAM_PAGING_OUT, T.RAM_PAGED, T.RAM_PAGING_IN, T.RAM_SHARED}
)
_RO_BUT_TRAP: Final[Types] = frozenset({T.RAM_LOGDIRTY, T.RAM_RO, T.GRANT_MAP_RO, T.RAM_SHARED})


@dataclass(frozen=True)
class TypeClass:
    """A class of p2m types, with the predicate that asks for it, before and since the claim (ca2b511d3f, 4.9)."""

    name: str
    predicate: str
    before_claim: Types
    since_claim: Types
    source: str


def _same(name: str, predicate: str, source: str, *types: P2mType) -> TypeClass:
    return TypeClass(name, predicate, frozenset(types), frozenset(types), source)


#: Membership by release line. All from P2M_*_TYPES of p2m.h: b4986813c5 (the 2014 series) and stable-4.17.
CLASSES: Final = (
    TypeClass("P2M_RAM_TYPES", "p2m_is_ram", _RAM_BUT_TRAP, _RAM_BUT_TRAP | {T.IOREQ_SERVER}, "p2m.h; ca2b511d3f"),
    TypeClass(
        "P2M_RO_TYPES",
        "p2m_is_readonly",
        _RO_BUT_TRAP | {T.IOREQ_SERVER},
        _RO_BUT_TRAP,
        "p2m.h; b4986813c5, ca2b511d3f",
    ),
    _same("P2M_DISCARD_WRITE_TYPES", "p2m_is_discard_write", "p2m.h; 1c02cce0ed", T.RAM_RO, T.GRANT_MAP_RO),
    _same("P2M_HOLE_TYPES", "p2m_is_hole", "p2m.h", T.MMIO_DM, T.INVALID, T.RAM_PAGING_IN, T.RAM_PAGED),
    _same("P2M_MMIO_TYPES", "p2m_is_mmio", "p2m.h", T.MMIO_DM, T.MMIO_DIRECT),
    _same("P2M_POD_TYPES", "p2m_is_pod", "p2m.h", T.POPULATE_ON_DEMAND),
    _same("P2M_GRANT_TYPES", "p2m_is_grant", "p2m.h", T.GRANT_MAP_RW, T.GRANT_MAP_RO),
    _same("P2M_PAGING_TYPES", "p2m_is_paging", "p2m.h", T.RAM_PAGING_OUT, T.RAM_PAGED, T.RAM_PAGING_IN),
    _same("P2M_SHARED_TYPES", "p2m_is_shared", "p2m.h", T.RAM_SHARED),
)


def members(predicate: str, claim: bool) -> Types:
    """The types for which ``predicate`` holds; ``claim``: in a Xen that has the claim."""
    for row in CLASSES:
        if row.predicate == predicate:
            return row.since_claim if claim else row.before_claim
    raise KeyError(predicate)


def reported(p2m_type: P2mType, claim: bool) -> MemType:
    """What HVMOP_get_mem_type says of a frame (xen/arch/x86/hvm/hvm.c hvmop_get_mem_type)."""
    if p2m_type in members("p2m_is_mmio", claim):
        return MemType.MMIO_DM
    if p2m_type == T.IOREQ_SERVER:
        return MemType.IOREQ_SERVER if claim else MemType.MMIO_WRITE_DM
    if p2m_type in members("p2m_is_readonly", claim):
        return MemType.RAM_RO
    if any(p2m_type in members(predicate, claim) for predicate in ("p2m_is_ram", "p2m_is_pod", "p2m_is_grant")):
        return MemType.RAM_RW
    return MemType.MMIO_DM


class Straddle(enum.IntEnum):
    """How the emulator treats a store over a page's end (cffi_build/embedded/rules.h)."""

    SPLIT = lib.XD_STRADDLE_SPLIT
    IO = lib.XD_STRADDLE_IO
    ALIGNED = lib.XD_STRADDLE_ALIGNED


_SPLIT, _IO, _ALIGNED = Straddle.SPLIT, Straddle.IO, Straddle.ALIGNED


class Again(enum.IntEnum):
    """Which parts of an access by request the emulator tries as memory again, once answered (rules.h)."""

    NEVER = lib.XD_AGAIN_NEVER
    FIRST = lib.XD_AGAIN_FIRST
    ALWAYS = lib.XD_AGAIN_ALWAYS


_NEVER, _FIRST, _ALWAYS = Again.NEVER, Again.FIRST, Again.ALWAYS
_WRITE_DM, _IOREQ = MemType.MMIO_WRITE_DM, MemType.IOREQ_SERVER


@dataclass(frozen=True)
class Flavour:
    """A release line, as far as it differs from the others."""

    name: str
    #: Where the source column's paths are to be read.
    tree: str
    #: The hvmmem type that traps writes, or None.
    trap: MemType | None
    #: XEN_DMOP_map_mem_type_to_ioreq_server exists.
    claim: bool
    #: hvm_hap_nested_page_fault dropped the p2m lock before it emulated.
    unlocked_looks: bool
    #: How a store over a page's end is emulated.
    straddle: Straddle
    #: What becomes of a store whose page became memory while it was being answered.
    looks_again: Again
    #: Servers are a list, the newest in front; else an array, searched from the highest id down.
    newest_first: bool
    #: A server can be the default, for what no range claims.
    default_server: bool
    #: A store is emulated a second time when its request is answered. Else the first time was all: the request is sent,
    #: and the instruction counts as done.
    emulates_again: bool
    source: str


#: Each column's change: claim ca2b511d3f (4.9), unlocked_looks d909cb9999 (4.9), straddle 3bdec530a5 (4.12) and the
#: multi-cycle rework of 4.6, looks_again 3bdec530a5, 522a2f3c5c (4.13, 4.12.1) and 672894a11f (4.20, 4.19.2,
#: 4.18.5), newest_first 97a5a3e301 (4.11), default_server 2c257bd69a (4.12), trap c858e932c1 (4.7), emulates_again
#: 8ac5da305f (4.6, half a year after the series): before, hvmemul_do_io left a write in the state HVMIO_dispatched and
#: returned X86EMUL_OKAY, so the instruction was over.
FLAVOURS: Final = {
    flavour.name: flavour
    for flavour in (
        Flavour(
            "v7", "b4986813c5", _WRITE_DM, False, True, _ALIGNED, _NEVER, True, True, False, "[PATCH v7 2/2], Xen 4.6"
        ),
        Flavour("4.7", "RELEASE-4.7.0", None, False, True, _IO, _NEVER, True, True, True, "c858e932c1"),
        Flavour("4.9", "RELEASE-4.9.0", _IOREQ, True, False, _IO, _NEVER, True, True, True, "ca2b511d3f"),
        Flavour("4.12", "RELEASE-4.12.0", _IOREQ, True, False, _SPLIT, _ALWAYS, False, False, True, "d7bff2bc00"),
        Flavour("4.17", "stable-4.17", _IOREQ, True, False, _SPLIT, _NEVER, False, False, True, "stable-4.17"),
        Flavour(
            "4.20", "stable-4.20", _IOREQ, True, False, _SPLIT, _FIRST, False, False, True, "stable-4.20; 672894a11f"
        ),
    )
}


_EVERY: Final = frozenset(FLAVOURS)
_CLAIM: Final = frozenset(name for name, flavour in FLAVOURS.items() if flavour.claim)


@dataclass(frozen=True)
class LookRow:
    """What an access to a frame of a type meets, and whether a foreign mapping of it succeeds (errno, or 0)."""

    types: Types
    flavours: frozenset[str]
    store: Look
    load: Look
    copy_store: Look
    copy_load: Look
    io_store: Look
    io_load: Look
    map_errno: int
    source: str


def _only(*types: P2mType) -> Types:
    return frozenset(types)


_HAP = "hvm.c hvm_hap_nested_page_fault"
_COPY = "hvm.c hvm_translate_get_page, __hvm_copy"
_MAP = "mm.c mod_l1_entry, p2m.h get_page_from_gfn"
D, X, V, C, S, R, F = Look.DIRECT, Look.DISCARD, Look.DEVICE, Look.OWNER, Look.SETTLE, Look.RETRY, Look.CRASH

#: Columns: hardware store and load, the emulator's copy to and from memory, its I/O when there is no memory to copy.
LOOKS: Final = (
    LookRow(_only(T.RAM_RW), _EVERY, D, D, D, D, V, V, 0, f"{_HAP}; {_COPY}; {_MAP}"),
    LookRow(_only(T.RAM_LOGDIRTY), _EVERY, S, D, D, D, V, V, 0, f"{_HAP}: p2m_change_type_one; {_COPY}; {_MAP}"),
    LookRow(_only(T.POPULATE_ON_DEMAND), _EVERY, S, S, D, D, V, V, 0, "p2m-pod.c p2m_pod_demand_populate"),
    LookRow(_only(T.RAM_RO), _EVERY, X, D, X, D, V, V, 0, f"{_HAP}: p2m_is_discard_write; {_COPY}; {_MAP}"),
    LookRow(_only(T.MMIO_DM), _EVERY, V, V, V, V, V, V, errno.EINVAL, f"{_HAP}; emulate.c hvmemul_do_io; {_MAP}"),
    LookRow(_only(T.MMIO_DIRECT), _EVERY, D, D, V, V, V, V, errno.EINVAL, f"{_COPY}; {_MAP}"),
    LookRow(_only(T.MAP_FOREIGN), _EVERY, D, D, D, D, V, V, errno.EINVAL, f"{_COPY}; {_MAP}: it is a control domain's"),
    # The page is another domain's, so get_page gives the emulator none, nor a foreign mapping. (A domain may grant
    # pages to itself; then the copy is unhandleable, a fault, and the mapping succeeds. Nobody does.)
    LookRow(_only(T.GRANT_MAP_RW), _EVERY, D, D, V, V, V, V, errno.EINVAL, f"{_COPY}; {_MAP}: get_page"),
    LookRow(_only(T.GRANT_MAP_RO), _EVERY, X, D, V, V, V, V, errno.EINVAL, f"{_HAP}; {_COPY}; {_MAP}: get_page"),
    LookRow(
        _only(T.RAM_PAGING_OUT, T.RAM_PAGED, T.RAM_PAGING_IN),
        _EVERY,
        R,
        R,
        R,
        R,
        V,
        V,
        errno.ENOENT,
        f"{_COPY}; {_MAP}",
    ),
    LookRow(_only(T.RAM_SHARED), _EVERY, R, D, R, D, V, V, errno.ENOMEM, f"{_HAP}: sharing_enomem; {_COPY}; {_MAP}"),
    LookRow(_only(T.INVALID, T.RAM_BROKEN), _EVERY, F, F, V, V, V, V, errno.EINVAL, f"{_HAP}; {_COPY}; {_MAP}"),
    LookRow(
        _only(T.IOREQ_SERVER),
        _CLAIM - {"4.9"},
        C,
        D,
        V,
        D,
        C,
        D,
        0,
        f"{_HAP}; {_COPY}; emulate.c hvmemul_do_io; {_MAP}",
    ),
    # The emulator's copy did not refuse the type before d7bff2bc00, so rep stos and movs bypassed the device model.
    LookRow(
        _only(T.IOREQ_SERVER),
        frozenset({"4.9"}),
        C,
        D,
        D,
        D,
        C,
        D,
        0,
        f"{_HAP}; {_COPY}; emulate.c hvmemul_do_io; {_MAP}",
    ),
    # Before it was a RAM type, get_page_from_gfn gave no page for it: not to the emulator, whose reads then went to the
    # device model as well, and not to a foreign mapping.
    LookRow(_only(T.IOREQ_SERVER), _EVERY - _CLAIM, V, D, V, V, V, V, errno.EINVAL, f"b4986813c5: {_HAP}; {_COPY}"),
)


@dataclass(frozen=True)
class ChangeRow:
    """A rule of set_mem_type: a change from any of ``old`` to ``new`` (None: any) is answered with ``errno``.

    The first row that fits decides.
    """

    old: Types
    new: MemType | None
    flavours: frozenset[str]
    errno: int
    source: str


_ALL: Final[Types] = frozenset(P2mType)
_V7: Final = frozenset({"v7"})
_DM = "hvm/dm.c set_mem_type"
_ALLOW = "hvm/dm.c allow_p2m_type_change"
_OP = "hvm/hvm.c do_hvm_op HVMOP_set_mem_type"

#: That the type must be claimed before a page can get it is checked first of all, and not here.
CHANGES: Final = (
    ChangeRow(_ALL, MemType.MMIO_WRITE_DM, _EVERY - _V7, errno.EINVAL, f"{_DM}: HVMMEM_unused; c858e932c1"),
    ChangeRow(_ALL, MemType.IOREQ_SERVER, _EVERY - _CLAIM, errno.EINVAL, f"{_OP}: ARRAY_SIZE(memtype)"),
    ChangeRow(members("p2m_is_paging", True), None, _EVERY, errno.EAGAIN, f"{_DM}: p2m_is_paging; {_OP}"),
    ChangeRow(members("p2m_is_shared", True), None, _EVERY, errno.EAGAIN, f"{_DM}: p2m_is_shared; {_OP}"),
    # get_gfn_unshare populates the frame before its type is looked at.
    ChangeRow(_only(T.RAM_RW, T.POPULATE_ON_DEMAND), None, _EVERY, 0, f"{_ALLOW}: old == p2m_ram_rw; {_OP}"),
    ChangeRow(_ALL, MemType.IOREQ_SERVER, _CLAIM, errno.EINVAL, f"{_ALLOW}: old == p2m_ram_rw"),
    ChangeRow(_only(T.IOREQ_SERVER), MemType.RAM_RW, _EVERY, 0, f"{_ALLOW}: new == p2m_ram_rw; {_OP}"),
    ChangeRow(_only(T.IOREQ_SERVER), None, _EVERY, errno.EINVAL, f"{_ALLOW}: new == p2m_ram_rw; {_OP}"),
    ChangeRow(_RAM_BUT_TRAP, None, _EVERY, 0, f"{_ALLOW}: p2m_is_ram(old); {_OP}"),
    ChangeRow(members("p2m_is_hole", True), MemType.MMIO_DM, _EVERY, 0, f"{_ALLOW}: p2m_is_hole(old); {_OP}"),
    ChangeRow(_ALL, None, _EVERY, errno.EINVAL, f"{_ALLOW}; {_OP}"),
)


def change(flavour: Flavour, old: P2mType, new: MemType) -> ChangeRow:
    """The rule that decides a change of type."""
    for row in CHANGES:
        if flavour.name in row.flavours and old in row.old and row.new in (None, new):
            return row
    raise AssertionError("the last rule fits everything")


def look(flavour: Flavour, p2m_type: P2mType) -> LookRow:
    """What accesses to a type meet."""
    for row in LOOKS:
        if p2m_type in row.types and flavour.name in row.flavours:
            return row
    raise AssertionError(f"no row for {p2m_type.name}")


def why_unusable(flavour: Flavour) -> str:
    """Why no device model can rely on seeing every store to a page in this Xen, and what to do; empty if it can.

    Of the types that trap: c858e932c1 took the old one away, cb34624af5 brought the new one, and ca2b511d3f the claim
    that shows who gets the stores. d7bff2bc00 kept the emulator itself from storing to such pages.
    """
    remedy = "run the guest on Xen 4.13 or later"
    if flavour.trap is None:
        return f"Xen {flavour.name} has no page type that traps stores (HVMMEM_mmio_write_dm was withdrawn); {remedy}"
    if flavour.trap is MemType.IOREQ_SERVER and not flavour.claim:
        return f"Xen {flavour.name} lets no ioreq server claim HVMMEM_ioreq_server; {remedy}"
    if look(flavour, P2mType.IOREQ_SERVER).copy_store is Look.DIRECT:
        return f"the emulator of Xen {flavour.name} stores to trapped pages unseen (rep stos, movs); {remedy}"
    return ""
