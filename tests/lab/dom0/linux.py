"""An HVM guest of the distribution's own kernel, and the shell in it that does what the scenario asks."""

import contextlib
import os
import re
import shutil
import struct
import tty
from collections.abc import Iterator
from pathlib import Path

from .checks import require, say, wait_until
from .daemon import LOGS
from .libxen import PAGE_SIZE, ForeignMemory
from .programs import outcome, run, show

_GUESTS = Path("/lab/guests")
# The same as in tests/lab/guest/linux.S. The firmware tests memory between 4 and 12 MiB.
_KERNEL_GPA = 0x01000000
_PARAMETERS_GPA = 0x06000000
_COMMAND_LINE_GPA = 0x06001000
_PAGE_TABLES_GPA = 0x06002000
_INITRD_GPA = 0x06100000
# Linux's Documentation/arch/x86/boot.rst.
_E820_ENTRIES = 0x1E8
_E820_TABLE = 0x2D0
_E820_ENTRY = struct.Struct("<QQI")
_USABLE, _RESERVED = 1, 2
_RAMDISK_IMAGE = 0x218
_RAMDISK_SIZE = 0x21C
_CMD_LINE_PTR = 0x228
_MIB = 1 << 20
_FIRMWARE_MIB = 8  # at the end of RAM: the firmware may have something there
_GIB = 4  # that the page tables map, each address to itself
_LARGE = 1 << 21
_TABLE_FLAGS = 0x3  # present, writable
_PAGE_FLAGS = 0x83  # large, too
# Early scans of PCI go through QEMU, and take minutes with busy processors. The vCPUs' clocks are one and the same.
# One vCPU until the scenario wants the others (`set_vcpus`).
_COMMAND_LINE = "console=hvc0 nokaslr tsc=reliable pci=noearly maxcpus=1 quiet loglevel=3 panic=-1"
_TOOL_SECONDS = 300
_READY = "[lab-ready]"
_STATUS = re.compile(r"\[lab-status (\d+)\]")

_CONFIG = """\
name = "{name}"
type = "hvm"
device_model_args_hvm = ["-drive", "file={disk},format=raw,if=ide,index=0"]
memory = {memory}
vcpus = {vcpus}
tsc_mode = "native"
xen_platform_pci = 0
vga = "none"
serial = "none"
usb = 0
on_poweroff = "destroy"
on_reboot = "destroy"
on_crash = "preserve"
{more}
"""


class LinuxGuest:
    """A created domain; it starts paused. What it prints goes to a file in LOGS, too.

    `more` are lines for its configuration.
    """

    def __init__(self, driver: str, memory: int, vcpus: int, more: str = "") -> None:
        self.name = driver
        self._vcpus = vcpus
        folder = _GUESTS / driver
        config = Path(f"/run/{driver}.cfg")
        disk = Path(f"/run/{driver}.img")
        shutil.copyfile(folder / "boot.img", disk)
        config.write_text(_CONFIG.format(name=driver, disk=disk, memory=memory, vcpus=vcpus, more=more))
        run("xl", "create", "-p", str(config))
        self.domid = int(run("xl", "domid", driver))
        _load(self.domid, folder, memory * _MIB)
        LOGS.mkdir(exist_ok=True)
        self.log = LOGS / f"guest-{driver}.log"
        self._log = self.log.open("ab")
        node = f"/local/domain/{self.domid}/console/tty"
        wait_until("the guest's console", _TOOL_SECONDS, lambda: outcome("xenstore-read", node)[0] == 0)
        self._console = os.open(run("xenstore-read", node).strip(), os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self._console)
        self._pending = b""
        self._read = 0

    def start(self, seconds: float) -> None:
        """Let it run until its shell takes commands."""
        run("xl", "unpause", self.name)
        self._lines_until(re.compile(re.escape(_READY)), "the guest's init", seconds)

    def begin(self, command: str) -> None:
        """Have its shell run a command; `finish` must follow."""
        os.write(self._console, command.encode() + b"\n")

    def wait_line(self, pattern: str, seconds: float) -> str:
        """The next line that a pattern matches, of those that a command prints while it runs."""
        return self._lines_until(re.compile(pattern), f"the guest to print {pattern}", seconds)[-1]

    def finish(self, what: str, seconds: float) -> tuple[int, list[str]]:
        """The status of the command that was begun, and what it has printed since it was last looked at."""
        *lines, last = self._lines_until(_STATUS, what, seconds)
        match = _STATUS.search(last)
        assert match is not None
        return int(match[1]), lines

    def run(self, command: str, seconds: float) -> list[str]:
        """What a command printed. Raises ScenarioError if it failed."""
        self.begin(command)
        status, lines = self.finish(f"`{command}` in the guest", seconds)
        require(status == 0, f"`{command}` in the guest ended with status {status}: {' '.join(lines[-3:])}")
        return lines

    def set_vcpus(self, count: int) -> None:
        """Have the kernel use so many vCPUs of those that the domain has; it begins with one.

        To load a module, the kernel interrupts the other vCPUs thousands of times and waits for each. On an emulated
        machine of one processor, 30 s go by with two vCPUs, and 5 with one (seen with i915).
        """
        for number in range(1, self._vcpus):
            self.run(f"echo {int(number < count)} >/sys/devices/system/cpu/cpu{number}/online", _TOOL_SECONDS)

    def close(self) -> None:
        """Give up its console."""
        os.close(self._console)
        self._log.close()

    def destroy(self) -> None:
        """End the domain if it is still there."""
        outcome("xl", "destroy", self.name)

    def _lines_until(self, pattern: re.Pattern[str], what: str, seconds: float) -> list[str]:
        """The lines up to the first that a pattern matches, with that one."""
        lines: list[str] = []

        def found() -> bool:
            self._pump()
            while b"\n" in self._pending:
                line, self._pending = self._pending.split(b"\n", 1)
                lines.append(line.decode("utf-8", "replace").rstrip("\r"))
                if pattern.search(lines[-1]):
                    return True
            return False

        wait_until(what, seconds, found, lambda: self._read)
        return lines

    def _pump(self) -> None:
        with contextlib.suppress(BlockingIOError):
            chunk = os.read(self._console, 1 << 16)
            self._log.write(chunk)
            self._log.flush()
            self._read += len(chunk)
            self._pending += chunk


