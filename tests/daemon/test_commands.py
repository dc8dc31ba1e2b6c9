"""What an operator may have a daemon do, on the embedded hypervisor."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.control import handlers_of
from tests.support.faults import Call, Hold, Point, fail_nth
from tests.support.machine import DATA, L1, L2, L3, L4, TABLES, Machine, play
from tests.support.snapshots import snapshot
from tests.support.tables import FRAME, pte
from xengt_dm import instance
from xengt_dm.control.commands import COMMANDS
from xengt_dm.control.protocol import ErrorCode, RefusedError, reply_pieces
from xengt_dm.daemon.recording import Recording
from xengt_dm.errors import UsageError
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.instance import open_instance
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.settings import Settings
from xengt_dm.traps.claim import ClaimTraps
from xengt_dm.vgpu import registers as reg


class Console:
    """The commands as the control socket has them."""

    def __init__(self, machine: Machine) -> None:
        instance = machine.instance
        self.recording = Recording(instance.engine, instance.device, instance.bus, machine.domain.ram_frames)
        self.handlers = handlers_of(instance, self.recording)

    async def __call__(self, command: str, **arguments: object) -> Any:
        result = self.handlers[command](arguments)
        pieces = reply_pieces(await result if isinstance(result, Awaitable) else result)
        return json.loads(b"".join(pieces))["result"]


MAPPED = [[0, FRAME, DATA * FRAME, 1, 0]]


def mappings(machine: Machine) -> list[list[int]]:
    (space,) = machine.dump()
    return [list(run) for run in space["mappings"]]


def test_a_quiesced_domain_can_be_migrated_and_resumed() -> None:
    async def body(machine: Machine) -> None:
        console = Console(machine)
        await machine.make_space()
        assert machine.domain.protected() == TABLES
        assert not machine.domain.log_dirty(True)

        assert await console("quiesce") == {"state": "quiesced", "spaces": 1}
        assert await console("quiesce") == {"state": "quiesced", "spaces": 1}
        assert (await console("status"))["state"] == "quiesced"
        assert (machine.domain.protected(), machine.domain.owner) == ([], None)
        assert machine.domain.log_dirty(True)
        traps = machine.instance.engine.counters.store_traps
        await machine.store(L1, 1, pte(9))
        assert machine.instance.engine.counters.store_traps == traps

        assert machine.domain.log_dirty(False) is True
        assert await console("resume") == {"state": "serving", "spaces": 1}
        assert await console("resume") == {"state": "serving", "spaces": 1}
        assert (await console("status"))["state"] == "serving"
        assert machine.domain.protected() == TABLES
        assert mappings(machine) == [*MAPPED, [FRAME, FRAME, 9 * FRAME, 1, 0]]
        await machine.store(L1, 2, pte(11))
        assert len(mappings(machine)) == 3
        assert machine.audit() == 0

    play(body)


def test_quiescing_waits_for_a_store_and_nobody_waits_for_that() -> None:
    """A frame may not become RAM while a store to it is under way; others are served meanwhile."""

    async def body(machine: Machine) -> None:
        console = Console(machine)
        await machine.make_space()
        quiesced = trio.Event()

        async def quiesce() -> None:
            await console("quiesce")
            quiesced.set()

        with Hold(machine.domain, 0, Point.ANSWERED) as hold:
            machine.domain.start(0, lambda vcpu: vcpu.store(L1 * FRAME + 8, 8, pte(9)))
            await trio.to_thread.run_sync(hold.wait)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(quiesce)
                while machine.domain.protected() != [L1]:
                    await trio.lowlevel.checkpoint()
                for _ in range(2):
                    assert (await console("status"))["state"] == "quiesced"
                    assert machine.domain.protected() == [L1]
                    with pytest.raises(RefusedError, match="is quiesced"):
                        await console("dump")
                    assert not quiesced.is_set()
                hold.release()
                await quiesced.wait()
        assert (machine.domain.protected(), machine.domain.owner) == ([], None)

    play(body, xen="4.20")


def test_notifications_count_while_quiesced() -> None:
    async def body(machine: Machine) -> None:
        console = Console(machine)
        await machine.make_space()
        await console("quiesce")
        await machine.announce(L4, reg.Notification.PPGTT_L4_DESTROY)
        await machine.announce(L3)
        assert [space["root"] for space in await console("spaces")] == [L3 * FRAME]
        assert machine.domain.protected() == []
        await console("resume")
        assert machine.domain.protected() == [L3, L2, L1, DATA]  # each one level higher than before

    play(body)


def test_a_store_that_does_not_end_keeps_a_quiesce_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim is not released in the middle of it. A second quiesce goes on."""

    async def body(machine: Machine) -> None:
        console = Console(machine)
        await machine.make_space()
        monkeypatch.setattr(instance, "ROUNDS_SECONDS", 0)
        monkeypatch.setattr(ClaimTraps, "unprotect_deferred", lambda traps: False)
        for _ in range(2):
            with pytest.raises(RefusedError, match="some pages stay protected"):
                await console("quiesce")
            assert machine.domain.owner is not None
        monkeypatch.undo()
        await console("quiesce")
        assert machine.domain.owner is None
        await console("resume")
        assert machine.domain.protected() == TABLES

    play(body)


def test_it_may_end_while_quiesced() -> None:
    async def body(machine: Machine) -> None:
        await machine.make_space()
        await Console(machine)("quiesce")

    play(body)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_daemon_that_leaves_releases_nothing_unless_it_is_stopped_after_all(stopped: bool) -> None:
    async def body(machine: Machine) -> None:
        console = Console(machine)
        await machine.make_space()
        await console("upgrade")
        assert machine.instance.handed_over
        if stopped:
            await console("stop")
            assert not machine.instance.handed_over

    with EmbeddedDomain(64, 2) as domain:
        port = domain.port()
        with open_instance(port, Settings()) as instance:
            Machine(domain, instance).play(body)
        left = ([], None) if stopped else (TABLES, instance.server.id)
        assert (domain.protected(), domain.owner, port.server_exists(0)) == (*left, not stopped)
        port.close()


