"""What a daemon of the storm has that no other has: test registers, a stand-in for the GPU, and faults to find."""

from __future__ import annotations

from tests.storm.world import ROWS
from xengt_dm.control import commands
from xengt_dm.errors import UsageError
from xengt_dm.ppgtt.space import Mode
from xengt_dm.vgpu import registers


def install() -> None:
    """Give the device rows for masked and write-one-to-clear registers, and the control socket ``gpu_store``."""
    registers.REGISTERS = (*registers.REGISTERS, *ROWS)  # type: ignore[misc]
    commands.COMMANDS = (  # type: ignore[misc]
        *commands.COMMANDS,
        commands.Command("gpu_store", ("root", "va", "value"), _gpu_store, needs_shadows=True),
    )


async def _gpu_store(target: commands.Target, arguments: commands.Arguments) -> object:
    """What a GPU does: submit an L4 space, and store 8 bytes through it."""
    root, va, value = (arguments.get(name) for name in ("root", "va", "value"))
    if not isinstance(root, int) or not isinstance(va, int) or not isinstance(value, int):
        raise UsageError("root, va and value are integers")
    return {"stored": await target.instance.loop.run(target.engine.gpu_store(Mode.L4, (root,), va, value))}
