"""Prints a line on the terminal while a step takes long, so that it does not look like a hang."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import click

#: How long a step may take that nothing is said of.
AFTER_SECONDS = 2.0


@contextmanager
def notice(text: str, after: float | None = None, *, to_files: bool = False) -> Iterator[None]:
    """Writes ``text`` to standard error if what is done meanwhile takes longer than ``after`` seconds (AFTER_SECONDS).

    Does nothing where standard error is no terminal, unless ``to_files``: a script does not need the line.
    """
    if not to_files and not sys.stderr.isatty():
        yield
        return

    def write() -> None:
        with suppress(OSError, ValueError):
            click.echo(f"xengt-dm: {text}", err=True)

    timer = threading.Timer(AFTER_SECONDS if after is None else after, write)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def waiting(
    domid: int, seconds: float, what: str = "answered", silence: float | None = None
) -> AbstractContextManager[None]:
    """A notice, also where standard error is no terminal, of a daemon that has not done ``what`` after AFTER_SECONDS.

    It says that the command waits for ``seconds`` in all, and for ``silence`` in which the daemon says nothing.
    """
    until = time.strftime("%H:%M:%S", time.localtime(time.time() + seconds))
    text = f"the daemon of domain {domid} has not {what} yet; waiting until {until}, {seconds:g} s in all"
    if silence is not None:
        text += f", unless it says nothing for {silence:g} s"
    return notice(text, to_files=True)