@pytest.mark.parametrize("command", [command.name for command in COMMANDS if command.needs_shadows])
def test_what_reads_shadows_is_refused_while_quiesced(command: str) -> None:
    async def body(machine: Machine) -> None:
        console = Console(machine)
        await console("quiesce")
        with pytest.raises(RefusedError, match=f"xengt-dm resume --domid {machine.domain.domid}$"):
            await (console(command, va=0) if command == "walk" else console(command))

    play(body)


def test_resuming_while_the_domain_is_migrated_is_refused_and_can_be_tried_again() -> None:
    async def body(machine: Machine) -> None:
        console = Console(machine)
        await machine.make_space()
        await console("quiesce")
        assert machine.domain.log_dirty(True)
        with pytest.raises(RefusedError, match=r"still quiesced, because Xen .* saved or migrated"):
            await console("resume")
        assert (await console("status"))["state"] == "quiesced"
        assert (machine.domain.protected(), machine.domain.owner) == ([], None)
        assert machine.domain.log_dirty(False)
        assert (await console("resume"))["state"] == "serving"
        assert mappings(machine) == MAPPED

    play(body)


def test_resuming_when_another_has_the_claim_is_refused() -> None:
    async def body(machine: Machine) -> None:
        console = Console(machine)
        await console("quiesce")
        fail_nth(machine.domain, 1, errno.EBUSY, Call.MAP_MEM_TYPE)
        with pytest.raises(RefusedError, match=r"still quiesced, because Xen refused: .*EBUSY"):
            await console("resume")
        assert (await console("resume"))["state"] == "serving"

    play(body)


def test_the_mode_is_told_and_switched() -> None:
    async def body(machine: Machine) -> None:
        console = Console(machine)
        await machine.make_space()
        assert await console("mode") == {"mode": "relaxed"}
        await machine.store(L1, 1, pte(9))
        await machine.store(L1, 2, pte(11))
        assert L1 not in machine.domain.protected()
        tables = (await console("protected"))["tables"]
        assert {"gfn": L1, "level": 1, "refs": 1, "unsynced": True, "open": True} in tables
        assert await console("mode", mode="strict") == {"mode": "strict"}
        assert machine.domain.protected() == TABLES
        assert [table["open"] for table in (await console("protected"))["tables"]] == [False] * 4
        assert len(mappings(machine)) == 3
        assert (await console("status"))["mode"] == "strict"

    play(body, Settings(sync=Sync.RELAXED))


LOOKS = {"walk": {"va": 0}, "dump": {}, "audit": {}, "spaces": {}, "protected": {}, "status": {}}


@pytest.mark.parametrize("command", LOOKS)
def test_looking_changes_nothing(command: str) -> None:
    async def body(machine: Machine) -> None:
        console = Console(machine)
        await machine.make_space()
        await machine.announce(30)
        for slot in (1, 2):
            await machine.store(L1, slot, pte(8 + slot))
        protected = machine.domain.protected()
        assert L1 not in protected
        before = snapshot(machine.instance.engine)
        await console(command, **LOOKS[command])
        after = snapshot(machine.instance.engine)
        assert [part for part in before if before[part] != after[part]] == []
        assert machine.domain.protected() == protected

    play(body, Settings(sync=Sync.RELAXED))


@pytest.mark.parametrize("command", ["walk", "dump", "audit"])
def test_looking_after_a_sync_sees_all_stores(command: str) -> None:
    async def body(machine: Machine) -> None:
        console = Console(machine)
        await machine.make_space()
        for slot in (1, 2):
            await machine.store(L1, slot, pte(8 + slot))
        va = 2 * FRAME
        arguments = {"va": va} if command == "walk" else {}
        found = await console(command, **arguments)
        synced = await console(command, **arguments, sync=True)
        if command == "walk":
            assert found["spaces"][0]["page"] is None
            assert synced["spaces"][0]["page"]["gpa"] == 10 * FRAME
        else:
            assert (found["audit_unsynced"], synced["audit_unsynced"]) == (1, 0)
            assert found["audit_mismatches"] == synced["audit_mismatches"] == 0
        if command == "dump":
            pages = [sum(run[1] for run in dump["spaces"][0]["mappings"]) // FRAME for dump in (found, synced)]
            assert pages == [0, 3]
        assert L1 not in machine.domain.protected()

    play(body, Settings(sync=Sync.RELAXED))


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("audit", {"sync": 1}),
        ("walk", {"va": 0, "sync": None}),
        ("spaces", {"sync": True}),
        ("mode", {"mode": "lax"}),
        ("mode", {"mode": ["strict"]}),
        ("mode", {"x": 1}),
        ("quiesce", {"x": 1}),
        ("resume", {"x": 1}),
    ],
)
def test_wrong_arguments(command: str, arguments: Mapping[str, object]) -> None:
    async def body(machine: Machine) -> None:
        with pytest.raises(UsageError):
            await Console(machine)(command, **arguments)

    play(body)


def test_the_document_has_every_command_and_every_code() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "control.md").read_text()

    async def body(machine: Machine) -> None:
        assert set(re.findall(r"(?m)^\| `(\w+)` \|", text)) == {*Console(machine).handlers}

    play(body)
    assert all(f"`{code}`" in text for code in ErrorCode)
