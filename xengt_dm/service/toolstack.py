"""xl, as far as we use it: a domain created, found, let run and destroyed; and an instance put into that order."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from xengt_dm.errors import ExitCode, XengtError
from xengt_dm.service import instances, xlconfig

STDERR: Final = 2


class ToolstackError(XengtError):
    """xl refused; its own words went to standard error before."""

    exit_code = ExitCode.UNAVAILABLE


class Xl:
    """``program``: the command and its options; all that it says goes to standard error, which our output is not."""

    def __init__(self, program: Sequence[str] = ("xl",)) -> None:
        self._program = program

    def create_paused(self, config: Path) -> None:
        self._run("create", "-p", str(config))

    def domid(self, name: str) -> int:
        text = self._run("domid", name, capture=True).strip()
        if not text.isdecimal():
            raise ToolstackError(f"xl domid {name}: {text!r} is no domain id")
        return int(text)

    def unpause(self, domid: int) -> None:
        self._run("unpause", str(domid))

    def destroy(self, domid: int) -> None:
        self._run("destroy", str(domid))

    def _run(self, *words: str, capture: bool = False) -> str:
        command = [*self._program, *words]
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE if capture else STDERR, text=True, check=False)
        except OSError as error:
            raise ToolstackError(
                f"{command[0]} cannot be run: {error.strerror}; is this dom0, and are Xen's utilities installed?"
            ) from error
        if done.returncode != 0:
            raise ToolstackError(f"xl {' '.join(words)} ended with status {done.returncode}")
        return done.stdout or ""


def create(
    config: Path, xl: Xl, starter: instances.Starter, *, paused: bool, complain: Callable[[str], None]
) -> tuple[int, xlconfig.Domain]:
    """Create a domain with its instance serving before the domain's first instruction; its id, and what its file says.

    If a step fails, those before it are undone; ``complain`` is told what of that fails. Raises XengtError.
    """
    domain = xlconfig.read(config)

    def undo(step: Callable[[int], None], domid: int) -> None:
        try:
            step(domid)
        except XengtError as error:
            complain(f"while undoing what was done: {error}")

    with ExitStack() as steps:
        xl.create_paused(config)
        domid = xl.domid(domain.name)
        steps.callback(undo, xl.destroy, domid)
        if domain.wanted:
            steps.callback(undo, instances.forget, domid)
            instances.remember(domid, domain.options)
            steps.callback(undo, starter.stop, domid)
            starter.start(domid)
        if not paused:
            xl.unpause(domid)
        steps.pop_all()
    return domid, domain
