"""What the Debian package does when it is installed and removed, as far as its scripts say so."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEBIAN = ROOT / "debian"


def script(name: str, root: Path, *arguments: str, status: int = 0) -> list[str]:
    """What a maintainer script asks systemd for, and our program. ``root`` stands before the paths that it names."""
    said = root / "said"
    said.touch()
    for name_of_program, shown in (("deb-systemd-invoke", ""), ("xengt-dm", "xengt-dm ")):
        program = root / name_of_program
        program.write_text(f'#!/bin/sh\necho "{shown}$*" >> {said}\nexit {status}\n')
        program.chmod(0o755)
    (root / "run" / "systemd" / "system").mkdir(parents=True, exist_ok=True)
    text = re.sub(r"(?<=\s)/(run|var)/", rf"{root}/\1/", (DEBIAN / f"xengt-dm.{name}").read_text())
    environment = {**os.environ, "PATH": f"{root}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["sh", "-e", "-c", text, name, *arguments], env=environment, check=True)
    return said.read_text().splitlines()


def test_the_watcher_is_stopped_before_the_instances(tmp_path: Path) -> None:
    """Or it would start them again."""
    assert script("prerm", tmp_path, "remove") == ["stop xengt-dm-watch.service", "stop xengt-dm@*.service"]


def test_an_upgrade_stops_no_instance(tmp_path: Path) -> None:
    assert script("prerm", tmp_path, "upgrade", "0.2.0") == []


@pytest.mark.parametrize("status", [0, 69])
def test_after_an_upgrade_the_instances_are_replaced(tmp_path: Path, status: int) -> None:
    """One that cannot be continues, and that is no failure of the installation."""
    (tmp_path / "run" / "xengt-dm").mkdir(parents=True)
    assert script("postinst", tmp_path, "configure", "0.0.9", status=status) == ["xengt-dm upgrade --all"]


def test_a_first_installation_replaces_none(tmp_path: Path) -> None:
    assert script("postinst", tmp_path, "configure", "0.0.9") == [], "nothing has run since the host booted"
    (tmp_path / "run" / "xengt-dm").mkdir(parents=True)
    assert script("postinst", tmp_path, "configure", "") == []
    assert script("postinst", tmp_path, "abort-upgrade", "0.2.0") == []


@pytest.mark.parametrize(("action", "left"), [("purge", False), ("remove", True), ("upgrade", True)])
def test_a_purge_leaves_nothing(tmp_path: Path, action: str, left: bool) -> None:
    made = [tmp_path / "var" / "log" / "xengt-dm" / "7.log", tmp_path / "run" / "xengt-dm" / "7" / "stats"]
    for each in made:
        each.parent.mkdir(parents=True)
        each.touch()
    (tmp_path / "var" / "log" / "syslog").touch()
    script("postrm", tmp_path, action)
    assert [each.exists() for each in made] == [left, left]
    assert [(tmp_path / each / "xengt-dm").exists() for each in ("var/log", "run")] == [left, left]
    assert (tmp_path / "var" / "log" / "syslog").exists()


def test_units_run_nothing_that_a_small_host_lacks() -> None:
    """/bin/kill is in procps, and xenstore-exists in a package of Xen's."""
    units = "".join(path.read_text() for path in (ROOT / "systemd").glob("*.service"))
    programs = re.findall(r"^Exec\w+=[-+@!:]*(\S+)", units, re.MULTILINE) + re.findall(r"\bexec (\S+)", units)
    assert set(programs) == {
        "/usr/bin/xengt-dm",
        "/bin/sh",
        "/usr/bin/nsenter",  # util-linux, which every host has
    }
    reload, after_the_end = re.findall(r"/bin/sh -c '(.*)'", units)
    assert reload == "kill -HUP ${MAINPID}", "the shell's own kill"
    assert re.fullmatch(r"case \S+ in [^)]*\) ;; \*\) exec /usr/bin/nsenter [^;]* ;; esac", after_the_end)


def test_documents_are_installed_where_the_readme_links_to() -> None:
    installed = (DEBIAN / "xengt-dm.docs").read_text().split()
    assert installed == ["README.md", "docs"]
    links = re.findall(r"\]\((docs/[^)#]+)", (ROOT / "README.md").read_text())
    assert links
    assert all((ROOT / link).is_file() for link in links)
    assert "dh_compress -X.md" in (DEBIAN / "rules").read_text()


def test_logs_are_rotated() -> None:
    """Those of instances without systemd, which xengt_dm/service/instances.py writes."""
    text = (DEBIAN / "xengt-dm.logrotate").read_text()
    assert "/var/log/xengt-dm/*.log {" in text
    assert "copytruncate" in text


def test_what_a_distribution_would_test(tmp_path: Path) -> None:
    """The commands of autopkgtest; without a directory of the host's configuration and of its daemons."""
    commands = re.findall(r"^Test-Command: (.+)$", (DEBIAN / "tests" / "control").read_text(), re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, bool(done.stdout)) == (0, True), f"{command}: {done.stderr}"
