"""XenStore: its wire protocol, and a small client that reads and watches.

The codec does no I/O: :func:`encode` makes the bytes of a request, :class:`Decoder` takes bytes as they come and gives
whole messages. :class:`XenStore` is a blocking client on top. Libraries there are (libxenstore, pyxs) do not fit:
``xentoolcore_restrict_all`` makes libxenstore's handles useless, and pyxs has not changed since 2019.

Facts about long replies: a reply has at most PAYLOAD_MAX bytes by the protocol. The xenstored in C answers DIRECTORY
with E2BIG if the names need more, and has DIRECTORY_PART since Xen 4.9 to get them piece by piece. The one in OCaml has
no DIRECTORY_PART; on a socket it sends the whole reply, however long.
What follows: a reader takes replies longer than PAYLOAD_MAX, and asks for pieces after E2BIG.

Sources: xen/include/public/io/xs_wire.h, docs/misc/xenstore.txt, tools/xenstored/core.c, tools/ocaml/xenstored.
"""

from __future__ import annotations

import enum
import errno
import os
import select
import socket
import struct
import time
from pathlib import Path
from typing import Final, NamedTuple, Self

from xengt_dm.errors import HostError

HEADER: Final = struct.Struct("=IIII")
#: XENSTORE_PAYLOAD_MAX and XENSTORE_ABS_PATH_MAX.
PAYLOAD_MAX: Final = 4096
PATH_MAX: Final = 3072
#: The longest reply that is taken: the ids of all domains that can be at once take 186 KiB.
REPLY_MAX: Final = 1 << 20
#: Seconds between two tries when the store asks for another (EAGAIN, EBUSY) or takes no connection yet.
RETRY_SECONDS: Final = 0.01
#: Parts of a directory that are asked for at most, and how often it may change meanwhile.
PARTS_MAX: Final = 4096
RESTARTS: Final = 16

#: xenstored's socket, and the kernel's own door to the store for a system whose xenstored is another domain.
SOCKET: Final = Path("/run/xenstored/socket")
XENBUS: Final = Path("/dev/xen/xenbus")
#: What a kernel that runs on Xen has.
SIGNS_OF_XEN: Final = (Path("/proc/xen"), Path("/sys/hypervisor/type"))


#: A watch's name for itself; one connection of ours needs no more than one.
_TOKEN: Final = b"xengt-dm\0"


class MessageType(enum.IntEnum):
    """enum xsd_sockmsg_type: what a reader needs of it."""

    DIRECTORY = 1
    READ = 2
    WATCH = 4
    UNWATCH = 5
    GET_DOMAIN_PATH = 10
    WATCH_EVENT = 15
    ERROR = 16
    DIRECTORY_PART = 22


class Message(NamedTuple):
    """One message; ``type`` is a MessageType where that knows it. A reply has the request's type, or is an ERROR."""

    type: int
    request_id: int
    transaction_id: int
    payload: bytes

    @property
    def strings(self) -> list[str]:
        """The payload as a list of strings, each ended by a NUL; the last one's may be missing."""
        if not self.payload:
            return []
        return _text(self.payload.removesuffix(b"\0")).split("\0")

    @property
    def errno(self) -> int:
        """The errno that an ERROR carries by name; EIO for a name that this system does not have."""
        name = self.payload.partition(b"\0")[0].decode("ascii", "replace")
        value = getattr(errno, name, None) if name.startswith("E") else None
        return value if isinstance(value, int) else errno.EIO


def _text(data: bytes) -> str:
    """Bytes of the store as text; what is no UTF-8 is kept as os.fsdecode keeps it, so that it makes a file's name."""
    return data.decode("utf-8", "surrogateescape")


def encode(message: Message) -> bytes:
    """The message's bytes. Raises ValueError for a payload over PAYLOAD_MAX."""
    if len(message.payload) > PAYLOAD_MAX:
        raise ValueError(f"a payload of {len(message.payload)} bytes; the store takes {PAYLOAD_MAX}")
    return HEADER.pack(message.type, message.request_id, message.transaction_id, len(message.payload)) + message.payload


