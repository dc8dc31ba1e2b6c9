"""Which Debian release carries which Xen, and what each image is made of."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Release:
    """A Xen version and the Debian release that ships it with matching tools."""

    xen: str
    suite: str

    def dom0_packages(self) -> list[str]:
        """What dom0 has: Xen, a kernel, and the daemon's dependencies from the distribution."""
        return [
            f"xen-hypervisor-{self.xen}-amd64",
            f"xen-utils-{self.xen}",
            "xenstore-utils",
            "linux-image-amd64",
            "kmod",
            "mount",
            "zstd",
            "python3",
            "python3-pip",
            "python3-trio",
            "python3-cffi",
            "python3-structlog",
            "python3-click",
            "python3-prometheus-client",
        ]

    def build_packages(self) -> list[str]:
        """What turns a checkout into a wheel with both extension modules."""
        return [
            "gcc",
            "libc6-dev",
            "libxen-dev",
            "pkg-config",
            "python3-cffi",
            "python3-dev",
            "python3-pip",
            "python3-setuptools",
            "python3-wheel",
        ]


RELEASES = {release.xen: release for release in (Release("4.17", "bookworm"), Release("4.20", "trixie"))}
