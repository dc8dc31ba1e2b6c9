"""The two trees of a release: dom0's root, which becomes a bootable disk, and the chroot that builds the project."""

import gzip
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from . import cache, command, mirror
from .errors import LabError
from .progress import Progress
from .release import Release

_DISK_SIZE = "2G"
# The kernel finds its disk with these alone; a full initramfs takes seconds to unpack under emulation.
_INITRAMFS_MODULES = ("virtio_pci", "virtio_blk", "ext4")
_ESSENTIAL_HOOK = (
    'mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/lab"'
    ' && printf "MODULES=list\\nCOMPRESS=zstd\\n" > "$1/etc/initramfs-tools/conf.d/lab"'
    f' && printf "%s\\n" {" ".join(_INITRAMFS_MODULES)} > "$1/etc/initramfs-tools/modules"'
)
# dom0's first process: everything else comes with the run's own disk.
_INIT = """\
#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -o ro /dev/vdb /lab && exec /lab/dom0/init
"""
# dpkg need not wait for the host's disk: a tree that was not made to its end is made again.
#: Installs the project as a user of dom0 would, with this machine's processors: under emulation that takes minutes.
_INSTALL = """\
set -e
mount --bind /dev "$TREE/dev"
mount -t proc proc "$TREE/proc"
exec chroot "$TREE" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
    dpkg --install --force-unsafe-io "/$PACKAGE"
"""
_DPKG_OPTIONS = ["force-unsafe-io", *(f"path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale", "info"))]


@dataclass(frozen=True)
class Dom0Image:
    """What QEMU boots, and the root of dom0's disk. All is shared between runs and never written."""

    xen: Path
    kernel: Path
    initrd: Path
    tree: Path


def dom0(release: Release, progress: Progress) -> Dom0Image:
    """The image of a release, from the cache or built now."""
    packages = release.dom0_packages()
    inputs = {
        "packages": packages,
        "suite": release.suite,
        "init": _INIT,
        "hook": _ESSENTIAL_HOOK,
        "dpkg": _DPKG_OPTIONS,
    }

    def build(target: Path) -> None:
        with progress.phase(f"building the dom0 image of Debian {release.suite} (Xen {release.xen})"):
            _build_dom0(release, packages, target)

    path = cache.entry(f"dom0-{release.suite}", inputs, build)
    return Dom0Image(path / "xen.elf", path / "vmlinuz", path / "initrd", path / "tree")


def with_hypervisor(base: Dom0Image, file: Path) -> Dom0Image:
    """The same with another hypervisor, an ELF file as Xen's build leaves it (xen/xen-syms is not one)."""
    if not file.is_file():
        raise LabError(f"{file}: there is no such hypervisor")
    return replace(base, xen=file)


def build_tree(release: Release, progress: Progress) -> Path:
    """The root of a chroot in which the project builds, from the cache or made now. Nothing may write to it."""
    inputs = {"packages": release.build_packages(), "suite": release.suite, "dpkg": _DPKG_OPTIONS}

    def build(target: Path) -> None:
        with progress.phase(f"making the build chroot of Debian {release.suite}"):
            _bootstrap(release, "apt", release.build_packages(), target / "root")

    return cache.entry(f"build-{release.suite}", inputs, build) / "root"


def _build_dom0(release: Release, packages: list[str], target: Path) -> None:
    tree = target / "tree"
    _bootstrap(release, "apt", packages, tree, f"--essential-hook={_ESSENTIAL_HOOK}")
    init = tree / "sbin" / "lab-init"
    init.write_text(_INIT)
    init.chmod(0o755)
    with gzip.open(_only(tree / "boot", f"xen-{release.xen}-amd64.gz")) as packed:
        (target / "xen.elf").write_bytes(packed.read())
    shutil.copyfile(_only(tree / "boot", "vmlinuz-*"), target / "vmlinuz")
    shutil.copyfile(_only(tree / "boot", "initrd.img-*"), target / "initrd")
    shutil.rmtree(tree / "boot")


def installed_disk(base: Dom0Image, package: Path, disk: Path, progress: Progress) -> None:
    """Make the disk of a dom0 that has the project's package."""
    tree = disk.parent / "dom0"
    with progress.phase("installing the project in dom0's disk"):
        # dpkg writes no file of /usr in place, so links do. It does write its logs and lists in place.
        command.run(["cp", "-a", "--link", base.tree, tree], what="copying dom0's root")
        for name in ("etc", "var"):
            shutil.rmtree(tree / name)
            command.run(["cp", "-a", base.tree / name, tree / name], what="copying dom0's root")
        shutil.copy(package, tree)
        command.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", _INSTALL],
            what="installing the project",
            env={"TREE": str(tree), "PACKAGE": package.name},
        )
        make_disk(tree, disk, _DISK_SIZE)
        shutil.rmtree(tree)


def unpack(release: Release, packages: list[str], tree: Path) -> None:
    """Have the files of packages, and of those that they need, in a directory; nothing of them is run."""
    _bootstrap(release, "extract", packages, tree)


def _bootstrap(release: Release, variant: str, packages: list[str], tree: Path, *arguments: str) -> None:
    options = [f"--aptopt={line}" for line in mirror.options()]
    options += [f"--dpkgopt={line}" for line in _DPKG_OPTIONS]
    command.run(
        [
            "mmdebstrap",
            f"--variant={variant}",
            "--format=directory",
            *options,
            *arguments,
            f"--include={','.join(packages)}",
            release.suite,
            tree,
            *mirror.sources(release.suite),
        ],
        what=f"installing Debian {release.suite}",
    )


def make_disk(tree: Path, disk: Path, size: str) -> None:
    """Make an ext4 file system image with the contents of a directory; no mount is needed."""
    command.run(
        ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", tree, disk, size], what=f"making {disk.name}"
    )


def _only(directory: Path, pattern: str) -> Path:
    found = sorted(directory.glob(pattern))
    if len(found) != 1:
        raise LabError(f"expected one {pattern} in the image, found {len(found)}")
    return found[0]
