"""The C sources alone, without what cffi adds to them, under two compilers with every warning an error."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

CFFI_BUILD = Path(__file__).resolve().parents[2] / "cffi_build"
XEN_LIBRARIES = ["xendevicemodel", "xenforeignmemory", "xenevtchn", "xentoolcore"]


def build_script(name: str) -> ModuleType:
    """A build script of cffi_build/; they import each other from that folder."""
    sys.path.insert(0, str(CFFI_BUILD))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(CFFI_BUILD))


def include_flags(script: str) -> list[str]:
    """Where an extension's headers are: what its build script says, and nothing of the others'."""
    return [f"-I{folder}" for folder in build_script(script).FOLDERS]


#: Folder: what its files need besides the warnings. Optimised, because some warnings come from the optimiser.
FLAGS = {
    "core": ["-std=gnu11", "-O2", *include_flags("build_core")],
    "embedded": ["-std=gnu11", "-O2", *include_flags("build_embedded")],
    "xen": ["-std=gnu11", "-O2", "-D__XEN_TOOLS__=1"],
}
FILES = [path.relative_to(CFFI_BUILD).as_posix() for path in sorted(CFFI_BUILD.rglob("*.[ch]"))]


@pytest.fixture(scope="module")
def warnings() -> list[str]:
    """Those that the build itself asks for."""
    found: list[str] = build_script("shared").WARNINGS
    assert {"-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Werror"} <= set(found)
    return found


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("name", FILES)
def test_no_warning(compiler: str, name: str, warnings: list[str], tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    source = CFFI_BUILD / name
    flags = FLAGS[name.partition("/")[0]]
    if source.parent.name == "xen":
        flags = flags + libraries_flags()
    command = [compiler, *flags, *warnings, "-c", "-x", "c", "-o", str(tmp_path / "object")]
    # A header must stand alone, in a file that has nothing else.
    text = f'#include "{source}"\n' if source.suffix == ".h" else None
    command.append("-" if text else str(source))
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0 or done.stderr:
        pytest.fail(done.stderr, pytrace=False)


def libraries_flags() -> list[str]:
    done = subprocess.run(["pkg-config", "--cflags", *XEN_LIBRARIES], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("libxen-dev is not installed")
    return done.stdout.split()
