"""Checks of this installation of xengt-dm: its extensions, its Python packages, its directory."""

from __future__ import annotations

import errno
import importlib
import importlib.metadata
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from xengt_dm.cli.check.finding import Finding, Host, State
from xengt_dm.errors import HostError
from xengt_dm.hypervisor.xen import library

DISTRIBUTION: Final = "xengt-dm"


def check_extensions(host: Host) -> Iterator[Finding]:
    """Were the extension modules built, and do they load?"""
    del host
    try:
        importlib.import_module("xengt_dm._core")
        yield Finding("_core", State.OK, "built and loads")
    except ImportError as error:
        yield Finding("_core", State.MISSING, f"does not load: {error}", "install xengt-dm again with a C compiler")
    try:
        library.load()
        yield Finding("_xen", State.OK, "built and loads")
    except HostError as error:
        built = error.errno != errno.ENOSYS
        remedy = (
            "install Xen's libraries, 4.15 or later (Debian: apt install libxendevicemodel1 libxenforeignmemory1 "
            "libxenevtchn1 libxentoolcore1)"
            if built
            else "apt install libxen-dev pkg-config, then install xengt-dm again"
        )
        yield Finding("_xen", State.MISSING, f"does not load: {error.meaning}" if built else "not built", remedy)
        return
    versions = loaded_libraries(Path("/proc/self/maps").read_text())
    if versions:
        yield Finding("xen libraries", State.OK, ", ".join(versions))


def loaded_libraries(maps: str) -> list[str]:
    """The Xen libraries in a /proc/PID/maps, by the names of their files, which carry their versions."""
    return sorted(set(re.findall(r"/(libxen\w+\.so[.\d]*)$", maps, re.MULTILINE)))


def check_python(host: Host) -> Iterator[Finding]:
    """Are the Python packages that we name there, and new enough?"""
    del host
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding(
            "python packages",
            State.WARNING,
            f"{DISTRIBUTION} is not installed, so its needs are not known",
            "pip install .",
        )
        return
    for requirement in requirements:
        parsed = re.match(r"([A-Za-z0-9._-]+)\s*\(?>=\s*([0-9.]+)\)?\s*$", requirement)
        if parsed:
            yield package_finding(parsed[1], parsed[2])


def package_finding(name: str, floor: str) -> Finding:
    """One Python package against its floor."""
    worst = State.WARNING if name == "prometheus-client" else State.MISSING
    remedy = f"apt install python3-{name}, or pip install '{name}>={floor}'"
    try:
        version = installed_version(name)
    except importlib.metadata.PackageNotFoundError:
        text = "not installed" + ("; only the metrics exporter needs it" if worst is State.WARNING else "")
        return Finding(f"python {name}", worst, text, remedy)
    if version_key(version) < version_key(floor):
        return Finding(f"python {name}", worst, f"{version} is older than {floor}", remedy)
    return Finding(f"python {name}", State.OK, f"{version} (needs {floor})")


def installed_version(name: str) -> str:
    """A package's version. Of cffi we only need the backend, which Debian packages without metadata."""
    if name == "cffi":
        try:
            return str(importlib.import_module("_cffi_backend").__version__)
        except ImportError:
            raise importlib.metadata.PackageNotFoundError(name) from None
    return importlib.metadata.version(name)


def version_key(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, which is all that floors compare."""
    leading = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, leading[0].split("."))) if leading else ()


def check_run_dir(host: Host) -> Iterator[Finding]:
    """Can `run` keep its sockets and server ids?"""
    path = host.path(host.run_dir)
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        yield Finding(
            "run directory",
            State.MISSING,
            f"{existing} is no directory that we may write to",
            f"run as root, or give --run-dir, or: install -d -o $USER {host.run_dir}",
        )
    else:
        yield Finding(
            "run directory", State.OK, f"{host.run_dir} {'is writable' if existing == path else 'can be made'}"
        )
