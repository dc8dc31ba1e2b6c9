"""The tables of p2m types as ``xd_emb_rules``, which is what C consults."""

from __future__ import annotations

from typing import Final

from xengt_dm._embedded import ffi
from xengt_dm.hypervisor.embedded.p2m import Flavour, P2mType
from xengt_dm.hypervisor.embedded.shadow_paging import Paging, paged_change, paged_look
from xengt_dm.hypervisor.port import MemType
from xengt_dm.units import CData

#: xen/include/xen/ioreq.h MAX_NR_IOREQ_SERVERS; before 97a5a3e301 (4.11) there was no limit, and 8 is this one's.
MAX_SERVERS: Final = 8
#: MAX_NR_IO_RANGES: xen/common/ioreq.c; before, xen/include/asm-x86/hvm/domain.h.
MAX_RANGES: Final = 256

_TARGETS: Final = {
    MemType.RAM_RW: P2mType.RAM_RW,
    MemType.RAM_RO: P2mType.RAM_RO,
    MemType.MMIO_DM: P2mType.MMIO_DM,
    MemType.MMIO_WRITE_DM: P2mType.IOREQ_SERVER,
    MemType.IOREQ_SERVER: P2mType.IOREQ_SERVER,
}


def compile_rules(flavour: Flavour, paging: Paging) -> CData:
    """Returns ``xd_emb_rules *``: what this Xen does with a guest of this paging."""
    rules = ffi.new("xd_emb_rules *")
    for new, target in _TARGETS.items():
        rules.change_to[new] = target
    for old in P2mType:
        for new in MemType:
            rules.change_errno[old][new] = paged_change(flavour, paging, old, new).errno
        row, store, load, write = paged_look(flavour, paging, old)
        rules.store[old] = store
        rules.load[old] = load
        rules.copy_store[old] = row.copy_store
        rules.copy_load[old] = row.copy_load
        rules.io_store[old] = row.io_store
        rules.io_load[old] = row.io_load
        rules.shadow_write[old] = write
        rules.map_errno[old] = row.map_errno
    rules.max_servers = MAX_SERVERS
    rules.max_ranges = MAX_RANGES
    rules.has_claim = flavour.claim
    rules.shadow_paging = paging is Paging.SHADOW
    # sh_page_fault ends its look (put_gfn) before it hands the access to the emulator, in every release.
    rules.unlocked_looks = flavour.unlocked_looks or paging is Paging.SHADOW
    rules.straddle = flavour.straddle
    rules.looks_again = flavour.looks_again
    rules.newest_first = flavour.newest_first
    rules.has_default_server = flavour.default_server
    return rules
