"""`xengt-dm create`: the order of its steps, and what is undone when one fails or is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.toolstack import DOMID, XlHost, script
from xengt_dm.errors import ConfigError, ExitCode
from xengt_dm.service import toolstack
from xengt_dm.service.instances import InstanceError
from xengt_dm.service.toolstack import ToolstackError, Xl

CREATE = ["xl create -p CONFIG", "xl domid guest"]


def create(host: XlHost, *, paused: bool = False) -> tuple[int, list[str]]:
    complaints: list[str] = []
    domid, _ = toolstack.create(host.config, host.xl, host, paused=paused, complain=complaints.append)
    return domid, complaints


def test_the_domain_runs_when_its_instance_serves(host: XlHost, launch: Path) -> None:
    assert create(host) == (DOMID, [])
    assert host.steps == [*CREATE, "start 7", "xl unpause 7"]
    assert (launch / "7").read_text() == "XENGT_OPTIONS=--set shadow.mode=relaxed\n"


def test_paused(host: XlHost) -> None:
    create(host, paused=True)
    assert host.steps == [*CREATE, "start 7"]


def test_no_gpu_wanted(host: XlHost, launch: Path) -> None:
    host.config.write_text("name = 'guest'\nxengt = 0\n")
    create(host)
    assert host.steps == [*CREATE, "xl unpause 7"]
    assert not launch.exists()


@pytest.mark.parametrize(
    ("fails", "steps"),
    [
        ("create", CREATE[:1]),
        ("domid", [*CREATE, "xl destroy guest"]),
        ("start", [*CREATE, "start 7", "stop 7", "xl destroy 7"]),
        ("unpause", [*CREATE, "start 7", "xl unpause 7", "stop 7", "xl destroy 7"]),
    ],
)
def test_undone_if_a_step_fails(host: XlHost, launch: Path, fails: str, steps: list[str]) -> None:
    host.fails.write_text(fails)
    with pytest.raises((ToolstackError, InstanceError), match=fails):
        create(host)
    assert host.steps == steps
    assert not (launch / "7").exists()


def test_the_first_failure_is_the_one_that_is_told(host: XlHost) -> None:
    host.fails.write_text("start stop destroy")
    complaints: list[str] = []
    with pytest.raises(InstanceError, match="start failed"):
        toolstack.create(host.config, host.xl, host, paused=False, complain=complaints.append)
    assert host.steps == [*CREATE, "start 7", "stop 7", "xl destroy 7"]
    assert complaints == [
        "while undoing what was done: stop failed",
        "while undoing what was done: xl destroy 7 ended with status 1",
        "the domain guest may be left, and paused; look for it with: xl list",
    ]


def test_it_says_what_it_has_undone(host: XlHost) -> None:
    host.fails.write_text("start")
    complaints: list[str] = []
    with pytest.raises(InstanceError, match="start failed"):
        toolstack.create(host.config, host.xl, host, paused=False, complain=complaints.append)
    assert complaints == ["the domain guest was created and is destroyed again"]


def test_a_bad_file_creates_nothing(host: XlHost) -> None:
    host.config.write_text('name = "guest"\nxengt = [ "shadow.mode=loose" ]\n')
    with pytest.raises(ConfigError):
        create(host)
    assert host.steps == []


@pytest.mark.parametrize("text", ["hap = 0", "hap=1\nhap=0x0", "hap = '0'"])
def test_a_domain_without_hap_is_not_created(host: XlHost, text: str) -> None:
    host.config.write_text(f'name = "guest"\n{text}\n')
    with pytest.raises(ConfigError, match=r"guest\.cfg:[23]: hap = 0: .* shadow paging.* Write hap=1") as caught:
        create(host)
    assert host.steps == []
    assert caught.value.exit_code is ExitCode.CONFIG


@pytest.mark.parametrize("text", ["hap = 1", "hap = 'no'", "hap = [ 0 ]", "hap = 0\nhap = 1", "hap = 0\nxengt = 0"])
def test_a_domain_with_hap_or_without_a_gpu_is_created(host: XlHost, text: str) -> None:
    host.config.write_text(f'name = "guest"\n{text}\n')
    create(host)
    assert host.steps[0] == CREATE[0]


@pytest.mark.parametrize("step", ["create", "domid"])
def test_of_an_xl_that_was_killed_nothing_is_known(host: XlHost, step: str) -> None:
    """A domain with the name may be half made, or be another one: `xl create` would have refused because of it."""
    killed = f"import os, sys\nif sys.argv[1] == {step!r}: os.kill(os.getpid(), 9)\n"
    xl = Xl([str(script(host.config.parent / "killed", killed))])
    complaints: list[str] = []
    with pytest.raises(ToolstackError, match=rf"xl {step} .*was ended by signal 9"):
        toolstack.create(host.config, xl, host, paused=False, complain=complaints.append)
    assert (
        complaints
        == {
            "create": ["a domain guest may be left, half made and paused; look for it with: xl list"],
            "domid": ["the domain guest was created and is destroyed again"],
        }[step]
    )


def test_no_xl_here(tmp_path: Path) -> None:
    with pytest.raises(ToolstackError, match="is this dom0"):
        Xl([str(tmp_path / "xl")]).domid("guest")


def test_create_hands_the_options_to_xl(host: XlHost) -> None:
    script(
        Path(host.xl._program[0]),
        "import os, sys\n"
        f"with open({str(host.said)!r}, 'a') as said:\n"
        "    print(sys.argv[1], os.environ.get('XENGT_OPTIONS'), file=said)\n"
        f"if sys.argv[1] == 'domid': print({DOMID})\n",
    )
    create(host)
    assert host.steps == ["create --set shadow.mode=relaxed", "domid None", "start 7", "unpause None"]


# names that xl would take for something else


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("guest", ["xl domid guest", "xl destroy guest"]),
        ("-h", ["xl domid -- -h", "xl destroy -- -h"]),
        ("a b", ["xl domid a b", "xl destroy a b"]),
        # `xl destroy 2024` would destroy the domain with that id, so it is never said of a name.
        ("2024", ["xl domid 2024", "xl domid 2024"]),
    ],
)
def test_names_are_taken_for_names(host: XlHost, name: str, steps: list[str]) -> None:
    host.config.write_text(f"name = '{name}'\n")
    host.fails.write_text("domid")
    with pytest.raises(ToolstackError):
        create(host)
    assert host.steps == ["xl create -p CONFIG", *steps]


def test_a_name_of_digits_is_destroyed_by_its_id(host: XlHost) -> None:
    host.xl.destroy_named("2024")
    assert host.steps == ["xl domid 2024", "xl destroy 7"]


# interruptions


CREATOR = """
import os, sys
from pathlib import Path
from xengt_dm.service import instances, interruptions, toolstack

