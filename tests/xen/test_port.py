"""XenPort on a machine without Xen.

The extension is linked against Xen's libraries by name. So four fakes with those names, built here from C against
Xen's own headers, stand before them on LD_LIBRARY_PATH in a process of their own, in which the cases of
tests/fakexen/*_cases.py then run. One of them also stands before libc, to be the event-channel device.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FAKES = Path(__file__).resolve().parent.parent / "fakexen"
FLAGS = ["-std=gnu11", "-g", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", "-D__XEN_TOOLS__=1"]
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
#: library: (sources, whether Xen has a library of that name)
LIBRARIES = {
    "libfakexen.so": (["fakexen.c", "device.c"], False),
    "libxendevicemodel.so.1": (["devicemodel.c"], True),
    "libxenforeignmemory.so.1": (["foreignmemory.c"], True),
    "libxenevtchn.so.1": (["evtchn.c"], True),
    "libxentoolcore.so.1": (["toolcore.c"], True),
}


def has_xen_headers() -> bool:
    if shutil.which("pkg-config") is None:
        return False
    return subprocess.run(["pkg-config", "--exists", "xendevicemodel"], check=False).returncode == 0


@pytest.fixture(scope="module")
def fake_libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fakexen")
    for name, (sources, public) in LIBRARIES.items():
        command = [os.environ.get("CC", "cc"), *FLAGS, *WARNINGS, f"-Wl,-soname,{name}", "-o", str(folder / name)]
        command += [str(FAKES / source) for source in sources]
        if public:
            # The exports come from the version script, whose nodes are those of Xen's libraries (tools/libs/*/*.map).
            command += ["-fvisibility=default", f"-Wl,--version-script={FAKES / Path(sources[0]).with_suffix('.map')}"]
            command += [f"-L{folder}", "-lfakexen"]
        subprocess.run(command, check=True)
    return folder


@pytest.mark.skipif(not has_xen_headers(), reason="libxen-dev is not installed, so _xen is not built")
def test_port_on_fake_libraries(fake_libraries: Path) -> None:
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(fake_libraries),
        "LD_PRELOAD": ":".join(filter(None, [os.environ.get("LD_PRELOAD"), str(fake_libraries / "libfakexen.so")])),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    cases = [str(path) for path in sorted(FAKES.glob("*_cases.py"))]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *cases]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
