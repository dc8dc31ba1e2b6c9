"""The project as dom0's user gets it: a Debian package, built and judged by the release's own tools."""

import hashlib
import shutil
import tempfile
from pathlib import Path

from . import cache, command
from .errors import LabError

CHECKOUT = Path(__file__).resolve().parents[3]

# What a package is not made from.
_NOT_PACKAGED = ("tests/", ".ci/")

# The tree is shared between runs, so it is only read: sources, result and temporary files live in a directory of this
# build, bound to /mnt in a mount namespace that ends with it.
_BUILD = """\
set -e
mount --bind "$WORK" "$TREE/mnt"
mount --bind /dev "$TREE/dev"
mount -t proc proc "$TREE/proc"
exec chroot "$TREE" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/mnt/home TMPDIR=/mnt/tmp LC_ALL=C.UTF-8 \
    sh -c 'cd /mnt/source && dpkg-buildpackage -us -uc -b && lintian --allow-root --fail-on error ../*.changes'
"""


def build(tree: Path, patch: Path | None = None) -> Path:
    """The checkout's package, built in the chroot `tree` unless this state of the sources was built before.

    `patch` changes what is built, not the checkout. Raises LabError with the end of the output if it does not build, or
    if lintian finds an error in it.
    """
    files = _files()
    change = patch.read_bytes() if patch is not None else b""
    hashes = {name: hashlib.sha256((CHECKOUT / name).read_bytes()).hexdigest() for name in files}

    def make(target: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="build-", dir=cache.directory()) as scratch:
            shutil.copy2(_build(tree, Path(scratch), files, change), target)

    inputs = {"tree": tree.parent.name, "sources": hashes, "how": _BUILD, "change": hashlib.sha256(change).hexdigest()}
    return _only(cache.entry("package", inputs, make))


def _build(tree: Path, work: Path, files: list[str], change: bytes) -> Path:
    for name in ("source", "home", "tmp"):
        (work / name).mkdir()
    for name in files:
        (work / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, work / "source" / name)
    if change:
        (work / "change.patch").write_bytes(change)
        own = {"GIT_CEILING_DIRECTORIES": str(work)}
        command.run(
            ["git", "apply", str(work / "change.patch")], what="applying the patch", cwd=work / "source", env=own
        )
    command.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", _BUILD],
        what="building the project's package",
        env={"WORK": str(work), "TREE": str(tree)},
    )
    return _only(work)


def _only(folder: Path) -> Path:
    packages = sorted(folder.glob("xengt-dm_*.deb"))
    if len(packages) != 1:
        raise LabError(f"building the project gave {len(packages)} packages instead of one")
    return packages[0]


def _files() -> list[str]:
    # The checkout may belong to another user than root.
    listing = command.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        what="listing the checkout",
        cwd=CHECKOUT,
    )
    names = sorted(name for name in listing.split("\0") if name and not name.startswith(_NOT_PACKAGED))
    return [name for name in names if (CHECKOUT / name).is_file()]
