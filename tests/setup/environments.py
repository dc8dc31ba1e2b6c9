"""Virtual environments with what the project needs, without the project itself. pyproject.toml says what that is."""

from __future__ import annotations

import enum
import sys
import time
import tomllib
from pathlib import Path

import cache
from command import Words, quietly

CHECKOUT = Path(__file__).resolve().parents[2]
#: What another release says of unchanged code differs, so linters are changed on purpose.
LINTERS = ["ruff==0.17.6", "mypy==2.4.1"]


class Kind(enum.Enum):
    """Which releases, and for what."""

    DEMO = "demo"  #: what a user installs
    NEWEST = "newest"  #: today's releases, to test with
    FLOOR = "floor"  #: the oldest releases that pyproject.toml admits, to test with


def make(kind: Kind) -> Path:
    """The venv of this kind, made now if it is not there. Raises SetupError."""
    wanted = requirements(kind)
    inputs = {"python": sys.version, "executable": sys.executable, "requirements": wanted}
    if kind is Kind.NEWEST:
        inputs["week"] = time.strftime("%G-%V")  # what is newest changes

    def build(path: Path) -> None:
        quietly([sys.executable, "-m", "venv", path])
        pip: Words = [path / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--no-input"]
        quietly([*pip, "install", *wanted])

    return cache.entry(f"venv-{kind.value}", inputs, build)


def requirements(kind: Kind) -> list[str]:
    """What pip installs for this kind."""
    pyproject = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    extras: dict[str, list[str]] = pyproject["project"]["optional-dependencies"]
    runs_and_builds: list[str] = pyproject["project"]["dependencies"] + pyproject["build-system"]["requires"]
    match kind:
        case Kind.DEMO:
            return runs_and_builds
        case Kind.NEWEST:
            return runs_and_builds + extras["test"] + extras["lint"] + LINTERS + ["build"]
        case Kind.FLOOR:
            return [requirement.replace(">=", "==") for requirement in runs_and_builds] + extras["test"]
