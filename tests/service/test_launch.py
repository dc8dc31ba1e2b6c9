"""The starting of instances and what is remembered for it, with stand-ins for systemctl and the daemon."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

from tests.support.toolstack import DOMID, script
from xengt_dm.cli import start
from xengt_dm.cli.options import name_of
from xengt_dm.config.files import assign
from xengt_dm.errors import DomainGoneError, ExitCode, HostError, UsageError
from xengt_dm.service import instances, launched
from xengt_dm.service.instances import InstanceError, Spawner, Systemd

WRAPPER = Path(__file__).resolve().parents[2] / "etc" / "xl" / "qemu-wrapper"


def test_remembering(launch: Path) -> None:
    assert instances.remembered(DOMID) == []
    instances.remember(DOMID, [assign("shadow.mode", "relaxed", "x"), assign("vgt_fence_sz", "4", "x")])
    assert instances.remembered(DOMID) == ["--set", "shadow.mode=relaxed", "--set", "device.fences=4"]
    instances.remember(DOMID, [])
    assert instances.remembered(DOMID) == []
    instances.forget(DOMID)


class Manager:
    """A systemctl that writes down what it is asked for, and says that every unit is in this state."""

    def __init__(self, folder: Path, status: int, state: str = "active") -> None:
        self.said = folder / "said"
        script(
            folder / "systemctl",
            f"import sys\nopen({str(self.said)!r}, 'a').write(' '.join(sys.argv[1:]) + chr(10))\n"
            f"if sys.argv[1] == 'show': print({state!r} and 'ActiveState=' + {state!r})\n"
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
        "show xengt-dm@7.service --property=ActiveState",
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


def test_the_name_is_known_even_if_there_is_no_file_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is added while the daemon runs then applies to its next reload."""

    class Store:
        fails = 0

        def __init__(self) -> None:
            if self.fails:
                raise HostError("xenstore open", None, self.fails)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def read(self, path: str) -> str:
            assert path == f"/local/domain/{DOMID}/name"
            return "guest"

    monkeypatch.setattr("xengt_dm.xenstore.XenStore", Store)
    assert name_of(tmp_path, DOMID, None) == "guest"
    for number in (errno.ENOENT, errno.ECONNREFUSED, errno.ETIMEDOUT):
        monkeypatch.setattr(Store, "fails", number)
        assert name_of(tmp_path, DOMID, None) is None
    (tmp_path / "domains").mkdir()
    (tmp_path / "domains" / "other.toml").touch()
    with pytest.raises(HostError, match="xenstore open"):
        name_of(tmp_path, DOMID, None)


@pytest.mark.parametrize("state", ["inactive", "failed", "activating", ""])
def test_a_unit_that_was_skipped_is_no_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    """`systemctl start` ends with 0 where a condition of the unit does not hold."""
    Manager(tmp_path, 0, state)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(InstanceError, match=f"the unit is {state or 'nothing'}, not active"):
        Systemd().start(DOMID)


