"""An independent reference for traces: what each dump must say, in slow and obvious Python.

It shares no code with the project and knows nothing of shadows: it keeps the guest's memory and walks the guest's own
tables, which is what the shadow must be equal to.
"""

from .compare import compare
from .machine import Trace, expected, load, save

__all__ = ["Trace", "compare", "expected", "load", "save"]
