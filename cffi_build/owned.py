"""The functions of ``_core`` that only the thread which serves a guest may call, and the check that it does.

cffi writes a wrapper for each function: it releases the GIL, calls the function, and takes the GIL again. The text that
:func:`checks` returns stands before the wrappers. It makes a macro of each function's name, so that the wrapper asks
``xd_owner_admits`` (``core/base/owner.h``) about the first argument before it calls, and a macro of
``Py_END_ALLOW_THREADS``, so that it raises RuntimeError if the answer was no. So no function can be forgotten, and
calls from C to C cost nothing more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from shared import declarations

_FUNCTION = re.compile(r"(?P<nothing>\bvoid )?\b(?P<name>xd_\w+)\((?P<parameters>[^()]*)\)\s*;")
_CHECKS = r"""
#include "owner.h"

#define XD_FIRST(first, ...) (first)
#define XD_ADMITS(...) xd_owner_admits(XD_FIRST(__VA_ARGS__, 0))
#define XD_NOTHING(function, ...) ((__typeof__(function(__VA_ARGS__))){0})
#define XD_OWNED(function, ...) (XD_ADMITS(__VA_ARGS__) ? function(__VA_ARGS__) : XD_NOTHING(function, __VA_ARGS__))
#define XD_OWNED_VOID(function, ...) (XD_ADMITS(__VA_ARGS__) ? function(__VA_ARGS__) : (void)0)
#define XD_WRONG "this belongs to the thread that serves the guest, or a burst is under way"
#undef Py_END_ALLOW_THREADS
#define Py_END_ALLOW_THREADS \
    Py_BLOCK_THREADS \
    } \
    if (xd_owner_refused()) { \
        PyErr_SetString(PyExc_RuntimeError, XD_WRONG); \
        return NULL; \
    }
"""


def functions(header: Path) -> Iterator[tuple[str, str]]:
    """The functions of a header that begin with a pointer: their names, and the macros for them."""
    text = re.sub(r"/\*.*?\*/", " ", declarations(header), flags=re.DOTALL)
    for found in _FUNCTION.finditer(text):
        if "*" in found["parameters"].split(",")[0]:
            yield found["name"], "XD_OWNED_VOID" if found["nothing"] else "XD_OWNED"


def checks(headers: list[Path]) -> str:
    """Returns C text for ``set_source``: the checks of the functions in these headers."""
    owned = [each for header in headers for each in functions(header)]
    return _CHECKS + "".join(f"#define {name}(...) {macro}({name}, __VA_ARGS__)\n" for name, macro in owned)
