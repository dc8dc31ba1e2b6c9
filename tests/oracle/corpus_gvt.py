"""Hand-made traces for what GVT-g's code gets wrong, found by reading it."""

from __future__ import annotations

from .corpus_case import GVT, U64, case
from .machine import G2V_NOTIFY
from .script import DIRECTORY, IPS, PS, PTE, RO, Script


@case(f"{GVT}: `split_64KB_gtt_entry`, removal unmaps the first of 16 pages only")
def wide_head_replaced() -> Script:
    """The head of a 64 KiB page is replaced, then cleared: all 16 pages follow, each time."""
    s = Script(frames=128)
    s.ips()
    s.path(1, 2, 3)
    s.entry(3, 0, 4, DIRECTORY | IPS)
    s.create(1)
    s.entry(4, 16, 32, PTE)
    s.dump("64 KiB at frame 32")
    s.entry(4, 16, 48, PTE)
    s.dump("64 KiB at frame 48")
    s.entry(4, 17, 99, PTE)
    s.dump("entry 17 counts for nothing")
    s.clear(4, 16)
    s.dump("nothing")
    return s


@case(f"{GVT}: `ppgtt_invalidate_spt` skips 2 MiB leaves")
def large_page_in_destroyed_space() -> Script:
    """A space with 2 MiB pages is destroyed and created again: nothing of the first one is left or missing."""
    s = Script(frames=1536)
    s.path(1, 2, 3)
    s.entry(3, 5, 512, PS | DIRECTORY)
    s.create(1)
    s.dump("2 MiB")
    s.destroy(1)
    s.dump("no space")
    s.entry(3, 5, 1024, PS | DIRECTORY)
    s.create(1)
    s.dump("another 2 MiB")
    s.clear(3, 5)
    s.dump("nothing")
    return s


@case(f"{GVT}: `ppgtt_populate_spt_by_guest_entry`, an IPS flip drops leaves without unmapping them")
def ips_bit_flips() -> Script:
    """One store that changes only bit 11 of a page-directory entry turns 4 KiB entries into 64 KiB ones, and back."""
    s = Script(frames=128)
    s.ips()
    s.path(1, 2, 3, 4)
    s.create(1)
    for index in range(32):
        s.entry(4, index, 64 + index, PTE)
    s.dump("32 pages of 4 KiB")
    s.entry(3, 0, 4, DIRECTORY | IPS)
    s.dump("2 pages of 64 KiB, the same memory")
    s.entry(4, 16, 32, RO)
    s.dump("the second elsewhere")
    s.entry(3, 0, 4, DIRECTORY)
    s.dump("4 KiB again, 15 of the second as they were")
    return s


@case("GAMW_ECO_DEV_RW_IA, i915/gt/intel_gtt.c `gtt_write_workarounds`; GVT as above")
def ips_register_flips() -> Script:
    """Register 0x4080 changes what live tables mean, all four bits or none, for one table used both ways."""
    s = Script(frames=128)
    s.path(1, 2, 3)
    s.entry(3, 0, 4, DIRECTORY | IPS)
    s.entry(3, 1, 4, DIRECTORY)
    s.entry(4, 0, 64, PTE)
    s.entry(4, 1, 70, PTE)
    s.create(1)
    s.dump("the bit means nothing yet")
    s.ips()
    s.dump("the first is 64 KiB")
    s.entry(4, 0, 80, PTE)
    s.dump("a store to both")
    s.mmio(0x4080, 0x7)
    s.submit(1)
    s.dump("three of four bits are none")
    s.mmio(0x4080, 0xFFFF_FFFF_FFFF, 8)
    s.gpu_store((1,), 0x1000, 0)
    s.dump("64 KiB again")
    return s


@case("i915/gvt/gtt.c `vgpu_ips_enabled`: not before generation 9")
def ips_means_nothing_on_generation_8() -> Script:
    """Generation 8 ignores both the bit and the register."""
    s = Script(frames=128, generation=8)
    s.ips()
    s.path(1, 2, 3)
    s.entry(3, 0, 4, DIRECTORY | IPS)
    s.entry(4, 0, 64, PTE)
    s.entry(4, 1, 66, PTE | IPS)
    s.create(1)
    s.dump("two pages")
    return s


@case(f"{GVT}: `ppgtt_populate_spt` uses an entry before it is set")
def leaf_to_no_ram() -> Script:
    """Some entries point to holes, beyond RAM, or to the last frame an entry can name: only those map nothing."""
    s = Script(holes=[[40, 2]])
    s.path(1, 2, 3, 4)
    s.create(1)
    for index, frame in enumerate([39, 40, 41, 42, 63, 64, (1 << 34) - 1, 20]):
        s.entry(4, index, frame, PTE)
    s.dump("39, 42, 63 and 20")
    s.entry(4, 1, 50, PTE)
    s.entry(4, 0, 40, PTE)
    s.dump("50, 42, 63 and 20")
    return s


