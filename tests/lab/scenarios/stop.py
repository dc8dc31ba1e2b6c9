"""SIGTERM to the daemon while two vCPUs store to their tables: no store is lost, and nothing of it is left."""

from dom0.checks import require, say, wait_until
from dom0.daemon import serving
from dom0.guest import VCPUS, Guest, created
from dom0.libxen import DeviceModel

GUESTS = ("stop",)
SECONDS = 600

# The same as in tests/lab/guest/stop.c.
_ANNOUNCED, _FINISHED = 1, 2
_ORDER_FINISH = 1
_STEP_SECONDS = 180
_STORES_BEFORE = 300
_STORES_AFTER = 20000


def _progress(guest: Guest) -> list[int]:
    return [guest.read(f"progress{vcpu}") for vcpu in range(VCPUS)]


def _wait_progress(guest: Guest, start: list[int], more: int, what: str) -> list[int]:
    def enough() -> bool:
        guest.check()
        return all(now >= then + more for now, then in zip(_progress(guest), start, strict=True))

    wait_until(f"{more} stores of each vCPU {what}", _STEP_SECONDS, enough)
    return _progress(guest)


def run() -> dict[str, int | float | str]:
    """The scenario, in dom0."""
    with created("stop") as guest, serving(guest.domid) as daemon:
        guest.start()
        guest.reach(_ANNOUNCED, _STEP_SECONDS)
        guest.leave(_ANNOUNCED)
        before = _wait_progress(guest, _progress(guest), _STORES_BEFORE, "under the daemon")
        say("ending the daemon")
        daemon.terminate()
        status = daemon.wait_exit(_STEP_SECONDS)
        require(status == 0, f"the daemon ended with status {status}")
        ended = _wait_progress(guest, _progress(guest), _STORES_AFTER, "without the daemon")
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
