"""Taking over the server of a device model that died, with the requests in its slots.

What the predecessor had protected is known to nobody, and only a release of the claim resets the types of frames that
one cannot name. A release must not fall between the answer to a request and the end of its instruction (see
:mod:`xengt_dm.traps.protection`). So first every answer that the predecessor gave is taken; then the claim is released
and made again; then the frames of requests that wait for their answer are protected again, before they get it.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Protocol

from xengt_dm.errors import HostError
from xengt_dm.hypervisor.port import DomainPort, MemType
from xengt_dm.traps.retry import set_types

#: For a vCPU to take an answer; one that is paused takes none, and then we go on without it.
ANSWER_SECONDS = 1.0
_LOOK_SECONDS = 0.001


class Server(Protocol):
    """What is asked of an :class:`~xengt_dm.ioreq.server.IoreqServer`."""

    @property
    def port(self) -> DomainPort: ...

    @property
    def id(self) -> int: ...

    def notify_answered(self) -> int: ...

    def latest_frames(self) -> tuple[set[int], set[int]]: ...


def reset_frames(server: Server) -> list[int]:
    """Have every frame be plain memory that no request under way stores to, and claim the type; says which are not.

    The server is enabled and its ports are bound. Raises HostError.
    """
    port = server.port
    deadline = time.monotonic() + ANSWER_SECONDS
    while server.notify_answered() and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    port.set_server_state(server.id, True)
    with suppress(HostError):  # the predecessor may have died before it claimed
        port.release_writes(server.id)
    port.claim_writes(server.id)
    waiting = sorted(server.latest_frames()[0])
    errors = set_types(port, MemType.IOREQ_SERVER, waiting)
    return [gfn for gfn, error in zip(waiting, errors, strict=True) if not error]
