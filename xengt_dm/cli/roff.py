"""Manual pages: a few words of man(7), and escaping."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator


def escape(text: str) -> str:
    """Text as it is to be read, on one line: nothing in it is a request or an escape to roff."""
    text = " ".join(text.split())
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return "\\&" + text if text.startswith((".", "'")) else text


def prose(text: str) -> str:
    """Escaped text in which `words` are bold, as are options."""
    pieces = escape(text).split("`")
    for i, piece in enumerate(pieces):
        pieces[i] = rf"\fB{piece}\fP" if i % 2 else _OPTION.sub(r"\\fB\1\\fP", piece)
    return "".join(pieces)


#: An escaped option, one or two hyphens and a word.
_OPTION = re.compile(r"(?<![\w\\-])((?:\\-){1,2}[a-z]+(?:\\-[a-z]+)*)")


def title(name: str, section: int, version: str, manual: str) -> str:
    """No date: a page built twice is the same page."""
    return f'.TH "{name.upper()}" "{section}" "" "xengt\\-dm {version}" "{manual}"'


def heading(text: str) -> str:
    return f'.SH "{text.upper()}"'


def subheading(text: str) -> str:
    return f'.SS "{escape(text)}"'


def paragraph(text: str) -> str:
    return f".PP\n{prose(text)}"


def item(term: str, text: str) -> str:
    """A term in bold, already escaped by nobody, and what it is."""
    return f".TP\n.B {escape(term)}\n{prose(text)}"


def example(lines: Iterable[str]) -> str:
    body = "\n".join("\\&" + line.replace("\\", r"\e").replace("-", r"\-") for line in lines)
    return f".PP\n.RS 4\n.nf\n{body}\n.fi\n.RE"


def page(parts: Iterable[str]) -> Iterator[str]:
    """The lines of a page."""
    yield '.\\" Made by `xengt-dm manual`; what it says is in the code.'
    yield from parts
