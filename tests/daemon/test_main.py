"""The whole daemon: what ends it, and that it leaves the guest as if it had never been there."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support import daemon_process
from tests.support.daemon_process import DOMID
from tests.support.device_model import PATIENCE, DeviceModel
from tests.support.faults import wait_until_blocked
from tests.support.tables import FRAME
from xengt_dm.control.client import ask
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.instance import open_instance
from xengt_dm.run_dir.directory import open_directory
from xengt_dm.run_dir.server_id import ServerIdFile
from xengt_dm.settings import DEFAULT_BAR0, Settings
from xengt_dm.vgpu.registers import BAR0_SIZE

MODES = ("strict", "relaxed")


def life(base: Path, mode: str, end: Callable[[subprocess.Popen[str]], object], stores: int = 0) -> dict[str, Any]:
    """Start a daemon, end it while its guest stores; what it left behind."""
    with daemon_process.start(base, mode, str(stores)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            first = process.stdout.readline()
            if first == "storing\n":
                end(process)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        assert first == "storing\n", err
        assert process.returncode == 0, err
        events = [json.loads(line) for line in err.splitlines()]
        serving, stopping = [event for event in events if not event["event"].startswith("guest.")]
        assert (serving["event"], stopping["event"]) == ("daemon.serving", "daemon.stopping")
        return {"reason": stopping["reason"], **json.loads(out)}


ENDS: dict[str, Callable[[Path], Callable[[subprocess.Popen[str]], object]]] = {
    "SIGTERM": lambda base: lambda process: process.send_signal(signal.SIGTERM),
    "SIGINT": lambda base: lambda process: process.send_signal(signal.SIGINT),
    "asked to": lambda base: lambda process: ask(base, DOMID, "stop"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", ENDS)
def test_an_end_in_the_middle_of_the_guests_stores(tmp_path: Path, how: str, mode: str) -> None:
    left = life(tmp_path, mode, ENDS[how](tmp_path))
    assert left["reason"] == how
    registers = 2  # the announcement; in relaxed mode no store traps
    assert left["trapped"] == registers if mode == "relaxed" else left["trapped"] > daemon_process.SOME
    assert (left["wrong"], left["dropped"]) == (0, 0)
    assert (left["protected"], left["owner"], left["server"]) == ([], None, False)
    assert "server-id" not in left["files"]
    assert "control.sock" not in left["files"]


def test_status_while_it_serves(tmp_path: Path) -> None:
    seen: list[Any] = []

    def look_and_stop(process: subprocess.Popen[str]) -> None:
        seen.append(ask(tmp_path, DOMID, "status"))
        seen.append(ask(tmp_path, DOMID, "audit"))
        process.terminate()

    life(tmp_path, "strict", look_and_stop)
    status, audit = seen
    assert status["domid"] == DOMID
    assert status["mode"] == "strict"
    assert status["vcpus"] == 2
    assert status["counters"]["store_traps"] >= daemon_process.SOME - 1
    assert audit["audit_mismatches"] == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_domain_that_goes(tmp_path: Path, mode: str) -> None:
    """No error: there is nothing left to serve."""
    left = life(tmp_path, mode, lambda process: None, stores=daemon_process.SOME + 1)
    assert left["reason"] == "domain gone"
    assert "server-id" not in left["files"]


# A successor


@pytest.mark.parametrize("begun", [False, True])
def test_what_a_predecessor_left_is_done(tmp_path: Path, begun: bool) -> None:
    """A vCPU waits for a daemon that died, before or after it took the request. It must not wait for our end."""
    with EmbeddedDomain(16, 1, domid=DOMID) as domain:
        predecessor = DeviceModel(domain, [(DEFAULT_BAR0, DEFAULT_BAR0 + BAR0_SIZE - 1)])
        predecessor.protect(5)
        domain.start(0, lambda vcpu: vcpu.store(5 * FRAME + 8, 8, 0x1234))
        wait_until_blocked(domain, 0)
        if begun:
            assert len(predecessor.scan()) == 1
        predecessor.close()
        record = ServerIdFile(open_directory(tmp_path, DOMID))
        record.write(predecessor.server)
        with open_instance(domain.port(), Settings(), record=record) as instance:
            assert instance.server.id == predecessor.server

            async def serve() -> None:
                async with trio.open_nursery() as nursery:
                    await nursery.start(instance.loop.serve)
                    assert await trio.to_thread.run_sync(domain.join, PATIENCE)
                    nursery.cancel_scope.cancel()

            trio.run(serve)
            assert domain.read_u64(5 * FRAME + 8) == 0x1234
            assert domain.protected() == []
        assert record.read() is None
