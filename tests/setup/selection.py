"""What of the tests a change touches, and as much of that as takes half a minute."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from environments import CHECKOUT
from reach import Reach
from rooms import homes, rooms

#: By file of tests: the seconds that its tests take one after the other on an idle machine, those marked slow left out,
#: if these are half a second or more. `tests/quick --measure` writes it.
SECONDS_FILE = Path(__file__).with_name("seconds.json")
#: Of a file that is not in there.
_FEW_SECONDS = 0.2
#: What two processors do in about 20 seconds. The rooms of what has changed run in any case; from farther away as much
#: is taken as fits.
BUDGET_SECONDS = 36.0
#: What compiling costs of that: extension modules, and a C file under one compiler.
_EXTENSION_SECONDS = 6.0
_C_FILE_SECONDS = 0.4

_COMPILERS = "tests/lint/test_compilers.py"
#: A change of one of these changes what the compilers are told.
_COMPILER_FLAGS = (
    "cffi_build/build_core.py",
    "cffi_build/build_embedded.py",
    "cffi_build/owned.py",
    "cffi_build/shared.py",
    _COMPILERS,
)
#: What tests/setup tests.
_SETUP = ("tests/setup/", "tests/quick", "tests/run", "tests/demo")


def measured() -> dict[str, float]:
    """Returns what :data:`SECONDS_FILE` says."""
    seconds: dict[str, float] = json.loads(SECONDS_FILE.read_text())
    return seconds


def record(seconds: Mapping[str, float]) -> None:
    """Writes :data:`SECONDS_FILE`."""
    long = {name: round(value, 1) for name, value in sorted(seconds.items()) if value >= 0.5}
    SECONDS_FILE.write_text(json.dumps(long, indent=2) + "\n")


@dataclass(frozen=True)
class Selection:
    """``lint``: files and tests of tests/lint. ``rooms``: folders of tests that run as wholes.

    ``files``: single files of tests, of other rooms. ``left_out``: such as did not fit. ``seconds``: what all that runs
    takes, roughly, one after the other.
    """

    lint: tuple[str, ...]
    rooms: tuple[str, ...]
    files: tuple[str, ...]
    left_out: tuple[str, ...]
    seconds: float

    @property
    def arguments(self) -> list[str]:
        """What pytest is told to run."""
        return [*self.lint, *(f"tests/{room}" for room in self.rooms), *self.files]

    def __str__(self) -> str:
        return " ".join([*(["lint"] if self.lint else []), *self.rooms, *map(short, self.files)])


def short(file: str) -> str:
    """Returns how a file of tests is shown: ``ppgtt/leaf``."""
    return file.removeprefix("tests/").removesuffix(".py").replace("/test_", "/")


def named(names: Iterable[str], seconds: Mapping[str, float], root: Path = CHECKOUT) -> Selection:
    """Returns the selection of these folders of tests, and nothing else."""
    folders = tuple(names)
    return Selection((), folders, (), (), sum(_seconds_of(folder, seconds, root) for folder in folders))


def touched(
    changed: Iterable[str], seconds: Mapping[str, float], budget: float = BUDGET_SECONDS, root: Path = CHECKOUT
) -> Selection:
    """Returns what a change of these files, paths in the checkout, touches.

    These are the rooms of the files; then, the nearest first, the files of tests that reach one of them, as long as
    the budget, in seconds, lasts. Of those that are equally near, the shorter ones come first.
    """
    names = sorted(set(changed))
    known = set(rooms(root))
    whole = sorted({room for name in names for room in homes(name) if room in known})
    reach = Reach(root)
    c_files = sorted({file for name in names for file in reach.c_files(name)})
    if any(name.startswith(_SETUP) for name in names):
        whole.append("setup")
    spent = sum(_seconds_of(room, seconds, root) for room in ["lint", *whole])
    lint = _lint(names, c_files, root)
    if any(name.startswith("cffi_build/") for name in names):
        spent += _EXTENSION_SECONDS + _C_FILE_SECONDS * sum(_COMPILERS in test for test in lint)
    near: dict[str, tuple[int, int]] = {}
    for name in names:
        for test, distance in reach.tests_of(name).items():
            if Path(test).parent.name in known.difference(whole):
                near[test] = min(distance, near.get(test, distance))
    taken, left_out = [], []
    for test in sorted(near, key=lambda test: (near[test], seconds.get(test, _FEW_SECONDS), test)):
        cost = seconds.get(test, _FEW_SECONDS)
        if spent + cost <= budget:
            taken.append(test)
            spent += cost
        else:
            left_out.append(test)
    return Selection(tuple(lint), tuple(whole), tuple(sorted(taken)), tuple(sorted(left_out)), spent)


def _lint(names: Iterable[str], c_files: Iterable[str], root: Path) -> list[str]:
    """Returns all of tests/lint, but of the compilers only what concerns C files that have changed.

    These are seen by both compilers. What includes a header that has changed is seen by clang alone: gcc builds it.
    """
    lint = sorted(path.relative_to(root).as_posix() for path in (root / "tests/lint").glob("test_*.py"))
    if any(name in _COMPILER_FLAGS for name in names):
        return lint
    tests = [
        f"{_COMPILERS}::test_no_warning[{file.removeprefix('cffi_build/')}-{compiler}]"
        for file in c_files
        for compiler in ("gcc", "clang")
        if compiler == "clang" or file in names
    ]
    return [*(file for file in lint if file != _COMPILERS), *tests]


def _seconds_of(folder: str, seconds: Mapping[str, float], root: Path) -> float:
    files = [path.relative_to(root).as_posix() for path in (root / "tests" / folder).glob("test_*.py")]
    return sum(seconds.get(file, _FEW_SECONDS) for file in files if file != _COMPILERS)
