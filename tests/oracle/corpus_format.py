"""Hand-made traces for what the format says, and for relaxed mode."""

from __future__ import annotations

from .corpus_case import case
from .script import DIRECTORY, IPS, PAT_2M, PRESENT, PS, PTE, RO, Script


@case("i915/gt/gen8_ppgtt.c `gen8_init_scratch`: 512 entries to one table at each level")
def scratch_hierarchy() -> Script:
    """Whole directories point at one scratch page: 2^36 runs in bounded work. A tree of two levels is listed."""
    s = Script()
    s.fill(5, 0, 512, 20 << 12 | RO)
    for table, below in ((4, 5), (3, 4), (2, 3)):
        s.fill(table, 0, 512, below << 12 | DIRECTORY | 0x18)
    s.create(2)
    s.dump("truncated")
    s.gpu_store((2,), 0x123456789000, 7)
    s.entry(2, 9, 6, DIRECTORY)
    s.fill(2, 0, 512, 0)
    s.entry(2, 0, 6, DIRECTORY)
    s.entry(6, 0, 7, DIRECTORY)
    s.entry(7, 3, 5, DIRECTORY)
    s.dump("512 runs")
    return s


@case("the format: 1,048,576 runs are listed")
def runs_at_the_limit() -> Script:
    """An L3 space that maps scratch everywhere has exactly as many runs as a dump lists."""
    s = Script()
    s.fill(5, 0, 512, 20 << 12 | RO)
    s.fill(4, 0, 512, 5 << 12 | DIRECTORY)
    s.create(4, 4, 4, 4)
    s.dump("1048576 runs")
    return s


@case("the format: more than 1,048,576 runs are not")
def runs_beyond_the_limit() -> Script:
    """One run more than a dump lists; then two of the runs become one."""
    s = Script()
    s.fill(5, 0, 512, 20 << 12 | RO)
    s.fill(4, 0, 512, 5 << 12 | DIRECTORY)
    s.path(1, 3)
    s.fill(3, 0, 4, 4 << 12 | DIRECTORY)
    s.entry(3, 4, 6, DIRECTORY)
    s.path(6, 7)
    s.entry(7, 9, 21, RO)
    s.create(1)
    s.dump("1048577 runs")
    s.clear(7, 9)
    s.entry(7, 0, 21, RO)
    s.dump("1048576 runs")
    return s


@case("the format: maximal runs")
def runs_over_table_ends() -> Script:
    """Runs continue from entry to entry, from table to table, from 2 MiB to 4 KiB pages, and from root to root."""
    s = Script(frames=3072)
    s.path(1, 2, 3)
    s.entry(3, 0, 1024, PS | DIRECTORY | PAT_2M)
    s.entry(3, 1, 4, DIRECTORY)
    for index in range(3):
        s.entry(4, index, 1536 + index, PTE)
    s.entry(2, 1, 5, DIRECTORY)
    s.entry(3, 511, 1024, PS | DIRECTORY)
    s.entry(5, 0, 1536, PS | DIRECTORY)
    s.entry(5, 1, 2048, PS | PRESENT)
    s.create(1)
    s.create(3, 5, 0, 0)
    s.dump("three runs each")
    return s


@case("private PAT index, i915/gt/intel_gtt.c `bdw_setup_private_ppat`")
def attributes() -> Script:
    """Writable and all eight cache values come from the leaf alone, in each page size."""
    s = Script(frames=1536)
    s.ips()
    s.entry(1, 0, 2, PRESENT | 0x18)
    s.entry(2, 0, 3, PRESENT | 0x10)
    s.entry(3, 0, 4, PRESENT | 0x08)
    s.entry(3, 1, 5, PRESENT | IPS)
    for cache in range(8):
        bits = (cache & 4) << 5 | (cache & 3) << 3 | PRESENT | (cache & 1) << 1
        s.entry(4, cache, 20, bits)
        s.entry(5, 16 * cache, 32, bits)
        s.entry(3, 2 + cache, 1024, PS | PAT_2M * (cache >> 2) | (cache & 3) << 3 | PRESENT | (~cache & 1) << 1)
    s.create(1)
    s.dump("eight of each size")
    return s


