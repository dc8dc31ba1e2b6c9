"""xl's files as we read them against Xen's own library, libxlutil, for files made up by seed."""

from __future__ import annotations

import random
from typing import Any, Final

import pytest

from tests.support import xl_library
from xengt_dm.errors import ConfigError
from xengt_dm.service.xl_parser import Atom, Value, as_number, parse_config

pytestmark = pytest.mark.skipif(not xl_library.LIBRARY.exists(), reason="no libxlutil (Debian: libxen-dev)")

NAMES: Final = ("name", "xengt", "vgt", "a", "b.c", "d_1")
FILES_A_SEED: Final = 2500

SPACES: Final = ("", "", " ", "\t", "  ", " \t ")
ENDS: Final = ("\n", "\n", "\n", ";", "; ", " # said\n", "#\n", "\n\n", "")
NUMBERS: Final = ("0", "1", "04", "0100", "08", "0x40", "0xff", "0x", "0b1", "12a", "1x", "9223372036854775807",
                  "9223372036854775808", "99999999999999999999999", "00", "0f", "1e3")  # fmt: skip
TEXTS: Final = ("", "win", "0", "-1", "+7", " 7", "7 ", "0x40", "0X4f", "-0x8000000000000000", "-9223372036854775809",
                "shadow.mode=relaxed", "# no comment", "; no end", "[", "é", "\t5", "\v\f 6", "- 1", "--1", "09", "0b1",
                "1_0", "\\n", "\\\\", "\\'", '\\"', "\\a\\b\\f\\r\\t\\v", "\\101", "\\0", "\\12", "\\1 2", "\\1+2",
                "\\777z", "\\018", "\\x41", "\\e", "\\ ", "\\19 ")  # fmt: skip
PIECES: Final = (*NAMES, *NUMBERS[:6], "=", "+=", "+", "[", "]", ",", ";", "\n", "#", "'", '"', " ", "\\", "$", "\r",
                 "-", ".", "(", "A", "\xa0", "é", "'x'", '"y"', "\x00", "\x0c")  # fmt: skip


def make_file(rng: random.Random) -> bytes:
    """Mostly a good file; of the others, half have something wrong in one place, half are pieces in any order."""
    if rng.random() < 0.15:
        return "".join(rng.choices(PIECES, k=rng.randrange(1, 14))).encode()
    text = "".join(_statement(rng) for _ in range(rng.randrange(1, 6)))
    data = text.encode("utf-8")
    if rng.random() < 0.15:
        at = rng.randrange(len(data) + 1)
        wrong = rng.choice((*PIECES, "")).encode() if rng.random() < 0.8 else bytes([rng.randrange(256)])
        data = data[:at] + wrong + data[at + rng.randrange(3) :]
    return data


def _statement(rng: random.Random) -> str:
    if rng.random() < 0.1:
        return rng.choice(("\n", ";", "# only a comment\n", " \t\n", "#\x00'\n"))
    sign = rng.choice(("=", "=", "+="))
    before, between = rng.choice(SPACES), rng.choice(SPACES)
    return f"{before}{rng.choice(NAMES)}{between}{sign}{rng.choice(SPACES)}{_value(rng, 0)}{rng.choice(ENDS)}"


def _value(rng: random.Random, depth: int) -> str:
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(NUMBERS)
    if kind < 0.75 or depth > 3:
        quote = rng.choice("'\"")
        text = "".join(rng.choices(TEXTS, k=rng.choice((1, 1, 1, 2, 3))))
        return f"{quote}{text.replace(quote, '') if rng.random() < 0.95 else text}{quote}"
    items = [_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    gap = [rng.choice(("", "", " ", "\n", " # first\n", "\n\n")) for _ in range(2 * len(items) + 2)]
    body = ",".join(f"{gap[2 * i]}{item}{gap[2 * i + 1]}" for i, item in enumerate(items))
    last = "," if items and rng.random() < 0.2 else ""
    return f"[{body}{last}{gap[-1]}]"


def ours(data: bytes) -> xl_library.Read | None:
    try:
        settings = parse_config(data, "x.cfg")
    except ConfigError:
        return None
    return {name: (_plain(each.value), as_number(each)) for name, each in settings.items() if name in NAMES}


def _plain(value: Value) -> Any:
    if isinstance(value, Atom):
        return value.text.encode("utf-8", "surrogateescape").decode("latin-1")
    return [_plain(item) for item in value.items]


@pytest.mark.parametrize("seed", range(8))
def test_as_the_library(seed: int) -> None:
    rng = random.Random(seed)
    files = [make_file(rng) for _ in range(FILES_A_SEED)]
    good = 0
    for data, theirs in zip(files, xl_library.read_all(files, NAMES), strict=True):
        expected = None if theirs is None else {name: tuple(each) for name, each in theirs.items()}
        assert ours(data) == expected, f"seed {seed}: {data!r}"
        good += theirs is not None
    assert FILES_A_SEED * 0.2 < good < FILES_A_SEED * 0.9, "the generator should make good files and bad ones"


@pytest.mark.parametrize(("opening", "limit"), [(b"[", 4996), (b"[1,", 1999), (b"[1,\n", 1998)])
def test_lists_are_nested_as_deep_as_in_the_library(opening: bytes, limit: int) -> None:
    good, bad = (b"z=" + opening * depth + b"]" * depth for depth in (limit, limit + 1))
    assert [each is not None for each in xl_library.read_all([good, bad], ("a",))] == [True, False]
    assert [*parse_config(good, "x.cfg")] == ["z"]
    with pytest.raises(ConfigError, match="nested too deeply"):
        parse_config(bad, "x.cfg")
