"""The setup script: which extension modules this machine can build.

``_core`` and ``_embedded`` need a C compiler and nothing else. ``_xen`` needs Xen's headers; where they are missing it
is left out with one line that says so, and the embedded hypervisor still works.
"""

import subprocess
import sys
from pathlib import Path

from setuptools import setup

# The build scripts, which cffi executes one by one, import each other.
sys.path.insert(0, str(Path(__file__).resolve().parent))

# devicemodel 1.4, foreignmemory 1.4 and evtchn 1.2 are Xen 4.15's (tools/libs/*/Makefile); toolcore 1.0 is Xen 4.10's.
XEN_LIBRARIES = {"xendevicemodel": "1.4", "xenforeignmemory": "1.4", "xenevtchn": "1.2", "xentoolcore": "1.0"}


def missing_xen_libraries() -> list[str]:
    """The names, with floors, of the Xen libraries that pkg-config does not find; also names pkg-config itself."""
    missing = []
    for name, floor in XEN_LIBRARIES.items():
        try:
            found = subprocess.run(["pkg-config", f"--atleast-version={floor}", name], check=False).returncode == 0
        except FileNotFoundError:
            return ["pkg-config"]
        if not found:
            missing.append(f"{name} >= {floor}")
    return missing


modules = ["cffi_build/build_core.py:make_ffi", "cffi_build/build_embedded.py:make_ffi"]
missing = missing_xen_libraries()
if missing:
    print(f"xengt-dm: building without _xen, missing {', '.join(missing)} (package libxen-dev)", file=sys.stderr)
else:
    modules.append("cffi_build/build_xen.py:make_ffi")

setup(
    license="MIT", license_files=["LICENSE"], cffi_modules=modules, options={"bdist_wheel": {"py_limited_api": "cp311"}}
)
