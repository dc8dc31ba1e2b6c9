"""Built things kept outside the checkout, each under a hash of what it was built from."""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_MANIFEST = "manifest.json"


def directory() -> Path:
    """The lab's cache directory ($XDG_CACHE_HOME or ~/.cache), made if it is not there."""
    base = os.environ.get("XDG_CACHE_HOME")
    path = (Path(base) if base else Path.home() / ".cache") / "xengt-dm" / "lab"
    path.mkdir(parents=True, exist_ok=True)
    return path


def entry(name: str, inputs: object, build: Callable[[Path], None]) -> Path:
    """The directory that `build` filled from these inputs, built now unless a whole one is there.

    `inputs` is anything that JSON can hold. A build happens under a temporary name and is renamed when it is complete,
    so a killed one is never taken for a result; two runs that want the same entry build it once.
    """
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
    root = directory()
    final = root / f"{name}-{key}"
    with _locked(root / f"{name}-{key}.lock"):
        if _is_whole(final):
            return final
        for leftover in [final, *root.glob(f"{name}-{key}.part-*")]:
            shutil.rmtree(leftover, ignore_errors=True)
        part = Path(tempfile.mkdtemp(prefix=f"{name}-{key}.part-", dir=root))
        part.chmod(0o755)
        try:
            build(part)
            (part / _MANIFEST).write_text(json.dumps(_sizes(part)))
            part.rename(final)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    return final


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sizes(path: Path) -> dict[str, int]:
    return {item.name: item.stat().st_size for item in path.iterdir() if item.is_file() and item.name != _MANIFEST}


def _is_whole(path: Path) -> bool:
    try:
        return bool(json.loads((path / _MANIFEST).read_text()) == _sizes(path))
    except (OSError, ValueError):
        return False
