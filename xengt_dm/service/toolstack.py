"""Runs xl to create, find, unpause and destroy domains, and starts a domain's instance between these steps."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from xengt_dm.errors import ExitCode, HostError, XengtError
from xengt_dm.printable import printable
from xengt_dm.service import domains, instances, launched, xl_config
from xengt_dm.service.interruptions import interruptions_held
from xengt_dm.xenstore import XenStore

STDERR: Final = 2


class ToolstackError(XengtError):
    """xl failed. Its own messages are on standard error already."""

    exit_code = ExitCode.UNAVAILABLE


class KilledError(ToolstackError):
    """xl did not come to its end, so it may have left things half done."""


class Xl:
    """Runs xl. ``program``: the command and its options. Its output goes to standard error, apart from ours."""

    def __init__(self, program: Sequence[str] = ("xl",)) -> None:
        self._program = program

    def create_paused(self, config: Path, environment: dict[str, str] | None = None) -> None:
        """Creates a paused domain. Raises ToolstackError.

        ``environment`` is added to that of xl and of the processes that it starts, which live as long as the domain.
        """
        # In a session of its own: an interruption from the keyboard would end it in the middle and leave half a domain.
        self._run("create", "-p", str(config), environment=environment, new_session=True)

    def domid(self, name: str) -> int:
        """Returns the id of the domain with this name. Raises ToolstackError."""
        text = self._run("domid", *_as_argument(name), capture=True).strip()
        if not text.isdecimal():
            raise ToolstackError(f"xl domid {printable(name)}: {printable(text[:80])!r} is no domain id")
        return int(text)

    def unpause(self, domid: int) -> None:
        """Lets a paused domain run. Raises ToolstackError."""
        self._run("unpause", str(domid))

    def destroy(self, domid: int) -> None:
        """Destroys a domain. Raises ToolstackError."""
        self._run("destroy", str(domid))

    def destroy_named(self, name: str) -> None:
        """Destroys the domain with this name. xl takes a name of digits for an id, so that is looked up first."""
        if name.isascii() and name.isdigit():
            self.destroy(self.domid(name))
        else:
            self._run("destroy", *_as_argument(name))

    def _run(
        self,
        *words: str,
        capture: bool = False,
        environment: dict[str, str] | None = None,
        new_session: bool = False,
    ) -> str:
        command = [*self._program, *words]
        try:
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE if capture else STDERR,
                text=True,
                errors="replace",
                check=False,
                env={**os.environ, **environment} if environment else None,
                start_new_session=new_session,
            )
        except OSError as error:
            raise ToolstackError(
                f"{command[0]} cannot be run: {error.strerror}; is this dom0, and are Xen's utilities installed? "
                "`xengt-dm check` says what this host lacks"
            ) from error
        if done.returncode < 0:
            raise KilledError(f"xl {printable(' '.join(words))} was ended by signal {-done.returncode}")
        if done.returncode != 0:
            raise ToolstackError(f"xl {printable(' '.join(words))} ended with status {done.returncode}")
        return done.stdout or ""


def _as_argument(name: str) -> list[str]:
    return ["--", name] if name.startswith("-") else [name]


def create(
    config: Path, xl: Xl, starter: instances.Starter, *, paused: bool, complain: Callable[[str], None]
) -> tuple[int, xl_config.Domain]:
    """Creates a domain with its instance serving before the domain's first instruction.

    Returns the domain's id, and what its file says. If a step fails or is interrupted, the steps before it are undone;
    ``complain`` is called with a message for each thing that cannot be undone. Raises XengtError.
    """
    domain = xl_config.read(config)
    options = instances.words_of(domain.options)
    # For a wrapper in QEMU's place, which starts the instance within `xl create`, and again when the guest reboots.
    environment = {launched.VARIABLE: " ".join(options)} if options else None
    domid: int | None = None

    def undo(step: Callable[[int], None], domid: int) -> None:
        with interruptions_held():
            try:
                step(domid)
            except (XengtError, OSError) as error:
                complain(f"while undoing what was done: {error}")

    def destroy() -> None:
        with interruptions_held():
            try:
                if domid is None:
                    xl.destroy_named(domain.name)
                else:
                    xl.destroy(domid)
                complain(f"the domain {printable(domain.name)} was created and is destroyed again")
            except XengtError as error:
                complain(f"while undoing what was done: {error}")
                complain(f"the domain {printable(domain.name)} may be left, and paused; look for it with: xl list")

    with ExitStack() as steps:
        with interruptions_held():
            try:
                xl.create_paused(config, environment)
            except (KilledError, KeyboardInterrupt, SystemExit):
                # A domain with that name may also be another one, because of which xl would have refused.
                name = printable(domain.name)
                complain(f"a domain {name} may be left, half made and paused; look for it with: xl list")
                raise
            steps.callback(destroy)
        domid = xl.domid(domain.name)
        if domain.wanted:
            steps.callback(undo, instances.forget, domid)
            instances.remember(domid, domain.options, uuid=_uuid_of(domid))
            steps.callback(undo, starter.stop, domid)
            starter.start(domid)
        if not paused:
            xl.unpause(domid)
        steps.pop_all()
    return domid, domain


def _uuid_of(domid: int) -> str | None:
    """Returns a domain's uuid; None if xenstore has none or cannot be read."""
    try:
        with XenStore() as store:
            return domains.uuid_of(store, domid)
    except HostError:
        return None
