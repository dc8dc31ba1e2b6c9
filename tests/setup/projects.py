"""The project for a venv: as pip installs it, or the checkout's Python as it lies there.

The one rule about which of them a test sees:

* ``tests/run``, and so what decides whether a change is taken, tests what pip makes of the sources: :func:`install`. A
  module that was forgotten in the package, or one that only the checkout has, fails there.
* ``tests/quick`` tests the checkout's own Python files: :func:`checkout`. Its extension modules are those that the
  cache has for the checkout's ``cffi_build``; they are compiled when a file in there has changed, and never else.

A test itself never looks: it imports ``xengt_dm``, and the environment says where that is.
"""

from __future__ import annotations

import concurrent.futures
import fnmatch
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import cache
from command import SetupError, Words, quietly
from environments import CHECKOUT

#: All that the code is made from, and so the name of what is installed.
CODE = ("xengt_dm", "cffi_build", "pyproject.toml", "MANIFEST.in")
#: What a build reads besides; it says nothing else about the code.
TEXTS = ("README.md", "LICENSE")
#: Extension module: the folders that it is made from; its build script is named after it.
EXTENSIONS = {
    "core": ("cffi_build/core",),
    "embedded": ("cffi_build/embedded", "cffi_build/core/ioreq"),
    "xen": ("cffi_build/xen",),
}
#: Builds one of them, as cffi_build/_setup.py builds them all.
_ONE_EXTENSION = (
    "import sys; sys.path.insert(0, 'cffi_build'); from setuptools import setup;"
    "setup(packages=[], cffi_modules=[sys.argv.pop()])"
)
_LITTER = ("__pycache__", "*.pyc", "*.so", "*.o", "_*.c")


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
    inputs = {"sources": hashes(CODE), "venv": venv.name, "flags": flags, "tools": _tool_versions()}

    def build(path: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            for source in (*CODE, *TEXTS):
                _copy(CHECKOUT / source, Path(scratch) / source)
            pip: Words = [venv / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--no-input"]
            options: Words = ["--no-deps", "--no-build-isolation", "--no-index", "--target", path / "site"]
            quietly([*pip, "install", *options, scratch], env=flags)

    return Installed(venv, cache.entry(f"project-{name}", inputs, build) / "site", extra)


def checkout(venv: Path) -> Installed:
    """The checkout's Python files as they lie there, with extension modules of its ``cffi_build``, built now if needed.

    Raises SetupError.
    """
    with concurrent.futures.ThreadPoolExecutor() as pool:
        extensions = list(pool.map(lambda name: _extension(name, venv), EXTENSIONS))
    package = CHECKOUT / "xengt_dm"
    members = sorted(path.name for path in package.iterdir() if path.name != "__pycache__")
    inputs = {
        "checkout": str(CHECKOUT),
        "members": members,
        "extensions": [each.name for each in extensions],
        "venv": venv.name,
    }

    def link(path: Path) -> None:
        for folder in ("site/xengt_dm", "site/bin"):
            (path / folder).mkdir(parents=True)
        for member in members:
            (path / "site" / "xengt_dm" / member).symlink_to(package / member)
        for extension in [file for each in extensions for file in each.glob("xengt_dm/*.so")]:
            shutil.copy2(extension, path / "site" / "xengt_dm")
        program = path / "site" / "bin" / "xengt-dm"
        program.write_text(f"#!{venv}/bin/python\nimport sys\nfrom xengt_dm.cli import main\nsys.exit(main())\n")
        program.chmod(0o755)

    return Installed(venv, cache.entry("checkout", inputs, link) / "site")


def _extension(name: str, venv: Path) -> Path:
    """A folder with ``xengt_dm/_NAME.abi3.so``; or without it, if that is ``_xen`` and Xen's headers are missing."""
    script = f"cffi_build/build_{name}.py"
    helpers = ("cffi_build/shared.py", *(["cffi_build/owned.py"] if name == "core" else []))
    sources = (*EXTENSIONS[name], script, *helpers)
    tools = _tool_versions()
    inputs = {"sources": hashes(sources), "venv": venv.name, "tools": tools}

    def build(path: Path) -> None:
        if name == "xen" and not tools[1]:
            return
        with tempfile.TemporaryDirectory() as scratch:
            for source in sources:
                _copy(CHECKOUT / source, Path(scratch) / source)
            words: Words = [venv / "bin" / "python", "-c", _ONE_EXTENSION, "build_ext", "--build-lib", path]
            quietly([*words, f"{script}:make_ffi"], cwd=Path(scratch))

    return cache.entry(f"extension-{name}", inputs, build)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(*_LITTER))
    else:
        shutil.copy2(source, target)


def hashes(sources: Iterable[str], root: Path = CHECKOUT) -> dict[str, str]:
    """What the files and folders of the checkout hold: path, hash. What a build leaves in them does not count."""
    files = [
        path
        for source in sources
        for path in [root / source, *(root / source).rglob("*")]
        if path.is_file() and not _is_litter(path.relative_to(root))
    ]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _is_litter(path: Path) -> bool:
    return any(fnmatch.fnmatch(part, litter) for part in path.parts for litter in _LITTER)


def _tool_versions() -> list[str]:
    """The compiler, and the Xen libraries that decide whether ``_xen`` is built."""
    versions = []
    for words in (["gcc", "--version"], ["pkg-config", "--modversion", "xendevicemodel", "xenforeignmemory"]):
        try:
            versions.append(subprocess.run(words, capture_output=True, text=True, check=False).stdout)
        except FileNotFoundError:
            versions.append("")
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
