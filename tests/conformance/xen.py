"""Real Xen as a side of the table, in dom0: a guest that runs tests/lab/guest/conformance.c, and the installed project.

What the stable libraries do not have, a frame's type and log-dirty mode, comes from libxencall and libxenctrl.
"""

from __future__ import annotations

import ctypes
import select
import subprocess
import time
from collections.abc import Callable
from ctypes import POINTER, Structure, c_int, c_uint, c_uint16, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any, Protocol

from xengt_dm.errors import HostError
from xengt_dm.hypervisor.port import DomainPort
from xengt_dm.hypervisor.xen import library
from xengt_dm.hypervisor.xen.events import XenEvents
from xengt_dm.hypervisor.xen.port import XenPort

from .language import FRAMES, OPS, TYPES, VCPUS, Op
from .side import Outcome

# The same as in tests/lab/guest/conformance.c and lab.h.
_COMMANDS_GFN = 0x00600
_STRIDE = 128
_FIRST_FRAME, _END_OF_FRAMES = 0x01000, 0x04000
READY = 1
#: Host frames that are no memory, and where the guest has them: for the domain's configuration.
_DIRECT_GFN, _DIRECT_FRAMES = 0xE1000, 16
CONFIG = f'iomem = ["b0,{_DIRECT_FRAMES:x}@{_DIRECT_GFN:x}"]'
#: What more a domain's configuration says for each paging of a case.
PAGING = {"hap": "", "shadow": "hap = 0"}
#: How long a vCPU is watched that should do nothing. Xen has no way to ask.
_NOTHING_SECONDS = 0.15
_PATIENCE = 15.0
_POLL_SECONDS = 0.02
_HYPERVISOR_HVM_OP, _HVMOP_GET_MEM_TYPE = 34, 15  # public/xen.h, public/hvm/hvm_op.h
# public/domctl.h XEN_DOMINF_*, public/sched.h
_DOMINF_SHUTDOWN, _DOMINF_SHUTDOWN_SHIFT, _SHUTDOWN_CRASH = 1 << 2, 16, 3
_LOGDIRTY_ON, _LOGDIRTY_OFF = 2, 0  # XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY, _OFF, public/domctl.h


class Guest(Protocol):
    """A domain of the lab, created and started; see tests/lab/dom0/guest.py."""

    domid: int
    program: str
    memory: Any

    def close(self) -> None: ...


class _Command(Structure):
    _fields_ = [
        ("sequence", c_uint32),
        ("done", c_uint32),
        ("port", c_uint32),
        ("kind", c_uint32),
        ("size", c_uint32),
        ("count", c_uint32),
        ("down", c_uint32),
        ("fault", c_uint32),
        ("addr", c_uint64),
        ("data", c_uint64),
        ("value", c_uint64 * 2),
        ("result", c_uint64),
    ]


class _GetMemType(Structure):
    _fields_ = [("domid", c_uint16), ("mem_type", c_uint16), ("pad", c_uint16 * 2), ("pfn", c_uint64)]


class _DomainInfo(Structure):
    """xen_domctl_getdomaininfo, of which the beginning is the same in all releases, and the rest not of interest."""

    _fields_ = [("domain", c_uint16), ("pad", c_uint16), ("flags", c_uint32), ("rest", c_uint64 * 64)]


