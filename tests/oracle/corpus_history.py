"""Hand-made traces for what was fixed upstream, and for what users complain about."""

from __future__ import annotations

from .corpus_case import ISSUE, U64, case
from .machine import G2V_NOTIFY, PDP
from .script import DIRECTORY, IPS, PAT_2M, PRESENT, PS, PTE, Script


@case("CVE-2022-3707, 4a61648af68f: double free when splitting a 2 MiB page fails half-way")
def large_page_partly_no_ram() -> Script:
    """2 MiB and 64 KiB pages of which some frames are not RAM are replaced by a table and back, then destroyed."""
    s = Script(frames=1030, holes=[[600, 3], [700, 1]])
    s.ips()
    s.path(1, 2, 3)
    s.entry(3, 0, 512, PS | DIRECTORY)
    s.entry(3, 1, 1024, PS | DIRECTORY)
    s.entry(3, 2, 4, DIRECTORY | IPS)
    s.entry(4, 0, 592, PTE)
    s.entry(4, 32, 1024, PTE)
    s.create(1)
    s.dump("with gaps")
    s.entry(3, 0, 4, DIRECTORY)
    s.dump("a table where a page was")
    s.entry(3, 0, 512, PS | PRESENT)
    s.dump("and back, read-only")
    s.remove(513, 2)
    s.dump("with more gaps")
    s.destroy(1)
    s.dump("gone")
    return s


@case("adc7b226b7d6: 2 MiB pages need contiguous memory; entry masks of i915/gvt/gtt.c")
def low_address_bits_of_large_pages() -> Script:
    """Address bits below the page's size mean nothing, bit 12 of a 2 MiB entry is PAT."""
    s = Script(frames=1536)
    s.ips()
    s.path(1, 2, 3)
    s.entry(3, 0, 512 + 300, PS | DIRECTORY)
    s.entry(3, 1, 1024, PS | DIRECTORY | PAT_2M)
    s.entry(3, 2, 4, DIRECTORY | IPS)
    s.entry(4, 0, 512 + 7, PTE)
    s.create(1)
    s.dump("from frames 512, 1024 and 512")
    return s


@case("241f0aadb857: BUG on an unknown entry type; 1 GiB in `ppgtt_populate_shadow_entry`")
def one_gib_page() -> Script:
    """The entry is refused and counted, its neighbours still map; in a PML4 entry the bit means nothing."""
    s = Script()
    s.path(1, 2, 3, 4)
    s.entry(4, 0, 20, PTE)
    s.create(1)
    s.entry(2, 1, 0, PS | DIRECTORY)
    s.dump("one page")
    s.entry(2, 0, 3, PS | DIRECTORY)
    s.dump("none: the entry that led to it is 1 GiB now")
    s.entry(2, 0, 3, DIRECTORY)
    s.entry(1, 0, 2, PS | DIRECTORY)
    s.dump("one page again")
    return s


@case("72aabfb862e4, 0e9d7bb293f3: the LRU list of address spaces")
def many_spaces_in_turn() -> Script:
    """Spaces created, submitted and destroyed in different orders; run it with a small --max-tables too."""
    s = Script(frames=256)
    for number in range(12):
        base = 16 + 4 * number
        s.path(base, base + 1, base + 2, base + 3)
        s.entry(base + 3, number, 100 + number, PTE)
        s.create(base)
    s.dump("twelve")
    for number in (5, 0, 11, 5, 3):
        s.submit(16 + 4 * number)
        s.entry(16 + 4 * number + 3, 20, 200, PTE)
    for number in (0, 11, 6):
        s.destroy(16 + 4 * number)
    s.submit(16)
    s.dump("nine")
    return s


@case("4187414808 (2019-07): roots resolved before the context existed; drivers that never notify")
def spaces_never_announced() -> Script:
    """Submissions and GPU stores for spaces that are not live, before and after a live one of the same root."""
    s = Script()
    s.path(1, 2, 3, 4)
    s.entry(4, 0, 20, PTE)
    s.entry(4, 1, 4, PTE)
    s.submit(1)
    s.gpu_store((1,), 0x1000 + 16, 21 << 12 | PTE)
    s.dump("no space is live")
    s.entry(4, 3, 22, PTE)
    s.create(1)
    s.dump("20, 4, 21, 22")
    s.destroy(1)
    s.gpu_store((1,), 0x1000 + 24, 0)
    s.submit(1, 2, 3, 4)
    s.create(1)
    s.dump("20, 4, 21")
    return s


