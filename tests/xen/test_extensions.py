"""A daemon on Xen has nothing of the embedded hypervisor in its process."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "xengt_dm"
#: Imports what it is told, and says which modules it then has, and what the kernel has mapped for it.
LOOK = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
with open("/proc/self/maps") as maps:
    print(json.dumps({"modules": [*sys.modules], "maps": maps.read()}))
"""


def source(name: str) -> Path | None:
    """The Python file of a module, None for an extension module."""
    spec = importlib.util.find_spec(name)
    assert spec is not None, name
    assert spec.origin is not None, name
    return Path(spec.origin) if spec.origin.endswith(".py") else None


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):  # a name in a module, `lib` of an extension module
        return False


def imported(path: Path) -> Iterator[str]:
    """Every module of ours that a file imports anywhere, in a function or for its types too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == PACKAGE and is_module(name))


def everything_behind(*roots: str) -> list[str]:
    """The modules of ours that these may come to import, these included."""
    found: list[str] = []
    left = [*roots]
    while left:
        name = left.pop()
        if name in found:
            continue
        found.append(name)
        path = source(name)
        left += imported(path) if path else []
    return sorted(found)


def look(*names: str) -> tuple[set[str], set[str]]:
    """The modules of ours in a process that imported these, and our extension modules that it has mapped."""
    done = subprocess.run([sys.executable, "-c", LOOK, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    modules = {name for name in seen["modules"] if name.split(".")[0] == PACKAGE}
    return modules, set(re.findall(rf"/{PACKAGE}/(\w+)\.\S*so$", seen["maps"], re.MULTILINE))


@pytest.mark.skipif(not is_module(f"{PACKAGE}._xen"), reason="libxen-dev is not installed, so _xen is not built")
def test_run_maps_no_embedded_hypervisor() -> None:
    modules, mapped = look(*everything_behind(f"{PACKAGE}.cli", f"{PACKAGE}.cli.run"))
    assert {f"{PACKAGE}.{name}" for name in ("hypervisor.xen.port", "ioreq.server", "ppgtt.engine")} <= modules
    assert not [name for name in modules if "embedded" in name or name.startswith(f"{PACKAGE}.sim")]
    assert mapped == {"_core", "_xen"}


def test_the_look_would_see_it() -> None:
    modules, mapped = look(f"{PACKAGE}.cli.demo")
    assert f"{PACKAGE}._embedded" in modules
    assert mapped == {"_core", "_embedded"}


def test_the_core_has_no_symbol_of_it() -> None:
    """Nor has it the code: every function of the embedded hypervisor has a name that begins so."""
    for name in ("_core", "_xen"):
        spec = importlib.util.find_spec(f"{PACKAGE}.{name}")
        if spec is not None and spec.origin is not None:
            assert b"xd_emb" not in Path(spec.origin).read_bytes(), name
    spec = importlib.util.find_spec(f"{PACKAGE}._embedded")
    assert spec is not None
    assert spec.origin is not None
    assert b"xd_emb" in Path(spec.origin).read_bytes()
