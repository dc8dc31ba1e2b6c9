"""The rows of the commands: they do not contradict each other, and are as long as the facts say."""

from __future__ import annotations

import itertools

import pytest

from xengt_dm._core import lib
from xengt_dm.vgpu.commands import COMMANDS, ENGINES, Client, Command, Field, Kind, find, takes

#: Name: the header that a driver writes, and how many dwords the command has. By Linux 6.1 gt/gen8_engine_cs.c,
#: gt/intel_lrc.c, gt/intel_migrate.c and the manuals: what the kernel and well-known programs emit.
EMITTED = [
    ("rcs0", 0x00000000, "MI_NOOP", 1),
    ("rcs0", 0x01000000, "MI_USER_INTERRUPT", 1),
    ("rcs0", 0x02800000, "MI_ARB_CHECK", 1),
    ("bcs0", 0x04000000, "MI_ARB_ON_OFF", 1),
    ("vcs0", 0x05000000, "MI_BATCH_BUFFER_END", 1),
    ("rcs0", 0x06000000, "MI_PREDICATE", 1),
    ("rcs0", 0x0D000003, "MI_MATH", 5),
    ("rcs0", 0x0D800000, "MI_SEMAPHORE_SIGNAL", 2),
    ("rcs0", 0x0E008002, "MI_SEMAPHORE_WAIT", 4),
    ("bcs0", 0x10400002, "MI_STORE_DATA_IMM", 4),
    ("bcs0", 0x10200003, "MI_STORE_DATA_IMM", 5),
    ("bcs0", 0x102003FE, "MI_STORE_DATA_IMM", 0x400),
    ("rcs0", 0x10800001, "MI_STORE_DATA_INDEX", 3),
    ("rcs0", 0x1100101B, "MI_LOAD_REGISTER_IMM", 29),
    ("rcs0", 0x11001057, "MI_LOAD_REGISTER_IMM", 89),
    ("rcs0", 0x118003FF, "MI_UPDATE_GTT", 0x401),
    ("rcs0", 0x12400002, "MI_STORE_REGISTER_MEM", 4),
    ("vecs0", 0x13244002, "MI_FLUSH_DW", 4),
    ("vcs0", 0x13000001, "MI_FLUSH_DW", 3),
    ("vcs0", 0x1300C0C3, "MI_FLUSH_DW", 5),
    ("rcs0", 0x138003FF, "MI_CLFLUSH", 0x401),
    ("rcs0", 0x14000042, "MI_REPORT_PERF_COUNT", 4),
    ("rcs0", 0x14C00002, "MI_LOAD_REGISTER_MEM", 4),
    ("rcs0", 0x15000001, "MI_LOAD_REGISTER_REG", 3),
    ("rcs0", 0x17000003, "MI_COPY_MEM_MEM", 5),
    ("rcs0", 0x17840409, "MI_ATOMIC", 11),
    ("rcs0", 0x17800001, "MI_ATOMIC", 3),
    ("rcs0", 0x18800101, "MI_BATCH_BUFFER_START", 3),
    ("rcs0", 0x18800100, "MI_BATCH_BUFFER_START", 3),
    ("rcs0", 0x1B200002, "MI_CONDITIONAL_BATCH_BUFFER_END", 4),
    ("bcs0", 0x54100005, "XY_COLOR_BLT", 7),
    ("bcs0", 0x54F08808, "XY_SRC_COPY_BLT", 10),
    ("bcs0", 0x50800008, "XY_FAST_COPY_BLT", 10),
    ("rcs0", 0x7A000004, "PIPE_CONTROL", 6),
    ("rcs0", 0x69040302, "PIPELINE_SELECT", 1),
    ("rcs0", 0x61010011, "STATE_BASE_ADDRESS", 19),
    ("rcs0", 0x680B0001, "3DSTATE_VF_STATISTICS", 1),
    ("rcs0", 0x780B0001, "3DSTATE_VF_STATISTICS (3D)", 1),
    ("rcs0", 0x70000007, "MEDIA_VFE_STATE", 9),
    ("rcs0", 0x7100FFFD, "MEDIA_OBJECT", 0xFFFF),
    # Bits 8 and 10, predicate and indirect parameters, are no part of the length.
    ("rcs0", 0x7105050D, "GPGPU_WALKER", 15),
    ("rcs0", 0x791701FF, "3DSTATE_SO_DECL_LIST", 0x201),
    ("vcs0", 0x68000000, "MFX_WAIT", 1),
    ("vcs0", 0x7000F003, "MFX_PIPE_MODE_SELECT", 5),
    ("vecs0", 0x7402000E, "VEBOX_STATE", 16),
]


