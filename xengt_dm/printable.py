"""Escapes text from other sources, for a terminal, a line of a log or a label."""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    """Returns ``text`` with escapes in place of characters that a terminal may act on or a reader cannot see.

    These are control and format characters, line breaks, unusual spaces and surrogates, except those in ``keep``.
    A byte that os.fsdecode kept as a surrogate becomes ``\\xNN``.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in keep else _escape(each) for each in text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else character.encode("unicode_escape").decode()
