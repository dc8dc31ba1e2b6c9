"""Rooms, which are folders of tests; and what has changed in the checkout."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from command import SetupError
from environments import CHECKOUT
from reach import PARTS

#: Where the tests are of what does not lie in a folder of their name; the longest beginning of a path counts.
ELSEWHERE = {
    "cffi_build/core/base/": ("core",),
    "cffi_build/core/ioreq/": ("ioreq",),
    "cffi_build/core/ppgtt/": ("ppgtt",),
    "cffi_build/core/trace/": ("trace",),
    "cffi_build/core/traps/": ("traps",),
    "cffi_build/embedded/": ("embedded",),
    "cffi_build/xen/": ("xen",),
    "cffi_build/": ("core", "embedded", "xen"),
    "xengt_dm/hypervisor/embedded/": ("embedded",),
    "xengt_dm/hypervisor/xen/": ("xen",),
    "xengt_dm/hypervisor/sim/": ("sim",),
    "xengt_dm/hypervisor/": ("embedded", "xen"),
    "tests/fakexen/": ("xen",),
    "tests/traces/": ("trace",),
}


def rooms(root: Path = CHECKOUT) -> list[str]:
    """The names of all rooms."""
    return sorted({path.parent.name for path in root.glob("tests/*/test_*.py")} - set(PARTS))


def homes(name: str) -> tuple[str, ...]:
    """Returns the names of the rooms that a file belongs to; perhaps there are none of these names."""
    for beginning in sorted(ELSEWHERE, key=len, reverse=True):
        if name.startswith(beginning):
            return ELSEWHERE[beginning]
    top, *inner = Path(name).with_suffix("").parts
    return (inner[0],) if top in ("xengt_dm", "tests") and inner else ()


def changed_files(since: str | None = None) -> list[str]:
    """The files that differ from a commit, in the working tree too, with those that git does not know yet.

    The commit is where this branch left main, if none is named. Raises SetupError if there is no such commit.
    """
    base = since or _git("merge-base", "HEAD", "main", fails=True).strip() or "HEAD"
    different = _git("diff", "--name-only", "-z", "--no-renames", base).split("\0")
    unknown = _git("ls-files", "--others", "--exclude-standard", "-z").split("\0")
    return sorted({name for name in [*different, *unknown] if name})


def _git(*words: str, fails: bool = False) -> str:
    command = ["git", "-c", "safe.directory=*", *words]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, env={**os.environ})
    if done.returncode and not fails:
        raise SetupError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout if not done.returncode else ""