@pytest.mark.parametrize(("engine", "header", "name", "dwords"), EMITTED)
def test_what_drivers_emit(engine: str, header: int, name: str, dwords: int) -> None:
    command = find(engine, header)
    assert command is not None
    assert (command.name, command.length.of(header)) == (name, dwords)
    assert command.least <= dwords
    assert header & command.mask == command.match


#: Upper halves of the headers of the batch that i915 executes to record the default state of a render context, with
#: how many dwords each command has there; and it has 256 MI_NOOP. Linux 6.1 gt/gen9_renderstate.c.
_GOLDEN = """
    6101:19 6102:3 680B:1 6904:1 7804:3 7805:8 7806:5 7807:5 7808:133 7809:69 780A:5 780C:2 780D:2 780E:2
    780F:2 7810:9 7811:10 7812:4 7813:4 7814:2 7815:11 7816:11 7817:11 7819:11 781A:11 781B:9 781C:4 781D:11
    781E:5 781F:6 7820:12 7821:2 7823:2 7824:2 7849:3 784A:2 784B:2 784D:2 784F:2 7850:5 7851:11 7852:5
    7855:5 7900:4 7902:17 7904:4 7906:2 7907:33 7908:3 790A:3 790C:17 7911:2 7917:3 7918:8 7919:4 791A:4
    791B:4 7A00:6 7B00:7
"""
GOLDEN_BATCH = {
    **{int(upper, 16): int(dwords) for upper, dwords in (each.split(":") for each in _GOLDEN.split())},
    **dict.fromkeys([*range(0x7826, 0x7834), *range(0x7912, 0x7917)], 2),
}
#: These come four times.
FOUR_TIMES = (0x7904, 0x7918)


def test_the_commands_of_the_golden_batch_are_named_and_of_their_usual_length() -> None:
    assert 256 + 1 + sum(GOLDEN_BATCH.values()) + 3 * (4 + 8) == 886
    assert 256 + 1 + len(GOLDEN_BATCH) + 3 * len(FOUR_TIMES) == 341
    for upper, dwords in GOLDEN_BATCH.items():
        one = upper in (0x6904, 0x680B)
        command = find("rcs0", upper << 16 | (0 if one else dwords - 2))
        assert command in COMMANDS
        assert command.length.of(upper << 16 | (0 if one else dwords - 2)) == dwords
        assert command.usual in (0, dwords), command.name


@pytest.mark.parametrize("engine", ENGINES)
def test_a_header_is_of_one_row(engine: str) -> None:
    rows = [row for row in COMMANDS if engine in row.engines]
    for one, other in itertools.combinations(rows, 2):
        both = one.mask & other.mask
        assert one.client is not other.client or one.match & both != other.match & both, (one.name, other.name)
    assert len({row.name for row in rows}) == len(rows)


