"""dom0 under systemd, with a PVH and an HVM guest served at once: what an operator does to them, and what is left."""

import json
import re
import time
import urllib.request
from pathlib import Path

from dom0.checks import require, say, sized
from dom0.guest import Guest, created
from dom0.instances import (
    STEP_SECONDS,
    announce_again,
    audit,
    check_audit,
    check_end,
    check_no_failures,
    check_served,
    more_stores,
    properties,
    show_logs,
    state,
    status,
    unit,
    wait_active,
)
from dom0.libxen import DeviceModel
from dom0.programs import run as command

GUESTS = ("stop", "stop_hvm")
SYSTEMD = True
# With two, a machine of this scenario was seen twice to fall asleep in the middle of a step, on Xen 4.17 only: both of
# QEMU's threads of processors idle, and nothing going on but a timer of each second. What is lost there is not known.
CPUS = 1

# The same as in tests/lab/guest/stop.c.
_ANNOUNCED = 1
_ORDER_GENTLY = 4
_STORES_SERVED = 50
_STORES_ALONE = 150
# Under emulation dpkg takes four minutes. Its postinst runs the command that the gate's size runs.
_BY_DPKG = sized(False, True)
_METRICS = "http://127.0.0.1:9917/metrics"
# xengt_dm/run_dir/owner.py.
_UID_BASE = 0x70000000

_GENERATION = 9
_PVH_CONFIG = f'xengt = [ "device.generation={_GENERATION}" ]'
_HVM_CONFIG = """\
vga = "none"
serial = "none"
usb = 0
device_model_override = "/usr/libexec/xengt-dm/qemu-wrapper"
"""
_HVM_SETTINGS = """\
[device]
bar0_gpa = 0xf8000000
"""


def _check_confined(guest: Guest) -> None:
    """The running instance is nobody, and has nothing."""
    pid = properties(unit(guest.domid), "MainPID")["MainPID"]
    process = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    uid = str(_UID_BASE + guest.domid)
    require(
        process["Uid"].split() == [uid] * 4, f"the instance of domain {guest.domid} runs as {process['Uid'].split()}"
    )
    require(not process["Groups"].split(), f"the instance has the groups {process['Groups']}")
    for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
        require(int(process[name], 16) == 0, f"the instance has capabilities: {name} {process[name]}")
    require(process["NoNewPrivs"].strip() == "1", "the instance can get new privileges")


def _check_reach(guest: Guest, other: Guest) -> None:
    """What an instance of one domain becomes reaches that domain, and nothing of another."""
    pid = properties(unit(other.domid), "MainPID")["MainPID"]
    reached = json.loads(command("python3", "/lab/dom0/confined.py", str(guest.domid), str(other.domid), pid))
    for what, error in reached["own"].items():
        require(error is None, f"a confined process cannot {what} of its own domain: {error}")
    for what, error in reached["other"].items():
        require(error in ("EPERM", "EACCES"), f"a confined process could {what} of another domain: {error}")


def _scrape() -> dict[int, float]:
    """Trapped stores by domain, as Prometheus would get them."""
    with urllib.request.urlopen(_METRICS, timeout=STEP_SECONDS) as answer:
        text = answer.read().decode()
    pattern = r'^xengt_traps_total\{domid="(\d+)",target="memory"\} (\S+)$'
    return {int(domid): float(count) for domid, count in re.findall(pattern, text, re.MULTILINE)}


def _check_stopped(guest: Guest, servers: int) -> None:
    model = DeviceModel(guest.domid)
    found = model.servers()
    model.close()
    require(len(found) == servers, f"domain {guest.domid} has the ioreq servers {found}")
    left = Path(f"/run/xengt-dm/{guest.domid}")
    require(not left.exists(), f"{left} is left")


