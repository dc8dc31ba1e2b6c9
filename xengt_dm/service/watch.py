"""The watcher: starts an instance for each domain that is to have one, and ends those of domains that are gone.

Facts: xenstored fires ``@introduceDomain`` when the toolstack has built a domain, and ``@releaseDomain`` when one shuts
down or is gone. Neither says which. Nothing is fired when a domain is renamed, as xl does at the end of a migration,
or when an operator writes a file. A guest that reboots is a new domain to Xen, with another id; xl gives it the uuid of
the old one and lets it run at once. A start can take a minute if it fails.
What follows: a watcher that acts only at events, or only on a domain's first name, misses domains. One that acts in
the order of the events lets the slow start of one instance delay all others.
Decision: look at all domains at each event and every few seconds. A domain gets an instance once: as soon as its name
has a file, or its uuid is that of a domain that :mod:`.toolstack` launched here and that is gone. A start that failed
is tried again when the configuration has changed. Each domain's steps run in a task of their own.
Cost: xenstore is asked for the names of the domains without an instance every few seconds.

An instance notices the end of its domain itself. The watcher ends an instance that hangs and cannot notice it.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeVar

import trio

from xengt_dm.config.merge import domain_file, domain_files, host_file
from xengt_dm.errors import HostError, XengtError
from xengt_dm.log.log import get_logger
from xengt_dm.printable import printable
from xengt_dm.service import domains
from xengt_dm.service.instances import LAUNCH, Launch, Starter, forget_others, launch_of, launched, remember_words
from xengt_dm.service.threads import run_abandonable

T = TypeVar("T")

EVENTS: Final = ("@introduceDomain", "@releaseDomain")
#: Between two looks if no event comes.
LOOK_SECONDS: Final = 5.0
#: How long what a domain was launched with is kept after its end, for the case that its guest reboots.
REBOOT_SECONDS: Final = 600.0
#: Between two tries to reach a xenstore that was lost.
RECONNECT_SECONDS: Final = 1.0
#: Instances that are started or stopped at the same time. Those that take longer than SLOW_SECONDS do not count.
STEPS_AT_ONCE: Final = 16
SLOW_SECONDS: Final = 3.0
#: Steps in progress, with those that take long. Each needs a thread and a systemctl, with 1 MiB: the unit's TasksMax=.
STEPS_AT_MOST: Final = 64


class Store(Protocol):
    """The methods of :class:`xengt_dm.xenstore.XenStore` that the watcher uses."""

    @property
    def fd(self) -> int:
        """Readable when :meth:`fired` may have something to return."""

    def read(self, path: str) -> str:
        """Returns the value of a node. Raises HostError."""

    def directory(self, path: str) -> list[str]:
        """Returns the names of a node's children. Raises HostError."""

    def watch(self, path: str) -> None:
        """Watches a path, or a special event. Raises HostError."""

    def fired(self) -> list[str]:
        """Returns the paths and events that have changed or happened since the last call. Raises HostError."""


class Step(NamedTuple):
    """A step that concerns one domain. If it fails, it logs that itself."""

    domid: int
    do: Callable[[], None]


@dataclass
class _Domain:
    """A domain that exists: its uuid, and the options of its launch, once they are known."""

    uuid: str | None = None
    #: Whether an instance was started for it. Then none is started again, in case an operator has stopped it.
    served: bool = False
    launch: Launch | None = None
    #: After a start that failed: the version of the configuration (:meth:`Watcher._version`) that it was tried with.
    failed: tuple[object, ...] | None = None
    #: The domain's file, if it has an instance because of it.
    file: Path | None = None


