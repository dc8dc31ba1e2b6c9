"""What xl's domain configurations say that concerns us, and what is said about wrong ones."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xengt_dm.config.merge import Config
from xengt_dm.errors import ConfigError
from xengt_dm.service.xl_config import interpret, read

SAMPLES = sorted((Path(__file__).resolve().parents[2] / "etc" / "xl").glob("*.cfg"))


def options(text: str) -> dict[str, object]:
    return {each.key.name: each.value for each in interpret(f'name = "x"\n{text}', "x.cfg").options}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("bad = = 1", "bad: '=' is no value"),
        ("$%&", "'$' is not allowed here"),
        ("list = [ 1 2 ]", "list: '2' in a list, where a comma or ] was expected"),
        ("value", "value: the end of the line where = or += was expected"),
        ('cpus = "0-1', "cpus: a string that does not end on its line"),
        ("a = 1\r", "a: a carriage return; lines must end with a newline alone"),
        (r"a = '\x41'", r"a: \x in a string, which xl does not know"),
        ("Name = 1", "'N': names are in small letters"),
        ("a = 1; a += [ 1 ]", "a: a list and a single value cannot be added"),
        ("a = [ , ]", "a: ',' in a list, where a value or ] was expected"),
        ("a = 1 b = 2", "a: 'b' after the value"),
        ("= 1", "'=' where a name was expected"),
    ],
)
def test_what_xl_refuses_is_refused_with_its_place(line: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        interpret(f'name = "x"\n{line}\nxengt = [ "shadow.mode=relaxed" ]\n', "x.cfg")
    assert f"x.cfg:2: {complaint}" in str(caught.value)
    assert "xl cannot read this" in str(caught.value)


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
    text = "vgt_low_gm_sz = 0100\nvgt_high_gm_sz = '0x1c0'\nvgt_fence_sz = 2\nvgt_fence_sz = 04\n"
    assert options(text) == {"device.low_gm_mib": 64, "device.high_gm_mib": 448, "device.fences": 4}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('name = "win"\nname += "10"', "win10"),
        ("name = 2024", "2024"),
        ("name = 'a'\nname = 'b'", "b"),
        ("name = 007", "007"),
        ("name = '\\101x'", "x"),
    ],
)
def test_names(text: str, name: str) -> None:
    assert interpret(text, "x.cfg").name == name


def test_a_name_that_is_not_utf8_is_kept() -> None:
    assert os.fsencode(interpret(b"name = '\xff\xe9'", "x.cfg").name) == b"\xff\xe9"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", True),
        ("xengt = 1", True),
        ("xengt = 0", False),
        ("vgt=0", False),
        ('vgt = "0"', False),
        ("vgt = 0x0", False),
        ('xengt = "00"', False),
        ("vgt = 1; vgt = 0", False),
        ("vgt = 0; vgt = 1", True),
        ('xengt = 0; xengt = [ "shadow.mode=relaxed" ]', True),
    ],
)
def test_whether_a_gpu_is_wanted(text: str, wanted: bool) -> None:
    assert interpret(f"name = 'x'\n{text}", "x.cfg").wanted is wanted


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("memory = 1", "x.cfg: no name"),
        ('name = "x"\nname = [ "x" ]', "x.cfg: no name"),
        ('name = ""', "x.cfg: no name"),
        ('name = "x"\nxengt = [ "shadow.mode" ]', "x.cfg:2: xengt: 'shadow.mode' is no \"KEY=VALUE\""),
        ('name = "x"\nxengt = [ 5 ]', "x.cfg:2: xengt: '5' is no \"KEY=VALUE\""),
        ('name = "x"\nxengt = [\n[ "a=b" ] ]', 'x.cfg:3: xengt: a list is no "KEY=VALUE"'),
        ('name = "x"\nxengt = [ "shadow.mood=relaxed" ]', "x.cfg:2: shadow.mood"),
        ('name = "x"\nxengt = [ "shadow.mode=loose" ]', "x.cfg:2: shadow.mode"),
        ('name = "x"\nxengt = [ "shadow.mode=relaxed"\n', "x.cfg:2: xengt: a list that does not end"),
        ('name = "x"\nxengt = relaxed', "x.cfg:2: xengt: 'relaxed' is no value"),
        ('name = "x"\nxengt =', "x.cfg:2: xengt: the end of the file is no value"),
        ('name = "x"\n\nvgt_fence_sz = "four"', "x.cfg:3: vgt_fence_sz: 'four' is not a number"),
        ('name = "x"\nvgt_fence_sz = 4x', "x.cfg:2: vgt_fence_sz: '4x' is not a number"),
        ('name = "x"\nvgt_fence_sz = 09', "x.cfg:2: vgt_fence_sz: '09' is not a number"),
        ('name = "x"\nvgt_fence_sz = 4\nvgt_fence_sz += 4', "x.cfg:3: vgt_fence_sz: += makes no number"),
        ('name = "x"\nvgt = "yes"', "x.cfg:2: vgt: 'yes' is not a number"),
        ('name = "x"\nvgt = [ 1 ]', "x.cfg:2: vgt: a list is not a number"),
        ('name = "x"\nvgt_fence_sz = 1000', "x.cfg:2: device.fences"),
    ],
)
def test_complaints_name_the_place(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        interpret(text, "x.cfg")
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
        interpret(text, "x.cfg")
