"""Who may import whom: the table of the rooms, and what of the world outside each may know.

An import under ``TYPE_CHECKING`` counts like any other: a type is knowledge, too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "xengt_dm"
ROOT = Path(__file__).resolve().parents[2]
MOST_LINES = 400

#: Standard modules that wait, and those that do input and output at once.
WAITING = {"asyncio", "multiprocessing", "select", "selectors", "signal", "socket", "threading", "time"}
EFFECTS = WAITING | {
    "fcntl",
    "http",
    "io",
    "logging",
    "mmap",
    "os",
    "pathlib",
    "shutil",
    "subprocess",
    "sys",
    "tempfile",
}


@dataclass(frozen=True)
class Rule:
    """What a module may import. Every rule whose name is that of the module or of a package above it holds.

    ``own`` are names in this package, each with all below it; a module's own name is always allowed. ``foreign`` are
    distributions. Both are a word a name; ``*`` is everything.
    """

    own: str = "*"
    foreign: str = "*"
    effects: bool = True
    why: str = ""


#: What every room may use: how errors and C data are named, and how text from elsewhere is shown.
COMMON = "errors printable steps units"
#: What a room knows of the hypervisor that works with any.
ANY_HYPERVISOR = "hypervisor.port hypervisor.best_effort"
RULES = {
    "lazy_imports": Rule("", "", why="comes before every other import"),
    "errors": Rule("", "", why="everybody imports it"),
    "printable": Rule("", "", effects=False, why="everybody imports it"),
    "steps": Rule("", "", effects=False, why="everybody imports it"),
    "units": Rule("", "", effects=False, why="everybody imports it"),
    "pointers": Rule("_core units", "", effects=False, why="C keeps them, whichever room they are from"),
    "ppgtt": Rule(f"_core {COMMON}", "", effects=False, why="sans-io: effects go out through ppgtt/ports.py"),
    "state": Rule(f"run_dir.replace _core {COMMON}", "", why="is what a successor knows, whoever writes it"),
    "state.layout": Rule("units", "", effects=False, why="figures only"),
    "state.life": Rule("state.layout", "", effects=False, why="words in memory"),
    "state.store": Rule(f"state.buffer state.layout {COMMON}", "", why="a Protocol, and a place of no file"),
    "state.buffer": Rule(f"state.layout state.life {COMMON}", "", effects=False, why="sans-io: views of any memory"),
    "vgpu": Rule(
        f"ppgtt state.layout pointers _core {COMMON}",
        "",
        effects=False,
        why="sans-io: a device sees offsets and values",
    ),
    "ioreq": Rule(f"{ANY_HYPERVISOR} pointers _core {COMMON}", "trio", why="serves any hypervisor, device and shadows"),
    "traps": Rule(
        f"{ANY_HYPERVISOR} ioreq.ranges ioreq.slots _core {COMMON}", "", why="protects frames on any hypervisor"
    ),
    "hypervisor": Rule(f"xenstore pointers _core _xen _embedded {COMMON}", "cffi", why="knows no room above it"),
    "hypervisor.port": Rule(COMMON, "", effects=False, why="Protocols only"),
    "hypervisor.sim": Rule(
        f"hypervisor.port pointers _core {COMMON}", "", why="is all that `run --sim` has of the simulator"
    ),
    "hypervisor.embedded": Rule(f"hypervisor.port _embedded {COMMON}", "", why="must run where there is no Xen"),
    "xenstore": Rule(COMMON, "", why="a protocol and its client"),
    "config": Rule("vgpu.registers errors printable", "", why="what can be set must not depend on what is set"),
    "service": Rule(
        f"config log.log run_dir.owner xenstore _core {COMMON}", "structlog trio", why="a host's life needs no device"
    ),
    "run_dir": Rule(f"ioreq.ranges {COMMON}", "", why="files of an instance, whoever it serves"),
    "run_dir.replace": Rule("", "", why="makes files, whatever they are"),
    "stats": Rule(f"run_dir.directory run_dir.replace _core {COMMON}", "prometheus_client", why="needs no device"),
    "log": Rule(COMMON, "structlog", why="everybody may log, so it knows nobody"),
    "trace": Rule(f"_core {COMMON}", "", why="a file format, and who fills it"),
    "control": Rule("*", "structlog trio", why="what is asked of an instance"),
    "control.protocol": Rule(f"control.json_stream {COMMON}", "", why="knows neither socket nor instance"),
    "control.json_stream": Rule("", "", effects=False, why="sans-io: values in, bytes out"),
    "control.socket": Rule(f"control.protocol run_dir.replace {COMMON}", "", why="a socket knows no instance"),
    "control.server": Rule(f"control.protocol control.socket {COMMON}", "structlog trio", why="is told the commands"),
    "control.answers": Rule(f"control.protocol {COMMON}", "", effects=False, why="sans-io: what comes is data"),
    "control.client": Rule(
        f"control.answers control.protocol control.socket run_dir.owner {COMMON}", "", why="must answer at once"
    ),
    "adoption": Rule(
        f"hypervisor.port ioreq ppgtt.space state.buffer state.layout state.store traps vgpu.registers _core {COMMON}",
        "",
        why="the order in which a successor takes over",
    ),
    "ending": Rule(
        f"hypervisor.best_effort ioreq ppgtt.engine traps {COMMON}", "", why="the orders in which an instance ends"
    ),
    "gpu": Rule(f"ioreq ppgtt.engine vgpu {COMMON}", "", effects=False, why="wires the rooms of the device"),
    "settings": Rule(
        f"config gpu ppgtt.engine ppgtt.guest_frames state.buffer vgpu {COMMON}", "", why="figures, and who chose them"
    ),
    "instance": Rule(
        f"{ANY_HYPERVISOR} adoption ending gpu ioreq ppgtt settings state stats.page traps vgpu _core {COMMON}",
        "trio",
        why="wires the rooms",
    ),
    "daemon": Rule(
        "config control gpu hypervisor.port instance ioreq.bus ioreq.loop log ppgtt.engine run_dir service settings "
        f"state.file stats trace vgpu {COMMON}",
        "structlog trio",
        why="a process around an instance",
    ),
    "sim": Rule("*", "trio", why="an instance with the embedded hypervisor, and its guests"),
    "cli": Rule("*", "click trio", why="one module a subcommand"),
    "__main__": Rule("cli", "", why="python -m xengt_dm"),
}
#: Extension module or distribution: the only modules that may import it, by the beginning of their names.
ONLY = {
    "xengt_dm._xen": ("hypervisor.xen",),
    # So `run` on Xen loads no line of it.
    "xengt_dm._embedded": ("hypervisor.embedded", "sim"),
    "xengt_dm.hypervisor.xen": ("hypervisor.xen", "daemon", "cli"),
    "xengt_dm.hypervisor.embedded": (
        "hypervisor.embedded",
        "sim",
        "cli.demo",
        "cli.guest_options",
        "cli.replay",
        "cli.sim",
    ),
    "xengt_dm.hypervisor.sim": ("hypervisor.sim", "sim", "cli.run"),
    "xengt_dm.sim": ("sim", "cli.demo", "cli.replay", "cli.sim"),
    "prometheus_client": ("stats.exporter",),
    "click": ("cli",),
}
#: The command line must answer at once, so each subcommand imports what it needs when it is called.
NOT_AT_START = (
    "trio",
    "structlog",
    "prometheus_client",
    "cffi",
    "xengt_dm._core",
    "xengt_dm._embedded",
    "xengt_dm._xen",
    "xengt_dm.daemon.main",
    "xengt_dm.instance",
)


#: Modules that import by a name which the table cannot see, and why they may.
DYNAMIC = {
    "cli": "a subcommand's module is imported when it is called; test_the_command_line_starts_with_little",
    "lazy_imports": "defers modules of the standard library and of dependencies; tests/cli/test_start.py",
    "cli.check.install": "looks whether the extension modules can be loaded",
}
#: What imports a module by its name, or runs code that may: a module, or a name in any module.
_DYNAMIC_MODULES = {"imp", "importlib", "pkgutil", "runpy", "zipimport"}
_DYNAMIC_NAMES = {"__import__", "__loader__", "__spec__", "eval", "exec", "import_module"}
#: These only say what is installed.
_HARMLESS = ("importlib.metadata", "importlib.resources")


@dataclass(frozen=True)
class Import:
    """One import of a module; ``name`` is absolute."""

    name: str
    line: int


def modules() -> dict[str, Path]:
    """Every module, by its name without the package's."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[Import]:
    """Every import in a file, of `from a import b` both ``a`` and, if that is a module, ``a.b``."""
    package = path.relative_to(ROOT).parent.parts
    tree = ast.parse(path.read_text(), path.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            source = base if node.level else node.module or ""
            names = [member for alias in node.names if is_module(member := f"{source}.{alias.name}")] or [source]
        else:
            continue
        for name in names:
            yield Import(name, node.lineno)


def dynamic_imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yields (line, name) of what in a module can import another one without an import statement."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            source = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            names = [f"{source}.{alias.name}".strip(".") for alias in node.names]
            for name in names:
                harmless = any(within(name, each) for each in _HARMLESS)
                if name == "sys.modules" or (name.partition(".")[0] in _DYNAMIC_MODULES and not harmless):
                    yield node.lineno, name
        elif isinstance(node, ast.Name) and node.id in _DYNAMIC_NAMES:
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            if node.attr in _DYNAMIC_NAMES - {"eval", "exec"} or ast.unparse(node) == "sys.modules":
                yield node.lineno, node.attr
        elif isinstance(node, ast.Constant) and node.value == "__import__":
            yield node.lineno, "__import__"


def is_module(name: str) -> bool:
    """Whether a dotted name is one of ours, be it written in Python or in C."""
    inner = name.removeprefix(f"{PACKAGE}.")
    return inner != name and (inner in MODULES or inner in ("_core", "_embedded", "_xen"))


def within(name: str, above: str) -> bool:
    return name == above or name.startswith(f"{above}.")


def complaint(module: str, found: Import) -> str | None:
    """What is wrong with an import, None if nothing."""
    top = found.name.partition(".")[0]
    inner = found.name.removeprefix(PACKAGE).removeprefix(".")
    for name, owners in ONLY.items():
        if within(found.name, name) and not any(within(module, owner) for owner in owners):
            return f"only {', '.join(owners)} may import {name}"
    for above, rule in RULES.items():
        if not within(module, above):
            continue
        if top == PACKAGE:
            allowed = [above, *rule.own.split()]
            if inner and "*" not in allowed and not any(within(inner, name) for name in allowed):
                return f"{above} may import {rule.own or 'none of ours'}: {rule.why}"
        elif top in sys.stdlib_module_names:
            if top in EFFECTS and not rule.effects:
                return f"{above} does no input and output: {rule.why}"
        elif "*" not in rule.foreign.split() and top not in rule.foreign.split():
            return f"{above} may import {rule.foreign or 'no distribution'}: {rule.why}"
    return None


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_table(module: str) -> None:
    path = MODULES[module]
    bad = [
        f"{path.relative_to(ROOT)}:{found.line}: {found.name}: {why}"
        for found in imports(path)
        if (why := complaint(module, found))
    ]
    if bad:
        pytest.fail("\n".join(bad), pytrace=False)


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_imported_that_the_table_does_not_see(module: str) -> None:
    path = MODULES[module]
    used = [*dynamic_imports(ast.parse(path.read_text(), path.name))]
    if module in DYNAMIC:
        assert used, "needs no exception any more"
    elif used:
        found = [f"{path.relative_to(ROOT)}:{line}: {name} may import what the table forbids" for line, name in used]
        pytest.fail("\n".join(found), pytrace=False)


@pytest.mark.parametrize(
    "text",
    [
        "import importlib",
        "import importlib.util",
        "import importlib as i",
        "from importlib import import_module",
        "from importlib.util import find_spec",
        "def f():\n    from importlib import metadata, import_module",
        "__import__('trio')",
        "import builtins\nbuiltins.__import__('trio')",
        "getattr(builtins, '__import__')",
        "__loader__.load_module('trio')",
        "import runpy",
        "import sys\nsys.modules['trio']",
        "from sys import modules",
        "exec('import trio')",
        "eval(text)",
    ],
)
def test_a_dynamic_import_is_seen(text: str) -> None:
    assert [*dynamic_imports(ast.parse(text))]


@pytest.mark.parametrize(
    "text", ["import importlib.metadata", "from importlib.metadata import requires", "self.modules", "modules = 1"]
)
def test_what_imports_nothing_is_allowed(text: str) -> None:
    assert not [*dynamic_imports(ast.parse(text))]


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_every_module_is_in_a_room(module: str) -> None:
    assert any(within(module, above) for above in RULES) or not MODULES[module].read_text()


def test_the_command_line_starts_with_little() -> None:
    command = [sys.executable, "-c", f"import sys, {PACKAGE}.cli; print(*sys.modules)"]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert not set(loaded) & set(NOT_AT_START)


@pytest.mark.parametrize("folder", ["xengt_dm", "cffi_build", "tests"])
def test_modules_are_short(folder: str) -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".pyi", ".c", ".h", ".S") and (lines := path.read_text().count("\n")) > MOST_LINES
    }
    assert not long


