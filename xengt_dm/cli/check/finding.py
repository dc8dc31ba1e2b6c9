"""What `xengt-dm check` is made of: a finding, and the host that it is about."""

from __future__ import annotations

import enum
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from xengt_dm.xenstore import XenStore

DEFAULT_RUN_DIR: Final = Path("/run/xengt-dm")


class State(enum.StrEnum):
    """How serious a finding is."""

    OK = "ok"
    WARNING = "warning"
    #: `run` cannot work without it.
    MISSING = "missing"


@dataclass(frozen=True)
class Finding:
    """What one check found; ``remedy`` says what to do where something is to be done."""

    name: str
    state: State
    text: str
    remedy: str = ""


def output_of(command: list[str]) -> str | None:
    """A command's output, or None when there is no such command, or it fails or hangs."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None


@dataclass(frozen=True)
class Host:
    """The host under examination. ``root`` stands before every path, so that a test can bring its own."""

    root: Path = Path("/")
    run_dir: Path = DEFAULT_RUN_DIR
    domid: int | None = None
    output_of: Callable[[list[str]], str | None] = field(default=output_of)

    def path(self, absolute: str | Path) -> Path:
        """Returns where an absolute path of the host is, below ``root``."""
        return self.root / str(absolute).lstrip("/")

    def text(self, absolute: str) -> str | None:
        """A small file's text, or None when it cannot be read."""
        try:
            return self.path(absolute).read_text(errors="replace").strip()
        except OSError:
            return None

    @property
    def on_xen(self) -> bool:
        """Whether this host seems to run on Xen."""
        return self.text("/sys/hypervisor/type") == "xen" or self.path("/proc/xen/capabilities").exists()

    def store(self) -> XenStore:
        """Opens a connection to xenstore. Returns it; the caller must close it. Raises HostError."""
        return XenStore(self.path("/run/xenstored/socket"), self.path("/dev/xen/xenbus"), timeout=2.0)
