"""A terminal that a command has for itself, and gives back however the command ends or is stopped."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from types import FrameType, TracebackType
from typing import Any, Final, Self

from xengt_dm.service.interruptions import as_exception

#: ECMA-48, and xterm's alternate screen, which leaves what was on the terminal before as it was.
ENTER: Final = "\x1b[?1049h\x1b[?25l"
LEAVE: Final = "\x1b[?25h\x1b[?1049l"
HOME: Final = "\x1b[H"
CLEAR_LINE_END: Final = "\x1b[K"
CLEAR_BELOW: Final = "\x1b[J"
BOLD, REVERSE, PLAIN = "\x1b[1m", "\x1b[7m", "\x1b[m"

QUIT: Final = frozenset(b"qQ\x03\x04")
#: Signals that end the command.
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
#: How soon a command that was stopped and goes on draws its screen again.
_REDRAW_SECONDS: Final = 0.2


class Screen:
    """As a context: the alternate screen without a cursor, and keys that come one by one.

    It is given back at the end, at a signal that ends the process, which becomes an exception, and while the process is
    stopped by SIGTSTP (Ctrl-Z). What comes after SIGSTOP, at which nothing can be done, is mended at SIGCONT.

    The handler of a signal gives it back itself: an exception can come between any two steps, also between that of
    taking the screen and that of the block that would give it back.
    """

    def __init__(self) -> None:
        self._keyboard = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._settings: list[Any] = []
        self._handlers: dict[int, Any] = {}
        self._redraw = False

    def __enter__(self) -> Self:
        if self._keyboard is not None:
            self._settings = termios.tcgetattr(self._keyboard)
        handlers = {**dict.fromkeys(ENDING, self._end), signal.SIGTSTP: self._stop, signal.SIGCONT: self._go_on}
        self._handlers = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def draw(self, lines: list[str]) -> None:
        """Show these lines in the place of all that was there."""
        _write(HOME + "".join(f"{line}{CLEAR_LINE_END}\n" for line in lines) + CLEAR_BELOW)

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until the screen is to be drawn again; whether somebody wants to quit."""
        end = time.monotonic() + seconds
        self._redraw = False
        while (left := end - time.monotonic()) > 0 and not self._redraw:
            left = min(left, _REDRAW_SECONDS)
            if self._keyboard is None:
                time.sleep(left)
            elif select.select([self._keyboard], [], [], left)[0]:
                keys = os.read(self._keyboard, 64)
                if not keys or not QUIT.isdisjoint(keys):
                    return True
        return False

    def _take(self) -> None:
        if self._keyboard is not None:
            tty.setcbreak(self._keyboard)
        _write(ENTER)

    def _give_back(self) -> None:
        _write(LEAVE)
        if self._keyboard is not None:
            termios.tcsetattr(self._keyboard, termios.TCSANOW, self._settings)

    def _end(self, number: int, _frame: FrameType | None) -> None:
        self._give_back()
        raise as_exception(number)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # and here it goes on, later
        signal.signal(signal.SIGTSTP, self._stop)

    def _go_on(self, _number: int, _frame: FrameType | None) -> None:
        self._take()
        self._redraw = True


def _write(text: str) -> None:
    """Without a buffer: a handler may write while a write is interrupted, which sys.stdout refuses."""
    data = text.encode(errors="replace")
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]
