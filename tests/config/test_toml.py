"""Files that tomllib cannot take for other reasons than its grammar, and the lines of keys in those that it takes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from xengt_dm.config.files import read_file
from xengt_dm.config.toml import read_document
from xengt_dm.config.toml_text import key_lines
from xengt_dm.errors import ConfigError

#: What tomllib refuses with another error than its own, or takes long for, within the limit of a line and beyond it.
HOSTILE = {
    "an integer of many digits": "shadow.max_tables = {}\n".format("9" * 5000),
    "an array of long integers": "[log]\nlevel = [" + "\n".join("9" * 990 + "," for _ in range(60)) + "]\n",
    "a hexadecimal of many digits": "shadow.max_tables = 0x{}\n".format("f" * 900),
    "a float without end": "shadow.max_tables = 1e{}\n".format("9" * 900),
    "deep arrays": "x = " + "[" * 480 + "]" * 480 + "\n",
    "deeper arrays": "x = " + "[\n" * 15_000 + "]\n" * 15_000,
    "deep tables": "x = " + "{a=" * 200 + "1" + "}" * 200 + "\n",
    "deep arrays of tables": "x = " + "[{a=\n" * 5000 + "1" + "}]\n" * 5000,
    "deep keys": "a" + ".a" * 490 + " = 1\n",
    "deeper keys": "a" + ".a" * 30_000 + " = 1\n",
    "many deep keys": "".join(f"a{n}" + ".a" * 490 + " = 1\n" for n in range(64)),
    "a deep heading": "[a" + ".a" * 490 + "]\n",
    "many headings": "".join(f"[a{n}]\nb=1\n" for n in range(5000)),
    "many keys": "".join(f"k{n}=1\n" for n in range(8000)),
    "many keys in one table": "x = {" + ",".join(f"a{n}=1" for n in range(120)) + "}\n",
    "blanks after a bracket": '[log]\nlevel = """\n[' + " " * 990 + '\n"""\n',
    "many such lines": '[log]\nlevel = """\n' + ("[" + " " * 990 + "\n") * 60 + '"""\n',
    "blanks in a key": '"' + " " * 990 + '"=1\n' + "a = '''\n" + (" " * 999 + "\n") * 60 + "'''\n",
    "quotes": 'log.level = """\n' + ('"" ' * 330 + "\n") * 60 + '"""\n',
    "backslashes": 'log.level = """\n' + ("\\\\" * 490 + "\n") * 60 + '"""\n',
    "a string that does not end": 'log.level = """\n' + ('\\"' * 490 + "\n") * 60,
    "dots": "." * 990,
    "a NUL": 'log.level = "a\0b"\n',
    "a bare carriage return": '[log]\rlevel = "info"\r',
    "half a line": "[shadow]\nmode = \n",
    "a date": "[shadow]\nmode = 1979-05-27\n",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_documents_are_refused_in_time(tmp_path: Path, text: str) -> None:
    path = tmp_path / "f"
    path.write_text(text, newline="")
    began = time.process_time()
    with pytest.raises(ConfigError) as caught:
        read_file(path)
    assert time.process_time() - began < 3, "each takes well under 0.5 s on an idle machine"
    assert all(line.startswith(str(path)) and len(line) < 300 for line in str(caught.value).split("\n"))


def test_what_is_no_text_and_no_file(tmp_path: Path) -> None:
    path = tmp_path / "f"

    def complaint(path: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            read_file(path)
        return str(caught.value).replace(str(path), "F")

    path.write_bytes(b"#\n" * (1 << 15) + b"\n")
    assert complaint(path) == "F: more than 65536 bytes; is it the right file?"
    path.write_bytes(b"# one\n# " + b"x" * 999 + b"\n")
    assert complaint(path) == "F:2: a line of more than 1000 bytes; is it the right file?"
    path.unlink()
    os.mkfifo(path)
    assert complaint(path) == "F: cannot be read: not a regular file"
    path.unlink()
    path.symlink_to(path)
    assert complaint(path) == "F: cannot be read: Too many levels of symbolic links"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    assert complaint(path) == "F: a link to no file"
    assert complaint(Path("/dev/zero")) == "F: cannot be read: not a regular file"
    assert complaint(Path("a\0b")) == "a\\x00b: cannot be read: embedded null byte"


def test_complaints_end_somewhere(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("".join(f"k{n}=1\n" for n in range(1000)))
    with pytest.raises(ConfigError) as caught:
        read_file(path)
    said = str(caught.value).splitlines()
    assert (len(said), said[-1]) == (51, f"{path}: there may be more; is it the right file?")


def test_lines_of_keys() -> None:
    text = (
        "# a = 1\n"
        "a = 1\n"
        "b.c = [ # [no.heading]\n"
        "  [ 'x' ], { y = 2 },\n"
        "  '[n]',\n"
        "]\n"
        'd = """\n'
        "[no.heading]\n"
        "e = 5\n"
        '\\"""""" # """\n'
        "[ s . 't.u' ] # x = 1\n"
        "f = '''\n"
        "g = 1''''\n"
        '"h" . i = "j = 1" # k\n'
        "[[v]]\n"
        "w = 1\n"
        "[[v]]\n"
        "w = 2"
    )
    tomllib.loads(text)
    assert key_lines(text) == {"a": 2, "b": 3, "b.c": 3, "d": 7, "s": 11, "s.t.u": 11, "v": 15, "v.w": 16}


def test_lines_of_keys_in_inline_tables() -> None:
    text = (
        "# 1\n"
        "a = {}\n"
        'b = { c = [ { x = 1 }, 2 ], d = {e = 1}, f = """\n'
        "g = 1, }\n"
        '""", "h" . i = \'j, k = 1\' }\n'
        "[l]\n"
        "m = [\n"
        "  { n = 1, o = 2 },\n"
        "]\n"
        "p = 1\n"
        "q = { r = 1 }\n"
        '"\\u0073" = 1\n'
    )
    tomllib.loads(text)
    assert key_lines(text) == {
        "a": 2,
        "b": 3,
        "b.c": 3,
        "b.d": 3,
        "b.f": 3,
        "b.h": 5,
        "l": 6,
        "l.m": 7,
        "l.p": 10,
        "l.q": 11,
        "l.s": 12,
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("\n[[shadow]]\nmode = 'strict'\n", "F:2: shadow: is a section, [shadow]"),
        ("\n\nshadow = [ {} ]\n", "F:3: shadow: is a section, [shadow]"),
        ("\n[[shadow.mode]]\n", "F:2: shadow.mode: an array is no string"),
        ("[shadow]\n[shadow.mode]\n", "F:2: shadow.mode: a table is no string"),
        ("\nshadow.mode.x = 1\n", "F:2: shadow.mode: a table is no string"),
        ("\nshadow = { max_tables = 5, mode = 5 }\n", "F:2: shadow.mode: 5 is no string"),
        ("\nshadow = { max_tables = 5, moed = 5 }\n", "F:2: shadow.moed: there is no such key"),
        ('\nlog = { burst = 5, level = """\nx""", interval_ms = 0 }\n', "F:2: log.level: "),
        ('\nlog = { level = """\ninfo""", interval_ms = 0 }\n', "F:3: log.interval_ms: "),
        ("[other.thing]\nx = 1\n", "F:1: other.thing: there is no such key"),
        ("\nother = [1]\n", "F:2: other: there is no such key"),
        ("shadow = 5\n", "F:1: shadow: "),
        ("[shadow]\n\n'm\\ode' = 1\n", "F:3: shadow.m\\ode: "),
        ('[shadow]\n\n"mo\\u0064e" = 1\n', "F:3: shadow.mode: 1 is no string"),
        ('[log]\nburst = 1\n["shadow"]\nmode = 1\n', "F:4: shadow.mode: 1 is no string"),
    ],
)
def test_complaints_name_the_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "f"
    path.write_text(text)
    tomllib.loads(text)
    with pytest.raises(ConfigError) as caught:
        read_file(path)
    assert str(caught.value).replace(str(path), "F").startswith(complaint)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# a comment\n\n[log]\n  # another\n[shadow]\n",
        "[log]\n[log]\n",
        "[log] # comment\n",
        "[ log ]\n",
        "[[log]]\n",
        "[]\n",
        "[l\u00f6g]\n",
        "[log.level]\n",
        "[a]\n[a.b]\n",
        "# \u00e9 \u3042\n",
        "# \a\n",
        "# tab\t.\n",
        "# \x7f\n",
        "#\r\n",
        "#\r",
        "\t\n",
        "\f\n",
        "\ufeff# mark\n",
        "x\n",
        "\x85\n",
        "# \x85\n",
        "# \u2028x = 1\n",
    ],
)
def test_a_file_without_keys_is_read_as_tomllib_reads_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(text.encode())
    try:
        expected = tomllib.loads(text.replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError:
        with pytest.raises(ConfigError, match="not TOML"):
            read_document(path)
    else:
        read = read_document(path)
        assert read is not None
        assert read[0] == expected


def test_the_installed_file_is_read_without_tomllib() -> None:
    """Sources: etc/xengt-dm.toml and debian/xengt-dm.install. Every start of an instance reads it."""
    example = Path(__file__).parents[2] / "etc" / "xengt-dm.toml"
    read = "import sys, pathlib; from xengt_dm.config.files import read_file"
    code = f"{read}; print(read_file(pathlib.Path(sys.argv[1])), 'tomllib' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code, example], capture_output=True, text=True, check=True).stdout
    assert said == "[] False\n"


@pytest.mark.parametrize(
    "unit", ["[ ", "[", ' "', "a.", "a = '''\n'''\n", '"""', "= ", "#\n", "\n", "{", "'", "]", "\\"]
)
def test_lines_of_keys_are_found_in_linear_time(unit: str) -> None:
    """In any text, also such as no reader would take. A quadratic way takes minutes."""
    text = unit * ((1 << 20) // len(unit))
    began = time.process_time()
    with contextlib.suppress(MemoryError):
        key_lines(text)
    assert time.process_time() - began < 20
