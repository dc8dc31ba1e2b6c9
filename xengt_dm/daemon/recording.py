"""Recording a live domain to a trace: from any moment on, to any other."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from xengt_dm.errors import CallError, DataError, UsageError
from xengt_dm.ioreq.bus import Bus
from xengt_dm.log.log import get_logger
from xengt_dm.ppgtt.engine import Engine
from xengt_dm.trace.events import FRAME_LIMIT, Header, Mmio
from xengt_dm.trace.record import Recorder
from xengt_dm.trace.write import TraceWriter
from xengt_dm.vgpu import registers as reg
from xengt_dm.vgpu.device import Vgpu, announcement

#: The dump that a recording ends with; so its replay says what the shadows said then.
LAST_DUMP: Final = "end"


@dataclass(frozen=True)
class TraceFile:
    """Where a recording goes: an open descriptor, which whoever takes this owns, and what people call it."""

    descriptor: int
    name: str

    @property
    def compress(self) -> bool:
        return self.name.endswith(".gz")


class Recording:
    """The recording of one instance, on or off."""

    def __init__(self, engine: Engine, device: Vgpu, bus: Bus, frame_limit: int) -> None:
        self._engine = engine
        self._device = device
        self._bus = bus
        self._frame_limit = min(frame_limit, FRAME_LIMIT)
        self._file: TraceFile | None = None
        self._writer: TraceWriter | None = None
        self._recorder: Recorder | None = None

    @property
    def name(self) -> str | None:
        """What is being recorded to."""
        return self._file.name if self._file else None

    @property
    def events(self) -> int:
        return self._recorder.events if self._recorder else 0

    def start(self, file: TraceFile) -> None:
        """Record from here on. Raises DataError if that is on already, or if the file cannot be written to."""
        if self._file is not None:
            os.close(file.descriptor)
            raise DataError(f"recording to {self._file.name} already; stop that first")
        header = Header(self._engine.generation, self._frame_limit)
        with suppress(OSError):  # a pipe has no length
            os.ftruncate(file.descriptor, 0)
        try:
            writer = TraceWriter(file.descriptor, header, file.compress)
        except OSError as error:  # the writer has closed it
            raise DataError(f"{file.name}: cannot be written: {error.strerror}") from error
        self._file, self._writer = file, writer
        self._recorder = Recorder(
            writer, self._frame_limit, lambda offset: self._device.read(offset, 4), reg.G2V_NOTIFY, self._fail
        )
        self._tell_what_is(self._recorder)
        self._bus.observe(self._recorder)
        get_logger().info("record.started", file=file.name)

    def flush(self) -> None:
        if self._recorder is not None:
            self._recorder.flush()

    def dump(self, name: str | int) -> None:
        """Have the trace dump every space here. They are synced first, as its replay will do."""
        if self._recorder is not None and not self._engine.quiesced:
            for space in self._engine.spaces:
                self._engine.sync(space)
            self._recorder.dump(name)

    def stop(self) -> int:
        """Record no more; how many events the trace has. Raises UsageError if nothing was being recorded.

        The trace is whole also if the last dump fails; that raises HostError.
        """
        if self._file is None or self._recorder is None:
            raise UsageError("nothing is being recorded")
        recorder, name = self._recorder, self._file.name
        try:
            self.dump(LAST_DUMP)
        finally:
            recorder.flush()
            self._end()
        get_logger().info("record.stopped", file=name, events=recorder.events)
        return recorder.events

    def close(self) -> None:
        """The end of a recording with the daemon's, whatever that ends for."""
        if self._file is not None:
            with suppress(CallError):
                self.stop()

    def _tell_what_is(self, recorder: Recorder) -> None:
        """Have the engine read everything again that it has shadowed, so that it is recorded; then the registers."""
        engine = self._engine
        if engine.quiesced:
            engine.observe(recorder)
        else:
            engine.quiesce()
            engine.observe(recorder)
            engine.resume()
        ips = self._device.read(reg.GAMW_ECO_DEV_RW_IA, 4)
        pdps = [(reg.PDP0 + 8 * n, 8, self._device.read(reg.PDP0 + 8 * n, 8)) for n in range(reg.PDP_COUNT)]
        writes = [(reg.GAMW_ECO_DEV_RW_IA, 4, ips)]
        for space in engine.spaces:
            writes += announcement(space.mode, space.roots) * space.refs
        for offset, size, value in [*writes, *pdps]:
            recorder.note(Mmio(offset, size, value))

    def _fail(self, error: OSError) -> None:
        name = self._file.name if self._file else "?"
        get_logger().error("record.failed", file=name, reason=error.strerror or str(error))
        self._end()

    def _end(self) -> None:
        self._engine.observe(None)
        self._bus.observe(None)
        writer, self._file, self._writer, self._recorder = self._writer, None, None, None
        if writer is not None:
            with suppress(OSError):
                writer.close()


def open_trace_file(name: str) -> TraceFile:
    """Open a file for a recording, which then replaces what is there. Raises DataError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    try:
        return TraceFile(os.open(name, flags, 0o600), name)
    except OSError as error:
        raise DataError(f"{name}: cannot be written: {error.strerror}") from error
