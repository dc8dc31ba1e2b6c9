"""What xl's domain configurations say to us, in every spelling that xl takes, and what is said of wrong ones."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xengt_dm.config.merge import Config
from xengt_dm.errors import ConfigError
from xengt_dm.service.xlconfig import Statement, parse, read, statements

SAMPLES = sorted((Path(__file__).resolve().parents[2] / "etc" / "xl").glob("*.cfg"))


def options(text: str) -> dict[str, object]:
    return {each.key.name: each.value for each in parse(f'name = "x"\n{text}', "x.cfg").options}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a = 1", 1),
        ("a=0x10", 16),
        ("a = 'it'", "it"),
        ('a = "it"', "it"),
        (r'a = "a\"b\\c\x41\101\n"', 'a"b\\cAA\n'),
        ('a = "# no comment; no end"', "# no comment; no end"),
        ("a = [ ]", []),
        ("a = [ 1, 'two', [ 3 ] ]", [1, "two", [3]]),
        ("a = [\n 'one', # first\n\n 'two',\n ]", ["one", "two"]),
        ("\ta =\t1   # said", 1),
        ("a = 1\r\n", 1),
    ],
)
def test_values(text: str, value: object) -> None:
    assert [*statements(text)] == [Statement("a", value, 1, False)]  # type: ignore[arg-type]


def test_several_statements() -> None:
    text = "# a guest\nname='x'; b=2\n\nc += [ 3,\n 4 ]\nd = 5"
    assert [(each.name, each.line, each.adds) for each in statements(text)] == [
        ("name", 2, False),
        ("b", 2, False),
        ("c", 4, True),
        ("d", 6, False),
    ]


def test_what_is_not_ours_may_be_wrong() -> None:
    text = 'name = "x"\nbad = = 1\n$%&\nlist = [ 1 2 ]\nvalue\ncpus = "0-1\nxengt = [ "shadow.mode=relaxed" ]\n'
    domain = parse(text, "x.cfg")
    assert (domain.name, len(domain.options)) == ("x", 1)


def test_options() -> None:
    assert options('xengt = [ "shadow.mode = relaxed", "device.generation=9" ]') == {
        "shadow.mode": "relaxed",
        "device.generation": 9,
    }
    assert options('xengt = "shadow.mode=relaxed"') == {"shadow.mode": "relaxed"}
    assert options('xengt = [ "shadow.mode=relaxed" ]\nxengt = [ "device.fences=4" ]') == {"device.fences": 4}
    assert options('xengt = [ "shadow.mode=relaxed" ]\nxengt += [ "device.fences=4" ]') == {
        "shadow.mode": "relaxed",
        "device.fences": 4,
    }


def test_historic_keys() -> None:
    text = "vgt = 1\nvgt_low_gm_sz = 64\nvgt_high_gm_sz = 448\nvgt_fence_sz = 4\nvgt_primary = 1\n"
    assert options(text) == {"device.low_gm_mib": 64, "device.high_gm_mib": 448, "device.fences": 4}


@pytest.mark.parametrize(("text", "wanted"), [("", True), ("xengt = 1", True), ("xengt = 0", False), ("vgt=0", False)])
def test_whether_a_gpu_is_wanted(text: str, wanted: bool) -> None:
    assert parse(f"name = 'x'\n{text}", "x.cfg").wanted is wanted


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("memory = 1", "x.cfg: no name"),
        ('name = "x"\nxengt = [ "shadow.mode" ]', "x.cfg:2: xengt: 'shadow.mode' is no \"KEY=VALUE\""),
        ('name = "x"\nxengt = [ 5 ]', 'x.cfg:2: xengt: 5 is no "KEY=VALUE"'),
        ('name = "x"\nxengt = [ "shadow.mood=relaxed" ]', "x.cfg:2: shadow.mood"),
        ('name = "x"\nxengt = [ "shadow.mode=loose" ]', "x.cfg:2: shadow.mode"),
        ('name = "x"\nxengt = [ "shadow.mode=relaxed"\n', "x.cfg:2: xengt: a list that does not end"),
        ('name = "x"\nxengt = relaxed', "x.cfg:2: xengt: 'relaxed' is no value"),
        ('name = "x"\nxengt =', "x.cfg:2: xengt: no value"),
        ('name = "x"\n\nvgt_fence_sz = "four"', "x.cfg:3: vgt_fence_sz: not a number"),
        ('name = "x"\nvgt_fence_sz = 4x', "x.cfg:2: vgt_fence_sz: 4x is no number"),
        ('name = "x"\nvgt_fence_sz = 1000', "x.cfg:2: device.fences"),
    ],
)
def test_complaints_name_the_place(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "x.cfg")
    assert complaint in str(caught.value)


def test_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read(tmp_path / "none.cfg")
    (tmp_path / "large.cfg").write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ConfigError, match="is it the right file"):
        read(tmp_path / "large.cfg")


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_samples(sample: Path) -> None:
    domain = read(sample)
    assert domain.name == sample.stem
    assert domain.wanted
    Config(domain.options)


@given(st.text(alphabet="xengtvname_ =+[]\"'\\,;\n#01", max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        parse(text, "x.cfg")


def test_nesting_is_bounded() -> None:
    assert [*statements(f"a = {'[' * 5000}{']' * 5000}\nb = 1")] == [Statement("b", 1, 2, False)]
