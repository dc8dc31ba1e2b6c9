"""dom0 under systemd, with a PVH and an HVM guest served at once: what an operator does to them, and what is left."""

import json
import re
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from dom0.checks import require, say, wait_until
from dom0.guest import Guest, created
from dom0.libxen import DeviceModel
from dom0.programs import run as command
from dom0.programs import show

GUESTS = ("stop", "stop_hvm")
SYSTEMD = True
# With two, a machine of this scenario was seen twice to fall asleep in the middle of a step, on Xen 4.17 only: both of
# QEMU's threads of processors idle, and nothing going on but a timer of each second. What is lost there is not known.
CPUS = 1

# The same as in tests/lab/guest/stop.c.
_ANNOUNCED, _FINISHED, _RESUMED = 1, 2, 3
_ORDER_SUSPEND, _ORDER_ANNOUNCE, _ORDER_GENTLY = 2, 3, 4
_STEP_SECONDS = 180
# An instance ends so soon after its domain. That is meant for a real machine; an emulated one is granted besides what
# starting some programs takes it.
_END_SECONDS = 5
_END_STARTS = 10
_STORES_SERVED = 50
_STORES_ALONE = 500
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


def _unit(guest: Guest) -> str:
    return f"xengt-dm@{guest.domid}.service"


def _show(unit: str, *names: str) -> dict[str, str]:
    text = command("systemctl", "show", unit, f"--property={','.join(names)}")
    return dict(line.split("=", 1) for line in text.splitlines())


def _state(guest: Guest) -> str:
    return _show(_unit(guest), "ActiveState")["ActiveState"]


def _status(guest: Guest) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(command("xengt-dm", "status", "--domid", str(guest.domid), "--json"))
    return answer


def _more_stores(guest: Guest, more: int, what: str) -> None:
    start = guest.read("progress0")

    def enough() -> bool:
        guest.check()
        return guest.read("progress0") >= start + more

    wait_until(f"{more} stores of {guest.program} {what}", _STEP_SECONDS, enough, guest.moving)


def _traps(guest: Guest) -> int:
    return int(_status(guest)["counters"]["store_traps"])


def _announce_again(guest: Guest) -> None:
    """Have its driver announce its spaces to an instance that is new, and see that they are served."""
    guest.order(_ORDER_ANNOUNCE)
    _wait_announced(guest)
    _check_served(guest, "under its new instance")


def _wait_announced(guest: Guest) -> None:
    done = "the guest to announce its spaces"
    wait_until(done, _STEP_SECONDS, lambda: guest.read("order") == _ORDER_GENTLY, guest.moving)


def _check_served(guest: Guest, when: str) -> None:
    """Every store is trapped now."""
    before = _traps(guest)
    _more_stores(guest, _STORES_SERVED, when)
    more = _traps(guest) - before
    require(more >= _STORES_SERVED, f"of {_STORES_SERVED} stores of {guest.program} {when}, {more} were trapped")


def _check_confined(guest: Guest) -> None:
    """The running instance is nobody, and has nothing."""
    pid = _show(_unit(guest), "MainPID")["MainPID"]
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    uid = str(_UID_BASE + guest.domid)
    require(status["Uid"].split() == [uid] * 4, f"the instance of domain {guest.domid} runs as {status['Uid'].split()}")
    require(not status["Groups"].split(), f"the instance has the groups {status['Groups']}")
    for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
        require(int(status[name], 16) == 0, f"the instance has capabilities: {name} {status[name]}")
    require(status["NoNewPrivs"].strip() == "1", "the instance can get new privileges")


def _check_reach(guest: Guest, other: Guest) -> None:
    """What an instance of one domain becomes reaches that domain, and nothing of another."""
    pid = _show(_unit(other), "MainPID")["MainPID"]
    reached = json.loads(command("python3", "/lab/dom0/confined.py", str(guest.domid), str(other.domid), pid))
    for what, error in reached["own"].items():
        require(error is None, f"a confined process cannot {what} of its own domain: {error}")
    for what, error in reached["other"].items():
        require(error in ("EPERM", "EACCES"), f"a confined process could {what} of another domain: {error}")


def _scrape() -> dict[int, float]:
    """Trapped stores by domain, as Prometheus would get them."""
    with urllib.request.urlopen(_METRICS, timeout=_STEP_SECONDS) as answer:
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


