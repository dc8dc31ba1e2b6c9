"""Finds the ``_xen`` extension and the running Xen, and checks what must hold before a domain can be opened."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from xengt_dm.errors import HostError

if TYPE_CHECKING:
    from cffi import FFI

    from xengt_dm._xen import _Lib

#: drivers/xen/sys-hypervisor.c; Documentation/ABI/stable/sysfs-hypervisor-xen.
SYS_HYPERVISOR: Final = Path("/sys/hypervisor")

#: The oldest Xen that is supported. Before 4.13 Xen crashes a domain whose device model changes a page's type while it
#: answers a store to that page (xen commit 522a2f3c5c). Before 4.12 REP STOS and MOVS bypass the trap (d7bff2bc00).
MINIMUM_VERSION: Final = (4, 13)


class Binding(NamedTuple):
    """The two objects of the extension module ``_xen``."""

    ffi: FFI
    lib: _Lib


class XenVersion(NamedTuple):
    """The version of the running Xen."""

    major: int
    minor: int
    extra: str

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}{self.extra}"

    @property
    def supported(self) -> bool:
        """Whether xengt-dm supports this version."""
        return (self.major, self.minor) >= MINIMUM_VERSION


def load() -> Binding:
    """Returns the ``_xen`` extension.

    Raises HostError: ENOSYS if this installation was built without it, ELIBACC if the extension, or a library of Xen
    that it needs, cannot be loaded.
    """
    try:
        from xengt_dm._xen import ffi, lib
    except ModuleNotFoundError as error:
        meaning = "xengt-dm was built without _xen: install libxen-dev and pkg-config, then install it again"
        if error.name != "xengt_dm._xen":
            meaning = str(error)
        raise HostError("import xengt_dm._xen", None, errno.ENOSYS, meaning) from error
    except ImportError as error:
        raise HostError("import xengt_dm._xen", None, errno.ELIBACC, str(error)) from error
    return Binding(ffi, lib)


def read_version(sys_hypervisor: Path | None = None) -> XenVersion | None:
    """Returns the version of the running Xen from sysfs, or None if there is no Xen or the kernel does not tell."""
    folder = (SYS_HYPERVISOR if sys_hypervisor is None else sys_hypervisor) / "version"
    try:
        major, minor, extra = ((folder / name).read_text().strip() for name in ("major", "minor", "extra"))
        return XenVersion(int(major), int(minor), extra)
    except (OSError, ValueError):
        return None


def require_version() -> None:
    """Raises HostError if the running Xen is too old, because it could harm the guest.

    The version comes from sysfs: the version hypercall needs libxencall and is refused to a restricted handle. A kernel
    without that part of sysfs (CONFIG_XEN_SYS_HYPERVISOR) passes this check. The next step detects an old Xen then:
    only Xen 4.15 and later answer xendevicemodel_nr_vcpus.
    """
    version = read_version()
    if version is not None and not version.supported:
        floor = ".".join(map(str, MINIMUM_VERSION))
        meaning = f"this is Xen {version}, which can lose stores or crash the guest; {floor} or later is needed"
        raise HostError("read /sys/hypervisor/version", None, errno.EOPNOTSUPP, meaning)
