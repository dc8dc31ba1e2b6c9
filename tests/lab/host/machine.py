"""The emulated machine: QEMU in software emulation, with AMD SVM and nested paging for Xen's HAP."""

import os
import re
import selectors
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .errors import LabError
from .image import Dom0Image
from .plan import Kind
from .progress import Progress

_MEMORY_MIB = 2048
_DOM0_MIB = 1024
_EXIT_SECONDS = 60
#: Nothing moves any more: the console, which carries Xen's lines, dom0's and the guests', has been silent for so long.
#: Every wait in dom0 (dom0/checks.py) says something more often than that while what it waits for moves, and gives up
#: sooner than that when it does not.
SILENT_SECONDS = 900
#: Of one boot, however much moves: far beyond what the slowest machine needs.
LONGEST_SECONDS = 4 * 3600
# SMAP and SMEP: the PV dom0 of such a Xen dies at its first exception. RDTSCP: an HVM Linux guest dies of it.
_CPU = "max,+svm,+npt,-smap,-smep,-pku,-la57,-rdtscp"
# A machine that counts instructions ends QEMU 10.0 ("Bad icount read") when a timer is set by writing an MSR.
_CPU_ICOUNT = f"{_CPU},-x2apic,-tsc-deadline"
# FPU: with Xen's default for AMD, to switch its registers lazily, processes of dom0 have died here of registers that
# were not theirs while vCPUs of guests used SSE. With eager switching that has not been seen. Whose fault it is, is not
# known; the emulator's, most likely.
_XEN_OPTIONS = (
    f"console=com1 com1=115200,8n1 loglvl=all guest_loglvl=all spec-ctrl=eager-fpu"
    f" dom0_mem={_DOM0_MIB}M,max:{_DOM0_MIB}M"
)
_KERNEL_OPTIONS = "root=/dev/vda rw console=hvc0 init=/sbin/lab-init panic=5 quiet loglevel=4"
# Lines meant for whoever watches, from dom0 or from a guest through Xen's console.
_PROGRESS_LINE = re.compile(rb"(\(d\d+\) )?\[lab\] ([^\r\n]*)")


@dataclass(frozen=True)
class Disks:
    """The disks of a boot: dom0 starts from `root`, where what it writes is lost, reads `lab`, and writes `result`."""

    root: Path
    lab: Path
    result: Path


@dataclass(frozen=True)
class Machine:
    """What is emulated: the words that start the emulator, and the kind of machine.

    One thread of the emulator executes all processors in turn, unless the kind is parallel: README.md says why. A
    machine that counts instructions has a clock that goes on by a nanosecond with each of them, whichever of its
    processors executes it.
    """

    qemu: Sequence[str]
    kind: Kind

    @property
    def busy(self) -> int:
        """How many processors of the host it can use."""
        return self.kind.cpus if self.kind.parallel else 1


def run(machine: Machine, image: Dom0Image, disks: Disks, console: Path, progress: Progress) -> float:
    """Boot, follow the console until the machine is off, keep all of it in `console`; the processor time it took.

    Raises LabError when nothing moves any more, or if QEMU fails; whatever happens, QEMU is gone afterwards.
    """
    with (
        console.open("wb") as log,
        subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *_words(machine, image, disks)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as qemu,
    ):
        assert qemu.stdout is not None
        try:
            stuck = _follow(qemu.stdout, log, lambda: _processor_seconds(qemu.pid), progress)
            used = _processor_seconds(qemu.pid)
            if stuck is None:
                qemu.wait(_EXIT_SECONDS)
        finally:
            qemu.kill()
    if stuck is not None:
        raise LabError(f"{stuck}; last seen: {progress.latest}")
    if qemu.returncode != 0:
        raise LabError(f"QEMU ended with status {qemu.returncode}; last seen: {progress.latest}")
    return used


def _words(machine: Machine, image: Dom0Image, disks: Disks) -> list[str]:
    kind = machine.kind
    drives = {disks.root: "snapshot=on", disks.lab: "readonly=on", disks.result: "cache=writethrough"}
    words = [*machine.qemu, "-nodefaults", "-no-user-config", "-M", "q35"]
    words += ["-accel", f"tcg,thread={'multi' if kind.parallel else 'single'}"]
    words += ["-icount", "shift=0,sleep=on"] if kind.icount else []
    words += ["-smp", str(kind.cpus), "-cpu", _CPU_ICOUNT if kind.icount else _CPU, "-m", str(_MEMORY_MIB)]
    words += ["-display", "none", "-monitor", "none", "-no-reboot"]
    words += ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
    xen_options = f"{_XEN_OPTIONS} dom0_max_vcpus={kind.dom0_cpus} {kind.xen_options}".rstrip()
    words += ["-kernel", str(image.xen), "-append", xen_options]
    words += ["-initrd", f"{_comma(image.kernel)} {_KERNEL_OPTIONS},{_comma(image.initrd)}"]
    for path, option in drives.items():
        words += ["-drive", f"file={_comma(path)},if=virtio,format=raw,{option}"]
    return words


def _comma(path: Path) -> str:
    return str(path).replace(",", ",,")


def _processor_seconds(pid: int) -> float:
    """The processor time of a process that has not been waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:13]) / os.sysconf("SC_CLK_TCK")


def _follow(source: IO[bytes], log: IO[bytes], used: Callable[[], float], progress: Progress) -> str | None:
    """Copy the console to the log, and show its progress lines; why no end was waited for, None if it came.

    `used` is the processor time so far. It is shown where a scenario begins and ends, because it depends less than the
    time on what else the host does.
    """
    pending = b""
    end = time.monotonic() + LONGEST_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ)
        while True:
            if not selector.select(SILENT_SECONDS):
                return f"the console has been silent for {SILENT_SECONDS} s"
            if time.monotonic() > end:
                return f"not done after {LONGEST_SECONDS} s"
            chunk = os.read(source.fileno(), 1 << 16)
            if not chunk:
                return None
            log.write(chunk)
            log.flush()
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                if match := _PROGRESS_LINE.search(line):
                    who = "guest" if match.group(1) else "dom0"
                    text = match.group(2).decode("utf-8", "replace").strip()
                    so_far = f" ({used():.0f} s of processor time so far)" if text.startswith("scenario ") else ""
                    progress.say(f"{who}: {text}{so_far}")