@case("96b138cd23e9: attached twice; mm reference counts (2019-04)")
def created_twice() -> Script:
    """Two creates need two destroys; roots that differ only in their low bits are the same space."""
    s = Script()
    s.path(1, 2, 3, 4)
    s.entry(4, 0, 20, PTE)
    s.create(1)
    s.mmio(PDP, 0x1ABC)
    s.mmio(G2V_NOTIFY, 4)
    s.dump("one space")
    s.destroy(1)
    s.entry(4, 1, 21, PTE)
    s.dump("still")
    s.destroy(1)
    s.dump("gone")
    return s


@case("a15e61f3371b: unpinning nothing")
def empty_spaces() -> Script:
    """A root of 0 means no table, in L4 and in L3; below a root frame 0 is RAM like any other."""
    s = Script()
    s.entry(0, 0, 2, DIRECTORY)
    s.entry(2, 0, 0, PTE)
    s.create(0)
    s.create(0, 0, 0, 0)
    s.create(0, 0, 0, 3)
    s.entry(3, 0, 0, DIRECTORY)
    s.entry(0, 9, 5, PTE)
    s.dump("frame 0 is a page table of the third")
    s.gpu_store((0,), 0, U64)
    s.destroy(0)
    s.destroy(0, 0, 0, 0)
    s.dump("the third")
    return s


# What users complain about.


@case(f"{ISSUE} 153, 120: 'guest page write error' floods and freezes")
def reused_as_data_before_destroy() -> Script:
    """The pages of tables are used as plain data, with stores of every size, before DESTROY comes."""
    s = Script()
    s.path(1, 2, 3, 4)
    s.entry(4, 0, 20, PTE)
    s.create(1)
    s.dump("one page")
    s.fill(1, 0, 512, U64)
    s.fill(4, 0, 512, 0x4141414141414141)
    for size in (1, 2, 4, 8):
        for at in range(0, 24, 3):
            s.store(0x2000 + at, (1 << 8 * size) - 1, size)
    s.dump("nothing")
    s.submit(1)
    s.destroy(1)
    s.fill(2, 0, 512, 3)
    s.store(0x1000, 0x2003)
    s.dump("no space")
    s.fill(1, 0, 512, 0)
    s.path(1, 2)
    s.create(1)
    s.dump("the pages are tables again, with frame 0 everywhere")
    return s


@case(f"{ISSUE} 153: tables freed without DESTROY, the next space is built in them")
def root_reused_as_page_table() -> Script:
    """A root that was never destroyed becomes a page table of the next space; both spaces resolve."""
    s = Script()
    s.path(1, 2, 3, 4)
    s.entry(4, 0, 20, PTE)
    s.create(1)
    s.path(5, 6, 7, 1)
    s.create(5)
    s.dump("both")
    s.entry(1, 1, 21, PTE)
    s.dump("an entry for both")
    s.destroy(1)
    s.entry(1, 2, 22, PTE)
    s.dump("the second alone")
    return s


@case(f"{ISSUE} 149, 110, 163: 'workload shadow ppgtt isn't ready'")
def one_bad_entry() -> Script:
    """A garbage entry at each level costs what it maps and nothing else."""
    s = Script()
    s.path(1, 2, 3, 4)
    s.entry(4, 0, 20, PTE)
    s.create(1)
    for table in (1, 2, 3, 4):
        s.store(table << 12 | 0x808, U64)
        s.store(table << 12 | 0x810, 0x8000_0000_0000_0001)
    s.submit(1)
    s.dump("frame 20, and frame 0 wherever the second leads to it")
    return s


@case(f"{ISSUE} 60, 67, 106: failed to populate, pinning limits")
def many_tables() -> Script:
    """A space has 120 page tables; half of them are unlinked with their directory."""
    s = Script(frames=256)
    s.path(1, 2, 3)
    s.entry(2, 1, 4, DIRECTORY)
    s.create(1)
    for number in range(120):
        table = 8 + number
        s.entry(table, number, 200, PTE)
        s.entry(3 + number % 2, number, table, DIRECTORY)
    s.dump("120 pages")
    s.clear(2, 1)
    s.dump("60 pages")
    return s
