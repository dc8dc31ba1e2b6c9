"""A domain of the embedded hypervisor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Self

from xengt_dm._embedded import ffi, lib
from xengt_dm.hypervisor.embedded.errors import VcpuStoppedError
from xengt_dm.hypervisor.embedded.interrupts import Interrupts, Msi
from xengt_dm.hypervisor.embedded.p2m import FLAVOURS, Flavour, P2mType
from xengt_dm.hypervisor.embedded.port import EmbeddedPort
from xengt_dm.hypervisor.embedded.rules import compile_rules
from xengt_dm.hypervisor.embedded.shadow_paging import Paging, can_have
from xengt_dm.hypervisor.embedded.vcpu import Vcpu
from xengt_dm.units import CData

if TYPE_CHECKING:
    from types import TracebackType

#: What runs on a vCPU.
Program = Callable[[Vcpu], None]

_COUNTERS = {
    "trapped": lib.XD_EMB_TRAPPED,
    "invalidates": lib.XD_EMB_INVALIDATES,
    "dropped_stores": lib.XD_EMB_DROPPED_STORES,
    "discarded_stores": lib.XD_EMB_DISCARDED_STORES,
    "all_ones_loads": lib.XD_EMB_ALL_ONES_LOADS,
    "retries": lib.XD_EMB_RETRIES,
    "passes": lib.XD_EMB_PASSES,
    "events": lib.XD_EMB_EVENTS,
    "lost_events": lib.XD_EMB_LOST_EVENTS,
    "sleeps": lib.XD_EMB_SLEEPS,
    "faults": lib.XD_EMB_FAULTS,
    "settled": lib.XD_EMB_SETTLED,
}


class EmbeddedDomain:
    """A domain of ``ram_frames`` frames, all RAM but for ``holes`` ([first frame, count]), with ``vcpus`` vCPUs.

    ``flavour`` names the Xen that it behaves as, a key of :data:`~xengt_dm.hypervisor.embedded.p2m.FLAVOURS`.
    ``unlocked_looks`` widens a race that only Xen before 4.9 has to every flavour: a type may then change between the
    hardware's look at a store and the emulator's. ``rep_stores`` has every store be one of ``rep stos``; without it
    none is, as in the programs of demo and replay. See :mod:`xengt_dm.traps.state`. ``local_apics``: whether the
    guest has enabled the local APICs of its vCPUs. ``paging``: how Xen translates the guest's addresses, ``hap`` or
    ``shadow`` (``hap=0`` in the domain's xl file); ValueError for another word.
    """

    def __init__(
        self,
        ram_frames: int,
        vcpus: int,
        flavour: str = "4.17",
        holes: Iterable[tuple[int, int]] = (),
        domid: int = 1,
        unlocked_looks: bool | None = None,
        rep_stores: bool = False,
        local_apics: bool = True,
        paging: str = Paging.HAP,
    ) -> None:
        self.flavour: Flavour = FLAVOURS[flavour]
        self.paging = Paging(paging)
        self.ram_frames = ram_frames
        self.vcpu_count = vcpus
        self.domid = domid
        self.rep_stores = rep_stores
        #: Device models that have the domain open.
        self.ports: list[EmbeddedPort] = []
        self.interrupts = Interrupts(vcpus, local_apics)
        rules = compile_rules(self.flavour, self.paging)
        if unlocked_looks is not None:
            rules.unlocked_looks = unlocked_looks
        rules.rep_stores = rep_stores and self.flavour.emulates_again
        handle = lib.xd_emb_new(domid, ram_frames, vcpus, rules)
        if handle == ffi.NULL:
            raise MemoryError(f"a domain of {ram_frames} frames and {vcpus} vCPUs")
        self._handle = ffi.gc(handle, lib.xd_emb_free)
        self._vcpus = [Vcpu(self, index) for index in range(vcpus)]
        self._threads: dict[int, threading.Thread] = {}
        self._failures: list[BaseException] = []
        self._lock = threading.Lock()
        for first, count in holes:
            self.set_type(first, count, P2mType.MMIO_DM)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.destroy()
        for thread in list(self._threads.values()):
            thread.join()
        for port in list(self.ports):
            port.close()

    @property
    def handle(self) -> CData:
        """``xd_emb *``."""
        return self._handle

    def port(self) -> EmbeddedPort:
        """A new device model's handles."""
        return EmbeddedPort(self)

    def vcpu(self, index: int) -> Vcpu:
        """Returns the vCPU with this number. Raises IndexError without such a vCPU."""
        return self._vcpus[index]

    def start(self, index: int, program: Program) -> threading.Thread:
        """Run ``program`` on vCPU ``index``, on a thread of its own."""
        vcpu = self._vcpus[index]

        def run() -> None:
            try:
                program(vcpu)
            except VcpuStoppedError as stopped:
                if self.crash_reason:
                    self._fail(stopped)
            except BaseException as error:  # a failed check in a guest program is for join() to raise
                self._fail(error)

        thread = threading.Thread(target=run, name=f"vcpu{index}", daemon=True)
        self._threads[index] = thread
        thread.start()
        return thread

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failures.append(error)

    def join(self, timeout: float | None = None) -> bool:
        """Wait for all guest programs; raise what the first of them failed with.

        False if ``timeout`` seconds were not enough. A program that a destroyed domain cut short has not failed.
        """
        for thread in list(self._threads.values()):
            thread.join(timeout)
        if any(thread.is_alive() for thread in self._threads.values()):
            return False
        with self._lock:
            failures, self._failures = self._failures, []
        if failures:
            raise failures[0]
        return True

    def remove(self, gfn: int, count: int, vcpu: int = 0) -> None:
        """vCPU ``vcpu`` gives frames back; returns when all enabled servers have answered INVALIDATE.

        Not for the thread that serves the domain, which would wait for itself.
        """
        Vcpu(self, vcpu).remove(gfn, count)

    def add(self, gfn: int, count: int, vcpu: int = 0) -> None:
        """vCPU ``vcpu`` populates frames, which contain zeros."""
        Vcpu(self, vcpu).add(gfn, count)

    def pause(self) -> None:
        """Returns when no vCPU runs. Nests; one that waits for an answer does not run."""
        lib.xd_emb_pause(self._handle)

    def unpause(self) -> None:
        """Undoes one :meth:`pause`."""
        lib.xd_emb_unpause(self._handle)

    def destroy(self) -> None:
        """The domain is no more: vCPUs stop wherever they are, and every call on a port raises DomainGoneError."""
        lib.xd_emb_destroy(self._handle)

    def shutdown(self) -> None:
        """The guest shuts down in order. A vCPU that waits for an answer defers it; the others run no more."""
        lib.xd_emb_shutdown(self._handle)

    @property
    def is_shut_down(self) -> bool:
        """Whether the guest has shut down: no vCPU runs or waits any more."""
        return bool(lib.xd_emb_is_shut_down(self._handle))

    @property
    def crash_reason(self) -> str:
        """Why Xen crashed the domain, or an empty string."""
        reason = ffi.new("char[128]")
        lib.xd_emb_stopped(self._handle, reason)
        return bytes(ffi.string(reason)).decode()

    @property
    def msis(self) -> list[Msi]:
        """Message-signalled interrupts that reached a vCPU, oldest first."""
        return self.interrupts.msis

    @property
    def counters(self) -> dict[str, int]:
        """What happened so far; see XD_EMB_* in cffi_build/embedded/domain.h."""
        return {name: int(lib.xd_emb_counter(self._handle, which)) for name, which in _COUNTERS.items()}

    @property
    def dropped_stores(self) -> int:
        """Stores of which some part met neither memory nor a server."""
        return int(lib.xd_emb_counter(self._handle, lib.XD_EMB_DROPPED_STORES))

    @property
    def entries(self) -> int:
        """Frames whose stores are trapped (``p2m->ioreq.entry_count``)."""
        return int(lib.xd_emb_entries(self._handle))

    @property
    def owner(self) -> int | None:
        """The server that claims the trapped type."""
        server = int(lib.xd_emb_owner(self._handle))
        return None if server < 0 else server

    def type_of(self, gfn: int) -> P2mType:
        """Returns the p2m type of a frame."""
        return P2mType(lib.xd_emb_type(self._handle, gfn))

    def set_type(self, gfn: int, count: int, p2m_type: P2mType) -> None:
        """Sets the type of frames directly, as the toolstack, paging or sharing would.

        ValueError if there are no such frames, or if no frame of a guest with this paging can have the type.
        """
        if not can_have(self.flavour, self.paging, p2m_type):
            raise ValueError(f"no frame of a guest on shadow paging is {p2m_type.name.lower()}")
        if lib.xd_emb_set_type(self._handle, gfn, count, p2m_type):
            raise ValueError(f"no frames {gfn}..{gfn + count - 1}")

    def protected(self) -> list[int]:
        """The frames whose stores are trapped."""
        return [gfn for gfn in range(self.ram_frames) if lib.xd_emb_type(self._handle, gfn) == P2mType.IOREQ_SERVER]

    def set_default_server(self, server: int) -> None:
        """What no range claims goes to this server (before 4.12). ValueError if the flavour has no such thing."""
        if lib.xd_emb_server_default(self._handle, server):
            raise ValueError(f"server {server} cannot be the default in {self.flavour.name}")

    def range_count(self, server: int, kind: int = lib.XD_RANGE_MEMORY) -> int:
        """Ranges of a server, of an ``XD_RANGE_*``; adjacent ones are counted as one."""
        return int(lib.xd_emb_range_count(self._handle, server, kind))

    def log_dirty(self, on: bool) -> bool:
        """Global log-dirty mode, which migration needs; False where Xen refuses it (EBUSY)."""
        return not lib.xd_emb_log_dirty(self._handle, on)

    def read(self, gpa: int, size: int) -> bytes:
        """Returns guest memory, without any trap. Raises ValueError if it is not RAM."""
        buffer = ffi.new("char[]", max(size, 1))
        if lib.xd_emb_peek(self._handle, gpa, buffer, size):
            raise ValueError(f"{gpa:#x} is no RAM")
        return bytes(ffi.buffer(buffer, size))

    def write(self, gpa: int, data: bytes) -> None:
        """Writes guest memory without any trap, as DMA does. Raises ValueError if it is not RAM."""
        if lib.xd_emb_poke(self._handle, gpa, ffi.from_buffer(data), len(data)):
            raise ValueError(f"{gpa:#x} is no RAM")

    def read_u64(self, gpa: int) -> int:
        """Returns 8 bytes of guest memory, little-endian."""
        return int.from_bytes(self.read(gpa, 8), "little")
