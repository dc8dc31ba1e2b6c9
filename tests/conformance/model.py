"""The device model of a case, on the hypervisor port: its servers, the requests it holds, and the guest's memory."""

from __future__ import annotations

import contextlib
import ctypes
import select
from collections.abc import Callable
from dataclasses import dataclass, field

from xengt_dm._core import ffi, lib
from xengt_dm._embedded import lib as embedded
from xengt_dm.errors import CallError
from xengt_dm.hypervisor.port import DomainPort, MemType

from .language import (
    FRAME,
    KINDS,
    RANGES,
    STATES,
    TYPES,
    VCPUS,
    BadCaseError,
    Names,
    Op,
    Request,
    errno_name,
    number,
    show,
)
from .side import Side

#: A side that has said nothing for so many seconds hangs.
PATIENCE = 15.0
#: What the device model answers to a read.
ANSWER = 0x5A5A5A5A5A5A5A5A


@dataclass
class _Server:
    number: int
    page: int = 0
    channels: dict[int, int] = field(default_factory=dict)


class Model:
    """Each verb returns what a case may say of it: ``ok``, an errno's name, or other words."""

    def __init__(self, side: Side, names: Names) -> None:
        self._side = side
        self._names = names
        #: Frames whose type this case may have changed.
        self._typed: set[int] = set()
        self.port: DomainPort = side.open()
        self.is_open = True
        self._servers: dict[str, _Server] = {}
        self._numbers: dict[int, str] = {}
        self._taken = ffi.new("xd_taken[]", lib.XD_SLOTS_PER_PAGE)
        self._errors = ffi.new("int *")
        self._held: dict[tuple[str, int], Request] = {}
        self._real_port = 0

    def on_server(self, name: str, verb: str, args: tuple[str, ...]) -> list[str]:
        handlers: dict[str, Callable[..., list[str] | None]] = {
            "create": self._create,
            "up": self._up,
            "adopt": self._adopt,
            "destroy": self._destroy,
            "enable": lambda server: self.port.set_server_state(server.number, True),
            "disable": lambda server: self.port.set_server_state(server.number, False),
            "claim": self._claim,
            "release": lambda server: self._claim(server, "4", "0"),
            "map": lambda server, *words: self._range(server, True, *words),
            "fill": self._fill,
            "unmap": lambda server, *words: self._range(server, False, *words),
            "slots": self._slots,
            "unslots": self._unslots,
            "bind": self._bind,
            "unbind": lambda server, vcpu: self.port.events.unbind(server.channels.pop(int(vcpu))),
            "exists": lambda server: ["yes" if self.port.server_exists(server.number) else "no"],
            "number": lambda server: [str(server.number)],
            "vp_eport": self._vp_eport,
            "slot": self._slot,
            "take": self._take,
            "answer": self._answer,
            "commit": self._commit_held,
            "notify": lambda server, vcpu: self.port.events.notify(server.channels[int(vcpu)]),
        }
        try:
            if verb in ("create", "up"):
                had = handlers[verb](name, *args)
            else:
                # A server that nobody created has a number that nobody has.
                had = handlers[verb](self._servers.get(name) or _Server(7), *args)
        except CallError as error:
            return [errno_name(error.errno)]
        return ["ok"] if had is None else had

    def _create(self, name: str) -> None:
        server = self.port.create_server()
        if name in self._servers:
            self._unbind_all(self._servers[name])
        self._servers[name] = _Server(server)
        self._numbers[server] = name

    def _up(self, name: str, *more: str) -> None:
        self._create(name)
        server = self._servers[name]
        self._slots(server)
        self.port.set_server_state(server.number, True)
        for vcpu in range(VCPUS):
            self._bind(server, str(vcpu))
        if "claim" in more:
            self.port.claim_writes(server.number)

    def _destroy(self, server: _Server) -> None:
        self.port.destroy_server(server.number)
        if server.page:
            self._unslots(server)

    def _adopt(self, server: _Server) -> None:
        self._slots(server)
        for vcpu in range(VCPUS):
            self._bind(server, str(vcpu))

    def _claim(self, server: _Server, mem_type: str = "4", flags: str = "2") -> list[str]:
        return [errno_name(self._side.claim(self.port, server.number, number(mem_type), number(flags)))]

    def _range(self, server: _Server, add: bool, kind: str, first: str, last: str) -> None:
        self._change_range(server, kind, self._names.address(first), self._names.address(last), add)

    def _fill(self, server: _Server, kind: str, first: str, step: str, count: str) -> None:
        start = self._names.address(first)
        for at in range(start, start + number(step) * number(count), number(step)):
            self._change_range(server, kind, at, at, True)

    def _change_range(self, server: _Server, kind: str, first: int, last: int, add: bool) -> None:
        match kind:
            case "mmio":
                (self.port.map_mmio if add else self.port.unmap_mmio)(server.number, first, last)
            case "port":
                (self.port.map_ports if add else self.port.unmap_ports)(server.number, first, last)
            case "pci" if first == last:
                (self.port.map_pci if add else self.port.unmap_pci)(server.number, first)
            case _:
                raise BadCaseError(f"no range: {kind} {first:#x} {last:#x}, of {', '.join(RANGES)}")

    def _slots(self, server: _Server) -> None:
        server.page = self.port.map_slots(server.number)

    def _unslots(self, server: _Server) -> None:
        self.port.unmap_slots(server.number)
        server.page = 0

    def _page(self, server: _Server) -> object:
        return ffi.cast("char *", server.page)

    def _bind(self, server: _Server, vcpu: str) -> None:
        port = lib.xd_slot_port(self._page(server), int(vcpu))
        server.channels[int(vcpu)] = self.port.events.bind(port)

    def _unbind_all(self, server: _Server) -> None:
        for port in server.channels.values():
            self.port.events.unbind(port)

    def _vp_eport(self, server: _Server, vcpu: str, *value: str) -> list[str]:
        port = lib.xd_slot_port(self._page(server), int(vcpu))
        if not value:
            return ["unset" if port == 0 else "set"]
        if value[0] != "back":
            self._real_port = port
        embedded.xd_slot_set_port(
            self._page(server), int(vcpu), self._real_port if value[0] == "back" else number(value[0])
        )
        return ["ok"]

    def _slot(self, server: _Server, vcpu: str, *value: str) -> list[str]:
        if not value:
            state = lib.xd_slot_state(self._page(server), int(vcpu))
            return [next((name for name, known in STATES.items() if known == state), str(state))]
        state = STATES[value[0]] if value[0] in STATES else number(value[0])
        embedded.xd_slot_set_state(self._page(server), int(vcpu), state)
        return ["ok"]

    def _scan(self, server: _Server, adopt: bool = False) -> list[Request]:
        count = lib.xd_slots_take(self._page(server), VCPUS, adopt, self._taken, ffi.NULL, ffi.NULL)
        return [
            Request(
                self._numbers[server.number],
                bool(one.req.bits & lib.XD_BIT_READ),
                one.req.addr,
                one.req.size,
                0 if one.req.bits & lib.XD_BIT_READ and not one.req.bits & lib.XD_BIT_DATA_IS_PTR else one.req.data,
                one.req.count,
                one.req.type,
                bool(one.req.bits & lib.XD_BIT_DATA_IS_PTR),
                bool(one.req.bits & lib.XD_BIT_DOWN),
                one.vcpu,
            )
            for one in self._taken[0:count]
        ]

    def wait(self) -> bool:
        """For an event or the end of an operation; False if neither came."""
        poll = select.poll()
        poll.register(self.port.events.fd, select.POLLIN)
        poll.register(self._side.done_fd, select.POLLIN)
        ready = poll.poll(PATIENCE * 1000)
        self.port.events.drain()
        if any(fd == self._side.done_fd for fd, _ in ready):
            self._side.take_done()
        return bool(ready)

    def _take(self, server: _Server, vcpu: str, *how: str) -> list[str]:
        while True:
            found = self._scan(server, "adopt" in how)
            for one in found:
                self._held[one.server, one.vcpu] = one
            if (self._numbers[server.number], int(vcpu)) in self._held:
                return [show(self._held[self._numbers[server.number], int(vcpu)], self._names)]
            if not self.wait():
                return ["no request"]

    def _answer(self, server: _Server, vcpu: str) -> None:
        one = self._held.pop((self._numbers[server.number], int(vcpu)))
        self._commit(one)
        lib.xd_slot_answer(self._page(server), one.vcpu, ANSWER, lib.XD_ROUTE_REFUSED, ffi.NULL)
        self.port.events.notify(server.channels[one.vcpu])

    def _commit_held(self, server: _Server, vcpu: str) -> None:
        self._commit(self._held[self._numbers[server.number], int(vcpu)])

    def _commit(self, one: Request) -> None:
        """Store to memory what Xen does not: what the guest stored, and what it read by a pointer."""
        if one.pointer and one.read:
            bytes_ = one.count * one.size
            first = one.data - bytes_ + one.size if one.down else one.data
            self._memory(first, ANSWER.to_bytes(8, "little")[:1] * bytes_)
            return
        to_memory = one.type == KINDS["copy"] and one.addr // FRAME in self._names.frames.values()
        if to_memory and not one.read and not one.pointer:
            self._memory(one.addr, one.data.to_bytes(8, "little")[: one.size])

    def clean_up(self) -> None:
        """Every server goes, and every frame that is RAM is plain again; the port holds nothing of this case."""
        if not self.is_open:
            self.on_process("starts")
        for server in self._servers.values():
            with contextlib.suppress(CallError):
                self.port.destroy_server(server.number)
            self._unbind_all(server)
            if server.page:
                self._unslots(server)
        for gfn in self._typed:
            self.set_type(TYPES["ram_rw"], gfn)

    def serve(self) -> list[Request]:
        """Answer whatever is asked now."""
        served = []
        for server in list(self._servers.values()):
            for one in self._scan(server) if server.page else []:
                served.append(one)
                self._commit(one)
                lib.xd_slot_answer(self._page(server), one.vcpu, ANSWER, lib.XD_ROUTE_REFUSED, ffi.NULL)
                self.port.events.notify(server.channels[one.vcpu])
        return served

    def on_memory(self, place: str, verb: str, args: tuple[str, ...], do: Callable[[Op], None]) -> list[str]:
        address = self._names.address(place)
        gfn = address // FRAME
        match verb, args:
            case "state", _:
                gfn = self._side.put(gfn, " ".join(args), do)
                self._names.frames[place] = gfn
                self._typed.add(gfn)
                return ["ok"]
            case "type", (wanted,):
                self._typed.add(gfn)
                return [errno_name(self.set_type(TYPES[wanted] if wanted in TYPES else number(wanted), gfn))]
            case "is", (wanted,):
                had = self._side.reported(gfn)
                if had != TYPES[wanted]:
                    return [next(name for name, known in TYPES.items() if known == had)]
                return ["ok"]
            case "maps", ():
                return [errno_name(self._map(gfn))]
            case "holds", (size, value):
                data = self._memory(address, None, number(size))
                had = int.from_bytes(data, "little")
                return ["ok" if had == number(value) else f"{had:#x}"]
            case "poke", (size, value):
                self._memory(address, number(value).to_bytes(number(size), "little"))
                return ["ok"]
        raise BadCaseError(f"memory knows no {verb!r} {args}")

    def set_type(self, mem_type: int, gfn: int) -> int:
        gfns = ffi.new("uint64_t *", gfn)
        try:
            # The port's own type knows no other number; the library beneath takes any.
            kind = MemType(mem_type) if mem_type in list(MemType) else mem_type
            self._errors[0] = 0
            self.port.set_mem_types(kind, gfns, 1, self._errors)  # type: ignore[arg-type]
        except CallError as error:
            # Where the port concludes from it that the server is gone, what Xen said is still there.
            return int(self._errors[0]) or error.errno
        return int(self._errors[0])

    def _map(self, gfn: int) -> int:
        try:
            address = self.port.map_frames(gfn, 1, self._errors)
        except CallError as error:
            return error.errno
        self.port.unmap_frames(address, 1)
        return int(self._errors[0])

    def _memory(self, address: int, data: bytes | None, size: int = 0) -> bytes:
        """Write, or read if ``data`` is None, what the device model's mapping has, page by page."""
        had = b""
        size = size if data is None else len(data)
        for at in range(address, address + size):
            if at == address or at % FRAME == 0:
                end = min(address + size, (at // FRAME + 1) * FRAME)
                mapped = self.port.map_frames(at // FRAME, 1, self._errors)
                if self._errors[0] == 0:
                    if data is not None:
                        ctypes.memmove(mapped + at % FRAME, data[at - address : end - address], end - at)
                    had += ctypes.string_at(mapped + at % FRAME, end - at)
                self.port.unmap_frames(mapped, 1)
        return had

    def on_process(self, verb: str, args: tuple[str, ...] = ()) -> list[str]:
        if verb == "dies":
            self.port.close()
            self.is_open = False
            self._held.clear()
            for server in self._servers.values():
                server.page = 0
                server.channels.clear()
        elif verb == "starts":
            self.port = self._side.open()
            self.is_open = True
        elif verb == "msi":
            address, value = args
            return ["accepted" if self.port.inject_msi(number(address), number(value)) else "refused"]
        else:
            raise BadCaseError(f"the device model knows no {verb!r}")
        return ["ok"]
