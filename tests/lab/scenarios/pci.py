"""An HVM guest finds a whole GPU on its PCI bus, gives it addresses, moves it, and uses it.

The daemon is killed in between, and its successor has every range where the guest has put it.
"""

import json

from dom0.checks import require, say
from dom0.daemon import Daemon, serving
from dom0.guest import Guest, created
from dom0.programs import run as run_program

GUESTS = ("pci_hvm",)
CPUS = 1

# The same as in tests/lab/guest/pci.c.
_MOVED, _ADOPTED, _FINISHED = range(1, 4)
_BAR0, _BAR2 = 0xF8000000, 0xF6000000
_STEP_SECONDS = 300
# The function is at 00:02.0, where QEMU would have its own VGA device.
_CONFIG = """\
vga = "none"
serial = "none"
usb = 0
"""
_OPTIONS = ("--set", "device.kind=skylake")


def _registers(guest: Guest, pattern: str) -> dict[str, int]:
    told = json.loads(run_program("xengt-dm", "registers", str(guest.domid), pattern, "--json"))
    return {each["name"]: each["value"] for each in told}


def _check_registers(guest: Guest) -> None:
    bars = _registers(guest, "pci.BAR?")
    require(bars == {"pci.BAR0": _BAR0 | 0x4, "pci.BAR2": _BAR2 | 0xC}, f"`registers` shows BARs {bars}")
    page = _registers(guest, "rcs0.RING_HWS_PGA")
    require(page == {"rcs0.RING_HWS_PGA": 0x12345000}, f"`registers` shows {page}")


def _use(guest: Guest, daemon: Daemon) -> int:
    """Until the daemon is killed. Returns how many pages are protected."""
    guest.start()
    guest.reach(_MOVED, _STEP_SECONDS)
    _check_registers(guest)
    counters = daemon.ask("status")["counters"]
    require(counters["store_traps"] > 0, "no store to a table was trapped")
    require(counters["dropped_stores"] == 0, f"{counters['dropped_stores']} stores reached nothing")
    return int(counters["protected_pages"])


def run() -> dict[str, int | float | str]:
    """The scenario, in dom0."""
    with created("pci_hvm", kind="hvm", vcpus=1, more=_CONFIG) as guest:
        with serving(guest.domid, *_OPTIONS) as daemon:
            protected = _use(guest, daemon)
            say("killing the daemon")
            daemon.kill()
        with serving(guest.domid, *_OPTIONS) as daemon:
            require(daemon.ask("status")["state_kept"] is True, "the successor does not go on with the state")
            guest.leave(_MOVED)
            guest.reach(_ADOPTED, _STEP_SECONDS)
            _check_registers(guest)
            kept = daemon.counter("protected_pages")
            require(kept == protected, f"{kept} pages are protected after the adoption, {protected} were before")
            guest.leave(_ADOPTED)
            guest.reach(_FINISHED, _STEP_SECONDS)
            counters = daemon.ask("status")["counters"]
            left = (counters["spaces"], counters["protected_pages"])
            require(left == (0, 0), f"spaces and protected pages of a driver that died: {left}")
            figures: dict[str, int | float | str] = {
                "mmio_traps": counters["mmio_traps"],
                "protected": protected,
                "verified_bytes": guest.read("verified"),
            }
            guest.leave(_FINISHED)
            guest.close()
            status = daemon.wait_exit(_STEP_SECONDS)
            require(status == 0, f"the daemon ended with status {status} when its domain was gone")
            return figures