@case(f"{GVT}: `ppgtt_populate_spt`; acrn-kernel PR 168 (NULL dereference when creating fails)")
def directory_to_no_ram() -> Script:
    """Roots and directory entries that point to a frame that is not RAM map nothing; their neighbours still map."""
    s = Script(holes=[[40, 1]])
    s.path(1, 2, 3, 4)
    s.entry(4, 0, 10, PTE)
    for table in (1, 2, 3):
        s.entry(table, 7, 40, DIRECTORY)
        s.entry(table, 8, 64, DIRECTORY)
        s.entry(table, 511, (1 << 34) - 1, DIRECTORY)
    s.create(1)
    s.create(40)
    s.create((1 << 34) - 1)
    s.dump("one page, and two empty spaces")
    s.destroy(40)
    s.entry(3, 7, 4, DIRECTORY)
    s.dump("two pages, and one empty space")
    return s


@case(f"{GVT}: the dma cache holds one size for a frame; fixed 2019-07 'incorrect cache entry'")
def frame_mapped_in_every_size() -> Script:
    """One frame is mapped by a 4 KiB, a 64 KiB and a 2 MiB page, in two spaces: removing one leaves the others."""
    s = Script(frames=1536)
    s.ips()
    s.path(1, 2, 3, 4)
    s.entry(3, 1, 5, DIRECTORY | IPS)
    s.entry(3, 2, 1024, PS | DIRECTORY)
    s.path(6, 2)
    s.create(1)
    s.create(6)
    s.entry(4, 0, 1024, PTE)
    s.entry(5, 0, 1024, PTE)
    s.dump("three in each")
    s.clear(4, 0)
    s.dump("without 4 KiB")
    s.clear(3, 2)
    s.dump("without 2 MiB")
    s.destroy(6)
    s.dump("one space")
    s.clear(5, 0)
    s.dump("nothing")
    return s


@case(f"{GVT}: `intel_vgpu_flush_post_shadow` returns at the first failure")
def halves_of_many_entries() -> Script:
    """Entries are written in halves, in either order. Several are unfinished at a submission; one is invalid."""
    s = Script()
    s.path(1, 2, 3, 4)
    s.create(1)
    for index, frame in enumerate([10, 11, 12, 13]):
        s.entry(4, index, frame, PTE)
    s.store(0x4000, 0x20_000 | PTE, 4)
    s.store(0x4008, 0xFFFFF083, 4)
    s.store(0x400C, 0xFFFF_FFFF, 4)
    s.store(0x4014, 1, 4)
    s.submit(1)
    s.dump("32, -, -, 13: 11 is no RAM now, 12 is beyond it")
    s.store(0x4014, 0, 4)
    s.store(0x4008, 0, 4)
    s.store(0x401C, 0xDEADC000, 4)
    s.dump("32, -, 12, 13: bits above 45 mean nothing")
    s.store(0x4018, 0, 4)
    s.dump("32, -, 12, -")
    return s


@case(f"{GVT}: a 4-byte store to a directory entry takes the subtree down until submission")
def halves_of_directory_entries() -> Script:
    """A directory entry is replaced in halves. In between it points where the two halves together say."""
    s = Script(frames=96)
    s.path(1, 2, 3, 4)
    s.entry(4, 0, 20, PTE)
    s.entry(5, 0, 21, PTE)
    s.create(1)
    s.store(0x3004, 0x10, 4)
    s.dump("high half first: frame 16 GiB further, no RAM")
    s.store(0x3000, 0x5003, 4)
    s.dump("still none")
    s.store(0x3004, 0, 4)
    s.dump("the other table")
    s.store(0x3002, 0, 1)
    s.store(0x3001, 0x40, 1)
    s.dump("byte by byte, back to the first")
    return s


@case(f"{GVT}: a store over two entries counts for the first only")
def store_over_two_entries() -> Script:
    """Unaligned stores of 8 bytes change two entries, in page tables and in directories."""
    s = Script()
    s.path(1, 2, 3, 4)
    s.entry(4, 0, 20, PTE)
    s.entry(4, 1, 21, PTE)
    s.entry(5, 0, 30, PTE)
    s.create(1)
    s.store(0x4004, 0x19083 << 32)
    s.dump("20, then 25")
    s.store(0x3004, 0x5003 << 32)
    s.dump("and a second table")
    s.store(0x3001, 0)
    s.dump("nothing: the first points to frame 0, the second is not present")
    return s


