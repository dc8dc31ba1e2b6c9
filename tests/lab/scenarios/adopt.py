"""SIGKILL to the daemon while two vCPUs store to their tables: they wait, a new one adopts the server and what waits.

Which spaces were live died with the daemon, so the guest announces them again; then the next one is killed.
"""

from dom0.checks import require, say, wait_until
from dom0.compare import compare
from dom0.daemon import Daemon, ask_at_once
from dom0.guest import Guest, created
from dom0.libxen import DeviceModel
from dom0.zygote import Zygote

GUESTS = ("stop",)
CPUS = 1

# The same as in tests/lab/guest/stop.c.
_ANNOUNCED, _FINISHED = 1, 2
_ORDER_FREELY, _ORDER_FINISH, _ORDER_ANNOUNCE, _ORDER_GENTLY = 0, 1, 3, 4
_STEP_SECONDS = 180
_KILLS = 3
_STORES_BEFORE = 150
_STORES_AFTER = 2000


def _started(guest: Guest, zygote: Zygote) -> Daemon:
    daemon = Daemon(guest.domid, zygote=zygote)
    daemon.wait_serving()
    return daemon


def _wait_for_standstill(guest: Guest) -> None:
    """Until no vCPU has made a store between two looks; both wait for an answer then."""
    before = guest.stores()

    def still() -> bool:
        nonlocal before
        before, then = guest.stores(), before
        return before == then

    wait_until("both vCPUs to wait", _STEP_SECONDS, still, guest.moving)


def _announce_again(guest: Guest) -> None:
    guest.order(_ORDER_ANNOUNCE)
    announced = "the spaces to be announced again"
    wait_until(announced, _STEP_SECONDS, lambda: guest.read("order") == _ORDER_GENTLY, guest.moving)
    guest.order(_ORDER_FREELY)


def run() -> dict[str, int | float | str]:
    """The scenario, in dom0."""
    with created("stop") as guest, Zygote() as zygote:
        model = DeviceModel(guest.domid)
        daemon = _started(guest, zygote)
        try:
            guest.start()
            guest.reach(_ANNOUNCED, _STEP_SECONDS)
            guest.leave(_ANNOUNCED)
            for _ in range(_KILLS):
                guest.wait_stores(_STORES_BEFORE, _STEP_SECONDS, "under the daemon")
                say(f"killing the daemon, {sum(guest.stores())} stores")
                daemon.kill()
                _wait_for_standstill(guest)
                require(len(model.servers()) == 1, f"ioreq servers after the kill: {model.servers()}")
                daemon = _started(guest, zygote)
                require(len(model.servers()) == 1, f"ioreq servers after the adoption: {model.servers()}")
                guest.wait_stores(_STORES_AFTER, _STEP_SECONDS, "after the adoption")
                _announce_again(guest)
            guest.wait_stores(_STORES_BEFORE, _STEP_SECONDS, "under the last daemon")
            guest.order(_ORDER_FINISH)
            guest.reach(_FINISHED, _STEP_SECONDS)
            dump = ask_at_once(guest.domid, "dump", sync=True)
            figures: dict[str, int | float | str] = {
                "kills": _KILLS,
                "stores": sum(guest.stores()),
                "verified_bytes": guest.read("verified"),
                "mapped_pages": compare(guest, dump, "in the end"),
                "traps": dump["counters"]["store_traps"],
            }
            model.close()
            guest.leave(_FINISHED)
            guest.close()
            status = daemon.wait_exit(_STEP_SECONDS)
            require(status == 0, f"the daemon ended with status {status} when its domain was gone")
            return figures
        finally:
            daemon.kill()
