"""Directories made once and kept outside the checkout, each named by a hash of what it was made from."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

#: Present in a directory that was made to its end; its time is that of the last use.
_COMPLETE = ".complete"
#: Of each kind: more than this many, not used for a day, are removed.
_KEPT = 3
_DAY = 24 * 3600


def root() -> Path:
    """``$XDG_CACHE_HOME/xengt-dm``, in ``~/.cache`` by default."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "xengt-dm"


def entry(kind: str, inputs: object, make: Callable[[Path], None]) -> Path:
    """The directory that ``make`` filled from ``inputs`` (anything that JSON can hold); made now if it is not there.

    A venv has its own path in it, so it cannot be made elsewhere and renamed: what counts is the mark that is put there
    last, and what lies there without one is removed first.
    """
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
    root().mkdir(parents=True, exist_ok=True)
    path = root() / f"{kind}-{key}"
    mark = path / _COMPLETE
    with _locked(root() / f"{kind}.lock"):
        if not mark.exists():
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
            print(f"setup: making {path}", file=sys.stderr, flush=True)
            make(path)
        mark.touch()
        _prune(kind)
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _prune(kind: str) -> None:
    last_used = {mark.parent: mark.stat().st_mtime for mark in root().glob(f"{kind}-*/{_COMPLETE}")}
    oldest_first = sorted(last_used, key=lambda path: last_used[path])
    for path in oldest_first[:-_KEPT]:
        if last_used[path] < time.time() - _DAY:
            (path / _COMPLETE).unlink()
            shutil.rmtree(path, ignore_errors=True)
