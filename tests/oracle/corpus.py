"""The hand-made traces of tests/traces.

``python -m tests.oracle corpus`` writes them and the table of tests/traces/README.md.
"""

from . import corpus_format, corpus_gvt, corpus_history
from .corpus_case import CASES, Case

__all__ = ["CASES", "Case", "corpus_format", "corpus_gvt", "corpus_history"]