@case("`gen8_gtt_set_pfn` of i915/gvt/gtt.c copies bits 63:46 into the shadow")
def garbage_bits() -> Script:
    """Bits above 45, and bits below that have no meaning, change nothing at any level."""
    s = Script(frames=1536)
    high = 0xFFFFC000_00000000
    s.store(0x1000, high | 0x2000 | 0xF7F)
    s.store(0x2000, high | 0x3000 | 0xF7F)
    s.store(0x3000, high | 0x4000 | 0x77F)
    s.store(0x3008, high | 1024 << 12 | 0xFFF)
    s.store(0x4000, high | 0x14000 | 0xF67)
    s.create(1)
    s.dump("one page, and 2 MiB")
    return s


@case("GEN8_3LVL_PDPES of i915/gt/intel_gtt.h")
def l3_four_roots() -> Script:
    """Four page directories, one twice, one absent; entries of 2 MiB and 64 KiB as in L4."""
    s = Script(frames=1536)
    s.ips()
    s.entry(2, 0, 4, DIRECTORY)
    s.entry(2, 511, 1024, PS | DIRECTORY)
    s.entry(3, 0, 4, DIRECTORY | IPS)
    s.entry(4, 0, 64, PTE)
    s.entry(4, 511, 66, PTE)
    s.create(2, 3, 0, 2)
    s.dump("with a gap at 2 GiB")
    s.gpu_store((2, 3, 0, 2), 3 << 30, 5)
    s.gpu_store((2, 3, 0, 2), 2 << 30, 5)
    s.gpu_store((2, 3, 0, 2), 4 << 30, 5)
    s.clear(4, 511)
    s.dump("without the last page of each first table")
    return s


@case("i915/gt/gen8_ppgtt.c: scratch tables shared by all spaces")
def table_shared_512_times() -> Script:
    """One table below every entry of a directory, in two spaces; its references are dropped one by one."""
    s = Script()
    s.path(1, 2, 3)
    s.path(5, 2)
    s.fill(3, 0, 512, 4 << 12 | DIRECTORY)
    s.entry(4, 7, 20, PTE)
    s.create(1)
    s.create(5)
    s.dump("512 pages each")
    s.fill(3, 1, 511, 0)
    s.entry(4, 7, 21, PTE)
    s.dump("one page each")
    s.clear(3, 0)
    s.entry(4, 7, 22, PTE)
    s.dump("none")
    s.entry(3, 2, 4, DIRECTORY)
    s.dump("one again, at another place")
    return s


@case("add before remove, `ppgtt_handle_guest_write_page_table` of i915/gvt/gtt.c")
def subtree_replaced_by_its_part() -> Script:
    """One store replaces a directory entry by another that shares tables with the old one."""
    s = Script()
    s.path(1, 2, 3, 4)
    s.entry(4, 0, 20, PTE)
    s.path(6, 4, index=1)
    s.create(1)
    s.entry(2, 0, 6, DIRECTORY)
    s.dump("the same page, 2 MiB up")
    s.entry(2, 0, 6, DIRECTORY)
    s.entry(2, 0, 3, DIRECTORY)
    s.entry(1, 0, 3, DIRECTORY)
    s.dump("one level less: 4 is a directory now")
    s.entry(4, 1, 21, PTE)
    s.dump("with nothing below")
    return s


@case("the format: frames come and go")
def frames_removed_and_added() -> Script:
    """Frames of leaves, tables and roots are removed and added again, with zeros; adding a RAM frame zeroes it, too."""
    s = Script(holes=[[50, 2]])
    s.path(1, 2, 3, 4)
    for index in range(4):
        s.entry(4, index, 20 + index, PTE)
    s.entry(4, 4, 51, PTE)
    s.entry(4, 5, 70, PTE)
    s.create(1)
    s.remove(21, 2)
    s.dump("20 and 23")
    s.add(22)
    s.add(51)
    s.add(70)
    s.dump("20, 22, 23, 51 and 70")
    s.remove(4)
    s.entry(4, 0, 30, PTE)
    s.dump("nothing")
    s.add(4)
    s.dump("still nothing: the table came back empty")
    s.entry(4, 0, 31, PTE)
    s.dump("31")
    s.add(3)
    s.dump("nothing: the directory was zeroed")
    s.path(3, 4)
    s.remove(1)
    s.dump("no root")
    s.destroy(1)
    s.dump("no space")
    return s


