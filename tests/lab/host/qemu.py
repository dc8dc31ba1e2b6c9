"""The emulator: Debian 13's QEMU, whatever Debian this machine runs.

Debian 12's QEMU (7.2) is half as fast for the lab, and at times leaves the host's registers in a guest's vCPU. So the
lab unpacks Debian 13's into a folder of its own, and starts it through that folder's own loader, with that folder's own
libraries. Nothing of it is installed on this machine.
"""

from pathlib import Path

from . import cache, image
from .progress import Progress
from .release import NEWEST

_PACKAGES = ["qemu-system-x86", "seabios"]
_LIBRARIES = Path("usr/lib/x86_64-linux-gnu")


def command(progress: Progress) -> list[str]:
    """The words that start the emulator, before its own options; the emulator is unpacked now if it is not there.

    Raises LabError.
    """

    def build(target: Path) -> None:
        with progress.phase(f"unpacking QEMU of Debian {NEWEST.suite}"):
            image.unpack(NEWEST, _PACKAGES, target / "root")

    root = cache.entry("qemu", {"packages": _PACKAGES, "suite": NEWEST.suite}, build) / "root"
    libraries = root / _LIBRARIES
    loader = [str(libraries / "ld-linux-x86-64.so.2"), "--inhibit-cache", "--library-path", str(libraries)]
    firmware = [word for folder in ("qemu", "seabios") for word in ("-L", str(root / "usr/share" / folder))]
    return [*loader, str(root / "usr/bin/qemu-system-x86_64"), *firmware]
