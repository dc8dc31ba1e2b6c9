"""Manual pages: a few macros of man(7), and escaping."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator


def escape(text: str) -> str:
    """Returns text on one line, escaped so that roff finds no request or escape in it."""
    text = " ".join(text.split())
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return "\\&" + text if text.startswith((".", "'")) else text


def prose(text: str) -> str:
    """Returns escaped text in which `words` and options are bold."""
    pieces = escape(text).split("`")
    for i, piece in enumerate(pieces):
        pieces[i] = rf"\fB{piece}\fP" if i % 2 else _OPTION.sub(r"\\fB\1\\fP", piece)
    return "".join(pieces)


#: An escaped option, one or two hyphens and a word.
_OPTION = re.compile(r"(?<![\w\\-])((?:\\-){1,2}[a-z]+(?:\\-[a-z]+)*)")


def title(name: str, section: int, version: str, manual: str) -> str:
    """Returns the title line. It has no date, so that building a page twice gives the same page."""
    return f'.TH "{name.upper()}" "{section}" "" "xengt\\-dm {version}" "{manual}"'


def heading(text: str) -> str:
    """Returns the heading of a section, in capitals."""
    return f'.SH "{text.upper()}"'


def subheading(text: str) -> str:
    """Returns the heading of a part of a section. ``text`` must not be escaped already."""
    return f'.SS "{escape(text)}"'


def paragraph(text: str) -> str:
    """Returns a paragraph in the markup of :func:`prose`."""
    return f".PP\n{prose(text)}"


def item(term: str, text: str) -> str:
    """Returns a term in bold and its description. Neither may be escaped already."""
    return f".TP\n.B {escape(term)}\n{prose(text)}"


def example(lines: Iterable[str]) -> str:
    """Returns lines that are shown as they are, indented."""
    body = "\n".join("\\&" + line.replace("\\", r"\e").replace("-", r"\-") for line in lines)
    return f".PP\n.RS 4\n.nf\n{body}\n.fi\n.RE"


def page(parts: Iterable[str]) -> Iterator[str]:
    """Yields the lines of a page."""
    yield '.\\" Made by `xengt-dm manual` from the program and its tables.'
    yield from parts
