"""A device model that serves a guest on the embedded hypervisor, in the test's hands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio

from tests.support.tables import FRAME
from xengt_dm.control import commands, report
from xengt_dm.daemon.recording import Recording
from xengt_dm.hypervisor.embedded import EmbeddedDomain, Vcpu
from xengt_dm.instance import DEFAULT_BAR0, Instance, Settings, open_instance
from xengt_dm.vgpu import registers as reg


@dataclass
class Live:
    """The guest acts when a test has it act, while the device model serves."""

    domain: EmbeddedDomain
    instance: Instance

    async def guest(self, program: Callable[[Vcpu], None], vcpu: int = 0) -> None:
        """Have a vCPU run a program to its end."""
        await trio.to_thread.run_sync(program, self.domain.vcpu(vcpu))

    async def store(self, gfn: int, slot: int, value: int) -> None:
        await self.guest(lambda vcpu: vcpu.store(gfn * FRAME + 8 * slot, 8, value))

    async def announce(self, root: int, what: reg.Notification = reg.Notification.PPGTT_L4_CREATE) -> None:
        def program(vcpu: Vcpu) -> None:
            vcpu.mmio_write(DEFAULT_BAR0 + reg.PDP0, 8, root * FRAME)
            vcpu.mmio_write(DEFAULT_BAR0 + reg.G2V_NOTIFY, 4, what)

        await self.guest(program)

    def dump(self) -> list[dict[str, Any]]:
        return report.dump_spaces(self.instance.engine)

    def audit(self) -> int:
        return report.audit_spaces(self.instance.engine)


def handlers_of(instance: Instance, recording: Recording) -> dict[str, Callable[[commands.Arguments], object]]:
    """The commands of the control socket by name; nothing happens on ``stop``."""
    return commands.handlers(commands.Target(instance, recording, lambda: None, 0.0))


def with_live(
    body: Callable[[Live], Awaitable[None]], settings: Settings | None = None, *, frames: int = 64, xen: str = "4.17"
) -> None:
    """Run ``body`` beside the serve loop, then end in order."""

    async def main(live: Live) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(live.instance.loop.serve)
            await body(live)
            nursery.cancel_scope.cancel()

    with EmbeddedDomain(frames, 2, xen) as domain, open_instance(domain.port(), settings or Settings()) as instance:
        trio.run(main, Live(domain, instance))