@contextlib.contextmanager
def booted(driver: str, memory: int, vcpus: int, more: str = "") -> Iterator[LinuxGuest]:
    """A domain as of LinuxGuest, paused, destroyed at the end if it is still there."""
    say(f"creating a guest of the distribution's kernel for {driver}")
    guest = LinuxGuest(driver, memory, vcpus, more)
    try:
        yield guest
    except BaseException:
        show("xl", "vcpu-list")
        raise
    finally:
        guest.close()
        guest.destroy()


def _load(domid: int, folder: Path, ram: int) -> None:
    """Write the kernel, its initial root and its boot parameters into the memory of a domain that has not run yet."""
    initrd = (folder / "initrd").read_bytes()
    parameters = bytearray((folder / "parameters").read_bytes())
    for offset, value in (
        (_RAMDISK_IMAGE, _INITRD_GPA),
        (_RAMDISK_SIZE, len(initrd)),
        (_CMD_LINE_PTR, _COMMAND_LINE_GPA),
    ):
        struct.pack_into("<I", parameters, offset, value)
    _describe_memory(parameters, ram)
    memory = ForeignMemory(domid)
    for gpa, data in (
        (_KERNEL_GPA, (folder / "kernel").read_bytes()),
        (_PARAMETERS_GPA, bytes(parameters)),
        (_COMMAND_LINE_GPA, _COMMAND_LINE.encode() + b"\0"),
        (_PAGE_TABLES_GPA, _page_tables()),
        (_INITRD_GPA, initrd),
    ):
        memory.write(gpa, data)
    memory.close()


def _describe_memory(parameters: bytearray, ram: int) -> None:
    """As hvmloader lays it out. The kernel is entered behind its own decompressor, so nobody asks the firmware."""
    entries = (
        (0, 0x9F000, _USABLE),
        (0xF0000, _MIB, _RESERVED),
        (_MIB, ram - _FIRMWARE_MIB * _MIB, _USABLE),
        (0xFC000000, 1 << 32, _RESERVED),
    )
    parameters[_E820_ENTRIES] = len(entries)
    for number, (start, end, kind) in enumerate(entries):
        _E820_ENTRY.pack_into(parameters, _E820_TABLE + number * _E820_ENTRY.size, start, end - start, kind)


def _page_tables() -> bytes:
    """A root, a table of its first entry, and the tables of that one's: the kernel makes its own soon."""
    level3 = _PAGE_TABLES_GPA + PAGE_SIZE
    directories = [level3 + PAGE_SIZE * number for number in range(1, _GIB + 1)]
    root = struct.pack("<Q", level3 | _TABLE_FLAGS).ljust(PAGE_SIZE, b"\0")
    pointers = b"".join(struct.pack("<Q", gpa | _TABLE_FLAGS) for gpa in directories).ljust(PAGE_SIZE, b"\0")
    return root + pointers + b"".join(struct.pack("<Q", page * _LARGE | _PAGE_FLAGS) for page in range(_GIB * 512))
