"""A xenstore and the instances of a host, as the watcher sees them."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from errno import ENOENT, ENOTDIR
from pathlib import Path

import trio
import trio.testing

from xengt_dm.errors import HostError
from xengt_dm.service.instances import InstanceError
from xengt_dm.service.watch import Watcher


class WatchedHost:
    """A store, and the instances of a host."""

    def __init__(self, folder: Path) -> None:
        self.config = folder
        (folder / "domains").mkdir()
        self.names: dict[int, str | None] = {0: "Domain-0"}
        self.serving: set[int] = set()
        self.forgotten: list[int] = []
        self.said: list[str] = []
        self.broken: set[int] = set()
        self.watched: list[str] = []
        self.uuids: dict[int, str] = {}
        self.reads: list[str] = []
        self.holds: dict[int, threading.Event] = {}
        self.fails: list[HostError] = []
        #: Whether the run directories cannot be listed.
        self.unlistable = False
        self.launch = folder / "launch"
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self.watcher = Watcher(self, self, folder, self._serving, self.forgotten.append, self.launch)

    def _serving(self) -> set[int]:
        if self.unlistable:
            raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR))
        return self.serving

    def configure(self, name: str) -> None:
        (self.config / "domains" / f"{name}.toml").touch()

    # the store

    @property
    def fd(self) -> int:
        return self._ours.fileno()

    def read(self, path: str) -> str:
        self.reads.append(path)
        domid = int(path.split("/")[3])
        if path.endswith("/vm") and domid in self.uuids:
            return f"/vm/{self.uuids[domid]}"
        name = self.names.get(domid)
        if name is None or path.endswith("/vm"):
            raise HostError("xenstore read", None, ENOENT)
        return name

    def directory(self, path: str) -> list[str]:
        assert path == "/local/domain"
        if self.fails:
            raise self.fails.pop()
        return [*map(str, self.names), "odd", "007", "+7", "32752", "9" * 5000, "\N{ARABIC-INDIC DIGIT SEVEN}"]

    def watch(self, path: str) -> None:
        self.watched.append(path)

    def fired(self) -> list[str]:
        try:
            return ["@"] if self._ours.recv(100) else []
        except BlockingIOError:
            return []

    def fire(self) -> None:
        self._theirs.send(b"@")

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()

    # the instances

    def start(self, domid: int) -> None:
        self.said.append(f"start {domid}")
        if domid in self.holds:
            assert self.holds[domid].wait(60)
        if domid in self.broken:
            raise InstanceError("no")
        self.serving.add(domid)

    def stop(self, domid: int) -> None:
        self.said.append(f"stop {domid}")
        self.serving.discard(domid)

    def look(self) -> list[str]:
        self.said.clear()
        self.watcher.look()
        return self.said


async def until(reached: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not reached():
            await trio.testing.wait_all_tasks_blocked(0.01)
