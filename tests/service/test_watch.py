"""The host watcher: which instances it starts and stops as domains come and go."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from errno import ENOENT
from pathlib import Path

import pytest
import trio
import trio.testing

from xengt_dm.errors import HostError
from xengt_dm.service.instances import InstanceError
from xengt_dm.service.watch import EVENTS, Watcher, watch


class Host:
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
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self.watcher = Watcher(self, self, folder, lambda: self.serving, self.forgotten.append)

    def configure(self, name: str) -> None:
        (self.config / "domains" / f"{name}.toml").touch()

    # the store

    @property
    def fd(self) -> int:
        return self._ours.fileno()

    def read(self, path: str) -> str:
        name = self.names.get(int(path.split("/")[3]))
        if name is None:
            raise HostError("xenstore read", None, ENOENT)
        return name

    def directory(self, path: str) -> list[str]:
        assert path == "/local/domain"
        return [*map(str, self.names), "odd"]

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


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.close()


def test_domains_with_a_file_are_served(host: Host) -> None:
    host.configure("win")
    host.names |= {3: "win", 4: "other"}
    assert host.look() == ["start 3"]
    assert host.look() == []
    host.names |= {5: "win"}
    assert host.look() == ["start 5"]


def test_an_instance_that_an_operator_stopped_stays_stopped(host: Host) -> None:
    host.configure("win")
    host.names |= {3: "win"}
    host.look()
    host.serving.clear()
    assert host.look() == []


def test_instances_of_domains_that_are_gone_are_stopped(host: Host) -> None:
    host.names |= {3: "win", 4: "other"}
    host.serving = {3, 4}
    assert host.look() == []
    del host.names[4]
    assert host.look() == ["stop 4"]
    assert host.forgotten == [4]
    host.serving = {9}  # of a domain that went while nobody watched
    assert host.look() == ["stop 9"]


def test_a_domain_without_a_name_yet_is_looked_at_again(host: Host) -> None:
    host.configure("win")
    host.names[3] = None
    assert host.look() == []
    host.names[3] = "win"
    assert host.look() == ["start 3"]


def test_names_that_no_file_can_have(host: Host) -> None:
    host.names |= {3: "../win", 4: "", 5: ".hidden"}
    assert host.look() == []


def test_one_failure_does_not_keep_others_from_being_served(host: Host) -> None:
    for domid in (3, 4, 5):
        host.configure(f"d{domid}")
        host.names[domid] = f"d{domid}"
    host.broken = {3}
    assert host.look() == ["start 3", "start 4", "start 5"]
    assert host.serving == {4, 5}


def test_following(host: Host) -> None:
    host.configure("win")
    host.names[3] = "win"

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(watch, host, host.watcher)
            assert host.watched == [*EVENTS]
            assert host.said == ["start 3"]
            del host.names[3]
            host.fire()
            with trio.fail_after(10):
                while len(host.said) < 2:
                    await trio.testing.wait_all_tasks_blocked(0.01)
            assert host.said == ["start 3", "stop 3"]
            nursery.cancel_scope.cancel()

    trio.run(main)
