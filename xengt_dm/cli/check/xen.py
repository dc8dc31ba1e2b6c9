"""Checks of the Xen that this host has, or not."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Final

from xengt_dm.cli.check.finding import Finding, Host, State
from xengt_dm.errors import HostError
from xengt_dm.hypervisor.xen import library
from xengt_dm.printable import printable
from xengt_dm.xenstore import XenStore


def check_xen(host: Host) -> Iterator[Finding]:
    """Are we the control domain of a Xen?"""
    if not host.on_xen:
        yield Finding(
            "xen",
            State.MISSING,
            "this machine does not run on Xen",
            "install Xen (Debian: apt install xen-system-amd64) and boot its entry; `xengt-dm demo` works without",
        )
        return
    capabilities = host.text("/proc/xen/capabilities")
    if capabilities is None:
        yield Finding(
            "xen",
            State.WARNING,
            "on Xen, but /proc/xen/capabilities cannot be read: is this the control domain?",
            "mount -t xenfs xenfs /proc/xen",
        )
    elif "control_d" in capabilities:
        yield Finding("xen", State.OK, "this is the control domain of a Xen")
    else:
        yield Finding(
            "xen", State.MISSING, "this is a guest of a Xen, not its control domain", "run it in dom0 of the host"
        )
    if (host.text("/sys/hypervisor/guest_type") or "PV") != "PV":
        yield Finding(
            "control domain",
            State.WARNING,
            "the control domain is not of type PV: xengt-dm was only ever tried from a PV one",
        )


def check_version(host: Host) -> Iterator[Finding]:
    """Is this Xen new enough not to harm the guest?"""
    if not host.on_xen:
        return
    floor = ".".join(map(str, library.MINIMUM_VERSION))
    version = library.read_version(host.path("/sys/hypervisor"))
    if version is None:
        yield Finding(
            "xen version",
            State.WARNING,
            f"/sys/hypervisor/version does not tell; `run` needs {floor}",
            "ask `xl info xen_version`; a kernel with CONFIG_XEN_SYS_HYPERVISOR tells by itself",
        )
    elif version.supported:
        yield Finding("xen version", State.OK, f"{version} (needs {floor})")
    else:
        yield Finding(
            "xen version",
            State.MISSING,
            f"{version} can lose stores or crash the guest; `run` needs {floor}",
            "upgrade Xen",
        )


def check_paging(host: Host) -> Iterator[Finding]:
    """Can guests have hardware-assisted paging? Only the toolstack tells; no stable interface does."""
    if not host.on_xen:
        return
    capabilities = host.text("/sys/hypervisor/properties/capabilities")
    if capabilities is not None and "hvm-" not in capabilities:
        yield Finding(
            "hvm",
            State.MISSING,
            "this Xen cannot run HVM or PVH guests",
            "switch on VT-x or AMD-V in the machine's firmware setup",
        )
        return
    info = host.output_of(["xl", "info", "virt_caps"])
    if info is None:
        yield Finding(
            "hap",
            State.WARNING,
            "hardware-assisted paging, which write trapping needs: could not be told without `xl info`",
            "look for `Hardware Assisted Paging (HAP) detected` in `xl dmesg`",
        )
    elif "hap" in info.split():
        yield Finding("hap", State.OK, "hardware-assisted paging is there (a guest with hap=0 still goes without)")
    else:
        yield Finding(
            "hap",
            State.MISSING,
            "no hardware-assisted paging: write trapping needs it",
            "use a CPU with EPT or NPT, and no hap=0 on Xen's command line",
        )


#: (device node, module that makes it, needed by `run`)
DEVICES: Final = (
    ("/dev/xen/privcmd", "xen-privcmd", True),
    ("/dev/xen/evtchn", "xen-evtchn", True),
    ("/dev/xen/hypercall", "xen-privcmd", False),
)


def check_devices(host: Host) -> Iterator[Finding]:
    """Are Xen's device nodes there, and may we open them? /dev/xen/xenbus is only the second door to the store."""
    if not host.on_xen:
        yield Finding("device nodes", State.MISSING, "/dev/xen comes with Xen")
        return
    for node, module, needed in DEVICES:
        worst = State.MISSING if needed else State.WARNING
        path = host.path(node)
        if not path.exists():
            yield Finding(node, worst, "no such device node", f"modprobe {module}")
        elif not os.access(path, os.R_OK | os.W_OK):
            yield Finding(node, worst, "not permitted to read and write", "run as root, or hand the node to this user")
        else:
            yield Finding(node, State.OK, "readable and writable")


MODULES: Final = ("xen_privcmd", "xen_evtchn", "xenfs")


def check_modules(host: Host) -> Iterator[Finding]:
    """Are the kernel's Xen modules loaded? One that is built in shows as its device node alone."""
    if not host.on_xen:
        return
    absent = [name for name in MODULES if not host.path(f"/sys/module/{name}").exists()]
    if not absent:
        yield Finding("kernel modules", State.OK, f"{', '.join(MODULES)} loaded")
    else:
        yield Finding(
            "kernel modules",
            State.WARNING,
            f"{', '.join(absent)} not loaded (fine if built into the kernel)",
            f"modprobe -a {' '.join(absent)}",
        )


def check_xenstore(host: Host) -> Iterator[Finding]:
    """Does the store answer, and does it know the domain?"""
    if not host.on_xen:
        yield Finding("xenstore", State.MISSING, "comes with Xen")
        return
    remedy = "start xenstored (Debian: systemctl start xenstored), and run as root"
    try:
        with host.store() as store:
            store.directory("/local/domain")
            yield Finding("xenstore", State.OK, "answers")
            if host.domid is not None:
                yield from check_domain(store, host.domid)
    except HostError as error:
        yield Finding("xenstore", State.MISSING, error.meaning, remedy)


def check_domain(store: XenStore, domid: int) -> Iterator[Finding]:
    """What the store tells about one domain."""
    name = f"domain {domid}"
    home = f"/local/domain/{domid}"
    if not store.exists(home):
        yield Finding(name, State.MISSING, "no such domain", "`xl list` shows those that run")
        return
    kind = read_or_none(store, f"/libxl/{domid}/type")
    if domid == 0 or kind == "pv":
        yield Finding(name, State.MISSING, "not an HVM or PVH domain", 'use type = "pvh" or type = "hvm"')
        return
    told = f"{printable(read_or_none(store, f'{home}/name') or 'no name')}, type {printable(kind or 'unknown')}"
    if read_or_none(store, f"{home}/memory/static-max") is None:
        yield Finding(name, State.MISSING, f"{told}, but no memory/static-max", "its toolstack should write that node")
    else:
        yield Finding(name, State.OK, told)


def read_or_none(store: XenStore, path: str) -> str | None:
    """Returns a node of xenstore; None if it does not exist or may not be read. Raises HostError."""
    try:
        return store.read(path)
    except HostError as error:
        if error.errno in (errno.ENOENT, errno.EACCES):
            return None
        raise
