"""The console of a sim: what it refuses, and two vCPUs that run at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.sim import Console, ConsoleError, SimProcess
from xengt_dm.sim.console import ACTIONS


@pytest.fixture
def console(scripted_sim: SimProcess) -> Iterator[Console]:
    with scripted_sim.console() as console:
        yield console


@pytest.mark.parametrize(
    "message",
    [
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 2000,
        b'{"do": 7}',
        b'{"do": "_answer"}',
        b'{"do": "close"}',
        b'{"do": "read", "gpa": 0}',
        b'{"do": "read", "gpa": -1, "size": 8}',
        b'{"do": "read", "gpa": 0, "size": -8}',
        b'{"do": "write", "gpa": 0, "data": "xy"}',
        b'{"do": "set_type", "gfn": 0, "count": 1, "p2m_type": 99}',
        b'{"do": "run", "vcpu": 2, "op": "load", "args": [0, 8]}',
        b'{"do": "run", "vcpu": 0, "op": "_one", "args": [1, 0, 8]}',
        b'{"do": "run", "vcpu": 0, "op": "load", "args": [0]}',
        b'{"do": "run", "vcpu": 0, "op": "load", "args": [0, 3]}',
        b'{"do": "run", "vcpu": 0, "op": "copy", "args": []}',
        b'{"do": "run", "vcpu": 0, "op": "load", "args": [1e999, 8]}',
    ],
)
def test_what_is_refused(console: Console, message: bytes) -> None:
    console.socket.send(message)
    assert json.loads(console.socket.recv(65536))["error"] == "bad"
    assert console.ask("progress") == {"fault": None}


def test_every_action_has_a_name_of_its_own() -> None:
    assert {"run", "state", "read", "write", "destroy"} <= set(ACTIONS)
    assert not {"handle", "close"} & set(ACTIONS)


@pytest.mark.parametrize(
    ("op", "args", "result"),
    [
        ("load", [0x5000, 8], 0x1111),
        ("xchg", [0x5000, 8, 5], 0x1111),
        ("cmpxchg", [0x5000, 8, 0x1111, 5], [0x1111, True]),
        ("modify", [3, 0x5000, 8, 1], 0x1111),
        ("store_bytes", [0x5000, "22" * 16], None),
        ("hypercall_output", [0x5000, "33" * 16], 0),
        ("inp", [0x60, 1], 0xFF),
    ],
)
def test_instructions(console: Console, op: str, args: list[Any], result: Any) -> None:
    console.run(0, "store", 0x5000, 8, 0x1111)
    assert console.run(1, op, *args) == result


def test_memory(console: Console) -> None:
    console.ask("write", gpa=0x6000, data="0102")
    assert console.ask("read", gpa=0x6000, size=3) == "010200"
    assert console.run(0, "load", 0x6000, 2) == 0x0201


def test_the_vcpus_of_a_guest_with_a_program_take_no_orders(tmp_path: Path) -> None:
    with (
        SimProcess(tmp_path) as sim,
        sim.console() as console,
        pytest.raises(ConsoleError, match="program of their own"),
    ):
        console.run(0, "load", 0, 8)


def test_a_domain_that_is_destroyed(tmp_path: Path) -> None:
    with SimProcess(tmp_path, "--guest", "scripted") as sim, sim.console() as console:
        console.ask("destroy")
        with pytest.raises(ConsoleError) as caught:
            console.run(0, "load", 0, 8)
        assert caught.value.kind == "stopped"
        assert console.state()["destroyed"]
