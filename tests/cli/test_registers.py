"""``xengt-dm registers``, and the command of the control socket behind it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result

from tests.support.control import handlers_of
from tests.support.skylake import BAR0, BAR2, Requests, skylake
from xengt_dm.cli import client, main
from xengt_dm.control.json_stream import Pause
from xengt_dm.control.protocol import reply_pieces
from xengt_dm.control.registers import listing
from xengt_dm.daemon.recording import Recording
from xengt_dm.errors import DataError, ExitCode, UsageError
from xengt_dm.instance import Instance
from xengt_dm.settings import Settings

Ask = Callable[..., Any]


@pytest.fixture
def instance() -> Iterator[Instance]:
    with skylake() as (_, made):
        yield made


def asker(instance: Instance) -> Ask:
    recording = Recording(instance.engine, instance.device, instance.bus, 64)
    handlers = handlers_of(instance, recording)

    def ask(command: str, **arguments: object) -> Any:
        answer = handlers[command](arguments)
        assert not isinstance(answer, Awaitable)
        return json.loads(b"".join(reply_pieces(answer)))["result"]

    return ask


def names(instance: Instance, pattern: str) -> list[str]:
    return [each["name"] for each in asker(instance)("registers", pattern=pattern)]


def shown(instance: Instance, monkeypatch: pytest.MonkeyPatch, *words: str) -> Result:
    """The command, whose question goes to this instance."""
    ask = asker(instance)

    def ask_here(base: Path, domid: int, command: str, **arguments: object) -> Any:
        assert domid == 7
        return ask(command, **arguments)

    monkeypatch.setattr(client, "ask", ask_here)
    return CliRunner().invoke(main, ["registers", "7", *words])


def test_all(instance: Instance) -> None:
    found = asker(instance)("registers")
    assert len(found) > 900
    assert [each["name"] for each in found[:3]] == ["pci.VENDOR_ID", "pci.DEVICE_ID", "pci.COMMAND"]
    assert len({each["name"] for each in found}) == len(found)


def test_the_guest_is_served_meanwhile(instance: Instance) -> None:
    """No more than a few registers are described in one go."""
    run = longest = 0
    for each in listing(instance.gpu, None):
        run = 0 if each is Pause.PAUSE else run + 1
        longest = max(longest, run)
    assert 0 < longest <= 16


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("rcs0.RING_TAIL", ["rcs0.RING_TAIL"]),
        ("ring_tail", ["rcs0.RING_TAIL", "vcs0.RING_TAIL", "vecs0.RING_TAIL", "bcs0.RING_TAIL"]),
        ("*.RING_TA?L", ["rcs0.RING_TAIL", "vcs0.RING_TAIL", "vecs0.RING_TAIL", "bcs0.RING_TAIL"]),
        ("RING_TAIL*", []),
        ("[bv]cs0.RING_TAIL", ["vcs0.RING_TAIL", "bcs0.RING_TAIL"]),
        ("pci.BAR?", ["pci.BAR0", "pci.BAR2"]),
        ("0x2030", ["rcs0.RING_TAIL"]),
        ("0x2033", ["rcs0.RING_TAIL"]),
        ("8240", ["rcs0.RING_TAIL"]),
        ("0x4", ["pci.COMMAND"]),
        ("0x12abc", []),
        ("x" * 1000, []),
    ],
)
def test_patterns(instance: Instance, pattern: str, expected: list[str]) -> None:
    if expected:
        assert names(instance, pattern) == expected
    else:
        with pytest.raises(DataError, match="no register"):
            names(instance, pattern)


@pytest.mark.parametrize("pattern", [7, True, ["a"], {}])
def test_what_is_no_pattern(instance: Instance, pattern: object) -> None:
    with pytest.raises(UsageError):
        asker(instance)("registers", pattern=pattern)


def test_values_are_what_the_guest_reads(instance: Instance) -> None:
    instance.device.write(0x2080, 4, 0x1234567)
    (register,) = asker(instance)("registers", pattern="rcs0.RING_HWS_PGA")
    assert register["value"] == instance.device.read(0x2080, 4) == 0x1234000
    assert register["fields"] == [{"name": "ADDRESS", "high": 31, "low": 12, "value": 0x1234, "meaning": None}]
    (register,) = asker(instance)("registers", pattern="pci.COMMAND")
    assert register["value"] == Requests(instance).read(4, 2) == 6


def test_text(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    instance.device.write(0x209C, 4, 0x100_0100)
    result = shown(instance, monkeypatch, "*MI_MODE")
    assert result.exit_code == ExitCode.OK
    assert result.output.startswith(" OFFSET  NAME")
    assert [line.split() for line in result.output.splitlines()] == [
        ["OFFSET", "NAME", "VALUE", "FIELDS"],
        ["0x209c", "rcs0.RING_MI_MODE", "0x00000300", "STOP_RING", "MODE_IDLE"],
        ["0x1209c", "vcs0.RING_MI_MODE", "0x00000200", "MODE_IDLE"],
        ["0x1a09c", "vecs0.RING_MI_MODE", "0x00000200", "MODE_IDLE"],
        ["0x2209c", "bcs0.RING_MI_MODE", "0x00000200", "MODE_IDLE"],
    ]


def test_text_of_bars(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(instance, monkeypatch, "pci.BAR?").output.splitlines()
    assert [line.split()[1:] for line in lines[1:]] == [
        ["pci.BAR0", f"{BAR0 | 4:#x}", "TYPE=0x2", "(64", "bits)", f"ADDRESS={BAR0 >> 4:#x}"],
        ["pci.BAR2", f"{BAR2 | 0xC:#x}", "TYPE=0x2", "(64", "bits)", "PREFETCHABLE", f"ADDRESS={BAR2 >> 4:#x}"],
    ]


def test_json(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    result = shown(instance, monkeypatch, "--json", "pci.CLASS")
    assert json.loads(result.output) == [{"name": "pci.CLASS", "offset": 10, "size": 2, "value": 0x300, "fields": []}]


def test_a_register_that_there_is_not(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    result = shown(instance, monkeypatch, "explode")
    assert result.exit_code == ExitCode.DATA
    assert "no register of this device is called 'explode'" in result.output


def test_a_device_of_page_tables_alone() -> None:
    with skylake(Settings(), placed=False) as (_, instance):
        found = asker(instance)("registers")
        assert found[0]["name"] == "GAMW_ECO_DEV_RW_IA"
        assert not [each for each in found if each["name"].startswith("pci.")]
        assert names(instance, "magic") == ["magic"]


def test_a_whole_gpu_is_not_recorded(instance: Instance, tmp_path: Path) -> None:
    """Its trace could not be replayed; a device of page tables is recorded as ever."""

    async def record(to: Instance) -> None:
        recording = Recording(to.engine, to.device, to.bus, 64)
        answer = handlers_of(to, recording)["record"]({"file": str(tmp_path / "trace")})
        assert isinstance(answer, Awaitable)
        await answer
        recording.stop()

    with pytest.raises(DataError, match="skylake"):
        trio.run(record, instance)
    assert not (tmp_path / "trace").exists()
    with skylake(Settings(), placed=False) as (_, other):
        trio.run(record, other)
    assert (tmp_path / "trace").exists()