@case("xen/arch/x86/hvm/emulate.c: split at the page's end, powers of two; fixed 672894a11f (Xen 4.20)")
def store_over_a_page_end() -> Script:
    """Stores cross the end of a table's page into another table, into plain memory, and into a hole."""
    s = Script(holes=[[7, 1]])
    s.path(1, 2, 3, 4)
    s.entry(3, 1, 5, DIRECTORY)
    s.entry(4, 511, 0x3F, PTE)
    s.entry(5, 0, 0x15, PTE)
    s.create(1)
    s.dump("as built")
    s.store(0x4FF9, 0x83_00_00_00_00_00_02_20 | 0, 8)
    s.dump("frames 0x22 and 0x15")
    s.store(0x4FFF, 0x01_6083_00, 4)
    s.dump("frames 0x22 and 0x16")
    s.store(0x5FFC, 0x3083_0000_0000)
    s.store(0x6FFD, 0x1111_1111_1111_1111)
    s.dump("and nothing else changed")
    return s


@case(f"{GVT}: `pvinfo_mmio_write` always succeeds; mm reference counts (3792fc508c09)")
def notifications_out_of_order() -> Script:
    """Destroying before creating, twice, and in another mode; notifications without a meaning."""
    s = Script()
    s.path(1, 2, 3, 4)
    s.entry(4, 0, 20, PTE)
    s.destroy(1)
    s.create(1)
    s.destroy(1, 0, 0, 0)
    for value in (0, 1, 6, 7, 0xFFFFFFFF):
        s.mmio(G2V_NOTIFY, value)
    s.dump("live")
    s.destroy(1)
    s.destroy(1)
    s.dump("gone")
    return s


@case(f"{GVT}: only CPU stores are seen; i915/gt/intel_migrate.c writes entries by the GPU")
def gpu_store_into_tables() -> Script:
    """The GPU changes its own page table, a directory, and the table that translated its store."""
    s = Script()
    s.path(1, 2, 3, 4)
    s.entry(4, 0, 4, PTE)
    s.entry(4, 1, 3, PTE)
    s.entry(4, 2, 20, RO)
    s.create(1)
    s.gpu_store((1,), 5 * 8, 30 << 12 | PTE)
    s.dump("an entry more")
    s.gpu_store((1,), 0x1000 + 8, 4 << 12 | DIRECTORY)
    s.dump("all of it once more, 2 MiB up")
    s.gpu_store((1,), 0x2000, U64)
    s.gpu_store((1,), 0x9000, U64)
    s.gpu_store((1,), 1 << 48, U64)
    s.gpu_store((9,), 0, U64)
    s.dump("four dropped")
    s.gpu_store((1,), 0x1000, 0)
    s.dump("the way it came is gone")
    return s


@case(f"{GVT}: one handler for a frame, whatever its level")
def frame_at_two_levels() -> Script:
    """One page is directory and page table at once; a store changes what it means in both places."""
    s = Script()
    s.path(1, 2, 3, 4)
    s.entry(3, 1, 3, DIRECTORY)
    s.entry(4, 0, 20, PTE)
    s.create(1)
    s.dump("page directory 3, and 3 again as its own page table")
    s.entry(3, 5, 21, PTE)
    s.dump("a 2 MiB page in the one, a page in the other")
    s.clear(3, 1)
    s.dump("a directory only")
    return s


@case(f"{GVT}: one handler for a frame; data writes become entry writes")
def table_mapped_as_data() -> Script:
    """The page table maps itself and its directory: to the GPU they are data, to the CPU still tables."""
    s = Script()
    s.path(1, 2, 3, 4)
    for index, frame in enumerate([1, 2, 3, 4]):
        s.entry(4, index, frame, PTE)
    s.create(1)
    s.dump("four")
    s.entry(4, 4, 4, PTE)
    s.clear(3, 0)
    s.dump("nothing")
    s.entry(3, 0, 4, DIRECTORY)
    s.dump("five")
    return s


@case(f"{GVT}: `intel_vgpu_find_ppgtt_mm` compares pdp[0] only, and not the mode")
def l3_and_l4_of_one_root() -> Script:
    """An L4 space and two L3 spaces share pdp[0]: they are three spaces, created and destroyed separately."""
    s = Script()
    s.path(1, 2, 3, 4)
    s.entry(4, 0, 20, PTE)
    s.create(1)
    s.create(1, 0, 0, 0)
    s.create(1, 3, 0, 0)
    s.dump("three")
    s.destroy(1, 0, 0, 0)
    s.dump("two")
    s.entry(4, 1, 21, PTE)
    s.destroy(1)
    s.dump("one")
    return s


@case(f"{GVT}: a cycle's reference counts never reach 0")
def cycles() -> Script:
    """Tables point to themselves and to each other; then a cycle is cut and the frames become plain memory."""
    s = Script()
    s.entry(1, 0, 1, DIRECTORY)
    s.create(1)
    s.dump("the root four times over")
    s.entry(1, 1, 2, DIRECTORY)
    s.entry(2, 1, 1, DIRECTORY)
    s.dump("and round two corners")
    s.clear(1, 0)
    s.dump("one of them cut")
    s.destroy(1)
    s.fill(1, 0, 512, U64)
    s.fill(2, 0, 512, U64)
    s.create(3)
    s.dump("nothing is left of them")
    return s
