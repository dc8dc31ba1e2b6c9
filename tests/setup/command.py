"""Running other programs: quietly while setting up, in sight and with a time limit when they are the tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

#: A command line.
Words: TypeAlias = list[str | Path]

_LAST_LINES = 40
#: From being interrupted for taking too long to being killed.
_GRACE_SECONDS = 30
_live: set[subprocess.Popen[str]] = set()


class SetupError(Exception):
    """Something that the tests need could not be made; the message is for the person who started them."""


def quietly(words: Words, *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command without input and return what it printed.

    Raises SetupError, with the end of its output, if it fails.
    """
    argv = [str(word) for word in words]
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **(env or {})},
        cwd=cwd,
        check=False,
    )
    if done.returncode != 0:
        last = "\n".join(done.stdout.splitlines()[-_LAST_LINES:])
        raise SetupError(f"{last}\nstatus {done.returncode} from: {' '.join(argv)}")
    return done.stdout


def in_sight(words: Words, *, env: Mapping[str, str], cwd: Path, seconds: int, say: Callable[[str], None]) -> int:
    """Run a command without input, ``say`` its lines as they come, and return its exit status.

    It and all that it started are interrupted, and killed if that does not help, after ``seconds``: status 124 or 137.
    """
    limit = ["timeout", "--signal=INT", f"--kill-after={_GRACE_SECONDS}", str(seconds)]
    with subprocess.Popen(
        [*limit, *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=env,
        cwd=cwd,
    ) as process:
        _live.add(process)
        try:
            assert process.stdout is not None
            for line in process.stdout:
                say(line.rstrip("\n"))
        except BaseException:
            process.terminate()
            raise
        finally:
            _live.discard(process)
    return process.returncode


def end_all() -> None:
    """Terminate what :func:`in_sight` runs, in whatever thread."""
    for process in list(_live):
        process.terminate()
