"""In a daemon: kill it after the n-th instruction of _core, or after the n-th line of its Python, of one request.

``arm`` is a command of the control socket that only these daemons have. Steps count while vCPU 0 has a request in its
slot; or, with ``command``, from the next command of the operator on.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import xengt_dm
from tests.storm import hooks
from xengt_dm import _core
from xengt_dm._core import ffi
from xengt_dm.control import commands
from xengt_dm.errors import UsageError

#: The environment variable that names the compiled stepping.c.
LIBRARY: Final = "XENGT_STEPPING"
#: Where the byte with a slot's state is in a slot: struct ioreq, xen/include/public/hvm/ioreq.h.
_STATE_OFFSET: Final = 30
_STATE_MASK: Final = 0xF
_ROOT: Final = str(Path(xengt_dm.__file__).parent)
_FLAGS: Final = ["-std=gnu11", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"]


def compile_library(folder: Path) -> Path:
    """Compile stepping.c into a folder; returns the library."""
    library = folder / "stepping.so"
    source = Path(__file__).with_name("stepping.c")
    subprocess.run([os.environ.get("CC", "cc"), *_FLAGS, "-o", str(library), str(source)], check=True)
    return library


class _Lines:
    """Counts lines of xengt_dm while a slot is busy, or always if ``state`` is None."""

    def __init__(self, after: int, state: Any) -> None:
        self.count = 0
        self._after = after
        self._state = state

    def trace(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.startswith(_ROOT):
            return None
        return self._line

    def _line(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        if event in ("line", "return") and (self._state is None or self._state.value & _STATE_MASK):
            self.count += 1
            if self.count == self._after:
                os.kill(os.getpid(), signal.SIGKILL)
        return self._line


#: The count of lines, once there is one.
_counting: list[_Lines] = []
#: What is called when the next command comes.
_next: list[Callable[[], None]] = []


def install() -> None:
    """Give the daemons that this process forks the command ``arm``, and what the storm's daemons have."""
    hooks.install()
    ctypes.CDLL(os.environ[LIBRARY])
    importlib.import_module("xengt_dm.cli.sim")
    answer = commands._answer

    def armed(*arguments: Any) -> object:
        if _next:
            _next.pop()()
        return answer(*arguments)

    commands._answer = armed  # type: ignore[assignment]
    commands.COMMANDS = (  # type: ignore[misc,assignment]
        *commands.COMMANDS,
        commands.Command("arm", ("what", "after", "command"), _arm),
    )


def _arm(target: commands.Target, arguments: commands.Arguments) -> object:
    what, after, command = (arguments.get(name) for name in ("what", "after", "command"))
    if what == "nothing":
        sys.settrace(None)
        library = load_library(os.environ[LIBRARY])
        return {"steps": sum(lines.count for lines in _counting) or int(library.step_never())}
    if what not in ("instructions", "lines") or not isinstance(after, int):
        raise UsageError("what and after how many")
    page = int(ffi.cast("uintptr_t", target.instance.server.slots.page))
    if command:
        _next.append(lambda: _begin(str(what), after, 0))
    else:
        _begin(str(what), after, page + _STATE_OFFSET)
    return {}


def _begin(what: str, after: int, state: int) -> None:
    if what == "lines":
        lines = _Lines(after, ctypes.c_uint8.from_address(state) if state else None)
        _counting.append(lines)
        sys.settrace(lines.trace)
        return
    arm(load_library(os.environ[LIBRARY]), _entries(), state, after)


def load_library(path: Path | str) -> ctypes.CDLL:
    """The compiled stepping.c."""
    library = ctypes.CDLL(str(path))
    library.step_arm.argtypes = [
        ctypes.c_size_t,
        ctypes.c_size_t,
        ctypes.c_void_p,
        ctypes.c_uint,
        ctypes.c_void_p,
        ctypes.c_int64,
    ]
    library.step_never.restype = ctypes.c_uint64
    return library


def arm(library: ctypes.CDLL, entries: list[int], state: int, after: int) -> None:
    """Have this process killed after so many instructions of _core, from each call of a function at ``entries`` on.

    ``state``: the address of the byte of a slot without whose request nothing counts; 0: everything counts. ``after``:
    0 to count alone.
    """
    first, end = _text_of(str(_core.__file__))
    addresses = (ctypes.c_size_t * len(entries))(*entries)
    if library.step_arm(first, end, addresses, len(entries), state or None, after):
        raise AssertionError("the text of _core cannot be changed")


def _text_of(path: str) -> tuple[int, int]:
    """Where the text of a library lies in this process."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        words = line.split()
        if words[-1] == path and "x" in words[1]:
            first, _, end = words[0].partition("-")
            return int(first, 16), int(end, 16)
    raise AssertionError(f"{path} is not mapped")


def _entries() -> list[int]:
    """The addresses of the functions that Python can call in _core."""
    functions = [getattr(_core.lib, name) for name in dir(_core.lib)]
    return [address_of(each) for each in functions if type(each).__name__ == "builtin_function_or_method"]


def address_of(function: Any) -> int:
    """Where cffi's wrapper of a function of _core begins."""
    address = ctypes.pythonapi.PyCFunction_GetFunction
    address.restype = ctypes.c_void_p
    address.argtypes = [ctypes.py_object]
    return int(address(function))
