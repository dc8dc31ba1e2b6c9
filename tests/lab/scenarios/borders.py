"""The emulator and Xen alone: two vCPUs call functions over the ends of pages while dom0 changes types of other pages.

No code of the project runs in it. Each change of a type interrupts the vCPUs of the guest. README.md ("The emulator")
says what it is for.
"""

import ctypes
import random
import time

from dom0.checks import Patience, say, sized
from dom0.guest import Guest, created

GUESTS = ("borders",)
CPUS = 2
# Each processor is a thread of its own: the fault has been seen in this way alone.
PARALLEL = True

# The same as in tests/lab/guest/borders.c.
_READY, _FINISHED = 1, 2
_ORDER_FINISH = 0x80000000
_POOL_GFN, _PAGES = 0x800, 64
_RAM_RW, _RAM_RO = 0, 1
_STEP_SECONDS = 300
_SECONDS = sized(300, 1200)
_SAY_SECONDS = 20


def _change_types(guest: Guest) -> int:
    """Make pages read-only and writable again until the time is up. Returns how many changes that were."""
    lib = ctypes.CDLL("libxendevicemodel.so.1", use_errno=True)
    lib.xendevicemodel_open.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    lib.xendevicemodel_open.restype = ctypes.c_void_p
    change = lib.xendevicemodel_set_mem_type
    change.argtypes = [ctypes.c_void_p, ctypes.c_uint16, ctypes.c_int, ctypes.c_uint64, ctypes.c_uint32]
    handle = lib.xendevicemodel_open(None, 0)
    draw = random.Random(1)
    types = [_RAM_RW] * _PAGES
    start = said = time.monotonic()
    changes = 0
    patience = Patience("stores", _STEP_SECONDS)
    while time.monotonic() < start + _SECONDS:
        for _ in range(50):
            page = draw.randrange(_PAGES)
            types[page] = _RAM_RW + _RAM_RO - types[page]
            if change(handle, guest.domid, types[page], _POOL_GFN + page, 1):
                raise OSError(ctypes.get_errno(), "xendevicemodel_set_mem_type")
            changes += 1
        guest.check()
        patience.look(sum(guest.stores()))
        if time.monotonic() > said + _SAY_SECONDS:
            said = time.monotonic()
            say(f"{changes} changes, {guest.stores()} stores")
    return changes


def run() -> dict[str, int | float | str]:
    """The scenario, in dom0."""
    with created("borders") as guest:
        guest.start()
        guest.reach(_READY, _STEP_SECONDS)
        guest.leave(_READY)
        changes = _change_types(guest)
        stores = guest.stores()
        guest.order(_ORDER_FINISH)
        guest.reach(_FINISHED, _STEP_SECONDS)
        guest.leave(_FINISHED)
        return {"changes": changes, "stores0": stores[0], "stores1": stores[1]}
