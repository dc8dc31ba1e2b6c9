"""What a packager and a user do with the sources: sdist, wheel, install, editable install, with Xen's headers or not.

Everything is made from an export of the checkout, so that nothing that lies around in it can help.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: The packages of this environment, but not the project that tests/run installed for it.
CLEAN = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "LD_PRELOAD")}
NEEDED = ("xengt_dm", "cffi_build", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")


@dataclass(frozen=True)
class Done:
    """A command that succeeded."""

    output: str


def run(*words: str | Path, cwd: Path | None = None, **variables: str) -> Done:
    command = [str(word) for word in words]
    done = subprocess.run(
        command,
        cwd=cwd,
        env=CLEAN | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)}\n{done.stdout}", pytrace=False)
    return Done(done.stdout)


def tracked(*folders: str) -> set[str]:
    listing = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run([*listing, *folders], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in done.stdout.split("\0") if (ROOT / name).is_file()}


def export(target: Path) -> Path:
    for name in tracked():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    return target


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with an sdist, and a wheel that was made from it, as `python -m build` does it for a release."""
    folder = tmp_path_factory.mktemp("build")
    run(sys.executable, "-m", "build", "--outdir", folder / "dist", export(folder / "source"))
    return folder / "dist"


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """An empty venv that sees the packages of this one."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    own = tmp_path / "venv" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (own / "above.pth").write_text(f"import site; site.addsitedir({str(packages())!r})\n")
    return tmp_path / "venv"


def packages() -> Path:
    return Path(pytest.__file__).parents[1]


def install(venv: Path, *arguments: str | Path, **variables: str) -> Done:
    pip = [sys.executable, "-m", "pip", "--python", venv, "--disable-pip-version-check", "--no-input", "-v"]
    return run(*pip, "install", "--no-deps", "--no-index", "--no-build-isolation", *arguments, **variables)


def python(venv: Path, code: str, cwd: Path) -> str:
    return run(venv / "bin" / "python", "-c", code, cwd=cwd).output.strip()


def test_sdist_has_what_a_build_needs(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked(*NEEDED) <= names
    assert not [name for name in names if name.endswith((".so", ".o", ".pyc"))]


def test_wheel_is_for_every_later_python(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.name.startswith("xengt_dm-")
    assert "-cp311-abi3-linux_" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.startswith("xengt_dm/")}
    assert names == tracked("xengt_dm") | {f"xengt_dm/{name}.abi3.so" for name in ("_core", "_embedded", "_xen")}


def test_the_licence_is_told_in_a_way_that_every_setuptools_takes(tmp_path: Path) -> None:
    """Debian 12's setuptools knows no SPDX expression in pyproject.toml, and from 2027 on others know nothing else."""
    source = export(tmp_path / "source")
    code = (
        f"import sys; sys.path.insert(0, 'cffi_build'); import backend; print(backend.build_sdist({str(tmp_path)!r}))"
    )
    said = run(sys.executable, "-W", "always", "-c", code, cwd=source).output
    assert not [line for line in said.splitlines() if "icense" in line and "eprecat" in line]
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        found = archive.extractfile(f"{sdist.name.removesuffix('.tar.gz')}/PKG-INFO")
        assert found is not None
        metadata = found.read().decode().partition("\n\n")[0] + "\n"
    assert "\nLicense: MIT\n" in metadata or "\nLicense-Expression: MIT\n" in metadata
    assert "\nLicense-File: LICENSE\n" in metadata
    assert "\nAuthor: The xengt-dm authors\n" in metadata
    assert re.search("\nKeywords: .*\\bxen\\b", metadata)
    assert {"LICENSE", "CHANGELOG.md", "tests/README.md"} <= names


def test_wheel_works(built: Path, venv: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    install(venv, wheel)
    where = "import xengt_dm, xengt_dm._core, xengt_dm._embedded, xengt_dm._xen; print(xengt_dm.__file__)"
    assert python(venv, where, tmp_path).startswith(str(venv))
    assert run(venv / "bin" / "xengt-dm", "--version", cwd=tmp_path).output.startswith("xengt-dm ")
    assert "audit" in run(venv / "bin" / "xengt-dm", "demo", "--json", cwd=tmp_path).output


def test_editable_install_follows_the_sources(venv: Path, tmp_path: Path) -> None:
    source = export(tmp_path / "source")
    install(venv, "--editable", source)
    (source / "xengt_dm" / "new.py").write_text("answer = 42\n")
    assert (
        python(venv, "import xengt_dm._core, xengt_dm._xen, xengt_dm.new as new; print(new.answer)", tmp_path) == "42"
    )


def without_headers(folder: Path) -> dict[str, str]:
    """As on a machine that has pkg-config and no libxen-dev."""
    folder.mkdir()
    return {"PKG_CONFIG_LIBDIR": str(folder), "PKG_CONFIG_PATH": ""}


def without_pkg_config(folder: Path) -> dict[str, str]:
    """As on a machine that has neither."""
    folder.mkdir()
    for path in Path("/usr/bin").iterdir():
        if not path.name.endswith("pkg-config"):
            (folder / path.name).symlink_to(path)
    return {"PATH": str(folder)}


@pytest.mark.parametrize("lack", [without_headers, without_pkg_config])
def test_without_xen_headers(lack: object, venv: Path, tmp_path: Path) -> None:
    assert callable(lack)
    output = install(venv, export(tmp_path / "source"), **lack(tmp_path / "lack")).output
    said = {line.strip() for line in output.splitlines() if "xengt-dm: building without _xen, missing" in line}
    assert len(said) == 1
    assert "libxen-dev" in said.pop()
    code = "import importlib.util, xengt_dm._core; print(importlib.util.find_spec('xengt_dm._xen'))"
    assert python(venv, code, tmp_path) == "None"
