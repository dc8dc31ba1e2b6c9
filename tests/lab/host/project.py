"""The project as dom0's user gets it: a wheel, built with the release's own compiler and Python."""

import shutil
from pathlib import Path

from . import command
from .errors import LabError

CHECKOUT = Path(__file__).resolve().parents[3]

# The tree is shared between runs, so it is only read: sources, result and temporary files live in the run's own
# directory, bound to /mnt in a mount namespace that ends with the build.
_BUILD = """\
set -e
mount --bind "$WORK" "$TREE/mnt"
mount --bind /dev "$TREE/dev"
exec chroot "$TREE" /usr/bin/env -i PATH=/usr/bin:/bin HOME=/mnt/home TMPDIR=/mnt/tmp LC_ALL=C.UTF-8 \
    python3 -m pip wheel --no-index --no-deps --no-build-isolation --no-cache-dir --wheel-dir /mnt/out /mnt/source
"""


def build(tree: Path, work: Path) -> Path:
    """Build the checkout's wheel in the chroot `tree`, using `work` for all that is written; return the wheel.

    Raises LabError with the end of pip's output if it does not build.
    """
    for name in ("source", "out", "home", "tmp"):
        (work / name).mkdir(parents=True)
    _copy_checkout(work / "source")
    command.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", _BUILD],
        what="building the project",
        env={"WORK": str(work), "TREE": str(tree)},
    )
    wheels = sorted((work / "out").glob("*.whl"))
    if len(wheels) != 1:
        raise LabError(f"building the project gave {len(wheels)} wheels instead of one")
    return wheels[0]


def _copy_checkout(target: Path) -> None:
    # The checkout may belong to another user than root.
    listing = command.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        what="listing the checkout",
        cwd=CHECKOUT,
    )
    for name in filter(None, listing.split("\0")):
        source = CHECKOUT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
