"""C programs for dom0 (tests/lab/dom0/NAME.c), compiled in the chroot in which the package is built."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from . import cache, command

_SOURCES = Path(__file__).resolve().parents[1] / "dom0"
_LIBRARIES = "-lxencall -lxendevicemodel -lxenevtchn -lxenforeignmemory"
_BUILD = f"""\
set -e
mount --bind "$WORK" "$TREE/mnt"
exec chroot "$TREE" /usr/bin/env -i PATH=/usr/bin:/bin TMPDIR=/mnt \
    gcc -std=gnu11 -O2 -Wall -Wextra -Wconversion -Werror -o /mnt/program /mnt/program.c {_LIBRARIES}
"""


def compile_all(names: Iterable[str], tree: Path, target: Path) -> None:
    """Compile each program with the headers and libraries of Xen in the chroot ``tree``, to target/NAME.

    Raises LabError.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copy(_program(name, tree), target / name)


def _program(name: str, tree: Path) -> Path:
    source = _SOURCES / f"{name}.c"

    def make(made: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="program-", dir=cache.directory()) as work:
            shutil.copy(source, Path(work) / "program.c")
            command.run(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c", _BUILD],
                what=f"compiling dom0's program {name}",
                env={"WORK": work, "TREE": str(tree)},
            )
            shutil.copy(Path(work) / "program", made)

    text = hashlib.sha256(source.read_bytes()).hexdigest()
    return cache.entry("program", {"tree": tree.parent.name, "source": text, "how": _BUILD}, make) / "program"
