"""Words that must not be in the project's files, and files and commands that its documents speak of."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import xengt_dm

ROOT = Path(__file__).resolve().parents[2]
LITTER = {".git", "__pycache__", "build", "dist", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}


def files() -> list[Path]:
    """What is in the repository or about to be; where there is none, all that git would take."""
    listing = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if (ROOT / ".git").exists():
        names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
        found = [ROOT / name for name in names if name]
    else:
        found = [path for path in ROOT.rglob("*") if not LITTER & set(path.relative_to(ROOT).parts)]
    return sorted(path for path in found if path.is_file() and path.suffix not in (".so", ".o", ".gz"))


#: What must not be there: why. In pieces, so that this file may be searched, too.
FORBIDDEN = {
    r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b": "unfinished work belongs to the tracker",
    r"Not" r"ImplementedError": "what is there works",
    r"/(ro" r"ot|ho" r"me/\w+|wo" r"rk|Us" r"ers)/": "a path of somebody's machine",
    r"\b\w+\.(deb" r"ian|ubu" r"ntu)\.(org|com)": "which archive to use is for the machine to say",
    r"py" r"pi\.(org|python)|python" r"hosted|registry\.np" r"mjs": "which index to use is for the machine to say",
}


@pytest.mark.parametrize("pattern", FORBIDDEN, ids=list(FORBIDDEN.values()))
def test_forbidden_words(pattern: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files()
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1)
        if re.search(pattern, line)
    ]
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def test_text_files_end_with_one_newline() -> None:
    assert not [
        str(path.relative_to(ROOT))
        for path in files()
        if (content := path.read_bytes()) and (not content.endswith(b"\n") or content.endswith(b"\n\n"))
    ]


def documents() -> list[Path]:
    return [path for path in files() if path.suffix == ".md"]


def shell_lines() -> Iterator[tuple[Path, str]]:
    """Every line of a code block of a document, fenced or indented, without its prompt."""
    for path in documents():
        fenced = False
        for line in path.read_text().splitlines():
            if line.startswith("```"):
                fenced = not fenced
            elif fenced or line.startswith("    "):
                yield path, re.sub(r"^([$#]|sudo)\s+", "", line.strip())


def test_programs_that_documents_run_are_there() -> None:
    named = {(path, match[0]) for path, line in shell_lines() if (match := re.match(r"(tests|\.ci)/\S+", line))}
    assert (ROOT / "README.md", "tests/demo") in named
    assert (ROOT / "README.md", "tests/run") in named
    assert not [(path.name, name) for path, name in named if not os.access(ROOT / name, os.X_OK)]


def test_subcommands_that_documents_run_are_there() -> None:
    main = importlib.import_module("xengt_dm.cli").main
    known = main.list_commands(click.Context(main))
    named = {match[1] for _, line in shell_lines() if (match := re.match(r"xengt-dm ([a-z]+)", line))}
    assert named
    assert named <= set(known)


def test_files_that_documents_link_are_there() -> None:
    links = [(path, link) for path in documents() for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text())]
    assert not [(path.name, link) for path, link in links if not (path.parent / link).exists()]


def test_changelog_has_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert xengt_dm.__version__ == version
    assert re.search(rf"^## \[?{re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_paths_that_documents_name_are_there() -> None:
    path = r"`((?:xengt_dm|cffi_build|tests|etc|systemd|debian|docs)/[\w./*@-]*)`"
    named = {(document.name, name) for document in documents() for name in re.findall(path, document.read_text())}
    assert ("README.md", "cffi_build/core/ppgtt/translate.h") in named
    assert not [(document, name) for document, name in named if not list(ROOT.glob(name.rstrip("/")))]


def test_modules_that_docstrings_name_are_there() -> None:
    """A cross reference begins with a module: ``xengt_dm...``, or one in the folder of its file."""
    reference = re.compile(r":(?:mod|class|func|meth|data|attr):`~?((?:xengt_dm)?\.[\w.]+)`")
    found = [(path, name) for path in files() if path.suffix == ".py" for name in reference.findall(path.read_text())]
    assert found
    assert not [(path.name, name) for path, name in found if not leads_somewhere(path.parent, name)]


def leads_somewhere(folder: Path, name: str) -> bool:
    if name.startswith("xengt_dm"):
        folder = ROOT
    for part in name.lstrip(".").split("."):
        if (folder / f"{part}.py").exists():
            return True
        folder /= part
        if not folder.is_dir():
            return False
    return True
