"""What a PromQL expression names: enough of the language for the expressions that we ship."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_KEYWORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset"}
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_MATCHER = re.compile(r"\s*([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)\s*\"((?:[^\"\\]|\\.)*)\"\s*,?")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*(?:\{([^}]*)\})?")


@dataclass(frozen=True)
class Selector:
    """A metric, and the labels that it is asked for."""

    name: str
    labels: tuple[str, ...]


def selectors(expression: str) -> Iterator[Selector]:
    """Every metric that an expression names, with the labels in its braces."""
    text = re.sub(r"\[[^\]]*\]", " ", _GROUPING.sub(" ", expression))
    bare = _STRING.sub(lambda match: '"' + "." * (len(match[0]) - 2) + '"', text)  # no brace is within a string then
    for match in _SELECTOR.finditer(bare):
        before, after = bare[: match.start()], bare[match.end() :].lstrip()
        in_braces = before.count("{") > before.count("}")
        if in_braces or before.count('"') % 2 or before[-1:].isdigit():
            continue  # a label, a part of a string, the unit of a number
        if match[1] in _KEYWORDS or after.startswith("("):
            continue
        yield Selector(match[1], tuple(each[1] for each in _MATCHER.finditer(match[2] or "")))


def grouped_by(expression: str) -> set[str]:
    """The labels of every ``by``, ``without``, ``on`` and ``ignoring``."""
    return {label.strip() for match in _GROUPING.finditer(expression) for label in match[1].split(",") if label.strip()}
