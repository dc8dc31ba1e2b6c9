"""Recording a live domain to a trace: from any moment on, to any other, within bounds of size and time.

Facts: a trace fills a disk that others need. A guest can cause as much of it as it likes, and nobody may be watching.
What follows: a recording must end by itself.
Decision: it ends at a size, after a time, when the file cannot be written any more, and when the file cannot keep up.
The log, ``status``, the answer of ``record --stop`` and a counter report that. The trace is valid up to there, and its
last event says that it was cut. A recording goes to a regular file only: a pipe may block for ever, and when a write
to a pipe fails in the middle of a line, the written part cannot be removed.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from xengt_dm.config.keys import KEYS
from xengt_dm.config.merge import Config
from xengt_dm.daemon.outcome import LostOutcome, NoNote, Note, Outcome
from xengt_dm.errors import CallError, DataError, UsageError
from xengt_dm.gpu import Gpu
from xengt_dm.ioreq.bus import Bus
from xengt_dm.ioreq.loop import ServeLoop
from xengt_dm.log.log import get_logger
from xengt_dm.ppgtt.engine import Engine
from xengt_dm.printable import printable
from xengt_dm.service.threads import run_abandonable
from xengt_dm.steps import Steps, complete
from xengt_dm.trace.ending import End, EndedError
from xengt_dm.vgpu import registers as reg
from xengt_dm.vgpu.device import Vgpu, announcement

# Most daemons never record, so what writes a trace is imported when a recording begins.
if TYPE_CHECKING:
    from xengt_dm.trace.background import BackgroundWriter
    from xengt_dm.trace.record import Recorder

#: The id of the dump that ends a recording, so that a replay shows what the shadows mapped then.
LAST_DUMP: Final = "end"
#: How many announcements of one space are recorded in a slice.
REPEATED_AT_ONCE: Final = 1024
#: How long the end of a recording waits for what was recorded to be written.
STOP_SECONDS: Final = 10.0


class TraceFile(NamedTuple):
    """The file of a recording: an open descriptor, and the file's name for messages.

    The function that gets a TraceFile must close the descriptor.
    """

    descriptor: int
    name: str

    @property
    def compress(self) -> bool:
        """Whether the trace is compressed with gzip, which the name decides."""
        return self.name.endswith(".gz")


class Bounds(NamedTuple):
    """How large a trace may become, in MiB, and how long a recording may go on, in minutes."""

    max_mib: int = int(KEYS["record.max_mib"].default)
    max_minutes: int = int(KEYS["record.max_minutes"].default)

    @classmethod
    def from_config(cls, config: Config) -> Bounds:
        """Returns the bounds that the configuration has."""
        return cls(config.integer("record.max_mib"), config.integer("record.max_minutes"))


class _Current(NamedTuple):
    """The recording that is being made. ``ends_at``: when its time is over, in seconds of the clock."""

    file: TraceFile
    writer: BackgroundWriter
    recorder: Recorder
    ends_at: float


def check_recordable(gpu: Gpu) -> None:
    """Raises DataError for a device of which a trace says too little to replay it: one with engines."""
    if gpu.config is not None:
        raise DataError("the device is a skylake; what it does cannot be replayed, so it is not recorded")


class Recording:
    """The recording of one instance, on or off. ``clock``: a monotonic clock, in seconds.

    ``note`` outlives this process and says whether a recording is being made. If it says so already when this object is
    made, a predecessor died or left during its recording.
    """

    def __init__(
        self,
        engine: Engine,
        device: Vgpu,
        bus: Bus,
        frame_limit: int,
        note: Note | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._device = device
        self._bus = bus
        self._frame_limit = frame_limit
        self._clock = clock
        self._current: _Current | None = None
        #: Whether the registers and spaces from before the recording are still being recorded.
        self._telling = False
        #: The name of the file that is being opened.
        self._opening: str | None = None
        self._note: Note = note or NoNote()
        self._last: Outcome | LostOutcome | None = self._lost()

    def _lost(self) -> LostOutcome | None:
        if not self._note.recording:
            return None
        handed_over = self._note.left_at != 0
        lost = LostOutcome(printable(self._note.recording_name), handed_over=handed_over)
        self._note.recording = False
        if not handed_over:  # otherwise the predecessor has counted and logged it
            self._engine.counters.cut_recordings += 1
            get_logger().warning("record.cut", file=lost.name, reason=lost.error.detail)
        return lost

    @property
    def name(self) -> str | None:
        """The name of the file that is being recorded to; None without a recording."""
        return self._current.file.name if self._current else None

    @property
    def events(self) -> int:
        """The number of events in the file; 0 without a recording."""
        return self._current.writer.events if self._current else 0

    @property
    def cut(self) -> Outcome | LostOutcome | None:
        """The last recording, if it ended by itself; None otherwise, and once another one has started."""
        return self._last if self._last is not None and self._last.error is not None else None

    def start(self, file: TraceFile, bounds: Bounds | None = None) -> None:
        """Record from here on. Raises DataError if that is on already, or if the file cannot be written to.

        Waits for the file. Whoever serves a guest must call :meth:`start_later`.
        """
        bounds = bounds or Bounds()
        self._refuse_second(file)
        complete(self._begin(file, self._open(file, bounds), bounds))

    async def start_later(self, file: TraceFile, bounds: Bounds, loop: ServeLoop) -> None:
        """:meth:`start`, while a thread waits for the file, and requests are served."""
        self._refuse_second(file)
        self._opening = file.name
        try:
            writer = await run_abandonable(self._open, file, bounds)
        finally:
            self._opening = None
        await loop.run(self._begin(file, writer, bounds))

    def look(self) -> Steps[None]:
        """Passes recorded events to the writer, and ends the recording when its time is over.

        The daemon must call this at intervals.
        """
        current = self._current
        if current is None:
            return
        current.recorder.flush()
        if self._current is not None and self._clock() >= current.ends_at:
            with suppress(CallError):
                yield from self.dump(LAST_DUMP)
            if self._current is not None:
                self._end_by_itself(EndedError(End.DURATION))

    def dump(self, name: str | int) -> Steps[None]:
        """Records a dump of every space at this point of the trace. The spaces are synced first, as in a replay."""
        while self._telling:
            yield
        if self._current is not None and not self._engine.quiesced:
            for space in self._engine.spaces_by_age:
                yield from self._engine.sync(space)
                yield
            if self._current is not None:  # the syncs may have ended it
                self._current.recorder.dump(name)

    def finish(self) -> Steps[Outcome | LostOutcome]:
        """Ends the recording; a thread writes what is left. Returns it, or the last one if that ended by itself.

        Raises UsageError if there is neither, and HostError if the last dump fails; the trace is complete even then.
        """
        if self._current is None and self.cut is None:
            raise UsageError("nothing is being recorded")
        try:
            yield from self.dump(LAST_DUMP)
        finally:
            if self._current is not None:
                self._current.recorder.flush()
            if self._current is not None:  # else that ended it
                self._end(None)
        assert self._last is not None
        return self._last

    def stop(self) -> Outcome | LostOutcome:
        """Calls :meth:`finish`, and waits until everything is written, for at most STOP_SECONDS."""
        outcome = complete(self.finish())
        outcome.wait(STOP_SECONDS)
        self._log_end()
        return outcome

    async def stop_later(self, loop: ServeLoop) -> Outcome | LostOutcome:
        """As :meth:`stop`, but a thread waits, and requests are served meanwhile."""
        outcome = await loop.run(self.finish())
        await run_abandonable(outcome.wait, STOP_SECONDS)
        self._log_end()
        return outcome

    async def hand_over(self, loop: ServeLoop) -> None:
        """Ends the recording, if there is one, because the daemon is about to leave its domain to a successor.

        The successor reports the recording. A thread waits until everything is written, for at most STOP_SECONDS.
        """
        current = self._current
        if current is None:
            return
        with suppress(CallError):
            await loop.run(self.dump(LAST_DUMP))
        if self._current is None:  # it ended by itself during the dump
            return
        self._end_by_itself(EndedError(End.UPGRADE))
        assert self._last is not None
        await run_abandonable(self._last.wait, STOP_SECONDS)
        self._note.recording = True

    def end(self) -> None:
        """Ends the recording because the daemon ends. Does not wait until everything is written."""
        if self._current is not None:
            with suppress(CallError):
                complete(self.finish())

    def close(self) -> None:
        """Calls :meth:`end`, and waits until everything is written, for at most STOP_SECONDS."""
        self.end()
        if self._last is not None:
            self._last.wait(STOP_SECONDS)
            self._log_end()

    def _refuse_second(self, file: TraceFile) -> None:
        name = self.name or self._opening
        if name is not None:
            os.close(file.descriptor)
            raise DataError(f"recording to {name} already; stop that first")
        if self._last is not None and not self._last.wait(0):
            os.close(file.descriptor)
            raise DataError(f"{self._last.name}, the last recording, is still being written")
        self._log_end()

    def _open(self, file: TraceFile, bounds: Bounds) -> BackgroundWriter:
        """Returns what writes to ``file``, which it owns. May wait for the file. Raises DataError."""
        from xengt_dm.trace.background import BackgroundWriter
        from xengt_dm.trace.events import FRAME_LIMIT, Header
        from xengt_dm.trace.write import TraceWriter

        _require_regular(file)
        try:
            try:
                os.ftruncate(file.descriptor, 0)
            except OSError:
                os.close(file.descriptor)
                raise
            header = Header(self._engine.generation, min(self._frame_limit, FRAME_LIMIT))
            return BackgroundWriter(TraceWriter(file.descriptor, header, file.compress, bounds.max_mib << 20))
        except OSError as error:
            raise DataError(f"{file.name}: cannot be written: {error.strerror}") from error

    def _begin(self, file: TraceFile, writer: BackgroundWriter, bounds: Bounds) -> Steps[None]:
        from xengt_dm.trace.events import FRAME_LIMIT
        from xengt_dm.trace.record import Recorder

        recorder = Recorder(
            writer,
            min(self._frame_limit, FRAME_LIMIT),
            lambda offset: self._device.read(offset, 4),
            reg.G2V_NOTIFY,
            self._end_by_itself,
        )
        self._last = None
        self._note.recording_name = file.name
        self._note.recording = True
        self._current = _Current(file, writer, recorder, self._clock() + 60 * bounds.max_minutes)
        get_logger().info("record.started", file=file.name, max_mib=bounds.max_mib, max_minutes=bounds.max_minutes)
        self._bus.observe(recorder)
        self._telling = True
        try:
            yield from self._tell_what_is(recorder)
        except BaseException:
            if self._current is not None:
                self._end(None)
            raise
        finally:
            self._telling = False

    def _tell_what_is(self, recorder: Recorder) -> Steps[None]:
        """Records the registers and the live spaces, then what the engine has read, slice by slice.

        Facts: a guest may have announced thousands of spaces, each any number of times, so recording them takes many
        slices, in which the guest announces and destroys others. What we do: the list of spaces is taken in the same
        slice in which the recorder becomes the bus's observer, so each announcement is either in the list or observed.
        The recorder keeps observed events back until the whole list is recorded. A store to a page whose content was
        not recorded yet is recorded like any other; the content follows.
        """
        from xengt_dm.trace.events import Mmio

        recorder.keep_waiting()
        ips = self._device.read(reg.GAMW_ECO_DEV_RW_IA, 4)
        pdps = [Mmio(reg.PDP0 + 8 * n, 8, self._device.read(reg.PDP0 + 8 * n, 8)) for n in range(reg.PDP_COUNT)]
        spaces = [(space.mode, space.roots, space.refs) for space in self._engine.spaces_by_age]
        recorder.note(Mmio(reg.GAMW_ECO_DEV_RW_IA, 4, ips))
        for mode, roots, refs in spaces:
            *writes, notification = (Mmio(*write) for write in announcement(mode, roots))
            for each in writes:
                recorder.note(each)
            for told in range(0, refs, REPEATED_AT_ONCE):
                recorder.note(notification, min(REPEATED_AT_ONCE, refs - told))
                yield
                if self._current is None or self._current.recorder is not recorder:
                    return  # the recording has ended by itself
        for each in pdps:
            recorder.note(each)
        while not recorder.catch_up():
            yield
        if self._current is not None and self._current.recorder is recorder:
            self._engine.observe(recorder)
            yield from self._engine.tell_all()

    def _end_by_itself(self, error: EndedError) -> None:
        outcome = self._end(error)
        outcome.logged = True
        self._engine.counters.cut_recordings += 1
        if error.end is End.FILE:
            get_logger().error("record.failed", file=outcome.name, reason=error.detail)
        else:
            get_logger().warning("record.cut", file=outcome.name, reason=error.detail)

    def _end(self, error: EndedError | None) -> Outcome:
        assert self._current is not None
        self._engine.observe(None)
        self._bus.observe(None)
        self._note.recording = False
        current, self._current = self._current, None
        current.writer.close(error.end if error else None)
        self._last = outcome = Outcome(current.file.name, current.writer, error)
        return outcome

    def _log_end(self) -> None:
        """Logs the end of a recording that was stopped, if it is known by now whether the whole file was written."""
        outcome = self._last
        if not isinstance(outcome, Outcome) or outcome.logged:
            return
        outcome.logged = True
        if outcome.error is not None:
            self._engine.counters.cut_recordings += 1
            get_logger().error("record.failed", file=outcome.name, reason=outcome.error.detail)
        elif outcome.wait(0):
            get_logger().info("record.stopped", file=outcome.name, events=outcome.events)
        else:
            get_logger().error("record.failed", file=outcome.name, reason="the file takes too long to be written")


def open_trace_file(name: str) -> TraceFile:
    """Opens a regular file for a recording, and makes it if it is not there. Returns it. Raises DataError.

    What is in the file stays until the recording begins.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK  # to open a FIFO would wait for its reader
    try:
        file = TraceFile(os.open(name, flags, 0o600), name)
    except OSError as error:
        raise DataError(f"{name}: cannot be written: {error.strerror}") from error
    _require_regular(file)
    return file


_KINDS: Final = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def _require_regular(file: TraceFile) -> None:
    """Closes the file and raises DataError if it is not a regular one."""
    kind = stat.S_IFMT(os.fstat(file.descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(file.descriptor)
        what = _KINDS.get(kind, "not one")
        raise DataError(f"{file.name} is {what}; a recording goes to a regular file only")
