"""A forked process that is killed after the n-th instruction of one function of _core."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from typing import Any

from tests.single_step import stepping


def run_until(library: ctypes.CDLL, function: Any, does: Callable[[], None], after: int) -> int | None:
    """Forks a process that does something, and is killed after so many instructions that ``function`` executes in it.

    Returns None if it was killed, else how many instructions there were; with ``after`` 0 it is not killed.
    """
    counted, says = os.pipe()
    child = os.fork()
    if not child:
        try:
            stepping.arm(library, [stepping.address_of(function)], 0, after)
            does()
            os.write(says, str(library.step_never()).encode())
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    os.close(says)
    with open(counted) as said:
        steps = said.read()
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return None
    assert status == 0
    return int(steps)
