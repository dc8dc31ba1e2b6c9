"""Programs at their edges: closed or full streams, numbers that are none, text that a terminal would act on."""

from __future__ import annotations

import errno
import functools
import io
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support import terminal as terminals
from xengt_dm.cli import client, main
from xengt_dm.cli.formatting import table
from xengt_dm.control.client import ask
from xengt_dm.errors import ExitCode
from xengt_dm.log import log
from xengt_dm.printable import printable

PROGRAM = f"{sys.executable} -m xengt_dm"
TRACE = Path(__file__).resolve().parents[1] / "traces" / "created-twice.jsonl"
PATIENCE = 60


def shell(command: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=timeout)


# streams that are closed


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    "words", ["--version", "list --run-dir {}", "config example", f"replay {TRACE}", "demo --seconds 0"]
)
def test_a_closed_stream_is_no_defect(tmp_path: Path, words: str, closed: str) -> None:
    done = shell(f"{PROGRAM} {words.format(tmp_path)} {closed}")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_status_is_that_of_the_command(tmp_path: Path) -> None:
    assert shell(f"{PROGRAM} status --domid 7 --run-dir {tmp_path} >&- 2>&-").returncode == ExitCode.UNAVAILABLE
    assert shell(f"{PROGRAM} status >&- 2>&-").returncode == ExitCode.USAGE


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_a_daemon_starts_without_a_log(tmp_path: Path, closed: str) -> None:
    """What it opens does not become one of the first three descriptors, or its log would go there."""
    command = f"exec timeout --signal=TERM 3 {PROGRAM} exporter --listen 127.0.0.1:0 --run-dir {tmp_path} {closed}"
    assert shell(command).returncode == 124, "it is timeout that ended it"


def test_nothing_that_is_opened_becomes_a_standard_stream() -> None:
    text = (
        "import os; from xengt_dm.cli.streams import ensure_standard_streams; ensure_standard_streams();"
        "found = [os.readlink(f'/proc/self/fd/{n}') for n in range(3)];"
        "os._exit(0 if found == ['/dev/null'] * 3 and os.open('/dev/zero', 0) > 2 else 1)"
    )
    assert shell(f'{sys.executable} -c "{text}" <&- >&- 2>&-').returncode == 0


# a disk that is full


@pytest.mark.parametrize("words", ["--version", "config example", "list --json --run-dir {}", f"replay {TRACE}"])
def test_standard_output_that_is_full(tmp_path: Path, words: str) -> None:
    done = shell(f"{PROGRAM} {words.format(tmp_path)} > /dev/full")
    assert (done.returncode, done.stderr) == (
        ExitCode.UNAVAILABLE,
        "xengt-dm: standard output: No space left on device\n",
    )


def test_a_log_that_is_full(tmp_path: Path) -> None:
    command = f"exec timeout 3 {PROGRAM} exporter --listen 127.0.0.1:0 --run-dir {tmp_path} 2> /dev/full"
    assert shell(command).returncode == 124


# numbers


@pytest.mark.parametrize("number", ["nan", "NaN", "-nan", "inf", "-inf", "1e999", "\N{FULLWIDTH DIGIT ONE}", "", "1s"])
@pytest.mark.parametrize(
    "words", [["top", "--interval"], ["demo", "--seconds"], ["stop", "--domid", "7", "--timeout"]], ids=lambda w: w[0]
)
def test_seconds_that_are_no_number(tmp_path: Path, words: list[str], number: str) -> None:
    result = CliRunner().invoke(main, [*words, number])
    assert result.exit_code == ExitCode.USAGE, result.output


@pytest.mark.parametrize("domid", ["\N{FULLWIDTH DIGIT FIVE}", "5.0", "0x5", "-1", "32752", "1e3", "nan", "9" * 5000])
def test_domain_ids_that_are_none(tmp_path: Path, domid: str) -> None:
    result = CliRunner().invoke(main, ["status", "--domid", domid, "--run-dir", str(tmp_path)])
    assert result.exit_code == ExitCode.USAGE
    assert "is no domain id" in result.output


@pytest.mark.parametrize(("word", "near"), [("statsu", "status"), ("lst", "list"), ("watching", "watch")])
def test_a_command_that_does_not_exist_is_told_a_near_one(word: str, near: str) -> None:
    result = CliRunner().invoke(main, [word])
    assert result.exit_code == ExitCode.USAGE
    assert f"Did you mean '{near}'?" in result.output


