"""Runs one case on one side: the same code on the embedded hypervisor and on real Xen."""

from __future__ import annotations

from errno import EOPNOTSUPP

from .language import (
    FRAMES,
    OPS,
    SERVERS,
    TYPES,
    BadCaseError,
    Names,
    Op,
    Step,
    errno_name,
    number,
    operation,
    request,
    show,
)
from .model import Model
from .side import Side
from .table import Case

_WRITE = 2
_VCPUS = ("v0", "v1")


class DisagreementError(Exception):
    """The side did not do what the table says."""


def run(case: Case, side: Side) -> None:
    """Raises DisagreementError with the step, what was wanted and what was had."""
    runner = _Runner(side)
    try:
        for step in case.steps:
            runner.step(step)
        if not case.fresh:
            runner.leave_clean()
    finally:
        runner.close()


class _Runner:
    def __init__(self, side: Side) -> None:
        self._side = side
        first = side.frames(len(FRAMES))
        self._names = Names({name: first + i for i, name in enumerate(FRAMES)})
        self._model = Model(side, self._names)
        self._running: set[int] = set()

    def step(self, step: Step) -> None:
        """One line of a case."""
        had = self._act(step)
        wanted = [self._canonical(result) for result in step.results]
        if not wanted and step.subject not in _VCPUS:
            wanted = ["ok"]
        if wanted == ["nothing"]:
            wanted = []
        if step.subject in _VCPUS and not any(one.startswith("=") for one in wanted):
            had = [one for one in had if not one.startswith("=")]
        if had != wanted:
            raise DisagreementError(f"{step.text}: had {'; '.join(had) or 'nothing'}")

    def leave_clean(self) -> None:
        """The next case finds the domain as this one did. Raises DisagreementError where that cannot be had."""
        if self._running:
            raise DisagreementError(f"vCPUs {self._running} are still at it when the case is over")
        self._model.clean_up()
        port = self._model.port
        server = port.create_server()
        result = self._side.claim(port, server, TYPES["ioreq_server"], _WRITE)
        port.destroy_server(server)
        if result not in (0, EOPNOTSUPP) or server:
            raise DisagreementError(f"the case leaves something: server {server} is free, claim {errno_name(result)}")
        self._model.is_open = False
        self._side.give_back(port)

    def close(self) -> None:
        """The device model's process ends."""
        if self._model.is_open:
            self._model.port.close()

    def _canonical(self, result: str) -> str:
        words = result.split()
        if len(words) >= 4 and words[0] in SERVERS and words[1] in ("r", "w"):
            return show(request(result, self._names), self._names)
        if words[0] == "=":
            return f"= {number(words[1]):#x}"
        return result

    def _act(self, step: Step) -> list[str]:
        subject, args = step.subject, step.args
        if subject in SERVERS:
            return self._model.on_server(subject, step.verb, args)
        if subject in _VCPUS:
            return self._on_vcpu(int(subject[1]), step.verb, args)
        if subject == "dm":
            return self._model.on_process(step.verb, args)
        if subject == "domain":
            return self._on_domain(step.verb, args)
        return self._model.on_memory(subject, step.verb, args, self._do)

    def _do(self, op: Op) -> None:
        self._running.add(0)
        self._side.start(0, op)
        self._finish(0)

    def _finish(self, vcpu: int) -> list[str]:
        """Serve until the vCPU's operation is over."""
        had: list[str] = []
        while (outcome := self._side.outcome(vcpu)) is None:
            if not self._model.wait():
                raise DisagreementError(f"v{vcpu} goes on without end, after {'; '.join(had) or 'nothing'}")
            had += [show(one, self._names) for one in self._model.serve()]
        self._running.discard(vcpu)
        return [*had, "fault" if outcome.fault else f"= {outcome.value:#x}"]

    def _on_vcpu(self, vcpu: int, verb: str, args: tuple[str, ...]) -> list[str]:
        if verb in OPS:
            self._begin(vcpu, (verb, *args))
            return self._finish(vcpu)
        if verb == "begin":
            self._begin(vcpu, args)
            return []
        if verb == "done":
            return self._finish(vcpu)
        if verb in ("waits", "retries", "stands"):
            if not self._side.settle(vcpu, verb):
                raise DisagreementError(f"v{vcpu} {verb}: it does not")
            return []
        raise BadCaseError(f"a vCPU knows no {verb!r}")

    def _begin(self, vcpu: int, words: tuple[str, ...]) -> None:
        if vcpu in self._running:
            raise BadCaseError(f"v{vcpu} has not ended yet")
        self._running.add(vcpu)
        self._side.start(vcpu, operation(words, self._names))

    def _on_domain(self, verb: str, args: tuple[str, ...]) -> list[str]:
        match verb, args:
            case "logdirty", (on,):
                return [errno_name(self._side.log_dirty(on == "on"))]
            case "pause", ():
                self._side.pause()
            case "unpause", ():
                self._side.unpause()
            case "shutdown", ():
                self._side.shutdown()
            case "destroy", ():
                self._side.destroy()
            case "vcpus", ():
                return [str(self._model.port.vcpu_count())]
            case "is", _:
                had = self._side.condition(" ".join(args))
                return ["ok" if had == " ".join(args) else had]
            case _:
                raise BadCaseError(f"the domain knows no {verb!r} {args}")
        return ["ok"]
