"""What an operator may have a running daemon do, over the control socket: one table of all commands, at the end.

Quiescing
---------
Facts: Xen turns on log-dirty mode, which saving and migrating need, only while no page of a domain has the type that
traps (``hap_enable_log_dirty``, xen/arch/x86/mm/hap/hap.c), and sets no page to that type while it is on.

Consequence: to be saved, a domain must have no write-protected frame, and its driver must not notice.

Decision: *quiesce* frees every shadow, unprotects every frame and releases the claim, but the server stays: the device
answers, and the address spaces that the driver announces and takes back are remembered. *resume* claims again and
shadows the spaces that are live by then.

Cost: between the two there are no shadows. A command that reads one is refused, and a GPU could not run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import trio

from xengt_dm import __version__
from xengt_dm.config.keys import KEYS, Key
from xengt_dm.control import registers, report
from xengt_dm.control.json_stream import LazyList, LazyObject
from xengt_dm.control.protocol import DESCRIPTOR, ErrorCode, Passed, RefusedError
from xengt_dm.daemon.recording import Bounds, Recording, TraceFile, check_recordable, open_trace_file
from xengt_dm.errors import BusyError, DataError, HostError, UsageError
from xengt_dm.instance import Instance
from xengt_dm.log.log import get_logger
from xengt_dm.ppgtt.engine import Engine, Sync
from xengt_dm.ppgtt.space import Space
from xengt_dm.stats.counters import read_counters
from xengt_dm.units import PAGE_SIZE
from xengt_dm.vgpu.commands import ENGINES
from xengt_dm.vgpu.decode import DEFAULT, Limits
from xengt_dm.vgpu.engine_view import EngineView

#: Dwords that one request may have decoded, of each engine.
MOST_DECODED: Final = 1 << 20
#: GPU addresses have 48 bits.
VA_LIMIT: Final = 1 << 48

Arguments = Mapping[str, object]


class Target(NamedTuple):
    """The daemon that the commands act on.

    ``stop`` has it end once the answer is out. ``started``: when it began to serve, in seconds of ``clock``.
    ``bounds``: of a recording, if the request has none. ``unserved``: for how many seconds nobody served when a
    predecessor handed over; None if none did.
    """

    instance: Instance
    recording: Recording
    stop: Callable[[], None]
    started: float
    clock: Callable[[], float] = time.monotonic
    bounds: Callable[[], Bounds] = Bounds
    unserved: float | None = None

    @property
    def engine(self) -> Engine:
        """The shadows of the instance."""
        return self.instance.engine


class Command(NamedTuple):
    """One command: its name, the arguments that it takes, and what answers it.

    ``answer`` returns what :func:`.protocol.reply_pieces` takes, or an awaitable of that. ``needs_shadows``: refused
    while quiesced.
    """

    name: str
    arguments: tuple[str, ...]
    answer: Callable[[Target, Arguments], object]
    needs_shadows: bool = False


def handlers(target: Target) -> dict[str, Callable[[Arguments], object]]:
    """The commands by name, for :func:`.server.serve_control`.

    They raise UsageError and DataError for what was asked of them, RefusedError for what cannot be now, CallError.
    """
    return {command.name: partial(_answer, command, target) for command in COMMANDS}


def _answer(command: Command, target: Target, arguments: Arguments) -> object:
    if command.needs_shadows and target.engine.quiesced:
        domid = target.instance.server.port.domid
        raise RefusedError(
            ErrorCode.QUIESCED,
            f"domain {domid} is quiesced and has no shadows; first: xengt-dm resume --domid {domid}",
        )
    for name in arguments:
        if name not in command.arguments:
            known = f"it takes {', '.join(command.arguments)}" if command.arguments else "it takes none"
            raise UsageError(f"the command has no argument {name[:40]!r}; {known}")
    return command.answer(target, arguments)


# Commands that tell something


def _status(target: Target, arguments: Arguments) -> object:
    server, engine, engines = target.instance.server, target.engine, target.instance.gpu.engines
    return {
        "domid": server.port.domid,
        "pid": os.getpid(),
        "version": __version__,
        "mode": engine.sync_mode.value,
        "generation": engine.generation,
        "vcpus": server.slots.vcpus,
        "server": server.id,
        "uptime_seconds": round(target.clock() - target.started, 3),
        "counters": read_counters(engine.counters),
        "served": target.instance.stats.served(),
        "gpu": None if engines is None else engines.counts,
        "state": "quiesced" if engine.quiesced else "serving",
        "recording": target.recording.name,
        "recording_cut": target.recording.cut.describe() if target.recording.cut else None,
        "state_kept": target.instance.found.kept if server.adopted else None,
        "state_refused": target.instance.found.problem,
        "handover_seconds": None if target.unserved is None else round(target.unserved, 3),
    }


def _spaces(target: Target, arguments: Arguments) -> object:
    return LazyList(report.spaces(target.engine))


def _walk(target: Target, arguments: Arguments) -> object:
    va = arguments.get("va")
    if type(va) is not int or not 0 <= va < VA_LIMIT:
        raise UsageError('"va" is a GPU address: an integer from 0 to 2^48 - 1')
    chosen = _chosen(target.engine, arguments)
    return LazyObject(report.walk(target.engine, chosen, va, _flag(arguments, "sync")))


def _dump(target: Target, arguments: Arguments) -> object:
    return LazyObject(report.dump(target.engine, _flag(arguments, "sync")))


def _audit(target: Target, arguments: Arguments) -> object:
    return LazyObject(report.audit(target.engine, _flag(arguments, "sync")))


def _protected(target: Target, arguments: Arguments) -> object:
    return LazyObject(iter([("tables", LazyList(report.protected(target.engine)))]))


def _decode(target: Target, arguments: Arguments) -> object:
    engine, dwords = arguments.get("engine"), arguments.get("dwords", DEFAULT.dwords)
    if engine is not None and engine not in ENGINES:
        raise UsageError(f'"engine" is one of {", ".join(ENGINES)}')
    if type(dwords) is not int or not 0 < dwords <= MOST_DECODED:
        raise UsageError(f'"dwords" is an integer from 1 to {MOST_DECODED}')
    gpu = target.instance.device.registers.gpu
    if not gpu:
        raise DataError("the domain's device has no engines")
    views = [EngineView(gpu, number) for number, name in enumerate(ENGINES) if engine in (None, name)]
    return LazyObject(report.decoded(views, _flag(arguments, "whole"), Limits(dwords)))


def _registers(target: Target, arguments: Arguments) -> object:
    pattern = arguments.get("pattern")
    if not isinstance(pattern, str | None):
        raise UsageError('"pattern" is a part of the name of a register, or an offset')
    return LazyList(registers.listing(target.instance.gpu, pattern))


def _flag(arguments: Arguments, name: str) -> bool:
    value = arguments.get(name, False)
    if not isinstance(value, bool):
        raise UsageError(f'"{name}" is true or false')
    return value


def _chosen(engine: Engine, arguments: Arguments) -> Callable[[Space], bool]:
    """Which live spaces ``mode`` and ``root`` leave. Raises UsageError or DataError if they leave none."""
    mode, root = arguments.get("mode"), arguments.get("root")
    if mode not in (None, "l4", "l3"):
        raise UsageError('"mode" is "l4" or "l3"')
    roots = _roots(root)

    def fits(space: Space) -> bool:
        return mode in (None, space.mode.value) and roots in (None, space.roots)

    if roots is not None:
        named = engine.space(roots)
        found = named is not None and fits(named)
    else:
        found = mode is None or any(map(fits, engine.spaces_by_age))
    if not found:
        raise DataError("no such address space is live; `spaces` lists those that are")
    return fits


def _roots(root: object) -> tuple[int, ...] | None:
    """The roots of the space that a request names, low 12 bits cleared; None if it names none."""
    if root is None:
        return None
    roots: list[Any] = root if isinstance(root, list) and len(root) == 4 else [root]
    if not all(type(each) is int and each >= 0 for each in roots):
        raise UsageError('"root" is the root address of an l4 space, or the list of the four of an l3 space')
    return tuple(each & ~(PAGE_SIZE - 1) for each in roots)


# Commands that change something


async def _mode(target: Target, arguments: Arguments) -> object:
    engine, wanted = target.engine, arguments.get("mode")
    if wanted is not None:
        if wanted not in [sync.value for sync in Sync]:
            raise UsageError('"mode" is "strict" or "relaxed"')
        before = engine.sync_mode
        await target.instance.set_mode(Sync(wanted))
        get_logger().info("mode.switched", before=before.value, now=wanted)
    return {"mode": engine.sync_mode.value}


async def _record(target: Target, arguments: Arguments) -> object:
    """With ``file``, record to that: to the descriptor that came along, else to the daemon's own file of that name.

    With ``stop``, end the recording.
    """
    recording = target.recording
    name, stop, passed = arguments.get("file"), arguments.get("stop", False), arguments.get(DESCRIPTOR)
    if not isinstance(stop, bool) or (stop and name is not None):
        raise UsageError('"stop" is true or false, and goes without "file"')
    bounds = target.bounds()
    bounds = Bounds(
        _bound(arguments, "max_mib", KEYS["record.max_mib"], bounds.max_mib),
        _bound(arguments, "max_minutes", KEYS["record.max_minutes"], bounds.max_minutes),
    )
    if stop:
        return {"recording": None, **(await recording.stop_later(target.instance.loop)).describe()}
    if name is not None:
        if not isinstance(name, str) or not name or "\0" in name:
            raise UsageError('"file" is the name of a file')
        check_recordable(target.instance.gpu)
        if recording.name is not None:
            raise DataError(f"recording to {recording.name} already; stop that first")
        file = TraceFile(passed.take(), name) if isinstance(passed, Passed) else open_trace_file(name)
        await recording.start_later(file, bounds, target.instance.loop)
    return {"recording": recording.name, "events": recording.events, **_cut(recording)}


def _cut(recording: Recording) -> dict[str, object]:
    return recording.cut.describe() if recording.name is None and recording.cut else {}


def _bound(arguments: Arguments, name: str, key: Key, default: int) -> int:
    value = arguments.get(name, default)
    if type(value) is not int or not key.low <= value <= key.high:
        raise UsageError(f'"{name}" is an integer from {key.low} to {key.high}')
    return value


async def _quiesce(target: Target, arguments: Arguments) -> object:
    done = target.instance.quiesced
    try:
        quiesced = await target.instance.quiesce()
    except BusyError as error:
        raise RefusedError(ErrorCode.BUSY, str(error)) from error
    if not quiesced:
        raise RefusedError(
            ErrorCode.HOST,
            "some pages stay protected, because a vCPU is storing to them and does not get on; if the domain is "
            "paused, unpause it; then quiesce again",
        )
    if not done:
        get_logger().info("quiesce.done", spaces=target.engine.counters.spaces)
    return {"state": "quiesced", "spaces": target.engine.counters.spaces}


async def _resume(target: Target, arguments: Arguments) -> object:
    if target.engine.quiesced:
        try:
            resumed = await target.instance.resume()
        except HostError as error:
            get_logger().warning("resume.refused", reason=str(error))
            raise RefusedError(ErrorCode.HOST, f"still quiesced, because Xen refused: {error}") from error
        if not resumed:
            get_logger().warning("resume.refused", reason="no frame can be protected")
            raise RefusedError(
                ErrorCode.HOST,
                "still quiesced, because Xen lets no frame be protected; is the domain being saved or migrated?",
            )
        get_logger().info("resume.done", spaces=target.engine.counters.spaces)
    return {"state": "serving", "spaces": target.engine.counters.spaces}


def _stop(target: Target, arguments: Arguments) -> object:
    get_logger().info("daemon.stopping", reason="asked to")
    target.instance.keep()
    target.stop()
    return {}


async def _upgrade(target: Target, arguments: Arguments) -> object:
    """Leave the domain to a successor. Whoever asks must see to it that there is one."""
    await target.recording.hand_over(target.instance.loop)
    await trio.lowlevel.checkpoint_if_cancelled()  # a stop that was asked for meanwhile is a stop
    get_logger().info("daemon.handing_over", version=__version__)
    target.instance.hand_over()
    target.stop()
    return {"pid": os.getpid(), "version": __version__}


COMMANDS: Final = (
    Command("status", (), _status),
    Command("spaces", (), _spaces),
    Command("walk", ("va", "mode", "root", "sync"), _walk, needs_shadows=True),
    Command("dump", ("sync",), _dump, needs_shadows=True),
    Command("audit", ("sync",), _audit, needs_shadows=True),
    Command("decode", ("engine", "whole", "dwords"), _decode),
    Command("protected", (), _protected, needs_shadows=True),
    Command("registers", ("pattern",), _registers),
    Command("mode", ("mode",), _mode),
    Command("record", ("file", "stop", "max_mib", "max_minutes", DESCRIPTOR), _record),
    Command("quiesce", (), _quiesce),
    Command("resume", (), _resume),
    Command("upgrade", (), _upgrade),
    Command("stop", (), _stop),
)
