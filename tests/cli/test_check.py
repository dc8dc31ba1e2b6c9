"""``xengt-dm check`` on hosts made of files."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from xengt_dm.cli import check, main
from xengt_dm.cli.check import install, xen
from xengt_dm.cli.check.finding import Finding, Host, State, output_of
from xengt_dm.errors import ExitCode, HostError
from xengt_dm.hypervisor.xen import library

OK, WARNING, MISSING = State.OK, State.WARNING, State.MISSING

#: A Debian 12 control domain, as far as anyone looks.
DOM0 = {
    "sys/hypervisor/type": "xen\n",
    "sys/hypervisor/guest_type": "PV\n",
    "sys/hypervisor/version/major": "4\n",
    "sys/hypervisor/version/minor": "17\n",
    "sys/hypervisor/version/extra": ".5\n",
    "sys/hypervisor/properties/capabilities": "xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_64 \n",
    "proc/xen/capabilities": "control_d\n",
    "dev/xen/privcmd": "",
    "dev/xen/evtchn": "",
    "dev/xen/hypercall": "",
    "sys/module/xen_privcmd/refcnt": "1",
    "sys/module/xen_evtchn/refcnt": "1",
    "sys/module/xenfs/refcnt": "1",
}
VIRT_CAPS = "pv hvm hap shadow gnttab-v1 gnttab-v2\n"


class Store:
    """As much of XenStore as the checks use."""

    def __init__(self, nodes: dict[str, str]) -> None:
        self._nodes = nodes

    def __enter__(self) -> Store:  # noqa: PYI034
        return self

    def __exit__(self, *exception: object) -> None: ...

    def read(self, path: str) -> str:
        if path not in self._nodes:
            raise HostError(f"xenstore read {path}", None, errno.ENOENT)
        return self._nodes[path]

    def directory(self, path: str) -> list[str]:
        return []

    def exists(self, path: str) -> bool:
        return any(node == path or node.startswith(f"{path}/") for node in self._nodes)


GUEST = {
    "/local/domain/3/name": "guest",
    "/local/domain/3/memory/static-max": "524288",
    "/libxl/3/type": "pvh",
}

Make = Callable[..., Host]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A host: DOM0 with some files changed, or left out where the text is None; and a store, or none."""

    def host(
        changed: dict[str, str | None] | None = None,
        *,
        base: dict[str, str] = DOM0,
        nodes: dict[str, str] | None = GUEST,
        virt_caps: str | None = VIRT_CAPS,
        domid: int | None = None,
    ) -> Host:
        (tmp_path / "run").mkdir()
        for name, text in {**base, **(changed or {})}.items():
            if text is not None:
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).write_text(text)
        if nodes is not None:
            monkeypatch.setattr(Host, "store", lambda _: Store(nodes))
        return Host(tmp_path, Path("/run/xengt-dm"), domid, lambda _: virt_caps)

    return host


def states(findings: Iterator[Finding]) -> dict[str, State]:
    return {finding.name: finding.state for finding in findings}