def encode_path(path: str) -> bytes:
    """A path as a payload, with the NUL that most requests want. Raises ValueError for one that no store can have."""
    raw = path.encode()
    if not raw.startswith((b"/", b"@")) or b"\0" in raw or len(raw) > PATH_MAX:
        raise ValueError(f"not an absolute path of the store: {path[:80]!r}")
    return raw + b"\0"


class Decoder:
    """Bytes in, messages out. It holds at most one message that is not whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that ``data`` completes.

        Raises ValueError on a header that promises more than REPLY_MAX: the stream can no longer be followed.
        """
        self._buffer += data
        messages = []
        while len(self._buffer) >= HEADER.size:
            kind, request_id, transaction_id, length = HEADER.unpack_from(self._buffer)
            if length > REPLY_MAX:
                raise ValueError(f"a message of {length} bytes; {REPLY_MAX} are taken")
            end = HEADER.size + length
            if len(self._buffer) < end:
                break
            payload = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            messages.append(Message(kind, request_id, transaction_id, payload))
        return messages


class XenStore:
    """A blocking client that reads and watches.

    Raises HostError: with the store's own errno for a request that it refuses (ENOENT: no such node), ETIMEDOUT when
    it does not answer in ``timeout`` seconds, EPROTO when it does not speak the protocol. After ETIMEDOUT it can be
    asked again on the same connection.
    """

    def __init__(self, socket_path: Path = SOCKET, device: Path = XENBUS, timeout: float = 5.0) -> None:
        self._timeout = timeout
        self._next_id = 1
        self._decoder = Decoder()
        self._unsent = b""
        self._fired: dict[str, None] = {}
        self._socket: socket.socket | None = None
        self._fd = self._open(socket_path, device)

    def _open(self, socket_path: Path, device: Path) -> int:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        deadline = time.monotonic() + self._timeout
        try:
            while True:
                try:
                    connection.connect(str(socket_path))
                    break
                except BlockingIOError:  # its backlog is full, unix(7)
                    _pause(deadline)
        except OSError as refused:
            connection.close()
            try:
                return os.open(device, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError:
                code = refused.errno or errno.ETIMEDOUT
                meaning = f"neither {socket_path} nor {device} answers: is xenstored running, and may we talk to it?"
                if not any(sign.exists() for sign in SIGNS_OF_XEN):
                    meaning += " This machine does not seem to run Xen; `xengt-dm check` says what it lacks"
                raise HostError("xenstore open", None, code, meaning) from refused
        self._socket = connection
        return connection.fileno()

    def close(self) -> None:
        """Closes the connection. Safe to call twice."""
        if self._fd < 0:
            return
        if self._socket is not None:
            self._socket.close()
        else:
            os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def read(self, path: str) -> str:
        """A node's value, as os.fsdecode makes text of its bytes."""
        return _text(self._request(MessageType.READ, path).payload)

    def directory(self, path: str) -> list[str]:
        """The names of a node's children, however many. E2BIG only where the store has no way to tell them."""
        try:
            return self._request(MessageType.DIRECTORY, path).strings
        except HostError as error:
            if error.errno != errno.E2BIG:
                raise
            too_long = error
        for _ in range(RESTARTS):
            try:
                names = self._directory_in_parts(path)
            except HostError as error:
                # A store that has no DIRECTORY_PART says so in different ways.
                raise (too_long if error.errno in (errno.ENOSYS, errno.EINVAL) else error) from None
            if names is not None:
                return names
        raise HostError(f"xenstore directory {path}", None, errno.EAGAIN, "it changes too often to be read")

    def _directory_in_parts(self, path: str) -> list[str] | None:
        """The names, or None if the node changed meanwhile. The end is told by an empty name."""
        names = bytearray()
        before = None
        for _ in range(PARTS_MAX):
            reply = self._request(MessageType.DIRECTORY_PART, path, more=b"%d\0" % len(names))
            generation, _, part = reply.payload.partition(b"\0")
            if before not in (None, generation):
                return None
            before = generation
            names += part
            if not part.endswith(b"\0") or len(names) > REPLY_MAX:
                break
            if names.endswith(b"\0\0") or names == b"\0":
                return Message(MessageType.DIRECTORY, 0, 0, bytes(names[:-1])).strings
        raise HostError(f"xenstore directory {path}", None, errno.EPROTO, "parts that make no list")

    def exists(self, path: str) -> bool:
        """Returns whether a node exists. Raises HostError."""
        try:
            self._request(MessageType.DIRECTORY, path)
        except HostError as error:
            if error.errno == errno.ENOENT:
                return False
            if error.errno != errno.E2BIG:
                raise
        return True

    @property
    def fd(self) -> int:
        """Readable when :meth:`fired` may have something new."""
        return self._fd

    def watch(self, path: str) -> None:
        """From now on tell of every change at or below a path, or of a special event like ``@releaseDomain``."""
        self._request(MessageType.WATCH, path, more=_TOKEN)

    def fired(self) -> list[str]:
        """The paths of the changes since the last time, each once, without waiting.

        Right after :meth:`watch` that is its own path.
        """
        try:
            while data := os.read(self._fd, HEADER.size + PAYLOAD_MAX):
                self._sort_out(self._decoder.feed(data))
            raise HostError("xenstore watch", None, errno.EPIPE, "the store closed the connection")
        except BlockingIOError:
            fired, self._fired = self._fired, {}
            return [*fired]
        except ValueError as error:
            raise HostError("xenstore watch", None, errno.EPROTO, str(error)) from error
        except OSError as error:
            raise HostError("xenstore watch", None, error.errno or errno.EIO) from error

    def _sort_out(self, messages: list[Message]) -> list[Message]:
        """The messages that are no watch events; those are kept for :meth:`fired`."""
        for message in messages:
            if message.type == MessageType.WATCH_EVENT and message.strings:
                self._fired[message.strings[0]] = None
        return [message for message in messages if message.type != MessageType.WATCH_EVENT]

    def _request(self, kind: MessageType, path: str, more: bytes = b"") -> Message:
        call = f"xenstore {kind.name.lower()} {path}"
        payload = encode_path(path) + more
        deadline = time.monotonic() + self._timeout
        try:
            while True:
                request = Message(kind, self._next_id, 0, payload)
                self._next_id = self._next_id % 0xFFFFFFFF + 1
                self._send(encode(request), deadline)
                reply = self._receive(request.request_id, deadline)
                if reply.type != MessageType.ERROR or reply.errno not in (errno.EAGAIN, errno.EBUSY):
                    break
                _pause(deadline)
        except TimeoutError as error:
            raise HostError(call, None, errno.ETIMEDOUT, f"no answer in {self._timeout:g} s") from error
        except ValueError as error:
            raise HostError(call, None, errno.EPROTO, str(error)) from error
        except OSError as error:
            raise HostError(call, None, error.errno or errno.EIO) from error
        if reply.type == MessageType.ERROR:
            raise HostError(call, None, reply.errno)
        if reply.type != kind:
            raise HostError(call, None, errno.EPROTO, f"the answer is of type {reply.type}")
        return reply

    def _wait(self, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(self._fd, event)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError

    def _send(self, data: bytes, deadline: float) -> None:
        """What a request before could not send goes out first, or the store would take the rest for a request."""
        self._unsent += data
        while self._unsent:
            self._wait(select.POLLOUT, deadline)
            try:
                self._unsent = self._unsent[os.write(self._fd, self._unsent) :]
            except BlockingIOError:
                continue

    def _receive(self, request_id: int, deadline: float) -> Message:
        """The reply to a request; the answer to a request given up is passed over."""
        while True:
            self._wait(select.POLLIN, deadline)
            try:
                data = os.read(self._fd, HEADER.size + PAYLOAD_MAX)
            except BlockingIOError:
                continue
            if not data:
                raise ValueError("the store closed the connection")
            for message in self._sort_out(self._decoder.feed(data)):
                if message.request_id == request_id:
                    return message


def _pause(deadline: float) -> None:
    """Wait a little before another try. Raises TimeoutError if there is no time for one."""
    if time.monotonic() + RETRY_SECONDS > deadline:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    time.sleep(RETRY_SECONDS)
