"""The PCI function on the embedded hypervisor: the guest places its BARs, moves them, and uses them meanwhile."""

from __future__ import annotations

import errno
import random

import pytest

from tests.support.engine_bench import audit
from tests.support.faults import Call, fail_nth
from tests.support.pci_probe import MASTER, MEMORY, linux_msi, linux_sizes
from tests.support.schedule import Out, Schedule, ScheduledPort, Store
from tests.support.serving import serve_all
from tests.support.skylake import BAR0, BAR2, FRAMES, SKYLAKE, Ports, Requests, interrupts_of, place, run, skylake
from tests.support.tables import FRAME, pte
from tests.support.whole_engine import WholeEngine
from xengt_dm.hypervisor.embedded import EmbeddedDomain, Vcpu
from xengt_dm.instance import Instance, open_instance
from xengt_dm.ioreq.ranges import Range, RangeKind
from xengt_dm.ioreq.request import Request
from xengt_dm.ppgtt.space import Mode
from xengt_dm.steps import complete
from xengt_dm.units import sbdf
from xengt_dm.vgpu import registers as reg
from xengt_dm.vgpu.pci import SBDF

MIB = 1 << 20
NEW = 0xE0000000
REGISTER = 0x2030
COMMAND = 0x04
ROOT, POINTERS, DIRECTORY, LEAF, DATA = 4, 5, 6, 8, 20
PATIENCE = 20.0


def ranges(instance: Instance) -> list[Range]:
    return sorted(instance.server.ranges.read() or [])


# Placing


@pytest.mark.parametrize("xen", ["4.17", "4.20"])
def test_a_guest_finds_the_device_and_places_it(xen: str) -> None:
    """hvmloader, then Linux: sizes, a message, a register of each BAR."""
    seen: dict[str, object] = {}

    def guest(vcpu: Vcpu) -> None:
        config = Ports(vcpu)
        place(config)
        seen["sizes"] = linux_sizes(config)
        linux_msi(config, 0xFEE00000, 0x31)
        seen["magic"] = vcpu.mmio_read(BAR0 + 0x78000, 8)
        seen["fuses"] = vcpu.mmio_read(BAR0 + 0x9120, 4)
        seen["aperture"] = vcpu.mmio_read(BAR2 + 0x1000, 4)

    with skylake(xen=xen, placed=False) as (domain, instance):
        assert ranges(instance) == [Range(RangeKind.PCI, SBDF, SBDF)]
        run(domain, instance, guest)
        assert seen == {
            "sizes": {0x10: 16 * MIB, 0x18: 16 * MIB},
            "magic": int.from_bytes(b"vGTvGTvG", "little"),
            "fuses": 0x02800000,
            "aperture": 0,
        }
        assert ranges(instance) == [
            Range(RangeKind.MEMORY, BAR0, BAR0 + 16 * MIB - 1),
            Range(RangeKind.MEMORY, BAR2, BAR2 + 16 * MIB - 1),
            Range(RangeKind.PCI, SBDF, SBDF),
        ]
        assert instance.stats.counters.dropped_stores == 0
    assert domain.msis == []


def test_nobody_answers_for_the_other_functions() -> None:
    with skylake() as (domain, instance):
        run(domain, instance, lambda vcpu: vcpu.pci_read(sbdf(0, 2, 1), 0, 4) == 0xFFFFFFFF or pytest.fail("a device"))


def reads(domain: EmbeddedDomain, instance: Instance, address: int) -> int:
    """What a vCPU reads there."""
    values: list[int] = []
    run(domain, instance, lambda vcpu: values.append(vcpu.mmio_read(address, 4)))
    return values[0]


def test_the_decode_bit() -> None:
    with skylake() as (domain, instance):
        assert reads(domain, instance, BAR0 + 0x9120) == 0x02800000
        Requests(instance).write(COMMAND, 2, MASTER)
        assert ranges(instance) == [Range(RangeKind.PCI, SBDF, SBDF)]
        assert reads(domain, instance, BAR0 + 0x9120) == 0xFFFFFFFF
        Requests(instance).write(COMMAND, 2, MEMORY | MASTER)
        assert reads(domain, instance, BAR0 + 0x9120) == 0x02800000
        assert reads(domain, instance, BAR2) == 0


def test_a_place_that_the_hypervisor_refuses() -> None:
    """The BAR is nowhere, and the daemon goes on; another place is as good as ever."""
    with skylake() as (domain, instance):
        fail_nth(domain, 1, errno.ENOSPC, Call.MAP_RANGE)
        Requests(instance).write(0x10, 4, NEW)
        assert reads(domain, instance, NEW + 0x9120) == 0xFFFFFFFF
        assert reads(domain, instance, BAR0 + 0x9120) == 0xFFFFFFFF
        Requests(instance).write(0x10, 4, BAR0)
        assert reads(domain, instance, BAR0 + 0x9120) == 0x02800000


