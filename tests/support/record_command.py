"""The command ``record`` without a socket, and files that cannot be written."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tests.support.machine import Machine
from xengt_dm.daemon.recording import Recording

Handlers = Mapping[str, Callable[[Mapping[str, object]], object]]


def recording_of(machine: Machine) -> Recording:
    instance = machine.instance
    return Recording(instance.engine, instance.device, instance.bus, machine.domain.ram_frames)


async def asking(handlers: Handlers, arguments: Mapping[str, object]) -> Any:
    """What the command ``record`` answers."""
    answer = handlers["record"](arguments)
    assert isinstance(answer, Awaitable)
    return await answer


def failing(number: int) -> Callable[..., int]:
    def write(descriptor: int, data: bytes) -> int:
        raise OSError(number, os.strerror(number))

    return write
