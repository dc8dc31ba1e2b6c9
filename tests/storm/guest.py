"""The storm's guest: a driver on each vCPU, spaces that all share, and what the storm asks of it over the console."""

from __future__ import annotations

import itertools
import mmap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.storm.actor import Wrong
from tests.storm.driver import Driver
from tests.storm.history import History
from tests.storm.memory import Memory
from tests.storm.spaces import Announcements
from tests.storm.world import (
    GPU_DATA,
    GPU_L2,
    GPU_L3,
    GPU_LEAF,
    GPU_ROOT,
    GPU_SELF_LEAF,
    PLAIN_FRAMES,
    SHARED_L2,
    SHARED_L3,
    SHARED_LEAF,
    SHARED_ROOT,
    VCPUS,
    pool,
)
from tests.support.tables import FRAME, address, pte
from xengt_dm.hypervisor.embedded import EmbeddedDomain, Vcpu
from xengt_dm.hypervisor.embedded.errors import GuestFaultError, VcpuStoppedError
from xengt_dm.settings import DEFAULT_BAR0
from xengt_dm.sim.console import ACTIONS
from xengt_dm.vgpu import registers as reg

#: Words of the file ``progress``: acts of each vCPU, then 1 if the guest found something wrong.
PROGRESS: Final = "progress"
WORDS: Final = VCPUS + 1
_LOOK_SECONDS: Final = 0.01
#: The most that :meth:`Guest.check` tells.
_MOST_LINES: Final = 12


