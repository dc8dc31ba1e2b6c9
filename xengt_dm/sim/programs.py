"""What the vCPUs of a sim do: the guests that ``xengt-dm sim --guest`` can name."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from xengt_dm.errors import UsageError
from xengt_dm.hypervisor.embedded import EmbeddedDomain, Vcpu
from xengt_dm.hypervisor.embedded.errors import VcpuStoppedError
from xengt_dm.settings import DEFAULT_BAR0
from xengt_dm.sim.demo import AddressSpace, GuestFault, Pages, Scratch
from xengt_dm.units import PAGE_SIZE
from xengt_dm.vgpu import registers as reg

#: How often a driver without a GPU looks for one.
_LOOK_SECONDS: Final = 0.01


class Guest(Protocol):
    """A guest of a sim."""

    #: Whether the vCPUs execute only the instructions that come over the console.
    scripted: bool

    def start(self) -> None:
        """Start the vCPUs' programs."""

    def progress(self) -> dict[str, int | str | None]:
        """Returns what the guest has done, and under ``fault`` what it found wrong, None if nothing."""

    def wait_for_rounds(self, rounds: int) -> None:
        """Returns when every vCPU has done so many rounds since its start, or does no more."""


class Still:
    """A guest without a program."""

    def __init__(self, *, scripted: bool) -> None:
        self.scripted = scripted

    def start(self) -> None:
        """Does nothing."""

    def progress(self) -> dict[str, int | str | None]:
        """As :meth:`Guest.progress`."""
        return {"fault": None}

    def wait_for_rounds(self, rounds: int) -> None:
        """Returns at once: there are no rounds."""


class Stores:
    """Each vCPU is a driver that creates, changes, reads back and destroys address spaces until the domain ends.

    It does what the guest of `demo` does, and also gives frames back during the life of each space. While there is no
    GPU, a driver waits for one. A driver stops if it reads a value from its memory that it did not store.
    """

    scripted = False
    #: Tables that are bound in one round, and pages of each.
    SLOTS = 2
    PAGES_A_SLOT = 96
    #: Rounds in the life of a space.
    ROUNDS = 4
    #: The first frames hold no table. Each driver gives some of them back and has them again.
    RESERVED = 256
    BALLOON = 8
    LEAST_FRAMES = 4096
    MOST_VCPUS = 16

    def __init__(self, domain: EmbeddedDomain, seed: int) -> None:
        self._domain = domain
        self._seed = seed
        part = (domain.ram_frames - self.RESERVED) // domain.vcpu_count
        self._pages = [
            Pages(self.RESERVED + n * part, self.RESERVED + (n + 1) * part - 1) for n in range(domain.vcpu_count)
        ]
        self._lock = threading.Lock()
        self._scratch: Scratch | None = None
        self._ready = threading.Barrier(domain.vcpu_count)
        self._changed = threading.Condition()
        self._rounds = [0] * domain.vcpu_count
        self._spaces = 0
        self._stopped = False
        self._fault: str | None = None

    def start(self) -> None:
        """As :meth:`Guest.start`: one thread for each vCPU."""
        for index in range(self._domain.vcpu_count):
            self._domain.start(index, self._program)

    def progress(self) -> dict[str, int | str | None]:
        """As :meth:`Guest.progress`."""
        with self._changed:
            return {
                "rounds": sum(self._rounds),
                "least_rounds": min(self._rounds),
                "spaces": self._spaces,
                "fault": self._fault,
            }

    def wait_for_rounds(self, rounds: int) -> None:
        """As :meth:`Guest.wait_for_rounds`."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or min(self._rounds) >= rounds)

    def _program(self, vcpu: Vcpu) -> None:
        try:
            if vcpu.index == 0:
                self._scratch = Scratch.build(vcpu, self._pages[0])
            self._ready.wait()
            rng = random.Random(self._seed + vcpu.index)
            while True:
                _wait_for_gpu(vcpu)
                self._life_of_a_space(vcpu, rng)
        except GuestFault as fault:
            self._stop(str(fault))
        except (VcpuStoppedError, threading.BrokenBarrierError):
            self._stop(self._domain.crash_reason or None)

    def _stop(self, fault: str | None) -> None:
        self._ready.abort()
        if fault:
            print(f"the guest stops: {fault}", file=sys.stderr, flush=True)
        with self._changed:
            self._stopped = True
            self._fault = self._fault or fault
            self._changed.notify_all()

    def _life_of_a_space(self, vcpu: Vcpu, rng: random.Random) -> None:
        assert self._scratch is not None
        space = AddressSpace(vcpu, self._pages[vcpu.index], self._scratch, self._lock)
        space.announce(reg.Notification.PPGTT_L4_CREATE)
        for _ in range(self.ROUNDS):
            space.rebind(rng, self.SLOTS, self.PAGES_A_SLOT, self._domain.ram_frames)
            space.check()
            self._balloon(vcpu, rng)
            with self._changed:
                self._rounds[vcpu.index] += 1
                self._changed.notify_all()
        space.announce(reg.Notification.PPGTT_L4_DESTROY)
        space.free()
        with self._changed:
            self._spaces += 1

    def _balloon(self, vcpu: Vcpu, rng: random.Random) -> None:
        """Give frames back, have them again, and see that they are the guest's own once more."""
        part = self.RESERVED // self._domain.vcpu_count
        gfn = vcpu.index * part + rng.randrange(part - self.BALLOON + 1)
        vcpu.remove(gfn, self.BALLOON)
        vcpu.add(gfn, self.BALLOON)
        value = rng.getrandbits(64)
        vcpu.store(gfn * PAGE_SIZE, 8, value)
        if (found := vcpu.load(gfn * PAGE_SIZE, 8)) != value:
            raise GuestFault(f"frame {gfn:#x} reads {found:#x} after it came back, and {value:#x} was stored")


def _wait_for_gpu(vcpu: Vcpu) -> None:
    """A driver has no event that tells it of a device that appears; as i915 it looks at a register."""
    while vcpu.mmio_read(DEFAULT_BAR0 + reg.PVINFO, 8) != reg.PVINFO_MAGIC:
        time.sleep(_LOOK_SECONDS)


def _stores(domain: EmbeddedDomain, seed: int) -> Guest:
    if domain.vcpu_count > Stores.MOST_VCPUS or domain.ram_frames < Stores.LEAST_FRAMES * domain.vcpu_count:
        need = f"at most {Stores.MOST_VCPUS} vCPUs, and {Stores.LEAST_FRAMES} frames for each"
        raise UsageError(f"--guest stores needs {need}")
    return Stores(domain, seed)


#: By name: what makes the guest of a domain, from a seed. Raises UsageError for a domain that it cannot run on.
GUESTS: Final[dict[str, Callable[[EmbeddedDomain, int], Guest]]] = {
    "idle": lambda domain, seed: Still(scripted=False),
    "stores": _stores,
    "scripted": lambda domain, seed: Still(scripted=True),
}
