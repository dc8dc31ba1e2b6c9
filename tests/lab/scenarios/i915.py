"""The distribution's own kernel and i915 on the virtual Skylake: it loads clean, and what the GPU executes is right.

The client (guest/i915) was written from the kernel's interface and from the manuals, without a look at the device.
"""

from pathlib import Path

from dom0.checks import require, say, sized
from dom0.daemon import ask_at_once
from dom0.driver_log import DriverLog
from dom0.libxen import DeviceModel
from dom0.linux import LinuxGuest, booted
from dom0.replaced import Replaced
from dom0.zygote import Zygote

GUESTS = ()
DRIVERS = ("i915",)
CPUS = 1
# Where systemd runs, the watcher starts an instance for the guest, whose daemons this scenario starts itself.
ALONE = True

_NAME = "i915"
_MEMORY_MIB = 512
_VCPUS = 2
_STEP_SECONDS = 600
_BOOT_SECONDS = 900
# The windows are also in tests/lab/guest/i915/privilege.c.
_SETTINGS = """\
[device]
kind = "skylake"
low_gm_mib = {low}
high_gm_mib = 32
fences = 4
"""
# Without an aperture the driver reads what hung in RAM: 4,096 accesses to the device a page otherwise.
_LOW_MIB, _NO_APERTURE = 16, 0
_WORDS = ("stores", "contexts", "registers", "privilege", "waits", "blits", "clock")
_AGAIN = _WORDS[: sized(3, len(_WORDS))]
_PCI = "/sys/bus/pci"
_FUNCTION = "0000:00:02.0"
_BATCHES = sized(500, 10_000)
_SPACES = sized(40, 500)
#: What a process may have more of after many address spaces than after a few: allocators and logs are no clocks.
_GROWTH_KIB = 1024
#: After how many batches each end of the daemon comes.
_KILLED_AT = (100, 200)
_UPGRADED_AT = 300
_HEARTBEAT_MS = 500
_HEARTBEATS = "/sys/class/drm/card0/engine/*/heartbeat_interval_ms"
_ERRORS = ("rcs0", "vcs0", "vecs0")
_HANGS = ("rcs0", "bcs0", "vecs0")
# crc and forcewake files wait or keep the GPU awake, drop_caches has effects, and uevent says nothing.
_FILES = "find /sys/kernel/debug/dri/0 /sys/class/drm/card0/ -type f | grep -vE 'crc|uevent|drop_caches|forcewake'"


def _finish_client(guest: LinuxGuest, words: str) -> int:
    status, lines = guest.finish(f"client {words}", _STEP_SECONDS)
    for line in lines:
        if line.startswith("done "):
            say(line)
    failed = [line for line in lines if line.startswith("FAIL ")]
    for line in failed:
        say(f"client: {line}")
    require(not failed, f"{len(failed)} checks of the client failed: {'; '.join(failed[:3])}")
    require(status == 0, f"client {words} ended with status {status}: {' '.join(lines[-2:])}")
    return sum(line.startswith("ok ") for line in lines)


def _client(guest: LinuxGuest, words: str) -> int:
    """Run checks of the client: how many there were. Raises ScenarioError with those that failed."""
    say(f"client {words}")
    guest.begin(f"client {words}")
    return _finish_client(guest, words)


def _audit(guest: LinuxGuest, when: str) -> None:
    answer = ask_at_once(guest.domid, "audit", sync=True)
    require(answer["audit_mismatches"] == 0, f"{when}: the audit found {answer}")


def _resident_kib(guest: LinuxGuest) -> int:
    pid = ask_at_once(guest.domid, "status")["pid"]
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0])


def _configure(low_mib: int) -> None:
    Path(f"/etc/xengt-dm/domains/{_NAME}.toml").write_text(_SETTINGS.format(low=low_mib))


def _load(guest: LinuxGuest, log: DriverLog) -> None:
    say("loading the driver")
    guest.set_vcpus(1)
    guest.run("modprobe i915", _STEP_SECONDS)
    log.check_loaded(_STEP_SECONDS)
    guest.set_vcpus(_VCPUS)
    _audit(guest, "after the load")


def _unload(guest: LinuxGuest, log: DriverLog) -> None:
    say("unloading the driver")
    guest.run("rmmod i915", _STEP_SECONDS)
    log.check_clean(_STEP_SECONDS)
    _audit(guest, "after the driver was unloaded")
    _check_unprotected(guest)


def _replug(guest: LinuxGuest, log: DriverLog, daemon: Replaced) -> None:
    """The driver gives the device up, and gets one without an aperture, with its module loaded."""
    say("taking the device away, and giving another one")
    guest.run(f"echo 1 >{_PCI}/devices/{_FUNCTION}/remove", _STEP_SECONDS)
    log.check_clean(_STEP_SECONDS)
    _check_unprotected(guest)
    _configure(_NO_APERTURE)
    daemon.start_again()
    guest.run(f"echo 1 >{_PCI}/rescan", _STEP_SECONDS)
    log.check_loaded(_STEP_SECONDS)
    _audit(guest, "after the driver got another device")