def test_a_bar_over_page_tables_ends_nothing() -> None:
    """The guest loses what it does to itself."""
    with skylake() as (domain, instance):
        for gfn, child in ((ROOT, POINTERS), (POINTERS, DIRECTORY), (DIRECTORY, LEAF), (LEAF, DATA)):
            domain.write(gfn * FRAME, pte(child).to_bytes(8, "little"))
        complete(instance.engine.create_space(Mode.L4, (ROOT * FRAME,)))
        for address in (16 * MIB, 1 << 32, 0x1000000000):
            Requests(instance).write(0x14, 4, address >> 32)
            Requests(instance).write(0x10, 4, address & 0xFFFFFFFF)
        run(domain, instance, lambda vcpu: vcpu.store(DIRECTORY * FRAME, 8, 0))
        complete(instance.engine.destroy_space(Mode.L4, (ROOT * FRAME,)))
        run(domain, instance, lambda vcpu: vcpu.store(LEAF * FRAME, 8, 7))
        assert domain.read(LEAF * FRAME, 8) == b"\x07\0\0\0\0\0\0\0"


# Requests for many accesses


def counted(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """The requests that the bus is asked to handle from here on."""
    seen: list[Request] = []
    handle = instance.bus.handle

    def note(request: Request) -> object:
        seen.append(request)
        return handle(request)

    monkeypatch.setattr(instance.bus, "handle", note)
    return seen


def test_rep_stos_on_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request; every register has it, and a masked one takes what its mask lets through."""
    with skylake() as (domain, instance):
        seen = counted(instance, monkeypatch)
        run(domain, instance, lambda vcpu: vcpu.rep_stos(BAR0 + 0xC800, 4, 64, 0x12345678))
        assert [(each.addr, each.repeats, each.data_is_ptr) for each in seen] == [(BAR0 + 0xC800, 64, False)]
        assert [instance.device.read(0xC800 + 4 * n, 4) for n in range(64)] == [0x12345678] * 64
        run(domain, instance, lambda vcpu: vcpu.rep_stos(BAR0 + 0x7000, 4, 3, 0x00F0_1234))
        assert [instance.device.read(0x7000 + 4 * n, 4) for n in range(3)] == [0x30] * 3
        run(domain, instance, lambda vcpu: vcpu.rep_stos(BAR0 + 0xC8FC, 4, 4, 5, down=True))
        assert [instance.device.read(0xC8EC + 4 * n, 4) for n in range(5)] == [0x12345678, 5, 5, 5, 5]


def test_rep_movs_to_and_from_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    with skylake() as (domain, instance):
        data = bytes(range(256))
        domain.write(DATA * FRAME, data)
        seen, before = counted(instance, monkeypatch), int(instance.stats.counters.mmio_traps)
        run(domain, instance, lambda vcpu: vcpu.rep_movs(BAR0 + 0x100000, DATA * FRAME, 8, 32))
        stored = [instance.device.read(0x100000 + n, 1) for n in range(256)]
        assert bytes(stored) == data
        run(domain, instance, lambda vcpu: vcpu.rep_movs((DATA + 1) * FRAME, BAR0 + 0x100000, 4, 64))
        assert domain.read((DATA + 1) * FRAME, 256) == data
        assert instance.stats.counters.mmio_traps - before == 32 + 64
        assert [(each.repeats, each.data_is_ptr) for each in seen] == [(32, True), (64, True)]
        run(domain, instance, lambda vcpu: vcpu.rep_movs((DATA + 2) * FRAME, BAR2 + 0x1000, 1, 4096))
        assert domain.read((DATA + 2) * FRAME, FRAME) == bytes(FRAME)


# A driver that dies


def test_spaces_of_a_driver_that_died_end() -> None:
    """By kexec or a panic: the next one looks at PVINFO and resets the device, and no table stays protected."""

    def announce(vcpu: Vcpu) -> None:
        for gfn, child in ((ROOT, POINTERS), (POINTERS, DIRECTORY), (DIRECTORY, LEAF), (LEAF, DATA)):
            vcpu.store(gfn * FRAME, 8, pte(child))
        vcpu.mmio_write(BAR0 + reg.PDP0, 8, ROOT * FRAME)
        vcpu.mmio_write(BAR0 + reg.G2V_NOTIFY, 4, reg.Notification.PPGTT_L4_CREATE)

    def reset(vcpu: Vcpu) -> None:
        vcpu.mmio_write(BAR0 + 0x941C, 4, 1)

    def probe(vcpu: Vcpu) -> None:
        vcpu.mmio_read(BAR0 + reg.PVINFO, 8)
        reset(vcpu)

    with skylake() as (domain, instance):
        run(domain, instance, announce)
        run(domain, instance, reset)
        assert len(instance.engine.spaces) == 1
        assert domain.protected() == [ROOT, POINTERS, DIRECTORY, LEAF]
        run(domain, instance, probe)
        assert instance.engine.spaces == []
        instance.traps.unprotect_deferred()
        assert domain.protected() == []
        assert instance.engine.counters.spaces == 0
        run(domain, instance, announce)
        assert len(instance.engine.spaces) == 1


# Interrupts


def test_a_message_reaches_the_guest() -> None:
    with skylake() as (domain, instance):
        linux_msi(Requests(instance), 0xFEE02000, 0x31)
        interrupts_of(instance).signal(True)
        assert domain.msis == [(0xFEE02000, 0x31)]
        Requests(instance).write(COMMAND, 2, MEMORY)
        interrupts_of(instance).signal(True)
        assert len(domain.msis) == 1


def test_without_messages_it_is_the_line() -> None:
    with skylake() as (domain, instance):
        interrupts_of(instance).signal(True)
        assert domain.interrupts.intx == {(2, 0): True}
        interrupts_of(instance).signal(False)
        assert domain.interrupts.intx == {(2, 0): False}


# A BAR moves while another vCPU stores

PAIRS = 5
SEEDS = range(60)


def stores(rng: random.Random) -> list[Store | Out]:
    """Each pair: a register at the old address, the same at the new one; and the vCPU's half of a page table."""
    found: list[Store | Out] = []
    for pair in range(PAIRS):
        found += [(address + register(pair, address), b"\x01\0\0\0") for address in (BAR0, NEW)]
        size = rng.choice([4, 8, 32])
        found.append((LEAF * FRAME + 2048 + rng.randrange(0, 2048 - size, 4), rng.randbytes(size)))
    return found


def moves(rng: random.Random) -> list[Store | Out]:
    """The vCPU stores to its half of the table, and then writes the BAR through the ports."""
    found: list[Store | Out] = [(LEAF * FRAME + 8 * n, rng.randbytes(8)) for n in range(rng.randrange(PAIRS))]
    address = 1 << 31 | SBDF << 8 | 0x10
    return [*found, Out(0xCF8, 4, address), Out(0xCFC, 4, NEW), (LEAF * FRAME + 1024, rng.randbytes(16))]


def register(pair: int, address: int) -> int:
    """A plain register for each store."""
    return 0x100000 + 8 * pair + (4 if address == NEW else 0)


def explore(seed: int) -> str:
    """Returns what is wrong, or nothing."""
    rng = random.Random(seed)
    programs = {0: moves(rng), 1: stores(rng)}
    with EmbeddedDomain(FRAMES, 2, "4.17") as domain:
        for gfn, child in ((ROOT, POINTERS), (POINTERS, DIRECTORY), (DIRECTORY, LEAF)):
            domain.write(gfn * FRAME, pte(child).to_bytes(8, "little"))
        schedule = Schedule(domain, seed)
        with open_instance(ScheduledPort(domain, schedule), SKYLAKE) as instance:
            place(Requests(instance))
            complete(instance.engine.create_space(Mode.L4, (ROOT * FRAME,)))
            schedule.start(programs)
            while schedule.turn():
                serve_all(instance.loop)
            (space,) = instance.engine.spaces
            assert audit(WholeEngine(instance.engine), space) == (0, 0)
            reached = [
                [instance.device.read(register(pair, address), 4) for address in (BAR0, NEW)] for pair in range(PAIRS)
            ]
            counters = instance.stats.counters
            strays = int(counters.dropped_stores + counters.straggler_stores)
            assert instance.bar0.address == NEW
        schedule.finish()
        assert domain.join(PATIENCE)
        memory: dict[int, int] = {}
        for each in (each for program in programs.values() for each in program if not isinstance(each, Out)):
            memory.update((each[0] + i, byte) for i, byte in enumerate(each[1]))
        wrong = [gpa for gpa, byte in memory.items() if gpa < FRAMES * FRAME and domain.read(gpa, 1)[0] != byte]
    if wrong or strays:
        return f"memory {wrong}, strays {strays}"
    if not all(any(pair) for pair in reached):
        return f"the device was at neither address: {reached}"
    return ""


def test_a_bar_that_moves_loses_no_store() -> None:
    for seed in SEEDS:
        assert explore(seed) == "", f"seed {seed}"
