"""``xengt-dm decode``, of files and of a live domain, and the command of the control socket behind it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.support.control import handlers_of
from tests.support.error_states import BATCH, error_state
from tests.support.gpu_programs import ARB_CHECK, BATCH_END, dwords, request, start
from tests.support.skylake import skylake
from xengt_dm.cli import client, main
from xengt_dm.cli import decode as module
from xengt_dm.control.protocol import reply_pieces
from xengt_dm.daemon.recording import Recording
from xengt_dm.errors import ExitCode, UsageError, XengtError
from xengt_dm.instance import Instance

PROGRAM = dwords(ARB_CHECK, *start(0x1000, second=True), BATCH_END)


def run(*words: str | Path, data: bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["decode", *map(str, words)], input=data)


def written(tmp_path: Path, data: bytes | str) -> Path:
    path = tmp_path / "dump"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


# Files


def test_a_batch(tmp_path: Path) -> None:
    result = run(written(tmp_path, PROGRAM), "--address", "0x1000")
    assert result.exit_code == ExitCode.OK
    assert result.output.splitlines() == [
        "batch of level 1 in the PPGTT at 0x1000",
        "00001000  02800000  MI_ARB_CHECK",
        "00001004  18c00101  MI_BATCH_BUFFER_START  level: 2, PPGTT  (goes back to what is above)",
        "00001008  00001000    address: 0x1000",
        "0000100c  00000000",
        "00001010  05000000  MI_BATCH_BUFFER_END",
    ]


def test_standard_input_and_another_engine() -> None:
    result = run("-", "vcs0", data=dwords(0x70000003, 0, 0, 0, 0, BATCH_END))
    assert result.exit_code == ExitCode.OK
    assert "MFX_PIPE_MODE_SELECT" in result.output


def test_a_ring(tmp_path: Path) -> None:
    program = request(BATCH)
    ring = dwords(*program[8:]) + bytes(4096 - 4 * len(program)) + dwords(*program[:8])
    words = ("--as", "ring", "--address", "0xfe0000", "--head", "4064", "--tail", str(4 * (len(program) - 8)))
    output = run(written(tmp_path, ring), *words).output
    assert output.startswith("ring at 0xfe0fe0\n00fe0fe0  7a000004  PIPE_CONTROL\n")
    assert f"address: {BATCH:#x}" in output
    assert output.count("nothing is there") == 1
    assert output.rstrip().endswith("MI_NOOP")
    assert "MI_USER_INTERRUPT" in run(written(tmp_path, ring), "--as", "ring").output


def test_a_context_image(tmp_path: Path) -> None:
    path = written(tmp_path, dwords(0, 0x11001001, 0x22034, 0x100, BATCH_END))
    output = run(path, "bcs0", "--as", "image").output
    assert output.splitlines()[0] == "context image at 0x0"
    assert "register: 0x22034 bcs0.RING_HEAD" in output


def test_an_error_state(tmp_path: Path) -> None:
    path = written(tmp_path, error_state())
    result = run(path)
    assert result.exit_code == ExitCode.OK
    assert result.output.startswith("rcs0: the ring from 0x100 to 0x198; HEAD 0x200150, ")
    assert f"batch of level 1 in the PPGTT at {BATCH:#x}" in result.output
    assert "02800000  MI_ARB_CHECK  <-- ACTHD" in result.output
    assert "\nrcs0: the context image\n" in result.output
    assert run(path, "rcs0").output == result.output
    assert run(path, "bcs0").exit_code == ExitCode.DATA


def test_json_and_lines_say_the_same(tmp_path: Path) -> None:
    path = written(tmp_path, error_state())
    told = json.loads(run(path, "--json").output)
    assert [section["title"] for section in told["sections"]] == [
        *("rcs0: the ring from 0x100 to 0x198; HEAD 0x200150, TAIL 0x198, IPEHR 0x18800101, ACTHD 0x7fff00001004",),
        "rcs0: the context image",
    ]
    shown = run(path).output
    for section in told["sections"]:
        for item in section["commands"]:
            assert f"{item['address']:08x}  {item['dwords'][0]:08x}  {item['command']}" in shown


def test_the_limit(tmp_path: Path) -> None:
    output = run(written(tmp_path, dwords(*[ARB_CHECK] * 100)), "--dwords", "5").output
    assert output.count("MI_ARB_CHECK") == 5
    assert "the limit of 5 dwords" in output


def test_a_file_with_a_part_of_a_dword(tmp_path: Path) -> None:
    result = run(written(tmp_path, PROGRAM + b"xyz"))
    assert result.exit_code == ExitCode.OK
    assert "the last 3 bytes are no dword" in result.output


def test_files_that_cannot_be_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 64)
    for path, said in (
        (tmp_path / "missing", "cannot be read: No such file"),
        (tmp_path, "cannot be read: Is a directory"),
        (written(tmp_path, bytes(65)), "more than 0 MiB"),
    ):
        result = run(path)
        assert result.exit_code == ExitCode.DATA
        assert said in result.output
    assert "is empty" in run(written(tmp_path, b"")).output


@pytest.mark.parametrize(
    "words",
    [("x", "rcs9"), ("99999999999",), ("32752",), ("x", "--address", "0x1002"), ("x", "--dwords", "0"), ()],
)
def test_wrong_use(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_bytes(PROGRAM)
    assert run(*words).exit_code == ExitCode.USAGE


# A domain


@pytest.fixture
def instance() -> Iterator[Instance]:
    with skylake() as (_, made):
        yield made


def ask(instance: Instance, **arguments: object) -> Any:
    handlers = handlers_of(instance, Recording(instance.engine, instance.device, instance.bus, 64))
    answer = handlers["decode"](arguments)
    assert not isinstance(answer, Awaitable)
    return json.loads(b"".join(reply_pieces(answer)))["result"]


def test_a_live_domain(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [each["title"] for each in ask(instance)["sections"]] == [
        *("rcs0: idle", "bcs0: idle", "vcs0: idle", "vecs0: idle"),
    ]
    asked: list[dict[str, object]] = []

    def ask_here(base: Path, domid: int, command: str, **arguments: object) -> Any:
        assert (domid, command) == (7, "decode")
        asked.append(arguments)
        return ask(instance, **arguments)

    monkeypatch.setattr(client, "ask", ask_here)
    result = run("7", "bcs0", "--whole", "--dwords", "99")
    assert (result.exit_code, result.output) == (ExitCode.OK, "bcs0: idle\n")
    assert asked == [{"engine": "bcs0", "whole": True, "dwords": 99}]
    assert json.loads(run("7", "--json").output)["sections"][3] == {"title": "vecs0: idle", "marks": [], "commands": []}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"engine": "rcs9"}, UsageError),
        ({"engine": 0}, UsageError),
        ({"engine": []}, UsageError),
        ({"dwords": 0}, UsageError),
        ({"dwords": True}, UsageError),
        ({"dwords": 1 << 40}, UsageError),
        ({"whole": 1}, UsageError),
        ({"domain": 7}, UsageError),
    ],
)
def test_requests_that_are_refused(instance: Instance, arguments: dict[str, object], error: type[XengtError]) -> None:
    with pytest.raises(error):
        ask(instance, **arguments)


def test_an_answer_that_makes_no_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    for answer in ([], {}, {"sections": 5}, {"sections": [{"title": "", "marks": [], "commands": [{"in": 5}]}]}):
        monkeypatch.setattr(client, "ask", lambda *_, answer=answer, **__: answer)
        assert run("7").exit_code == ExitCode.UNAVAILABLE