def test_a_unit_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What systemctl says is that something failed; what the instance said names the cause, for example hap=1."""
    Manager(tmp_path, 1)
    script(
        tmp_path / "journalctl",
        "import sys\nassert sys.argv[-1] == 'XENGT_DOMID=7'\n"
        "print('xengt-dm: an earlier end')\nprint('xengt-dm: EOPNOTSUPP: write\\x1b hap=1')\nprint('reaped')\n",
    )
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(InstanceError) as caught:
        Systemd().start(DOMID)
    assert str(caught.value) == (
        "systemctl start xengt-dm@7.service: Job for it failed. It said: xengt-dm: EOPNOTSUPP: write\\x1b hap=1. "
        "The log: journalctl XENGT_DOMID=7"
    )
    script(tmp_path / "journalctl", "import sys\nsys.exit(1)\n")
    with pytest.raises(InstanceError, match=r"Job for it failed\. The log: journalctl XENGT_DOMID=7"):
        Systemd().start(DOMID)


def test_a_systemctl_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "systemctl", "import signal\nsignal.pause()\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(instances, "START_SECONDS", 0.2)
    with pytest.raises(InstanceError, match=r"systemctl start xengt-dm@7\.service did not end within 0\.2 s"):
        Systemd().start(DOMID)


# what create remembers, and for whom


UUID = "0f8a3c1e-0000-4000-8000-00000000000a"
OTHER = "0f8a3c1e-0000-4000-8000-00000000000b"
OPTIONS = [assign("shadow.mode", "relaxed", "x")]


def test_what_a_domain_was_launched_with_is_for_that_domain(launch: Path) -> None:
    instances.remember(DOMID, OPTIONS, launch, UUID)
    assert (launch / "7").read_text() == f"XENGT_OPTIONS=--set shadow.mode=relaxed\nXENGT_UUID={UUID}\n"
    assert instances.launch_of(DOMID, launch) == (["--set", "shadow.mode=relaxed"], UUID)
    for same in (UUID, None):
        instances.forget_others(DOMID, same, launch)
        assert instances.remembered(DOMID) == ["--set", "shadow.mode=relaxed"]
    instances.forget_others(DOMID, OTHER, launch)
    assert instances.launch_of(DOMID, launch) is None
    instances.remember(DOMID, OPTIONS, launch)
    instances.forget_others(DOMID, OTHER, launch)
    assert instances.remembered(DOMID) == ["--set", "shadow.mode=relaxed"]


def test_a_launch_without_options_is_remembered_too(launch: Path) -> None:
    """So that the guest has its instance again when it reboots."""
    instances.remember(DOMID, [], launch, UUID)
    assert instances.launch_of(DOMID, launch) == ([], UUID)


def test_a_unit_started_by_hand_takes_no_options_of_another_domain() -> None:
    """It has them at the end of its command line and in its environment, with the uuid that they are for."""
    words = "--set shadow.mode=relaxed --set device.fences=4"
    sets = ("log.level=debug", "shadow.mode=relaxed", "device.fences=4")
    environment = {"XENGT_OPTIONS": words, "XENGT_UUID": UUID}
    assert launched.own_settings(sets, OTHER, environment) == ("log.level=debug",)
    assert launched.own_settings(sets, UUID, environment) == sets
    assert launched.own_settings(sets, None, environment) == sets
    assert launched.own_settings(sets, OTHER, {"XENGT_OPTIONS": words}) == sets
    assert launched.own_settings(sets, OTHER, {}) == sets
    assert launched.own_settings(("a=1",), OTHER, environment) == ("a=1",)


def test_options_that_a_unit_would_read_otherwise(launch: Path) -> None:
    for word in ("a b", "$HOME", "'", "a\nb"):
        with pytest.raises(UsageError, match="XENGT_OPTIONS"):
            instances.remember_words(DOMID, ["--set", "x=$(date)", word], launch)
    assert not launch.exists()


def test_a_full_disk_leaves_no_half_of_a_launch(tmp_path: Path) -> None:
    folder = tmp_path / "launch"
    folder.mkdir()
    (folder / "7").mkdir()  # what cannot be replaced
    with pytest.raises(HostError, match=r"write .*/launch/7"):
        instances.remember(DOMID, OPTIONS, folder)
    assert [path.name for path in folder.iterdir()] == ["7"]


def test_start_takes_over_what_create_hands_down(launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the environment of xl, through a wrapper in QEMU's place. Another domain's options are dropped."""
    monkeypatch.setattr("xengt_dm.service.domains.uuid_of", lambda *_: UUID)
    monkeypatch.setattr("xengt_dm.xenstore.XenStore", contextlib.nullcontext)
    instances.remember(DOMID, OPTIONS, launch, OTHER)
    start._check_launch(DOMID)
    assert instances.launch_of(DOMID, launch) is None
    monkeypatch.setenv("XENGT_OPTIONS", "--set device.fences=4")
    start._check_launch(DOMID)
    assert instances.launch_of(DOMID, launch) == (["--set", "device.fences=4"], UUID)


def test_an_interrupted_start_leaves_no_process(spawner: Callable[[str], Spawner], tmp_path: Path) -> None:
    started = spawner("os.kill(os.getppid(), signal.SIGINT)\nsignal.pause()")
    with pytest.raises(KeyboardInterrupt):
        started.start(DOMID)
    assert started._children == {}


@pytest.mark.parametrize(
    ("words", "domid"),
    [
        (["--xen-domid", "12"], "12"),
        (["-xen-domid", "12", "-name", "-xen-domid", "-m", "64"], "12"),
        (["-xen-domid", "12", "-name", "\\n$(false) `false` *", "-xen-domid-restrict"], "12"),
        (["-name", "a b", "-xen-domid", "-n"], "-n"),
    ],
)
def test_wrapper_takes_words_as_they_are(tmp_path: Path, words: list[str], domid: str) -> None:
    """What is no domain id is for `start` to refuse."""
    assert wrapped(tmp_path, *words) == (0, ["start", "--domid", domid], words)


def test_wrapper_becomes_the_qemu_that_was_asked_for_or_none(tmp_path: Path) -> None:
    environment = {**os.environ, "XENGT_DM": "/bin/true", "XENGT_QEMU": str(tmp_path / "none")}
    done = subprocess.run([WRAPPER, "-version"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (69, "")
    assert f"XENGT_QEMU is {tmp_path}/none, which cannot be run" in done.stderr
