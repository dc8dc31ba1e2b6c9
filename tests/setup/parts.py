"""What the tests are made of, and what each part needs."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

import projects
from environments import Kind, make
from projects import Installed
from running import SPREAD


class Part(enum.Enum):
    """In the order in which they run: what fails soonest comes first."""

    LINT = "lint"  #: ruff, mypy, compilers' warnings, import rules, words; the tests of tests/setup
    UNIT = "unit"  #: unit, property and oracle tests on today's releases of the dependencies
    FLOOR = "floor"  #: those of what uses the dependencies, on the oldest releases that pyproject.toml admits
    SANITIZE = "sanitize"  #: those of the C, with AddressSanitizer and UndefinedBehaviorSanitizer
    BUILD = "build"  #: sdist, wheel, editable install
    STORM = "storm"  #: daemons that are killed at any instant, on a sim
    LAB = "lab"  #: scenarios on real Xen
    BENCH = "bench"  #: how fast it is; no test, so only if it is named
    CAMPAIGN = "campaign"  #: a hostile guest for an hour, with the sanitizers; only if it is named


#: Every scenario of tests/lab, in this order on every Xen.
SCENARIOS = (
    "smoke", "stop", "relaxed", "adopt", "poll", "pci", "bounds", "conformance", "service", "life", "kill", "i915",
)  # fmt: skip
#: Scenarios that run only if they are named: two measure, and judge nothing; borders judges the emulator.
IF_NAMED = ("cost", "cost_two", "borders")
XENS = ("4.17", "4.20")
#: Of scenarios that take several minutes each: the Xen on which they run unless they are named, or the size is full.
#: The guest of i915 does not boot on 4.17 yet.
ONLY_ON = {"service": "4.17", "life": "4.20", "i915": "4.20"}
#: The scenarios on one Xen are one QEMU of 2 GiB at a time, with one or two vCPUs.
LAB_JOBS = 2

_FOR_UNIT = ["libxen-dev", "pkg-config", "prometheus", "systemd"]
#: Debian packages that a part needs besides those that tests/run itself had installed.
PACKAGES = {
    Part.LINT: ["clang", "git", "libxen-dev", "pkg-config", "shellcheck"],
    Part.UNIT: _FOR_UNIT,
    Part.FLOOR: _FOR_UNIT,
    Part.SANITIZE: ["libxen-dev", "pkg-config"],
    Part.BUILD: ["git", "libxen-dev", "pkg-config"],
    Part.STORM: ["libxen-dev", "pkg-config"],
    Part.BENCH: ["libxen-dev", "pkg-config"],
    Part.CAMPAIGN: ["libxen-dev", "pkg-config"],
    Part.LAB: ["binutils", "debian-archive-keyring", "e2fsprogs", "git", "mmdebstrap", "util-linux"],
}

_FOLDERS_OF_THEIR_OWN = ("tests/lint", "tests/builds", "tests/lab", "tests/setup")
_ALL_OTHERS = ["tests", *(f"--ignore={folder}" for folder in _FOLDERS_OF_THEIR_OWN)]

#: What another release of a dependency could change: the rooms whose code or tests use click, trio, structlog,
#: prometheus-client, Xen's libraries or a host's programs; and of those that use cffi alone, what passes each kind of
#: value between Python and C. The rest of the time of the unit part goes into C kernels, which are the same C here:
#: that they are right is what the unit part says.
_USES_DEPENDENCIES = (
    "cli",
    "config",
    "conformance",
    "control",
    "core",
    "daemon",
    "ioreq",
    "log",
    "run_dir",
    "service",
    "sim",
    "state",
    "stats",
    "traps",
    "vgpu",
    "xen",
    "xenstore",
)
_FLOOR = [
    *(f"tests/{room}" for room in _USES_DEPENDENCIES),
    "tests/ppgtt/test_engine_modes.py",
    "tests/trace/test_read.py",
    "tests/trace/test_record.py",
    "tests/trace/test_write.py",
    "tests/embedded/test_devices.py",
    "tests/embedded/test_life.py",
]
#: Under the sanitizers all takes several times as long, so only what drives the C through its corners runs there.
_LOOKS_AT_C = ["tests/core", "tests/ppgtt", "tests/embedded", "tests/ioreq", "tests/fuzz", "tests/sim", "tests/trace"]


@dataclass(frozen=True)
class PytestPart:
    """A part that is one run of pytest."""

    arguments: list[str]
    install: Callable[[], Installed]


def installed(kind: Kind) -> Callable[[], Installed]:
    """What has pip install the project for a kind of venv."""
    return lambda: projects.install(make(kind), kind.value)


PYTEST_PARTS = {
    Part.LINT: PytestPart([*SPREAD, "tests/lint", "tests/setup"], installed(Kind.NEWEST)),
    Part.UNIT: PytestPart([*SPREAD, *_ALL_OTHERS], installed(Kind.NEWEST)),
    Part.FLOOR: PytestPart([*SPREAD, *_FLOOR], installed(Kind.FLOOR)),
    Part.SANITIZE: PytestPart(
        # A sanitizer says what it found and ends the process: a capture of file descriptors would keep that to itself.
        [*SPREAD, *_LOOKS_AT_C, "--capture=sys", "-m", "not python_heavy"],
        lambda: projects.install_sanitized(make(Kind.NEWEST)),
    ),
    # Its tests share what they build, so they are one after the other.
    Part.BUILD: PytestPart(["tests/builds"], installed(Kind.NEWEST)),
}
