"""Rooms, which are folders of tests, and what of them a change touches."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from command import SetupError
from environments import CHECKOUT

#: Folders of tests that are parts of their own, and no rooms.
PARTS = ("lint", "builds", "lab", "setup")
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


@dataclass(frozen=True)
class Touched:
    """What a change touches: tests of whole rooms, single files of tests, and whether C has to pass its compilers."""

    rooms: tuple[str, ...]
    files: tuple[str, ...]
    c_files: tuple[str, ...]

    @property
    def arguments(self) -> list[str]:
        """What pytest is told to run."""
        return [*(f"tests/{room}" for room in self.rooms), *self.files]


def touched(changed: Iterable[str], root: Path = CHECKOUT) -> Touched:
    """What a change of these files, paths in the checkout, touches.

    A file touches its room; a module also touches each file of tests that imports it, itself or through helpers; any
    other file those that name it.
    """
    names = sorted(set(changed))
    known = set(rooms(root))
    whole = {room for name in names for room in _homes(name) if room in known}
    users = _Users(root)
    single = {user for name in names for user in users.of(name) if Path(user).parent.name in known - whole}
    return Touched(
        tuple(sorted(whole)),
        tuple(sorted(single)),
        tuple(name for name in names if name.endswith((".c", ".h")) and (root / name).exists()),
    )


def _homes(name: str) -> tuple[str, ...]:
    """The rooms that a file belongs to."""
    for beginning in sorted(ELSEWHERE, key=len, reverse=True):
        if name.startswith(beginning):
            return ELSEWHERE[beginning]
    top, *inner = Path(name).with_suffix("").parts
    return (inner[0],) if top in ("xengt_dm", "tests") and inner else ()


class _Users:
    """Which files of tests use a file of the checkout."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._tests = [path.relative_to(root).as_posix() for path in sorted(root.glob("tests/*/test_*.py"))]
        self._imports = functools.cache(self._read_imports)

    def of(self, name: str) -> list[str]:
        if name.endswith(".py"):
            module, whole = _module(name), name.endswith("/__init__.py")
            return [
                test
                for test in self._tests
                if test == name
                or any(used == module or (whole and used.startswith(f"{module}.")) for used in self._reach(test))
            ]
        path = Path(name)
        if not path.suffix or path.parts[:2] in [("tests", part) for part in PARTS]:
            return []
        return [test for test in self._tests if path.name in (self._root / test).read_text()]

    def _reach(self, test: str) -> set[str]:
        """The modules that a file of tests imports, and its helpers do."""
        found: set[str] = set()
        left = [test]
        while left:
            more = self._imports(left.pop()) - found
            found |= more
            left += [path for module in more if module.startswith("tests.") and (path := self._file(module))]
        return found

    def _file(self, module: str) -> str | None:
        for path in (module.replace(".", "/") + ".py", module.replace(".", "/") + "/__init__.py"):
            if (self._root / path).exists():
                return path
        return None

    def _read_imports(self, name: str) -> set[str]:
        found: set[str] = set()
        for node in ast.walk(ast.parse((self._root / name).read_text(), name)):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module)
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                package = Path(name).parts[: -node.level]
                base = ".".join([*package, *filter(None, [node.module])])
                found.add(base)
                found.update(f"{base}.{alias.name}" for alias in node.names)
        return found


def _module(name: str) -> str:
    return ".".join(Path(name).with_suffix("").parts).removesuffix(".__init__")


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
