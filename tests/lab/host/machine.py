"""The emulated machine: QEMU in software emulation, with AMD SVM and nested paging for Xen's HAP."""

import os
import re
import selectors
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .errors import LabError
from .image import Dom0Image
from .progress import Progress

_MEMORY_MIB = 2048
_DOM0_MIB = 1024
_EXIT_SECONDS = 10
# SMAP and SMEP: the PV dom0 of such a Xen dies at its first exception. RDTSCP: an HVM Linux guest dies of it.
_CPU = "max,+svm,+npt,-smap,-smep,-pku,-la57,-rdtscp"
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
    """The run's own disks: `lab` is read by dom0, `result` is written."""

    lab: Path
    result: Path


def run(image: Dom0Image, disks: Disks, cpus: int, console: Path, limit: float, progress: Progress) -> None:
    """Boot, follow the console until the machine is off, keep all of it in `console`.

    `cpus` are the machine's processors, and dom0's. `limit` is in seconds. Raises LabError when it runs out or QEMU
    fails; whatever happens, QEMU is gone afterwards.
    """
    with (
        console.open("wb") as log,
        subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *_qemu(image, disks, cpus)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as qemu,
    ):
        assert qemu.stdout is not None
        try:
            in_time = _follow(qemu.stdout, log, time.monotonic() + limit, progress)
            if in_time:
                qemu.wait(_EXIT_SECONDS)
        finally:
            qemu.kill()
    if not in_time:
        raise LabError(f"not done within {limit:.0f} s; last seen: {progress.latest}")
    if qemu.returncode != 0:
        raise LabError(f"QEMU ended with status {qemu.returncode}; last seen: {progress.latest}")


def _qemu(image: Dom0Image, disks: Disks, cpus: int) -> list[str]:
    drives = {image.disk: "snapshot=on", disks.lab: "readonly=on", disks.result: "cache=writethrough"}
    arguments = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-M", "q35"]
    arguments += ["-accel", "tcg,thread=multi", "-smp", str(cpus), "-cpu", _CPU, "-m", str(_MEMORY_MIB)]
    arguments += ["-display", "none", "-monitor", "none", "-no-reboot"]
    arguments += ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
    arguments += ["-kernel", str(image.xen), "-append", f"{_XEN_OPTIONS} dom0_max_vcpus={cpus}"]
    arguments += ["-initrd", f"{_comma(image.kernel)} {_KERNEL_OPTIONS},{_comma(image.initrd)}"]
    for path, option in drives.items():
        arguments += ["-drive", f"file={_comma(path)},if=virtio,format=raw,{option}"]
    return arguments


def _comma(path: Path) -> str:
    return str(path).replace(",", ",,")


def _follow(source: IO[bytes], log: IO[bytes], deadline: float, progress: Progress) -> bool:
    """Copy the console to the log, show its progress lines; False if the deadline came before the end."""
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return False
            chunk = os.read(source.fileno(), 1 << 16)
            if not chunk:
                return True
            log.write(chunk)
            log.flush()
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                if match := _PROGRESS_LINE.search(line):
                    who = "guest" if match.group(1) else "dom0"
                    progress.say(f"{who}: {match.group(2).decode('utf-8', 'replace').strip()}")
