"""What other programs say of the sources: ruff, mypy, shellcheck."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SHELL = [
    "tests/run",
    "tests/quick",
    "tests/demo",
    "tests/setup/debian",
    ".ci/run",
    "tests/lab/dom0/init",
    "etc/xl/qemu-wrapper",
    "debian/xengt-dm.prerm",
]
COMMANDS = {
    "ruff": [sys.executable, "-m", "ruff", "check", "--no-cache", "."],
    "ruff format": [sys.executable, "-m", "ruff", "format", "--no-cache", "--check", "--diff", "."],
    "mypy": [sys.executable, "-m", "mypy"],
    "mypy tests/setup": [sys.executable, "-m", "mypy", "--explicit-package-bases", "tests/setup"],
    "shellcheck": ["shellcheck", *SHELL],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_complaint_from(name: str, checkout: Path) -> None:
    environment = {**os.environ, "MYPYPATH": "tests/setup"}
    done = subprocess.run(COMMANDS[name], cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"{done.stdout}{done.stderr}", pytrace=False)


@pytest.mark.parametrize(
    "patch", sorted((Path(__file__).parents[1] / "lab/patches").glob("*.patch")), ids=lambda it: it.name
)
def test_a_patch_of_the_lab_applies(patch: Path, checkout: Path, tmp_path: Path) -> None:
    """To a copy without a repository, as the lab does it."""
    for name in re.findall(r"^--- a/(\S+)$", patch.read_text(), re.MULTILINE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(checkout / name, tmp_path / name)
    done = subprocess.run(
        ["git", "apply", "--check", patch],
        cwd=tmp_path,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
