"""SIGTERM to the daemon while two vCPUs store to their tables: no store is lost, and nothing of it is left."""

from dom0.checks import require, say, wait_until
from dom0.daemon import serving
from dom0.guest import created
from dom0.libxen import DeviceModel

GUESTS = ("stop",)
CPUS = 1

# The same as in tests/lab/guest/stop.c.
_ANNOUNCED, _FINISHED = 1, 2
_ORDER_FINISH = 1
_STEP_SECONDS = 180
_STORES_BEFORE = 300
_STORES_AFTER = 20000


def run() -> dict[str, int | float | str]:
    """The scenario, in dom0."""
    with created("stop") as guest, serving(guest.domid) as daemon:
        guest.start()
        guest.reach(_ANNOUNCED, _STEP_SECONDS)
        guest.leave(_ANNOUNCED)
        before = guest.wait_stores(_STORES_BEFORE, _STEP_SECONDS, "under the daemon")
        say("ending the daemon")
        daemon.terminate()
        status = daemon.wait_exit(_STEP_SECONDS)
        require(status == 0, f"the daemon ended with status {status}")
        ended = guest.wait_stores(_STORES_AFTER, _STEP_SECONDS, "without the daemon")
        guest.order(_ORDER_FINISH)
        guest.reach(_FINISHED, _STEP_SECONDS)
        model = DeviceModel(guest.domid)
        servers = model.servers()
        require(not servers, f"ioreq servers are left: {servers}")
        model.claim_and_release()
        model.close()
        figures: dict[str, int | float | str] = {
            "stores_before": sum(before),
            "stores": sum(ended),
            "verified_bytes": guest.read("verified"),
        }
        guest.leave(_FINISHED)
        guest.close()
        wait_until("the guest to shut down", _STEP_SECONDS, guest.is_gone)
        return figures
