"""Which files of tests reach a file of the checkout: by imports, by calls of a C function, or by its name."""

from __future__ import annotations

import functools
import heapq
import re
from collections.abc import Iterator
from pathlib import Path

#: Folders of tests that are parts of their own, and no rooms.
PARTS = ("lint", "builds", "lab", "setup")
#: Where Python files import each other.
_FOLDERS = ("xengt_dm", "tests")
_FARTHEST = (1 << 30, 0)
_DECLARED = re.compile(r"\b(xd_\w+)\(")
_CALLED = re.compile(r"\blib\.(xd_\w+)")
#: Read so, a thousand files take a moment; parsed, they take seconds.
_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+(\S+)[ \t]+import[ \t]*(\([^)]*\)|.*)|import[ \t]+(.*))", re.MULTILINE)


class Reach:
    """The files of one checkout, and what each uses."""

    def __init__(self, root: Path) -> None:
        self._root = root
        paths = [path for folder in _FOLDERS for path in sorted((root / folder).rglob("*.py"))]
        self._modules = {_module(name): name for path in paths if (name := path.relative_to(root).as_posix())}
        self._texts: dict[str, str] = {}
        self._tests = [name for name in self._modules.values() if Path(name).match("tests/*/test_*.py")]

    def tests_of(self, changed: str) -> dict[str, tuple[int, int]]:
        """Returns each file of tests that reaches a file, with how many files lie between them: modules of the package,
        and helpers of tests.
        """
        near = dict.fromkeys(self._naming(changed), (0, 0))
        left = [((0, 0), changed)] if changed.endswith(".py") else []
        left += [((0, 0), name) for name in self._calling(changed)]
        heapq.heapify(left)
        while left:
            distance, used = heapq.heappop(left)
            if distance < near.get(used, _FARTHEST):
                near[used] = distance
                after = distance if used == changed else _farther(distance, used)
                for user in self._users.get(used, ()):
                    heapq.heappush(left, (after, user))
        return {name: distance for name, distance in near.items() if name in self._tests}

    def c_files(self, changed: str) -> list[str]:
        """Returns a C file of cffi_build, or all that include a header of it, at whatever remove; else nothing."""
        if not changed.startswith("cffi_build/") or not changed.endswith((".c", ".h")):
            return []
        texts = {path: path.read_text() for path in sorted((self._root / "cffi_build").rglob("*.[ch]"))}
        found = {path for path in texts if path == self._root / changed}
        more = found
        while more:
            names = {f'#include "{path.name}"' for path in more if path.suffix == ".h"}
            more = {path for path, text in texts.items() if any(name in text for name in names)} - found
            found = found | more
        return sorted(path.relative_to(self._root).as_posix() for path in found)

    def _naming(self, changed: str) -> list[str]:
        path = Path(changed)
        if path.suffix in ("", ".py") or path.parts[:2] in [("tests", part) for part in PARTS]:
            return []
        return [test for test in self._tests if path.name in self._text(test)]

    def _calling(self, changed: str) -> list[str]:
        """The Python files that call a function which the header of a C file declares."""
        header = (self._root / changed).with_suffix(".h")
        if not changed.endswith((".c", ".h")) or not header.exists():
            return []
        declared = set(_DECLARED.findall(header.read_text()))
        return [name for name in self._modules.values() if declared.intersection(_CALLED.findall(self._text(name)))]

    @functools.cached_property
    def _users(self) -> dict[str, list[str]]:
        """By file: the files that import it."""
        users: dict[str, list[str]] = {}
        for name in self._modules.values():
            imported = _imported(self._text(name), name)
            for used in {self._modules[module] for module in imported if module in self._modules}:
                users.setdefault(used, []).append(name)
        return users

    def _text(self, name: str) -> str:
        if name not in self._texts:
            self._texts[name] = (self._root / name).read_text()
        return self._texts[name]


def _imported(text: str, name: str) -> Iterator[str]:
    """The modules that a file imports, with the packages that they are in. Imported names count as modules."""
    for source, members, modules in _IMPORT.findall(text):
        found = re.findall(r"[\w.]+", re.sub(r"#.*| as \w+", "", members or modules))
        if source:
            relative = len(source) - len(source.lstrip("."))
            package = Path(name).parts[:-relative] if relative else ()
            found = [".".join([*package, *filter(None, [source.lstrip(".")]), member]) for member in found]
        for module in found:
            parts = module.split(".")
            yield from (".".join(parts[: i + 1]) for i in range(len(parts)))


def _farther(distance: tuple[int, int], name: str) -> tuple[int, int]:
    """Returns the distance of what uses a file at ``distance``."""
    modules, helpers = distance
    return (modules, helpers + 1) if name.startswith("tests/") else (modules + 1, helpers)


def _module(name: str) -> str:
    return ".".join(Path(name).with_suffix("").parts).removesuffix(".__init__")