def test_a_broken_rule_is_seen(tmp_path: Path) -> None:
    """The table would be worth nothing if the reader of imports missed one."""
    assert [complaint("ppgtt.engine", Import(name, 1)) is None for name in ("trio", "logging", "enum")] == [
        False,
        False,
        True,
    ]
    assert complaint("ppgtt.engine", Import("xengt_dm.hypervisor.port", 1))
    assert complaint("ioreq.server", Import("xengt_dm.hypervisor.xen.port", 1))
    assert complaint("hypervisor.embedded.port", Import("xengt_dm._xen", 1))
    assert complaint("hypervisor.xen.port", Import("xengt_dm._embedded", 1))
    assert complaint("daemon.main", Import("xengt_dm.hypervisor.embedded", 1))
    assert complaint("cli.run", Import("xengt_dm.sim.demo", 1))
    assert complaint("hypervisor.sim.port", Import("xengt_dm._embedded", 1))
    assert complaint("daemon.main", Import("xengt_dm.hypervisor.sim.port", 1))
    assert complaint("stats.page", Import("prometheus_client", 1))
    assert complaint("ioreq.server", Import("xengt_dm.hypervisor.port", 1)) is None
    assert complaint("ioreq.loop", Import("xengt_dm.traps.claim", 1))
    assert complaint("hypervisor.xen.library", Import("xengt_dm._xen", 1)) is None
