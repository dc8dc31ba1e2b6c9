"""`xengt-dm create` and the starting of instances, with stand-ins for xl, systemctl and the daemon."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

from xengt_dm.cli.options import name_of
from xengt_dm.config.files import assign
from xengt_dm.errors import ConfigError, DomainGoneError, ExitCode, HostError
from xengt_dm.service import instances, toolstack
from xengt_dm.service.instances import InstanceError, Spawner, Systemd
from xengt_dm.service.toolstack import ToolstackError, Xl

WRAPPER = Path(__file__).resolve().parents[2] / "etc" / "xl" / "qemu-wrapper"
DOMID = 7


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return path


class Host:
    """xl, and instances, that write down what they are asked to do; what is in ``fails`` fails."""

    def __init__(self, folder: Path) -> None:
        self.said = folder / "said"
        self.fails = folder / "fails"
        self.said.touch()
        self.fails.touch()
        program = script(
            folder / "xl",
            f"import sys\nopen({str(self.said)!r}, 'a').write(' '.join(['xl', *sys.argv[1:]]) + chr(10))\n"
            f"if sys.argv[1] == 'domid': print({DOMID})\n"
            f"sys.exit(1 if sys.argv[1] in open({str(self.fails)!r}).read().split() else 0)\n",
        )
        self.xl = Xl([str(program)])
        self.config = folder / "guest.cfg"
        self.config.write_text('name = "guest"\nxengt = [ "shadow.mode=relaxed" ]\n')

    def start(self, domid: int) -> None:
        self._note("start", domid)

    def stop(self, domid: int) -> None:
        self._note("stop", domid)

    def _note(self, what: str, domid: int) -> None:
        with self.said.open("a") as said:
            said.write(f"{what} {domid}\n")
        if what in self.fails.read_text().split():
            raise InstanceError(f"{what} failed")

    @property
    def steps(self) -> list[str]:
        return self.said.read_text().replace(str(self.config), "CONFIG").splitlines()


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where options for starts are kept."""
    folder = tmp_path / "launch"
    for function in (instances.remember, instances.forget, instances.remembered):
        defaults = tuple(folder if each == instances.LAUNCH else each for each in function.__defaults__ or ())
        monkeypatch.setattr(function, "__defaults__", defaults)
    return folder


@pytest.fixture
def host(tmp_path: Path, launch: Path) -> Host:
    return Host(tmp_path)


CREATE = ["xl create -p CONFIG", "xl domid guest"]


def create(host: Host, *, paused: bool = False) -> tuple[int, list[str]]:
    complaints: list[str] = []
    domid, _ = toolstack.create(host.config, host.xl, host, paused=paused, complain=complaints.append)
    return domid, complaints


def test_the_domain_runs_when_its_instance_serves(host: Host, launch: Path) -> None:
    assert create(host) == (DOMID, [])
    assert host.steps == [*CREATE, "start 7", "xl unpause 7"]
    assert (launch / "7").read_text() == "XENGT_OPTIONS=--set shadow.mode=relaxed\n"


def test_paused(host: Host) -> None:
    create(host, paused=True)
    assert host.steps == [*CREATE, "start 7"]


def test_no_gpu_wanted(host: Host, launch: Path) -> None:
    host.config.write_text("name = 'guest'\nxengt = 0\n")
    create(host)
    assert host.steps == [*CREATE, "xl unpause 7"]
    assert not launch.exists()


@pytest.mark.parametrize(
    ("fails", "steps"),
    [
        ("create", CREATE[:1]),
        ("domid", CREATE),
        ("start", [*CREATE, "start 7", "stop 7", "xl destroy 7"]),
        ("unpause", [*CREATE, "start 7", "xl unpause 7", "stop 7", "xl destroy 7"]),
    ],
)
def test_undone_if_a_step_fails(host: Host, launch: Path, fails: str, steps: list[str]) -> None:
    host.fails.write_text(fails)
    with pytest.raises((ToolstackError, InstanceError), match=fails):
        create(host)
    assert host.steps == steps
    assert not (launch / "7").exists()


def test_the_first_failure_is_the_one_that_is_told(host: Host) -> None:
    host.fails.write_text("start stop destroy")
    complaints: list[str] = []
    with pytest.raises(InstanceError, match="start failed"):
        toolstack.create(host.config, host.xl, host, paused=False, complain=complaints.append)
    assert host.steps == [*CREATE, "start 7", "stop 7", "xl destroy 7"]
    assert complaints == [
        "while undoing what was done: stop failed",
        "while undoing what was done: xl destroy 7 ended with status 1",
    ]


def test_a_bad_file_creates_nothing(host: Host) -> None:
    host.config.write_text('name = "guest"\nxengt = [ "shadow.mode=loose" ]\n')
    with pytest.raises(ConfigError):
        create(host)
    assert host.steps == []


def test_no_xl_here(tmp_path: Path) -> None:
    with pytest.raises(ToolstackError, match="is this dom0"):
        Xl([str(tmp_path / "xl")]).domid("guest")


def test_remembering(launch: Path) -> None:
    assert instances.remembered(DOMID) == []
    instances.remember(DOMID, [assign("shadow.mode", "relaxed", "x"), assign("vgt_fence_sz", "4", "x")])
    assert instances.remembered(DOMID) == ["--set", "shadow.mode=relaxed", "--set", "device.fences=4"]
    instances.remember(DOMID, [])
    assert instances.remembered(DOMID) == []
    instances.forget(DOMID)