def run_service(pvh: Guest, hvm: Guest) -> dict[str, int | float | str]:
    """The steps, with both guests created."""
    hvm.start()
    for guest in (pvh, hvm):
        guest.reach(_ANNOUNCED, STEP_SECONDS)
        require(state(guest.domid) == "active", f"{unit(guest.domid)} is {state(guest.domid)}")
        _check_confined(guest)
        guest.order(_ORDER_GENTLY)
    told = json.loads(command("xengt-dm", "status", "--domid", str(pvh.domid), "--json"))
    require(told["generation"] == _GENERATION, "the instance does not know what the guest's xl file said")
    for guest in (pvh, hvm):
        guest.leave(_ANNOUNCED)
    for guest in (pvh, hvm):
        more_stores(guest, _STORES_SERVED, "under its instance")
    scraped = _scrape()
    for guest in (pvh, hvm):
        require(scraped.get(guest.domid, 0) > 0, f"the metrics of domain {guest.domid} show no traps: {scraped}")
    _check_reach(pvh, hvm)

    say("killing the HVM guest's instance")
    before = int(properties(unit(hvm.domid), "MainPID")["MainPID"])
    command("systemctl", "kill", "--signal=KILL", unit(hvm.domid))
    wait_active(hvm.domid, "systemd to start it again", after=before)
    announce_again(hvm)

    say("replacing both instances")
    processes = {guest.domid: status(guest.domid)["pid"] for guest in (pvh, hvm)}
    package = [str(path) for path in Path("/lab").glob("*.deb")]
    said = command("dpkg", "--install", *package) if _BY_DPKG else command("xengt-dm", "upgrade", "--all")
    unserved = [float(seconds) for seconds in re.findall(r"were not served for (\S+) s$", said, re.MULTILINE)]
    require(len(unserved) == len(processes), f"not both instances were replaced: {said}")
    for guest in (pvh, hvm):
        told = status(guest.domid)
        require(told["pid"] != processes[guest.domid], f"domain {guest.domid} has the same process as before")
        require(told["state_kept"] is True, f"the new instance of domain {guest.domid} lost its state: {told}")
        require(state(guest.domid) == "active", f"{unit(guest.domid)} is {state(guest.domid)}")
        check_served(guest, "after its instance was replaced")
        audit(guest)
    check_no_failures()

    say("stopping both instances")
    started = time.monotonic()
    command("systemctl", "stop", unit(pvh.domid), unit(hvm.domid))
    stop_seconds = time.monotonic() - started
    _check_stopped(pvh, 0)
    _check_stopped(hvm, 1)  # QEMU's
    for guest in (pvh, hvm):
        more_stores(guest, _STORES_ALONE, "on its own")

    say("starting both again")
    command("systemctl", "start", unit(pvh.domid), unit(hvm.domid))
    require(status(pvh.domid)["generation"] == _GENERATION, "a new start has forgotten what the guest's xl file said")
    for guest in (pvh, hvm):
        announce_again(guest)
        fields = (f"XENGT_DOMID={guest.domid}", "XENGT_EVENT=daemon.serving")
        entries = command("journalctl", "--quiet", "--output=json", *fields)
        require(len(entries.splitlines()) >= 2, f"the journal has {entries!r} of domain {guest.domid}")

    say("quiescing and resuming the PVH guest")
    command("xengt-dm", "quiesce", "--domid", str(pvh.domid))
    more_stores(pvh, _STORES_ALONE, "while it is quiesced")
    command("xengt-dm", "resume", "--domid", str(pvh.domid))
    check_served(pvh, "after it was resumed")
    answer = json.loads(command("xengt-dm", "audit", "--sync", "--domid", str(pvh.domid), "--json"))
    check_audit(pvh, answer)

    ended = []
    for guest in (pvh, hvm):
        say(f"destroying {guest.program}")
        guest.check()
        guest.close()
        guest.destroy()
        ended.append(check_end(guest.domid))
    check_no_failures()
    return {
        "pvh_traps": int(scraped[pvh.domid]),
        "hvm_traps": int(scraped[hvm.domid]),
        "upgrade_seconds": max(unserved),
        "stop_seconds": round(stop_seconds, 1),
        "end_seconds": round(max(ended), 1),
    }


def run() -> dict[str, int | float | str]:
    """The scenario, in dom0."""
    require(Path("/proc/1/comm").read_text().strip() == "systemd", "dom0's first process is not systemd")
    Path("/etc/xengt-dm/domains/stop_hvm.toml").write_text(_HVM_SETTINGS)
    try:
        # The HVM guest first: xl gives QEMU, and so our instance before it, a minute to come up.
        with (
            created("stop_hvm", kind="hvm", vcpus=1, more=_HVM_CONFIG) as hvm,
            created("stop", more=_PVH_CONFIG, command=("xengt-dm", "create")) as pvh,
        ):
            return run_service(pvh, hvm)
    except BaseException:
        show_logs()
        raise