@case("the format: frames come and go")
def frames_removed_round_about() -> Script:
    """Removes holes, the end of RAM and frames beyond it; a table is in a frame that was a hole."""
    s = Script(frames=32, holes=[[8, 4]])
    s.remove(9)
    s.remove(30, 100)
    s.remove(1 << 40, 1 << 20)
    s.add(9)
    s.path(1, 2, 3, 9)
    for index, frame in enumerate([29, 9, 8, 30, 31, 32]):
        s.entry(9, index, frame, PTE)
    s.create(1)
    s.dump("29 and 9")
    s.store(0x8FFC, 0x1111_1111_1111_1111)
    s.store(0x1E000, 5)
    s.dump("9: the other was hit by a store over the start of its table")
    return s


@case("guard ranges, xengt_dm/traps: a range sends a device model stores to frames that are not RAM")
def store_to_a_table_just_removed() -> Script:
    """Frames unprotected a moment ago are removed: stores to them are dropped, and added frames contain zeros."""
    s = Script(frames=8)
    s.entry(6, 511, 1, DIRECTORY)
    s.submit(6)
    s.remove(1)
    s.fill(1, 0, 1, 5 << 12 | PTE)
    s.dump("nothing is live")
    s.path(2, 3, 4, 1)
    s.entry(1, 1, 5, PTE)
    s.add(1)
    s.path(2, 3, 4, 1)
    s.create(2)
    s.dump("an empty table")
    s.entry(1, 0, 5, PTE)
    s.remove(1)
    s.entry(1, 1, 5, PTE)
    s.dump("nothing")
    return s


@case("relaxed mode; xen/arch/x86/hvm/emulate.c `hvmemul_do_io` looks at the type twice")
def leaf_stored_to_many_times() -> Script:
    """Many stores to a leaf table between submissions: one trap each in relaxed mode, and no store is lost."""
    s = Script()
    s.path(1, 2, 3, 4)
    s.create(1)
    for turn in range(3):
        s.fill(4, 0, 300, (20 + turn) << 12 | PTE)
        s.entry(4, turn, 40, RO)
        s.submit(1)
    s.fill(4, 100, 300, 0)
    s.dump("after three rounds")
    return s


@case("relaxed mode")
def unsynced_table_changes_roles() -> Script:
    """An unsynced leaf table is linked a second time, linked as a directory, unlinked, and linked again."""
    s = Script()
    s.path(1, 2, 3, 4)
    s.create(1)
    s.entry(4, 0, 20, PTE)
    s.entry(4, 1, 21, PTE)
    s.entry(3, 1, 4, DIRECTORY)
    s.entry(4, 2, 22, PTE)
    s.entry(2, 1, 4, DIRECTORY)
    s.entry(4, 3, 5, DIRECTORY)
    s.entry(5, 0, 23, PTE)
    s.dump("as page table twice, and as page directory")
    s.entry(4, 4, 24, PTE)
    s.clear(3, 0)
    s.clear(3, 1)
    s.clear(2, 1)
    s.entry(4, 0, 25, PTE)
    s.entry(3, 0, 4, DIRECTORY)
    s.entry(4, 1, 26, PTE)
    s.dump("as page table once more")
    return s


@case("relaxed mode")
def unsynced_table_in_two_spaces() -> Script:
    """A leaf table of two spaces is stored to while it is unsynced; a submission of either space resyncs it."""
    s = Script()
    s.path(1, 2, 3, 4)
    s.path(5, 6, 7, 4)
    s.create(1)
    s.create(5)
    s.entry(4, 0, 20, PTE)
    s.entry(4, 1, 8, PTE)
    s.gpu_store((5,), 0x1000, 1)
    s.entry(4, 1, 4, PTE)
    s.gpu_store((1,), 0x1000 + 16, 21 << 12 | PTE)
    s.entry(4, 3, 22, PTE)
    s.destroy(1)
    s.dump("the second, with all four")
    return s
