"""The command line that needs no daemon: right and wrong use, and what the exit status and the words say."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from xengt_dm import __version__
from xengt_dm.cli import COMMANDS, main
from xengt_dm.config.merge import Config
from xengt_dm.errors import ConfigError, ExitCode
from xengt_dm.service import limits

OK, USAGE, DATA, UNAVAILABLE = ExitCode.OK, ExitCode.USAGE, ExitCode.DATA, ExitCode.UNAVAILABLE
CONFIG = ExitCode.CONFIG
TRACES = Path(__file__).resolve().parents[1] / "traces"


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


# What every command has in common


def test_without_a_command_it_says_which_there_are() -> None:
    result = run()
    assert result.exit_code == USAGE
    for name in COMMANDS:
        assert name in result.output


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version(option: str) -> None:
    result = run(option)
    assert (result.exit_code, result.output) == (OK, f"xengt-dm {__version__}\n")


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help(name: str, option: str) -> None:
    result = run(name, option)
    assert result.exit_code == OK
    assert result.output.startswith(f"Usage: main {name}")


@pytest.mark.parametrize("name", [*COMMANDS, ""])
def test_options_that_there_are_not(name: str) -> None:
    result = run(*filter(None, [name]), "--explode")
    assert result.exit_code == USAGE
    assert "--explode" in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_that_names_a_domain_has_a_short_form(name: str) -> None:
    text = run(name, "--help").output
    assert text.count(" --domid") == text.count("-d, --domid")


def test_a_mode_that_there_is_not() -> None:
    result = run("mode", "--domid", "7", "fast")
    assert result.exit_code == USAGE
    assert "Invalid value for 'MODE': 'fast' is not one of 'strict', 'relaxed'." in result.output.replace(
        "[MODE]", "MODE"
    )


def test_commands_that_there_are_not() -> None:
    result = run("explode")
    assert result.exit_code == USAGE
    assert "'explode'" in result.output


# replay


def test_replaying_a_trace() -> None:
    result = run("replay", TRACES / "attributes.jsonl")
    assert result.exit_code == OK
    assert "0 audit mismatches" in result.output
    assert ", 1 dump, " in result.output


@pytest.mark.parametrize("mode", ["strict", "relaxed"])
def test_replaying_with_a_dump(tmp_path: Path, mode: str) -> None:
    out = tmp_path / "out.json"
    result = run("replay", TRACES / "attributes.jsonl", "--mode", mode, "--dump", out)
    assert result.exit_code == OK
    told = json.loads(out.read_text())
    assert told["counters"]["audit_mismatches"] == 0
    assert told["dumps"]
    for space in told["dumps"][-1]["spaces"]:
        assert set(space) >= {"mode", "root", "mappings"}


HEADER = '{"trace":1,"generation":8,"ram_frames":16}\n'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"", 1),
        (b"no trace\n", 1),
        (b'{"trace":2,"generation":8,"ram_frames":16}\n', 1),
        (HEADER.encode() + b'{"op":"explode"}\n', 2),
        (HEADER.encode() + b'{"op":"submit","mode":"l4","root":0}\n{"op":"store","gpa":-1,"size":8,"value":0}\n', 3),
        (HEADER.encode() + b"\xff\xfe\n", 2),
    ],
)
def test_files_that_are_no_traces(tmp_path: Path, text: bytes, line: int) -> None:
    """The message says which file, which line, and what is wrong with it."""
    path = tmp_path / "bad.jsonl"
    path.write_bytes(text)
    result = run("replay", path)
    assert result.exit_code == DATA
    assert f"{path}:{line}: " in result.output
    assert "Traceback" not in result.output


def test_a_gzip_file_that_is_none_or_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl.gz"
    for content in (b"plain", gzip.compress(HEADER.encode() * 1000)[:-20]):
        path.write_bytes(content)
        result = run("replay", path)
        assert result.exit_code == DATA
        assert str(path) in result.output


def test_files_that_are_not_there(tmp_path: Path) -> None:
    result = run("replay", tmp_path / "none.jsonl")
    assert result.exit_code in (DATA, UNAVAILABLE)
    assert "none.jsonl" in result.output
    assert "No such file" in result.output


def test_a_dump_that_cannot_be_written(tmp_path: Path) -> None:
    result = run("replay", TRACES / "attributes.jsonl", "--dump", tmp_path / "no" / "out.json")
    assert result.exit_code == DATA
    assert "out.json: cannot be written: No such file or directory" in result.output


@pytest.mark.parametrize(
    "options", [["--mode", "lazy"], ["--max-tables", "0"], ["--max-tables", "many"], ["--max-tables", str(1 << 25)]]
)
def test_replay_used_wrongly(options: list[str]) -> None:
    result = run("replay", TRACES / "attributes.jsonl", *options)
    assert result.exit_code == USAGE
    assert options[0] in result.output


def test_replay_without_a_file() -> None:
    result = run("replay")
    assert result.exit_code == USAGE
    assert "FILE" in result.output


# demo


def test_the_demo_as_json() -> None:
    result = run("demo", "--json", "--seconds", "0.3")
    assert result.exit_code == OK
    told = json.loads(result.output)
    assert told["counters"]["store_traps"] > 1000
    assert told["counters"]["audit_mismatches"] == 0
    assert told["wrong"] == 0
    assert told["resolved"] > 0


def test_the_demo_for_people() -> None:
    result = run("demo", "--seconds", "0")
    assert result.exit_code == OK
    for word in ("stores trapped", "address spaces", "audit mismatches"):
        assert word in result.output


@pytest.mark.parametrize("options", [["--seconds", "-1"], ["--seconds", "soon"], ["--xen", "3.0"], ["--seed", "-1"]])
def test_the_demo_used_wrongly(options: list[str]) -> None:
    result = run("demo", *options)
    assert result.exit_code == USAGE
    assert options[0] in result.output


# check


def test_check_where_there_is_no_xen(tmp_path: Path) -> None:
    """Each thing that lacks has a remedy; the last line says what it comes to."""
    result = run("check", "--run-dir", tmp_path)
    assert result.exit_code == UNAVAILABLE
    assert "this machine does not run on Xen" in result.output
    assert "xengt-dm demo" in result.output.splitlines()[-1]
    told = json.loads(run("check", "--run-dir", tmp_path, "--json").output)
    assert told["ok"] is False
    assert all(finding["remedy"] for finding in told["findings"] if finding["name"] == "xen")


# run


def test_run_where_there_is_no_xen(tmp_path: Path) -> None:
    result = run("run", "--domid", "5", "--run-dir", tmp_path, "--config-dir", tmp_path)
    assert result.exit_code == UNAVAILABLE
    assert "Traceback" not in result.output
    assert "xengt-dm: " in result.output


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ([], USAGE),
        (["--domid", "-1"], USAGE),
        (["--domid", "32752"], USAGE),
        (["--domid", "x"], USAGE),
        (["--domid", "5", "--bar0", "0x1234"], USAGE),
        (["--domid", "5", "--generation", "7"], USAGE),
        (["--domid", "5", "--mode", "lazy"], USAGE),
        (["--domid", "5", "--max-tables", "0"], USAGE),
    ],
)
def test_run_used_wrongly(tmp_path: Path, options: list[str], status: ExitCode) -> None:
    result = run("run", "--config-dir", tmp_path, *options)
    assert result.exit_code == status
    assert "Traceback" not in result.output


def test_run_with_limits_that_are_too_low(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def low(config: Config) -> None:
        raise ConfigError(f"too low for {config.integer('shadow.max_tables')}")

    monkeypatch.setattr(limits, "check", low)
    result = run("run", "--domid", "5", "--run-dir", tmp_path, "--config-dir", tmp_path, "--max-tables", "77")
    assert (result.exit_code, result.output) == (CONFIG, "xengt-dm: too low for 77\n")


# The commands that ask a daemon, where there is none

ASKING = {name: [] for name in ("status", "spaces", "dump", "audit", "stop")} | {"walk": ["0x1000"]}


@pytest.mark.parametrize("name", ASKING)
def test_nobody_serves(tmp_path: Path, name: str) -> None:
    result = run(name, *ASKING[name], "--domid", "5", "--run-dir", tmp_path)
    assert result.exit_code == UNAVAILABLE
    assert "nothing serves domain 5" in result.output
    assert "xengt-dm list" in result.output


@pytest.mark.parametrize("name", ASKING)
@pytest.mark.parametrize("domid", ["", "-1", "x", "40000"])
def test_asked_about_what_is_no_domain(tmp_path: Path, name: str, domid: str) -> None:
    options = ["--domid", domid] if domid else []
    result = run(name, *ASKING[name], *options, "--run-dir", tmp_path)
    assert result.exit_code == USAGE
    assert "--domid" in result.output


def test_no_daemon_to_list(tmp_path: Path) -> None:
    result = run("list", "--run-dir", tmp_path)
    assert (result.exit_code, str(tmp_path) in result.output) == (OK, True)
    assert json.loads(run("list", "--run-dir", tmp_path, "--json").output) == []
    assert run("list", "--run-dir", tmp_path / "none").exit_code == OK


def test_a_daemon_that_died(tmp_path: Path) -> None:
    (tmp_path / "5").mkdir()
    (tmp_path / "5" / "server-id").write_text("0\n")
    (found,) = json.loads(run("list", "--run-dir", tmp_path, "--json").output)
    assert (found["domid"], found["state"]) == (5, "dead")
    assert "dead" in run("list", "--run-dir", tmp_path).output


@pytest.mark.parametrize("va", ["x", "-1", str(1 << 48), ""])
def test_what_is_no_gpu_address(va: str) -> None:
    result = run("walk", "--domid", "5", "--", va)
    assert result.exit_code == USAGE
    assert "address" in result.output


@pytest.mark.parametrize("root", ["x", "1,2", "1,2,3,4,5", "0x1_"])
def test_what_is_no_root(root: str) -> None:
    result = run("walk", "0", "--domid", "5", "--root", root)
    assert result.exit_code == USAGE
    assert "--root" in result.output
