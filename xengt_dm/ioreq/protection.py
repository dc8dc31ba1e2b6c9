"""Having Xen trap the stores to a frame, and letting go of it without losing one.

The straggler
-------------
Facts: when a vCPU stores to a page of type ``ioreq_server``, Xen looks at the type twice: once when its copy to guest
memory refuses (``__hvm_copy``), and once more, without a lock, when it chooses who gets the request
(``hvmemul_do_io``, xen/arch/x86/hvm/emulate.c). If the page becomes ``ram_rw`` in between, the second look finds
neither the type nor a range, and the null handler drops the store.

What follows: a frame must never become writable while another vCPU may be between its two looks.

What we do: before the type changes back we claim the frame as an MMIO range too (*cover* it), so that the second look
still finds us; the straggler arrives as an ordinary request and is performed in memory. A range means nothing to a page
that is RAM, so covers may stay. They may go

* when the frame is protected again: whichever look comes second then finds the type; or
* after a barrier: enabling an enabled server changes nothing, but Xen pauses the domain for it, synchronously, and a
  paused vCPU has left its emulation pass, so it is between no two looks.

Cost: two hypercalls more per frame, and a pause of the domain for every :data:`MAX_COVERS` frames that are let go. A
server has 256 ranges; the covers leave most of them free.
"""

from __future__ import annotations

import errno

from xengt_dm._core import ffi
from xengt_dm.cdata import CData
from xengt_dm.hypervisor.port import DomainPort, MemType

MAX_COVERS = 64

_FRAME = 4096


class Protection:
    """The :class:`~xengt_dm.ppgtt.effects.Protector` for a hypervisor where one server claims the type.

    The frames that are open are known here because letting one go differs from letting go a protected one.
    """

    def __init__(self, port: DomainPort, server: int) -> None:
        self._port = port
        self._server = server
        self._covered: dict[int, None] = {}
        self._open: set[int] = set()
        self._stopped = False
        self._one: CData = ffi.new("uint64_t[]", 1)
        self._error: CData = ffi.new("int[]", MAX_COVERS)
        #: Frames that were no longer ours to unprotect: the guest had given them back.
        self.vanished = 0

    def stop(self) -> None:
        """Protect nothing from here on; what is protected can still be let go."""
        self._stopped = True

    def protect(self, gfns: CData, count: int, errors: CData) -> int:
        if self._stopped:
            ffi.memmove(errors, ffi.new("int[]", [errno.ESHUTDOWN] * count), count * ffi.sizeof("int"))
            return count
        return self._port.set_mem_types(MemType.IOREQ_SERVER, gfns, count, errors)

    def unprotect(self, gfns: CData, count: int) -> int:
        if self._open:
            still = [gfns[i] for i in range(count) if gfns[i] not in self._open]
            self._open.difference_update(ffi.unpack(gfns, count))
            gfns, count = ffi.new("uint64_t[]", still), len(still)
        done = 0
        while done < count:
            batch = min(MAX_COVERS, count - done)
            self._let_go(gfns + done, batch)
            done += batch
        return count

    def open(self, gfn: int) -> bool:
        self._one[0] = gfn
        if self._let_go(self._one, 1):
            return False
        self._open.add(gfn)
        return True

    def close(self, gfns: CData, count: int, errors: CData) -> int:
        failures = self._port.set_mem_types(MemType.IOREQ_SERVER, gfns, count, errors)
        for i in range(count):
            if not errors[i]:
                self._open.discard(gfns[i])
        if self._covered:
            for i in range(count):
                if not errors[i] and gfns[i] in self._covered:
                    self._uncover(gfns[i])
        return failures

    def verify(self, gfns: CData, count: int) -> None:
        self._port.set_mem_types(MemType.IOREQ_SERVER, gfns, count, ffi.new("int[]", count))

    def uncover_all(self) -> None:
        """Give back every cover, behind a barrier."""
        if not self._covered:
            return
        self._port.set_server_state(self._server, True)
        for gfn in list(self._covered):
            self._uncover(gfn)

    def _let_go(self, gfns: CData, count: int) -> int:
        """Cover these frames, at most :data:`MAX_COVERS`, and make them plain memory. Returns how many failed."""
        new = [gfn for gfn in ffi.unpack(gfns, count) if gfn not in self._covered]
        if len(self._covered) + len(new) > MAX_COVERS:
            self.uncover_all()
            new = ffi.unpack(gfns, count)
        for gfn in new:
            self._port.map_mmio(self._server, gfn * _FRAME, gfn * _FRAME + _FRAME - 1)
            self._covered[gfn] = None
        failures = self._port.set_mem_types(MemType.RAM_RW, gfns, count, self._error)
        self.vanished += failures
        return failures

    def _uncover(self, gfn: int) -> None:
        del self._covered[gfn]
        self._port.unmap_mmio(self._server, gfn * _FRAME, gfn * _FRAME + _FRAME - 1)
