"""Running other programs: quietly while setting up, in sight and under a watch when they are the tests."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TypeAlias

#: A command line.
Words: TypeAlias = list[str | Path]

_LAST_LINES = 40
#: From being interrupted to being killed.
_GRACE_SECONDS = 30
_live: set[subprocess.Popen[bytes]] = set()


class SetupError(Exception):
    """Something that the tests need could not be made; the message is for the person who started them."""


@dataclass(frozen=True)
class Limits:
    """When a program is ended because it hangs: nothing came out of it for ``silent`` seconds, or ``longest`` are over.

    A slow machine is no reason to fail, so ``silent`` is far more than the longest silence of a program that works, and
    ``longest`` far more than the program ever took.
    """

    silent: float
    longest: float


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


def in_sight(words: Words, *, env: Mapping[str, str], cwd: Path, limits: Limits, say: Callable[[str], None]) -> int:
    """Run a command without input, ``say`` its lines as they come, and return its exit status.

    When it hangs (:class:`Limits`), ``say`` so; it and all that it started are then interrupted, and killed if that
    does not help. The status is negative if a signal ended it.
    """
    with subprocess.Popen(
        [*map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=env,
        cwd=cwd,
        start_new_session=True,  # so that a signal reaches all that it starts
    ) as process:
        _live.add(process)
        killer = threading.Timer(_GRACE_SECONDS, _signal, (process, signal.SIGKILL))
        try:
            if why := _follow(process, limits, say):
                say(f"ended: {why}")
                _signal(process, signal.SIGINT)
                killer.start()
                for line in process.communicate()[0].decode("utf-8", "replace").splitlines():
                    say(line)
        except BaseException:
            _signal(process, signal.SIGTERM)
            raise
        finally:
            process.wait()
            killer.cancel()
            _live.discard(process)
    return process.returncode


def _follow(process: subprocess.Popen[bytes], limits: Limits, say: Callable[[str], None]) -> str | None:
    """Say the lines of a program to its end; why it has to be ended before, None if it ended."""
    assert process.stdout is not None
    end = time.monotonic() + limits.longest
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(limits.silent):
                return f"nothing came for {limits.silent:.0f} s"
            if time.monotonic() > end:
                return f"not done after {limits.longest:.0f} s"
            chunk = os.read(process.stdout.fileno(), 1 << 16)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines if chunk else filter(None, [*lines, rest]):
                say(line.decode("utf-8", "replace"))
            if not chunk:
                return None


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def heed_interrupts() -> None:
    """Have SIGINT and SIGTERM raise KeyboardInterrupt here.

    A shell without job control starts a program in the background with SIGINT ignored, and what is ignored stays so in
    all that the program starts: tests of what Ctrl-C does would hang.
    """

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)


def end_all() -> None:
    """Terminate what :func:`in_sight` runs, in whatever thread."""
    for process in list(_live):
        _signal(process, signal.SIGTERM)
