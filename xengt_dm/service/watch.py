"""The host watcher: an instance for each domain that has a file of its own, and none for a domain that is gone.

xenstored fires ``@introduceDomain`` when the toolstack has built a domain, and ``@releaseDomain`` when one is dying or
gone. Neither says which, so each time we look at all of them; what was missed while we did not run is found by the
first look. A domain's name chooses its file, as for `xengt-dm run`.

An instance notices its domain's end by itself; the watcher is there for one that cannot, because it hangs.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import ENOENT
from pathlib import Path
from typing import Final, Protocol

import trio

from xengt_dm.config.merge import domain_file
from xengt_dm.errors import HostError, XengtError
from xengt_dm.log.log import get_logger
from xengt_dm.service.instances import Starter

EVENTS: Final = ("@introduceDomain", "@releaseDomain")
DOMAINS: Final = "/local/domain"


class Store(Protocol):
    """What we need of :class:`xengt_dm.xenstore.XenStore`."""

    @property
    def fd(self) -> int: ...
    def read(self, path: str) -> str: ...
    def directory(self, path: str) -> list[str]: ...
    def watch(self, path: str) -> None: ...
    def fired(self) -> list[str]: ...


class Watcher:
    """Looks at all domains, and starts and stops what has changed since its last look."""

    def __init__(
        self,
        store: Store,
        starter: Starter,
        config: Path,
        serving: Callable[[], set[int]],
        forget: Callable[[int], None],
    ) -> None:
        """``config``: the directory of the configuration. ``serving``: the domains that have an instance now.
        ``forget``: clears what is remembered of a domain that is gone.
        """
        self._store = store
        self._starter = starter
        self._config = config
        self._serving = serving
        self._forget = forget
        self._seen: set[int] = set()

    def look(self) -> None:
        """Follow what has changed. An instance that does not start or stop is logged, and is no reason to end."""
        names = self._names()
        for domid in sorted(self._serving() - names.keys()):
            get_logger().info("watch.stopping", about=domid)
            self._try(self._starter.stop, domid)
        for domid in sorted(self._seen - names.keys()):
            self._forget(domid)
        for domid in sorted(names.keys() - self._seen):
            path = domain_file(self._config, names[domid])
            if path is not None and path.exists():
                get_logger().info("watch.starting", about=domid, name=names[domid], file=str(path))
                self._try(self._starter.start, domid)
        self._seen = set(names)

    def _try(self, step: Callable[[int], None], domid: int) -> None:
        try:
            step(domid)
        except XengtError as error:
            get_logger().error("watch.failed", about=domid, reason=str(error))

    def _names(self) -> dict[int, str]:
        """Every guest by its id. One whose name is not there yet is left for the next look."""
        found = {}
        for entry in self._store.directory(DOMAINS):
            if entry.isdecimal() and entry != "0":
                try:
                    found[int(entry)] = self._store.read(f"{DOMAINS}/{entry}/name")
                except HostError as error:
                    if error.errno != ENOENT:
                        raise
        return found


async def watch(
    store: Store, watcher: Watcher, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Follow the host's domains until cancelled; started after the first look. Raises HostError if the store fails."""
    for event in EVENTS:
        store.watch(event)
    await trio.to_thread.run_sync(watcher.look)
    task_status.started()
    while True:
        # Looking reads the store, too, and an event may have come with an answer: so ask before waiting.
        if store.fired():
            await trio.to_thread.run_sync(watcher.look)
        else:
            await trio.lowlevel.wait_readable(store.fd)
