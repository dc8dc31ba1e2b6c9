"""A storm: lives of daemons that end by SIGKILL at drawn instants, and a look at everything now and then."""

from __future__ import annotations

import mmap
import os
import random
import select
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.storm.checks import Check, Failed, left_behind, spaces_differ
from tests.storm.guest import PROGRESS, WORDS
from tests.storm.operator import Asked, Operator
from tests.storm.sim import DOMID, StormSim
from tests.storm.world import VCPUS
from tests.support.sim import PATIENCE
from tests.support.zygote import Waiter, Zygote
from xengt_dm.errors import ExitCode

_LOOK_SECONDS = 0.0005
_SAY_KILLS = 200
#: How far the log of a daemon is shown when something is wrong.
_LOG_BYTES = 3000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a storm goes.

    ``flavour``, ``rep_stores``: as options of ``xengt-dm sim``. ``hooks``: of the zygote, besides its own.
    ``patience``: how many seconds a vCPU may wait.
    """

    seed: int
    kills: int
    flavour: str = "4.17"
    rep_stores: bool = False
    checks: frozenset[Check] = frozenset(Check)
    hooks: tuple[str, ...] = ()
    #: Lives between two looks, on average.
    lives_between_checks: int = 12
    patience: float = PATIENCE / 2


@dataclass
class Report:
    """What became of a storm."""

    kills: int = 0
    #: Kills before the daemon said that it serves.
    kills_in_start: int = 0
    #: Of the kills, those that came too late, because an upgrade had ended the daemon.
    upgrades: int = 0
    looks: int = 0
    acts: int = 0
    answered: int = 0
    unanswered: int = 0
    seconds: float = 0.0
    #: From fork to READY, of those that got there.
    starts: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        starts = sorted(self.starts) or [0.0]
        return (
            f"{self.kills} kills ({self.kills_in_start} during start, {self.upgrades} after an upgrade) "
            f"in {self.seconds:.1f} s, {self.acts} acts, "
            f"{self.answered} commands answered and {self.unanswered} not, {self.looks} looks; "
            f"a start takes {1e3 * starts[len(starts) // 2]:.1f} ms"
        )


class Storm:
    """One storm in ``directory``. :meth:`run` raises Failed."""

    def __init__(self, directory: Path, plan: Plan, say: Callable[[str], None] = lambda line: None) -> None:
        self._plan = plan
        self._say = say
        self._rng = random.Random(plan.seed)
        self._sim_directory = directory / "sim"
        self._base = directory / "run"
        self._log = directory / "daemon.log"
        self._traces = directory / "traces"
        self._traces.mkdir(parents=True)
        self.operator = Operator(random.Random(plan.seed + 1), self._base / str(DOMID), self._traces)
        self.report = Report()
        #: Kills when that was said last.
        self._said = 0
        #: How far the daemons' log was looked at.
        self._log_seen = 0
        #: A command of the operator that the daemon has not answered.
        self._in_flight: Asked | None = None

    def run(self) -> Report:
        """Kill so many daemons, look, and have the last daemon stop in order."""
        forgetful = Check.REGISTERS not in self._plan.checks
        hooks = ("tests.storm.hooks:install", *self._plan.hooks)
        began = time.monotonic()
        with ExitStack() as stack:
            self._sim = stack.enter_context(
                StormSim(
                    self._sim_directory,
                    self._plan.seed,
                    self._plan.flavour,
                    *["rep-stores"] * self._plan.rep_stores,
                    *["forgetful"] * forgetful,
                )
            )
            self._console = stack.enter_context(self._sim.console())
            self._zygote = stack.enter_context(Zygote(hooks))
            self._waiter = Waiter()
            stack.callback(self._waiter.close)
            with (self._sim_directory / PROGRESS).open("rb") as file:
                self._words = memoryview(mmap.mmap(file.fileno(), 8 * WORDS, prot=mmap.PROT_READ)).cast("Q")
            try:
                self._storm()
            finally:
                report = self.report
                report.acts = sum(self._words[:VCPUS])
                report.answered, report.unanswered = self.operator.answered, self.operator.unanswered
                report.seconds = time.monotonic() - began
        return self.report

    def _storm(self) -> None:
        look_at = self._next_look(0)
        while self.report.kills < self._plan.kills:
            looks = self.report.kills >= look_at
            if looks:
                look_at = self._next_look(self.report.kills)
            self._live(looks)
        self._last_life()

    def _next_look(self, kills: int) -> int:
        return kills + self._rng.randrange(1, 2 * self._plan.lives_between_checks)

    # A life

    def _fork(self) -> int:
        self._waiter.forget()
        words = ["run", "--sim", str(self._sim_directory), "--domid", str(DOMID), "--run-dir", str(self._base)]
        return self._zygote.fork(words, log=self._log, env=self._waiter.environment)

    def _live(self, looks: bool) -> None:
        began, served = time.monotonic(), bool(self.report.starts)
        pid = self._fork()
        if not looks and self._rng.random() < 0.2:
            time.sleep(self._rng.uniform(0, 1.2 * self._typical_start()))
            self.report.kills_in_start += 1
        else:
            self._wait_ready(pid)
            self.report.starts.append(time.monotonic() - began)
            if looks:
                self._wait_for_acts(self._rng.randrange(200))
                self._look()
            self._until_the_kill()
        self._kill(pid)
        self._check_log(served)

    def _typical_start(self) -> float:
        return min(self.report.starts[-5:], default=0.03)

    def _until_the_kill(self) -> None:
        kind = self._rng.random()
        if kind < 0.4:
            self._wait_for_acts(self._rng.randrange(300))
        elif kind < 0.6:
            time.sleep(self._rng.uniform(0, 0.03))
        else:
            for _ in range(self._rng.randrange(4)):
                if asked := self.operator.send(*self.operator.draw()):
                    self.operator.receive(asked)
            asked = self.operator.send(*self.operator.draw())
            time.sleep(self._rng.expovariate(1 / 0.002))
            if asked:
                self._in_flight = asked

    def _wait_for_acts(self, acts: int) -> None:
        """Until the vCPUs have done so many acts; until something is wrong; or a second is over."""
        end = time.monotonic() + 1
        wanted = sum(self._words[:VCPUS]) + acts
        while sum(self._words[:VCPUS]) < wanted and not self._words[VCPUS] and time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)

    def _wait_ready(self, pid: int) -> None:
        process = os.pidfd_open(pid)
        try:
            end = time.monotonic() + PATIENCE
            while time.monotonic() < end:
                readable = select.select([self._waiter.fileno(), process], [], [], PATIENCE)[0]
                if self._waiter.fileno() in readable and self._waiter.ready():
                    return
                if process in readable:
                    raise self._failed(Check.STATUS, f"a daemon does not start: status {self._zygote.wait(pid)}")
        finally:
            os.close(process)
        raise self._failed(Check.WAITING, "a daemon does not become ready")

    def _kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        status = self._zygote.wait(pid)
        self.report.kills += 1
        if self._in_flight is not None:
            self.operator.receive(self._in_flight)
            self._in_flight = None
        handed_over = status == ExitCode.HANDOVER and self.operator.upgrades
        self.operator.upgrades = False
        self.report.upgrades += handed_over
        if status != -signal.SIGKILL and not handed_over:
            raise self._failed(Check.STATUS, f"a daemon ended by itself: status {status}")

    def _check_log(self, served: bool) -> None:
        """What the daemon said, and what the guest says. ``served``: whether a daemon before it has served."""
        with self._log.open("rb") as log:
            log.seek(self._log_seen)
            said = log.read()
        self._log_seen += len(said)
        if self._checks(Check.KEPT) and served:
            for line in said.splitlines():
                if b'"state.refused"' in line:
                    raise self._failed(Check.KEPT, line.decode(errors="replace"))
        if self._words[VCPUS]:
            raise self._failed(Check.REGISTERS, str(self._ask("progress")))

    # Looks

    def _checks(self, check: Check) -> bool:
        return check in self._plan.checks

    def _ask(self, do: str, **arguments: object) -> object:
        return self._console.ask(do, **arguments)

    def _look(self) -> None:
        self.report.looks += 1
        if self.report.kills >= self._said + _SAY_KILLS:
            self._said = self.report.kills
            self._say(f"{self.report.kills} kills")
        self._rest()
        status = self.operator.ask("status")
        quiesced = status["state"] == "quiesced"
        if self._checks(Check.LIFE):
            if status["mode"] not in self.operator.modes:
                raise self._failed(Check.LIFE, f"mode {status['mode']}, not of {self.operator.modes}")
            if quiesced not in self.operator.quiesced:
                raise self._failed(Check.LIFE, f"quiesced: {quiesced}, not of {self.operator.quiesced}")
            if quiesced and (protected := self._console.state()["protected"]):
                raise self._failed(Check.LIFE, f"quiesced, and protected are {protected[:20]}")
        self.operator.modes = {status["mode"]}
        self._compare()
        if quiesced:
            self.operator.ask("resume")
        if self._checks(Check.AUDIT):
            audit = self.operator.ask("audit", sync=True)
            totals = {name: count for name, count in audit.items() if name.startswith("audit_")}
            if audit["audit_mismatches"] or audit["audit_overdue"]:
                raise self._failed(Check.AUDIT, str(totals))
        self._console.ask("go_on")

    def _rest(self) -> None:
        if not self._console.ask("rest", seconds=self._plan.patience):
            progress = self._console.ask("progress")
            raise self._failed(Check.REGISTERS if progress["fault"] else Check.WAITING, str(progress))

    def _compare(self) -> None:
        """The guest rests, and a daemon serves."""
        self._compare_memory()
        if self._checks(Check.SPACES):
            wrong = spaces_differ(self.operator.ask("spaces"), self._console.ask("spaces"))
            if wrong:
                raise self._failed(Check.SPACES, wrong)
        if self._checks(Check.REGISTERS) and (lines := self._console.ask("check_registers")):
            raise self._failed(Check.REGISTERS, "\n".join(lines))

    def _compare_memory(self) -> None:
        if self._checks(Check.MEMORY) and (lines := self._console.ask("check_memory")):
            raise self._failed(Check.MEMORY, "\n".join(lines))
        if self._checks(Check.GPU):
            for gpa, possible in self.operator.stored.items():
                found = int.from_bytes(bytes.fromhex(self._console.ask("read", gpa=gpa, size=8)), "little")
                if found not in possible:
                    raise self._failed(Check.GPU, f"{gpa:#x}: {found:#x}, not of {[hex(each) for each in possible]}")
                self.operator.stored[gpa] = {found}

    def _last_life(self) -> None:
        """An orderly end, while the guest stores on to its memory."""
        pid = self._fork()
        self._wait_ready(pid)
        self._wait_for_acts(300)
        self._look()
        self._rest()
        self._console.ask("go_on", memory_only=True)
        self._wait_for_acts(100)
        os.kill(pid, signal.SIGTERM)
        status = self._zygote.wait(pid)
        self._rest()
        self._compare_memory()
        if self._checks(Check.ORDERLY):
            if status:
                raise self._failed(Check.ORDERLY, f"the daemon ended with status {status}")
            if left := left_behind(self._console):
                raise self._failed(Check.ORDERLY, left)
            if (self._base / str(DOMID) / "server-id").exists():
                raise self._failed(Check.ORDERLY, "there is still a server-id")

    def _failed(self, check: Check, text: str) -> Failed:
        log = self._log.read_text(errors="replace")[-_LOG_BYTES:] if self._log.exists() else ""
        where = f"seed {self._plan.seed}, after {self.report.kills} kills"
        return Failed(check, f"{text}\n{where}; the daemons' log ends:\n{log}")
