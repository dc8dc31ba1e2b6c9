"""The messages between a device model and the sim: what each call is, and how it is packed.

A message is a sequence of little-endian 64-bit words. A request is the call's number and its arguments. An answer is 0
and the results, or a positive errno and text in UTF-8: what failed, a zero byte, and what that means. Descriptors
travel with answers only.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from typing import Final

#: Of this protocol. Both sides come from one installation, so there is no other version to speak to.
VERSION: Final = 1
#: The most elements of a list in one message.
MOST_ELEMENTS: Final = 4096
#: The most bytes of a message; a list, its call and two arguments.
MOST_BYTES: Final = 8 * (MOST_ELEMENTS + 4)

#: In the words for frames.
ERRNO_BITS: Final = 16

WORD_MAX: Final = (1 << 64) - 1


class Call(enum.IntEnum):
    """What a device model can ask for. The comments name the arguments, then the results and descriptors."""

    #: version -> version, domid, RAM frames, whether retyping in flight is fatal, uuid (two words, high first);
    #: descriptors: frames, events (an eventfd), counters
    HELLO = 1
    #: -> 0 (WriteTrap.CLAIM) or 1 (WriteTrap.RANGES)
    WRITE_TRAP = 2
    #: -> count
    VCPU_COUNT = 3
    #: -> server
    CREATE_SERVER = 4
    #: server
    DESTROY_SERVER = 5
    #: server -> 0 or 1
    SERVER_EXISTS = 6
    #: server, 0 or 1
    SET_SERVER_STATE = 7
    #: server -> ; descriptor: the page
    MAP_SLOTS = 8
    #: server
    UNMAP_SLOTS = 9
    #: server, first, last (gpa)
    MAP_MMIO = 10
    UNMAP_MMIO = 11
    #: server, first, last
    MAP_PORTS = 12
    UNMAP_PORTS = 13
    #: server, sbdf
    MAP_PCI = 14
    UNMAP_PCI = 15
    #: server, hvmmem_type_t, flags (XEN_DMOP_IOREQ_MEM_ACCESS_*)
    CLAIM = 16
    #: hvmmem_type_t, then frames (gfn) -> an errno for each
    SET_MEM_TYPES = 17
    #: first gfn, count -> a word for each: an errno, or its number in the file << ERRNO_BITS. A reference is taken to
    #: each frame that has no errno
    GET_FRAMES = 18
    #: words of GET_FRAMES; those of frames are references that are given back
    PUT_FRAMES = 19
    #: the domain's port -> local port; descriptor: the eventfd of its vCPU
    BIND = 20
    #: local port
    UNBIND = 21
    #: address, data -> 0 or 1
    INJECT_MSI = 22
    #: sbdf, pin, 0 or 1
    SET_INTX = 23


#: How many arguments a call has; of a call with a list, how many come before it.
ARGUMENTS: Final = {
    Call.HELLO: 1,
    Call.WRITE_TRAP: 0,
    Call.VCPU_COUNT: 0,
    Call.CREATE_SERVER: 0,
    Call.DESTROY_SERVER: 1,
    Call.SERVER_EXISTS: 1,
    Call.SET_SERVER_STATE: 2,
    Call.MAP_SLOTS: 1,
    Call.UNMAP_SLOTS: 1,
    Call.MAP_MMIO: 3,
    Call.UNMAP_MMIO: 3,
    Call.MAP_PORTS: 3,
    Call.UNMAP_PORTS: 3,
    Call.MAP_PCI: 2,
    Call.UNMAP_PCI: 2,
    Call.CLAIM: 3,
    Call.SET_MEM_TYPES: 1,
    Call.GET_FRAMES: 2,
    Call.PUT_FRAMES: 0,
    Call.BIND: 1,
    Call.UNBIND: 1,
    Call.INJECT_MSI: 2,
    Call.SET_INTX: 3,
}
#: Calls with a list at the end, of 1 to MOST_ELEMENTS elements.
LISTS: Final = frozenset({Call.SET_MEM_TYPES, Call.PUT_FRAMES})


class MessageError(Exception):
    """A message that is not well formed; the text says in what way."""


def pack(words: Iterable[int]) -> bytes:
    """Returns the message of words, each 0 to WORD_MAX. Raises MessageError."""
    values = tuple(words)
    try:
        return struct.pack(f"<{len(values)}Q", *values)
    except struct.error as error:
        raise MessageError(f"no word of 64 bits: {error}") from None


def pack_failure(number: int, call: str, meaning: str) -> bytes:
    """Returns the answer that a call failed with errno ``number``, cut to what a message may have."""
    return (pack([number]) + f"{call}\0{meaning}".encode("utf-8", "replace"))[:MOST_BYTES]


def unpack(message: bytes) -> tuple[int, ...]:
    """Returns the words of a message. Raises MessageError."""
    count, rest = divmod(len(message), 8)
    if rest or not count or len(message) > MOST_BYTES:
        raise MessageError(f"a message of {len(message)} bytes")
    return struct.unpack(f"<{count}Q", message)


def parse_request(message: bytes) -> tuple[Call, tuple[int, ...]]:
    """Returns the call and its arguments, a list's elements after the others. Raises MessageError."""
    number, *arguments = unpack(message)
    try:
        call = Call(number)
    except ValueError:
        raise MessageError(f"no call has number {number}") from None
    elements = len(arguments) - ARGUMENTS[call]
    if elements != 0 and call not in LISTS:
        raise MessageError(f"{call.name} with {len(arguments)} arguments")
    if call in LISTS and not 1 <= elements <= MOST_ELEMENTS:
        raise MessageError(f"{call.name} with {elements} elements")
    return call, tuple(arguments)


def parse_failure(answer: bytes) -> tuple[int, str, str] | None:
    """Returns the errno, what failed and what that means; None if the answer is none of a failure."""
    number = int.from_bytes(answer[:8], "little")
    if number == 0:
        return None
    call, _, meaning = answer[8:].decode("utf-8", "replace").partition("\0")
    return number, call, meaning