class XenSide:
    """See side.py. The guest has reached its checkpoint READY."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._domid = guest.domid
        self._ffi, self._lib = library.load()
        self._models = self._lib.xendevicemodel_open(self._lib.xd_xen_quiet_logger(), 0)
        self._events = XenEvents(library.load(), self._domid)
        self._commands = guest.memory.map(_COMMANDS_GFN, 1)
        self._ports = [self._events.bind(self._command(vcpu).port) for vcpu in range(VCPUS)]
        self._next_frame = _FIRST_FRAME
        self._next_direct = 0
        self._dirty = False
        self._spare: XenPort | None = None
        self._calls = ctypes.CDLL("libxencall.so.1", use_errno=True)
        self._calls.xencall_open.restype = c_void_p
        self._calls.xencall_alloc_buffer.restype = c_void_p
        self._calls.xencall_alloc_buffer.argtypes = [c_void_p, ctypes.c_size_t]
        self._calls.xencall2.argtypes = [c_void_p, c_uint, c_uint64, c_uint64]
        self._calls.xencall_free_buffer.argtypes = [c_void_p, c_void_p]
        self._calls.xencall_close.argtypes = [c_void_p]
        self._call = self._calls.xencall_open(None, 0)
        self._buffer = self._calls.xencall_alloc_buffer(self._call, ctypes.sizeof(_GetMemType))
        subprocess.run(["modprobe", "xen-gntalloc"], check=True)
        self._grants = ctypes.CDLL("libxengnttab.so.1", use_errno=True)
        self._grants.xengntshr_open.restype = c_void_p
        self._grants.xengntshr_share_pages.restype = c_void_p
        self._grants.xengntshr_share_pages.argtypes = [c_void_p, c_uint32, c_int, POINTER(c_uint32), c_int]
        self._grants.xengntshr_close.argtypes = [c_void_p]
        self._grant_handle = self._grants.xengntshr_open(None, 0)
        control = min(Path("/usr/lib/x86_64-linux-gnu").glob("libxenctrl.so.4.*"))
        self._control = ctypes.CDLL(str(control), use_errno=True)
        self._control.xc_interface_open.restype = c_void_p
        self._control.xc_domain_getinfolist.argtypes = [c_void_p, c_uint32, c_uint, POINTER(_DomainInfo)]
        self._control.xc_shadow_control.argtypes = [c_void_p, c_uint32, c_uint, POINTER(c_uint), c_uint]
        self._control.xc_interface_close.argtypes = [c_void_p]
        self._controls = self._control.xc_interface_open(None, None, 0)

    def close(self) -> None:
        """Release every resource of the guest. Call it once, at the end."""
        if self._spare:
            self._spare.close()
        self._events.close()
        self._unmap_commands()
        self._grants.xengntshr_close(self._grant_handle)
        self._lib.xendevicemodel_close(self._models)
        self._calls.xencall_free_buffer(self._call, self._buffer)
        self._calls.xencall_close(self._call)
        self._control.xc_interface_close(self._controls)

    def _unmap_commands(self) -> None:
        if self._commands:
            self._guest.memory.unmap(self._commands, 1)
            self._commands = 0

    def _command(self, vcpu: int) -> _Command:
        return _Command.from_address(self._commands + vcpu * _STRIDE)

    @property
    def done_fd(self) -> int:
        return self._events.fd

    def open(self) -> XenPort:
        port, self._spare = self._spare, None
        return port or XenPort(self._domid, frame_limit=_END_OF_FRAMES)

    def give_back(self, port: DomainPort) -> None:
        # Opening three devices anew would be much of what a case costs.
        assert isinstance(port, XenPort)
        self._spare = port

    def frames(self, count: int) -> int:
        if self._dirty:
            # Tracking of no frames ends it.
            self._lib.xendevicemodel_track_dirty_vram(self._models, self._domid, 0, 0, self._ffi.NULL)
            self._dirty = False
        first = self._next_frame + 1
        self._next_frame = first + count
        assert self._next_frame <= _END_OF_FRAMES, "the guest has no more frames"
        return first

    def put(self, gfn: int, state: str, do: Callable[[Op], None]) -> int:
        match state:
            case "hole":
                do(Op("remove", addr=gfn))
            case "ram_logdirty":
                # Facts: Xen enters a range of one frame in its list, but never has its entry looked at again
                # (xen/arch/x86/mm/p2m.c change_type_range: start < end, the last frame included). What follows: one
                # frame alone stays ram_rw until something else has its entry recalculated. So the frame before goes
                # along, which is no case's own: frames() leaves one out. Cost: only the first frame can be tracked.
                assert gfn == self._next_frame - len(FRAMES), "only the first frame of a case can be ram_logdirty"
                bitmap = self._ffi.new("unsigned long *")
                self._dirty = True
                self._check(self._lib.xendevicemodel_track_dirty_vram(self._models, self._domid, gfn - 1, 2, bitmap))
            case "grant_map_rw" | "grant_map_ro":
                do(Op("remove", addr=gfn))
                do(Op("grant", addr=gfn, data=self._grant(), count=int(state == "grant_map_ro")))
            case "mmio_direct":
                gfn = _DIRECT_GFN + self._next_direct % _DIRECT_FRAMES
                self._next_direct += 1
            case _:
                gfns, errors = self._ffi.new("uint64_t *", gfn), self._ffi.new("int *")
                self._lib.xd_xen_set_mem_types(self._models, self._domid, TYPES[state], gfns, 1, errors)
                if errors[0]:
                    raise HostError("xendevicemodel_set_mem_type", self._domid, errors[0])
        return gfn

    def _grant(self) -> int:
        """A page of dom0's, granted to the guest for writing; the reference."""
        reference = c_uint32()
        shared = self._grants.xengntshr_share_pages(self._grant_handle, self._domid, 1, ctypes.byref(reference), 1)
        if not shared:
            raise HostError("xengntshr_share_pages", self._domid, ctypes.get_errno())
        return reference.value

    def _check(self, rc: int) -> None:
        if rc:
            raise HostError("xendevicemodel", self._domid, self._ffi.errno)

    def reported(self, gfn: int) -> int:
        asked = _GetMemType.from_address(self._buffer)
        asked.domid, asked.pfn = self._domid, gfn
        if self._calls.xencall2(self._call, _HYPERVISOR_HVM_OP, _HVMOP_GET_MEM_TYPE, self._buffer):
            raise HostError("HVMOP_get_mem_type", self._domid, ctypes.get_errno())
        return int(asked.mem_type)

    def claim(self, port: Any, server: int, mem_type: int, flags: int) -> int:
        rc = self._lib.xendevicemodel_map_mem_type_to_ioreq_server(self._models, self._domid, server, mem_type, flags)
        return int(self._ffi.errno) if rc else 0

    def log_dirty(self, on: bool) -> int:
        what = _LOGDIRTY_ON if on else _LOGDIRTY_OFF
        rc = self._control.xc_shadow_control(self._controls, self._domid, what, None, 0)
        return ctypes.get_errno() if rc else 0

    def pause(self) -> None:
        self._control.xc_domain_pause(c_void_p(self._controls), self._domid)

    def unpause(self) -> None:
        self._control.xc_domain_unpause(c_void_p(self._controls), self._domid)

    def shutdown(self) -> None:
        self.start(1, Op("shutdown"))
        while not self._command(1).result:
            time.sleep(_POLL_SECONDS)
        # It is about to ask Xen; that it has done so cannot be seen.
        self.settle(1, "stands")

    def destroy(self) -> None:
        """Xen knows a domain for as long as somebody has its memory mapped, so ours goes first."""
        self._unmap_commands()
        self._guest.close()
        subprocess.run(["xl", "destroy", self._guest.program], capture_output=True, timeout=60, check=True)
        if self.condition("gone") != "gone":
            raise AssertionError("the domain is destroyed, and Xen still knows it")

    def condition(self, expected: str) -> str:
        deadline = time.monotonic() + _PATIENCE
        while (had := self._condition()) != expected and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return had

    def _condition(self) -> str:
        info = _DomainInfo()
        found = self._control.xc_domain_getinfolist(self._controls, self._domid, 1, ctypes.byref(info))
        if found < 0:
            raise HostError("xc_domain_getinfolist", self._domid, ctypes.get_errno())
        # It gives the first domain that there is from this one on.
        if found == 0 or info.domain != self._domid:
            return "gone"
        if not info.flags & _DOMINF_SHUTDOWN:
            return "running"
        return "crashed" if info.flags >> _DOMINF_SHUTDOWN_SHIFT & 0xFF == _SHUTDOWN_CRASH else "shut down"

    def start(self, vcpu: int, op: Op) -> None:
        command = self._command(vcpu)
        assert command.sequence == command.done, "the vCPU is at something else"
        command.kind, command.size, command.addr = OPS.index(op.kind), op.size, op.addr
        command.data, command.count, command.down = op.data, op.count, int(op.down)
        command.value[0], command.value[1] = op.value & (1 << 64) - 1, op.value >> 64
        command.sequence += 1
        self._events.notify(self._ports[vcpu])

    def take_done(self) -> None:
        self._events.drain()

    def outcome(self, vcpu: int) -> Outcome | None:
        command = self._command(vcpu)
        if command.done != command.sequence:
            return None
        return Outcome(int(command.result), bool(command.fault))

    def settle(self, vcpu: int, phase: str) -> bool:
        deadline = time.monotonic() + _NOTHING_SECONDS
        poll = select.poll()
        poll.register(self.done_fd, select.POLLIN)
        while self.outcome(vcpu) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return True
            if poll.poll(left * 1000):
                self.take_done()
        return False
