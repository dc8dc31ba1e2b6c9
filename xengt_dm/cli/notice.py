"""A line on the terminal for a step that takes long, so that nobody takes it for a hang."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import click

AFTER_SECONDS: Final = 2.0


@contextmanager
def notice(text: str, after: float = AFTER_SECONDS) -> Iterator[None]:
    """Writes ``text`` to standard error if what is done meanwhile takes longer than ``after`` seconds.

    Does nothing where standard error is no terminal: a script does not need the line.
    """
    if not sys.stderr.isatty():
        yield
        return

    def write() -> None:
        with suppress(OSError, ValueError):
            click.echo(f"xengt-dm: {text}", err=True)

    timer = threading.Timer(after, write)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
