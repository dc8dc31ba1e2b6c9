"""Which Debian release carries which Xen, and what each image is made of."""

import re
from dataclasses import dataclass
from pathlib import Path

_CONTROL = Path(__file__).resolve().parents[3] / "debian" / "control"


@dataclass(frozen=True)
class Release:
    """A Xen version and the Debian release that ships it with matching tools."""

    xen: str
    suite: str

    def dom0_packages(self) -> list[str]:
        """What dom0 has: Xen, a kernel, both inits, a QEMU for HVM guests, and the daemon's dependencies."""
        return [
            f"xen-hypervisor-{self.xen}-amd64",
            f"xen-utils-{self.xen}",
            "xenstore-utils",
            "qemu-system-xen",
            "systemd-sysv",
            "linux-image-amd64",
            "kmod",
            "mount",
            "zstd",
            "python3",
            "python3-pip",
            "python3-trio",
            "python3-cffi",
            "python3-structlog",
            "python3-click",
            "python3-prometheus-client",
        ]

    def build_packages(self) -> list[str]:
        """What makes the project's package of a checkout, and judges it."""
        return ["build-essential", "lintian", *_build_depends()]


def _build_depends() -> list[str]:
    """Build-Depends of debian/control, a name a line; the compatibility level of debhelper stands for debhelper."""
    text = re.split(r"^Build-Depends:", _CONTROL.read_text(), maxsplit=1, flags=re.MULTILINE)[1]
    names = [re.match(r" [a-z0-9.+-]+", line) for line in text.partition("\n\n")[0].splitlines()]
    return [name[0].strip().replace("debhelper-compat", "debhelper") for name in names if name]


RELEASES = {release.xen: release for release in (Release("4.17", "bookworm"), Release("4.20", "trixie"))}
#: Its archive has the emulator of all.
NEWEST = RELEASES["4.20"]
