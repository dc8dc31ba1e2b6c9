"""The device behind BAR0, as Linux' i915 sees it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xengt_dm.ppgtt.space import Mode
from xengt_dm.vgpu.device import Vgpu
from xengt_dm.vgpu.registers import BAR0_SIZE, NO_GRAPHICS_MEMORY, GraphicsMemory
from xengt_dm.vgpu.state import SIZE, UNASSIGNED, DeviceState

# struct vgt_if of drivers/gpu/drm/i915/i915_pvinfo.h, Linux 6.1, field by field; `vgtif_offset(x)` is PVINFO + offset.
PVINFO = 0x78000
MAGIC, VERSION_MAJOR, VERSION_MINOR, VGT_ID, VGT_CAPS = 0x0, 0x8, 0xA, 0xC, 0x10
MAPPABLE_BASE, MAPPABLE_SIZE, NONMAPPABLE_BASE, NONMAPPABLE_SIZE, FENCES = 0x40, 0x44, 0x48, 0x4C, 0x50
DISPLAY_READY, G2V_NOTIFY, CURSOR_X_HOT, CURSOR_Y_HOT, PDP = 0x814, 0x818, 0x830, 0x834, 0x838
EXECLIST_DESC = 0x858
L3_CREATE, L3_DESTROY, L4_CREATE, L4_DESTROY, EXECLIST_CREATE, EXECLIST_DESTROY = 2, 3, 4, 5, 6, 7
ECO = 0x4080


class Spaces:
    """Notes what the registers ask for."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.wide = False

    def create_space(self, mode: Mode, roots: tuple[int, ...]) -> None:
        self.calls.append(("create", mode, roots))

    def destroy_space(self, mode: Mode, roots: tuple[int, ...]) -> bool:
        self.calls.append(("destroy", mode, roots))
        return True

    def set_64k_pages(self, enabled: bool) -> None:
        self.wide = enabled

    def ignore_notification(self) -> None:
        self.calls.append(("ignored",))


def fresh(spaces: Spaces, generation: int, vgt_id: int, graphics: GraphicsMemory = NO_GRAPHICS_MEMORY) -> Vgpu:
    """A device after its first reset."""
    state = DeviceState(memoryview(bytearray(SIZE)))
    device = Vgpu(spaces, state, generation=generation, vgt_id=vgt_id, graphics=graphics)
    device.reset()
    return device


@pytest.fixture
def spaces() -> Spaces:
    return Spaces()


@pytest.fixture
def device(spaces: Spaces) -> Vgpu:
    return fresh(spaces, 9, 3)


# What the guest finds


def test_pvinfo_as_i915_reads_it(device: Vgpu) -> None:
    """intel_vgpu_detect: the magic as one quadword, then the version; then what it may do."""
    assert device.read(PVINFO + MAGIC, 8) == int.from_bytes(b"vGTvGTvG", "little")
    assert device.read(PVINFO + VERSION_MAJOR, 2) == 1
    assert device.read(PVINFO + VERSION_MINOR, 2) == 0
    assert device.read(PVINFO + VGT_ID, 4) == 3
    assert device.read(PVINFO + DISPLAY_READY, 4) == 0
    assert device.read(PVINFO + CURSOR_X_HOT, 4) == 0xFFFFFFFF
    assert device.read(PVINFO + CURSOR_Y_HOT, 4) == 0xFFFFFFFF


@pytest.mark.parametrize(("generation", "caps"), [(8, 0x0C), (9, 0x1C)])
def test_capabilities(spaces: Spaces, generation: int, caps: int) -> None:
    """Full PPGTT (bit 2), HWSP emulation (3); huge GTT (4) where 64 KiB pages are."""
    assert fresh(spaces, generation, 1).read(PVINFO + VGT_CAPS, 4) == caps


def test_graphics_memory(spaces: Spaces) -> None:
    nothing = fresh(spaces, 8, 1)
    for offset in (MAPPABLE_BASE, MAPPABLE_SIZE, NONMAPPABLE_BASE, NONMAPPABLE_SIZE, FENCES):
        assert nothing.read(PVINFO + offset, 4) == 0
    some = fresh(spaces, 8, 1, GraphicsMemory(low_mib=96, high_mib=384, fences=4))
    values = [some.read(PVINFO + offset, 4) for offset in (MAPPABLE_SIZE, NONMAPPABLE_BASE, NONMAPPABLE_SIZE, FENCES)]
    assert values == [96 << 20, 128 << 20, 384 << 20, 4]


def test_all_else_reads_as_zero(device: Vgpu) -> None:
    for offset in (0, 0x2030, ECO, PVINFO + 0x100, PVINFO + G2V_NOTIFY, PVINFO + 0xFF8, BAR0_SIZE - 8):
        assert device.read(offset, 8) == 0


