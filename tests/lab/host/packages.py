"""Debian packages that the lab needs on the machine it runs on."""

import glob
import shutil

from . import command
from .progress import Progress
from .release import NEWEST

# package -> the program or file that shows it is there
_TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "e2fsprogs": "mke2fs",
    "gcc": "gcc",
    "binutils": "ld",
    "libc6-dev": "/usr/include/stdio.h",
    "git": "git",
    "util-linux": "setpriv",
    "zstd": "zstd",
    "libxen-dev": "/usr/include/xen/hvm/hvm_vcpu.h",
}


def require(progress: Progress) -> None:
    """Install what is missing with apt. Raises LabError when apt fails."""
    # The newest release is always needed: its emulator runs the others.
    probes = {**_TOOLS, "debian-archive-keyring": f"/usr/share/keyrings/debian-archive-{NEWEST.suite}-stable.*"}
    missing = [package for package, probe in probes.items() if not _present(probe)]
    if not missing:
        return
    with progress.phase(f"installing on this machine: {' '.join(missing)}"):
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        command.run(["apt-get", "update", "-q"], what="host packages", env=quiet)
        # Named packages that are installed already are upgraded: an old keyring does not know a new release.
        command.run(
            ["apt-get", "install", "-q", "-y", "--no-install-recommends", *missing], what="host packages", env=quiet
        )


def _present(probe: str) -> bool:
    return bool(glob.glob(probe)) if probe.startswith("/") else shutil.which(probe) is not None