def only(findings: Iterator[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_a_good_host(make: Make) -> None:
    host = make(domid=3)
    findings = [
        finding
        for each in check.CHECKS
        if each not in (install.check_extensions, install.check_python)
        for finding in each(host)
    ]
    assert [finding for finding in findings if finding.state is not OK] == []
    assert {finding.name for finding in findings} == {
        "xen",
        "xen version",
        "hap",
        "/dev/xen/privcmd",
        "/dev/xen/evtchn",
        "/dev/xen/hypercall",
        "kernel modules",
        "xenstore",
        "domain 3",
        "run directory",
    }


def test_a_plain_machine(make: Make) -> None:
    """Without Xen: three calm findings, and not one for each thing that a Xen would have."""
    host = make(base={}, nodes=None)
    found = {**states(xen.check_xen(host)), **states(xen.check_version(host))}
    found |= states(xen.check_paging(host)) | states(xen.check_devices(host))
    found |= states(xen.check_modules(host)) | states(xen.check_xenstore(host))
    assert found == {"xen": MISSING, "device nodes": MISSING, "xenstore": MISSING}


def test_a_guest_is_no_control_domain(make: Make) -> None:
    assert only(xen.check_xen(make({"proc/xen/capabilities": "\n"}))).text.startswith("this is a guest of a Xen")


def test_capabilities_that_cannot_be_read(make: Make) -> None:
    finding = only(xen.check_xen(make({"proc/xen/capabilities": None})))
    assert (finding.state, finding.remedy) == (WARNING, "mount -t xenfs xenfs /proc/xen")


def test_control_domain_of_another_type(make: Make) -> None:
    host = make({"sys/hypervisor/guest_type": "PVH"})
    assert states(xen.check_xen(host)) == {"xen": OK, "control domain": WARNING}


@pytest.mark.parametrize(
    ("minor", "state", "text"),
    [("12", MISSING, "4.12.5 can lose stores"), ("13", OK, "4.13.5 (needs 4.13)"), (None, WARNING, "does not tell")],
)
def test_version(make: Make, minor: str | None, state: State, text: str) -> None:
    finding = only(xen.check_version(make({"sys/hypervisor/version/minor": minor})))
    assert finding.state is state
    assert text in finding.text


@pytest.mark.parametrize(
    ("virt_caps", "state"), [(VIRT_CAPS, OK), ("pv hvm shadow", MISSING), ("", MISSING), (None, WARNING)]
)
def test_paging(make: Make, virt_caps: str | None, state: State) -> None:
    assert states(xen.check_paging(make(virt_caps=virt_caps))) == {"hap": state}


def test_no_hvm(make: Make) -> None:
    host = make({"sys/hypervisor/properties/capabilities": "xen-3.0-x86_64"})
    assert states(xen.check_paging(host)) == {"hvm": MISSING}


@pytest.mark.parametrize(
    ("node", "state", "remedy"),
    [
        ("privcmd", MISSING, "modprobe xen-privcmd"),
        ("evtchn", MISSING, "modprobe xen-evtchn"),
        ("hypercall", WARNING, "modprobe xen-privcmd"),
    ],
)
def test_device_that_is_not_there(make: Make, node: str, state: State, remedy: str) -> None:
    findings = {found.name: found for found in xen.check_devices(make({f"dev/xen/{node}": None}))}
    finding = findings.pop(f"/dev/xen/{node}")
    assert (finding.state, finding.remedy) == (state, remedy)
    assert all(other.state is OK for other in findings.values())


def test_device_that_is_not_ours(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = list(xen.check_devices(make()))
    assert [finding.state for finding in found] == [MISSING, MISSING, WARNING]
    assert all("not permitted" in finding.text for finding in found)


def test_modules(make: Make) -> None:
    finding = only(xen.check_modules(make({"sys/module/xen_evtchn/refcnt": None})))
    assert (finding.state, finding.remedy) == (WARNING, "modprobe -a xen_evtchn")


def test_store_that_does_not_answer(make: Make) -> None:
    finding = only(xen.check_xenstore(make(nodes=None)))
    assert finding.state is MISSING
    assert "is xenstored running" in finding.text
    assert "systemctl start xenstored" in finding.remedy


@pytest.mark.parametrize(
    ("domid", "changed", "state", "text"),
    [
        (3, {}, OK, "guest, type pvh"),
        (4, {}, MISSING, "no such domain"),
        (3, {"/libxl/3/type": "pv"}, MISSING, "not an HVM or PVH domain"),
        (0, {"/local/domain/0/name": "Domain-0"}, MISSING, "not an HVM or PVH domain"),
        (5, {"/local/domain/5/vm": "/vm/5"}, MISSING, "no name, type unknown, but no memory/static-max"),
    ],
)
def test_domain(make: Make, domid: int, changed: dict[str, str], state: State, text: str) -> None:
    findings = {found.name: found for found in xen.check_xenstore(make(nodes=GUEST | changed, domid=domid))}
    assert (findings[f"domain {domid}"].state, findings[f"domain {domid}"].text) == (state, text)


# this installation


def fail_to_load(error: HostError) -> Callable[[], Any]:
    def load() -> None:
        raise error

    return load


@pytest.mark.parametrize(
    ("number", "text", "remedy"),
    [(errno.ENOSYS, "not built", "libxen-dev"), (errno.ELIBACC, "does not load: why", "libxendevicemodel1")],
)
def test_extension(make: Make, monkeypatch: pytest.MonkeyPatch, number: int, text: str, remedy: str) -> None:
    monkeypatch.setattr(library, "load", fail_to_load(HostError("import", None, number, "why")))
    finding = {found.name: found for found in install.check_extensions(make())}["_xen"]
    assert (finding.state, finding.text) == (MISSING, text)
    assert remedy in finding.remedy


def test_loaded_libraries() -> None:
    maps = (
        "7f00-7f01 r--p 00000000 08:01 11 /usr/lib/x86_64-linux-gnu/libxenevtchn.so.1.2\n"
        "7f01-7f02 r-xp 00001000 08:01 11 /usr/lib/x86_64-linux-gnu/libxenevtchn.so.1.2\n"
        "7f02-7f03 r--p 00000000 08:01 12 /opt/xen/lib/libxendevicemodel.so.1.4\n"
        "7f03-7f04 r--p 00000000 08:01 13 /usr/lib/libc.so.6\n"
        "7f04-7f05 rw-p 00000000 00:00 0\n"
    )
    assert install.loaded_libraries(maps) == ["libxendevicemodel.so.1.4", "libxenevtchn.so.1.2"]


@pytest.mark.parametrize(
    ("name", "installed", "state", "text"),
    [
        ("trio", "0.22.0", OK, "0.22.0 (needs 0.22)"),
        ("trio", "0.9", MISSING, "0.9 is older than 0.22"),
        ("trio", "1.0rc1", OK, "1.0rc1 (needs 0.22)"),
        ("trio", None, MISSING, "not installed"),
        ("prometheus-client", None, WARNING, "not installed; only the metrics exporter needs it"),
    ],
)
def test_package(monkeypatch: pytest.MonkeyPatch, name: str, installed: str | None, state: State, text: str) -> None:
    def version(asked: str) -> str:
        if installed is None:
            raise importlib.metadata.PackageNotFoundError(asked)
        return installed

    monkeypatch.setattr(importlib.metadata, "version", version)
    finding = install.package_finding(name, "0.22")
    assert (finding.state, finding.text) == (state, text)


def test_requirements_of_the_distribution(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["cffi>=1.15.1", "click (>=8.1.3)", 'pytest>=7.2; extra == "test"', "unbounded"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: wanted)
    assert states(install.check_python(make())) == {"python cffi": OK, "python click": OK}


def test_not_installed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    assert states(install.check_python(make())) == {"python packages": WARNING}


def test_run_directory(make: Make) -> None:
    host = make()
    assert only(install.check_run_dir(host)).text == "/run/xengt-dm can be made"
    host.path("/run/xengt-dm").mkdir()
    assert only(install.check_run_dir(host)).text == "/run/xengt-dm is writable"
    host.path("/run/xengt-dm").rmdir()
    host.path("/run/xengt-dm").write_text("in the way")
    assert only(install.check_run_dir(host)).state is MISSING


def test_output_of() -> None:
    assert output_of(["echo", "a"]) == "a\n"
    assert output_of(["false"]) is None
    assert output_of(["no-such-command-here"]) is None


# the command

GOOD = Finding("xen", OK, "there")
POOR = Finding("hap", WARNING, "unknown", "look")
BAD = Finding("xenstore", MISSING, "gone", "start it")


def run(monkeypatch: pytest.MonkeyPatch, findings: list[Finding], *arguments: str) -> tuple[int, str]:
    seen: list[Host] = []

    def only_check(host: Host) -> Iterator[Finding]:
        seen.append(host)
        return iter(findings)

    monkeypatch.setattr(check, "CHECKS", (only_check,))
    result = CliRunner().invoke(main, ["check", *arguments])
    if seen:
        assert seen[0].root == Path("/")
    return result.exit_code, result.output


def test_command_for_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = run(monkeypatch, [GOOD, POOR, BAD])
    assert code == 69
    assert output == (
        "ok       xen       there\n"
        "warning  hap       unknown\n"
        "                   -> look\n"
        "missing  xenstore  gone\n"
        "                   -> start it\n"
        "\n"
        "`xengt-dm run` cannot work here: 1 missing. `xengt-dm demo` needs no Xen.\n"
    )


def test_warnings_are_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = run(monkeypatch, [GOOD, POOR])
    assert code == 0
    assert output.endswith("`xengt-dm run` can work here.\n")


def test_command_for_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = run(monkeypatch, [GOOD, BAD], "--json")
    assert code == 69
    assert json.loads(output) == {
        "v": 1,
        "ok": False,
        "findings": [
            {"name": "xen", "state": "ok", "text": "there", "remedy": ""},
            {"name": "xenstore", "state": "missing", "text": "gone", "remedy": "start it"},
        ],
    }


def test_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, [], "--domid", "99999")[0] == ExitCode.USAGE


def test_the_whole_command_on_this_machine() -> None:
    """Whatever this machine is: an answer and no traceback."""
    result = CliRunner().invoke(main, ["check", "--json", "--domid", "1"])
    assert result.exit_code in (0, 69)
    assert json.loads(result.output)["ok"] is (result.exit_code == 0)