class Manager:
    """A systemctl that writes down what it is asked for."""

    def __init__(self, folder: Path, status: int) -> None:
        self.said = folder / "said"
        script(
            folder / "systemctl",
            f"import sys\nopen({str(self.said)!r}, 'a').write(' '.join(sys.argv[1:]) + chr(10))\n"
            f"print('Job for it failed.', file=sys.stderr)\nsys.exit({status})\n",
        )


@pytest.mark.parametrize("status", [0, 3])
def test_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    manager = Manager(tmp_path, status)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    if status:
        with pytest.raises(InstanceError, match=r"start xengt-dm@7\.service: Job for it failed\. .* XENGT_DOMID=7"):
            Systemd().start(DOMID)
        return
    Systemd().start(DOMID)
    Systemd().stop(DOMID)
    assert manager.said.read_text().splitlines() == [
        "start xengt-dm@7.service",
        "stop xengt-dm@7.service",
        "reset-failed xengt-dm@7.service",
    ]


DAEMON = """
import json, os, signal, socket, sys
print("arguments", json.dumps(sys.argv[1:]), flush=True)
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.connect(os.environ["NOTIFY_SOCKET"])
manager.send(b"STATUS=coming")
{then}
"""
SERVES = "manager.send(b'READY=1\\nSTATUS=x')\nsignal.pause()"


@pytest.fixture
def spawner(tmp_path: Path, launch: Path) -> Callable[[str], Spawner]:
    def make(then: str) -> Spawner:
        program = script(tmp_path / "daemon", DAEMON.format(then=then))
        return Spawner([str(program)], launch, tmp_path / "logs")

    return make


def test_without_systemd(spawner: Callable[[str], Spawner], tmp_path: Path) -> None:
    started = spawner(SERVES)
    instances.remember(DOMID, [assign("shadow.mode", "relaxed", "x")])
    started.start(DOMID)
    arguments = (tmp_path / "logs" / "7.log").read_text().split(maxsplit=1)[1]
    assert json.loads(arguments) == ["--domid", "7", "--set", "shadow.mode=relaxed"]
    started.stop(DOMID)
    started.stop(DOMID)


def test_one_that_does_not_come_up(spawner: Callable[[str], Spawner], tmp_path: Path) -> None:
    words = r"domain 7 ended with status 78; its last words in .*7\.log: xengt-dm: bad é\ufffd$"
    with pytest.raises(InstanceError, match=words):
        spawner("sys.stdout.buffer.write('xengt-dm: bad é'.encode() + b'\\xff\\n\\n')\nsys.exit(78)").start(DOMID)


def test_one_that_ends_without_a_word(tmp_path: Path, launch: Path) -> None:
    with pytest.raises(InstanceError, match=r"domain 7 ended with status 1; .*7\.log says nothing of it$"):
        Spawner(["/bin/false"], launch, tmp_path / "logs").start(DOMID)


def test_one_that_takes_too_long(spawner: Callable[[str], Spawner], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances, "READY_SECONDS", 0.5)
    with pytest.raises(InstanceError, match=r"does not serve after 0\.5 s"):
        spawner("signal.pause()").start(DOMID)


def test_no_such_program(tmp_path: Path, launch: Path) -> None:
    with pytest.raises(Exception, match="No such file"):
        Spawner([str(tmp_path / "none")], launch, tmp_path / "logs").start(DOMID)


# the wrapper of QEMU


def wrapped(folder: Path, *words: str, status: int = 0) -> tuple[int, list[str], list[str]]:
    """Run the wrapper: its status, what our command and what QEMU were started with; QEMU has the wrapper's pid."""
    said = folder / "said"
    program = script(
        folder / "xengt-dm",
        f"import json, sys\nopen({str(said)!r}, 'a').write(json.dumps(sys.argv[1:]) + chr(10))\nsys.exit({status})\n",
    )
    qemu = script(folder / "qemu", "import json, os, sys\nprint(json.dumps([os.getpid(), *sys.argv[1:]]))\n")
    environment = {**os.environ, "XENGT_DM": str(program), "XENGT_QEMU": str(qemu)}
    with subprocess.Popen([WRAPPER, *words], env=environment, stdout=subprocess.PIPE, text=True) as process:
        output, _ = process.communicate()
    started = json.loads(said.read_text()) if said.exists() else []
    became = json.loads(output) if output else []
    assert not became or became[0] == process.pid
    return process.returncode, started, became[1:]


def test_wrapper_starts_the_instance_and_becomes_qemu(tmp_path: Path) -> None:
    words = ["-xen-domid", "12", "-name", "a b", "", "*", "-m", "64"]
    assert wrapped(tmp_path, *words) == (0, ["start", "--domid", "12"], words)


@pytest.mark.parametrize("words", [[], ["-version"], ["-machine", "none,accel=xen"], ["-xen-domid-restrict"]])
def test_wrapper_without_a_domain_is_qemu(tmp_path: Path, words: list[str]) -> None:
    assert wrapped(tmp_path, *words) == (0, [], words)


def test_wrapper_does_not_become_qemu_without_an_instance(tmp_path: Path) -> None:
    assert wrapped(tmp_path, "-xen-domid", "12", status=69) == (69, ["start", "--domid", "12"], [])


def test_a_restart_after_the_domain_went_is_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With files of domains to choose from, the store is asked for the name; without a domain it has none."""

    class Store:
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def read(self, path: str) -> str:
            raise HostError(f"xenstore read {path}", None, errno.ENOENT)

    monkeypatch.setattr("xengt_dm.xenstore.XenStore", Store)
    (tmp_path / "domains").mkdir()
    (tmp_path / "domains" / "other.toml").touch()
    with pytest.raises(DomainGoneError, match="there is no such domain") as caught:
        name_of(tmp_path, DOMID, None)
    assert caught.value.exit_code is ExitCode.NO_DOMAIN
