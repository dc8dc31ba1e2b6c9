"""Imports that cost a start less: modules that run at their first use, and imports that are left out.

Facts: trio imports what TLS and DNS need (ssl, hmac, idna), and structlog imports asyncio for methods that return
awaitables. A daemon uses none of them. They are an eighth of the instructions of all its imports, and of its memory.
:class:`importlib.util.LazyLoader` is made for this, but a lazy module of Python 3.11 runs as soon as a second import
statement names it, because that statement looks at its ``__spec__``.
What follows: a module must be there with all that an import statement looks at, and run when something else is wanted.
Decision: such a module is put where Python looks for imported ones, with its true spec, before the first import. The
first use of an attribute that a module has only by its code runs the code. From then on it is a module like any other.
What structlog imports only if it is installed is hidden from it, since a host may have it for something else.
Cost: an error in such a module shows at its first use, in whatever task that is. The names are tested with the oldest
and the newest dependencies (tests/cli/test_start.py).
"""

from __future__ import annotations

import gc
import importlib.util
import logging
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final

#: What a daemon's dependencies import, and a daemon does not use.
UNUSED: Final = ("asyncio", "hmac", "idna", "ssl")
#: What structlog uses for tracebacks, colours and loggers that a daemon does not have.
OPTIONAL: Final = ("better_exceptions", "colorama", "rich", "twisted")
#: One module runs at a time; it may use another one meanwhile.
_lock = threading.RLock()
_running: set[str] = set()


class LazyModule(ModuleType):
    """A module whose code has not run yet."""

    def __getattr__(self, name: str) -> Any:
        """Runs the code, then returns the attribute. Called only for an attribute that is not there."""
        with _lock:
            if type(self) is LazyModule and self.__name__ not in _running:
                self._run()
        if type(self) is LazyModule:  # the code that runs asks, maybe by a module that it imports
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(self, name)

    def _run(self) -> None:
        spec = self.__spec__
        assert spec is not None
        assert spec.loader is not None
        _running.add(self.__name__)
        try:
            spec.loader.exec_module(self)
            self.__class__ = ModuleType  # type: ignore[assignment]
        finally:
            _running.discard(self.__name__)


def import_lazily(names: Iterable[str] = UNUSED) -> None:
    """Have each of these modules run at its first use. One that is imported already, or does not exist, is left out."""
    # From Python 3.12 on each record of logging asks asyncio for the current task if sys.modules has asyncio, and
    # structlog makes a record when it is imported. Python 3.11 does not know the name.
    logging.__dict__.update(logAsyncioTasks=False)
    for name in names:
        if name in sys.modules:
            continue
        spec = importlib.util.find_spec(name)
        if spec is not None:
            module = importlib.util.module_from_spec(spec)
            module.__class__ = LazyModule
            sys.modules[name] = module


@contextmanager
def importing() -> Iterator[None]:
    """For the imports of a daemon. :data:`OPTIONAL` are as if they were not there, and garbage is not collected.

    The collector would look at what is imported again and again while it grows, and find next to nothing.
    """
    was_enabled = gc.isenabled()
    hidden = [name for name in OPTIONAL if name not in sys.modules]
    gc.disable()
    # An import of what is None there is an ImportError; docs.python.org/3/reference/import.html#the-module-cache.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name, sys) is None:
                del sys.modules[name]
        if was_enabled:
            gc.enable()