class Watcher:
    """Looks at all domains, and finds out which instances must be started or ended."""

    def __init__(
        self,
        store: Store,
        starter: Starter,
        config: Path,
        serving: Callable[[], set[int]],
        forget: Callable[[int], None],
        launch: Path = LAUNCH,
    ) -> None:
        """``config``: the directory of the configuration. ``serving``: the domains that have an instance now.
        ``forget``: clears what is left of a domain that is gone. ``launch``: where :func:`.instances.remember` writes.
        """
        self.store = store
        self._starter = starter
        self._config = config
        self._serving = serving
        self._forget = forget
        self._launch = launch
        self._domains: dict[int, _Domain] = {}
        #: Whether there was a look at the domains already.
        self._looked = False
        #: What could not be read, and the reason that was logged.
        self._unreadable: dict[str, str] = {}
        #: Domains that are gone, while what is left of them is being removed.
        self._ending: set[int] = set()
        #: By uuid, of domains that are gone: what they were launched with, and since when they are gone.
        self._gone: dict[str, tuple[Launch, float]] = {}

    def look(self) -> None:
        """Does all steps, one after the other. Raises HostError if the store fails."""
        for step in self.steps():
            step.do()

    def steps(self, after_event: bool = True) -> list[Step]:
        """Returns the steps to be done now; those of one domain are in order. Raises HostError if the store fails.

        Without an event no domain can have got the id of another one, so domains that were served are not looked at.
        """
        return [*self._steps(after_event)]

    def _steps(self, after_event: bool) -> Iterator[Step]:
        now = time.monotonic()
        self._gone = {uuid: each for uuid, each in self._gone.items() if now - each[1] < REBOOT_SECONDS}
        there = self._read("domains", lambda: domains.domids(self.store))
        if there is None:
            return
        serving = self._read("run directories", self._serving) or set()
        kept = self._read("launches", lambda: launched(self._launch)) or []
        for domid in sorted((serving | set(kept) | self._domains.keys()).difference(there) - self._ending):
            if domid in self._domains or not self._looked:
                self._remember_gone(domid, now)
            self._ending.add(domid)
            yield Step(domid, partial(self._end, domid, domid in serving))
        self._looked = True
        files = bool(self._read("files", lambda: domain_files(self._config)))
        for domid in there:
            try:
                step = self._look_at(domid, files, after_event, now)
            except HostError as error:
                if error.errno in domains.CONNECTION_ERRORS:
                    raise
                self._complain(domid, error)
                continue
            if step is not None:
                yield step

    def _look_at(self, domid: int, files: bool, after_event: bool, now: float) -> Step | None:
        domain = self._domains.get(domid)
        if domain is None or domain.uuid is None or after_event:
            uuid = domains.uuid_of(self.store, domid)
            if domain is not None and None not in (domain.uuid, uuid) and domain.uuid != uuid:
                self._remember_gone(domid, now)
                domain = None
            domain = domain or _Domain()
            domain.uuid = uuid or domain.uuid
            self._domains[domid] = domain
        launch = launch_of(domid, self._launch)
        if launch is not None and launch.uuid in (None, domain.uuid):
            domain.launch = launch
        if domain.served and domain.failed in (None, self._version(domain.file)):
            return None
        why = self._why(domid, domain, files)
        if why is None:
            return None
        domain.served, domain.failed = True, None
        return Step(domid, partial(self._start, domid, domain, why))

    def _why(self, domid: int, domain: _Domain, files: bool) -> dict[str, str] | None:
        """Why a domain is to have an instance, as fields of the log; None if it is not, as far as can be told now."""
        if domain.uuid is not None and domain.uuid in self._gone:
            domain.launch, _ = self._gone.pop(domain.uuid)
            return {"rebooted": domain.uuid}
        name = domains.name_of(self.store, domid) if files else None
        path = None if name is None else domain_file(self._config, name)
        if name is None or path is None or not os.path.exists(path):
            return None
        domain.file = path
        return {"name": printable(name), "file": printable(str(path))}

    def _version(self, file: Path | None) -> tuple[object, ...]:
        """Returns a value that differs when the host's file or the domain's file has changed."""
        return tuple(_version_of(path) for path in (host_file(self._config), file) if path is not None)

    def _read(self, what: str, read: Callable[[], T]) -> T | None:
        """Returns what ``read`` returns; None if that fails, which is logged once, not at each look.

        Raises HostError if the store fails.
        """
        try:
            value = read()
        except (XengtError, OSError) as error:
            if isinstance(error, HostError) and error.errno in domains.CONNECTION_ERRORS:
                raise
            if self._unreadable.get(what) != str(error):
                self._unreadable[what] = str(error)
                get_logger().error("watch.unreadable", reason=str(error))
            return None
        self._unreadable.pop(what, None)
        return value

    def _remember_gone(self, domid: int, now: float) -> None:
        """Keeps what a domain was launched with.

        That may be recorded only since the last look at it. A domain that is not known went while nobody watched, and
        its guest may have rebooted by now.
        """
        launch = launch_of(domid, self._launch)
        domain = self._domains.pop(domid, None) or _Domain(launch.uuid if launch else None)
        if launch is not None and launch.uuid == domain.uuid:
            domain.launch = launch
        if domain.launch is not None and domain.uuid is not None:
            self._gone[domain.uuid] = domain.launch, now

    def _start(self, domid: int, domain: _Domain, why: dict[str, str]) -> None:
        get_logger().info("watch.starting", about=domid, **why)
        version = self._version(domain.file)

        def start(domid: int) -> None:
            forget_others(domid, domain.uuid, self._launch)
            if domain.launch is not None:
                remember_words(domid, domain.launch.words, self._launch, domain.uuid)
            self._starter.start(domid)

        if not self._try(domid, start) and domain.file is not None:
            domain.failed = version

    def _end(self, domid: int, serves: bool) -> None:
        """Leave nothing of a domain that is gone."""
        if serves:
            get_logger().info("watch.stopping", about=domid)
            self._try(domid, self._starter.stop)
        self._try(domid, self._forget)
        self._ending.discard(domid)

    def _try(self, domid: int, step: Callable[[int], None]) -> bool:
        """Returns whether the step succeeded. Logs a failure."""
        try:
            step(domid)
        except (XengtError, OSError) as error:
            self._complain(domid, error)
            return False
        return True

    def _complain(self, domid: int, error: Exception) -> None:
        get_logger().error("watch.failed", about=domid, reason=str(error))


