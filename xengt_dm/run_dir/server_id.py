"""The file in the run directory that records the id of the instance's ioreq server.

A successor reads the id and adopts the server, so the file exists from before the first claim until the server is
destroyed. It holds one line: the id as a decimal number and, where it is known, the uuid of the domain after a space.

Xen gives the same id to another domain after 32,751 more domains, or at once to a domain that asks for it. A record
that was left behind would then name a server of the new domain, which may be QEMU's. So a record with the uuid of
another domain is ignored. One without a uuid is believed if the server is that of no other device model, as far as
:func:`xengt_dm.ioreq.foreign.is_foreign` can tell.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from xengt_dm.errors import HostError
from xengt_dm.run_dir.replace import make, put, take_away

_RECORD: Final = re.compile(r"([0-9]{1,5})(?: ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}))?\n?", re.ASCII)
_SERVER_MAX: Final = 0xFFFF
#: A record is far shorter.
_READ_LIMIT: Final = 4096


class ServerIdFile:
    """The file ``server-id`` in a run directory. ``uuid`` is that of the domain, None where it is not known.

    :meth:`write` replaces the file in one step, so a reader finds the whole record or no file, and whatever else is in
    its place.
    """

    def __init__(self, directory: Path, uuid: str | None = None, *, checked: bool = False) -> None:
        """``checked``: the caller knows that the record is of the domain."""
        self._path = directory / "server-id"
        self._uuid = uuid
        self._checked = checked

    @property
    def certain(self) -> bool:
        """See :class:`xengt_dm.ioreq.server.IdRecord`: the record has the domain's uuid."""
        return self._checked or (self._uuid is not None and self._record()[1] == self._uuid)

    def read(self) -> int | None:
        """Returns the recorded id.

        None if there is no readable file, if it holds no record, or if the record is of a domain with another uuid.
        """
        server, uuid = self._record()
        return server if uuid is None or self._uuid in (None, uuid) else None

    def is_of_another_domain(self) -> bool:
        """Returns whether there is a record that :meth:`read` ignores because of its uuid."""
        return self.read() is None and self._record()[0] is not None

    def _record(self) -> tuple[int | None, str | None]:
        try:
            # The domain's daemon owns the directory and may have been taken over, so this may be any kind of file.
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                match = _RECORD.fullmatch(file.read(_READ_LIMIT).decode("ascii"))
        except (OSError, UnicodeDecodeError):
            return None, None
        if match is None or int(match[1]) > _SERVER_MAX:
            return None, None
        return int(match[1]), match[2]

    def write(self, server: int) -> None:
        """Records ``server`` and waits until the file is on disk (fsync). Raises HostError if that fails."""
        new = self._path.with_suffix(".new")
        try:
            with open(make(new, 0o644), "w", encoding="ascii") as file:
                file.write(f"{server}\n" if self._uuid is None else f"{server} {self._uuid}\n")
                file.flush()
                os.fsync(file.fileno())
            put(new, self._path)
        except OSError as error:
            with suppress(OSError):
                take_away(new)
            raise HostError(f"write {self._path}", None, error.errno or 0) from error

    def clear(self) -> None:
        """Removes the file, or whatever is there. Does nothing if there is none."""
        take_away(self._path)
