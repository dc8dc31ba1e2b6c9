"""The archive that this machine's own apt uses, for any Debian release."""

from . import command
from .errors import LabError

# What apt was told about reaching the archive holds for the images as well; everything else in its configuration is
# about this machine.
_TRANSPORT = ("Acquire::http", "Acquire::https", "Acquire::Check-Date", "Acquire::Check-Valid-Until")


def sources(suite: str) -> list[str]:
    """sources.list lines for a release with its updates and security fixes. Raises LabError if apt has no Debian."""
    listing = command.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)", "Created-By: Packages"],
        what="reading apt's sources",
    )
    uris: dict[str, str] = {}
    for line in listing.splitlines():
        origin, label, component, uri = line.split("|", 3)
        if origin == "Debian" and component == "main":
            uris.setdefault(label, uri)
    if "Debian" not in uris:
        raise LabError("this machine's apt has no Debian archive (run apt-get update, or add one to its sources)")
    lines = [f"deb {uris['Debian']} {suite} main", f"deb {uris['Debian']} {suite}-updates main"]
    if "Debian-Security" in uris:
        lines.append(f"deb {uris['Debian-Security']} {suite}-security main")
    return lines


def options() -> list[str]:
    """apt.conf lines about proxies and checks that this machine's apt obeys."""
    dump = command.run(["apt-config", "dump"], what="reading apt's configuration")
    return [line for line in dump.splitlines() if line.startswith(_TRANSPORT) and not line.endswith('"";')]
