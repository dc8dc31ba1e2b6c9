"""What an xl domain configuration says that concerns us: the domain's name, ``xengt`` and the historic ``vgt_...``.

xl passes over keys that it does not know (tools/libs/util/libxlu_cfg.c, libxlu_cfg_l.l), so ours can stand in its file.
Whether the rest of the file is right is for xl to say: what cannot be read here is skipped up to the end of its line,
unless it is one of our keys.

    name = "win"
    xengt = [ "shadow.mode=relaxed", "device.generation=9" ]   each as for `xengt-dm run --set`
    xengt = 0                                                  no GPU for this domain
    vgt_low_gm_sz = 64                                         as XenGT's own xl had them, 2014 to 2018
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from xengt_dm.config.files import Assignment, assign
from xengt_dm.errors import ConfigError

Value: TypeAlias = "str | int | list[Value]"

OPTIONS: Final = "xengt"
#: Keys of XenGT's xl that ours have the same meaning as; the configuration knows them as aliases.
HISTORIC: Final = ("vgt_low_gm_sz", "vgt_high_gm_sz", "vgt_fence_sz")
#: Keys of XenGT's xl that were about its kernel module or its display.
MEANINGLESS: Final = ("vgt_primary", "vgt_monitor_config_file")
#: xl's word for whether there is a GPU at all.
HISTORIC_SWITCH: Final = "vgt"

#: A file of xl is a page or two.
SIZE_LIMIT: Final = 1 << 20
_DEPTH_LIMIT: Final = 8
_TOKEN: Final = re.compile(
    r"""[ \t\r]*(?:
    (?P<comment>\#[^\n]*)
    | (?P<end>\n|;)
    | (?P<text>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
    | (?P<number>[0-9][0-9a-zA-Z]*)
    | (?P<word>[a-zA-Z_][a-zA-Z0-9_]*)
    | (?P<sign>\+=|[=\[\],])
    | (?P<other>.)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE: Final = re.compile(r"\\(x[0-9a-fA-F]{2}|[0-7]{1,3}|.)", re.DOTALL)
_ESCAPED: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class Token(NamedTuple):
    kind: str
    text: str
    line: int


class Statement(NamedTuple):
    """``name = value`` or ``name += value``."""

    name: str
    value: Value
    line: int
    adds: bool


class _UnreadableError(Exception):
    """A statement that does not follow the grammar."""


@dataclass(frozen=True)
class Domain:
    """``wanted``: whether the file asks for a GPU or leaves that open."""

    name: str
    wanted: bool
    options: list[Assignment]


def read(path: Path) -> Domain:
    """What a file says of a domain. Raises ConfigError, with file and line, if that cannot be told."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > SIZE_LIMIT:
        raise ConfigError(f"{path}: more than {SIZE_LIMIT} bytes; is it the right file?")
    return parse(data.decode("utf-8", "replace"), str(path))


def parse(text: str, file: str) -> Domain:
    """As :func:`read`, of a file's content; ``file`` is for messages."""
    name, wanted = "", True
    options: list[Assignment] = []
    for each in statements(text, file):
        origin = f"{file}:{each.line}"
        if each.name == "name" and isinstance(each.value, str):
            name = each.value
        elif each.name in (OPTIONS, HISTORIC_SWITCH) and isinstance(each.value, int):
            wanted = each.value != 0
        elif each.name == OPTIONS:
            if not each.adds:
                options.clear()
            options += _options(each.value, origin)
        elif each.name in HISTORIC:
            if not isinstance(each.value, int):
                raise ConfigError(f"{origin}: {each.name}: not a number")
            options.append(assign(each.name, str(each.value), origin))
    if not name:
        raise ConfigError(f'{file}: no name: a line `name = "..."` tells xl and us which domain it is')
    return Domain(name, wanted, options)


def _options(value: Value, origin: str) -> Iterator[Assignment]:
    for each in value if isinstance(value, list) else [value]:
        key, sign, setting = each.partition("=") if isinstance(each, str) else ("", "", "")
        if not sign:
            raise ConfigError(f'{origin}: {OPTIONS}: {each!r} is no "KEY=VALUE"; like "shadow.mode=relaxed"')
        yield assign(key.strip(), setting.strip(), origin)


def statements(text: str, file: str = "") -> Iterator[Statement]:
    """Every statement that can be read. Raises ConfigError for one of our keys that cannot."""
    tokens = [*_tokens(text)]
    at = 0
    while at < len(tokens):
        first = tokens[at]
        if first.kind == "end":
            at += 1
            continue
        try:
            statement, at = _statement(tokens, at)
            yield statement
        except _UnreadableError as error:
            if first.text in (OPTIONS, HISTORIC_SWITCH, *HISTORIC):
                raise ConfigError(f"{file}:{first.line}: {first.text}: {error}") from None
            while at < len(tokens) and tokens[at].kind != "end":
                at += 1


def _tokens(text: str) -> Iterator[Token]:
    line = 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind is not None and kind != "comment":
            yield Token(kind, match[kind], line)
        line += match[0].count("\n")


def _statement(tokens: list[Token], at: int) -> tuple[Statement, int]:
    name = tokens[at]
    sign = _peek(tokens, at + 1)
    if name.kind != "word" or sign is None or sign.text not in ("=", "+="):
        raise _UnreadableError("expected `key = value`")
    value, at = _value(tokens, at + 2, 0)
    after = _peek(tokens, at)
    if after is not None and after.kind != "end":
        raise _UnreadableError(f"{after.text!r} after the value")
    return Statement(name.text, value, name.line, sign.text == "+="), at


def _value(tokens: list[Token], at: int, depth: int) -> tuple[Value, int]:
    token = _peek(tokens, at)
    if token is None or token.kind == "end":
        raise _UnreadableError("no value")
    if token.kind == "text":
        return _unescape(token.text[1:-1]), at + 1
    if token.kind == "number":
        try:
            return int(token.text, 0), at + 1
        except ValueError:
            raise _UnreadableError(f"{token.text} is no number") from None
    if token.text == "[" and depth < _DEPTH_LIMIT:
        return _list(tokens, at + 1, depth + 1)
    raise _UnreadableError(f"{token.text!r} is no value: a number, a text in quotes, or a list of them in [ ]")


def _list(tokens: list[Token], at: int, depth: int) -> tuple[Value, int]:
    """The rest of a list; lines may end anywhere in it."""
    found: list[Value] = []
    while True:
        at = _past_lines(tokens, at)
        token = _peek(tokens, at)
        if token is not None and token.text == "]" and token.kind == "sign":
            return found, at + 1
        value, at = _value(tokens, at, depth)
        found.append(value)
        at = _past_lines(tokens, at)
        token = _peek(tokens, at)
        if token is None or token.text not in (",", "]"):
            raise _UnreadableError("a list that does not end with ]")
        at += token.text == ","


def _past_lines(tokens: list[Token], at: int) -> int:
    while at < len(tokens) and tokens[at].kind == "end" and tokens[at].text == "\n":
        at += 1
    return at


def _peek(tokens: list[Token], at: int) -> Token | None:
    return tokens[at] if at < len(tokens) else None


def _unescape(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        what = match[1]
        if what[0] == "x" and len(what) > 1:
            return chr(int(what[1:], 16))
        if what[0] in "01234567":
            return chr(int(what, 8) & 0xFF)
        return _ESCAPED.get(what, what)

    return _ESCAPE.sub(one, text)