class Starter:
    def start(self, domid):
        print("starting", flush=True)
        sys.stdin.readline()
        with open({said!r}, "a") as file: file.write("start 7\\n")
    def stop(self, domid):
        with open({said!r}, "a") as file: file.write("stop 7\\n")

instances.remember = lambda *_, **__: None
instances.forget = lambda *_: None
with interruptions.interruptions_raised():
    toolstack.create(Path({config!r}), toolstack.Xl([{xl!r}]), Starter(), paused=False, complain=print)
"""


def creating(host: XlHost) -> subprocess.Popen[str]:
    text = CREATOR.format(said=str(host.said), config=str(host.config), xl=host.xl._program[0])
    return subprocess.Popen(
        [sys.executable, "-c", text],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_while_xl_creates(host: XlHost, number: signal.Signals) -> None:
    """A terminal sends the signal to the whole group of processes; xl finishes what it began, and that is undone."""
    script(
        Path(host.xl._program[0]),
        "import os, sys\n"
        f"open({str(host.said)!r}, 'a').write(' '.join(['xl', *sys.argv[1:]]) + chr(10))\n"
        f"if sys.argv[1] == 'create':\n"
        f"    os.mkfifo({str(host.said)!r} + '.go')\n    open({str(host.said)!r} + '.go').read()\n"
        f"    open({str(host.said)!r}, 'a').write('created' + chr(10))\n",
    )
    go = Path(f"{host.said}.go")
    with creating(host) as process:
        while not go.exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, number)
        go.write_text("")
        process.communicate(timeout=30)
    assert host.steps == ["xl create -p CONFIG", "created", "xl destroy guest"]
    assert process.returncode in (128 + number, -number, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_while_the_instance_starts(host: XlHost, number: signal.Signals) -> None:
    with creating(host) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "starting\n"
        os.killpg(process.pid, number)
        process.communicate(timeout=30)
    assert host.steps == [*CREATE, "stop 7", "xl destroy 7"]
