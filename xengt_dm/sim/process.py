"""The sim: the embedded hypervisor as a process of its own, whose domain outlives its device models.

:mod:`xengt_dm.hypervisor.sim` has the theory, and the device model's side. This side is a domain with a guest, and two
sockets in the sim's directory: ``<domid>.hypercalls`` for device models (:mod:`.session`), and ``<domid>.console`` for
tests (:mod:`.console`).
"""

from __future__ import annotations

import errno
import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from xengt_dm._embedded import lib
from xengt_dm.errors import HostError
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.hypervisor.embedded.shadow_paging import Paging
from xengt_dm.hypervisor.sim.connection import socket_path
from xengt_dm.hypervisor.sim.messages import pack_failure
from xengt_dm.sim.console import Console
from xengt_dm.sim.listener import MOST_CONNECTIONS, Listener
from xengt_dm.sim.programs import GUESTS, Guest
from xengt_dm.sim.session import Session


@dataclass(frozen=True, kw_only=True)
class SimSettings:
    """What domain a sim has. ``guest`` is a key of GUESTS, ``flavour`` one of the embedded hypervisor's FLAVOURS."""

    domid: int = 1
    guest: str = "idle"
    flavour: str = "4.17"
    paging: Paging = Paging.HAP
    frames: int = 16384
    vcpus: int = 2
    seed: int = 1
    rep_stores: bool = False
    local_apics: bool = True


@dataclass(frozen=True)
class Sim:
    """A sim at work."""

    domain: EmbeddedDomain
    guest: Guest


def console_path(directory: Path, domid: int) -> Path:
    """Where the console of a sim is."""
    return directory / f"{domid}.console"


@contextmanager
def open_sim(directory: Path, settings: SimSettings) -> Iterator[Sim]:
    """A domain whose vCPUs run, and whose hypercalls are answered, until the context is left.

    Makes the directory, for this user alone, if it is not there. Raises UsageError if the guest cannot run on such a
    domain, BusyError if another sim in the directory has the domid, HostError.
    """
    identity = uuid.uuid4()
    with ExitStack() as stack:
        domain = stack.enter_context(
            EmbeddedDomain(
                settings.frames,
                settings.vcpus,
                settings.flavour,
                domid=settings.domid,
                rep_stores=settings.rep_stores,
                local_apics=settings.local_apics,
                paging=settings.paging,
            )
        )
        error = lib.xd_emb_share(domain.handle)
        if error:
            raise HostError("share a domain", settings.domid, -error)
        guest = GUESTS[settings.guest](domain, settings.seed)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise HostError(f"mkdir {directory}", settings.domid, error.errno or 0) from error
        full = f"the sim has {MOST_CONNECTIONS} connections"
        hypercalls = Listener(
            socket_path(directory, settings.domid),
            lambda: Session(domain, identity),
            pack_failure(errno.EUSERS, "connect", full),
        )
        stack.callback(hypercalls.close)
        console = Listener(
            console_path(directory, settings.domid),
            lambda: Console(domain, guest, hypercalls.reap),
            json.dumps({"error": "full", "text": full}).encode(),
        )
        stack.callback(console.close)
        stack.callback(domain.destroy)  # no vCPU, and no call, waits from here on
        guest.start()
        yield Sim(domain, guest)
