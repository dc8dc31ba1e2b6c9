"""The terminal that `xengt-dm top` has for itself, at signals that end, stop and continue it."""

from __future__ import annotations

import os
import re
import signal
import sys
import termios
from pathlib import Path

import pytest

from tests.support.terminal import Terminal, under_a_shell
from xengt_dm.cli.screen import ENTER, LEAVE

_LOCAL_FLAGS = 3


def top(base: Path) -> tuple[Terminal, int]:
    """`top` on a terminal, drawn once; and its process."""
    terminal = under_a_shell(sys.executable, "-m", "xengt_dm", "top", "--run-dir", str(base), "--interval", "0.1")
    terminal.read_until(b">")
    terminal.read_until(b"no daemon runs")
    found = re.search(rb"<job (\d+)>", terminal.output)
    assert found
    return terminal, int(found[1])


def is_as_a_shell_wants_it(terminal: Terminal) -> bool:
    """Lines and an echo; and the last that was done to the screen is that the alternate one was left."""
    flags = terminal.settings()[_LOCAL_FLAGS]
    output = terminal.output
    screen = output.rfind(LEAVE.encode()) > output.rfind(ENTER.encode())
    return bool(flags & termios.ICANON and flags & termios.ECHO) and screen


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT])
def test_a_signal_that_ends_it_leaves_the_terminal_as_it_was(tmp_path: Path, number: signal.Signals) -> None:
    terminal, process = top(tmp_path)
    assert not is_as_a_shell_wants_it(terminal)
    os.kill(process, number)
    terminal.read_until(b"<ended")
    assert f"<ended {128 + number}>".encode() in terminal.output
    assert is_as_a_shell_wants_it(terminal)
    assert terminal.end() == 0


def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(tmp_path: Path) -> None:
    terminal, _ = top(tmp_path)
    for times in (1, 2):
        terminal.type(b"\x1a")
        terminal.read_until(b"<stopped>")
        assert is_as_a_shell_wants_it(terminal)
        terminal.output = b""
        terminal.type(b"\n")
        terminal.read_until(ENTER.encode())
        terminal.read_until(b"no daemon runs")
        assert not is_as_a_shell_wants_it(terminal), times
    terminal.type(b"q")
    terminal.read_until(b"<ended 0>")
    assert is_as_a_shell_wants_it(terminal)
    assert terminal.end() == 0


def test_after_a_stop_without_warning_the_screen_is_taken_again(tmp_path: Path) -> None:
    """What a shell has done to the terminal meanwhile is mended."""
    terminal, process = top(tmp_path)
    os.kill(process, signal.SIGSTOP)
    terminal.read_until(b"<stopped>")
    settings = terminal.settings()
    settings[_LOCAL_FLAGS] |= termios.ICANON | termios.ECHO
    termios.tcsetattr(terminal.descriptor, termios.TCSANOW, settings)
    terminal.output = b""
    terminal.type(b"\n")
    terminal.read_until(ENTER.encode())
    terminal.read_until(b"no daemon runs")
    terminal.type(b"q")
    terminal.read_until(b"<ended 0>")
    assert is_as_a_shell_wants_it(terminal)
    assert terminal.end() == 0


#: `top` that gets a signal in the middle of taking the terminal, or of drawing.
IN_THE_MIDDLE = """
import os, signal, sys
from xengt_dm.cli import main, screen
number, where = int(sys.argv[1]), sys.argv[2]
module, name = (screen.tty, "setcbreak") if where == "setcbreak" else (screen, "_write")
real = getattr(module, name)

def signalled(*words):
    setattr(module, name, real)
    real(*words)
    os.kill(os.getpid(), number)

setattr(module, name, signalled)
main(["top", "--run-dir", sys.argv[3]])
"""


@pytest.mark.parametrize("where", ["setcbreak", "write"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_terminal_is_being_taken(tmp_path: Path, number: signal.Signals, where: str) -> None:
    terminal = under_a_shell(sys.executable, "-c", IN_THE_MIDDLE, str(int(number)), where, str(tmp_path))
    terminal.read_until(b"<ended")
    assert f"<ended {128 + number}>".encode() in terminal.output
    assert is_as_a_shell_wants_it(terminal)
    assert terminal.end() == 0
