"""An HVM guest polls a device of QEMU's while the daemon is killed and adopted again and again: each value is right.

Xen asks our ioreq server before QEMU's, because it is newer. So whatever a successor claims for a moment over a device
of QEMU's is taken from it: a read gets all ones, a write is lost.
"""

from dom0.checks import require, say, sized, wait_until
from dom0.daemon import Daemon
from dom0.guest import Guest, created
from dom0.libxen import DeviceModel
from dom0.zygote import Zygote

GUESTS = ("poll_hvm",)
CPUS = 1

# The same as in tests/lab/guest/poll.c.
_READY, _FINISHED = 1, 2
_ORDER_POLL, _ORDER_FINISH, _ORDER_STORE = range(3)
_STEP_SECONDS = 180
_KILLS = sized(4, 30)
_POLLS = 20
_CONFIG = """\
vga = "none"
serial = "none"
usb = 0
device_model_args_hvm = [ "-device", "sdhci-pci" ]
"""
# Above QEMU's devices, as in tests/lab/host/guests.py.
_OPTIONS = ("--bar0", "0xf8000000", "--mode", "relaxed")


def _started(guest: Guest, zygote: Zygote) -> Daemon:
    daemon = Daemon(guest.domid, *_OPTIONS, zygote=zygote)
    daemon.wait_serving()
    return daemon


def _more_polls(guest: Guest, when: str) -> int:
    start = guest.read("progress0")

    def enough() -> bool:
        guest.check()
        return guest.read("progress0") >= start + _POLLS

    wait_until(f"{_POLLS} polls {when}", _STEP_SECONDS, enough, guest.moving)
    return guest.read("progress0")


def _store(guest: Guest) -> None:
    guest.order(_ORDER_STORE)
    wait_until("the guest's stores", _STEP_SECONDS, lambda: guest.read("order") == _ORDER_POLL, guest.moving)


def run() -> dict[str, int | float | str]:
    """The scenario, in dom0."""
    with created("poll_hvm", kind="hvm", vcpus=1, more=_CONFIG) as guest, Zygote() as zygote:
        model = DeviceModel(guest.domid)
        daemon = _started(guest, zygote)
        servers = model.servers()
        require(len(servers) == 2, f"ioreq servers, QEMU's and ours: {servers}")
        try:
            guest.start()
            guest.reach(_READY, _STEP_SECONDS)
            guest.leave(_READY)
            polls_while_adopting = 0
            for _ in range(_KILLS):
                _store(guest)
                before = _more_polls(guest, "under the daemon")
                say(f"killing the daemon after {before} polls")
                daemon.kill()
                alone = _more_polls(guest, "without a daemon")
                daemon = _started(guest, zygote)
                require(model.servers() == servers, f"ioreq servers after the adoption: {model.servers()}")
                polls_while_adopting += _more_polls(guest, "after the adoption") - alone
            require(daemon.counter("store_traps") == 0, "the last daemon trapped a store that nobody made")
            guest.order(_ORDER_FINISH)
            guest.reach(_FINISHED, _STEP_SECONDS)
            figures: dict[str, int | float | str] = {
                "kills": _KILLS,
                "polls": guest.read("progress0"),
                "polls_while_adopting": polls_while_adopting,
                "verified_bytes": guest.read("verified"),
            }
            model.close()
            guest.leave(_FINISHED)
            guest.close()
            status = daemon.wait_exit(_STEP_SECONDS)
            require(status == 0, f"the daemon ended with status {status} when its domain was gone")
            return figures
        finally:
            daemon.kill()
