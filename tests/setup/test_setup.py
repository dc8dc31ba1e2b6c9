"""What the programs that run the tests make of names, of changes, and of programs that hang."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

# They are programs beside each other, started before there is anything to install.
sys.path.insert(0, str(Path(__file__).resolve().parent))

import command
import main
import outcomes
import projects
import reach
import rooms
import selection
from parts import IF_NAMED, ONLY_ON, PYTEST_PARTS, SCENARIOS, XENS, Part

FILES = {
    "xengt_dm/units.py": "",
    "xengt_dm/ppgtt/__init__.py": "",
    "xengt_dm/ppgtt/leaves.py": "lib.xd_leaf_update()",
    "xengt_dm/ppgtt/engine.py": "from . import leaves",
    "xengt_dm/sim/demo.py": "import xengt_dm.ppgtt.engine as engine  # a comment",
    "cffi_build/core/ppgtt/leaf.c": '#include "leaf.h"',
    "cffi_build/core/ppgtt/leaf.h": '#include "bits.h"\nint xd_leaf_update(void);',
    "cffi_build/core/ppgtt/bits.h": "",
    "cffi_build/build_core.py": "",
    "docs/metrics.md": "",
    "tests/__init__.py": "",
    "tests/support/__init__.py": "",
    "tests/support/guest.py": "from xengt_dm.ppgtt.engine import Engine",
    "tests/support/more.py": "from tests.support import (\n    guest as it,\n    guest,\n)",
    "tests/ppgtt/test_leaf.py": "from tests.support import more",
    "tests/core/test_guard.py": "",
    "tests/embedded/test_life.py": "import xengt_dm.units",
    "tests/xen/test_port.py": "from xengt_dm import units",
    "tests/trace/test_replay.py": "import xengt_dm.sim.demo",
    "tests/daemon/test_main.py": "from tests.support.more import anything",
    "tests/stats/test_table.py": "TABLE = ROOT / 'docs' / 'metrics.md'",
    "tests/lint/test_text.py": "",
    "tests/lint/test_compilers.py": "",
    "tests/setup/test_setup.py": "",
    "tests/lab/run": "",
    "tests/fakexen/control.h": "",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout in which it is plain who uses what."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "whole", "single"),
    [
        ("xengt_dm/ppgtt/engine.py", ["ppgtt"], ["tests/daemon/test_main.py", "tests/trace/test_replay.py"]),
        ("xengt_dm/ppgtt/__init__.py", ["ppgtt"], ["tests/daemon/test_main.py", "tests/trace/test_replay.py"]),
        ("xengt_dm/units.py", [], ["tests/embedded/test_life.py", "tests/xen/test_port.py"]),
        ("xengt_dm/sim/demo.py", [], ["tests/trace/test_replay.py"]),
        ("xengt_dm/hypervisor/port.py", ["embedded", "xen"], []),
        ("xengt_dm/hypervisor/xen/port.py", ["xen"], []),
        ("cffi_build/core/ppgtt/leaf.c", ["ppgtt"], ["tests/daemon/test_main.py", "tests/trace/test_replay.py"]),
        ("cffi_build/core/ppgtt/bits.h", ["ppgtt"], []),
        ("cffi_build/build_core.py", ["core", "embedded", "xen"], []),
        ("tests/ppgtt/test_leaf.py", ["ppgtt"], []),
        ("tests/support/guest.py", [], ["tests/daemon/test_main.py", "tests/ppgtt/test_leaf.py"]),
        ("tests/fakexen/control.h", ["xen"], []),
        ("tests/setup/quick.py", ["setup"], []),
        ("tests/run", ["setup"], []),
        ("docs/metrics.md", [], ["tests/stats/test_table.py"]),
        ("tests/lint/test_text.py", [], []),
        ("tests/lab/run", [], []),
        ("tests/gone/test_gone.py", [], []),
        ("LICENSE", [], []),
    ],
)
def test_what_a_change_touches(tree: Path, changed: str, whole: list[str], single: list[str]) -> None:
    found = selection.touched([changed], {}, root=tree)
    assert ([*found.rooms], [*found.files]) == (whole, single)
    assert "tests/lint/test_text.py" in found.lint


def test_what_changes_touch_together(tree: Path) -> None:
    found = selection.touched(["cffi_build/core/ppgtt/gone.c", "docs/metrics.md", "xengt_dm/units.py"], {}, root=tree)
    assert found.rooms == ("ppgtt",)
    assert found.files == ("tests/embedded/test_life.py", "tests/stats/test_table.py", "tests/xen/test_port.py")


@pytest.mark.parametrize(
    ("changed", "compiled"),
    [
        ("cffi_build/core/ppgtt/leaf.c", ["core/ppgtt/leaf.c-gcc", "core/ppgtt/leaf.c-clang"]),
        (
            "cffi_build/core/ppgtt/bits.h",
            [
                *("core/ppgtt/bits.h-gcc", "core/ppgtt/bits.h-clang"),
                *("core/ppgtt/leaf.c-clang", "core/ppgtt/leaf.h-clang"),
            ],
        ),
        ("cffi_build/core/ppgtt/gone.c", []),
        ("tests/fakexen/control.h", []),
        ("xengt_dm/ppgtt/engine.py", []),
    ],
)
def test_compilers_see_what_has_changed(tree: Path, changed: str, compiled: list[str]) -> None:
    """What includes a header that has changed is seen by one of them."""
    expected = [f"tests/lint/test_compilers.py::test_no_warning[{name}]" for name in compiled]
    assert [*selection.touched([changed], {}, root=tree).lint] == ["tests/lint/test_text.py", *expected]


def test_compilers_see_all_when_their_flags_change(tree: Path) -> None:
    found = selection.touched(["cffi_build/shared.py"], {}, root=tree)
    assert found.lint == ("tests/lint/test_compilers.py", "tests/lint/test_text.py")


def test_those_tests_of_compilers_are_there(checkout: Path) -> None:
    source = (checkout / "tests/lint/test_compilers.py").read_text()
    assert source.index('parametrize("compiler", ["gcc", "clang"])') < source.index('parametrize("name", FILES)')


@pytest.mark.parametrize(
    ("budget", "taken"),
    [
        (1.1, []),
        (1.3, ["tests/xen/test_port.py"]),
        (1.7, ["tests/embedded/test_life.py", "tests/xen/test_port.py"]),
        (7.0, ["tests/embedded/test_life.py", "tests/stats/test_far.py", "tests/xen/test_port.py"]),
        (99.0, ["tests/embedded/test_life.py", "tests/stats/test_far.py", "tests/trace/test_replay.py"]),
    ],
)
def test_the_nearest_come_first_as_long_as_there_is_time(tree: Path, budget: float, taken: list[str]) -> None:
    """Of those that are equally near, the shorter ones. One that does not fit keeps out no other."""
    (tree / "tests/stats/test_far.py").write_text("import xengt_dm.sim.demo")
    (tree / "xengt_dm/sim/demo.py").write_text("from xengt_dm import units")
    seconds = {"tests/lint/test_text.py": 1, "tests/embedded/test_life.py": 0.4, "tests/trace/test_replay.py": 50}
    found = selection.touched(["xengt_dm/units.py"], seconds, budget, tree)
    assert [*found.files] == taken if budget < 99 else {*taken} < {*found.files}
    reached = {"tests/embedded/test_life.py", "tests/stats/test_far.py", "tests/trace/test_replay.py"}
    assert {*found.files, *found.left_out} == reached | {"tests/xen/test_port.py"}


def test_the_seconds_are_those_of_files_that_are_there(checkout: Path) -> None:
    """`tests/quick --measure` writes them."""
    assert not [name for name in selection.measured() if not (checkout / name).exists()]
    assert max(selection.measured().values()) < selection.BUDGET_SECONDS


def test_how_long_files_of_tests_took(tmp_path: Path) -> None:
    cases = "".join(
        f'<testcase classname="tests.{name}" name="test_it" time="{seconds}"/>'
        for name, seconds in [("ppgtt.test_leaf", 1.5), ("ppgtt.test_leaf.TestOne", 2), ("lint.test_text", 0.25)]
    )
    report = tmp_path / "report.xml"
    report.write_text(f'<testsuites><testsuite tests="3" skipped="0">{cases}</testsuite></testsuites>')
    found = outcomes.of_report("quick", report, 0).file_seconds
    assert found == {"tests/ppgtt/test_leaf.py": 3.5, "tests/lint/test_text.py": 0.25}


def test_every_folder_of_tests_is_a_room_or_a_part(checkout: Path) -> None:
    folders = {path.parent.name for path in checkout.glob("tests/*/test_*.py")}
    assert folders - set(reach.PARTS) == set(rooms.rooms())
    assert {"ppgtt", "ioreq", "xen"} <= set(rooms.rooms())


def test_every_home_is_a_room(checkout: Path) -> None:
    for beginning, homes in rooms.ELSEWHERE.items():
        assert (checkout / beginning).is_dir(), beginning
        assert set(homes) <= set(rooms.rooms())


@pytest.mark.parametrize("room", ["cli", "config", "control", "ioreq", "ppgtt", "service", "stats", "trace", "vgpu"])
def test_a_change_of_a_room_touches_the_tests_of_that_name(checkout: Path, room: str) -> None:
    module = next((checkout / "xengt_dm" / room).glob("[a-z]*.py")).relative_to(checkout).as_posix()
    assert room in selection.touched([module], {}, root=checkout).rooms


def test_the_floor_runs_every_room_that_uses_a_dependency(checkout: Path) -> None:
    """But cffi, which all of C is called through."""
    uses = re.compile(r"^\s*(import|from) (click|trio|structlog|prometheus_client)\b", re.MULTILINE)
    users = {path for path in (checkout / "xengt_dm").rglob("*.py") if uses.search(path.read_text())}
    names = {path.relative_to(checkout / "xengt_dm").parts[0] for path in users}
    assert {"cli", "stats"} <= names
    assert {f"tests/{name}" for name in names & set(rooms.rooms())} <= set(PYTEST_PARTS[Part.FLOOR].arguments)


def git(where: Path, *words: str) -> None:
    who = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *who, *words], cwd=where, check=True, capture_output=True, env={**os.environ})


def test_what_has_changed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "CHECKOUT", tree)
    git(tree, "init")
    git(tree, "add", ".")
    git(tree, "commit", "-m", "All")
    assert rooms.changed_files() == []
    git(tree, "checkout", "-b", "work")
    (tree / "docs/metrics.md").write_text("committed")
    git(tree, "commit", "-a", "-m", "One")
    (tree / "xengt_dm/units.py").write_text("not committed")
    (tree / "tests/core/test_guard.py").unlink()
    (tree / "new.py").write_text("not known")
    all_of_it = ["docs/metrics.md", "new.py", "tests/core/test_guard.py", "xengt_dm/units.py"]
    assert rooms.changed_files() == all_of_it
    assert rooms.changed_files("HEAD") == all_of_it[1:]
    with pytest.raises(command.SetupError):
        rooms.changed_files("no-such-commit")


def test_names_on_the_command_line() -> None:
    everything = main.wanted([])
    assert everything.parts == [part for part in Part if part not in (Part.BENCH, Part.CAMPAIGN)]
    assert everything.scenarios == everything.rooms == []
    found = main.wanted(["lint", "ppgtt", "tests/ioreq/", "stop", "service", "lab/service"])
    assert found.parts == [Part.LINT, Part.LAB]
    assert found.rooms == ["ppgtt", "ioreq", "service"]
    assert found.scenarios == ["stop", "service"]
    scenarios = (Path(__file__).parents[1] / "lab/scenarios").glob("[a-z]*.py")
    assert {*SCENARIOS, *IF_NAMED} == {path.stem for path in scenarios}
    assert main.wanted(["cost"]).scenarios == ["cost"]
    with pytest.raises(ValueError, match="lintt"):
        main.wanted(["lintt"])


@pytest.mark.parametrize("xens", [list(XENS), ["4.20"]])
def test_scenarios_that_run_on_one_xen(xens: list[str]) -> None:
    def chosen(words: list[str], size: list[str]) -> dict[str, list[str]]:
        return main.scenarios(main.Options(main.wanted(words), xens, size, [], [], []))

    assert chosen(["lab/life"], []) == {xen: ["life"] for xen in xens}
    assert chosen(["lab"], ["--full"]) == {xen: list(SCENARIOS) for xen in xens}
    for xen, names in chosen([], []).items():
        assert set(SCENARIOS) - set(names) == {name for name, only in ONLY_ON.items() if only != xen}
        assert len(names) == len(set(names)) > len(SCENARIOS) - len(ONLY_ON)
    assert set(ONLY_ON.values()) == set(XENS)


def test_texts_and_litter_do_not_name_a_build(tree: Path) -> None:
    sources = ("xengt_dm", "cffi_build")
    before = projects.hashes(sources, tree)
    assert set(before) == {name for name in FILES if name.startswith(sources)}
    (tree / "xengt_dm" / "_core.c").write_text("left by an editable install")
    (tree / "cffi_build" / "__pycache__").mkdir()
    (tree / "cffi_build" / "__pycache__" / "build_core.cpython-311.pyc").write_text("")
    assert projects.hashes(sources, tree) == before
    (tree / "cffi_build/core/ppgtt/leaf.c").write_text("int x;")
    assert projects.hashes(sources, tree) != before
    assert not {"README.md", "LICENSE"} & {*projects.CODE, *projects.EXTENSIONS}


def run(code: str, silent: float = 60, longest: float = 60) -> tuple[int, list[str]]:
    said: list[str] = []
    words: command.Words = [sys.executable, "-c", code]
    limits = command.Limits(silent, longest)
    status = command.in_sight(words, env=os.environ, cwd=Path.cwd(), limits=limits, say=said.append)
    return status, said


def test_a_program_in_sight() -> None:
    assert run("print('one'); print('two', end=''); raise SystemExit(3)") == (3, ["one", "two"])


def test_a_program_that_says_nothing_is_ended() -> None:
    code = (
        "import subprocess, sys; print('begun', flush=True);"
        "subprocess.run([sys.executable, '-c', 'import signal; signal.pause()'])"
    )
    status, said = run(code, silent=0.5)
    assert status != 0
    assert said[:2] == ["begun", "ended: nothing came for 0 s"]


def test_a_program_that_says_something_for_ever_is_ended() -> None:
    status, said = run("while True: print('more', flush=True)", longest=0.5)
    assert status != 0
    assert "ended: not done after 0 s" in said


REPORT = '<testsuites><testsuite tests="{}" failures="{}" errors="0" skipped="{}"/></testsuites>'


@pytest.mark.parametrize(
    ("tests", "failures", "skipped", "status", "failed"),
    [(3, 0, 0, 0, 0), (3, 1, 0, 1, 1), (3, 0, 1, 0, 1), (0, 0, 0, 0, 1), (3, 0, 0, 2, 1)],
)
def test_a_report(tmp_path: Path, tests: int, failures: int, skipped: int, status: int, failed: int) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT.format(tests, failures, skipped))
    outcome = outcomes.of_report("unit", report, status)
    assert (outcome.passed, outcome.failed, outcome.skipped) == (tests - failures - skipped, failed, skipped)
    if skipped:
        assert outcomes.of_report("quick", report, status, may_skip=True).failed == 0


def test_no_report(tmp_path: Path) -> None:
    assert outcomes.of_report("unit", tmp_path / "none", 4).failed == 1


def test_the_last_line_is_the_count(capsys: pytest.CaptureFixture[str]) -> None:
    status = outcomes.sum_up([outcomes.Outcome("unit", 5), outcomes.Outcome("lab", 2, 1, 1, why="stop on 4.17")])
    assert status == 1
    assert capsys.readouterr().out.splitlines()[-1] == "7 passed, 1 failed, 1 skipped"


def test_what_is_started_heeds_interrupts_though_we_were_started_without() -> None:
    """As by a shell that puts us into the background."""
    setup = str(Path(__file__).resolve().parent)
    ask = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    code = (
        f"import sys, subprocess; sys.path.insert(0, {setup!r}); import command; command.heed_interrupts();"
        f"subprocess.run([sys.executable, '-c', {ask!r}])"
    )
    words = ["sh", "-c", 'trap "" INT; exec "$0" -c "$1"', sys.executable, code]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "True\n"
