"""An engine whose work is done when a call returns, for tests in which nobody else is served meanwhile."""

from __future__ import annotations

import functools
from types import GeneratorType, MethodType
from typing import Any

from xengt_dm.ppgtt.engine import Engine
from xengt_dm.steps import complete


class WholeEngine:
    """The methods of ``steps``, an engine, and of its stores, with their steps run to the end.

    Its attributes are the engine's.
    """

    def __init__(self, steps: Engine) -> None:
        self.steps = steps

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.steps if hasattr(self.steps, name) else self.steps.stores, name)
        if not isinstance(value, MethodType) or name == "tables":  # which is an iterator of its own
            return value

        @functools.wraps(value)
        def whole(*arguments: Any, **named: Any) -> Any:
            result = value(*arguments, **named)
            return complete(result) if isinstance(result, GeneratorType) else result

        return whole