# files


@pytest.mark.parametrize("unit", [" ", "[", "9", '"', "\0"])
def test_a_line_without_end_is_refused_in_time(tmp_path: Path, unit: str) -> None:
    header, *_ = TRACE.read_text().splitlines()
    (tmp_path / "long.jsonl").write_text(f"{header}\n" + unit * (3 << 20))
    done = shell(f"ulimit -v 2000000; {PROGRAM} replay {tmp_path}/long.jsonl")
    assert done.returncode == ExitCode.DATA
    assert "long.jsonl:2: the line has more than 1048576 bytes" in done.stderr
    assert shell(f"{PROGRAM} replay /dev/zero").returncode == ExitCode.DATA


def test_what_is_not_permitted_has_its_own_status(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    # Root may write anywhere because of its capabilities, so it goes without.
    powerless = "setpriv --bounding-set -all --inh-caps -all " if os.geteuid() == 0 else ""
    done = shell(f"{powerless}{PROGRAM} record --domid 7 --run-dir {tmp_path} {tmp_path}/x")
    assert done.returncode in (ExitCode.PERMISSION, ExitCode.DATA)


# text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("guest", "guest"),
        ("été \N{GRINNING FACE}", "été \N{GRINNING FACE}"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\rc\td", "a\\nb\\rc\\td"),
        ("\x9b2J", "\\x9b2J"),
        ("\u202eabc\u2028", "\\u202eabc\\u2028"),
        ("\udcff\ud800", "\\xff\\ud800"),
        ("\x00\x7f", "\\x00\\x7f"),
    ],
)
def test_what_a_terminal_would_act_on(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert [*table(("NAME",), [(text,)])][1] == shown
    assert printable("a\nb", keep="\n") == "a\nb"


def test_messages_keep_their_lines_and_nothing_else(tmp_path: Path) -> None:
    done = shell(f"{PROGRAM} config check '{tmp_path}/a\x1b[2J'")
    assert "\x1b" not in done.stdout + done.stderr
    assert "a\\x1b[2J: there is no such file" in done.stdout
    name = "\x1b]0;owned\x07"
    config = tmp_path / "guest.cfg"
    config.write_text(f"name = '{name}'\n= bad\n")
    done = shell(f"{PROGRAM} create {config}")
    assert "\x1b" not in done.stdout + done.stderr


EVIL = "\x1b]0;owned\x07\u202e"


@pytest.mark.parametrize(
    "words",
    [
        [EVIL],
        [f"--{EVIL}"],
        ["list", f"--{EVIL}"],
        ["list", EVIL],
        ["list", "--run-dir", f"/{EVIL}"],
        ["top", "--count", "1", "--interval", "0.1", "--run-dir", f"/{EVIL}"],
        ["upgrade", "--all", "--run-dir", f"/{EVIL}"],
        ["status", "--domid", EVIL],
        ["status", "--domid", "7", "--run-dir", f"/{EVIL}"],
        ["mode", "--domid", "7", EVIL],
        ["walk", "--domid", "7", EVIL],
        ["walk", "--domid", "7", "--root", EVIL, "0"],
        ["top", "--interval", EVIL],
        ["create", f"/{EVIL}"],
        ["replay", f"/{EVIL}"],
        ["replay", TRACE, "--dump", f"/{EVIL}/x"],
        ["record", "--domid", "7", f"/{EVIL}/x"],
        ["exporter", "--listen", EVIL],
        ["config", "show", "--name", EVIL],
        ["config", "show", "--set", EVIL],
        ["config", "show", "--set", f"shadow.mode={EVIL}"],
        ["config", "check", f"/{EVIL}"],
        ["config", "check", "--config-dir", f"/{EVIL}"],
        ["run", "--domid", "7", "--mode", EVIL],
        ["run", "--domid", "7", "--sim", f"/{EVIL}"],
        ["sim", "--guest", EVIL],
        ["reap", "--domid", EVIL],
    ],
    ids=lambda words: "-".join(map(str, words)).replace(EVIL, "EVIL").replace("/", "_"),
)
def test_no_argument_gets_to_the_terminal_as_it_is(words: list[str]) -> None:
    shown = CliRunner().invoke(main, [*map(str, words)]).output
    assert "owned" in shown
    assert shown.replace("\n", "").isprintable(), shown


@pytest.mark.parametrize("option", ["--max-mib", "--max-minutes"])
@pytest.mark.parametrize("number", ["nan", "inf", "-1", "0", "1e3", "\N{FULLWIDTH DIGIT FIVE}", "9" * 5000])
def test_bounds_of_a_recording_that_are_no_number(tmp_path: Path, option: str, number: str) -> None:
    words = ["record", "--domid", "7", "--run-dir", str(tmp_path), option, number, str(tmp_path / "x")]
    assert CliRunner().invoke(main, words).exit_code == ExitCode.USAGE


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()], ids=["terminal", "file"])
def test_a_log_has_nothing_that_a_terminal_acts_on(stream: io.StringIO) -> None:
    try:
        log.configure(7, stream=stream, environment={"NO_COLOR": "1"})
        log.get_logger().info("watch.starting", name="\x1b[2J\u202e\n\udcff", file="/a/\x07")
    finally:
        log.configure(None)
    shown = stream.getvalue()
    assert "watch.starting" in shown
    assert shown.removesuffix("\n").isprintable(), shown


