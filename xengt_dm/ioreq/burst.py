"""Bursts: requests that C serves for as long as nobody needs Python. ``core/serve/burst.h`` has the theory.

A burst waits in one epoll descriptor for the event channels and for a *doorbell*, which rings when somebody else in
this thread has something to do: see :mod:`xengt_dm.ioreq.doorbell`.
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from xengt_dm._core import ffi, lib
from xengt_dm.ioreq.channels import Channels
from xengt_dm.ioreq.quick import Quick
from xengt_dm.ioreq.request import TAKEN_SIZE, Request
from xengt_dm.ioreq.slots import Slots
from xengt_dm.units import CData

#: Serve what is there, and wait for nothing.
NOW: Final = 0
#: A time that never comes.
NEVER: Final = (1 << 64) - 1
#: By ``failed`` of an ``xd_burst``: what the call is called that failed.
_CALLS: Final = ("read /dev/xen/evtchn", "write /dev/xen/evtchn", "xenevtchn_notify", "epoll_wait")
#: Requests that C leaves, each with the outcome that it has already.
Handed = list[tuple[Request, int]]
_NOBODY: Final[Handed] = []


class Burst:
    """The bursts of one server. ``quick``: what C serves, None for nothing. ``stats`` is the ``xd_stats *``."""

    def __init__(self, slots: Slots, channels: Channels, quick: Quick | None, stats: CData) -> None:
        self._quick = quick
        calls = channels.events.calls
        self._epoll = select.epoll()
        self._fd = channels.events.fd
        self._epoll.register(self._fd, select.EPOLLIN)
        self._burst: CData = ffi.new("xd_burst *")
        burst = self._burst
        burst.channels.handle = ffi.cast("void *", calls.handle)
        burst.channels.take = ffi.cast("int (*)(void *)", calls.take)
        burst.channels.unmask = ffi.cast("int (*)(void *)", calls.unmask)
        burst.channels.notify = ffi.cast("int (*)(void *, uint32_t)", calls.notify)
        burst.page, burst.nr_vcpus = slots.page, slots.vcpus
        burst.channels_fd, burst.poll_fd, burst.spins = self._fd, self._epoll.fileno(), True
        burst.ports, burst.journal, burst.stats = channels.ports, slots.journal, stats
        burst.quick = ffi.NULL if quick is None else quick.pointer
        lib.xd_burst_init(burst)
        self._handed_bytes = ffi.buffer(burst.handed)
        self._kept = (slots, channels, stats)  # C has pointers into them
        self._events = channels.events

    @property
    def spins(self) -> bool:
        """Whether to look for requests without waiting, where that pays."""
        return bool(self._burst.spins)

    @spins.setter
    def spins(self, wanted: bool) -> None:
        self._burst.spins = wanted

    @property
    def served(self) -> int:
        """How many requests C has served."""
        return int(self._burst.served)

    def run(self, until: int) -> Handed:
        """Serve until ``until``, a time of ``xd_now``, or until there is a reason to end before: the doorbell, or
        requests that need Python, which are returned. Ports may stay masked afterwards, unless ``until`` is NOW.

        Raises CallError.
        """
        self._update()
        return self._outcome(lib.xd_burst_run(self._burst, until))

    def look(self) -> Handed:
        """Serve what waits in the slots now. The event that tells of it stays for :meth:`run`. Raises CallError."""
        self._update()
        return self._outcome(lib.xd_burst_look(self._burst))

    def unmask(self) -> None:
        """Have events come again as they do for everybody else. Raises CallError."""
        self._outcome(lib.xd_burst_unmask(self._burst))

    def _update(self) -> None:
        if self._quick is not None:
            self._quick.update()

    def _outcome(self, reason: int) -> Handed:
        burst = self._burst
        if reason == lib.XD_BURST_ERROR:
            raise self._events.failure(_CALLS[burst.failed], burst.error)
        if reason != lib.XD_BURST_HANDED:
            return _NOBODY
        return Request.unpack_tried(self._handed_bytes[: burst.nr_handed * TAKEN_SIZE])

    def close(self) -> None:
        """Safe to call twice. Nothing may be served afterwards."""
        self._epoll.close()

    @contextmanager
    def owned(self, doorbell: int | None) -> Iterator[None]:
        """What C serves belongs to this thread meanwhile. ``doorbell``: the descriptor at which a burst ends."""
        owner = lib.xd_burst_own(self._burst)
        try:
            if doorbell is not None:
                self._epoll.register(doorbell, select.EPOLLIN)
            try:
                yield
            finally:
                if doorbell is not None:
                    self._epoll.unregister(doorbell)
        finally:
            lib.xd_burst_disown(self._burst, owner)