class Guest:
    """Implements Guest of xengt_dm.sim.programs. Each act of a vCPU is done before anybody looks at the models."""

    scripted = False

    def __init__(self, domain: EmbeddedDomain, seed: int, directory: Path, forgetful: bool) -> None:
        self._domain = domain
        self._announcements = Announcements()
        shared = Memory([SHARED_LEAF])
        self._drivers = []
        for index in range(VCPUS):
            memory = Memory([*pool(index), *PLAIN_FRAMES[index]])
            memory.frames.update(shared.frames)
            self._drivers.append(Driver(History(domain, index), seed, self._announcements, memory, forgetful))
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (directory / PROGRESS).open("wb+") as file:
            file.truncate(8 * WORDS)
            self._words = memoryview(mmap.mmap(file.fileno(), 8 * WORDS)).cast("Q")
        self._built = threading.Barrier(VCPUS)
        self._changed = threading.Condition()
        self._rest = False
        self._resting = [False] * VCPUS
        self._fault: str | None = None

    def start(self) -> None:
        for index in range(VCPUS):
            self._domain.start(index, self._program)

    def progress(self) -> dict[str, int | str | None]:
        return {"fault": self._fault, **{f"vcpu{n}": each.doing for n, each in enumerate(self._drivers)}}

    def wait_for_rounds(self, rounds: int) -> None: ...

    def _program(self, vcpu: Vcpu) -> None:
        driver = self._drivers[vcpu.index]
        try:
            while vcpu.mmio_read(DEFAULT_BAR0 + reg.PVINFO, 8) != reg.PVINFO_MAGIC:
                time.sleep(_LOOK_SECONDS)  # a driver has no event that tells it of a device that appears
            if vcpu.index == 0:
                self._build(vcpu)
            self._built.wait()
            while True:
                self._words[vcpu.index] += 1
                if self._rest:
                    self._take_a_rest(vcpu.index)
                driver.act()
        except (Wrong, GuestFaultError) as wrong:
            self._stop(f"vCPU {vcpu.index}, {driver.doing}: {wrong}")
        except (VcpuStoppedError, threading.BrokenBarrierError):
            self._stop(self._domain.crash_reason or None)
        except BaseException as error:
            self._stop(f"vCPU {vcpu.index}, {driver.doing}: {error!r}")
            raise

    def _build(self, vcpu: Vcpu) -> None:
        """The space of the shared leaf, and that of the GPU; each is announced once."""
        for tables in ([SHARED_ROOT, SHARED_L3, SHARED_L2, SHARED_LEAF], [GPU_ROOT, GPU_L3, GPU_L2, GPU_LEAF]):
            for table, child in itertools.pairwise(tables):
                vcpu.store(address(table), 8, pte(child))
        vcpu.store(address(GPU_L2, 1), 8, pte(GPU_SELF_LEAF))
        vcpu.store(address(GPU_SELF_LEAF), 8, pte(GPU_LEAF))
        for slot, gfn in enumerate(GPU_DATA):
            vcpu.store(address(GPU_LEAF, slot), 8, pte(gfn))
        for root in (SHARED_ROOT, GPU_ROOT):
            self._announcements.announce(vcpu, [root], reg.Notification.PPGTT_L4_CREATE, False)

    def _take_a_rest(self, index: int) -> None:
        with self._changed:
            self._resting[index] = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._rest)
            self._resting[index] = False

    def _stop(self, fault: str | None) -> None:
        self._built.abort()
        with self._changed:
            self._fault = self._fault or fault
            self._words[VCPUS] = 1
            self._changed.notify_all()

    def abandon(self) -> None:
        """The domain is destroyed: nobody waits for another any more."""
        self._built.abort()
        self.go_on()

    # What the storm asks for

    def rest(self, seconds: float) -> bool:
        """Have every vCPU rest between two acts; False if one does not within the time, or if something is wrong."""
        self._rest = True
        with self._changed:
            return self._changed.wait_for(lambda: all(self._resting) or self._fault is not None, seconds) and (
                self._fault is None
            )

    def go_on(self, memory_only: bool = False) -> None:
        for driver in self._drivers:
            driver.memory_only = memory_only
        with self._changed:
            self._rest = False
            self._changed.notify_all()

    def check_memory(self) -> list[str]:
        """While all rest: what of the guest's memory is not as the guest stored it."""
        wrong = []
        for index, driver in enumerate(self._drivers):
            for gfn in [*pool(index), *([SHARED_LEAF] if index == 0 else [])]:
                found, meant = self._domain.read(gfn * FRAME, FRAME), driver.memory.frames[gfn]
                if found != meant:
                    at = next(n for n in range(0, FRAME, 8) if found[n : n + 8] != meant[n : n + 8])
                    kind = "data" if gfn in driver.data else "table"
                    wrong.append(
                        f"{kind} {gfn} of vCPU {index} differs from byte {at} on: {found[at : at + 8].hex()}, "
                        f"and {meant[at : at + 8].hex()} was stored"
                    )
                    wrong += driver.vcpu.of(gfn * FRAME + at)
        return wrong[:_MOST_LINES]

    def check_registers(self) -> list[str]:
        """While all rest, and a daemon serves: what of the registers is not as the guest wrote it."""
        wrong = []
        for index, driver in enumerate(self._drivers):
            wrong += driver.check_registers(Vcpu(self._domain, index))
        vcpu = Vcpu(self._domain, 0)
        for n, meant in enumerate(self._announcements.pdps):
            if (found := vcpu.load(DEFAULT_BAR0 + reg.PDP0 + 8 * n, 8)) != meant:
                wrong.append(f"pdp[{n}]: {found:#x}, not {meant:#x}")
        if (found := vcpu.load(DEFAULT_BAR0 + reg.G2V_NOTIFY, 4)) != self._announcements.notified:
            wrong.append(f"g2v_notify: {found}, not {self._announcements.notified}")
        return wrong[:_MOST_LINES]

    def spaces(self) -> list[list[Any]]:
        """While all rest: the live spaces as mode, roots (gpa) and references, sorted."""
        found = [["l4", [root * FRAME], 1] for root in (SHARED_ROOT, GPU_ROOT)]
        for driver in self._drivers:
            found += [[f"l{space.mode}", [root * FRAME for root in space.roots], space.refs] for space in driver.spaces]
        return sorted(found)


def _asked(name: str) -> Callable[..., Any]:
    return lambda console, **arguments: getattr(console._guest, name)(**arguments)


def install() -> None:
    """Let the console of a sim ask the storm's guest."""
    for name in ("rest", "go_on", "check_memory", "check_registers", "spaces"):
        ACTIONS[name] = _asked(name)
