"""A program on a terminal of its own, alone or under a shell that stops and continues it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import time
from contextlib import suppress
from typing import Any

#: A test that waits longer than this hangs.
PATIENCE = 60.0


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self.descriptor, terminal = pty.openpty()
        # The interpreter of a process of several threads must not go on in a fork.
        self._process = subprocess.Popen(["setsid", "--ctty", *words], stdin=terminal, stdout=terminal, stderr=terminal)
        os.close(terminal)
        self.output = b""

    def read_until(self, text: bytes) -> None:
        while text not in self.output:
            self._read()

    def _read(self) -> bool:
        assert select.select([self.descriptor], [], [], PATIENCE)[0], self.output
        data = os.read(self.descriptor, 1 << 16)
        self.output += data
        return bool(data)

    def settings(self) -> list[Any]:
        return termios.tcgetattr(self.descriptor)

    def type(self, keys: bytes) -> None:
        os.write(self.descriptor, keys)

    def end(self) -> int:
        """Its exit status, after all that it wrote."""
        with suppress(OSError):  # which says that the other end is closed
            until = time.monotonic() + PATIENCE
            while self._read():
                assert time.monotonic() < until, self.output[-500:]
        os.close(self.descriptor)
        return self._process.wait(PATIENCE)


#: Runs a program in the foreground of its terminal, as a shell does. When that is stopped, says so and continues it
#: after a line of input; at its end, says with which status.
SHELL = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = subprocess.Popen(sys.argv[1:], process_group=0)
os.tcsetpgrp(0, job.pid)
print(f"<job {job.pid}>", flush=True)
while True:
    _, status = os.waitpid(job.pid, os.WUNTRACED)
    os.tcsetpgrp(0, os.getpgrp())
    if not os.WIFSTOPPED(status):
        print(f"<ended {os.waitstatus_to_exitcode(status)}>", flush=True)
        break
    print("<stopped>", flush=True)
    sys.stdin.readline()
    os.tcsetpgrp(0, job.pid)
    os.kill(job.pid, signal.SIGCONT)
"""


def under_a_shell(*words: str) -> Terminal:
    return Terminal(sys.executable, "-c", SHELL, *words)