def _check_end(unit: str, domid: int) -> float:
    """That a domain which is gone has no instance for long, and nothing is left of it; how long it had, in seconds."""
    gone = time.monotonic()
    wait_until(f"the end of {unit}", _STEP_SECONDS, lambda: _show(unit, "ActiveState")["ActiveState"] == "inactive")
    seconds = time.monotonic() - gone
    started = time.monotonic()
    command("xengt-dm", "--version")
    limit = _END_SECONDS + _END_STARTS * (time.monotonic() - started)
    require(seconds < limit, f"{unit} ended {seconds:.1f} s after its domain, which is more than {limit:.1f} s")
    left = [str(path) for path in Path("/run/xengt-dm").rglob(str(domid))]
    require(not left, f"of domain {domid} is left: {left}")
    return seconds


def _audit(guest: Guest) -> None:
    audit = json.loads(command("xengt-dm", "audit", "--sync", "--domid", str(guest.domid), "--json"))
    require(len(audit["spaces"]) == guest.vcpus, f"{guest.program} has announced other spaces than: {audit}")
    require(audit["audit_mismatches"] == 0, f"the audit of {guest.program} found: {audit}")


def _save_and_restore(guest: Guest) -> float:
    """Quiesce, save, restore, serve again: the guest announces its spaces anew, and the shadows are right.

    Returns how long the saved domain's instance outlived it, in seconds.
    """
    image = Path("/run/saved")
    old, unit = str(guest.domid), _unit(guest)
    say(f"quiescing, saving and restoring {guest.program}")
    command("xengt-dm", "quiesce", "--domid", old)
    _more_stores(guest, _STORES_ALONE, "while it is quiesced")
    command("xengt-dm", "resume", "--domid", old)
    _check_served(guest, "after it was resumed")
    _audit(guest)
    command("xengt-dm", "quiesce", "--domid", old)
    guest.save(image, _ORDER_SUSPEND)
    ended = _check_end(unit, int(old))
    guest.restore(image)
    require(str(guest.domid) != old, "the restored domain has the id of the saved one")
    command("xengt-dm", "start", "--domid", str(guest.domid))
    guest.start()
    guest.reach(_RESUMED, _STEP_SECONDS)
    guest.leave(_RESUMED)
    _wait_announced(guest)
    _check_served(guest, "after it was restored")
    _audit(guest)
    image.unlink()
    return ended


def _serves(domid: int) -> bool:
    return _show(f"xengt-dm@{domid}.service", "ActiveState")["ActiveState"] == "active"


def _wait_served(domid: int, what: str) -> None:
    """That the watcher gives a domain its instance, with the options that its file or its launch says."""
    wait_until(f"an instance of the domain that {what}", _STEP_SECONDS, lambda: _serves(domid))
    status = json.loads(command("xengt-dm", "status", "--domid", str(domid), "--json"))
    require(status["generation"] == _GENERATION, f"the domain that {what} is served without its options: {status}")


def _xl_create(name: str, uuid: str, more: str = "", creator: tuple[str, ...] = ("xl", "create", "-p")) -> int:
    """The id of a new, paused PVH domain."""
    config = Path("/run/life.cfg")
    settings = {"name": name, "uuid": uuid, "type": "pvh", "kernel": "/lab/guests/stop.elf"}
    lines = [f'{key} = "{value}"' for key, value in settings.items()]
    config.write_text("\n".join([*lines, "memory = 64", more, ""]))
    command(*creator, str(config))
    return int(command("xl", "domid", name))


