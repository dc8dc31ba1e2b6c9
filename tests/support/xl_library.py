"""Xen's own reader of xl files, libxlutil, in a process of its own: it aborts on some inputs."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from ctypes import POINTER, byref, c_char_p, c_int, c_long, c_void_p
from pathlib import Path
from typing import Any, Final

#: Where Debian's libxen-dev and the libxenmisc that it needs have it.
LIBRARY: Final = Path("/usr/lib/x86_64-linux-gnu/libxlutil.so")
_STRING: Final = 0

#: What the library makes of a name: its string or list, in latin-1, and the number it is or not. No entry: not set.
Read = dict[str, tuple[Any, int | None]]


def read_all(files: Iterable[bytes], names: Iterable[str]) -> Iterator[Read | None]:
    """What the library reads of each file; None where it refuses the file, or aborts."""
    files, names = list(files), list(names)
    child: subprocess.Popen[str] | None = None
    for data in files:
        if child is None:
            child = subprocess.Popen(
                [sys.executable, __file__, *names],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(data.hex() + "\n")
        child.stdin.flush()
        line = child.stdout.readline()
        if line:
            yield json.loads(line)
        else:
            _end(child)
            child = None
            yield None
    if child is not None:
        _end(child)


def _end(child: subprocess.Popen[str]) -> None:
    with child:
        assert child.stdin is not None
        child.stdin.close()


class _Library:
    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._lib = ctypes.CDLL(str(LIBRARY))
        libc = ctypes.CDLL(None)
        libc.fopen.restype = c_void_p
        libc.fopen.argtypes = [c_char_p, c_char_p]
        self._report = libc.fopen(b"/dev/null", b"w")
        for name, result, arguments in (
            ("xlu_cfg_init", c_void_p, [c_void_p, c_char_p]),
            ("xlu_cfg_destroy", None, [c_void_p]),
            ("xlu_cfg_readdata", c_int, [c_void_p, c_char_p, c_int]),
            ("xlu_cfg_get_string", c_int, [c_void_p, c_char_p, POINTER(c_char_p), c_int]),
            ("xlu_cfg_get_long", c_int, [c_void_p, c_char_p, POINTER(c_long), c_int]),
            ("xlu_cfg_get_list", c_int, [c_void_p, c_char_p, POINTER(c_void_p), POINTER(c_int), c_int]),
            ("xlu_cfg_get_listitem2", c_void_p, [c_void_p, c_int]),
            ("xlu_cfg_value_type", c_int, [c_void_p]),
            ("xlu_cfg_value_get_string", c_int, [c_void_p, c_void_p, POINTER(c_char_p), c_int]),
            ("xlu_cfg_value_get_list", c_int, [c_void_p, c_void_p, POINTER(c_void_p), c_int]),
        ):
            function = getattr(self._lib, name)
            function.restype, function.argtypes = result, arguments

    def read(self, data: bytes) -> Read | None:
        config = self._lib.xlu_cfg_init(self._report, b"")
        try:
            if self._lib.xlu_cfg_readdata(config, data, len(data)):
                return None
            found = {name: self._setting(config, name.encode()) for name in self._names}
        finally:
            self._lib.xlu_cfg_destroy(config)
        return {name: setting for name, setting in found.items() if setting is not None}

    def _setting(self, config: int, name: bytes) -> tuple[Any, int | None] | None:
        text, number, items, count = c_char_p(), c_long(), c_void_p(), c_int()
        if self._lib.xlu_cfg_get_string(config, name, byref(text), 1) == 0:
            wrong = self._lib.xlu_cfg_get_long(config, name, byref(number), 1)
            return (text.value or b"").decode("latin-1"), None if wrong else number.value
        if self._lib.xlu_cfg_get_list(config, name, byref(items), byref(count), 1) == 0:
            return self._items(config, items), None
        return None

    def _items(self, config: int, items: c_void_p) -> list[Any]:
        found: list[Any] = []
        while (value := self._lib.xlu_cfg_get_listitem2(items, len(found))) is not None:
            text, inner = c_char_p(), c_void_p()
            if self._lib.xlu_cfg_value_type(value) == _STRING:
                self._lib.xlu_cfg_value_get_string(config, value, byref(text), 1)
                found.append((text.value or b"").decode("latin-1"))
            else:
                self._lib.xlu_cfg_value_get_list(config, value, byref(inner), 1)
                found.append(self._items(config, inner))
        return found


def _main() -> None:
    library = _Library(sys.argv[1:])
    for line in sys.stdin:
        print(json.dumps(library.read(bytes.fromhex(line))), flush=True)


if __name__ == "__main__":
    _main()
