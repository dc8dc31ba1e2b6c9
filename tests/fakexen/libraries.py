"""Four fakes of Xen's libraries, made here from C against Xen's own headers.

The extension module is linked against Xen's libraries by name. So these, which have those names, stand before them on
LD_LIBRARY_PATH in a process of their own. One of them also stands before libc, to be the event-channel device.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
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
    """Whether there is anything to compile them against; without, there is no ``_xen`` either."""
    if shutil.which("pkg-config") is None:
        return False
    return subprocess.run(["pkg-config", "--exists", "xendevicemodel"], check=False).returncode == 0


def build(folder: Path) -> None:
    """Compile all of them into a folder."""
    for name, (sources, public) in LIBRARIES.items():
        command = [os.environ.get("CC", "cc"), *FLAGS, *WARNINGS, f"-Wl,-soname,{name}", "-o", str(folder / name)]
        command += [str(SOURCES / source) for source in sources]
        if public:
            # The exports come from the version script, whose nodes are those of Xen's libraries (tools/libs/*/*.map).
            script = SOURCES / Path(sources[0]).with_suffix(".map")
            command += ["-fvisibility=default", f"-Wl,--version-script={script}", f"-L{folder}", "-lfakexen"]
        subprocess.run(command, check=True)


def environment(folder: Path) -> dict[str, str]:
    """The variables with which a process has the fakes in a folder for Xen's libraries."""
    preloaded = filter(None, [os.environ.get("LD_PRELOAD"), str(folder / "libfakexen.so")])
    return {"LD_LIBRARY_PATH": str(folder), "LD_PRELOAD": ":".join(preloaded)}
