"""One life and a half: a daemon that is killed at a chosen step of one request, its successor, and the end state."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.single_step import cases, stepping
from tests.single_step.cases import Case
from tests.storm.checks import left_behind
from tests.storm.world import CLEARED, MASKED
from tests.support.sim import PATIENCE, Console
from tests.support.tables import FRAME
from tests.support.zygote import Waiter, Zygote
from xengt_dm.control.protocol import SOCKET_NAME, request_line
from xengt_dm.control.socket import connect
from xengt_dm.errors import ExitCode
from xengt_dm.settings import DEFAULT_BAR0
from xengt_dm.sim.process import console_path
from xengt_dm.vgpu import registers as reg

DOMID = 1
_LOOK_SECONDS = 0.001
#: How long frames that nobody needs protected any more may stay so.
_SETTLE_SECONDS = 5.0
#: How long a successor may take for its first answers.
_ANSWER_SECONDS = 15.0
_READ_BYTES = 1 << 16

#: A vCPU's instruction that is not done.
_NONE: Any = object()
#: All that is compared: by name, as JSON has it.
State = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """``died``: whether the daemon was killed at the step; else it had answered before.

    ``answer``: the vCPU's result, or the daemon's reply. ``steps``: how many there were, if it did not die.
    """

    died: bool
    answer: Any
    state: State
    steps: int = 0


class Stepper:
    """Runs cases, as a context; each run is a domain of its own. ``hooks``: of the zygote, besides its own."""

    def __init__(self, mode: str = "strict", hooks: Iterable[str] = ()) -> None:
        self._mode = mode
        self._hooks = [*hooks]
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            os.environ[stepping.LIBRARY] = str(stepping.compile_library(self._folder))
            self._zygote = stack.enter_context(Zygote(["tests.single_step.stepping:install", *self._hooks]))
            self._waiter = Waiter()
            stack.callback(self._waiter.close)
            self._stack = stack.pop_all()
        self._runs = 0
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def run(self, case: Case, what: str = "", after: int = 0) -> Run:
        """Run a case with the daemon killed after so many ``what``, instructions or lines; 0: not killed."""
        self._runs += 1
        with _Domain(self._folder / str(self._runs), self._zygote, self._waiter, self._mode) as domain:
            return domain.run(case, what, after)


class _Domain:
    def __init__(self, folder: Path, zygote: Zygote, waiter: Waiter, mode: str) -> None:
        self._sim = folder / "sim"
        self._base = folder / "run"
        self._folder = folder
        self._zygote = zygote
        self._waiter = waiter
        self._mode = mode
        folder.mkdir()
        self._log = folder / "log"
        self._steps = 0

    def __enter__(self) -> Self:
        words = ["sim", "--dir", self._sim, "--domid", DOMID, "--guest", "scripted", "--frames", cases.FRAMES]
        self._sim_pid = self._zygote.fork(map(str, words), log=self._log)
        end = time.monotonic() + PATIENCE
        while not console_path(self._sim, DOMID).exists() and time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)
        while True:
            try:
                self._console = Console(self._sim, DOMID)
                break
            except ConnectionRefusedError:  # it is bound and does not listen yet
                time.sleep(_LOOK_SECONDS)
        return self

    def __exit__(self, *error: object) -> None:
        self._console.socket.close()
        os.kill(self._sim_pid, signal.SIGKILL)
        self._zygote.wait(self._sim_pid)

    def run(self, case: Case, what: str, after: int) -> Run:
        pid = self._start()
        cases.prepare(self._console)
        for gpa, size, value in case.before:
            self._console.run(0, "store", gpa, size, value)
        for command, arguments in case.commands:
            self._ask(command, arguments)
        if what:
            self._ask("arm", {"what": what, "after": after, "command": bool(case.command)})
        died, answer = False, None
        if case.command:
            died, answer = self._command(case)
        elif case.op:
            died, answer = self._execute(case, pid)
        if died:
            status = self._zygote.wait(pid)
            if status not in (-signal.SIGKILL, ExitCode.HANDOVER if case.command == "upgrade" else None):
                raise AssertionError(f"the daemon ended with status {status}:\n{self._log.read_text()[-3000:]}")
            pid = self._start()
            if case.op and answer is _NONE:
                self._console.socket.settimeout(_ANSWER_SECONDS)
                try:
                    answer = self._console.receive()
                except TimeoutError:
                    return Run(died, "none, the vCPU waits for ever", {})
                self._console.socket.settimeout(PATIENCE)
        state = self._state()
        os.kill(pid, signal.SIGTERM)
        state["status"] = self._zygote.wait(pid)
        state["left"] = left_behind(self._console)
        state["files"] = sorted(path.name for path in (self._base / str(DOMID)).iterdir())
        return Run(died, answer, state, self._steps)

    def _start(self) -> int:
        self._waiter.forget()
        words = ["run", "--sim", self._sim, "--domid", DOMID, "--run-dir", self._base, "--mode", self._mode]
        words += ["--set", "domain.check_interval_ms=50"]
        pid = self._zygote.fork(map(str, words), log=self._log, env=self._waiter.environment)
        process = os.pidfd_open(pid)
        try:
            readable = select.select([self._waiter.fileno(), process], [], [], PATIENCE)[0]
        finally:
            os.close(process)
        if self._waiter.fileno() not in readable or not self._waiter.ready():
            raise AssertionError(f"a daemon does not start:\n{self._log.read_text()[-3000:]}")
        return pid

    def _execute(self, case: Case, pid: int) -> tuple[bool, Any]:
        """Whether the daemon dies before the instruction is done, and the instruction's result if it does not."""
        process = os.pidfd_open(pid)
        try:
            self._console.begin(0, *case.op)
            watched: list[Any] = [self._console.socket, process]
            readable = select.select(watched, [], [], PATIENCE)[0]
            if not readable:
                raise AssertionError(f"{case.name}: neither an answer nor an end")
            if process in readable:
                return True, _NONE
            answer = self._console.receive()
            return self._dies_now(), answer
        finally:
            os.close(process)

    def _command(self, case: Case) -> tuple[bool, Any]:
        """Whether the daemon dies before it takes another command, and its answer to that of the case, None if none."""
        answer = self._exchange(case.command, self._placed(case.arguments))
        return answer is None or self._dies_now(), answer

    def _dies_now(self) -> bool:
        """Counts no more; whether the kill came in what followed the answer."""
        try:
            counted = self._exchange("arm", {"what": "nothing", "after": 0})
        except OSError:  # it takes no connection any more
            return True
        if counted is not None:
            self._steps = counted["result"]["steps"]
        return counted is None

    def _connected(self) -> socket.socket:
        return connect(self._base / str(DOMID) / SOCKET_NAME, PATIENCE)

    def _exchange(self, command: str, arguments: Mapping[str, Any]) -> Any:
        reply = b""
        with self._connected() as connection, suppress(ConnectionError):
            connection.sendall(request_line(command, arguments))
            while not reply.endswith(b"\n") and (data := connection.recv(1 << 18)):
                reply += data
        return json.loads(reply) if reply.endswith(b"\n") else None

    def _ask(self, command: str, arguments: Mapping[str, Any]) -> Any:
        answer = self._exchange(command, self._placed(arguments))
        if answer is None or not answer["ok"]:
            raise AssertionError(f"{command}: {answer}\n{self._log.read_text()[-3000:]}")
        return answer["result"]

    def _placed(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {name: str(self._folder / value) if name == "file" else value for name, value in arguments.items()}

    # The end state

    def _state(self) -> State:
        status = self._ask("status", {})
        found: State = {
            "mode": status["mode"],
            "state": status["state"],
            "spaces": self._ask("spaces", {}),
        }
        if status["state"] != "quiesced":
            dump = self._ask("dump", {"sync": True})
            found["mappings"] = dump["spaces"]
            found["differing"] = dump["audit_mismatches"] + dump["audit_overdue"]
        found["protected"] = self._protected()
        found["memory"] = [
            self._console.ask("read", gpa=gpa, size=_READ_BYTES) if self._whole(gpa) else self._by_frame(gpa)
            for gpa in range(0, cases.FRAMES * FRAME, _READ_BYTES)
        ]
        found["registers"] = self._registers()
        state = self._console.state()
        found["owner"] = state["owner"]
        found["lost"] = [state["counters"][name] for name in ("dropped_stores", "discarded_stores")]
        found["crash"] = state["crash_reason"]
        return found

    def _whole(self, gpa: int) -> bool:
        return not gpa <= cases.BALLOON * FRAME < gpa + _READ_BYTES

    def _by_frame(self, first: int) -> list[str | None]:
        """Of 64 KiB that may have holes."""
        frames: list[str | None] = []
        for gpa in range(first, first + _READ_BYTES, FRAME):
            hole = self._console.ask("reported_type_of", gfn=gpa // FRAME) == _MMIO_DM
            frames.append(None if hole else self._console.ask("read", gpa=gpa, size=FRAME))
        return frames

    def _protected(self) -> list[int]:
        """The frames that trap, when it has been the same for some time: unprotecting may be deferred."""
        end = time.monotonic() + _SETTLE_SECONDS
        before: list[int] = []
        since = time.monotonic()
        while time.monotonic() < end:
            now: list[int] = self._console.state()["protected"]
            if now != before:
                before, since = now, time.monotonic()
            elif time.monotonic() >= since + 0.15:
                break
            time.sleep(0.01)
        return before

    def _registers(self) -> list[int]:
        addresses = [(cases.REGISTERS + 8 * n, 8) for n in range(20)] + [(cases.GGTT + 8 * n, 8) for n in range(4)]
        addresses += [(DEFAULT_BAR0 + offset, 4) for offset in (*MASKED[0], *CLEARED[0], reg.G2V_NOTIFY)]
        addresses += [(DEFAULT_BAR0 + reg.PDP0 + 8 * n, 8) for n in range(reg.PDP_COUNT)]
        return [self._console.run(0, "load", at, size) for at, size in addresses]


#: hvmmem_type_t, xen/include/public/hvm/hvm_op.h.
_MMIO_DM = 2
