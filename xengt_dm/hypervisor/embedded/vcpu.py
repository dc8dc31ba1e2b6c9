"""A vCPU of the embedded hypervisor: the instructions that a guest program can execute, as Python methods.

The vCPU is simulated in C: ``cffi_build/embedded/vcpu_run.c`` executes one operation after the other, ``vcpu_insn.c``
what one instruction does to memory, ``vcpu_repeat.c`` and ``vcpu_rmw.c`` the repeated and the read-modify-write ones.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import TYPE_CHECKING

from xengt_dm._embedded import ffi, lib
from xengt_dm.hypervisor.embedded.errors import DomainCrashedError, GuestFaultError, VcpuStoppedError
from xengt_dm.units import CData

if TYPE_CHECKING:
    from xengt_dm.hypervisor.embedded.domain import EmbeddedDomain

_MASK = (1 << 64) - 1
#: The widest store of one instruction: AVX-512.
_WIDEST = 64
#: Ports of PCI configuration mechanism 1.
_CONFIG_ADDRESS, _CONFIG_DATA = 0xCF8, 0xCFC


class Vcpu:
    """Addresses are guest physical, sizes are bytes. Each method blocks, without the GIL, until it is done.

    All raise :class:`VcpuStoppedError` when the domain is destroyed, :class:`DomainCrashedError` when it crashed,
    :class:`GuestFaultError` when the instruction faults, and ValueError for an instruction that does not exist.
    """

    def __init__(self, domain: EmbeddedDomain, index: int) -> None:
        self.domain = domain
        self.index = index
        self._op = ffi.new("xd_emb_op *")

    def store(self, gpa: int, size: int, value: int) -> None:
        """One store of 1, 2, 4 or 8 bytes, at any alignment."""
        self._one(lib.XD_OP_STORE, gpa, size, value)

    def store_bytes(self, gpa: int, data: bytes) -> None:
        """Vector stores of up to 64 bytes each, without a gap."""
        for at in range(0, len(data), _WIDEST):
            piece = data[at : at + _WIDEST]
            buffer = ffi.from_buffer(piece)
            self._one(lib.XD_OP_STORE, gpa + at, len(piece), other=_address(buffer))

    def fill(self, gpa: int, count: int, value: int, size: int = 8) -> None:
        """``count`` stores of ``value``, upwards: a compiled memset."""
        self._one(lib.XD_OP_FILL, gpa, size, value, count=count)

    def copy(self, gpa: int, data: bytes) -> None:
        """Stores of up to 8 bytes, upwards: a compiled memcpy."""
        buffer = ffi.from_buffer(data)
        self._one(lib.XD_OP_COPY, gpa, other=_address(buffer), count=len(data))

    def rep_stos(self, gpa: int, size: int, count: int, value: int, down: bool = False) -> None:
        """``rep stos`` of ``count`` elements; ``down``: with the direction flag set."""
        self._one(lib.XD_OP_REP_STOS, gpa, size, value, count=count, down=down)

    def rep_movs(self, gpa: int, source_gpa: int, size: int, count: int, down: bool = False) -> None:
        """``rep movs`` of ``count`` elements."""
        self._one(lib.XD_OP_REP_MOVS, gpa, size, other=source_gpa, count=count, down=down)

    def load(self, gpa: int, size: int) -> int:
        """One load of 1, 2, 4 or 8 bytes, at any alignment."""
        self._one(lib.XD_OP_LOAD, gpa, size)
        return int(self._op.result)

    def xchg(self, gpa: int, size: int, value: int) -> int:
        """Returns the old value, or on read-only memory ``value``, as Xen does. Atomic on plain RAM only."""
        self._one(lib.XD_OP_XCHG, gpa, size, value)
        return int(self._op.result)

    def cmpxchg(self, gpa: int, size: int, expected: int, value: int) -> tuple[int, bool]:
        """Returns the old value and whether ``value`` was stored."""
        self._one(lib.XD_OP_CMPXCHG, gpa, size, value, other=expected)
        return int(self._op.result), bool(self._op.stored)

    def modify(self, which: int, gpa: int, size: int, operand: int) -> int:
        """``or``, ``and``, ``xor`` or ``add`` (XD_MODIFY_*), locked or not. Returns the old value."""
        self._one(lib.XD_OP_MODIFY, gpa, size, operand, other=which)
        return int(self._op.result)

    def hypercall_output(self, gpa: int, data: bytes) -> int:
        """A hypercall that writes ``data``, at most a page, to the guest. Returns 0 or EFAULT."""
        buffer = ffi.from_buffer(data)
        self._one(lib.XD_OP_HYPERCALL, gpa, len(data), other=_address(buffer))
        return int(self._op.result)

    def outp(self, port: int, size: int, value: int) -> None:
        """``out`` of 1, 2 or 4 bytes. 0xcf8 latches a PCI address, 0xcfc..0xcff then reach configuration space."""
        self._one(lib.XD_OP_OUT, port, size, value)

    def inp(self, port: int, size: int) -> int:
        """``in`` of 1, 2 or 4 bytes."""
        self._one(lib.XD_OP_IN, port, size)
        return int(self._op.result)

    def rep_outs(self, port: int, source_gpa: int, size: int, count: int, down: bool = False) -> None:
        """``rep outs``: ``count`` elements of memory to a port."""
        self._one(lib.XD_OP_REP_OUTS, port, size, other=source_gpa, count=count, down=down)

    def rep_ins(self, port: int, target_gpa: int, size: int, count: int, down: bool = False) -> None:
        """``rep ins``: ``count`` elements from a port to memory."""
        self._one(lib.XD_OP_REP_INS, port, size, other=target_gpa, count=count, down=down)

    def pci_read(self, sbdf: int, register: int, size: int) -> int:
        """Read 1, 2 or 4 bytes of the configuration space of a PCI function in segment 0, by ports 0xcf8 and 0xcfc."""
        self._select(sbdf, register)
        return self.inp(_CONFIG_DATA + (register & 3), size)

    def pci_write(self, sbdf: int, register: int, size: int, value: int) -> None:
        """Write 1, 2 or 4 bytes of the configuration space of a PCI function in segment 0."""
        self._select(sbdf, register)
        self.outp(_CONFIG_DATA + (register & 3), size, value)

    def _select(self, sbdf: int, register: int) -> None:
        if not 0 <= sbdf < 1 << 16 or not 0 <= register < 1 << 8:
            raise ValueError(f"ports reach no register {register:#x} of function {sbdf:#x}")
        self.outp(_CONFIG_ADDRESS, 4, 1 << 31 | sbdf << 8 | register & ~3)

    #: A register is accessed by the same instructions as memory.
    mmio_write = store
    mmio_read = load

    def remove(self, gfn: int, count: int) -> None:
        """Give frames back (XENMEM_decrease_reservation); the device models hear of it before this returns."""
        self._one(lib.XD_OP_REMOVE, gfn, count=count)

    def add(self, gfn: int, count: int) -> None:
        """Populates frames (XENMEM_populate_physmap). They contain zeros; on Xen they may contain anything."""
        self._one(lib.XD_OP_ADD, gfn, count=count)

    def run(self, ops: CData, count: int) -> int:
        """Execute an array ``xd_emb_op[count]``, in one go; see cffi_build/embedded/vcpu_run.h.

        Returns how many were finished.
        """
        done = ffi.new("int *")
        self._raise(lib.xd_emb_run(self.domain.handle, self.index, ops, count, done))
        return int(done[0])

    def run_stores(self, stores: Iterable[tuple[int, int, int]]) -> None:
        """Stores (gpa, size, value) in one go."""
        batch = [
            {"kind": lib.XD_OP_STORE, "gpa": gpa, "size": size, "value": value & _MASK} for gpa, size, value in stores
        ]
        self.run(ffi.new("xd_emb_op[]", batch), len(batch))

    def _one(
        self, kind: int, at: int, size: int = 0, value: int = 0, *, other: int = 0, count: int = 0, down: bool = False
    ) -> None:
        """One operation at an address, a frame or a port; ``other`` is the second union of ``xd_emb_op``."""
        op = self._op
        op.kind = kind
        op.gpa = at
        op.size = size
        op.value = value & _MASK
        op.bytes = other & _MASK
        op.count = count
        op.down = down
        self._raise(lib.xd_emb_run(self.domain.handle, self.index, op, 1, ffi.NULL))

    def _raise(self, rc: int) -> None:
        if rc == 0:
            return
        if rc == -errno.ESRCH:
            raise VcpuStoppedError(f"domain {self.domain.domid} is destroyed")
        if rc == -errno.ENOTRECOVERABLE:
            raise DomainCrashedError(f"domain {self.domain.domid} crashed: {self.domain.crash_reason}")
        if rc == -errno.EFAULT:
            raise GuestFaultError(f"a fault on vCPU {self.index} of domain {self.domain.domid}")
        raise ValueError(f"bad operation: {errno.errorcode.get(-rc, rc)}")


def _address(buffer: CData) -> int:
    return int(ffi.cast("uintptr_t", buffer))
