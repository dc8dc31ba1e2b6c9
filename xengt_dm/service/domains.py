"""Reads the ids, names and uuids of this host's domains from xenstore."""

from __future__ import annotations

import re
from errno import EBADF, ECONNRESET, ENOENT, EPIPE, EPROTO, ETIMEDOUT
from typing import Final, Protocol

from xengt_dm.errors import HostError
from xengt_dm.units import parse_domid

DOMAINS: Final = "/local/domain"
#: Errors of the connection to the store, not of one request.
CONNECTION_ERRORS: Final = frozenset({EBADF, ECONNRESET, EPIPE, EPROTO, ETIMEDOUT})
_UUID: Final = re.compile(r"/vm/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.ASCII)


class Reader(Protocol):
    """What is needed of :class:`xengt_dm.xenstore.XenStore`."""

    def read(self, path: str) -> str:
        """Returns the value of a node. Raises HostError."""

    def directory(self, path: str) -> list[str]:
        """Returns the names of a node's children. Raises HostError."""


def domids(store: Reader) -> list[int]:
    """Returns the ids of all guests, in order. Raises HostError."""
    found = (parse_domid(entry) for entry in store.directory(DOMAINS))
    return sorted({domid for domid in found if domid})


def name_of(store: Reader, domid: int) -> str | None:
    """Returns a domain's name; None if it has none yet, or is gone. Raises HostError."""
    return _read(store, f"{DOMAINS}/{domid}/name")


def uuid_of(store: Reader, domid: int) -> str | None:
    """Returns a domain's uuid, which xl keeps when the guest reboots; None if xenstore has none. Raises HostError."""
    match = _UUID.fullmatch((_read(store, f"{DOMAINS}/{domid}/vm") or "").lower())
    return match[1] if match else None


def type_of(store: Reader, domid: int) -> str | None:
    """Returns the type that libxl gave a domain, such as ``pvh``; None if xenstore has none. Raises HostError."""
    return _read(store, f"/libxl/{domid}/type")


def _read(store: Reader, path: str) -> str | None:
    try:
        return store.read(path)
    except HostError as error:
        if error.errno != ENOENT:
            raise
        return None
