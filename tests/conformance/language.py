"""The language of the cases: one step a line, ``SUBJECT VERB ARGUMENTS [-> RESULTS]``; README.md has the words.

Nothing here knows a hypervisor: text becomes values, values become text.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

FRAME = 4096
#: Consecutive frames of RAM that each case gets for its own.
FRAMES = "pqrs"
#: Where neither side has memory or a device of its own, and where no frame can be.
PLACES = {"io": 0xF0000000, "far": 1 << 43}
SERVERS = "abcdefghi"
VCPUS = 2

TYPES = {"ram_rw": 0, "ram_ro": 1, "mmio_dm": 2, "mmio_write_dm": 3, "ioreq_server": 4}
KINDS = {"pio": 0, "copy": 1, "pci": 2, "invalidate": 8}
RANGES = ("port", "mmio", "pci")
STATES = {"none": 0, "ready": 1, "inprocess": 2, "resp_ready": 3}


class BadCaseError(Exception):
    """The table itself is wrong: what and where."""


@dataclass(frozen=True)
class Step:
    text: str
    subject: str
    verb: str
    args: tuple[str, ...]
    #: What stands behind the arrow, one for each ``;``.
    results: tuple[str, ...]


def parse(text: str) -> Step:
    action, arrow, results = text.partition("->")
    words = action.split()
    if len(words) < 2 or (arrow and not results.strip()):
        raise BadCaseError(f"not a step: {text!r}")
    return Step(
        text, words[0], words[1], tuple(words[2:]), tuple(" ".join(one.split()) for one in results.split(";") if arrow)
    )


def number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise BadCaseError(f"not a number: {text!r}") from None


@dataclass
class Names:
    """What the names of frames stand for in one run of a case."""

    frames: dict[str, int]

    def address(self, text: str) -> int:
        base, plus, offset = text.partition("+")
        if base in self.frames:
            return self.frames[base] * FRAME + (number(offset) if plus else 0)
        if base in PLACES:
            return PLACES[base] + (number(offset) if plus else 0)
        return number(text)

    def frame(self, text: str) -> int:
        address = self.address(text)
        if address % FRAME:
            raise BadCaseError(f"not a frame: {text!r}")
        return address // FRAME

    def show(self, address: int) -> str:
        for name, gfn in self.frames.items():
            if address // FRAME == gfn:
                return f"{name}+{address % FRAME:#x}"
        for name, base in PLACES.items():
            if base <= address < base + (1 << 24):
                return f"{name}+{address - base:#x}"
        return f"{address:#x}"


@dataclass(frozen=True)
class Request:
    """One ioreq, as it came out of the slot of ``vcpu``."""

    server: str
    read: bool
    addr: int
    size: int
    data: int = 0
    count: int = 1
    type: int = KINDS["copy"]
    pointer: bool = False
    down: bool = False
    vcpu: int = field(default=0, compare=False)


def request(text: str, names: Names) -> Request:
    """``a w p+8 4 0x11`` or ``a r io 2``, with ``n=COUNT``, ``ptr``, ``down``, and a kind that is not ``copy``."""
    words = text.split()
    if len(words) < 4 or words[0] not in SERVERS or words[1] not in ("w", "r"):
        raise BadCaseError(f"not a request: {text!r}")
    server, way, addr, size, *more = words
    flags = {word for word in more if word in ("ptr", "down", *KINDS)}
    count = [word for word in more if word.startswith("n=")]
    data = [word for word in more if word not in flags and word not in count]
    if len(data) > 1 or len(count) > 1:
        raise BadCaseError(f"not a request: {text!r}")
    kinds = [KINDS[word] for word in flags if word in KINDS]
    return Request(
        server,
        way == "r",
        names.address(addr),
        number(size),
        names.address(data[0]) if data else 0,
        number(count[0][2:]) if count else 1,
        kinds[0] if kinds else KINDS["copy"],
        "ptr" in flags,
        "down" in flags,
    )


def show(request: Request, names: Names) -> str:
    words = [request.server, "r" if request.read else "w", names.show(request.addr), str(request.size)]
    if request.pointer:
        words.append(names.show(request.data))
    elif not request.read:
        words.append(f"{request.data:#x}")
    words += [f"n={request.count}"] if request.count != 1 else []
    words += ["ptr"] if request.pointer else []
    words += ["down"] if request.down else []
    words += [name for name, value in KINDS.items() if value == request.type and name != "copy"]
    return " ".join(words)


@dataclass(frozen=True)
class Op:
    """One instruction, or a hypercall, of a vCPU; the guest in tests/lab/guest/conformance.c reads the same fields."""

    kind: str
    size: int = 0
    addr: int = 0
    value: int = 0
    #: The memory's address, where ``addr`` is a device's or a port; what to compare with; or which operation.
    data: int = 0
    count: int = 1
    down: bool = False


#: In the order of the guest's enum.
OPS = (
    "store", "load", "stos", "movs", "xchg", "cmpxchg", "locked", "out", "in", "remove", "add", "hypercall",
    "plain", "grant", "shutdown", "outs", "ins",
)  # fmt: skip
LOCKED = ("or", "and", "xor", "add")


def operation(words: tuple[str, ...], names: Names) -> Op:
    """``store 8 p+8 0x11`` and the like."""
    kind, *args = words
    down = "down" in args
    args = [word for word in args if word != "down"]
    try:
        match kind:
            case "store" | "xchg":
                size, addr, value = args
                return Op(kind, number(size), names.address(addr), number(value))
            case "load":
                size, addr = args
                return Op(kind, number(size), names.address(addr))
            case "stos":
                size, addr, count, value = args
                return Op(kind, number(size), names.address(addr), number(value), 0, number(count), down)
            case "movs":
                size, addr, source, count = args
                return Op(kind, number(size), names.address(addr), 0, names.address(source), number(count), down)
            case "cmpxchg":
                size, addr, expected, value = args
                return Op(kind, number(size), names.address(addr), number(value), number(expected))
            case "locked" | "plain":
                which, size, addr, value = args
                return Op(kind, number(size), names.address(addr), number(value), LOCKED.index(which))
            case "out":
                size, port, value = args
                return Op(kind, number(size), number(port), number(value))
            case "in":
                size, port = args
                return Op(kind, number(size), number(port))
            case "outs" | "ins":
                size, port, memory, count = args
                return Op(kind, number(size), number(port), 0, names.address(memory), number(count), down)
            case "remove" | "add":
                frame, count = args
                return Op(kind, 0, names.frame(frame), 0, 0, number(count))
            case "hypercall":
                (addr,) = args
                return Op(kind, 16, names.address(addr))
    except ValueError:
        pass
    raise BadCaseError(f"not an operation: {' '.join(words)!r}")


def errno_name(code: int) -> str:
    """``ok`` or the errno's name; of one that has two, that which Xen calls it by."""
    if code == errno.EOPNOTSUPP:
        return "EOPNOTSUPP"
    return "ok" if code == 0 else errno.errorcode.get(code, str(code))