def _check_unprotected(guest: LinuxGuest) -> None:
    spaces = ask_at_once(guest.domid, "spaces")
    require(not spaces, f"the driver is gone, and {len(spaces)} address spaces are live")
    protected = ask_at_once(guest.domid, "status")["counters"]["protected_pages"]
    require(protected == 0, f"the driver is gone, and {protected} pages are protected")


def _check_files(guest: LinuxGuest, log: DriverLog) -> int:
    """Read each file that the driver offers: how many those are."""
    say("reading the driver's files")
    count = guest.run(
        f"n=0; for f in $({_FILES}); do timeout 60 cat $f >/dev/null 2>&1; n=$((n+1)); done; echo $n", _STEP_SECONDS
    )[-1]
    log.check_clean(_STEP_SECONDS)
    return int(count)


def _check_spaces(guest: LinuxGuest) -> int:
    """Address spaces come and go: each audit is clean, and the daemon does not grow."""
    _client(guest, f"spaces {_SPACES}")
    before = _resident_kib(guest)
    words = f"spaces {_SPACES}"
    say(f"client {words}, with audits")
    guest.begin(f"client {words}")
    for number in range(0, _SPACES, 10):
        guest.wait_line(rf"^at space {number}$", _STEP_SECONDS)
        _audit(guest, f"at space {number}")
    _finish_client(guest, words)
    growth = _resident_kib(guest) - before
    require(growth <= _GROWTH_KIB, f"the daemon has {growth} KiB more after {_SPACES} more address spaces")
    return growth


def _check_batches(guest: LinuxGuest, daemon: Replaced) -> int:
    """Many small batches, in the middle of which the daemon is killed and replaced."""
    words = f"batches {_BATCHES}"
    say(f"client {words}")
    guest.begin(f"client {words}")
    for number in _KILLED_AT:
        guest.wait_line(rf"^at batch {number}$", _STEP_SECONDS)
        say("killing the daemon")
        daemon.kill_and_start()
    guest.wait_line(rf"^at batch {_UPGRADED_AT}$", _STEP_SECONDS)
    say("replacing the daemon")
    daemon.upgrade()
    return _finish_client(guest, words)


def _check_resets(guest: LinuxGuest, log: DriverLog) -> int:
    """CS errors and hangs: one reset of the one engine each."""
    checks = _client(guest, "errors")
    log.check_resets([(engine, "CS error") for engine in _ERRORS], _STEP_SECONDS)
    guest.run(
        f"for f in /sys/class/drm/card0/engine/*/heartbeat_interval_ms; do echo {_HEARTBEAT_MS} >$f; done",
        _STEP_SECONDS,
    )
    checks += _client(guest, "hangs")
    log.check_resets([(engine, f"stopped heartbeat on {engine}") for engine in _HANGS], _STEP_SECONDS)
    text = "\n".join(guest.run("head -c 20000 /sys/class/drm/card0/error", _STEP_SECONDS))
    require("GPU HANG" in text or "Kernel:" in text, f"the error state in the guest says: {text[:200]}")
    _audit(guest, "after the hangs")
    return checks


def _check_all(guest: LinuxGuest, log: DriverLog, all_words: tuple[str, ...]) -> int:
    """What the client does, with an audit after each: how many checks it made."""
    checks = 0
    for words in all_words:
        checks += _client(guest, words)
        _audit(guest, f"after the client's {words}")
        log.check_clean(_STEP_SECONDS)
    return checks


def run() -> dict[str, int | float | str]:
    """The scenario, in dom0."""
    _configure(_LOW_MIB)
    with booted(_NAME, _MEMORY_MIB, _VCPUS) as guest, Zygote() as zygote, Replaced(guest.domid, zygote) as daemon:
        guest.start(_BOOT_SECONDS)
        log = DriverLog(guest)
        _load(guest, log)
        figures: dict[str, int | float | str] = {"load_traps": daemon.traps()}
        checks = _check_all(guest, log, (*_WORDS, "aperture"))
        figures["files"] = _check_files(guest, log)
        figures["grown_kib"] = _check_spaces(guest)
        checks += _check_batches(guest, daemon)
        _audit(guest, "after the batches")
        log.check_clean(_STEP_SECONDS)

        _replug(guest, log, daemon)
        checks += _check_resets(guest, log)
        _unload(guest, log)

        _load(guest, log)
        checks += _check_all(guest, log, _AGAIN)
        _unload(guest, log)
        daemon.terminate()
        model = DeviceModel(guest.domid)
        require(len(model.servers()) == 1, f"ioreq servers besides QEMU's: {model.servers()}")
        model.claim_and_release()
        model.close()
        return {**figures, "checks": checks}
