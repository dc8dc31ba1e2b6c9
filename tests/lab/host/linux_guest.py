"""A guest of the distribution's own kernel: what dom0 writes into its memory, made from a release's dom0 tree.

The guest boots through guest/linux.S, the first sector of a disk: QEMU 7.2 would read a kernel of 8 MB at 85 KB a
second.
"""

import lzma
import shutil
from pathlib import Path

from . import cache, command, image, linux_kernel
from .cpio import archive
from .errors import LabError
from .progress import Progress
from .release import NEWEST

_GUEST = Path(__file__).resolve().parents[1] / "guest"
_DISK_SIZE = 1 << 20
# Debian 12's linux-libc-dev has no drm/. What a client asks of the kernel is in the headers of both.
_PACKAGES = ["busybox-static", "linux-libc-dev"]
_CLIENT_FLAGS = ["-std=gnu11", "-O2", "-g0", "-static", "-Wall", "-Wextra", "-Wconversion", "-Werror"]


def build(base: image.Dom0Image, driver: str, target: Path, progress: Progress) -> None:
    """Make what tests/lab/dom0/linux.py has: the kernel of `base`, and an init that loads `driver` when it is told to.

    guest/DRIVER/*.c becomes the program `client` in it. Raises LabError.
    """
    target.mkdir(parents=True)

    def unpack(part: Path) -> None:
        with progress.phase("unpacking what a Linux guest needs besides its kernel"):
            image.unpack(NEWEST, _PACKAGES, part / "root")

    packages = cache.entry("linux-guest", {"packages": _PACKAGES, "suite": NEWEST.suite}, unpack) / "root"
    root = target / "root"
    with progress.phase(f"making the Linux guest for {driver}"):
        (root / "bin").mkdir(parents=True)
        shutil.copy2(packages / "usr/bin/busybox", root / "bin")
        shutil.copy2(_GUEST / driver / "init", root / "init")
        _modules(base.tree / "lib/modules", driver, root / "lib/modules")
        _client(packages, driver, target / "include", root / "bin/client")
        (target / "initrd").write_bytes(archive(root))
        kernel = linux_kernel.decompressed(base.kernel)
        (target / "kernel").write_bytes(kernel.image)
        (target / "parameters").write_bytes(kernel.parameters)
        disk = target / "boot.img"
        link = ["-Wl,-Ttext=0x7c00,--oformat=binary", "-o", disk]
        command.run(
            ["gcc", f"@{_GUEST / 'cflags'}", *link, _GUEST / "linux.S"], what="assembling the loader of Linux guests"
        )
        with disk.open("r+b") as file:
            file.truncate(_DISK_SIZE)
        shutil.rmtree(root)
        shutil.rmtree(target / "include")


def _client(packages: Path, driver: str, include: Path, binary: Path) -> None:
    include.mkdir()
    (include / "drm").symlink_to(packages / "usr/include/drm")
    sources = sorted((_GUEST / driver).glob("*.c"))
    command.run(
        ["gcc", *_CLIENT_FLAGS, "-isystem", include, *sources, "-o", binary], what=f"compiling the client of {driver}"
    )


def _modules(modules: Path, driver: str, target: Path) -> None:
    """Copy a module and those that it needs, decompressed, with their modules.dep."""
    (version,) = [path.name for path in modules.iterdir()]
    lines = dict(line.split(":", 1) for line in (modules / version / "modules.dep").read_text().splitlines())
    found = [name for name in lines if Path(name).name.split(".")[0] == driver]
    if len(found) != 1:
        raise LabError(f"expected one module {driver} in the image, found {len(found)}")
    chosen = [found[0], *lines[found[0]].split()]
    for name in chosen:
        file = target / version / _plain(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_decompressed(modules / version / name))
    dependencies = [f"{_plain(name)}: {' '.join(map(_plain, lines[name].split()))}\n" for name in chosen]
    (target / version / "modules.dep").write_text("".join(dependencies))


def _plain(name: str) -> str:
    return name.removesuffix(".xz").removesuffix(".zst")


def _decompressed(file: Path) -> bytes:
    match file.suffix:
        case ".ko":
            return file.read_bytes()
        case ".xz":
            return lzma.decompress(file.read_bytes())
    raise LabError(f"{file.name}: compressed in a way that the lab does not know")