# what takes long


def test_a_step_that_takes_long_says_so_on_a_terminal() -> None:
    text = (
        "import threading; from xengt_dm.cli.notice import notice\n"
        "said = threading.Event()\n"
        "import click; echo = click.echo\n"
        "def tell(*words, **options): echo(*words, **options); said.set()\n"
        "click.echo = tell\n"
        "with notice('it takes long', after=0.01): assert said.wait(60)\n"
        "with notice('it does not', after=60): pass"
    )
    terminal = terminals.Terminal(sys.executable, "-c", text)
    assert terminal.end() == 0
    assert terminal.output == b"xengt-dm: it takes long\r\n"


def test_a_script_is_told_nothing_of_a_step_that_takes_long() -> None:
    text = "import time; from xengt_dm.cli.notice import notice\nwith notice('long', after=0): time.sleep(0.2)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, check=True, timeout=PATIENCE)
    assert done.stderr == b""


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[Path]:
    """The run directories of a host where the daemon of domain 7 does not answer."""
    (tmp_path / "7").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "7" / "control.sock"))
        listener.listen()
        yield tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status", "--json"], r"answered yet; waiting until \d\d:\d\d:\d\d, 30 s in all"),
        (["start"], r"answered yet; waiting until \d\d:\d\d:\d\d, 30 s in all"),
        (["reap"], r"answered yet; waiting until \d\d:\d\d:\d\d, 30 s in all"),
        (["stop", "--timeout", "5"], r"ended yet; waiting until \d\d:\d\d:\d\d, 35 s in all"),
        (["audit"], r"ended its answer yet; waiting until \d\d:\d\d:\d\d, 600 s in all, unless .* nothing for 30 s"),
    ],
    ids=lambda it: it[0],
)
def test_a_command_says_that_it_waits_for_a_daemon(stuck: Path, words: list[str], said: str) -> None:
    """To a file, too: whoever reads that wants to know why the command took so long."""
    command = [sys.executable, "-m", "xengt_dm", *words, "--domid", "7", "--run-dir", str(stuck)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.kill()
    assert re.fullmatch(f"xengt-dm: the daemon of domain 7 has not {said}\n", line)


def test_a_daemon_that_does_not_answer_has_its_own_status(stuck: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ask", functools.partial(ask, silence=0.01))
    result = CliRunner().invoke(main, ["status", "--domid", "7", "--run-dir", str(stuck)])
    assert result.exit_code == ExitCode.SILENT == 76
    assert "the daemon of domain 7 did not answer within 0.01 seconds; it is stopped or stuck" in result.output


@pytest.mark.parametrize(
    "words",
    [("replay", TRACE, "--dump"), ("record", "--domid", "7", "--run-dir", "/nonexistent")],
    ids=lambda it: it[0],
)
def test_a_file_that_may_not_be_written(words: tuple[object, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """As root nothing is forbidden, so the answer of the kernel is made up."""

    def refuse(*_arguments: object, **_options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(os, "open", refuse)
    result = CliRunner().invoke(main, [str(word) for word in (*words, "/forbidden/file")])
    assert (result.exit_code, result.output) == (
        ExitCode.PERMISSION,
        "xengt-dm: /forbidden/file: cannot be written: Permission denied\n",
    )