def test_any_part_of_a_register_reads(device: Vgpu) -> None:
    magic = b"vGTvGTvG" + struct.pack("<HHI", 1, 0, 3)
    for size in (1, 2, 4, 8):
        for offset in range(17 - size):
            assert device.read(PVINFO + offset, size) == int.from_bytes(magic[offset : offset + size], "little")


# Storing


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 0xFFC, 0x1000, 0x2000, 0x1FFFF8, 0x200000, 0x7FFFF8, BAR0_SIZE - 16]),
            st.integers(0, 8),
            st.sampled_from([1, 2, 4, 8]),
            st.integers(0, (1 << 64) - 1),
        ),
        max_size=6,
    )
)
def test_what_is_stored_reads_back(done: list[tuple[int, int, int, int]]) -> None:
    """Over page ends too, and nothing else changes. Where no register can be, nothing is stored."""
    device = fresh(Spaces(), 8, 1)
    memory: dict[int, int] = {}
    for base, step, size, value in done:
        value &= (1 << 8 * size) - 1
        device.write(base + step, size, value)
        memory |= {base + step + i: byte for i, byte in enumerate(value.to_bytes(size, "little"))}
    for base, _, size, _ in done:
        for offset in range(base, base + 9):
            expected = bytes(0 if offset + i in UNASSIGNED else memory.get(offset + i, 0) for i in range(size))
            if offset + size <= BAR0_SIZE:
                assert device.read(offset, size) == int.from_bytes(expected, "little")


#: magic..vgt_caps, and what the guest gets of the aperture.
FIXED = (*range(0x14), *range(MAPPABLE_BASE, FENCES + 4))


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_what_the_host_says_is_not_the_guests_to_change(device: Vgpu, size: int) -> None:
    before = [device.read(PVINFO + offset, 1) for offset in FIXED]
    for offset in FIXED:
        device.write(PVINFO + offset, size, (1 << 8 * size) - 1)
        device.write(PVINFO + offset, size, 0)
    assert [device.read(PVINFO + offset, 1) for offset in FIXED] == before


def test_a_write_that_begins_on_fixed_bytes_keeps_the_others(device: Vgpu) -> None:
    device.write(PVINFO + VGT_CAPS, 8, 0xAABBCCDD_FFFFFFFF)
    assert device.read(PVINFO + VGT_CAPS, 8) == 0xAABBCCDD_0000001C


@pytest.mark.parametrize("offset", [DISPLAY_READY, CURSOR_X_HOT, CURSOR_Y_HOT, EXECLIST_DESC])
def test_what_is_the_guests_to_write(device: Vgpu, offset: int) -> None:
    device.write(PVINFO + offset, 4, 0x1234)
    assert device.read(PVINFO + offset, 4) == 0x1234


def test_state_is_plain_data() -> None:
    """A device on a copy of another's buffer is that device: it reads what was stored, and nothing is reset."""
    buffer = bytearray(SIZE)
    first = Vgpu(Spaces(), DeviceState(memoryview(buffer)), generation=9, vgt_id=3)
    first.reset()
    first.write(0xFFE, 4, 0x44332211)
    first.write(PVINFO + CURSOR_X_HOT, 4, 5)
    first.write(ECO, 4, 0xF)
    spaces = Spaces()
    second = Vgpu(spaces, DeviceState(memoryview(bytearray(buffer))), generation=8, vgt_id=9)
    assert second.read(0xFFE, 4) == 0x44332211
    assert second.read(PVINFO + CURSOR_X_HOT, 4) == 5
    assert second.read(PVINFO + VGT_ID, 4) == 3
    assert spaces.wide is True
    assert spaces.calls == []


