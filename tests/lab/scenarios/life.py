"""dom0 under systemd: a guest that is saved, restored and migrated, and domains whose names and ids change."""

import subprocess
import time
from pathlib import Path

from dom0.checks import require, say
from dom0.guest import Guest, created
from dom0.instances import (
    STEP_SECONDS,
    announce_again,
    audit,
    check_end,
    check_no_failures,
    check_served,
    more_stores,
    show_logs,
    state,
    status,
    traps,
    unit,
    wait_active,
)
from dom0.programs import outcome
from dom0.programs import run as command

GUESTS = ("stop",)
SYSTEMD = True
# As in service.py, with which it shares a boot.
CPUS = 1

# The same as in tests/lab/guest/stop.c.
_ANNOUNCED, _RESUMED = 1, 3
_ORDER_SUSPEND, _ORDER_GENTLY = 2, 4
_STORES_ALONE = 150
#: Of a guest with two spaces of a root, two directories and three leaf tables.
_TABLES = 12
_GENERATION = 9
_OPTIONS = f'xengt = [ "device.generation={_GENERATION}" ]'
_SETTINGS = f"[device]\ngeneration = {_GENERATION}\n"
#: Takes a migration as far as it comes; the refusal is the sender's. The greeting is that of tools/xl/xl_migrate.c.
_RECEIVER = "echo 'xl migration receiver ready, send binary domain data.'; exec cat >/dev/null"
_FILES = Path("/etc/xengt-dm/domains")


def _wait_served(domid: int, what: str) -> None:
    """That the watcher gives a domain its instance, with the options that its file or its launch says."""
    wait_active(domid, f"an instance of the domain that {what}")
    told = status(domid)
    require(told["generation"] == _GENERATION, f"the domain that {what} is served without its options: {told}")


def _protected(guest: Guest) -> int:
    return int(status(guest.domid)["counters"]["protected_pages"])


def _goes_on(guest: Guest, how: str) -> None:
    """A guest that was saved and restored: its memory is right, nothing traps, and its driver can begin again."""
    _wait_served(guest.domid, how)
    guest.reach(_RESUMED, STEP_SECONDS)  # it has compared every table page with what it stored
    guest.leave(_RESUMED)
    more_stores(guest, _STORES_ALONE, f"after it {how}")
    require(traps(guest.domid) == 0, f"stores of the guest that {how} are trapped, though it has announced nothing")
    announce_again(guest)
    audit(guest)


def _refused_migration(guest: Guest) -> None:
    say("migrating a domain with protected pages")
    require(_protected(guest) == _TABLES, f"{_protected(guest)} tables are protected in place of {_TABLES}")
    ended, _, words = outcome(*guest.migration(_RECEIVER))
    require(ended != 0, "a domain with protected pages was migrated")
    require("logdirty" in words, f"the migration was refused for another reason: {words}")
    check_served(guest, "after its migration was refused")
    audit(guest)


def _saved_with_protected_pages(guest: Guest) -> None:
    """Nothing refuses it, and the image has what the guest has stored to its tables."""
    say("saving and restoring a domain with protected pages")
    image = Path("/run/saved")
    old = guest.domid
    require(_protected(guest) == _TABLES, f"{_protected(guest)} tables are protected in place of {_TABLES}")
    guest.save(image, _ORDER_SUSPEND)
    check_end(old)
    guest.restore(image)
    image.unlink()
    require(guest.domid != old, "the restored domain has the id of the saved one")
    guest.start()
    _goes_on(guest, "was saved with protected pages")


def _migrated(guest: Guest) -> None:
    say("quiescing and migrating a domain")
    file = _FILES / "stop.toml"
    file.write_text(_SETTINGS)
    old = guest.domid
    command("xengt-dm", "quiesce", "--domid", str(old))
    require(_protected(guest) == 0, "pages of a quiesced domain are protected")
    guest.migrate(_ORDER_SUSPEND)
    require(guest.domid != old, "the migrated domain has its old id")
    check_end(old)
    _goes_on(guest, "was migrated")
    file.unlink()


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
    file = _FILES / "late.toml"
    uuid = "0f8a3c1e-0000-4000-8000-0000000000{:02x}"

    say("renaming a domain, and one that is migrated in")
    file.write_text(_SETTINGS)
    renamed = _xl_create("early", uuid.format(1))
    incoming = _xl_create("late--incoming", uuid.format(2))
    _wait_served(incoming, "is migrated in")
    require(state(renamed) != "active", "a domain whose name has no file is served")
    command("xl", "destroy", str(incoming))
    check_end(incoming)
    command("xl", "rename", "early", "late")
    _wait_served(renamed, "was renamed")
    command("xl", "destroy", str(renamed))
    check_end(renamed)
    file.unlink()

    say("rebooting a domain, as xl does it")
    launched = _xl_create("again", uuid.format(3), _OPTIONS, ("xengt-dm", "create", "--paused"))
    _wait_served(launched, "create launched")
    command("xl", "destroy", str(launched))
    rebooted = _xl_create("again", uuid.format(3))
    require(rebooted != launched, "the domain id did not change")
    _wait_served(rebooted, "rebooted")
    check_end(launched)

    say("destroying a domain while its instance starts")
    command("systemctl", "stop", unit(rebooted))
    with subprocess.Popen(["xengt-dm", "start", "--domid", str(rebooted)], stderr=subprocess.DEVNULL) as start:
        command("xl", "destroy", str(rebooted))
        start.wait(STEP_SECONDS)
    check_end(rebooted)


def run() -> dict[str, int | float | str]:
    """The scenario, in dom0."""
    require(Path("/proc/1/comm").read_text().strip() == "systemd", "dom0's first process is not systemd")
    times: dict[str, int | float | str] = {}
    try:
        with created("stop", more=_OPTIONS, command=("xengt-dm", "create")) as guest:
            guest.reach(_ANNOUNCED, STEP_SECONDS)
            guest.order(_ORDER_GENTLY)
            guest.leave(_ANNOUNCED)
            check_served(guest, "under its instance")
            for step in (_refused_migration, _saved_with_protected_pages, _migrated):
                started = time.monotonic()
                step(guest)
                times[f"{step.__name__.strip('_')}_seconds"] = round(time.monotonic() - started, 1)
            say("destroying the guest")
            guest.check()
            guest.close()
            guest.destroy()
            check_end(guest.domid)
        _names_and_lives()
        check_no_failures()
    except BaseException:
        show_logs()
        raise
    return times
