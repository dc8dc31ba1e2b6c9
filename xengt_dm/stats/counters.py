"""The counters of one device model (``xd_counters``, cffi_build/core/base/stats.h) as Python numbers."""

from __future__ import annotations

from xengt_dm._core import ffi
from xengt_dm.units import CData


def read_counters(counters: CData) -> dict[str, int]:
    """Returns the value of every counter by its name in C. ``counters`` is ``xd_counters *``.

    ``traps`` is added: the sum of ``store_traps`` and ``mmio_traps``.
    """
    names = [name for name, field in ffi.typeof("xd_counters").fields if field.type.kind == "primitive"]
    values = {name: int(getattr(counters, name)) for name in names}
    return {"traps": values["store_traps"] + values["mmio_traps"], **values}
