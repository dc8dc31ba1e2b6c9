"""The one place where a failed command turns into words on standard error and an exit status."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from errno import EACCES, EPERM
from pathlib import Path

import click

from xengt_dm.errors import DataError, ExitCode, XengtError
from xengt_dm.printable import printable

LINE_END = "\n"


class NotPermittedError(XengtError):
    """This user may not do what the command was to do."""

    exit_code = ExitCode.PERMISSION


def cannot_write(path: Path, error: OSError) -> XengtError:
    """Returns the error of a command whose file cannot be opened or written."""
    text = f"{path}: cannot be written: {error.strerror or error}"
    return NotPermittedError(text) if error.errno in (EACCES, EPERM) else DataError(text)


class ClosedPipe(Exception):  # noqa: N818 - it is no error if the reader has read enough
    """The reader of our output has closed its end of the pipe."""


def report(error: BaseException) -> int:
    """Prints a message for each cause of an error. Returns the exit status of the most serious one.

    A bug is more serious than a refusal of the host or a wrong use, and is printed with its traceback. Nothing is
    printed for an interruption from the keyboard.
    """
    causes = list(_causes(error))
    if not causes:
        return ExitCode.OK
    return max((_report_one(cause) for cause in causes), key=_gravity)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yields the single errors in an exception group. trio >= 0.25 raises a group even for one error."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _causes(inner)
    else:
        yield error


INTERRUPTED = 128 + signal.SIGINT
CLOSED_PIPE = 128 + signal.SIGPIPE


def _gravity(status: int) -> int:
    if status == ExitCode.INTERNAL:
        return 3
    return 1 if status in (INTERRUPTED, CLOSED_PIPE) else 2 if status else 0


def _report_one(error: BaseException) -> int:
    match error:
        case SystemExit():
            return error.code if isinstance(error.code, int) else ExitCode.INTERNAL
        case KeyboardInterrupt() | click.Abort():
            return INTERRUPTED
        case ClosedPipe() | BrokenPipeError():
            _abandon_output()
            return CLOSED_PIPE
        case click.UsageError():
            shown = io.StringIO()
            error.show(shown)
            with suppress(OSError):
                click.echo(printable(shown.getvalue(), keep=LINE_END), nl=False, err=True)
            return ExitCode.USAGE
        case click.ClickException():
            return _say(error.format_message(), ExitCode.UNAVAILABLE)
        case XengtError():
            return _say(str(error), error.exit_code)
        case OSError():
            # Failures to open or read a file name it, so one without a name comes from writing to standard output.
            about = error.filename if error.filename is not None else "standard output"
            refused = error.errno in (EACCES, EPERM)
            text = f"{about}: {error.strerror or error}"
            return _say(text, ExitCode.PERMISSION if refused else ExitCode.UNAVAILABLE)
        case _:
            with suppress(OSError):
                traceback.print_exception(error)
            return _say(f"a bug in xengt-dm: {type(error).__name__}: {error}", ExitCode.INTERNAL)


def _say(text: str, status: int) -> int:
    with suppress(OSError):
        click.echo(f"xengt-dm: {printable(text, keep=LINE_END)}", err=True)
    return status


def _abandon_output() -> None:
    """Let the interpreter's last flush of standard output go nowhere, instead of failing once more."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