def _names_and_lives() -> None:
    """What happens to domains that nobody waits for: names that change, ids that change, an end at the start."""
    file = Path("/etc/xengt-dm/domains/late.toml")
    uuid = "0f8a3c1e-0000-4000-8000-0000000000{:02x}"

    say("renaming a domain, and one that is migrated in")
    file.write_text(f"[device]\ngeneration = {_GENERATION}\n")
    renamed = _xl_create("early", uuid.format(1))
    incoming = _xl_create("late--incoming", uuid.format(2))
    _wait_served(incoming, "is migrated in")
    require(not _serves(renamed), "a domain whose name has no file is served")
    command("xl", "destroy", str(incoming))
    _check_end(f"xengt-dm@{incoming}.service", incoming)
    command("xl", "rename", "early", "late")
    _wait_served(renamed, "was renamed")
    command("xl", "destroy", str(renamed))
    _check_end(f"xengt-dm@{renamed}.service", renamed)
    file.unlink()

    say("rebooting a domain, as xl does it")
    launched = _xl_create("again", uuid.format(3), _PVH_CONFIG, ("xengt-dm", "create", "--paused"))
    _wait_served(launched, "create launched")
    command("xl", "destroy", str(launched))
    rebooted = _xl_create("again", uuid.format(3))
    require(rebooted != launched, "the domain id did not change")
    _wait_served(rebooted, "rebooted")
    _check_end(f"xengt-dm@{launched}.service", launched)

    say("destroying a domain while its instance starts")
    command("systemctl", "stop", f"xengt-dm@{rebooted}.service")
    with subprocess.Popen(["xengt-dm", "start", "--domid", str(rebooted)], stderr=subprocess.DEVNULL) as start:
        command("xl", "destroy", str(rebooted))
        start.wait(_STEP_SECONDS)
    _check_end(f"xengt-dm@{rebooted}.service", rebooted)


def run_service(pvh: Guest, hvm: Guest) -> dict[str, int | float | str]:
    """The steps, with both guests created."""
    hvm.start()
    for guest in (pvh, hvm):
        guest.reach(_ANNOUNCED, _STEP_SECONDS)
        require(_state(guest) == "active", f"{_unit(guest)} is {_state(guest)}")
        _check_confined(guest)
        guest.order(_ORDER_GENTLY)
    require(_status(pvh)["generation"] == _GENERATION, "the instance does not know what the guest's xl file said")
    for guest in (pvh, hvm):
        guest.leave(_ANNOUNCED)
    for guest in (pvh, hvm):
        _more_stores(guest, _STORES_SERVED, "under its instance")
    scraped = _scrape()
    for guest in (pvh, hvm):
        require(scraped.get(guest.domid, 0) > 0, f"the metrics of domain {guest.domid} show no traps: {scraped}")
    _check_reach(pvh, hvm)

    say("killing the HVM guest's instance")
    before = _show(_unit(hvm), "MainPID")["MainPID"]
    command("systemctl", "kill", "--signal=KILL", _unit(hvm))
    wait_until(
        "systemd to start it again",
        _STEP_SECONDS,
        lambda: _state(hvm) == "active" and _show(_unit(hvm), "MainPID")["MainPID"] not in ("0", before),
    )
    _announce_again(hvm)

    say("stopping both instances")
    started = time.monotonic()
    command("systemctl", "stop", _unit(pvh), _unit(hvm))
    stop_seconds = time.monotonic() - started
    _check_stopped(pvh, 0)
    _check_stopped(hvm, 1)  # QEMU's
    for guest in (pvh, hvm):
        _more_stores(guest, _STORES_ALONE, "on its own")

    say("starting both again")
    command("systemctl", "start", _unit(pvh), _unit(hvm))
    require(_status(pvh)["generation"] == _GENERATION, "a new start has forgotten what the guest's xl file said")
    for guest in (pvh, hvm):
        _announce_again(guest)
        fields = (f"XENGT_DOMID={guest.domid}", "XENGT_EVENT=daemon.serving")
        entries = command("journalctl", "--quiet", "--output=json", *fields)
        require(len(entries.splitlines()) >= 2, f"the journal has {entries!r} of domain {guest.domid}")

    old = pvh.domid
    ended = [_save_and_restore(pvh)]
    for guest in (pvh, hvm):
        say(f"destroying {guest.program}")
        guest.check()
        guest.close()
        guest.destroy()
        ended.append(_check_end(_unit(guest), guest.domid))
    _names_and_lives()
    failed = command("systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "xengt*")
    require(not failed.strip(), f"units failed: {failed}")
    return {
        "pvh_traps": int(scraped[old]),
        "hvm_traps": int(scraped[hvm.domid]),
        "stop_seconds": round(stop_seconds, 1),
        "end_seconds": round(max(ended), 1),
    }


def _show_logs() -> None:
    """Print to the console what an operator would look at."""
    commands = [
        ["systemctl", "--no-pager", "list-units", "--all", "xengt*", "lab*", "xen*"],
        ["journalctl", "--no-pager", "--lines=120", "--unit=xengt*"],
        ["sh", "-c", "tail -n 25 /var/log/xen/*.log"],
        ["xl", "list"],
    ]
    for words in commands:
        show(*words)


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
        _show_logs()
        raise
