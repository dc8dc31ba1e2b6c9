"""Configuration files: what is read, and what is said of what is wrong."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from xengt_dm.cli import main
from xengt_dm.config.files import Assignment, assign, read_file, read_setting
from xengt_dm.config.keys import KEYS, Key, Kind, show
from xengt_dm.config.merge import Config, domain_file, domain_files, load
from xengt_dm.errors import ConfigError, ExitCode


def write(tmp_path: Path, text: str, name: str = "xengt-dm.toml") -> Path:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def read(path: Path, **how: bool) -> dict[str, tuple[object, str]]:
    found = read_file(path, **how)
    assert found is not None
    return {each.key.name: (each.value, each.origin) for each in found}


def complaint(path: Path, **how: bool) -> str:
    with pytest.raises(ConfigError) as caught:
        read_file(path, **how)
    assert caught.value.exit_code is ExitCode.CONFIG
    return str(caught.value).replace(str(path), "F")


def test_values_come_with_file_and_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'shadow.max_tables = 7 # dotted\n\n[log]\n"level"="debug"\n[ device ]\n# bar0_gpa = 0\nbar0_gpa=0xe000_0000\n',
    )
    assert read(path) == {
        "shadow.max_tables": (7, f"{path}:1"),
        "log.level": ("debug", f"{path}:4"),
        "device.bar0_gpa": (0xE0000000, f"{path}:7"),
    }


def test_no_file_is_nothing(tmp_path: Path) -> None:
    assert read_file(tmp_path / "none") is None


def test_historical_names_are_aliases_in_their_section_too(tmp_path: Path) -> None:
    path = write(tmp_path, "[device]\nvgt_fence_sz = 4\n")
    assert read(path) == {"device.fences": (4, f"{path}:2")}
    assert "there is no such key" in complaint(write(tmp_path, "[shadow]\nvgt_fence_sz = 4\n"))


def test_historical_names_are_aliases(tmp_path: Path) -> None:
    path = write(tmp_path, "vgt_low_gm_sz = 64\nvgt_high_gm_sz = 448\nvgt_fence_sz = 4\n")
    assert {name: value for name, (value, _) in read(path).items()} == {
        "device.low_gm_mib": 64,
        "device.high_gm_mib": 448,
        "device.fences": 4,
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[shadow]\nmax_tabels = 5", "F:2: shadow.max_tabels: there is no such key; did you mean shadow.max_tables?"),
        ("max_tables = 5", "F:1: max_tables: there is no such key; did you mean shadow.max_tables?"),
        (
            "[what]\nis.this = 5",
            "F:2: what.is: there is no such key; `xengt-dm config show` lists those that there are",
        ),
        ("[shadow]\nmode = 'lax'", 'F:2: shadow.mode: "lax" is not allowed; it must be "strict" or "relaxed"'),
        ("[shadow]\nmax_tables = 0", "F:2: shadow.max_tables: 0 is not allowed; it must be 1 to 16777216"),
        ("[shadow]\nmax_tables = 1.5", "F:2: shadow.max_tables: 1.5 is no integer; it must be 1 to 16777216"),
        ("[shadow]\nmax_tables = true", "F:2: shadow.max_tables: true is no integer; it must be 1 to 16777216"),
        ("[shadow]\nmode = 1", 'F:2: shadow.mode: 1 is no string; it must be "strict" or "relaxed"'),
        ("[device]\ngeneration = '8'", 'F:2: device.generation: "8" is no integer; it must be 8 or 9'),
        (
            "[device]\nbar0_gpa = 0xf0000001",
            f"F:2: device.bar0_gpa: 0xf0000001 is not allowed; it must be {KEYS['device.bar0_gpa'].range}",
        ),
        ("device = 3", "F:1: device: there is no such key; did you mean device.kind?"),
        ("[shadow.mode]\nx = 1", 'F:1: shadow.mode: a table is no string; it must be "strict" or "relaxed"'),
        (
            "[[shadow]]\nmode = 'strict'",
            "F:1: shadow: is a section, [shadow]; it can be neither an array nor [[shadow]]",
        ),
        ("shadow.mode = [1]", 'F:1: shadow.mode: an array is no string; it must be "strict" or "relaxed"'),
        ("[shadow]\nmode = 1979-05-27", 'F:2: shadow.mode: 1979-05-27 is no string; it must be "strict" or "relaxed"'),
        ("[shadow]\nmax_tables = inf", "F:2: shadow.max_tables: inf is no integer; it must be 1 to 16777216"),
        (
            f"[shadow]\nmax_tables = {'0x' + 'f' * 900}",
            "F:2: shadow.max_tables: an integer of 3600 bits is not allowed; it must be 1 to 16777216",
        ),
        (
            '[shadow]\nmode = "a\\u001b[2Jb"',
            'F:2: shadow.mode: "a\\U0000001b[2Jb" is not allowed; it must be "strict" or "relaxed"',
        ),
        (
            '"a\\nF:9: b" = 1',
            "F:1: a\\nF:9: b: there is no such key; `xengt-dm config show` lists those that there are",
        ),
        (
            "vgt_fence_sz = 4\n[device]\nfences = 8",
            "F:3: device.fences: has a value already, from F:1; keep one",
        ),
        ("a = [", "F:1: not TOML: Invalid value (at end of document)"),
        ("a = 1\nb = [\n\n", "F:2: not TOML: Invalid value (at end of document)"),
        (
            "[log]\nlevel = 'x'\n[log]\n",
            "F:3: not TOML: Cannot declare ('log',) twice (at line 3, column 5); the key or section is there twice",
        ),
        (
            "[shadow]\nmode = 'strict'\nmode = 'strict'\n",
            "F:3: not TOML: Cannot overwrite a value (at line 3, column 16); the key or section is there twice",
        ),
        ("[shadow]\nmode = \n", "F:2: not TOML: Invalid value (at line 2, column 8)"),
        ("\ufeff[log]\n", "F:1: not TOML: Invalid statement (at line 1, column 1); it begins with a byte order mark"),
    ],
)
def test_what_is_wrong_is_told_with_its_place_and_a_remedy(tmp_path: Path, text: str, said: str) -> None:
    assert complaint(write(tmp_path, text)) == said


def test_all_complaints_come_at_once(tmp_path: Path) -> None:
    said = complaint(write(tmp_path, "[shadow]\nmode = 1\nmax_tables = 0\nnone = 1\n")).splitlines()
    assert [line.split(": ")[0] for line in said] == ["F:2", "F:3", "F:4"]


def test_files_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"# one\n# \xff\n")
    assert complaint(path) == "F:2: not UTF-8, which TOML is"
    path.write_bytes(b"#" * (1 << 16) + b"\n")
    assert "more than 65536 bytes" in complaint(path)
    path.unlink()
    path.mkdir()
    assert complaint(path) == "F: cannot be read: Is a directory"


def test_what_holds_for_the_host_is_not_for_a_domain(tmp_path: Path) -> None:
    key = Key(name="host.port", kind=Kind.INTEGER, default=1, high=9, host_only=True, doc="A port.")
    path = write(tmp_path, "[host]\nport = 3\n")
    assert read_file(path, keys={key.name: key}) == [Assignment(key, 3, f"{path}:2")]
    with pytest.raises(ConfigError, match="port: holds for the whole host; set it in the host's file"):
        read_file(path, of_domain=True, keys={key.name: key})


@pytest.mark.parametrize("key", KEYS.values(), ids=list(KEYS))
def test_every_default_is_good_in_a_file_and_as_an_option(key: Key, tmp_path: Path) -> None:
    path = write(tmp_path, f"{key.name} = {show(key, key.default)}\n")
    assert read(path) == {key.name: (key.default, f"{path}:1")}
    assert read_setting(f"{key.name}={show(key, key.default)}").value == key.default
    for name in key.aliases:
        assert assign(name, show(key, key.default), "old.cfg:3").key is key


def test_options_are_read_as_people_write_them() -> None:
    assert read_setting("device.bar0_gpa=0xe0000000") == Assignment(KEYS["device.bar0_gpa"], 0xE0000000, "--set")
    assert read_setting(" shadow.mode = relaxed ").value == "relaxed"
    assert read_setting("vgt_fence_sz=4").key.name == "device.fences"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("shadow.mode", "--set shadow.mode: no value; give it like --set shadow.mode=relaxed"),
        ("shadow.mode=lax", '--set: shadow.mode: "lax" is not allowed; it must be "strict" or "relaxed"'),
        ("shadow.max_tables=many", '--set: shadow.max_tables: "many" is no integer; it must be 1 to 16777216'),
        ("=1", "--set: : there is no such key; `xengt-dm config show` lists those that there are"),
        (
            f"shadow.max_tables={'9' * 5000}",
            f'--set: shadow.max_tables: "{"9" * 56}... is no integer; it must be 1 to 16777216',
        ),
        (
            f"shadow.max_tables=0x{'f' * 5000}",
            "--set: shadow.max_tables: an integer of 20000 bits is not allowed; it must be 1 to 16777216",
        ),
        (
            "shadow.max_tables=\N{FULLWIDTH DIGIT FIVE}",
            '--set: shadow.max_tables: "\N{FULLWIDTH DIGIT FIVE}" is no integer; it must be 1 to 16777216',
        ),
        (
            "shadow.mode=\x1b[2J",
            '--set: shadow.mode: "\\U0000001b[2J" is not allowed; it must be "strict" or "relaxed"',
        ),
        (
            f"{'x' * 200_000}=1",
            f"--set: {'x' * 57}...: there is no such key; `xengt-dm config show` lists those that there are",
        ),
    ],
)
def test_options_that_are_wrong(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_setting(text)
    assert str(caught.value) == said


def test_the_later_wins(tmp_path: Path) -> None:
    write(tmp_path, "[shadow]\nmode = 'relaxed'\nmax_tables = 10\n[log]\nlevel = 'debug'\n")
    write(tmp_path, "shadow.max_tables = 20\nlog.level = 'error'\n", "domains/win10.toml")
    config = load(tmp_path, "win10", [read_setting("log.level=warning")])
    assert [config.string("shadow.mode"), config.integer("shadow.max_tables"), config.string("log.level")] == [
        "relaxed",
        20,
        "warning",
    ]
    assert {name: each.origin for name, each in config.settings.items() if each.origin != "default"} == {
        "shadow.mode": f"{tmp_path}/xengt-dm.toml:2",
        "shadow.max_tables": f"{tmp_path}/domains/win10.toml:1",
        "log.level": "--set",
    }
    assert load(tmp_path, "other").integer("shadow.max_tables") == 10
    assert load(tmp_path / "none").integer("shadow.max_tables") == 65536


def test_values_that_do_not_go_together(tmp_path: Path) -> None:
    path = write(tmp_path, "vgt_low_gm_sz = 65\n")
    assert load(tmp_path, None, [read_setting("vgt_high_gm_sz=3968")]).integer("device.high_gm_mib") == 3968
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, None, [read_setting("vgt_high_gm_sz=3969")])
    assert str(caught.value) == (
        f"--set: device.high_gm_mib: 3969 is too much; with device.low_gm_mib 65 ({path}:1) it may be 3968 at most"
    )


@pytest.mark.parametrize(
    ("low", "high", "good"), [(16, 1008, True), (16, 1009, False), (512, 512, True), (513, 0, False), (0, 1008, True)]
)
def test_graphics_memory_of_a_skylake(tmp_path: Path, low: int, high: int, good: bool) -> None:
    """1 GiB in all, for which there are entries; the part that can be mapped takes a power of two of it."""
    words = [f"device.low_gm_mib={low}", f"device.high_gm_mib={high}", "device.kind=skylake"]
    assignments = [read_setting(each) for each in words]
    assert load(tmp_path, None, assignments[:2]).string("device.kind") == "ppgtt"
    if good:
        assert load(tmp_path, None, assignments).integer("device.high_gm_mib") == high
    else:
        with pytest.raises(ConfigError, match="is too much"):
            load(tmp_path, None, assignments)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "/etc/passwd", ".hidden", "a\0b", "x" * 251, "x" * 4000, "é" * 126, "\ud800", "--incoming"],
)
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    assert domain_file(tmp_path, name) is None
    assert load(tmp_path, name).settings == Config([]).settings


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("win", "win.toml"),
        ("win--incoming", "win.toml"),
        ("win--incoming--incoming", "win--incoming.toml"),
        ("win--migratedaway", "win--migratedaway.toml"),
        ("x" * 250, "x" * 250 + ".toml"),
        ("a\nb", "a\nb.toml"),
        ("\udcff", "\udcff.toml"),
        ("-h", "-h.toml"),
        ("%n", "%n.toml"),
    ],
)
def test_names_and_their_files(tmp_path: Path, name: str, file: str) -> None:
    write(tmp_path, "log.level = 'debug'", f"domains/{file}")
    assert domain_file(tmp_path, name) == tmp_path / "domains" / file
    assert load(tmp_path, name).string("log.level") == "debug"


def test_the_files_of_domains_are_listed(tmp_path: Path) -> None:
    assert domain_files(tmp_path) == []
    for name in ("b.toml", "a.toml", ".x.toml", "notes.txt"):
        write(tmp_path, "", f"domains/{name}")
    assert [path.name for path in domain_files(tmp_path)] == ["a.toml", "b.toml"]


def test_a_place_for_files_that_is_no_directory(tmp_path: Path) -> None:
    """It is no place without files."""
    folder = tmp_path / "domains"
    folder.write_text("a file")
    with pytest.raises(ConfigError, match="domains: cannot be read: Not a directory"):
        domain_files(tmp_path)
    folder.unlink()
    folder.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="domains: a link to no directory"):
        domain_files(tmp_path)
    folder.unlink()
    folder.symlink_to(folder)
    with pytest.raises(ConfigError, match="domains: cannot be read: Too many levels"):
        domain_files(tmp_path)
    assert CliRunner().invoke(main, ["config", "check", "--config-dir", str(tmp_path)]).exit_code == ExitCode.CONFIG


def test_changes_and_replacements() -> None:
    old = Config([read_setting("log.burst=5")])
    new = Config([read_setting("log.burst=6"), read_setting("log.level=info")])
    assert [(a.value, b.value) for a, b in old.changes(new)] == [(5, 6)]
    assert old.replaced([new.settings["log.burst"]]).integer("log.burst") == 6
    assert old.integer("log.burst") == 5


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("any") / "f"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with contextlib.suppress(ConfigError):
        read_file(path)
