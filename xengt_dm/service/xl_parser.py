"""Parses xl's domain configurations, as Xen's own library does. What the settings mean: :mod:`.xl_config`.

The grammar, from tools/libs/util/libxlu_cfg_l.l, libxlu_cfg_y.y and libxlu_cfg.c, the same in Xen 4.15 to 4.21:

    file:       { [assignment] end }  [assignment]        end: a newline or ";"
    assignment: NAME "=" value  |  NAME "+=" value
    value:      STRING  |  NUMBER  |  "[" [value { "," value }] [","] "]"    newlines anywhere within the brackets

A NAME has small letters, digits, "." and "_". A NUMBER starts with a digit and has digits, "a" to "f" and "x". A
comment goes from "#" to a newline and counts as one. Every value is kept as a string; :func:`as_number` makes a number
of it, by the rules of strtol(3).

Corners of the library that are followed here, because xl acts on them:

* The last assignment of a name holds; ``+=`` appends to what the name has, string to string or list to list. What was
  last assigned with ``+=`` is no number.
* A comment at the end of the file needs a newline. A carriage return is an error. So is any other byte that starts no
  token, unless it is the very last one of the file, which is ignored.
* An escape of three octal digits in a string adds no character to the string. The library reads the digits as decimal
  and wants at least two of them after the first. ``\\x`` is always an error.
* One error anywhere makes the whole file invalid, and a NUL in a string ends xl.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

from xengt_dm.errors import ConfigError

#: What bison's parser may have on its stack, YYMAXDEPTH; this is what bounds the nesting of lists.
_STACK_LIMIT: Final = 10_000

_TOKEN: Final = re.compile(
    rb"""[ \t]*(?:
    (?P<newline>\n|\#[^\n]*\n)
    | (?P<string>'(?:[^'\\\n]|\\[^\n])*'|"(?:[^"\\\n]|\\[^\n])*")
    | (?P<number>[0-9][0-9a-fx]*)
    | (?P<name>[a-z][._0-9a-z]*)
    | (?P<sign>\+=|[=\[\],;])
    | (?P<end>\Z)
    | (?P<other>.)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE: Final = re.compile(rb"\\(.)", re.DOTALL)
_SIMPLE_ESCAPES: Final = {
    b'"': b'"', b"'": b"'", b"\\": b"\\", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t",
    b"v": b"\v",
}  # fmt: skip
#: What strtoul(3) takes of three characters after the first octal digit, two characters at least.
_OCTAL: Final = re.compile(rb"[ \t\v\f\r]*[+-]?[0-9]+")
#: strtol(3) with base 0.
_LONG: Final = re.compile(r"[ \t\n\v\f\r]*([+-]?)(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))")
_LONG_MAX: Final = (1 << 63) - 1


class Atom(NamedTuple):
    """A string or a number. ``line`` is where it begins."""

    text: str
    line: int


class List(NamedTuple):
    """A list. ``line`` is where it begins."""

    items: list[Value]
    line: int


Value: TypeAlias = "Atom | List"


class Setting(NamedTuple):
    """What a name has at the end of the file. ``added``: the last assignment was a ``+=``."""

    name: str
    value: Value
    added: bool


class _Token(NamedTuple):
    kind: str
    text: bytes
    line: int

    def is_sign(self, text: bytes) -> bool:
        return self.kind == "sign" and self.text == text


class _WrongError(Exception):
    """The file is wrong at ``token``; the message says what is wrong."""

    def __init__(self, token: _Token, what: str) -> None:
        super().__init__(what)
        self.token = token


def parse_config(data: bytes, file: str) -> dict[str, Setting]:
    """Parses a file. Returns its settings by name, in the order of their last assignments. ``file`` is for messages.

    Raises ConfigError, with file and line, where xl refuses the file.
    """
    settings: dict[str, Setting] = {}
    tokens = _tokens(data)
    name: _Token | None = None
    try:
        for token in tokens:
            if token.kind == "end":
                break
            if token.kind == "newline" or token.is_sign(b";"):
                continue
            if token.kind != "name":
                raise _WrongError(token, f"{_shown(token)} where a name was expected")
            name = token
            sign = next(tokens)
            if not (sign.is_sign(b"=") or sign.is_sign(b"+=")):
                raise _WrongError(sign, f"{_shown(sign)} where = or += was expected")
            value = _value(tokens)
            after = next(tokens)
            if after.kind not in ("newline", "end") and not after.is_sign(b";"):
                raise _WrongError(after, f"{_shown(after)} after the value")
            _assign(settings, name, value, sign)
            name = None
            if after.kind == "end":
                break
    except _WrongError as error:
        about = "" if name is None else f" {name.text.decode()}:"
        raise ConfigError(f"{file}:{error.token.line}:{about} {error}; xl cannot read this") from None
    return settings


def as_number(setting: Setting) -> int | None:
    """Returns the number that xl reads in a setting; None if it reads none, as in ``09``, ``1 `` and after ``+=``."""
    if setting.added or not isinstance(setting.value, Atom):
        return None
    match = _LONG.fullmatch(setting.value.text)
    if match is None:
        return None
    sign, hexadecimal, octal, decimal = match.groups()
    digits, base = (hexadecimal, 16) if hexadecimal else (octal, 8) if octal else (decimal, 10)
    if len(digits) > 400:  # long before Python's limit, and far beyond a long
        return None if digits.strip("0") else 0
    number = int(digits, base) * (-1 if sign == "-" else 1)
    return number if -_LONG_MAX - 1 <= number <= _LONG_MAX else None


def _assign(settings: dict[str, Setting], name: _Token, value: Value, sign: _Token) -> None:
    key = name.text.decode()
    adds = sign.text == b"+="
    before = settings.pop(key, None)
    if adds and before is not None:
        if isinstance(value, Atom) and isinstance(before.value, Atom):
            value = Atom(before.value.text + value.text, value.line)
        elif isinstance(value, List) and isinstance(before.value, List):
            value = List(before.value.items + value.items, value.line)
        else:
            raise _WrongError(sign, "a list and a single value cannot be added")
    settings[key] = Setting(key, value, adds)


def _tokens(data: bytes) -> Iterator[_Token]:
    """Yields the tokens; the last one is ``end``. Raises _WrongError for bytes that are no token."""
    line = 1
    at = 0
    while True:
        match = _TOKEN.match(data, at)
        assert match is not None, "every byte is a token, if only an `other`"
        kind = match.lastgroup or ""
        token = _Token(kind, match[kind], line)
        at = match.end()
        if kind == "other":
            if at < len(data):
                raise _WrongError(token, _not_a_token(token))
            token = _Token("end", b"", line)
        yield token
        if token.kind == "end":
            return
        line += kind == "newline"


def _not_a_token(token: _Token) -> str:
    if token.text == b"\r":
        return "a carriage return; lines must end with a newline alone"
    if token.text in (b"'", b'"'):
        return "a string that does not end on its line"
    if token.text == b"#":
        return "a comment at the end of the file without a newline"
    if token.text.isupper():
        return f"{_shown(token)}: names are in small letters"
    return f"{_shown(token)} is not allowed here"


def _value(tokens: Iterator[_Token]) -> Value:
    """Reads a value with the lists in it. Without recursion, because lists may be nested thousands deep."""
    open_lists: list[List] = []
    stack = _ParserStack()
    while True:
        token = _in_list(tokens, stack, 0) if open_lists else next(tokens)
        value: Value
        if token.kind in ("string", "number"):
            value = Atom(_text(token), token.line)
        elif token.is_sign(b"["):
            stack.open(token)
            open_lists.append(List([], token.line))
            continue
        elif open_lists and token.is_sign(b"]"):  # nothing in it, or a comma before its end
            value = open_lists.pop()
            stack.close()
        elif open_lists:
            raise _wrong_in_list(token, open_lists[-1], "a value")
        else:
            raise _WrongError(token, f"{_shown(token)} is no value: a number, a string in quotes, or a list in [ ]")
        while open_lists:
            open_lists[-1].items.append(value)
            token = _in_list(tokens, stack, 2)
            if token.is_sign(b","):
                stack.comma()
                break
            if not token.is_sign(b"]"):
                raise _wrong_in_list(token, open_lists[-1], "a comma")
            value = open_lists.pop()
            stack.close()
        else:
            return value


def _wrong_in_list(token: _Token, inner: List, expected: str) -> _WrongError:
    if token.kind == "end":
        return _WrongError(token._replace(line=inner.line), "a list that does not end with ]")
    return _WrongError(token, f"{_shown(token)} in a list, where {expected} or ] was expected")


def _in_list(tokens: Iterator[_Token], stack: _ParserStack, above: int) -> _Token:
    """Returns the next token that is no newline. ``above``: how many states xl's parser then has above the list."""
    token = next(tokens)
    stack.check(above, token)
    while token.kind == "newline":
        stack.check(above + 1, token)
        token = next(tokens)
    return token


class _ParserStack:
    """How many states the library's parser has on its stack. Nothing else limits how deep lists may be nested."""

    def __init__(self) -> None:
        self._depth = 4  # the initial state, the statements before, the name, its "="
        self._outer: list[int] = []

    def open(self, token: _Token) -> None:
        """Pushes "[" and the newlines after it; the list's content and its "]" come above them later."""
        self.check(4, token)
        self._outer.append(self._depth)
        self._depth += 2

    def comma(self) -> None:
        """Has on the stack: "[", newlines, the values so far, ",", newlines."""
        self._depth = self._outer[-1] + 5

    def close(self) -> None:
        self._depth = self._outer.pop()

    def check(self, more: int, token: _Token) -> None:
        if self._depth + more >= _STACK_LIMIT:
            raise _WrongError(token, "lists nested too deeply")


def _text(token: _Token) -> str:
    """The characters of a string or number; bytes that are no UTF-8 are kept as os.fsdecode keeps them."""
    raw = token.text
    if token.kind == "string":
        raw = _unescaped(token)
    return raw.decode("utf-8", "surrogateescape")


def _unescaped(token: _Token) -> bytes:
    body = token.text[1:-1]
    if b"\0" in body:
        raise _WrongError(token, "a NUL in a string")
    parts = []
    at = 0
    while match := _ESCAPE.search(body, at):
        parts.append(body[at : match.start()])
        at = match.end()
        if match[1] in _SIMPLE_ESCAPES:
            parts.append(_SIMPLE_ESCAPES[match[1]])
        elif match[1] in b"01234567":
            digits = _OCTAL.match(token.text[1:][at : at + 3])
            if digits is None or digits.end() < 2:
                raise _WrongError(token, f"\\{match[1].decode()} in a string, without two more digits")
            at += digits.end()
        else:
            raise _WrongError(token, f"\\{_printable(match[1])} in a string, which xl does not know")
    parts.append(body[at:])
    return b"".join(parts)


def _shown(token: _Token) -> str:
    if token.kind == "end":
        return "the end of the file"
    if token.kind == "newline":
        return "the end of the line"
    text = token.text if len(token.text) <= 40 else token.text[:37] + b"..."
    return _printable(text) if token.kind == "string" else repr(_printable(text))


def _printable(raw: bytes) -> str:
    return raw.decode("ascii", "backslashreplace")
