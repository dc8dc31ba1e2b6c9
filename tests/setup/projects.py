"""The project as pip installs it, into a directory of its own, for each venv and each way to compile it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import cache
from command import SetupError, Words, quietly
from environments import CHECKOUT

#: All that a build reads.
SOURCES = ("xengt_dm", "cffi_build", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
_LITTER = shutil.ignore_patterns("__pycache__", "*.so", "*.o", "_core.c", "_embedded.c", "_xen.c")


@dataclass(frozen=True)
class Installed:
    """A venv and the project for it."""

    venv: Path
    site: Path
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    def environment(self) -> dict[str, str]:
        """The variables with which any Python started from here, however deep, has the installed project.

        PYTHONSAFEPATH keeps the checkout, as the directory one stands in, from coming before it.
        """
        path = os.pathsep.join([f"{self.venv}/bin", f"{self.site}/bin", os.environ.get("PATH", os.defpath)])
        own = {"PYTHONPATH": str(self.site), "PYTHONSAFEPATH": "1", "PATH": path, "VIRTUAL_ENV": str(self.venv)}
        return {**os.environ, **own, **self.extra}


def install(venv: Path, name: str, flags: dict[str, str] | None = None, **extra: str) -> Installed:
    """The checkout, installed for ``venv``; built now if this state of it is not there.

    ``flags`` are variables for the build, ``extra`` ones for what is run with it. Raises SetupError.
    """
    inputs = {"sources": _hashes(), "venv": venv.name, "flags": flags, "tools": _tool_versions()}

    def build(path: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            for source in SOURCES:
                _copy(CHECKOUT / source, Path(scratch) / source)
            pip: Words = [venv / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--no-input"]
            options: Words = ["--no-deps", "--no-build-isolation", "--no-index", "--target", path / "site"]
            quietly([*pip, "install", *options, scratch], env=flags)

    return Installed(venv, cache.entry(f"project-{name}", inputs, build) / "site", extra)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=_LITTER)
    else:
        shutil.copy2(source, target)


def _hashes() -> dict[str, str]:
    ignored = ("__pycache__", ".so", ".o", "_core.c", "_embedded.c", "_xen.c", ".pyc")
    files = [
        path
        for source in SOURCES
        for path in [CHECKOUT / source, *(CHECKOUT / source).rglob("*")]
        if path.is_file() and not path.name.endswith(ignored)
    ]
    return {str(path.relative_to(CHECKOUT)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _tool_versions() -> list[str]:
    """The compiler, and the Xen libraries that decide whether ``_xen`` is built."""
    versions = []
    for words in (["gcc", "--version"], ["pkg-config", "--modversion", "xendevicemodel", "xenforeignmemory"]):
        try:
            versions.append(subprocess.run(words, capture_output=True, text=True, check=False).stdout)
        except FileNotFoundError:
            versions.append("none")
    return versions


def install_sanitized(venv: Path) -> Installed:
    """As :func:`install`, with the C under AddressSanitizer and UndefinedBehaviorSanitizer.

    Python itself is not, so their runtime libraries are loaded before it, and its own leaks are not looked for. Its
    allocator would hide the borders of what ``ffi.new`` makes, so it uses malloc. SIGBUS is the guard's
    (cffi_build/core/base/guard.c), so AddressSanitizer leaves it alone.

    Raises SetupError also if an overflow made on purpose is not found.
    """
    checks = "-fsanitize=address,undefined"
    flags = {
        "XENGT_CFLAGS": f"{checks} -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1",
        "XENGT_LDFLAGS": checks,
    }
    libraries = [quietly(["gcc", f"-print-file-name={name}"]).strip() for name in ("libasan.so", "libubsan.so")]
    installed = install(
        venv,
        "sanitized",
        flags,
        PYTHONMALLOC="malloc",
        LD_PRELOAD=":".join(libraries),
        ASAN_OPTIONS="detect_leaks=0:handle_sigbus=0:abort_on_error=1",
        UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1",
    )
    overflow = "from xengt_dm._core import ffi, lib; lib.xd_read(ffi.new('char[16]'), ffi.new('char[64]'), 64)"
    done = subprocess.run(
        [installed.python, "-c", overflow], env=installed.environment(), capture_output=True, text=True, check=False
    )
    if done.returncode == 0 or "AddressSanitizer: heap-buffer-overflow" not in done.stderr:
        raise SetupError(f"AddressSanitizer does not see an overflow\n{done.stderr}")
    return installed
