"""Running a tool: quiet when it works, its last words in the error when it does not."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import LabError

_LAST_LINES = 15


def run(argv: Sequence[str | Path], *, what: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command without input and return its standard output.

    Raises LabError with the end of its output if it cannot be started or fails.
    """
    words = [str(word) for word in argv]
    full_env = {**os.environ, "LC_ALL": "C.UTF-8", **(env or {})}
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=full_env, cwd=cwd
        )
    except OSError as error:
        raise LabError(f"{what}: cannot run {words[0]}: {error.strerror}") from error
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-_LAST_LINES:])
        raise LabError(f"{what}: {words[0]} ended with status {done.returncode}\n{last}")
    return done.stdout
