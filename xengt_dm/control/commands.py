"""What an operator may have a running daemon do, over the control socket.

Quiescing
---------
Facts: Xen turns on log-dirty mode, which saving and migrating need, only while no page of a domain has the type that
traps (``hap_enable_log_dirty``, xen/arch/x86/mm/hap/hap.c), and sets no page to that type while it is on.

What follows: to be saved, a domain must be let go completely, and its driver must not notice.

What we do: *quiesce* takes every shadow apart, unprotects every frame and gives the claim back, but the server stays:
the device answers, and the address spaces that the driver announces and takes back are remembered. *resume* claims
again and shadows the spaces that are live by then.

Cost: between the two there are no shadows. Who reads one is refused, and a GPU could not run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from xengt_dm.control.json_stream import LazyList, LazyObject
from xengt_dm.control.protocol import DESCRIPTOR, ErrorCode, Passed, RefusedError
from xengt_dm.control.report import Arguments, Handler, allow
from xengt_dm.daemon.recording import Recording, TraceFile, open_trace_file
from xengt_dm.errors import DataError, HostError, UsageError
from xengt_dm.instance import Instance
from xengt_dm.log.log import get_logger
from xengt_dm.ppgtt.engine import Sync

#: Commands that read shadows.
READERS: Final = ("walk", "dump", "audit", "protected")


class Operator:
    """The commands that change something, on one instance; and refusal of those that make no sense meanwhile."""

    def __init__(self, instance: Instance, recording: Recording) -> None:
        self._instance = instance
        self._engine = instance.engine
        self._recording = recording

    def extend(self, handlers: Mapping[str, Handler]) -> dict[str, Handler]:
        """These handlers and ours."""
        ours: dict[str, Handler] = {
            "protected": self._protected,
            "mode": self._mode,
            "quiesce": self._quiesce,
            "resume": self._resume,
            "record": self._record,
        }
        every = {**handlers, **ours, "status": self._with_state(handlers["status"])}
        return {name: self._unless_quiesced(each) if name in READERS else each for name, each in every.items()}

    def _with_state(self, status: Handler) -> Handler:
        def with_state(arguments: Arguments) -> object:
            found = status(arguments)
            assert isinstance(found, dict)
            state = "quiesced" if self._engine.quiesced else "serving"
            return {**found, "state": state, "recording": self._recording.name}

        return with_state

    def _unless_quiesced(self, handler: Handler) -> Handler:
        def checked(arguments: Arguments) -> object:
            if self._engine.quiesced:
                domid = self._instance.server.port.domid
                raise RefusedError(
                    ErrorCode.QUIESCED,
                    f"domain {domid} is quiesced and has no shadows; first: xengt-dm resume --domid {domid}",
                )

            return handler(arguments)

        return checked

    def _protected(self, arguments: Arguments) -> object:
        allow(arguments)
        return LazyObject(iter([("tables", LazyList(self._tables()))]))

    def _tables(self) -> Iterator[object]:
        for table in self._engine.tables():
            yield {"gfn": table.gfn, "level": table.level, "refs": table.refs, "open": table.open}

    def _mode(self, arguments: Arguments) -> object:
        allow(arguments, "mode")
        wanted = arguments.get("mode")
        if wanted is not None:
            if wanted not in [sync.value for sync in Sync]:
                raise UsageError('"mode" is "strict" or "relaxed"')
            before = self._engine.sync
            self._engine.set_sync(Sync(wanted))
            get_logger().info("mode.switched", before=before.value, now=wanted)
        return {"mode": self._engine.sync.value}

    async def _quiesce(self, arguments: Arguments) -> object:
        allow(arguments)
        if not self._engine.quiesced:
            await self._instance.quiesce()
            get_logger().info("quiesce.done", spaces=len(self._engine.spaces))
        return {"state": "quiesced", "spaces": len(self._engine.spaces)}

    async def _resume(self, arguments: Arguments) -> object:
        allow(arguments)
        if self._engine.quiesced:
            try:
                resumed = await self._instance.resume()
            except HostError as error:
                get_logger().warning("resume.refused", reason=str(error))
                raise RefusedError(ErrorCode.HOST, f"still quiesced, because Xen refused: {error}") from error
            if not resumed:
                get_logger().warning("resume.refused", reason="no frame can be protected")
                raise RefusedError(
                    ErrorCode.HOST,
                    "still quiesced, because Xen lets no frame be protected; is the domain being saved or migrated?",
                )
            get_logger().info("resume.done", spaces=len(self._engine.spaces))
        return {"state": "serving", "spaces": len(self._engine.spaces)}

    def _record(self, arguments: Arguments) -> object:
        """With ``file``, record to that: to the descriptor that came along, else to the daemon's own file of that name.

        With ``stop``, end the recording.
        """
        allow(arguments, "file", "stop", DESCRIPTOR)
        name, stop, passed = arguments.get("file"), arguments.get("stop", False), arguments.get(DESCRIPTOR)
        if not isinstance(stop, bool) or (stop and name is not None):
            raise UsageError('"stop" is true or false, and goes without "file"')
        if stop:
            file = self._recording.name
            return {"recording": None, "file": file, "events": self._recording.stop()}
        if name is not None:
            if not isinstance(name, str) or not name or "\0" in name:
                raise UsageError('"file" is the name of a file')
            if self._recording.name is not None:
                raise DataError(f"recording to {self._recording.name} already; stop that first")
            if isinstance(passed, Passed):
                self._recording.start(TraceFile(passed.take(), name))
            else:
                self._recording.start(open_trace_file(name))
        return {"recording": self._recording.name, "events": self._recording.events}
