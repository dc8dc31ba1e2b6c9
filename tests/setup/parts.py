"""What the tests are made of, and what each part needs."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

import projects
from environments import Kind, make
from projects import Installed


class Part(enum.Enum):
    """In the order in which they run: what fails soonest comes first."""

    LINT = "lint"  #: ruff, mypy, compilers' warnings, import rules, words
    UNIT = "unit"  #: unit, property and oracle tests on today's releases of the dependencies
    FLOOR = "floor"  #: the same on the oldest releases that pyproject.toml admits
    SANITIZE = "sanitize"  #: the same with AddressSanitizer and UndefinedBehaviorSanitizer
    BUILD = "build"  #: sdist, wheel, editable install
    LAB = "lab"  #: scenarios on real Xen
    BENCH = "bench"  #: how fast it is; no test, so only if it is named


#: Every scenario of tests/lab, on every Xen.
SCENARIOS = ("smoke", "stop", "relaxed", "adopt", "conformance")
XENS = ("4.17", "4.20")
#: A scenario is mostly one QEMU of 2 GiB with two vCPUs.
LAB_JOBS = 2

#: Debian packages that a part needs besides those that tests/run itself had installed.
PACKAGES = {
    Part.LINT: ["clang", "git", "libxen-dev", "pkg-config", "shellcheck"],
    Part.UNIT: ["libxen-dev", "pkg-config", "prometheus", "systemd"],
    Part.FLOOR: ["libxen-dev", "pkg-config", "prometheus", "systemd"],
    Part.SANITIZE: ["libxen-dev", "pkg-config", "prometheus", "systemd"],
    Part.BUILD: ["git", "libxen-dev", "pkg-config"],
    Part.BENCH: ["libxen-dev", "pkg-config"],
    Part.LAB: ["binutils", "debian-archive-keyring", "e2fsprogs", "git", "mmdebstrap", "qemu-system-x86", "util-linux"],
}

_FOLDERS_OF_THEIR_OWN = ("tests/lint", "tests/builds", "tests/lab", "tests/setup")
_ALL_OTHERS = ["tests", *(f"--ignore={folder}" for folder in _FOLDERS_OF_THEIR_OWN)]


#: Under the sanitizers all takes several times as long, so only what drives the C through its corners runs there.
_LOOKS_AT_C = ["tests/core", "tests/ppgtt", "tests/embedded", "tests/ioreq", "tests/fuzz", "tests/trace"]


@dataclass(frozen=True)
class PytestPart:
    """A part that is one run of pytest."""

    arguments: list[str]
    install: Callable[[], Installed]
    seconds: int


def _installed(kind: Kind) -> Callable[[], Installed]:
    return lambda: projects.install(make(kind), kind.value)


#: What is measured is what users get: today's releases, and the flags of an ordinary build.
install_for_bench = _installed(Kind.NEWEST)


PYTEST_PARTS = {
    Part.LINT: PytestPart(["tests/lint"], _installed(Kind.NEWEST), 600),
    Part.UNIT: PytestPart(_ALL_OTHERS, _installed(Kind.NEWEST), 1800),
    Part.FLOOR: PytestPart(_ALL_OTHERS, _installed(Kind.FLOOR), 1800),
    Part.SANITIZE: PytestPart(
        [*_LOOKS_AT_C, "-m", "not python_heavy"],
        lambda: projects.install_sanitized(make(Kind.NEWEST)),
        1800,
    ),
    Part.BUILD: PytestPart(["tests/builds"], _installed(Kind.NEWEST), 900),
}
LAB_SECONDS = 1800
BENCH_SECONDS = 1800