def _version_of(path: Path) -> object:
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


async def watch(
    store: Store,
    watcher: Watcher,
    reconnect: Callable[[], Store] | None = None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Follows the host's domains until cancelled. Reports itself as started when xenstore's events are subscribed to.

    If the connection fails later, ``reconnect`` is called until it succeeds. If there is no ``reconnect``, and if the
    first connection fails, raises HostError, maybe in a group. A cancellation does not wait for steps in progress.
    """
    await run_abandonable(_subscribe, store)
    async with trio.open_nursery() as nursery:
        queues = _Queues(nursery)
        task_status.started()
        event = True
        while True:
            try:
                for step in await run_abandonable(watcher.steps, event):
                    queues.add(step)
                event = await _next_event(store)
            except HostError as error:
                if reconnect is None:
                    raise
                get_logger().error("watch.store_lost", reason=str(error))
                watcher.store = store = await _reconnected(reconnect)
                get_logger().info("watch.store_found")
                event = True


def _subscribe(store: Store) -> None:
    for event in EVENTS:
        store.watch(event)


async def _next_event(store: Store) -> bool:
    """Waits for an event; False if none comes in time."""
    with trio.move_on_after(LOOK_SECONDS):
        # Looking reads the store, too, and an event may have come with an answer: so ask before waiting.
        while not store.fired():
            await trio.lowlevel.wait_readable(store.fd)
        return True
    return False


async def _reconnected(reconnect: Callable[[], Store]) -> Store:
    while True:
        await trio.sleep(RECONNECT_SECONDS)
        try:
            store = await run_abandonable(reconnect)
            await run_abandonable(_subscribe, store)
        except HostError:
            continue
        return store


class _Queues:
    """The steps of each domain in order, those of different domains at the same time, in threads.

    Facts: an instance starts in a second or less, most of it CPU time. One that waits for something that does not come
    uses no CPU time, and systemd ends it only after TimeoutStartSec=, a minute. A host whose guests all have such
    instances may still have others that are well.
    What we do: STEPS_AT_ONCE steps begin at the same time, so that the host is not flooded; a step that takes longer
    than SLOW_SECONDS makes room for another one. STEPS_AT_MOST bounds the processes.
    Cost: behind n instances that hang, another one waits SLOW_SECONDS for each STEPS_AT_ONCE of them, and from
    STEPS_AT_MOST on until one of them is ended.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._at_once = trio.Semaphore(STEPS_AT_ONCE)
        self._limiter = trio.CapacityLimiter(STEPS_AT_MOST)
        self._waiting: dict[int, deque[Step]] = {}

    def add(self, step: Step) -> None:
        if step.domid in self._waiting:
            self._waiting[step.domid].append(step)
        else:
            self._waiting[step.domid] = deque([step])
            self._nursery.start_soon(self._work, step.domid)

    async def _work(self, domid: int) -> None:
        steps = self._waiting[domid]
        while steps:
            await self._do(steps.popleft())
        del self._waiting[domid]

    async def _do(self, step: Step) -> None:
        await self._at_once.acquire()
        done = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._make_room, done)
            try:
                await run_abandonable(step.do, limiter=self._limiter)
            finally:
                done.set()

    async def _make_room(self, done: trio.Event) -> None:
        with trio.move_on_after(SLOW_SECONDS):
            await done.wait()
        self._at_once.release()
