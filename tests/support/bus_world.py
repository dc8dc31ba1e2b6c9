"""A bus with a device in each space, and what is behind it, in a test's hands."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.serving import handled
from xengt_dm._core import ffi, lib
from xengt_dm.ioreq.bus import Bus, Postponed
from xengt_dm.ioreq.devices import Kind
from xengt_dm.ioreq.journal import Journal
from xengt_dm.ioreq.request import Request, RequestType
from xengt_dm.steps import Steps

BAR = 0xF000_0000
BAR_SIZE = 0x10000
#: An I/O BAR, and 00:02.0 in configuration space.
PORT = 0xC000
FUNCTION = 0x10 << 32


Call = tuple[object, ...]


class World:
    """A device and a guest's memory that note what is asked of them, and refuse what no bus may ask."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.memory: dict[int, int] = {}

    # A register file

    def read(self, offset: int, size: int) -> int:
        assert size in (1, 2, 4, 8)
        assert 0 <= offset <= BAR_SIZE - size
        self.calls.append(("read", offset, size))
        return 0x1122334455667788 & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        assert size in (1, 2, 4, 8)
        assert 0 <= offset <= BAR_SIZE - size
        assert 0 <= value < 1 << 8 * size
        self.calls.append(("write", offset, size, value))

    # Guest memory

    def store(self, gpa: int, size: int, value: int, performed: Callable[[], None]) -> int:
        assert 0 <= gpa < 1 << 64
        assert size in (1, 2, 4, 8)
        assert gpa % 4096 + size <= 4096
        assert 0 <= value < 1 << 8 * size
        self.calls.append(("store", gpa, size, value))
        for i, byte in enumerate(value.to_bytes(size, "little")):
            self.memory[gpa + i] = byte
        return int(lib.XD_ROUTE_LEAF_STORE)

    def store_of_many(
        self, gpa: int, size: int, value: int, postponed: Postponed, performed: Callable[[], None]
    ) -> int:
        return self.store(gpa, size, value, performed)

    def pause_stores(self, postponed: Postponed) -> None:
        """Nobody looks meanwhile."""

    def update_directories(self, postponed: Postponed) -> Steps[None]:
        yield from ()

    def look_again(self, gpa: int) -> None:
        assert 0 <= gpa < 1 << 64

    def load(self, gpa: int, size: int) -> int:
        assert 0 <= gpa < 1 << 64
        assert size in (1, 2, 4, 8)
        assert gpa % 4096 + size <= 4096
        self.calls.append(("load", gpa, size))
        return int.from_bytes([self.memory.get(gpa + i, 0) for i in range(size)], "little")

    def frames_changed(self) -> None:
        self.calls.append(("frames_changed",))


class Recorder:
    """An observer that takes only what a trace can say."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def store(self, vcpu: int, gpa: int, size: int, value: int) -> None:
        assert 0 <= gpa < 1 << 64
        assert 0 <= value < 1 << 8 * size
        self.calls.append(("store", vcpu, gpa, size, value))

    def mmio(self, vcpu: int, offset: int, size: int, value: int) -> None:
        assert 0 <= value < 1 << 8 * size
        self.calls.append(("mmio", vcpu, offset, size, value))


class Setup:
    def __init__(self) -> None:
        self.world = World()
        self.counters = ffi.new("xd_counters *")
        self.journal = Journal.private()
        self.bus = Bus(self.world, self.counters, self.journal)
        self.bus.insert(Kind.MEMORY, BAR, BAR_SIZE, self.world)
        self.bus.insert(Kind.PORT, PORT, 8, self.world)
        self.bus.insert(Kind.PCI_CONFIG, FUNCTION, 256, self.world)
        self.recorder = Recorder()
        self.bus.observe(self.recorder)

    def ask(self, addr: int, size: int = 8, data: int = 0, **more: object) -> int:
        return handled(self.bus, request(addr, size, data, **more)).data

    def counted(self) -> dict[str, int]:
        """The counters that are not zero."""
        names = [name for name, field in ffi.typeof("xd_counters").fields if field.type.kind == "primitive"]
        return {name: value for name in names if (value := getattr(self.counters, name))}


def request(addr: int, size: int = 8, data: int = 0, **more: object) -> Request:
    usual = {"vcpu": 0, "type": RequestType.COPY, "repeats": 1, "is_read": False, "data_is_ptr": False, "down": False}
    return Request(addr=addr, size=size, data=data, **{**usual, **more})  # type: ignore[arg-type]