def test_a_device_that_is_not_reset_writes_nothing() -> None:
    buffer = bytearray(range(256)) * (SIZE // 256)
    before = bytes(buffer)
    Vgpu(Spaces(), DeviceState(memoryview(buffer)), generation=9, vgt_id=3)
    assert buffer == before


def test_reset() -> None:
    """Registers have their reset values again, and what follows from them; memory without registers stays."""
    spaces = Spaces()
    device = fresh(spaces, 9, 3)
    device.write(PVINFO + CURSOR_X_HOT, 4, 5)
    device.write(PVINFO + PDP, 8, 0x1000)
    device.write(ECO, 4, 0xF)
    device.write(0x2030, 4, 7)
    device.reset()
    assert device.read(PVINFO + CURSOR_X_HOT, 4) == 0xFFFFFFFF
    assert device.read(PVINFO + PDP, 8) == 0
    assert device.read(ECO, 4) == 0
    assert spaces.wide is False
    assert spaces.calls == []
    assert device.read(0x2030, 4) == 7


# Notifications


def set_pdp(device: Vgpu, number: int, address: int, sizes: tuple[int, ...] = (4, 4)) -> None:
    """As i915 writes pdp[n]: lo, then hi. Or as one."""
    at = PVINFO + PDP + 8 * number
    for size in sizes:
        device.write(at, size, address & (1 << 8 * size) - 1)
        address >>= 8 * size
        at += size


@pytest.mark.parametrize("sizes", [(4, 4), (8,), (2, 2, 4), (1,) * 8])
def test_l4_spaces(device: Vgpu, spaces: Spaces, sizes: tuple[int, ...]) -> None:
    """gen8_ppgtt_notify_vgt: pdp[0], then the notification."""
    set_pdp(device, 0, 0x12_3456_7000, sizes)
    device.write(PVINFO + G2V_NOTIFY, 4, L4_CREATE)
    device.write(PVINFO + G2V_NOTIFY, 4, L4_DESTROY)
    assert spaces.calls == [("create", Mode.L4, (0x12_3456_7000,)), ("destroy", Mode.L4, (0x12_3456_7000,))]


def test_l3_spaces(device: Vgpu, spaces: Spaces) -> None:
    roots = (0x1000, 0x2_0000_2000, 0, 0xFFFF_FFFF_FFFF_F000)
    for number, root in enumerate(roots):
        set_pdp(device, number, root)
    device.write(PVINFO + G2V_NOTIFY, 4, L3_CREATE)
    device.write(PVINFO + G2V_NOTIFY, 4, L3_DESTROY)
    assert spaces.calls == [("create", Mode.L3, roots), ("destroy", Mode.L3, roots)]


@pytest.mark.parametrize("value", [0, 1, EXECLIST_CREATE, EXECLIST_DESTROY, 8, 9, 0x102, 0xFFFFFFFF])
def test_notifications_that_ask_nothing_of_us(device: Vgpu, spaces: Spaces, value: int) -> None:
    device.write(PVINFO + G2V_NOTIFY, 4, value)
    assert spaces.calls == [("ignored",)]
    assert device.read(PVINFO + G2V_NOTIFY, 4) == value


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (G2V_NOTIFY, 1),
        (G2V_NOTIFY, 2),
        (G2V_NOTIFY + 2, 2),
        (G2V_NOTIFY + 3, 1),
        (G2V_NOTIFY - 2, 4),
        (G2V_NOTIFY + 2, 8),
    ],
)
def test_part_of_a_notification_is_none(device: Vgpu, spaces: Spaces, offset: int, size: int) -> None:
    device.write(PVINFO + offset, size, 0x0404040404040404 & (1 << 8 * size) - 1)
    assert spaces.calls == []


@pytest.mark.parametrize("before", [0, 1, 3, 4])
def test_a_write_that_covers_the_notification(device: Vgpu, spaces: Spaces, before: int) -> None:
    device.write(PVINFO + G2V_NOTIFY - before, 8, L4_CREATE << 8 * before)
    assert spaces.calls == [("create", Mode.L4, (0,))]


def test_each_write_is_a_notification(device: Vgpu, spaces: Spaces) -> None:
    for _ in range(3):
        device.write(PVINFO + G2V_NOTIFY, 4, L4_CREATE)
    assert len(spaces.calls) == 3


# 64 KiB pages (gtt_write_workarounds sets all four bits)


@pytest.mark.parametrize(
    ("value", "wide"), [(0, False), (0xF, True), (0xFFFFFFFF, True), (0x7, False), (0xE, False), (0x10, False)]
)
def test_the_register_for_64k_pages(device: Vgpu, spaces: Spaces, value: int, wide: bool) -> None:
    device.write(ECO, 4, value)
    assert spaces.wide is wide
    device.write(ECO, 4, 0)
    assert spaces.wide is False


@pytest.mark.parametrize(
    ("offset", "size", "value"),
    [(ECO, 1, 0xF), (ECO, 2, 0xF), (ECO - 4, 8, 0xF << 32), (ECO - 1, 2, 0xF00), (ECO, 8, 0xF)],
)
def test_the_register_for_64k_pages_in_part_and_with_others(
    device: Vgpu, spaces: Spaces, offset: int, size: int, value: int
) -> None:
    device.write(offset, size, value)
    assert spaces.wide is True
    device.write(ECO + 3, 1, 0xFF)
    assert spaces.wide is True
    device.write(ECO + 4, 4, 0)
    assert spaces.wide is True
    device.write(ECO, 1, 0)
    assert spaces.wide is False
