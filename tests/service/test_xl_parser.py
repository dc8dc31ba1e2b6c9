"""The values that the parser finds in xl's domain configurations, in every spelling that xl accepts.

test_xl_library.py compares the parser with Xen's own library.
"""

from __future__ import annotations

import pytest

from xengt_dm.service.xl_parser import Atom, Value, as_number, parse_config


def plain(value: Value) -> object:
    return value.text if isinstance(value, Atom) else [plain(each) for each in value.items]


@pytest.mark.parametrize(
    ("text", "value", "number"),
    [
        ("a = 1", "1", 1),
        ("a=0x10", "0x10", 16),
        ("a = 010", "010", 8),
        ("a = '-0x10'", "-0x10", -16),
        ("a = ' 7'", " 7", 7),
        ("a = '7 '", "7 ", None),
        ("a = 09", "09", None),
        ("a = 9223372036854775807", "9223372036854775807", (1 << 63) - 1),
        ("a = 9223372036854775808", "9223372036854775808", None),
        (f"a = {'9' * 5000}", "9" * 5000, None),
        (f"a = {'0' * 5000}", "0" * 5000, 0),
        ("a += 1", "1", None),
        ("a = 1; a += 2", "12", None),
        ("a = 1; a = 2", "2", 2),
        ("a = 'it'", "it", None),
        ('a = "it"', "it", None),
        (r'a = "a\"b\\c\t\n"', 'a"b\\c\t\n', None),
        (r'a = "x\101y"', "xy", None),
        ('a = "# no comment; no end"', "# no comment; no end", None),
        ("a = [ ]", [], None),
        ("a = [ 1, 'two', [ 3 ] ]", ["1", "two", ["3"]], None),
        ("a = [\n 'one', # first\n\n 'two',\n ]", ["one", "two"], None),
        ("a = [ 1 ]\na += [ 2 ]", ["1", "2"], None),
        ("\ta =\t1   # said\n", "1", 1),
        ("a = 1$", "1", 1),
    ],
)
def test_values(text: str, value: object, number: int | None) -> None:
    setting = parse_config(text.encode(), "x.cfg")["a"]
    assert (plain(setting.value), as_number(setting)) == (value, number)


def test_several_statements() -> None:
    text = b"# a guest\nname='x'; b=2\n\nc += [ 3,\n 4 ]\nd = 5"
    settings = parse_config(text, "x.cfg").values()
    assert [(each.name, each.value.line, each.added) for each in settings] == [
        ("name", 2, False),
        ("b", 2, False),
        ("c", 4, True),
        ("d", 6, False),
    ]