@pytest.mark.parametrize("command", COMMANDS, ids=[row.name for row in COMMANDS])
def test_a_row_is_in_itself_right(command: Command) -> None:
    assert hasattr(lib, f"XD_DO_{command.does.upper()}"), command.does
    assert set(command.engines) <= set(ENGINES)
    assert command.engines
    assert all(takes(engine, command.client) for engine in command.engines)
    assert not command.length.mask & command.mask, "the length is in the opcode"
    assert 0 <= command.least <= max(command.usual, command.least)
    assert all(find(engine, command.match) == command for engine in command.engines)
    fixed = command.length.base if not command.length.mask else 0
    assert not fixed or (command.usual in (0, fixed) and command.least <= fixed)
    for field in command.fields:
        assert 0 <= field.low <= field.high < 64
        assert field.dword or not bits(field) & (command.mask | command.length.mask), field.name
        assert field.dword < 256
        assert not command.usual or field.dword < command.usual, field.name
    assert not overlaps(command.fields)
    if command.group is not None:
        assert command.group.first > 0
        assert command.group.size > max(field.dword for field in command.group.fields)
        assert not overlaps(command.group.fields)
        assert all(field.dword < command.group.first or field.high > 31 for field in command.fields)


def bits(field: Field) -> int:
    return ((2 << field.high) - 1) & ~((1 << field.low) - 1)


def overlaps(fields: tuple[Field, ...]) -> list[str]:
    """Two fields of one command have no bit in common; of a 64-bit field, those of its second dword count."""
    taken: dict[int, int] = {}
    bad = []
    for field in fields:
        for dword, mask in ((field.dword, bits(field) & 0xFFFFFFFF), (field.dword + 1, bits(field) >> 32)):
            if taken.get(dword, 0) & mask:
                bad.append(field.name)
            taken[dword] = taken.get(dword, 0) | mask
    return bad


def test_every_handler_has_a_row() -> None:
    """But for the error, which no command asks for."""
    names = {name.removeprefix("XD_DO_").lower() for name in dir(lib) if name.startswith("XD_DO_")}
    assert names - {"error", "count"} == {row.does for row in COMMANDS}


@pytest.mark.parametrize(
    ("engine", "header", "dwords"),
    [
        ("rcs0", 0x0F << 23 | 0xFFFF, 1),
        ("rcs0", 0x10 << 23 | 0xFFFF, 0x101),
        ("rcs0", 0x37 << 23 | 0x3, 5),
        ("rcs0", 0x7FFFFFFF, 0x101),
        ("rcs0", 0x6803FFFF, 1),
        ("rcs0", 0x6FFFFFFF, 1),
        ("rcs0", 0x7707FFFF, 0x10001),
        ("vcs0", 0x7707FFFF, 0x1001),
        ("bcs0", 0x5FC0FFFF, 0x101),
    ],
)
def test_what_no_manual_names_is_passed_over_by_the_rule_of_its_client(engine: str, header: int, dwords: int) -> None:
    command = find(engine, header)
    assert command is not None
    assert (command.length.of(header), command.least) == (dwords, 1)
    assert command.does in ("skip", "nothing")


@pytest.mark.parametrize("engine", ENGINES)
def test_clients_that_an_engine_does_not_have(engine: str) -> None:
    own = [Client.MI, Client.BLITTER if engine == "bcs0" else Client.RENDER]
    for client in range(8):
        assert (find(engine, client << 29) is not None) == (client in own)
        assert takes(engine, client) == (client in own)


def test_the_values_of_fields() -> None:
    dwords = (0x80000001, 0xFFFF0004, 0xFFFF8765, 0x0000FFFF)
    assert Field(0, 31, 31, "").of(dwords) == 1
    assert Field(1, 31, 16, "").of(dwords) == 0xFFFF
    assert Field(1, 31, 16, "", Kind.SIGNED).of(dwords) == -1
    assert Field(1, 15, 0, "", Kind.SIGNED).of(dwords) == 4
    assert Field(2, 47, 2, "", Kind.ADDRESS).of(dwords) == 0xFFFFFFFF8764
    assert Field(0, 22, 2, "", Kind.REGISTER).of((0x3,)) == 0
    assert Field(2, 63, 0, "").of(dwords) == 0xFFFF_FFFF8765
    assert Field(3, 63, 0, "").of(dwords) == 0xFFFF, "the second half is not there"
    assert Field(4, 31, 0, "").of(dwords) is None
